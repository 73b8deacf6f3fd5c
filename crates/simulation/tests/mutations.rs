//! Every mutation of `make mutate` still finds the text that it changes.
#![allow(clippy::unwrap_used, dead_code)]

#[path = "../examples/mutate/list.rs"]
mod list;

use std::path::Path;

#[test]
fn every_mutation_still_fits_the_text_that_it_changes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for mutation in list::MUTATIONS {
        let text = std::fs::read_to_string(root.join(mutation.file)).unwrap();
        assert_eq!(
            text.matches(mutation.text).count(),
            1,
            "{}: {}: in {}",
            mutation.breaks,
            mutation.defect,
            mutation.file
        );
    }
}

/// I1 to I13: each has a defect that breaks it.
const INVARIANTS: u8 = 13;

#[test]
fn every_invariant_is_broken_by_a_mutation() {
    for number in 1..=INVARIANTS {
        let name = format!("I{number}");
        let broken = list::MUTATIONS.iter().any(|row| row.breaks == name);
        assert!(broken, "no mutation breaks {name}");
    }
}
