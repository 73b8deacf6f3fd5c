//! Each signed text that can be read is written the same.
#![no_main]
use quittance_evidence::{Checkpoint, LastEntry, Receipt, witness::AddCheckpoint};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(read) = Checkpoint::parse_text(text) {
        assert_eq!(read.text(), text);
    }
    if let Ok(read) = Receipt::parse_text(text) {
        assert_eq!(read.text(), text);
    }
    if let Ok(read) = LastEntry::parse_text(text) {
        assert_eq!(read.text(), text);
    }
    if let Ok(read) = AddCheckpoint::parse(text.as_bytes()) {
        assert_eq!(read.to_string(), text);
    }
});
