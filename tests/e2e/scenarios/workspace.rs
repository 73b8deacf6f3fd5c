//! The direction of dependencies between our crates.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use toml::Table;

/// Which crates of ours each may depend on. `server` is where everything comes together.
const ALLOWED: [(&str, &[&str]); 10] = [
    ("proto", &[]),
    ("evidence", &[]),
    ("telemetry", &[]),
    ("sandbox", &[]),
    ("embedded-postgres", &[]),
    ("domain", &["evidence"]),
    // Runs the flows on ports of its own, without I/O.
    ("simulation", &["domain", "evidence"]),
    ("store", &["domain", "evidence"]),
    ("providers", &["domain"]),
    (
        "server",
        &[
            "domain",
            "embedded-postgres",
            "evidence",
            "proto",
            "providers",
            "sandbox",
            "store",
            "telemetry",
        ],
    ),
];

/// Crates that only tests and benchmarks use; they may depend on anything.
const ABOVE: [&str; 1] = ["test-support"];

/// What belongs in one place only: the outside crate, and who may use it.
const KEPT_TO: [(&str, &[&str]); 8] = [
    ("diesel", &["store"]),
    ("diesel-async", &["store"]),
    ("diesel_migrations", &["store"]),
    ("tonic", &["proto", "server"]),
    ("tonic-prost", &["proto", "server"]),
    ("prost", &["proto", "server"]),
    ("axum", &["sandbox", "server"]),
    // The server's own requests are notifications to tenants.
    ("reqwest", &["providers", "sandbox", "server"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// The names in a table of dependencies, those for one platform included.
fn dependencies(manifest: &Table, section: &str) -> BTreeSet<String> {
    let mut tables: Vec<&Table> = manifest
        .get(section)
        .and_then(|t| t.as_table())
        .into_iter()
        .collect();
    if let Some(targets) = manifest
        .get("target")
        .and_then(|targets| targets.as_table())
    {
        let sections = targets
            .values()
            .filter_map(|target| target.get(section)?.as_table());
        tables.extend(sections);
    }
    tables
        .into_iter()
        .flat_map(|table| table.keys().cloned())
        .collect()
}

fn manifests() -> BTreeMap<String, Table> {
    let crates = std::fs::read_dir(root().join("crates")).unwrap();
    let manifests = crates.map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(path.join("Cargo.toml")).unwrap();
        (name, text.parse().unwrap())
    });
    manifests.collect()
}

#[test]
fn crates_depend_only_in_the_declared_direction() {
    let manifests = manifests();
    let known: BTreeSet<_> = ALLOWED.iter().map(|(name, _)| *name).chain(ABOVE).collect();
    let found: BTreeSet<_> = manifests.keys().map(String::as_str).collect();
    assert_eq!(found, known, "a crate without a declared place");
    for (name, allowed) in ALLOWED {
        for section in ["dependencies", "build-dependencies"] {
            for dependency in dependencies(&manifests[name], section) {
                let Some(ours) = dependency.strip_prefix("quittance-") else {
                    continue;
                };
                assert!(allowed.contains(&ours), "{name} must not depend on {ours}");
            }
        }
    }
}

#[test]
fn tests_of_store_and_providers_do_not_bring_them_together_either() {
    let manifests = manifests();
    for (name, other) in [
        ("store", "quittance-providers"),
        ("providers", "quittance-store"),
    ] {
        let dev = dependencies(&manifests[name], "dev-dependencies");
        assert!(
            !dev.contains(other) && !dev.contains("quittance-proto"),
            "{name}: {dev:?}"
        );
    }
}

#[test]
fn the_domain_is_free_of_transport_storage_and_runtime() {
    let manifests = manifests();
    let domain = dependencies(&manifests["domain"], "dependencies");
    let foreign = [
        "tonic",
        "prost",
        "prost-types",
        "diesel",
        "diesel-async",
        "reqwest",
        "axum",
        "tokio",
        "hyper",
    ];
    for foreign in foreign {
        assert!(
            !domain.contains(foreign),
            "domain must not depend on {foreign}"
        );
    }
    let evidence = dependencies(&manifests["evidence"], "dependencies");
    for foreign in foreign {
        assert!(
            !evidence.contains(foreign),
            "evidence must not depend on {foreign}"
        );
    }
}

#[test]
fn what_belongs_in_one_place_is_used_there_only() {
    for (name, manifest) in manifests() {
        if ABOVE.contains(&name.as_str()) {
            continue;
        }
        let used = dependencies(&manifest, "dependencies");
        for (outside, keepers) in KEPT_TO {
            let allowed = !used.contains(outside) || keepers.contains(&name.as_str());
            assert!(allowed, "{name} must not depend on {outside}");
        }
    }
}

#[test]
fn every_version_is_pinned_once_for_the_whole_workspace() {
    let mut all = manifests();
    for member in ["tests", "bench"] {
        let text = std::fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        all.insert(member.to_owned(), text.parse().unwrap());
    }
    for (name, manifest) in all {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = manifest.get(section).and_then(|table| table.as_table()) else {
                continue;
            };
            for (dependency, wanted) in table {
                let inherited = wanted.get("workspace").and_then(toml::Value::as_bool);
                assert_eq!(
                    inherited,
                    Some(true),
                    "{name}: {dependency} has a version of its own"
                );
            }
        }
        let lints = manifest["lints"]["workspace"].as_bool();
        assert_eq!(
            lints,
            Some(true),
            "{name} does not use the workspace's lints"
        );
    }
}

/// Implementations that we did not write (localstripe, PyPI's stripe, Adyen and standardwebhooks) come from PyPI. Where they
/// are missing their tests say that they are skipped, but for CI, which always runs them.
#[test]
fn continuous_integration_skips_no_test() {
    let script = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    let mut lines = script.lines().map(str::trim);
    let (exported, verified) = (
        lines.position(|line| line == "export CI=true"),
        lines.any(|line| {
            line.starts_with("exec ") && line.ends_with("make --no-print-directory verify")
        }),
    );
    assert!(exported.is_some() && verified, "{script}");
    for file in [
        "crates/providers/tests/it/support/python.rs",
        "crates/test-support/src/python.rs",
    ] {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        assert!(text.contains("assert!(!in_ci, \"{reason}\");"), "{file}");
    }
}

/// The source files below a folder that are no tests.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") && !name.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// What a new provider costs: its own folder, and a line in the list of adapters.
#[test]
fn no_code_names_a_provider_but_its_own_folder_and_one_line() {
    let providers = root().join("crates/providers/src");
    let list = std::fs::read_to_string(providers.join("lib.rs")).unwrap();
    let list = list.split("static ADAPTERS").nth(1).unwrap();
    let list = list.split(';').nth(1).unwrap();
    let names: Vec<_> = list
        .split('&')
        .filter_map(|entry| entry.split_once("::ADAPTER"))
        .map(|(name, _)| name.trim())
        .collect();
    assert_eq!(names, ["adyen", "sandbox", "stripe"]);
    let mut files = Vec::new();
    for crate_name in [
        "domain",
        "evidence",
        "proto",
        "providers",
        "server",
        "store",
        "telemetry",
    ] {
        let folder = root().join("crates").join(crate_name).join("src");
        sources(&folder, &mut files);
    }
    assert!(files.len() > 200);
    for name in names {
        let own = providers.join(name);
        let others = files.iter().filter(|file| !file.starts_with(&own));
        for file in others.filter(|file| **file != providers.join("lib.rs")) {
            let text = std::fs::read_to_string(file).unwrap();
            // Tests at the end of a file, and comments, may give examples.
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let code = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let naming = code.filter(|line| line.to_lowercase().contains(name));
            // The sandbox is also a server, which `dev` and `demo` start.
            let ours = name == "sandbox" && file.starts_with(root().join("crates/server"));
            assert!(ours || naming.count() == 0, "{name} in {}", file.display());
        }
    }
}
