//! Python, with what a test needs from PyPI.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use quittance_evidence::note::VerifierKey;

/// What `docs/verify_evidence.py` needs, pinned.
const VERIFIER_PACKAGES: [&str; 1] = ["cryptography==50.0.2"];

/// A Python with these packages, or `None` where there is none: then the test says so and passes, except in CI.
pub async fn python_or_skip(
    name: &'static str,
    packages: &'static [&'static str],
) -> Option<PathBuf> {
    let made = tokio::task::spawn_blocking(move || virtual_environment(name, packages));
    match made.await.unwrap() {
        Ok(python) => Some(python),
        Err(reason) => {
            let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!in_ci, "{reason}");
            println!("SKIPPED: no Python with {packages:?} ({reason})");
            None
        }
    }
}

/// A virtual environment that is kept below `target` between runs.
fn virtual_environment(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let pins = packages
        .join(" ")
        .replace("==", "-")
        .replace([' ', '.'], "_");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("target")
        .join(name)
        .join(pins);
    let python = directory.join("bin/python");
    let ready = directory.join("ready");
    if ready.exists() {
        return Ok(python);
    }
    let path = directory.to_str().unwrap();
    run(Command::new("python3").args(["-m", "venv", "--clear", path]))?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ];
    run(Command::new(&python).args(pip).args(packages))?;
    std::fs::write(ready, "").map_err(|error| error.to_string())?;
    Ok(python)
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) -> Result<Output, String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    Err(format!("{command:?}: {}\n{stdout}{stderr}", output.status))
}

/// A Python that the other verifier runs in.
pub async fn python_verifier() -> Option<PathBuf> {
    python_or_skip("python-verifier", &VERIFIER_PACKAGES).await
}

/// Whether the other verifier takes each of these files for proved, under keys.
pub async fn python_judges(python: &Path, files: &[Vec<u8>], keys: &[VerifierKey]) -> Vec<bool> {
    let directory = tempfile::tempdir().unwrap();
    let mut script = Command::new(python);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    script.arg(workspace.join("docs/verify_evidence.py"));
    for key in keys {
        script.args(["--key", &key.to_string()]);
    }
    for (number, file) in files.iter().enumerate() {
        let path = directory.path().join(format!("{number:03}.json"));
        std::fs::write(&path, file).unwrap();
        script.arg(path);
    }
    let output = tokio::task::spawn_blocking(move || script.output().unwrap());
    let said = String::from_utf8(output.await.unwrap().stdout).unwrap();
    let proved = said.lines().map(|line| line.contains(": PROVED: "));
    proved.collect()
}
