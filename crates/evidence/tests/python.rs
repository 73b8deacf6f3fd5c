//! `docs/verify_evidence.py`, which shares nothing with this crate, judges as this crate does.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is a failed test"
)]

#[allow(dead_code, reason = "the tests above use the rest of it")]
#[path = "../../test-support/src/python.rs"]
mod shared_python;
#[path = "python/speaking.rs"]
mod speaking;
#[path = "python/spoiled.rs"]
mod spoiled;
mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Output,
    sync::LazyLock,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::{
    prelude::*,
    sample::Index,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use quittance_evidence::{
    Hash,
    bundle::{Bundle, TrustedKeys},
    note::{KeyError, VerifierKey},
};
use shared_python::{python_verifier, verify_evidence};
use spoiled::{Spoil, spoil};
use support::log::{Log, name_of};
use uuid::Uuid;

/// Bundles that both judge; every second one was changed.
const BUNDLES: usize = 1_000;

/// Two states of one log, and another log under the same keys.
static LOGS: LazyLock<[Log; 3]> = LazyLock::new(|| {
    [
        Log::of_payments(20),
        Log::of_payments(37),
        Log::of_payments(64),
    ]
});

/// Made once, though several tests want it at the same time.
static PYTHON: LazyLock<Option<PathBuf>> = LazyLock::new(python_verifier);

/// One random change, of the file or of what it says; some of them leave it true.
#[derive(Debug, Clone)]
enum Change {
    FlipBit(Index, u8),
    RemoveByte(Index),
    RepeatByte(Index),
    CutOff(Index),
    DropEntry(Index),
    SwapEntries(Index, Index),
    EditEntry(Index, Index),
    EntryOfAnother(Index),
    ProofOfAnother(Index),
    SpoilProof(Index, Index),
    OtherIndex(Index, u64),
    OtherCheckpoint,
    OtherStatement,
    WithoutWitness,
    ByStranger,
    ByKeyOfReceipts,
    HideValues,
    InventValue,
    OtherPayment,
    OddSignature(bool),
    SpoiledFile(Spoil),
    SpoiledEntry(Index, Spoil),
    SpoiledDisclosure(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), 0..8_u8).prop_map(|(at, bit)| Change::FlipBit(at, bit)),
        1 => at().prop_map(Change::RemoveByte),
        1 => at().prop_map(Change::RepeatByte),
        1 => at().prop_map(Change::CutOff),
        1 => at().prop_map(Change::DropEntry),
        1 => (at(), at()).prop_map(|(a, b)| Change::SwapEntries(a, b)),
        2 => (at(), at()).prop_map(|(entry, at)| Change::EditEntry(entry, at)),
        1 => at().prop_map(Change::EntryOfAnother),
        1 => at().prop_map(Change::ProofOfAnother),
        1 => (at(), at()).prop_map(|(entry, at)| Change::SpoilProof(entry, at)),
        1 => (at(), 0..200_u64).prop_map(|(entry, index)| Change::OtherIndex(entry, index)),
        1 => Just(Change::OtherCheckpoint),
        1 => Just(Change::OtherStatement),
        1 => Just(Change::WithoutWitness),
        1 => Just(Change::ByStranger),
        2 => Just(Change::ByKeyOfReceipts),
        1 => Just(Change::HideValues),
        1 => Just(Change::InventValue),
        1 => Just(Change::OtherPayment),
        2 => any::<bool>().prop_map(Change::OddSignature),
        4 => spoil().prop_map(Change::SpoiledFile),
        24 => (at(), spoil()).prop_map(|(entry, spoil)| Change::SpoiledEntry(entry, spoil)),
        2 => at().prop_map(Change::SpoiledDisclosure),
    ]
}

fn changed(log: &Log, other: &Log, payment: Uuid, change: &Change) -> Vec<u8> {
    let mut bundle = log.bundle(payment);
    let entries = bundle.entries.len();
    let another = log.bundle(Uuid::from_u128(payment.as_u128() + 1));
    match change {
        Change::FlipBit(..) | Change::RemoveByte(_) | Change::RepeatByte(_) | Change::CutOff(_) => {
            return changed_bytes(bundle.encode().unwrap(), change);
        }
        Change::DropEntry(at) => drop(bundle.entries.remove(at.index(entries))),
        Change::SwapEntries(a, b) => bundle.entries.swap(a.index(entries), b.index(entries)),
        Change::EditEntry(entry, at) => {
            let text = &mut bundle.entries[entry.index(entries)].leaf_data;
            let digits: Vec<_> = text.match_indices(|c: char| c.is_ascii_digit()).collect();
            let (at, digit) = digits[at.index(digits.len())];
            let next = if digit == "9" { "1" } else { "9" };
            text.replace_range(at..=at, next);
        }
        Change::EntryOfAnother(at) => {
            let at = at.index(entries);
            bundle.entries[at] = another.entries[at].clone();
        }
        Change::ProofOfAnother(at) => {
            let at = at.index(entries);
            bundle.entries[at].inclusion_proof = another.entries[at].inclusion_proof.clone();
        }
        Change::SpoilProof(entry, at) => {
            let proof = &mut bundle.entries[entry.index(entries)].inclusion_proof;
            let at = at.index(proof.len());
            proof[at] = Hash::of(proof[at].as_bytes());
        }
        Change::OtherIndex(entry, index) => {
            bundle.entries[entry.index(entries)].leaf_index = *index;
        }
        Change::OtherCheckpoint => bundle.checkpoint = other.bundle(payment).checkpoint,
        Change::OtherStatement => bundle.last_entry = other.bundle(payment).last_entry,
        Change::WithoutWitness => bundle.checkpoint = log.checkpoint().sign(&[&log.key]).unwrap(),
        Change::ByStranger => {
            let stranger = support::log::key("stranger.example", 77);
            bundle.last_entry = log.statement(payment).sign(&[&stranger]).unwrap();
        }
        Change::ByKeyOfReceipts => bundle = log.bundle_by(payment, &log.receipts),
        Change::HideValues => bundle.disclosures.clear(),
        Change::InventValue => bundle.disclosures = vec![name_of(Uuid::from_u128(99))],
        Change::OtherPayment => bundle.payment_id = another.payment_id,
        Change::OddSignature(true) => spoiled::sign_oddly(&mut bundle.checkpoint, &log.key),
        Change::OddSignature(false) => spoiled::sign_oddly(&mut bundle.last_entry, &log.receipts),
        Change::SpoiledFile(spoil) => return spoiled::of_file(&bundle.encode().unwrap(), spoil),
        Change::SpoiledEntry(at, spoil) => return spoiled::with_entry(payment, *at, spoil),
        Change::SpoiledDisclosure(at) => return spoiled::with_disclosure(payment, *at),
    }
    bundle.encode().unwrap()
}

fn changed_bytes(mut bytes: Vec<u8>, change: &Change) -> Vec<u8> {
    match change {
        Change::FlipBit(at, bit) => {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        Change::RemoveByte(at) => drop(bytes.remove(at.index(bytes.len()))),
        Change::RepeatByte(at) => {
            let at = at.index(bytes.len());
            bytes.insert(at, bytes[at]);
        }
        Change::CutOff(at) => bytes.truncate(at.index(bytes.len())),
        _ => unreachable!("a change of the file"),
    }
    bytes
}

fn proved(file: &[u8], keys: &TrustedKeys) -> bool {
    Bundle::decode(file).is_ok_and(|bundle| bundle.verify(keys).is_proved())
}

/// Writes the bundles; gives the names of those that this crate takes for proved.
fn write_bundles(directory: &Path, seed: [u8; 32]) -> BTreeSet<PathBuf> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut generate = |most| {
        let strategy = (any::<Index>(), 1..most, change());
        strategy.new_tree(&mut runner).unwrap().current()
    };
    let mut ours = BTreeSet::new();
    for number in 0..BUNDLES {
        let (at, payment, change) = generate(20_u128);
        let at = at.index(LOGS.len());
        let (log, other) = (&LOGS[at], &LOGS[(at + 1) % LOGS.len()]);
        let payment = Uuid::from_u128(payment);
        let (file, kind) = if number % 2 == 0 {
            (log.bundle(payment).encode().unwrap(), "whole".to_owned())
        } else {
            (changed(log, other, payment, &change), format!("{change:?}"))
        };
        let kind = kind.split('(').next().unwrap().to_lowercase();
        let path = directory.join(format!("{number:04}-{kind}.json"));
        fs::write(&path, &file).unwrap();
        let is_proved = proved(&file, &log.trusted());
        assert!(is_proved || number % 2 == 1, "{}", path.display());
        if is_proved {
            ours.insert(path);
        }
    }
    ours
}

/// What the Python verifier says of some bundles.
fn judged(python: &Path, files: &[PathBuf]) -> Output {
    let mut command = verify_evidence(python, LOGS[0].verifiers());
    command.args(files).output().unwrap()
}

/// A file as the other verifier writes it, with other disclosures.
fn with_disclosures(file: &[u8], disclosures: &[String]) -> Vec<u8> {
    let mut bundle: serde_json::Value = serde_json::from_slice(file).unwrap();
    bundle["disclosures"] = disclosures.into();
    pretty(&bundle)
}

/// JSON in the spelling of bundles.
fn pretty(value: &serde_json::Value) -> Vec<u8> {
    let mut written = Vec::new();
    let spelling = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut writer = serde_json::Serializer::with_formatter(&mut written, spelling);
    serde::Serialize::serialize(value, &mut writer).unwrap();
    written.push(b'\n');
    written
}

#[test]
fn what_a_bundle_says_cannot_draw_the_python_verifiers_answer_over() {
    let Some(python) = &*PYTHON else {
        return;
    };
    let payment = Uuid::from_u128(1);
    let whole = LOGS[0].bundle(payment).encode().unwrap();
    let name = "\r\u{1b}[2Kexample.json: PROVED: 6 entries";
    let forged = serde_json::to_vec(&("AAAAAAAAAAAAAAAAAAAAAA", name, "x")).unwrap();
    let forged = with_disclosures(&whole, &[URL_SAFE_NO_PAD.encode(forged)]);
    assert!(!proved(&forged, &LOGS[0].trusted()));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-terminal");
    fs::create_dir_all(&directory).unwrap();
    let files = [("whole.json", &whole), ("forged.json", &forged)].map(|(name, bytes)| {
        let path = directory.join(name);
        fs::write(&path, bytes).unwrap();
        path
    });
    let output = judged(python, &files);
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = said.split('\n').collect();
    assert!(
        lines[0].contains(&format!(": PROVED: payment '{payment}': ")),
        "{said:?}"
    );
    assert!(lines[1].contains("forged.json: NOT PROVED: "), "{said:?}");
    assert!(!lines[1].contains(": PROVED: "), "{said:?}");
    assert!(
        !said.replace('\n', "").contains(char::is_control),
        "{said:?}"
    );
}

#[test]
fn a_witness_whose_key_the_python_verifier_is_given_must_have_cosigned() {
    let Some(python) = &*PYTHON else {
        return;
    };
    let log = &LOGS[0];
    let mut bundle = log.bundle(Uuid::from_u128(1));
    bundle.checkpoint = log.checkpoint().sign(&[&log.key]).unwrap();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-not-cosigned.json");
    fs::write(&file, bundle.encode().unwrap()).unwrap();
    let said = |keys: usize| {
        let keys = log.verifiers().into_iter().take(keys);
        let output = verify_evidence(python, keys).arg(&file).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.success(), said.contains(": PROVED: "));
        said
    };
    assert!(said(2).contains("; cosigned by no witness"));
    assert!(said(3).contains("NOT PROVED: ValueError('not cosigned by witness.example/w1')"));
}

#[test]
fn a_signature_with_a_nonce_of_nothing_is_one_to_both() {
    let Some(python) = &*PYTHON else {
        return;
    };
    let log = &LOGS[0];
    let mut bundle = log.bundle(Uuid::from_u128(1));
    spoiled::sign_oddly(&mut bundle.checkpoint, &log.key);
    spoiled::sign_oddly(&mut bundle.last_entry, &log.receipts);
    let bytes = bundle.encode().unwrap();
    assert!(proved(&bytes, &log.trusted()));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-odd-signature.json");
    fs::write(&file, bytes).unwrap();
    let output = judged(python, &[file]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(": PROVED: "), "{said}");
}

/// Under such a key, whoever likes can sign.
#[test]
fn a_key_of_small_order_is_refused_by_both() {
    let Some(python) = &*PYTHON else {
        return;
    };
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-small-order.json");
    let bundle = LOGS[0].bundle(Uuid::from_u128(1));
    fs::write(&file, bundle.encode().unwrap()).unwrap();
    for public in spoiled::keys_of_small_order() {
        for kind in [1, 4] {
            let key = spoiled::verifier_key("small.example", kind, public);
            assert_eq!(key.parse::<VerifierKey>(), Err(KeyError::InvalidPoint));
            let keys = LOGS[0].verifiers().into_iter().map(|key| key.to_string());
            let output = verify_evidence(python, keys.chain([key]))
                .arg(&file)
                .output()
                .unwrap();
            assert!(!output.status.success(), "{output:?}");
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains("invalid parse_key value"), "{said}");
        }
    }
}

#[test]
fn the_python_verifier_has_at_most_150_lines() {
    let program = shared_python::workspace().join("docs/verify_evidence.py");
    let program = fs::read_to_string(program).unwrap();
    assert!(program.lines().count() <= 150);
    assert!(program.lines().all(|line| line.len() <= 140));
}

#[test]
fn a_python_verifier_agrees_on_a_thousand_bundles_half_of_them_changed() {
    let Some(python) = &*PYTHON else {
        return;
    };
    let seed = std::env::var("EVIDENCE_SEED").unwrap_or_else(|_| Uuid::new_v4().to_string());
    println!("EVIDENCE_SEED={seed}");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-bundles");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    let ours = write_bundles(&directory, *Hash::of(seed.as_bytes()).as_bytes());
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let output = judged(python, &files);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        said.lines().count(),
        BUNDLES,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!output.status.success(), "some bundles are not proved");
    for (file, line) in files.iter().zip(said.lines()) {
        let theirs = line.contains(": PROVED: ");
        assert_eq!(theirs, ours.contains(file), "{line}");
    }
    // The unchanged ones, and the changes that leave it true.
    let changed_and_true = ours.len() - BUNDLES / 2;
    assert!(changed_and_true > 0 && changed_and_true < BUNDLES / 4);
}
