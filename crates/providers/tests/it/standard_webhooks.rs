//! Standard Webhooks against an implementation that we did not write: PyPI's `standardwebhooks`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::DateTime;
use quittance_domain::webhook::Delivery;
use quittance_providers::config::Secret;
use quittance_providers::webhook::StandardWebhooks;
use serde::Deserialize;

use crate::support::python::{python, run, script};

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
    let Some(python) = python(&[PACKAGE]) else {
        return;
    };
    let seed = rand::random::<u32>().to_string();
    let mut command = script(&python, "standard_webhooks.py");
    let output = run(command.args([seed.as_str(), WEBHOOKS]), b"");
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
