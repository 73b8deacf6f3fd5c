//! Python, with what a test needs from PyPI, and the verifier of evidence that is written in it.
//!
//! Needs nothing but the standard library: the tests of `quittance-evidence`, below which no crate of ours lies, include
//! this very file.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What `docs/verify_evidence.py` needs, pinned.
const VERIFIER_PACKAGES: [&str; 1] = ["cryptography==50.0.2"];

/// Where the workspace lies.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A Python with these packages, or `None` where there is none: then this says so, and the test passes, except in CI.
#[allow(clippy::print_stdout, reason = "a skipped test says so")]
pub fn python_or_skip(name: &str, packages: &[&str]) -> Option<PathBuf> {
    match virtual_environment(name, packages) {
        Ok(python) => Some(python),
        Err(reason) => {
            let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!in_ci, "{reason}");
            println!("SKIPPED: no Python with {packages:?} ({reason})");
            None
        }
    }
}

/// A Python in which the verifier runs.
pub fn python_verifier() -> Option<PathBuf> {
    python_or_skip("python-verifier", &VERIFIER_PACKAGES)
}

/// The verifier, to be given files, with the keys that it trusts.
pub fn verify_evidence(python: &Path, keys: impl IntoIterator<Item = impl ToString>) -> Command {
    let mut command = Command::new(python);
    command.arg(workspace().join("docs/verify_evidence.py"));
    for key in keys {
        command.args(["--key", &key.to_string()]);
    }
    command
}

/// A virtual environment that is kept below `target` between runs.
fn virtual_environment(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let pins = packages
        .join(" ")
        .replace("==", "-")
        .replace([' ', '.'], "_");
    let environments = workspace().join("target").join(name);
    let directory = environments.join(&pins);
    let python = directory.join("bin/python");
    let ready = directory.join("ready");
    // Several tests may want it at once.
    std::fs::create_dir_all(&environments).map_err(|error| error.to_string())?;
    let lock = std::fs::File::create(environments.join(format!("{pins}.lock")));
    let lock = lock.map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    if ready.exists() {
        return Ok(python);
    }
    let path = directory.to_str().ok_or("the path is no text")?;
    run(Command::new("python3").args(["-m", "venv", "--clear", path]))?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ];
    let install = || run(Command::new(&python).args(pip).args(packages));
    // What comes over a network fails now and then.
    install().or_else(|_| install()).or_else(|_| install())?;
    std::fs::write(ready, "").map_err(|error| error.to_string())?;
    Ok(python)
}

/// Runs a command that must succeed.
///
/// # Errors
/// What it printed, where it does not.
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
