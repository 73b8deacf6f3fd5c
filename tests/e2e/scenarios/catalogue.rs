//! `tests/README.md` lists every scenario, and every test that it names exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const SCENARIOS: u32 = 82;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Names of all test functions below a directory.
fn tests_in(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            tests_in(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim_start) {
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                let name = line
                    .strip_prefix("async ")
                    .unwrap_or(line)
                    .strip_prefix("fn ");
                if let Some((name, _)) = name.and_then(|name| name.split_once('(')) {
                    if is_test {
                        names.insert(name.to_owned());
                    }
                    is_test = false;
                }
            }
        }
    }
}

/// The rows of the catalogue: number, the tests named, and whether it says that it is pending.
fn catalogue() -> BTreeMap<u32, (Vec<String>, bool)> {
    let text = std::fs::read_to_string(root().join("tests/README.md")).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Some(number) = cells.first().and_then(|cell| cell.parse::<u32>().ok()) else {
            continue;
        };
        let last = *cells.last().unwrap();
        let named = last
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect();
        let earlier = rows.insert(number, (named, last.contains("pending")));
        assert!(earlier.is_none(), "scenario {number} has two rows");
    }
    rows
}

#[test]
fn every_scenario_is_in_the_catalogue_with_tests_or_as_pending() {
    let rows = catalogue();
    let numbers: Vec<_> = rows.keys().copied().collect();
    assert_eq!(numbers, (1..=SCENARIOS).collect::<Vec<_>>());
    for (number, (named, pending)) in rows {
        assert!(
            pending || !named.is_empty(),
            "scenario {number} has neither tests nor `pending`"
        );
    }
}

#[test]
fn every_test_of_the_catalogue_exists_and_every_numbered_test_is_in_it() {
    let mut tests = BTreeSet::new();
    tests_in(&root().join("crates"), &mut tests);
    tests_in(&root().join("tests"), &mut tests);
    let rows = catalogue();
    for (number, (named, _)) in &rows {
        for name in named {
            assert!(tests.contains(name), "scenario {number}: no test `{name}`");
        }
    }
    for test in tests {
        let Some((digits, _)) = test.strip_prefix('s').and_then(|rest| rest.split_once('_')) else {
            continue;
        };
        if let Ok(number) = digits.parse::<u32>() {
            let row = rows
                .get(&number)
                .unwrap_or_else(|| panic!("{test} is no scenario"));
            assert!(
                row.0.contains(&test),
                "`{test}` is not in the row of scenario {number}"
            );
        }
    }
}
