//! A tile or entry bundle that can be read is written the same.
#![no_main]
use quittance_evidence::tile::{Entries, Tile, write_entry};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(tile) = Tile::decode(bytes) {
        assert_eq!(tile.encode(), bytes);
    }
    if let Ok(entries) = Entries::new(bytes).collect::<Result<Vec<_>, _>>() {
        let mut written = Vec::new();
        for entry in entries {
            write_entry(&mut written, entry).unwrap();
        }
        assert_eq!(written, bytes);
    }
});
