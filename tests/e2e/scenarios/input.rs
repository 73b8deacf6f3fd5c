//! Bad input: refused by name, and nothing stored.

use std::collections::{BTreeMap, HashMap};

use quittance_proto::v1::{CreatePaymentRequest, Customer, Initiator, Money, PostalAddress};
use tonic::Code;

use crate::harness::{
    CreateRequest as _, Keyed as _, World, authorization, capture, money, purchase, refund,
};

/// The request is refused with this reason, naming exactly these fields, and nothing is stored.
async fn refuses(world: &World, request: CreatePaymentRequest, reason: &str, fields: &[&str]) {
    let before = world.db.volume().await;
    let failure = world.client.refused(request).await;
    failure.is(Code::InvalidArgument, reason).names(fields);
    assert!(!failure.money_may_have_moved() && !failure.retryable());
    assert_eq!(world.db.volume().await, before, "{reason} {fields:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s62_amounts_of_zero_below_it_and_at_the_limits() {
    let world = World::start().await;
    for minor_units in [0, -1, i64::MIN, i64::MAX, 1_000_000_000_000_000] {
        let request = purchase("tok_approve", minor_units);
        refuses(
            &world,
            request,
            "AMOUNT_OUT_OF_RANGE",
            &["amount.minor_units"],
        )
        .await;
    }
    for minor_units in [1, 999_999_999_999_999] {
        let payment = world
            .client
            .create(purchase("tok_approve", minor_units))
            .await;
        assert_eq!(payment.amount, Some(money(minor_units, "EUR")));
        let zero = world.client.refused(refund(&payment, 0)).await;
        zero.is(Code::InvalidArgument, "AMOUNT_OUT_OF_RANGE")
            .names(&["amount.minor_units"]);
        let negative = world.client.refused(refund(&payment, -1)).await;
        negative
            .is(Code::InvalidArgument, "AMOUNT_OUT_OF_RANGE")
            .names(&["amount.minor_units"]);
    }
    let payment = world.client.create(authorization("tok_approve", 10)).await;
    let huge = world.client.refused(capture(&payment, i64::MAX)).await;
    huge.is(Code::InvalidArgument, "AMOUNT_OUT_OF_RANGE");
    let absent = CreatePaymentRequest {
        amount: None,
        ..purchase("tok_approve", 1)
    };
    refuses(&world, absent, "INVALID_FIELD", &["amount"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s63_currencies_with_other_exponents_are_charged_in_their_minor_units() {
    let world = World::start().await;
    for (code, minor_units) in [("JPY", 500), ("KWD", 1234), ("ISK", 700), ("USD", 99)] {
        let payment = world
            .client
            .create(purchase("tok_approve", minor_units).currency(code))
            .await;
        assert_eq!(payment.amount, Some(money(minor_units, code)));
        assert_eq!(
            world.books().currencies[code].captured,
            i128::from(minor_units)
        );
    }
    let exponents = world
        .db
        .rows(
            "select distinct currency, currency_exponent from payments order by 1",
            &[],
        )
        .await;
    let exponents: HashMap<String, i16> = exponents
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    assert_eq!(
        (exponents["JPY"], exponents["KWD"], exponents["USD"]),
        (0, 3, 2)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s64_unknown_and_lower_case_currencies_are_refused() {
    let world = World::start().await;
    for code in ["eur", "Eur", "XXZ", "EURO", "E", "978", "EU\u{200b}"] {
        let request = purchase("tok_approve", 100).currency(code);
        refuses(
            &world,
            request,
            "UNKNOWN_CURRENCY",
            &["amount.currency_code"],
        )
        .await;
    }
    let payment = world.client.create(purchase("tok_approve", 100)).await;
    let mut request = refund(&payment, 100);
    request.amount = Some(money(100, "USD"));
    let failure = world.client.refused(request).await;
    failure.is(Code::InvalidArgument, "CURRENCY_MISMATCH");
    assert_eq!(world.books().counts.refunds, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s66_over_long_text_and_control_characters_are_refused_by_field() {
    let world = World::start().await;
    let base = || purchase("tok_approve", 100);
    let long = |limit: usize| "é".repeat(limit + 1);
    let cases = [
        (base().key(&"k".repeat(256)), "idempotency_key"),
        (base().key(""), "idempotency_key"),
        (base().key("sp\u{e4}t"), "idempotency_key"),
        (base().key("line\nbreak"), "idempotency_key"),
        (base().merchant_reference(&long(255)), "merchant_reference"),
        (base().merchant_reference("a\u{0}b"), "merchant_reference"),
        (
            CreatePaymentRequest {
                description: long(500),
                ..base()
            },
            "description",
        ),
        (
            CreatePaymentRequest {
                description: "a\u{1b}[31m".to_owned(),
                ..base()
            },
            "description",
        ),
        (
            CreatePaymentRequest {
                return_url: "javascript:alert(1)".to_owned(),
                ..base()
            },
            "return_url",
        ),
        (
            CreatePaymentRequest {
                mandate_reference: "m".to_owned(),
                ..base()
            },
            "mandate_reference",
        ),
        (
            CreatePaymentRequest {
                initiator: Initiator::Merchant.into(),
                ..base()
            },
            "mandate_reference",
        ),
        (
            CreatePaymentRequest {
                capture_method: 99,
                ..base()
            },
            "capture_method",
        ),
        (
            CreatePaymentRequest {
                payment_method: None,
                ..base()
            },
            "payment_method",
        ),
    ];
    for (request, field) in cases {
        refuses(&world, request, "INVALID_FIELD", &[field]).await;
    }
    // At the limit they pass.
    let mut request = base()
        .key(&"k".repeat(255))
        .merchant_reference(&"é".repeat(255));
    request.description = "é".repeat(500);
    world.client.create(request).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s66_metadata_is_limited_in_pairs_keys_and_values() {
    let world = World::start().await;
    let many: BTreeMap<_, _> = (0..51)
        .map(|number| (format!("k{number}"), "v".to_owned()))
        .collect();
    let request = CreatePaymentRequest {
        metadata: many,
        ..purchase("tok_approve", 100)
    };
    refuses(&world, request, "INVALID_FIELD", &["metadata"]).await;
    for (key, value) in [
        (&*"k".repeat(41), "v".to_owned()),
        ("", "v".to_owned()),
        ("k", "v".repeat(501)),
        ("k", "\u{7}".to_owned()),
    ] {
        let request = purchase("tok_approve", 100).meta(key, &value);
        let failure = world.client.refused(request).await;
        failure.is(Code::InvalidArgument, "INVALID_FIELD");
        assert!(
            failure.violations[0].0.starts_with("metadata"),
            "{failure:?}"
        );
    }
    let mut request = purchase("tok_approve", 100);
    for number in 10..60 {
        let key = format!("{}{number}", "k".repeat(38));
        request.metadata.insert(key, "v".repeat(500));
    }
    let payment = world.client.create(request.clone()).await;
    assert_eq!(payment.metadata, request.metadata);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_field_is_named_and_not_only_the_first() {
    let world = World::start().await;
    let mut request = purchase("", 0).currency("nope").key("");
    let method = request.payment_method.as_mut().unwrap();
    method.last4 = "12345".to_owned();
    method.expiry_month = 13;
    request.description = "\u{0}".to_owned();
    let failure = world.client.refused(request).await;
    assert_eq!(failure.code, Code::InvalidArgument);
    let named: Vec<_> = failure
        .violations
        .iter()
        .map(|(field, _)| field.as_str())
        .collect();
    for field in [
        "idempotency_key",
        "amount.minor_units",
        "amount.currency_code",
        "payment_method.provider_token",
        "payment_method.last4",
        "payment_method.expiry_month",
        "description",
    ] {
        assert!(named.contains(&field), "{field} is not among {named:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s67_personal_data_is_stored_only_encrypted() {
    let world = World::start().await;
    let mut request = purchase("tok_approve?latency_ms=0", 100);
    request.customer = Some(Customer {
        customer_reference: "customer-Zaphod".to_owned(),
        name: "Zaphod Beeblebrox".to_owned(),
        email: "zaphod@heartofgold.example".to_owned(),
        ip_address: "192.0.2.77".to_owned(),
        address: Some(PostalAddress {
            lines: vec!["42 Betelgeuse Lane".to_owned()],
            city: "Damogran-City".to_owned(),
            region: String::new(),
            postal_code: "ZZ9-PLURAL".to_owned(),
            country_code: "GB".to_owned(),
        }),
    });
    let payment = world.client.create(request).await;
    for secret in [
        "Zaphod",
        "heartofgold",
        "192.0.2.77",
        "Betelgeuse",
        "Damogran",
        "PLURAL",
        // The provider's token is as good as the card.
        "tok_approve?latency_ms",
    ] {
        assert_eq!(
            world.db.places_of(secret).await,
            Vec::<String>::new(),
            "{secret}"
        );
    }
    let accepted = &world.client.entries_of(&payment.payment_id).await[0];
    let digests: Vec<_> = accepted.personal_data_digests.keys().cloned().collect();
    assert!(
        digests.iter().any(|name| name.contains("email")),
        "{digests:?}"
    );
    assert_eq!(
        payment.amount,
        Some(Money {
            minor_units: 100,
            currency_code: "EUR".to_owned()
        })
    );
}
