//! Python with packages from PyPI: implementations that we did not write. Both test binaries that need them include this
//! file.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A virtual environment with these pinned packages, kept below `target` between runs; `None` where there is no
/// Python, which only CI must have.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
pub fn python(packages: &[&str]) -> Option<PathBuf> {
    match environment(packages) {
        Ok(python) => Some(python),
        Err(reason) => {
            let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!in_ci, "{reason}");
            eprintln!("SKIPPED: no Python with {packages:?} ({reason})");
            None
        }
    }
}

/// The workspace: the crate of either test binary is somewhere below it.
fn root() -> &'static Path {
    let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    above.find(|path| path.join("Cargo.lock").exists()).unwrap()
}

fn environment(packages: &[&str]) -> Result<PathBuf, String> {
    let pins = packages.join("_").replace("==", "-").replace('.', "_");
    let environments = root().join("target/python-client");
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
    run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&directory),
        b"",
    )?;
    let install = || {
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet"])
            .arg("--disable-pip-version-check")
            .args(packages);
        run(&mut pip, b"")
    };
    // What comes over a network fails now and then.
    install().or_else(|_| install()).or_else(|_| install())?;
    std::fs::write(ready, "").map_err(|error| error.to_string())?;
    Ok(python)
}

/// A command that runs a script of ours.
pub fn script(python: &Path, name: &str) -> Command {
    let script = root().join("crates/providers/tests/python").join(name);
    let mut command = Command::new(python);
    command.arg(script);
    command
}

/// Runs a command on this input to its end.
pub fn run(command: &mut Command, input: &[u8]) -> Result<Output, String> {
    let output = piped(command, input);
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}\n{stderr}", output.status))
}

fn piped(command: &mut Command, input: &[u8]) -> std::io::Result<Output> {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = pipes.stderr(Stdio::piped()).spawn()?;
    let stdin = child.stdin.take();
    std::thread::scope(|scope| {
        // Beside reading, so that neither side waits for the other.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        child.wait_with_output()
    })
}
