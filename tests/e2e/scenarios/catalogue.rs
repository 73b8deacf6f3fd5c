//! `tests/README.md` lists every scenario, and every test that it names exists. To write its rows anew after
//! adding or renaming tests: `UPDATE_DOCS=1 cargo test -p quittance-tests catalogue`.

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

/// All tests of the workspace, and those named after each scenario.
fn all_tests() -> (BTreeSet<String>, BTreeMap<u32, Vec<String>>) {
    let mut tests = BTreeSet::new();
    tests_in(&root().join("crates"), &mut tests);
    tests_in(&root().join("tests"), &mut tests);
    let mut numbered = BTreeMap::<u32, Vec<String>>::new();
    for test in &tests {
        let digits = test.strip_prefix('s').and_then(|rest| rest.split_once('_'));
        if let Some(number) = digits.and_then(|(digits, _)| digits.parse().ok()) {
            numbered.entry(number).or_default().push(test.clone());
        }
    }
    (tests, numbered)
}

/// The catalogue with the tests of today in its rows; what is pending stays as it is said.
fn brought_up_to_date(catalogue: &str, numbered: &BTreeMap<u32, Vec<String>>) -> String {
    let rows = catalogue.lines().map(|line| {
        let number = line
            .trim_matches(['|', ' '])
            .split_once(' ')
            .map(|(number, _)| number);
        let Some(tests) = number
            .and_then(|n| n.parse().ok())
            .and_then(|n: u32| numbered.get(&n))
        else {
            return line.to_owned();
        };
        let (row, last) = line.trim_end_matches(" |").rsplit_once(" | ").unwrap();
        let pending = last
            .find("; the rest pending")
            .and_then(|at| last.get(at..))
            .unwrap_or("");
        format!("{row} | `{}`{pending} |", tests.join("`, `"))
    });
    rows.map(|row| row + "\n").collect()
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

/// What a document says in code, in the text.
fn code_in(text: &str) -> impl Iterator<Item = &str> {
    text.split("```").step_by(2).flat_map(|prose| {
        let in_line = prose
            .lines()
            .flat_map(|line| line.split('`').skip(1).step_by(2));
        in_line.map(str::trim)
    })
}

/// Whether it can only be the name of a test: nothing else here has so many words.
fn is_name_of_test(code: &str) -> bool {
    let is_name = code
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    is_name && code.split('_').filter(|word| !word.is_empty()).count() >= 7
}

#[test]
fn every_test_that_a_document_names_exists() {
    let (tests, _) = all_tests();
    let mut documents = vec![
        root().join("tests/README.md"),
        root().join("bench/README.md"),
    ];
    for directory in [root().to_owned(), root().join("docs")] {
        let entries = std::fs::read_dir(directory).unwrap();
        documents.extend(entries.map(|entry| entry.unwrap().path()));
    }
    let mut named = 0;
    for document in documents {
        if document
            .extension()
            .is_none_or(|extension| extension != "md")
        {
            continue;
        }
        let text = std::fs::read_to_string(&document).unwrap();
        for name in code_in(&text).filter(|code| is_name_of_test(code)) {
            let there = match name.strip_suffix('…') {
                Some(beginning) => tests.iter().any(|test| test.starts_with(beginning)),
                None => tests.contains(name),
            };
            assert!(there, "{}: {name}", document.display());
            named += 1;
        }
    }
    assert!(named > 100, "{named}");
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
    let (tests, numbered) = all_tests();
    let path = root().join("tests/README.md");
    let catalogued = std::fs::read_to_string(&path).unwrap();
    let today = brought_up_to_date(&catalogued, &numbered);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &today).unwrap();
    }
    for (number, (named, _)) in catalogue() {
        for name in named {
            assert!(tests.contains(&name), "scenario {number}: no test `{name}`");
        }
    }
    let beyond = numbered
        .keys()
        .find(|number| !(1..=SCENARIOS).contains(number));
    assert_eq!(
        beyond, None,
        "a test is named after a scenario that there is not"
    );
    let catalogued = std::fs::read_to_string(&path).unwrap();
    let differs = catalogued
        .lines()
        .zip(today.lines())
        .find(|(old, new)| old != new);
    assert_eq!(differs, None, "run it with UPDATE_DOCS=1");
}
