//! A client that we did not write: Python's grpcio, with stubs made at run time from the reflection service.

use std::path::Path;
use std::process::Command;

use quittance_server::auth::Role;

use crate::harness::World;
use crate::harness::python::{python_or_skip, run};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_does_the_whole_lifecycle_over_tls_with_an_api_key() {
    let Some(python) = python_or_skip("python-client", &PACKAGES).await else {
        return;
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
