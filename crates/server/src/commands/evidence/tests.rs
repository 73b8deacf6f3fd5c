//! The command over the example of the documents.

use std::path::{Path, PathBuf};

use quittance_evidence::note::{KeyName, SigningKey, WitnessKey};

use super::*;

/// Keys of the example, as docs/evidence.md names them.
const KEYS: [&str; 3] = [
    "log.example/quittance+49f3df3a+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c",
    "log.example/quittance/receipts+720cb613+AYE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D1uPybOU",
    "witness.example/w1+d9ed62c5+BO1JKMYo0cLG6ukDOJBZlWEpWSc6XGP5NjbBRhSshzfR",
];

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/example-evidence.json")
}

fn verify_file(file: PathBuf, keys: &[&str], html: Option<PathBuf>) -> Result<(), String> {
    let keys = keys.iter().map(|key| key.parse().unwrap()).collect();
    let command = EvidenceCommand::Verify(VerifyArgs { file, keys, html });
    run(command).map_err(|error| error.to_string())
}

#[test]
fn the_example_is_proved_offline_and_drawn_as_a_page() {
    let directory = tempfile::tempdir().unwrap();
    let html = directory.path().join("page.html");
    assert_eq!(verify_file(example(), &KEYS, Some(html.clone())), Ok(()));
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("Proved") && page.contains("order-4711"));
    // A witness says when; that all of it is so, the log's keys say.
    assert_eq!(verify_file(example(), &KEYS[..2], None), Ok(()));
}

#[test]
fn a_witness_whose_key_is_given_and_that_has_not_cosigned_is_an_error() {
    let other = SigningKey::from_seed(KeyName::new("witness.example/w2").unwrap(), &[7; 32]);
    let other = WitnessKey::from(other).verifier().to_string();
    let keys = [KEYS[0], KEYS[1], KEYS[2], &other];
    let not_proved = "the bundle does not prove what it claims";
    assert_eq!(verify_file(example(), &keys, None), Err(not_proved.to_owned()));
}

#[test]
fn what_is_changed_or_signed_by_nobody_trusted_is_an_error() {
    let not_proved = "the bundle does not prove what it claims";
    let untrusted = verify_file(example(), &KEYS[2..], None);
    assert_eq!(untrusted, Err(not_proved.to_owned()));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("changed.json");
    let text = std::fs::read_to_string(example()).unwrap();
    std::fs::write(&file, text.replace("12345", "12346")).unwrap();
    assert_eq!(verify_file(file.clone(), &KEYS, None), Err(not_proved.to_owned()));
    std::fs::write(&file, "{}").unwrap();
    let malformed = verify_file(file.clone(), &KEYS, None).unwrap_err();
    assert!(malformed.starts_with("not an evidence bundle"), "{malformed}");
    std::fs::remove_file(&file).unwrap();
    assert!(verify_file(file, &KEYS, None).unwrap_err().starts_with("cannot read"));
}
