//! Standard Webhooks against an implementation that we did not write: PyPI's `standardwebhooks`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::DateTime;
use quittance_domain::webhook::Delivery;
use quittance_providers::config::Secret;
use quittance_providers::webhook::{NEW_SECRET_BYTES, StandardWebhooks, secret_of};
use rand::{Rng as _, SeedableRng as _};
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
#[allow(clippy::similar_names, reason = "a signer signs")]
fn what_we_sign_is_verified_by_another_implementation() {
    let Some(python) = python(&[PACKAGE]) else {
        return;
    };
    let seed = rand::random::<u64>();
    let mut chance = rand::rngs::StdRng::seed_from_u64(seed);
    let (mut lines, mut expected) = (String::new(), Vec::new());
    let now = chrono::Utc::now().timestamp();
    for number in 0..3_000 {
        let mut secrets = (0..2).map(|_| {
            let bytes: [u8; NEW_SECRET_BYTES] = chance.random();
            secret_of(&bytes).to_string()
        });
        let secrets: [String; 2] = [secrets.next().unwrap(), secrets.next().unwrap()];
        let text: String = (0..chance.random_range(0..200))
            .map(|_| chance.random_range('\u{20}'..'\u{d7ff}'))
            .collect();
        let body = serde_json::json!({ "number": number, "text": text }).to_string();
        let live = secrets
            .each_ref()
            .map(|secret| Secret::new(secret.as_str()));
        let id = format!("msg_{number}");
        let signature = StandardWebhooks::new(&live)
            .unwrap()
            .sign(&id, now, body.as_bytes());
        // Under either secret that is live; and not where one thing is changed.
        let good = chance.random_bool(0.5);
        let secret = &secrets[usize::from(chance.random_bool(0.5))];
        let change = if good { 0 } else { chance.random_range(1..=4) };
        let mut webhook = serde_json::json!({
            "secret": secret,
            "id": id,
            "timestamp": now.to_string(),
            "signature": signature,
            "body": BASE64.encode(&body),
        });
        match change {
            1 => webhook["id"] = "msg_other".into(),
            2 => webhook["timestamp"] = (now + 1).to_string().into(),
            3 => webhook["body"] = BASE64.encode(format!("{body} ")).into(),
            4 => webhook["secret"] = secret_of(&chance.random()).to_string().into(),
            _ => {}
        }
        lines.push_str(&webhook.to_string());
        lines.push('\n');
        expected.push(good.to_string());
    }
    let mut command = script(&python, "verify_standard_webhooks.py");
    let output = run(&mut command, lines.as_bytes());
    let output = output.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    let said = String::from_utf8(output.stdout).unwrap();
    let said: Vec<_> = said.lines().map(str::to_owned).collect();
    assert_eq!(said, expected, "seed {seed}");
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
