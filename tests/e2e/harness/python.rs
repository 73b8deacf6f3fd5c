//! Python beside the tests: off the threads that they run on.

use std::path::{Path, PathBuf};

use quittance_evidence::note::VerifierKey;
use quittance_test_support::python;

pub use quittance_test_support::python::run;

/// A Python with these packages, or `None` where there is none: then the test says so and passes, except in CI.
pub async fn python_or_skip(
    name: &'static str,
    packages: &'static [&'static str],
) -> Option<PathBuf> {
    let made = tokio::task::spawn_blocking(move || python::python_or_skip(name, packages));
    made.await.unwrap()
}

/// A Python that the other verifier runs in.
pub async fn python_verifier() -> Option<PathBuf> {
    let made = tokio::task::spawn_blocking(python::python_verifier);
    made.await.unwrap()
}

/// Whether the other verifier takes each of these files for proved, under keys.
pub async fn python_judges(python: &Path, files: &[Vec<u8>], keys: &[VerifierKey]) -> Vec<bool> {
    let directory = tempfile::tempdir().unwrap();
    let mut verify = python::verify_evidence(python, keys);
    for (number, file) in files.iter().enumerate() {
        let path = directory.path().join(format!("{number:03}.json"));
        std::fs::write(&path, file).unwrap();
        verify.arg(path);
    }
    let output = tokio::task::spawn_blocking(move || verify.output().unwrap());
    let said = String::from_utf8(output.await.unwrap().stdout).unwrap();
    let proved = said.lines().map(|line| line.contains(": PROVED: "));
    proved.collect()
}
