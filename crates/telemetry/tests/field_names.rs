//! Every field that our crates log or record on spans is in the table of allowed names: one that is missing would read
//! `<redacted>` when it is needed most.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use quittance_telemetry::fields::allowed;

const MACROS: [&str; 10] = [
    "error!(",
    "warn!(",
    "info!(",
    "debug!(",
    "trace!(",
    "error_span!(",
    "warn_span!(",
    "info_span!(",
    "debug_span!(",
    "trace_span!(",
];
/// Instructions to `tracing` and to its OpenTelemetry layer; they are not shown.
const NO_FIELDS: [&str; 3] = ["otel.name", "otel.kind", "otel.status_code"];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
}

/// The arguments of a macro whose opening bracket is just before `text`.
fn arguments(text: &str) -> Vec<String> {
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    let mut all = vec![String::new()];
    for c in text.chars() {
        let last = all.last_mut().unwrap();
        if quoted {
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
            last.push(c);
            continue;
        }
        match c {
            '"' => quoted = true,
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => return all,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                all.push(String::new());
                continue;
            }
            _ => {}
        }
        last.push(c);
    }
    panic!("a macro without an end: {}", &text[..80.min(text.len())]);
}

/// The field that an argument names, as `tracing` reads it; `None` for messages, names of spans and instructions.
fn field(argument: &str) -> Option<String> {
    let argument = argument.trim();
    let (name, value) = match argument.split_once('=') {
        Some((name, _)) if !argument.starts_with(['%', '?']) => (name.trim(), true),
        _ => (argument.trim_start_matches(['%', '?']), false),
    };
    if let Some(quoted) = name.strip_prefix('"') {
        return value.then(|| quoted.trim_end_matches('"').to_owned());
    }
    let is_path = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
    is_path.then(|| name.to_owned())
}

/// The fields that a source file names.
fn fields_of(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for call in MACROS {
        for (at, _) in text.match_indices(call) {
            let before = text[..at].chars().next_back().unwrap_or(' ');
            if before.is_ascii_alphanumeric() || before == '_' {
                continue;
            }
            let arguments = arguments(&text[at + call.len()..]);
            found.extend(arguments.iter().filter_map(|argument| field(argument)));
        }
    }
    for (at, call) in text.match_indices(".record(\"") {
        let name = text[at + call.len()..].split('"').next().unwrap();
        found.insert(name.to_owned());
    }
    found
}

#[test]
fn macros_are_read_as_tracing_reads_them() {
    let text = r#"
        warn!(%error, failures, "a comma, (and \" a bracket");
        tracing::info_span!("name", a.b = %x.y(1, 2), "error.type" = Empty, kind = f(a == b));
        span.record("c.d", 1);
        debug!("text {}", value);
    "#;
    let found: Vec<_> = fields_of(text).into_iter().collect();
    let expected = [
        "a.b",
        "c.d",
        "error",
        "error.type",
        "failures",
        "kind",
        "value",
    ];
    assert_eq!(found, expected);
}

#[test]
fn every_field_that_is_logged_may_be_shown() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for entry in fs::read_dir(crates).unwrap() {
        let path = entry.unwrap().path();
        // This crate's own tests log what must not be shown.
        if path.join("src").is_dir() && !path.ends_with("telemetry") {
            sources(&path.join("src"), &mut files);
        }
    }
    assert!(files.len() > 100, "the sources were not found");
    let (mut seen, mut missing) = (0, Vec::new());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let attribute = ["#[instrument", "#[tracing::instrument"];
        assert!(
            !attribute.iter().any(|attribute| text.contains(attribute)),
            "{}: this test does not read attributes",
            file.display()
        );
        for name in fields_of(&text) {
            seen += 1;
            if allowed(&name).is_none() && !NO_FIELDS.contains(&&*name) {
                missing.push(format!("{name} ({})", file.display()));
            }
        }
    }
    assert!(seen > 30, "only {seen} fields were found");
    assert!(missing.is_empty(), "not in the table: {missing:#?}");
}
