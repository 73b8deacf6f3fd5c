//! A key that speaks for a log, as that of receipts does, is none.

use std::{fs, path::Path};

use quittance_evidence::{bundle::TrustedKeys, note::SigningKey};
use uuid::Uuid;

use super::shared_python::verify_evidence;
use super::support::log::key;
use super::{LOGS, PYTHON, proved};

#[test]
fn s75_a_key_of_receipts_alone_makes_no_log_to_either_verifier() {
    let Some(python) = &*PYTHON else {
        return;
    };
    let log = &LOGS[0];
    let speaker = key("log.example/quittance/statements", 9);
    let other = key("log.example/quittance-eu", 9);
    let receipts = log.receipts.verifier().clone();
    let and = |key: &SigningKey| [log.verifiers(), vec![key.verifier().clone()]].concat();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-receipts-alone.json");
    for (by, keys, expected) in [
        (&log.receipts, log.verifiers(), false),
        (&log.receipts, vec![receipts], false),
        (&speaker, and(&speaker), false),
        (&other, and(&other), true),
    ] {
        let forged = log.bundle_by(Uuid::from_u128(1), by).encode().unwrap();
        fs::write(&file, &forged).unwrap();
        let output = verify_evidence(python, keys.clone()).arg(&file).output();
        let said = String::from_utf8(output.unwrap().stdout).unwrap();
        assert_eq!(said.contains(": PROVED: "), expected, "{said}");
        assert_eq!(proved(&forged, &TrustedKeys::new(keys)), expected);
    }
}
