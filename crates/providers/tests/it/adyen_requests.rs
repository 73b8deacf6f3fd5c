//! Adyen: every kind of request against Adyen's own description, and what a customer's first payment is made with.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use quittance_domain::money::{Currency, Money};
use quittance_domain::payment::{Initiator, Payment, PaymentMethodType};
use quittance_domain::ports::{Operation, ProviderRules as _, Unpreparable};
use quittance_domain::text::{Sensitive, Text};
use quittance_domain::transaction::{OperationKind, Transaction};
use quittance_providers::Prepared;
use serde_json::{Value, json};

use crate::adyen::{account, payment};
use crate::support::builders;
use crate::support::python::{python, run, script};

/// What is installed from PyPI, pinned.
const VALIDATOR: &str = "jsonschema==4.26.0";
/// Where Adyen's description may be: it is not part of this repository.
const DESCRIPTION: &str = "adyen-checkout-v71.json";

/// What Adyen's client code makes of a card.
fn card() -> Value {
    json!({
        "paymentMethod": {
            "type": "scheme", "holderName": "S. Hopper", "brand": "mc", "checkoutAttemptId": "do-not-track",
            "encryptedCardNumber": "eyJhbGciOiJSU0EtT0FFUCJ9.4~", "encryptedExpiryMonth": "eyJhbGciOiJSU0EtT0FFUCJ9.1~",
            "encryptedExpiryYear": "eyJhbGciOiJSU0EtT0FFUCJ9.2~", "encryptedSecurityCode": "eyJhbGciOiJSU0EtT0FFUCJ9.3~",
        },
        "browserInfo": {
            "acceptHeader": "*/*", "colorDepth": 24, "javaEnabled": false, "language": "en-GB", "screenHeight": 1_080,
            "screenWidth": 1_920, "timeZoneOffset": -60, "userAgent": "Mozilla/5.0 (X11; Linux x86_64)",
        },
        "origin": "https://shop.example", "channel": "Web", "shopperIP": "192.0.2.1",
        "shopperEmail": "s.hopper@example.com", "shopperLocale": "en-GB", "countryCode": "NL", "telephoneNumber": "+31 20",
        "shopperName": {"firstName": "S.", "lastName": "Hopper"},
        "billingAddress": {
            "city": "Amsterdam", "country": "NL", "houseNumberOrName": "6-50", "postalCode": "1011 DJ",
            "street": "Simon Carmiggeltstraat",
        },
        "deliveryAddress": {
            "city": "Amsterdam", "country": "NL", "houseNumberOrName": "6-50", "postalCode": "1011 DJ",
            "street": "Simon Carmiggeltstraat",
        },
        "riskData": {"clientData": "eyJ2ZXJzaW9uIjoiMS4wLjAifQ=="},
    })
}

fn stored_now() -> Value {
    let mut data = card();
    data["storePaymentMethod"] = json!(true);
    data
}

/// With the security code that the customer entered anew.
fn one_click() -> Value {
    json!({"paymentMethod": {
        "type": "scheme", "storedPaymentMethodId": "M5N7TQ4TG5PFWR50", "encryptedSecurityCode": "eyJ9.3~",
    }})
}

fn of_type(details: &Value) -> Value {
    json!({ "paymentMethod": details })
}

/// A payment that is made with this.
fn paid_with(kind: PaymentMethodType, token: &str) -> Payment {
    let mut payment = payment();
    payment.method.kind = kind;
    payment.method.token = Some(Sensitive::new(token.to_owned()));
    payment
}

fn entered(kind: PaymentMethodType, data: &Value) -> Payment {
    paid_with(kind, &data.to_string())
}

/// Every way to pay that there is, by its name.
fn payments() -> Vec<(&'static str, Payment)> {
    use PaymentMethodType::{BankDebit, Card, Wallet};
    let stored = |kind| paid_with(kind, "M5N7TQ4TG5PFWR50");
    let by_merchant = |payment| Payment {
        initiator: Initiator::Merchant,
        ..payment
    };
    let as_guest = |payment| Payment {
        customer_reference: None,
        ..payment
    };
    let sepa =
        json!({"type": "sepadirectdebit", "iban": "NL13TEST0123456789", "ownerName": "S. Hopper"});
    let google = json!({"type": "googlepay", "googlePayToken": "{\"signature\":\"MEUCIQ\"}"});
    let apple = json!({"type": "applepay", "applePayToken": "eyJkYXRhIjoi"});
    vec![
        ("stored card", stored(Card)),
        ("stored debit", stored(BankDebit)),
        ("stored wallet", stored(Wallet)),
        ("stored card, by the merchant", by_merchant(stored(Card))),
        (
            "stored debit, by the merchant",
            by_merchant(stored(BankDebit)),
        ),
        ("card", entered(Card, &card())),
        ("card of a guest", as_guest(entered(Card, &card()))),
        ("card to be stored", entered(Card, &stored_now())),
        ("one click", entered(Card, &one_click())),
        ("direct debit", entered(BankDebit, &of_type(&sepa))),
        (
            "PayPal",
            entered(
                Wallet,
                &of_type(&json!({"type": "paypal", "subtype": "sdk"})),
            ),
        ),
        ("Google Pay", entered(Wallet, &of_type(&google))),
        ("Apple Pay", entered(Wallet, &of_type(&apple))),
        (
            "iDEAL",
            entered(
                BankDebit,
                &of_type(&json!({"type": "ideal", "issuer": "1121"})),
            ),
        ),
    ]
}

/// What a customer's step returned, by the names that the contract hands on.
const RETURNED: [&[(&str, &str)]; 6] = [
    &[("redirectResult", "X6XtfGC3!Y...")],
    &[("redirectResult", "X6XtfGC3"), ("paymentData", "Ab02b4c0")],
    &[("MD", "djIhc3"), ("PaRes", "eNpVUttygjAQ")],
    &[("threeDSResult", "eyJ0cmFuc1N0YXR1cyI6IlkifQ==")],
    &[("payload", "Ab02b4c0!BQAB"), ("paymentData", "Ab02b4c0")],
    &[
        ("threeds2.fingerprint", "eyJ0aHJlZURTQ29tcEluZCI6IlkifQ=="),
        ("threeds2.challengeResult", "eyJ0cmFuc1N0YXR1cyI6IlkifQ=="),
    ],
];

/// The body of a request, with the name of its schema and of what it shows.
fn line(schema: &str, name: &str, asked: &Operation<'_>) -> Value {
    let request = account(&"00".repeat(32)).prepare(asked);
    let request = Prepared::open(&request.unwrap_or_else(|why| panic!("{name}: {why}"))).unwrap();
    assert!(request.idempotency_key.len() <= 64, "{name}");
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    json!({"schema": schema, "name": name, "request": body})
}

fn opened(name: &str, payment: &Payment, kind: OperationKind) -> Value {
    let transaction = builders::transaction(payment, kind, 1_000);
    let asked = Operation {
        amount: Some(payment.amount),
        ..builders::operation(kind, payment, &transaction, &[])
    };
    line("PaymentRequest", name, &asked)
}

/// Every kind of request that the adapter can send.
fn requests() -> Vec<Value> {
    let mut lines = Vec::new();
    for (name, mut payment) in payments() {
        for kind in [OperationKind::Purchase, OperationKind::Authorize] {
            for reference in ["", "order-4711"] {
                payment.merchant_reference = Text::parse(reference).unwrap();
                // Neither is sent, whatever is in them.
                payment.metadata = [("basket".to_owned(), "7".to_owned())].into();
                payment.description = Text::parse("Two tickets").unwrap();
                lines.push(opened(&format!("{name}, {kind}"), &payment, kind));
            }
        }
    }
    for code in ["JPY", "KWD", "ISK", "CLP"] {
        let currency = Currency::parse(code).unwrap();
        let payment = Payment {
            amount: Money::new(700, currency).unwrap(),
            ..payment()
        };
        lines.push(opened(code, &payment, OperationKind::Purchase));
    }
    let payment = payment();
    for returned in RETURNED {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let parameters: Vec<_> = returned.iter().map(owned).collect();
        let kind = OperationKind::Confirm;
        let transaction = builders::transaction(&payment, kind, 1_000);
        let asked = builders::operation(kind, &payment, &transaction, &parameters);
        lines.push(line("PaymentDetailsRequest", "confirmation", &asked));
    }
    for (kind, schema) in [
        (OperationKind::Capture, "PaymentCaptureRequest"),
        (OperationKind::Void, "PaymentCancelRequest"),
        (OperationKind::Refund, "PaymentRefundRequest"),
    ] {
        let mut transaction = builders::transaction(&payment, kind, 1_000);
        for final_capture in [false, true] {
            transaction.final_capture = final_capture && kind == OperationKind::Capture;
            transaction.reason = Text::parse("Returned").unwrap();
            let asked = builders::operation(kind, &payment, &transaction, &[]);
            lines.push(line(schema, &kind.to_string(), &asked));
        }
    }
    let unnamed = builders::payment("M5N7TQ4TG5PFWR50", None);
    for opening in [OperationKind::Purchase, OperationKind::Authorize] {
        let opening: Transaction = builders::transaction(&unnamed, opening, 1_000);
        let void = builders::transaction(&unnamed, OperationKind::Void, 0);
        let asked = Operation {
            opening: &opening,
            ..builders::operation(OperationKind::Void, &unnamed, &void, &[])
        };
        lines.push(line(
            "StandalonePaymentCancelRequest",
            "by our reference",
            &asked,
        ));
    }
    lines
}

/// Beside the repository, or where `QUITTANCE_SPECS` says.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn description() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = std::env::var_os("QUITTANCE_SPECS").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| root.join("../shared/specs"));
    let file = folder.join(DESCRIPTION);
    if file.exists() {
        return Some(file);
    }
    eprintln!("SKIPPED: no {}", file.display());
    None
}

/// What is not as described, each with a request that only this spoils.
fn spoiled(good: &[Value]) -> Vec<Value> {
    let mut bad: Vec<_> = good.to_vec();
    for line in &mut bad {
        line["request"]["quittance"] = json!("unknown");
    }
    let mut change = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut line = good
            .iter()
            .find(|line| line["name"] == name)
            .unwrap()
            .clone();
        change(&mut line["request"]);
        bad.push(line);
    };
    change("card, purchase", &|request| {
        request.as_object_mut().unwrap().remove("returnUrl");
    });
    change("card, purchase", &|request| {
        request["browserInfo"]
            .as_object_mut()
            .unwrap()
            .remove("userAgent");
    });
    change("card, purchase", &|request| {
        request["paymentMethod"]["pan"] = json!("x");
    });
    change("card, purchase", &|request| {
        request["amount"]["value"] = json!("10");
    });
    change("stored card, purchase", &|request| {
        request["shopperReference"] = json!("ab");
    });
    change("stored card, purchase", &|request| {
        request["recurringProcessingModel"] = json!("Sometimes");
    });
    change("confirmation", &|request| {
        request["details"]["MDs"] = json!("x");
    });
    bad
}

#[test]
fn adyen_requests_are_as_adyen_describes_them() {
    let Some(description) = description() else {
        return;
    };
    let Some(python) = python(&[VALIDATOR]) else {
        return;
    };
    let mut input = requests();
    let good = input.len();
    assert!(good > 70, "{good}");
    input.extend(spoiled(&input));
    let lines: Vec<_> = input.iter().map(|line| format!("{line}\n")).collect();
    let mut command = script(&python, "adyen_requests.py");
    command.arg(description);
    let output = run(&mut command, lines.concat().as_bytes()).unwrap();
    let verdicts = String::from_utf8(output.stdout).unwrap();
    let verdicts: Vec<_> = verdicts.lines().collect();
    assert_eq!(verdicts.len(), input.len());
    for (number, (line, verdict)) in input.iter().zip(&verdicts).enumerate() {
        assert_eq!(*verdict == "ok", number < good, "{verdict}: {line}");
    }
}

/// Nothing of a request is missing in the check above.
#[test]
fn the_requests_that_are_checked_have_every_field_that_the_adapter_knows() {
    let mut fields = BTreeSet::new();
    for line in requests() {
        fields.extend(line["request"].as_object().unwrap().keys().cloned());
    }
    let source = include_str!("../../src/adyen/wire.rs");
    let requests = source
        .split("/// What of a request is compared")
        .next()
        .unwrap();
    let named = requests.lines().filter_map(|line| {
        let (name, _) = line.trim().strip_prefix("pub ")?.split_once(": ")?;
        Some(name.trim_start_matches("r#"))
    });
    let camel = |name: &str| {
        let mut parts = name.split('_');
        let first = parts.next().unwrap().to_owned();
        parts.fold(first, |all, part| {
            all + &part[..1].to_uppercase() + &part[1..]
        })
    };
    // Of inner objects, or what stands for several fields.
    let inner = ["currency", "value", "manualCapture", "beside"];
    for name in named
        .map(camel)
        .filter(|name| !inner.contains(&name.as_str()))
    {
        assert!(fields.contains(&name), "{name} is in no request");
    }
}

#[test]
fn a_customer_s_first_payment_is_made_with_what_adyen_s_client_code_encrypted() {
    let first = entered(PaymentMethodType::Card, &stored_now());
    let request = opened("first", &first, OperationKind::Purchase)["request"].clone();
    assert_eq!(request["paymentMethod"], card()["paymentMethod"]);
    for name in [
        "browserInfo",
        "origin",
        "shopperIP",
        "billingAddress",
        "riskData",
    ] {
        assert_eq!(request[name], card()[name], "{name}");
    }
    assert_eq!(request["shopperInteraction"], "Ecommerce");
    assert_eq!(request["storePaymentMethod"], true);
    assert_eq!(request["recurringProcessingModel"], "CardOnFile");
    assert_eq!(request["shopperReference"], "shopper-7");
    // The same bytes each time: a resend is no other request.
    let again = opened("first", &first, OperationKind::Purchase)["request"].clone();
    assert_eq!(request["paymentMethod"], again["paymentMethod"]);

    let guest = Payment {
        customer_reference: None,
        ..entered(PaymentMethodType::Card, &card())
    };
    let request = opened("guest", &guest, OperationKind::Authorize)["request"].clone();
    for absent in [
        "shopperReference",
        "storePaymentMethod",
        "recurringProcessingModel",
    ] {
        assert_eq!(request.get(absent), None, "{absent}");
    }
    let one_click = entered(PaymentMethodType::Card, &one_click());
    let request = opened("one click", &one_click, OperationKind::Purchase)["request"].clone();
    assert_eq!(request["shopperInteraction"], "ContAuth");
    assert_eq!(request["recurringProcessingModel"], "CardOnFile");
}

/// What comes from a browser does not say what is paid, to whom, or at what risk.
#[test]
fn what_adyen_s_client_code_does_not_tell_is_not_taken_over() {
    let plain = opened(
        "plain",
        &entered(PaymentMethodType::Card, &card()),
        OperationKind::Purchase,
    );
    let mut data = card();
    for (name, value) in [
        ("amount", json!({"currency": "EUR", "value": 1})),
        ("merchantAccount", json!("Theirs")),
        ("reference", json!("theirs")),
        ("returnUrl", json!("https://theirs.example")),
        ("shopperReference", json!("somebody else")),
        ("captureDelayHours", json!(700)),
        ("additionalData", json!({"manualCapture": "true"})),
        ("splits", json!([])),
        ("clientStateDataIndicator", json!(true)),
    ] {
        data[name] = value;
    }
    data["riskData"]["fraudOffset"] = json!(-1_000);
    let mut same = opened(
        "same",
        &entered(PaymentMethodType::Card, &data),
        OperationKind::Purchase,
    );
    same["request"]["reference"] = plain["request"]["reference"].clone();
    assert_eq!(same["request"], plain["request"]);
}

#[test]
fn what_is_no_payment_method_of_adyen_s_is_refused() {
    use PaymentMethodType::{BankDebit, BankTransfer, Card, Voucher};
    let refused = |payment: &Payment| {
        let transaction = builders::transaction(payment, OperationKind::Purchase, 1_000);
        let asked = builders::operation(OperationKind::Purchase, payment, &transaction, &[]);
        account(&"00".repeat(32)).prepare(&asked).err()
    };
    let token = Some(Unpreparable::Field("payment_method.provider_token"));
    for odd in [
        "{",
        "{}",
        "{\"paymentMethod\":7}",
        "{\"paymentMethod\":{}}",
        "{\"paymentMethod\":{\"type\":7}}",
    ] {
        assert_eq!(refused(&paid_with(Card, odd)), token, "{odd}");
    }
    for raw in ["number", "cvc", "expiryMonth", "expiryYear"] {
        let mut data = card();
        data["paymentMethod"][raw] = json!("03");
        assert_eq!(refused(&entered(Card, &data)), token, "{raw}");
    }
    // It is of another kind than the caller says.
    let method = Some(Unpreparable::Method);
    assert_eq!(refused(&entered(BankDebit, &card())), method);
    let ideal = of_type(&json!({"type": "ideal"}));
    for kind in [Card, BankTransfer, Voucher] {
        assert_eq!(refused(&entered(kind, &ideal)), method, "{kind}");
    }
    let by_merchant = Payment {
        initiator: Initiator::Merchant,
        ..entered(Card, &card())
    };
    assert_eq!(refused(&by_merchant), method, "nobody is there to enter it");
    let shopper = Some(Unpreparable::Field("customer.customer_reference"));
    for data in [stored_now(), one_click()] {
        let guest = Payment {
            customer_reference: None,
            ..entered(Card, &data)
        };
        assert_eq!(refused(&guest), shopper);
    }
}
