//! An evidence bundle that can be read is written the same, and proves nothing without keys.
#![no_main]
use quittance_evidence::{bundle::{Bundle, TrustedKeys}, page};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(bundle) = Bundle::decode(bytes) {
        assert_eq!(bundle.encode().unwrap(), bytes);
        assert!(!bundle.verify(&TrustedKeys::default()).is_proved());
        page::render(bytes, &TrustedKeys::default()).unwrap();
    }
});
