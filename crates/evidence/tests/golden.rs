//! Entries, MACs and disclosures against constants that Python computed (`golden/make_vectors.py`).

#![allow(
    clippy::unwrap_used,
    clippy::unnecessary_wraps,
    reason = "a failed unwrap is a failed test; builders give fields as they are stored"
)]

mod support;

use chrono::{DateTime, Utc};
use quittance_evidence::{
    Actor, Amounts, Cause, ChainCheck, Disclosure, EntryResult, Hash, Leaf, LeafMac, MacKey,
    MacKeyId, StreamId, leaf_hash,
};
use support::PAYMENT;
use uuid::Uuid;

struct Vector {
    leaf_data: &'static str,
    leaf_hash: &'static str,
    mac: &'static str,
}

struct Disclosed {
    encoded: &'static str,
    digest: &'static str,
}

mod vectors {
    use super::{Disclosed, Vector};

    include!("golden/vectors.rs");
}

const TRANSACTION: Uuid = Uuid::from_u128(0x0189_0a5d_ac96_7b7c_8f89_37c3_d0a6_6aa1);

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn hash(byte: u8) -> Option<Hash> {
    Some(Hash::from_bytes([byte; 32]))
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn base(seq: u8, prev: Option<&Vector>, event_type: &str) -> Leaf {
    Leaf {
        leaf_salt: [seq; 16],
        entry_id: Uuid::from_u128(0x0189_0a5d_ac97_7000_8000_0000_0000_0000 + u128::from(seq)),
        event_type: event_type.to_owned(),
        occurred_at: time(&format!("2026-02-28T23:59:5{seq}Z")),
        recorded_at: time(&format!("2026-02-28T23:59:5{seq}.00012Z")),
        actor: Actor {
            kind: "api_key".to_owned(),
            id: "checkout".to_owned(),
            auth_method: some("bearer"),
        },
        trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes(),
        span_id: 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes(),
        ..support::leaf(
            seq.into(),
            prev.map(|vector| vector.leaf_hash.parse().unwrap()),
        )
    }
}

/// `N` bytes counting up from `start`.
fn counting<const N: usize>(start: u8) -> [u8; N] {
    let mut bytes = [0; N];
    bytes
        .iter_mut()
        .zip(start..)
        .for_each(|(byte, value)| *byte = value);
    bytes
}

fn customer_name() -> Disclosure {
    Disclosure::new(counting(0), "customer.name", "Zoë \"Z\" O'Neil\n\u{1}").unwrap()
}

fn customer_email() -> Disclosure {
    Disclosure::new(counting(16), "customer.email", "zoe@example.com").unwrap()
}

fn first() -> Leaf {
    let mut leaf = base(1, None, "payment.accepted");
    leaf.transaction_id = Some(TRANSACTION);
    leaf.merchant_reference = some("Bestellung \"42\" \\ Größe Ä 😀");
    leaf.capture_method = some("MANUAL");
    leaf.amounts = Some(Amounts::default());
    leaf.payment_row_digest = hash(0x11);
    leaf.source.peer = some("[2001:db8::1]:50123");
    leaf.source.rpc_method = some("quittance.v1.PaymentService/CreatePayment");
    leaf.state_to = some("PENDING");
    leaf.amount_minor = Some(1234);
    leaf.currency = some("KWD");
    leaf.currency_exponent = Some(3);
    leaf.attempt = Some(1);
    leaf.max_attempts = Some(8);
    leaf.provider_account = some("sandbox-eu");
    leaf.provider_request_digest = hash(0x22);
    leaf.idempotency_key_digest = hash(0x33);
    leaf.request_id = some("req-7");
    leaf.remote_trace_id = Some(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes());
    leaf.remote_span_id = Some(0xb7ad_6b71_6920_3331_u64.to_be_bytes());
    leaf.personal_data = [customer_name(), customer_email()]
        .map(|disclosure| (disclosure.name().to_owned(), disclosure.digest()))
        .into();
    leaf
}

fn second() -> Leaf {
    let mut leaf = base(2, Some(&vectors::FIRST), "payment.attempt_unknown");
    leaf.transaction_id = Some(TRANSACTION);
    leaf.result = EntryResult::Unknown;
    leaf.cause = Some(Cause {
        code: "PROVIDER_TIMEOUT".to_owned(),
        retryable: true,
    });
    leaf.state_from = some("PENDING");
    leaf.state_to = some("PENDING");
    leaf.attempt = Some(1);
    leaf.max_attempts = Some(8);
    leaf.next_retry_at = Some(time("2026-03-01T00:00:07.250001999Z"));
    leaf.actor = Actor {
        kind: "system".to_owned(),
        id: "recovery".to_owned(),
        auth_method: None,
    };
    leaf.trace_flags = 0;
    leaf
}

fn third() -> Leaf {
    let mut leaf = base(3, Some(&vectors::SECOND), "payment.declined");
    leaf.transaction_id = Some(TRANSACTION);
    leaf.result = EntryResult::Failure;
    leaf.grpc_status = some("OK");
    leaf.decline_code = some("INSUFFICIENT_FUNDS");
    leaf.cause = Some(Cause {
        code: "DECLINED".to_owned(),
        retryable: false,
    });
    leaf.state_from = some("PENDING");
    leaf.state_to = some("DECLINED");
    leaf.provider_reference = some("sbx_/1");
    leaf.provider_response_digest = hash(0x44);
    leaf.details = [
        ("reason", "line one\r\nline two"),
        ("a-b", ""),
        ("a.b", "€"),
        ("a_b", "\t"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    leaf
}

fn largest() -> Leaf {
    let mut leaf = base(1, None, "payment.fact_recorded");
    leaf.amounts = Some(Amounts {
        authorized: i64::MAX,
        captured: i64::MIN,
        capture_pending: -1,
        voided: 0,
        void_pending: 1,
        refunded: 10,
        refund_pending: 9_007_199_254_740_993,
        charged_back: 100,
        excess: 99,
    });
    leaf.amount_minor = Some(i64::MIN);
    leaf.currency = some("JPY");
    leaf.currency_exponent = Some(0);
    leaf.attempt = Some(u32::MAX);
    leaf.max_attempts = Some(0);
    leaf.trace_flags = 255;
    leaf.occurred_at = time("0001-01-01T00:00:00Z");
    leaf.recorded_at = time("9999-12-31T23:59:59.999999Z");
    leaf
}

fn named() -> Leaf {
    let mut leaf = base(1, None, "audit.read");
    let id = Uuid::from_u128(0x0189_0a5d_ac98_7000_8000_0000_0000_0001);
    leaf.stream_id = StreamId::named("audit-reads", id).unwrap();
    leaf.payment_id = None;
    leaf.details = [
        ("filter.trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("page_size", "50"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    leaf.trace_id = [0; 16];
    leaf.span_id = [0; 8];
    leaf
}

#[test]
fn entries_have_the_bytes_hashes_and_macs_that_python_computed() {
    let id = MacKeyId::new("mac-2026-01").unwrap();
    let key = MacKey::new(id, counting(0));
    for (leaf, vector) in [
        (first(), &vectors::FIRST),
        (second(), &vectors::SECOND),
        (third(), &vectors::THIRD),
        (largest(), &vectors::LARGEST),
        (named(), &vectors::NAMED),
    ] {
        let data = leaf.encode().unwrap();
        assert_eq!(str::from_utf8(data.as_bytes()).unwrap(), vector.leaf_data);
        assert_eq!(data.leaf_hash().to_string(), vector.leaf_hash);
        assert_eq!(leaf_hash(vector.leaf_data.as_bytes()), data.leaf_hash());
        let mac = LeafMac::compute(&key, &data);
        assert_eq!(Hash::from_bytes(*mac.tag()).to_string(), vector.mac);
        mac.verify(&key, vector.leaf_data.as_bytes()).unwrap();
        let decoded = Leaf::decode(vector.leaf_data.as_bytes()).unwrap();
        assert_eq!(decoded.encode().unwrap(), data);
    }
}

#[test]
fn clean_entries_decode_to_what_was_encoded() {
    for leaf in [first(), largest(), named()] {
        assert_eq!(
            Leaf::decode(leaf.encode().unwrap().as_bytes()).unwrap(),
            leaf
        );
    }
}

#[test]
fn disclosures_have_the_digests_that_python_computed() {
    for (disclosure, vector) in [
        (customer_name(), &vectors::CUSTOMER_NAME),
        (customer_email(), &vectors::CUSTOMER_EMAIL),
    ] {
        assert_eq!(disclosure.encode(), vector.encoded);
        assert_eq!(disclosure.digest().to_string(), vector.digest);
        assert_eq!(Disclosure::parse(vector.encoded).unwrap(), disclosure);
    }
}

#[test]
fn the_golden_entries_of_the_payment_form_a_chain() {
    let chain = [&vectors::FIRST, &vectors::SECOND, &vectors::THIRD].map(|v| v.leaf_data);
    let head = ChainCheck::run(chain).unwrap().unwrap();
    assert_eq!(head.entity_seq, 3);
    assert_eq!(head.stream_id, StreamId::Payment(PAYMENT));
    assert_eq!(head.leaf_hash.to_string(), vectors::THIRD.leaf_hash);
}
