//! A client that we did not write: Python's grpcio, with stubs made at run time from the reflection service.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use quittance_server::auth::Role;

use crate::harness::World;
use crate::harness::tls::pki;

/// What is installed from PyPI, pinned.
const PACKAGES: [&str; 3] = [
    "grpcio==1.85.1",
    "grpcio-reflection==1.85.1",
    "protobuf==7.36.2",
];

fn tests() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A virtual environment that is kept below `target` between runs.
fn python_with_grpc() -> Result<PathBuf, String> {
    let pins = PACKAGES
        .join(" ")
        .replace("==", "-")
        .replace([' ', '.'], "_");
    let directory = tests()
        .parent()
        .unwrap()
        .join("target/python-client")
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
    run(Command::new(&python).args(pip).args(PACKAGES))?;
    std::fs::write(ready, "").map_err(|error| error.to_string())?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<Output, String> {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_does_the_whole_lifecycle_over_tls_with_an_api_key() {
    let python = match tokio::task::spawn_blocking(python_with_grpc).await.unwrap() {
        Ok(python) => python,
        Err(reason) => {
            let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!in_ci, "{reason}");
            println!("SKIPPED: no Python with grpcio ({reason})");
            return;
        }
    };
    let world = World::start().await;
    let roles = [
        Role::PaymentsWrite,
        Role::PaymentsRefund,
        Role::PaymentsRead,
        Role::AuditRead,
    ];
    let key = world.api_key("python-shop", &roles).await;
    let target = format!("localhost:{}", world.address().port());
    let output = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(python);
        command.arg(tests().join("python/lifecycle.py"));
        command
            .env("QUITTANCE_TARGET", target)
            .env("QUITTANCE_API_KEY", key);
        command.env("QUITTANCE_CA", &pki().ca_file);
        run(&mut command)
    })
    .await
    .unwrap()
    .unwrap_or_else(|failure| panic!("{failure}"));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.trim_end().ends_with("lifecycle complete"), "{said}");
    let euros = world.books().currencies["EUR"];
    assert_eq!(
        (euros.authorized, euros.captured, euros.refunded),
        (5000, 5000, 1500)
    );
    assert_eq!(world.books().counts.authorizations, 1);
}
