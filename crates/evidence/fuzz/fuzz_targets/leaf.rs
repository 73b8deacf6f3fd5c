//! An entry that can be read is written the same.
#![no_main]
use quittance_evidence::{Disclosure, Leaf};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(leaf) = Leaf::decode(bytes) {
        assert_eq!(leaf.encode().unwrap().as_bytes(), bytes);
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(disclosure) = Disclosure::parse(text)
    {
        assert_eq!(disclosure.encode(), text);
    }
});
