//! How much memory it takes to refuse a file that is made to take much: a test binary of its own, with one test, since what
//! is measured is the process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use quittance_evidence::bundle::{Bundle, BundleFormError, MAX_BUNDLE_BYTES};

/// The most memory that the process had so far, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse::<usize>().unwrap() * 1_024
}

/// A file as long as may be, full of the shortest items.
fn full_of(before: &str, item: &str, after: &str) -> Vec<u8> {
    let room = MAX_BUNDLE_BYTES - before.len() - after.len();
    let mut text = String::with_capacity(MAX_BUNDLE_BYTES);
    text.push_str(before);
    for _ in 0..room / item.len() {
        text.push_str(item);
    }
    text.truncate(text.len() - 1);
    text.push_str(after);
    text.into_bytes()
}

#[test]
fn a_file_of_many_small_items_is_refused_without_taking_many_times_its_length() {
    let rest = r#""format":"quittance evidence bundle v1","last_entry":"","payment_id":"00000000-0000-0000-0000-000000000000"}"#;
    let hash = format!("\"{}\",", "0".repeat(64));
    let disclosures = (
        r#"{"checkpoint":"","disclosures":["#.to_owned(),
        "\"\",".to_owned(),
        format!("],\"entries\":[],{rest}"),
        "disclosures",
    );
    let entries = (
        r#"{"checkpoint":"","disclosures":[],"entries":["#.to_owned(),
        r#"{"inclusion_proof":[],"leaf_data":"","leaf_index":"0"},"#.to_owned(),
        format!("],{rest}"),
        "entries",
    );
    let proof = (
        r#"{"checkpoint":"","disclosures":[],"entries":[{"inclusion_proof":["#.to_owned(),
        hash,
        format!("],\"leaf_data\":\"\",\"leaf_index\":\"0\"}}],{rest}"),
        "hashes in a proof",
    );
    for (before, item, after, of) in [disclosures, entries, proof] {
        let file = full_of(&before, &item, &after);
        let held = peak();
        let refused = Bundle::decode(&file).unwrap_err();
        let taken = peak() - held;
        let expected = matches!(refused, BundleFormError::TooMany { what, given, .. }
            if what == of && given == (file.len() - before.len() - after.len() + 1) / item.len());
        assert!(expected, "{refused}");
        assert!(taken < 8 << 20, "{of}: {taken} bytes more");
    }
}
