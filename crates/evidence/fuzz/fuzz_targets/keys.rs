//! A key that can be read is written the same.
#![no_main]
use quittance_evidence::note::{SigningKey, VerifierKey};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(key) = SigningKey::parse(text) {
        assert_eq!(key.to_secret_text().as_str(), text.trim());
    }
});
