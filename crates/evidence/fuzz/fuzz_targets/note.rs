//! A note that can be read is written the same; no made-up note verifies.
#![no_main]
use quittance_evidence::note::{KeyName, Note, Signature, SigningKey};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(note) = Note::parse(bytes) {
        assert_eq!(note.to_string().as_bytes(), bytes);
        let key = SigningKey::from_seed(KeyName::new("k").unwrap(), &[7; 32]);
        assert!(note.verify(&[key.verifier().clone()]).is_err());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Signature::parse_lines(text);
    }
});
