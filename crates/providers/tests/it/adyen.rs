//! Adyen: what is sent, and signatures against those of a library that we did not write.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::DateTime;
use hmac::{Hmac, Mac as _};
use quittance_domain::ids::ProviderReference;
use quittance_domain::money::{Currency, Money};
use quittance_domain::payment::{Payment, PaymentMethodType};
use quittance_domain::ports::{
    LookupQuery, Operation, Provider as _, ProviderRules as _, Unpreparable,
};
use quittance_domain::text::{Sensitive, Text};
use quittance_domain::transaction::{FactKind, LookupOutcome, OperationKind, Transaction};
use quittance_domain::webhook::{Delivery, ProviderWebhooks as _};
use quittance_providers::Prepared;
use quittance_providers::adyen::Adyen;
use quittance_providers::config::{ProviderAccountConfig, Secret};
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::builders;
use crate::support::python::{python, run, script};

/// What is installed from PyPI, pinned.
const LIBRARY: &str = "Adyen==16.0.0";
/// How many items are compared, each way.
const ITEMS: usize = 3_000;

pub(crate) fn account(key: &str) -> Adyen {
    let url = "http://127.0.0.1:1";
    let config = ProviderAccountConfig {
        allow_plaintext: true,
        own: [("merchant_account", "QuittanceECOM".to_owned())].into(),
        webhook_secrets: vec![Secret::new(key)],
        ..ProviderAccountConfig::new(
            "adyen",
            quittance_providers::adyen::KIND,
            url,
            Secret::new("key"),
        )
    };
    Adyen::new(&config, |_| {}).unwrap()
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    key: String,
    item: Value,
    #[serde(default)]
    verifies: bool,
}

/// What ours says.
fn verifies(line: &Line) -> bool {
    let batch = json!({
        "live": "false",
        "notificationItems": [{"NotificationRequestItem": line.item}],
    });
    let delivery = Delivery {
        header: &|_| None,
        body: &serde_json::to_vec(&batch).unwrap(),
        received_at: DateTime::UNIX_EPOCH,
    };
    account(&line.key).verify(&delivery).is_ok()
}

#[test]
fn s46_adyen_signatures_verify_as_those_of_adyen_s_own_library_do() {
    let Some(python) = python(&[LIBRARY]) else {
        return;
    };
    let seed = rand::random::<u32>();
    let mut command = script(&python, "adyen_signatures.py");
    command.args([seed.to_string(), ITEMS.to_string()]);
    let output = run(&mut command, b"").unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    let (mut good, mut bad) = (0, 0);
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let line: Line = serde_json::from_str(line).unwrap();
        let ours = verifies(&line);
        assert_eq!(ours, line.verifies, "seed {seed}: {line:?}");
        *if ours { &mut good } else { &mut bad } += 1;
    }
    assert_eq!(good + bad, ITEMS);
    assert!(good > 500 && bad > 500, "seed {seed}: {good} {bad}");
}

fn text(chance: &mut rand::rngs::StdRng, most: usize) -> String {
    let length = chance.random_range(0..most);
    let characters = (0..length).map(|_| match chance.random_range(0..5) {
        0 => ':',
        1 => chance.random_range('\u{a0}'..'\u{d7ff}'),
        _ => chance.random_range(' '..'\u{7f}'),
    });
    characters.collect()
}

/// An item, signed by the words of the documentation; half of them are altered afterwards.
fn signed(chance: &mut rand::rngs::StdRng) -> Line {
    let key: [u8; 32] = chance.random();
    let texts: [String; 6] = std::array::from_fn(|_| text(chance, 30));
    let [psp, original, account, reference, currency, event] = texts;
    let value = chance.random_range(-5_i64..1 << 50);
    let success = if chance.random() { "true" } else { "false" };
    let joined =
        format!("{psp}:{original}:{account}:{reference}:{value}:{currency}:{event}:{success}");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(joined.as_bytes());
    let signature = BASE64.encode(mac.finalize().into_bytes());
    let mut item = json!({
        "pspReference": psp,
        "originalReference": original,
        "merchantAccountCode": account,
        "merchantReference": reference,
        "amount": {"value": value, "currency": currency},
        "eventCode": event,
        "success": success,
        "reason": text(chance, 20),
        "additionalData": {"hmacSignature": signature},
    });
    match chance.random_range(0..8) {
        0 => item["merchantReference"] = json!(format!("{reference}x")),
        1 => item["amount"]["value"] = json!(value + 1),
        2 => item["pspReference"] = json!(format!("{psp}:")),
        3 => item["success"] = json!(if success == "true" { "false" } else { "true" }),
        _ => {}
    }
    Line {
        key: hex::encode(key),
        item,
        verifies: false,
    }
}

#[test]
fn s46_adyen_s_own_library_verifies_what_we_hold_for_signed() {
    let Some(python) = python(&[LIBRARY]) else {
        return;
    };
    let seed: u64 = rand::random();
    let mut chance = rand::rngs::StdRng::seed_from_u64(seed);
    let lines: Vec<_> = (0..ITEMS).map(|_| signed(&mut chance)).collect();
    let input: Vec<_> = lines
        .iter()
        .map(|line| serde_json::to_string(line).unwrap() + "\n")
        .collect();
    let mut command = script(&python, "adyen_signatures.py");
    command.arg("verify");
    let output = run(&mut command, input.concat().as_bytes());
    let output = output.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    let output = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.lines().count(), ITEMS);
    let mut good = 0;
    for (line, theirs) in lines.iter().zip(output.lines()) {
        assert_eq!(verifies(line), theirs == "true", "seed {seed}: {line:?}");
        good += usize::from(theirs == "true");
    }
    assert!((500..ITEMS - 500).contains(&good), "seed {seed}: {good}");
}

/// The body of a request for this payment, as it would be sent.
fn body(payment: &Payment, operation: OperationKind) -> Result<Value, Unpreparable> {
    let transaction = builders::transaction(payment, operation, payment.amount.minor_units());
    let mut asked = builders::operation(operation, payment, &transaction, &[]);
    asked.amount = asked.amount.map(|_| payment.amount);
    let request = account(&"00".repeat(32)).prepare(&asked)?;
    let request = Prepared::open(&request).unwrap();
    Ok(serde_json::from_slice(&request.body).unwrap())
}

pub(crate) fn payment() -> Payment {
    builders::payment("M5N7TQ4TG5PFWR50", Some("NC6HT9CRT65ZGN82"))
}

#[test]
fn a_purchase_is_captured_at_once_and_an_authorization_by_request() {
    let payment = payment();
    let purchase = body(&payment, OperationKind::Purchase).unwrap();
    assert_eq!(purchase["captureDelayHours"], 0);
    assert_eq!(purchase.get("additionalData"), None);
    let authorization = body(&payment, OperationKind::Authorize).unwrap();
    assert_eq!(
        authorization["additionalData"],
        json!({"manualCapture": "true"})
    );
    assert_eq!(authorization.get("captureDelayHours"), None);
    let reference = authorization["reference"].as_str().unwrap();
    assert!(reference.ends_with("-authorization"), "{reference}");
    let id = payment.id.0.simple().to_string();
    assert!(reference.starts_with(&id), "{reference}");
}

#[test]
fn s63_amounts_are_sent_in_adyen_s_minor_units_or_not_at_all() {
    let of = |code: &str, minor_units: i64| {
        let currency = Currency::parse(code).unwrap();
        let amount = Money::new(minor_units, currency).unwrap();
        let payment = Payment {
            amount,
            ..payment()
        };
        body(&payment, OperationKind::Refund).map(|body| body["amount"]["value"].clone())
    };
    for (code, ours, theirs) in [
        ("JPY", 500, 500),
        ("KWD", 1_234, 1_234),
        ("ISK", 7, 700),
        ("IDR", 700, 7),
    ] {
        assert_eq!(of(code, ours), Ok(json!(theirs)), "{code}");
    }
    assert_eq!(of("IDR", 750), Err(Unpreparable::Amount));
}

#[test]
fn what_adyen_needs_and_is_not_there_is_named() {
    let refused = |change: fn(&mut Payment)| {
        let mut payment = payment();
        change(&mut payment);
        body(&payment, OperationKind::Purchase).unwrap_err()
    };
    let no_url = refused(|payment| payment.return_url = Text::default());
    assert_eq!(no_url, Unpreparable::Field("return_url"));
    let shopper = Unpreparable::Field("customer.customer_reference");
    assert_eq!(
        refused(|payment| payment.customer_reference = None),
        shopper
    );
    let short = refused(|payment| payment.customer_reference = Some(Sensitive::new("ab".into())));
    assert_eq!(short, shopper);
    let long = refused(|payment| payment.method.token = Some(Sensitive::new("x".repeat(65))));
    assert_eq!(long, Unpreparable::Method);
    let voucher = refused(|payment| payment.method.kind = PaymentMethodType::Voucher);
    assert_eq!(voucher, Unpreparable::Method);
    let unknown = builders::payment("M5N7TQ4TG5PFWR50", None);
    let unknown = body(&unknown, OperationKind::Capture);
    assert_eq!(unknown, Err(Unpreparable::NoReference));
}

#[test]
fn s06_what_adyen_has_not_named_is_cancelled_by_the_reference_of_its_opening() {
    let unnamed = builders::payment("M5N7TQ4TG5PFWR50", None);
    let opening = builders::transaction(&unnamed, OperationKind::Purchase, 1_000);
    let void = builders::transaction(&unnamed, OperationKind::Void, 0);
    let request = |payment: &Payment| {
        let asked = Operation {
            opening: &opening,
            ..builders::operation(OperationKind::Void, payment, &void, &[])
        };
        let request = account(&"00".repeat(32)).prepare(&asked).unwrap();
        Prepared::open(&request).unwrap()
    };
    let by_ours = request(&unnamed);
    assert_eq!(by_ours.path, "/cancels");
    let of = |transaction: &Transaction, kind: &str| {
        let (payment, transaction) = (unnamed.id.0.simple(), transaction.id.0.simple());
        format!("{payment}-{transaction}-{kind}")
    };
    let body: Value = serde_json::from_slice(&by_ours.body).unwrap();
    let expected = json!({
        "merchantAccount": "QuittanceECOM",
        "paymentReference": of(&opening, "purchase"),
        "reference": of(&void, "void"),
    });
    assert_eq!(body, expected);
    let named = Payment {
        provider_reference: ProviderReference::parse("NC6HT9CRT65ZGN82").ok(),
        ..unnamed.clone()
    };
    let by_theirs = request(&named);
    assert_eq!(by_theirs.path, "/payments/NC6HT9CRT65ZGN82/cancels");
    assert_eq!(by_theirs.idempotency_key, by_ours.idempotency_key);
}

#[test]
fn accounts_that_cannot_work_are_refused() {
    let good = || ProviderAccountConfig {
        own: [("merchant_account", "QuittanceECOM".to_owned())].into(),
        ..ProviderAccountConfig::new(
            "a",
            quittance_providers::adyen::KIND,
            "https://a.example",
            Secret::new("k"),
        )
    };
    let problem = |change: fn(&mut ProviderAccountConfig)| {
        let mut config = good();
        change(&mut config);
        Adyen::new(&config, |_| {}).err().map(|it| it.to_string())
    };
    assert_eq!(problem(|_| ()), None);
    let changes: [fn(&mut ProviderAccountConfig); 3] = [
        |config| config.own.clear(),
        |config| drop(config.own.insert("merchant_account", "a:b".to_owned())),
        |config| drop(config.own.insert("merchant_account", "x".repeat(81))),
    ];
    for change in changes {
        assert!(problem(change).unwrap().contains("merchant_account"));
    }
    for (url, livemode) in [
        ("https://checkout-test.adyen.com/v71", true),
        (
            "https://0123-Shop-checkout-live.adyenpayments.com/checkout/v71",
            false,
        ),
    ] {
        for mode in [livemode, !livemode] {
            let config = ProviderAccountConfig {
                base_url: url.to_owned(),
                livemode: mode,
                ..good()
            };
            assert_eq!(
                Adyen::new(&config, |_| {}).is_err(),
                mode == livemode,
                "{url}"
            );
        }
    }
    let keys = problem(|config| config.webhook_secrets = vec![Secret::new("whsec_x")]);
    assert!(keys.unwrap().contains("64 hexadecimal digits"));
    assert!(problem(|config| config.api_key = Secret::new("")).is_some());
}

/// Nothing can be asked. What Adyen has named is waited for; what it has not may be sent again under its key.
#[tokio::test]
async fn a_lookup_sends_nothing_and_proves_nothing() {
    let account = account(&"00".repeat(32));
    let payment = payment();
    let mut transaction = builders::transaction(&payment, OperationKind::Refund, 5);
    let asked = LookupQuery::about(&payment, &transaction);
    let authoritative = false;
    let found = account.lookup(&asked).await;
    assert_eq!(found, LookupOutcome::NotFound { authoritative });
    transaction.provider_reference = Some(ProviderReference::parse("JDZXCMLW35GXXN82").unwrap());
    let found = account
        .lookup(&LookupQuery::about(&payment, &transaction))
        .await;
    let LookupOutcome::Found(fact) = found else {
        panic!("{found:?}");
    };
    assert_eq!(fact.kind, FactKind::Pending);
    let able = account.capabilities();
    assert!(!able.authoritative_lookup && !able.current_lookup);
}
