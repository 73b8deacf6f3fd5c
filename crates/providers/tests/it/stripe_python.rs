//! The Stripe adapter against implementations that we did not write: Stripe's own library, and PyPI's `localstripe`, a
//! server that behaves as Stripe does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::DateTime;
use hmac::{Hmac, Mac as _};
use quittance_domain::decline::DeclineCode;
use quittance_domain::payment::{Payment, PaymentMethodType};
use quittance_domain::ports::{LookupQuery, Named, Provider as _, ProviderRules as _};
use quittance_domain::transaction::{
    Fact, FactKind, LookupOutcome, OperationKind, SendOutcome, Transaction,
};
use quittance_domain::webhook::{Delivery, ProviderWebhooks as _};
use quittance_providers::config::{ProviderAccountConfig, Secret};
use quittance_providers::stripe::Stripe;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::builders::{self, eur};
use crate::support::localstripe::{LocalStripe, STRIPE};
use crate::support::python::{python, run, script};

/// How many webhooks are compared, each way.
const WEBHOOKS: usize = 3_000;
const KEY: &str = "sk_test_localstripe";

fn account(base_url: &str, secret: &str) -> Stripe {
    let config = ProviderAccountConfig {
        // No busy machine comes to these.
        connect_timeout_ms: 50_000,
        total_timeout_ms: 100_000,
        allow_plaintext: true,
        webhook_secrets: vec![Secret::new(secret)],
        ..ProviderAccountConfig::new(
            "stripe",
            quittance_providers::stripe::KIND,
            base_url,
            Secret::new(KEY),
        )
    };
    Stripe::new(&config, |_| {}).unwrap()
}

#[derive(Debug, Deserialize)]
struct Signed {
    secret: String,
    header: String,
    body: String,
    verifies: bool,
}

/// What ours says, at the time of signing.
fn verifies(signed: &Signed, now: i64) -> bool {
    let header = |name: &str| (name == "stripe-signature").then_some(signed.header.as_str());
    let body = BASE64.decode(&signed.body).unwrap();
    let delivery = Delivery {
        header: &header,
        body: &body,
        received_at: DateTime::from_timestamp(now, 0).unwrap(),
    };
    account("", &signed.secret).verify(&delivery).is_ok()
}

#[allow(clippy::disallowed_methods, reason = "the library looks at the clock")]
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// A webhook that we sign; every second one is altered afterwards. And whether it is good.
fn of_ours(random: &mut StdRng) -> (Value, bool) {
    let secret = format!("whsec_{:032x}", random.random::<u128>());
    let length = random.random_range(0..200);
    let text: String = (0..length).map(|_| random.random::<char>()).collect();
    let mut body = json!({"id": "evt_1", "text": text}).to_string();
    let time = now();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{time}.{body}").as_bytes());
    let hex = hex::encode(mac.finalize().into_bytes());
    let good = random.random::<bool>();
    if !good {
        body.push(' ');
    }
    let header = format!("t={time},v1={hex}");
    let body = BASE64.encode(body);
    (
        json!({"secret": secret, "header": header, "body": body}),
        good,
    )
}

#[test]
fn s46_signatures_verify_as_with_stripes_own_library_both_ways() {
    let Some(python) = python(&STRIPE) else {
        return;
    };
    let seed = rand::random::<u32>();
    let mut random = StdRng::seed_from_u64(u64::from(seed));
    let (sent, expected): (Vec<_>, Vec<_>) = (0..WEBHOOKS).map(|_| of_ours(&mut random)).unzip();
    let sent: Vec<_> = sent.iter().map(Value::to_string).collect();
    let mut command = script(&python, "stripe_signatures.py");
    command.args([seed.to_string(), WEBHOOKS.to_string()]);
    let output = run(&mut command, sent.join("\n").as_bytes());
    let output = output.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    let output = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines.len(), 2 * WEBHOOKS, "seed {seed}");
    let (of_ours, of_theirs) = lines.split_at(WEBHOOKS);
    for (number, (line, good)) in of_ours.iter().zip(expected).enumerate() {
        assert_eq!(*line, good.to_string(), "seed {seed}: ours, {number}");
    }
    let (mut good, mut bad) = (0, 0);
    for line in of_theirs {
        let signed: Signed = serde_json::from_str(line).unwrap();
        let ours = verifies(&signed, now());
        assert_eq!(ours, signed.verifies, "seed {seed}: {signed:?}");
        *if ours { &mut good } else { &mut bad } += 1;
    }
    assert!(good > 500 && bad > 500, "seed {seed}: {good} {bad}");
}

/// A running localstripe and an account there.
struct World {
    stripe: LocalStripe,
    account: Stripe,
}

impl World {
    async fn start() -> Option<Self> {
        let started = tokio::task::spawn_blocking(|| LocalStripe::start(None));
        let stripe = started.await.unwrap()?;
        let account = account(&stripe.base_url(), "whsec_000000000000000000000000");
        Some(Self { stripe, account })
    }

    async fn send(&self, kind: OperationKind, payment: &Payment, held: &Transaction) -> Fact {
        let asked = builders::operation(kind, payment, held, &[]);
        let request = self.account.prepare(&asked).unwrap();
        match self.account.send(&request, 1).await.outcome {
            SendOutcome::Answered(fact) => fact,
            other => panic!("{kind}: {other:?}"),
        }
    }

    async fn found(&self, payment: &Payment, held: &Transaction) -> FactKind {
        let query = LookupQuery::about(payment, held);
        match self.account.lookup(&query).await {
            LookupOutcome::Found(fact) => fact.kind,
            other => panic!("{other:?}"),
        }
    }

    /// A payment that is opened so, its transaction, and what its first answer told.
    async fn opened(&self, token: &str, kind: OperationKind) -> (Payment, Transaction, FactKind) {
        let mut payment = builders::payment(token, None);
        let opening = builders::transaction(&payment, kind, 1_000);
        let fact = self.send(kind, &payment, &opening).await;
        payment.provider_reference = fact.payment_reference;
        (payment, opening, fact.kind)
    }

    /// Asks localstripe itself.
    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        // Another test may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client
            .post(format!("{}{path}", self.stripe.base_url()))
            .bearer_auth(KEY)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        let answer = request.send().await.unwrap().bytes().await.unwrap();
        serde_json::from_slice(&answer).unwrap()
    }

    async fn card(&self, number: &str) -> String {
        let form = [
            ("type", "card"),
            ("card[number]", number),
            ("card[exp_month]", "12"),
            ("card[exp_year]", "2050"),
            ("card[cvc]", "123"),
        ];
        let method = self.post("/v1/payment_methods", &form).await;
        method["id"].as_str().unwrap().to_owned()
    }
}

fn approved(kind: &FactKind, minor_units: i64) -> bool {
    matches!(kind, FactKind::Approved { amount, .. } if *amount == Some(eur(minor_units)))
}

#[tokio::test]
async fn a_payment_is_authorized_captured_in_part_and_refunded_twice_at_localstripe() {
    let Some(world) = World::start().await else {
        return;
    };
    let (payment, opening, kind) = world.opened("pm_card_visa", OperationKind::Authorize).await;
    assert!(approved(&kind, 1_000), "{kind:?}");
    let capture = builders::transaction(&payment, OperationKind::Capture, 700);
    let told = world.send(OperationKind::Capture, &payment, &capture).await;
    assert!(approved(&told.kind, 700), "{told:?}");
    let mut refunds = Vec::new();
    for amount in [200, 200] {
        let refund = builders::transaction(&payment, OperationKind::Refund, amount);
        let told = world.send(OperationKind::Refund, &payment, &refund).await;
        assert!(approved(&told.kind, amount), "{told:?}");
        refunds.push((refund, told.provider_reference));
    }
    assert!(approved(&world.found(&payment, &opening).await, 1_000));
    assert!(approved(&world.found(&payment, &capture).await, 700));
    for (mut refund, reference) in refunds {
        // Among those of the payment, one that released the rest included; then by its own name.
        assert!(approved(&world.found(&payment, &refund).await, 200));
        refund.provider_reference = reference;
        assert!(approved(&world.found(&payment, &refund).await, 200));
    }
    let reference = payment.provider_reference.as_ref().unwrap();
    let named = world.account.payment_named(reference).await;
    assert_eq!(named, Ok(Named::Ours(payment.id)));
}

#[tokio::test]
async fn a_purchase_is_captured_at_once_and_an_authorization_is_released_at_localstripe() {
    let Some(world) = World::start().await else {
        return;
    };
    let (payment, opening, kind) = world.opened("pm_card_visa", OperationKind::Purchase).await;
    assert!(approved(&kind, 1_000), "{kind:?}");
    assert!(approved(&world.found(&payment, &opening).await, 1_000));
    let (payment, opening, _) = world.opened("pm_card_visa", OperationKind::Authorize).await;
    let void = builders::transaction(&payment, OperationKind::Void, 1_000);
    let told = world.send(OperationKind::Void, &payment, &void).await;
    assert!(approved(&told.kind, 1_000), "{told:?}");
    assert!(approved(&world.found(&payment, &void).await, 1_000));
    // It had been authorized, all the same.
    assert!(approved(&world.found(&payment, &opening).await, 1_000));
}

#[tokio::test]
async fn s08_a_card_that_is_declined_at_localstripe_is_a_decline() {
    let Some(world) = World::start().await else {
        return;
    };
    let card = world.card("4000000000000341").await;
    let (_, _, kind) = world.opened(&card, OperationKind::Purchase).await;
    let FactKind::Declined(decline) = kind else {
        panic!("{kind:?}");
    };
    assert_eq!(decline.provider_code.as_str(), "card_declined");
    assert_eq!(decline.code, DeclineCode::DoNotHonor);
}

#[tokio::test]
async fn s06_a_challenge_is_passed_or_failed_at_localstripe() {
    let Some(world) = World::start().await else {
        return;
    };
    for (success, kind) in [
        ("true", OperationKind::Authorize),
        ("true", OperationKind::Purchase),
        ("false", OperationKind::Authorize),
    ] {
        let card = world.card("4000002500003155").await;
        let (payment, opening, told) = world.opened(&card, kind).await;
        let FactKind::RequiresAction(action) = told else {
            panic!("{told:?}");
        };
        let secret = action.data.expose()["client_secret"].clone();
        let reference = payment.provider_reference.as_ref().unwrap();
        // Not yet: it is asked again, and still waits.
        let early = world.send(OperationKind::Confirm, &payment, &opening).await;
        assert!(
            matches!(early.kind, FactKind::RequiresAction(_)),
            "{early:?}"
        );
        let path = format!("/v1/payment_intents/{reference}/_authenticate");
        let form = [("client_secret", secret.as_str()), ("success", success)];
        world.post(&path, &form).await;
        let after = world.send(OperationKind::Confirm, &payment, &opening).await;
        match (success, after.kind) {
            ("true", kind) => assert!(approved(&kind, 1_000), "{kind:?}"),
            (_, FactKind::Declined(decline)) => {
                assert_eq!(decline.code, DeclineCode::AuthenticationFailed);
            }
            (_, kind) => panic!("{kind:?}"),
        }
    }
}

#[tokio::test]
async fn s07_a_debit_is_pending_until_the_bank_has_answered_at_localstripe() {
    let Some(world) = World::start().await else {
        return;
    };
    for (iban, paid) in [
        ("DE89370400440532013000", true),
        ("DE62370400440532013001", false),
    ] {
        let form = [("type", "sepa_debit"), ("sepa_debit[iban]", iban)];
        let method = world.post("/v1/payment_methods", &form).await;
        let token = method["id"].as_str().unwrap();
        let mut payment = builders::payment(token, None);
        payment.method.kind = PaymentMethodType::BankDebit;
        let opening = builders::transaction(&payment, OperationKind::Purchase, 1_000);
        let fact = world
            .send(OperationKind::Purchase, &payment, &opening)
            .await;
        payment.provider_reference = fact.payment_reference.clone();
        let mut kind = fact.kind;
        for _ in 0..2_400 {
            if kind != FactKind::Pending {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            kind = world.found(&payment, &opening).await;
        }
        match kind {
            FactKind::Declined(_) => assert!(!paid),
            kind => assert!(paid && approved(&kind, 1_000), "{iban}: {kind:?}"),
        }
    }
}
