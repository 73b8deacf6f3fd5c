//! Standard Webhooks against an implementation that we did not write: PyPI's `standardwebhooks`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::DateTime;
use quittance_domain::webhook::Delivery;
use quittance_providers::config::Secret;
use quittance_providers::webhook::StandardWebhooks;
use serde::Deserialize;

/// What is installed from PyPI, pinned.
const PACKAGE: &str = "standardwebhooks==1.1.0";
/// How many webhooks are compared.
const WEBHOOKS: &str = "3000";

#[derive(Debug, Deserialize)]
struct Signed {
    secret: String,
    id: String,
    timestamp: String,
    signature: String,
    body: String,
    verifies: bool,
}

/// A virtual environment that is kept below `target` between runs.
fn python() -> Result<PathBuf, String> {
    let pins = PACKAGE.replace("==", "-").replace('.', "_");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/python-client");
    let directory = root.join(pins);
    let python = directory.join("bin/python");
    let ready = directory.join("ready");
    if ready.exists() {
        return Ok(python);
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&directory))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet"])
        .args(["--disable-pip-version-check", PACKAGE]))?;
    std::fs::write(ready, "").map_err(|error| error.to_string())?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output();
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}\n{stderr}", output.status))
}

/// What ours says.
fn verifies(signed: &Signed) -> bool {
    let verifier = StandardWebhooks::new(&[Secret::new(signed.secret.as_str())]).unwrap();
    let header = |name: &str| match name {
        "webhook-id" => Some(signed.id.as_str()),
        "webhook-timestamp" => Some(signed.timestamp.as_str()),
        "webhook-signature" => Some(signed.signature.as_str()),
        _ => None,
    };
    let body = BASE64.decode(&signed.body).unwrap();
    let delivery = Delivery {
        header: &header,
        body: &body,
        received_at: DateTime::from_timestamp(signed.timestamp.parse().unwrap(), 0).unwrap(),
    };
    verifier.verify(&delivery).is_ok()
}

#[test]
fn s46_signatures_verify_as_those_of_another_implementation_do() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => {
            let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!in_ci, "{reason}");
            eprintln!("SKIPPED: no Python with {PACKAGE} ({reason})");
            return;
        }
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/standard_webhooks.py");
    let seed = rand::random::<u32>().to_string();
    let output = run(Command::new(python).arg(script).args([&seed, WEBHOOKS]));
    let output = output.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    let (mut good, mut bad) = (0, 0);
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let signed: Signed = serde_json::from_str(line).unwrap();
        let ours = verifies(&signed);
        assert_eq!(ours, signed.verifies, "seed {seed}: {signed:?}");
        *if ours { &mut good } else { &mut bad } += 1;
    }
    assert!(good > 500 && bad > 500, "seed {seed}: {good} {bad}");
}
