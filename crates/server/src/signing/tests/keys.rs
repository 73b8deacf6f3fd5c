//! The key files: who may read them, which belong together, and which of the keys of receipts signs what.

use super::*;

#[test]
fn s79_a_key_that_others_may_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    set_up(directory.path(), ORIGIN).unwrap();
    let config = config(directory.path());
    let keys = LogKeys::load(&config).unwrap();
    let shown = format!("{keys:?}");
    let secret = fs::read_to_string(&config.receipt_keys[0].file).unwrap();
    assert!(!shown.contains(secret.trim()), "no key is ever shown");
    for mode in [0o640, 0o604, 0o660, 0o601] {
        let path = &config.log_key_files[0];
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let refused = LogKeys::load(&config).unwrap_err().to_string();
        assert!(refused.contains("chmod 600"), "{mode:o}: {refused}");
    }
}

#[test]
fn keys_that_do_not_belong_together_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    set_up(directory.path(), ORIGIN).unwrap();
    let right = config(directory.path());
    let log = right.log_key_files[0].clone();
    let twice = SigningConfig {
        log_key_files: vec![log.clone(), log.clone()],
        ..right.clone()
    };
    let as_receipts = SigningConfig {
        receipt_keys: vec![ReceiptKeyConfig::of_file(log.clone())],
        ..right.clone()
    };
    let other = SigningConfig {
        log_key_files: vec![log, right.receipt_keys[0].file.clone()],
        ..right.clone()
    };
    let elsewhere = tempfile::tempdir().unwrap();
    set_up(elsewhere.path(), "quittance.test/other").unwrap();
    let of_another_log = SigningConfig {
        receipt_keys: config(elsewhere.path()).receipt_keys,
        ..right.clone()
    };
    let receipts_twice = SigningConfig {
        receipt_keys: [right.receipt_keys.clone(), right.receipt_keys.clone()].concat(),
        ..right.clone()
    };
    for wrong in [twice, as_receipts, other, of_another_log, receipts_twice] {
        let refused = LogKeys::load(&wrong).unwrap_err();
        assert!(
            matches!(refused, KeyFileError::Mismatch { .. }),
            "{refused}"
        );
    }
    // Neither a log under the name of a key of receipts, nor such a key under another.
    let of_receipts = receipts_name(&KeyName::new(ORIGIN).unwrap()).unwrap();
    let beside = directory.path().join("beside");
    let refused = generate(&beside, &of_receipts).unwrap_err();
    assert!(
        matches!(refused, KeyFileError::Mismatch { .. }),
        "{refused}"
    );
    let file = directory.path().join("speaker.key");
    new_key(&file, &KeyName::new(format!("{ORIGIN}/speaker")).unwrap()).unwrap();
    let speaker = SigningConfig {
        receipt_keys: vec![ReceiptKeyConfig::of_file(file)],
        ..right.clone()
    };
    let refused = LogKeys::load(&speaker).unwrap_err();
    assert!(
        matches!(refused, KeyFileError::Mismatch { .. }),
        "{refused}"
    );
    // A key that is there is never written over.
    let name = KeyName::new(ORIGIN).unwrap();
    assert!(matches!(
        generate(directory.path(), &name),
        Err(KeyFileError::Io { .. })
    ));
}

/// By when it was recorded, not by when it is signed.
#[test]
fn a_receipt_is_signed_by_the_keys_in_whose_time_its_entry_was_recorded() {
    let directory = tempfile::tempdir().unwrap();
    set_up(directory.path(), ORIGIN).unwrap();
    let mut config = config(directory.path());
    let at = |second| DateTime::from_timestamp(second, 0).unwrap();
    let name = receipts_name(&KeyName::new(ORIGIN).unwrap()).unwrap();
    let made = |file: &str, from, until| {
        let file = directory.path().join(file);
        let key = new_key(&file, &name).unwrap();
        let key_config = ReceiptKeyConfig { file, from, until };
        (key, key_config)
    };
    let (newest, newest_config) = made("newest.key", Some(at(50)), None);
    let (middle, middle_config) = made("middle.key", Some(at(20)), Some(at(60)));
    let (oldest, oldest_config) = made("oldest.key", Some(at(10)), Some(at(20)));
    config.receipt_keys = vec![newest_config, middle_config, oldest_config];
    let keys = LogKeys::load(&config).unwrap();
    let signing = |second| -> Vec<VerifierKey> {
        let keys = keys.receipts_at(at(second));
        keys.into_iter().map(|key| key.verifier().clone()).collect()
    };
    let alone = |key: &VerifierKey| vec![key.clone()];
    assert_eq!(signing(1), alone(&oldest), "nobody older is at hand");
    assert_eq!(signing(19), alone(&oldest));
    assert_eq!(signing(20), alone(&middle));
    assert_eq!(signing(50), [newest.clone(), middle]);
    assert_eq!(signing(60), alone(&newest));
    assert_eq!(keys.receipts(), &newest);
}
