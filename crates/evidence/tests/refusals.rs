//! What the encoder and the decoder refuse, rule by rule.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use chrono::{DateTime, Utc};
use quittance_evidence::{
    Amounts, Leaf, LeafError, LeafMac, MAX_LEAF_BYTES, MacError, MacKey, MacKeyId, StreamId,
};
use support::{PAYMENT, leaf};
use uuid::Uuid;

fn encoded(leaf: &Leaf) -> String {
    String::from_utf8(leaf.encode().unwrap().into_bytes()).unwrap()
}

fn refused(text: &str) -> LeafError {
    Leaf::decode(text.as_bytes()).unwrap_err()
}

#[test]
fn an_oversized_entry_names_its_largest_field() {
    let mut leaf = leaf(1, None);
    leaf.details.insert("reason".to_owned(), "x".repeat(40_000));
    leaf.merchant_reference = Some("y".repeat(30_000));
    match leaf.encode() {
        Err(LeafError::TooLarge {
            size,
            largest_field,
            largest_bytes,
        }) => {
            assert_eq!(largest_field, "details");
            assert!(size > MAX_LEAF_BYTES && largest_bytes > 40_000 && largest_bytes < 40_100);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_entry_of_exactly_the_limit_is_accepted_and_one_byte_more_is_not() {
    let mut leaf = leaf(1, None);
    leaf.request_id = Some(String::new());
    let room = MAX_LEAF_BYTES - encoded(&leaf).len();
    leaf.request_id = Some("r".repeat(room));
    let data = leaf.encode().unwrap();
    assert_eq!(data.as_bytes().len(), MAX_LEAF_BYTES);
    assert_eq!(Leaf::decode(data.as_bytes()).unwrap(), leaf);
    leaf.request_id = Some("r".repeat(room + 1));
    assert!(matches!(
        leaf.encode(),
        Err(LeafError::TooLarge {
            largest_field: "request_id",
            ..
        })
    ));
    let over = vec![b' '; MAX_LEAF_BYTES + 1];
    assert!(matches!(
        Leaf::decode(&over),
        Err(LeafError::TooLarge { .. })
    ));
}

#[test]
fn the_encoder_refuses_entries_that_break_a_rule() {
    type Spoil = fn(&mut Leaf);
    let cases: [(Spoil, LeafError); 12] = [
        (|l| l.schema_version = 2, LeafError::UnknownVersion(2)),
        (|l| l.tenant_id.clear(), LeafError::Empty("tenant_id")),
        (|l| l.event_type.clear(), LeafError::Empty("event_type")),
        (|l| l.actor.kind.clear(), LeafError::Empty("actor.type")),
        (|l| l.entity_seq = 0, LeafError::ChainStart),
        (|l| l.entity_seq = 2, LeafError::ChainStart),
        (|l| l.payment_id = None, LeafError::StreamOfOtherPayment),
        (
            |l| {
                l.stream_id = StreamId::Named {
                    name: "A".to_owned(),
                    id: Uuid::nil(),
                }
            },
            LeafError::InvalidName("stream_id"),
        ),
        (
            |l| l.amount_minor = Some(1),
            LeafError::AmountWithoutCurrency,
        ),
        (
            |l| l.amounts = Some(Amounts::default()),
            LeafError::AmountWithoutCurrency,
        ),
        (
            |l| l.details = [("Ä".to_owned(), String::new())].into(),
            LeafError::InvalidName("details"),
        ),
        (
            |l| l.personal_data = [(String::new(), [0; 32].into())].into(),
            LeafError::InvalidName("personal_data"),
        ),
    ];
    for (spoil, error) in cases {
        let mut leaf = leaf(1, None);
        spoil(&mut leaf);
        assert_eq!(leaf.encode(), Err(error));
    }
}

#[test]
fn times_that_rfc_3339_cannot_write_are_refused() {
    for time in [DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MIN_UTC] {
        let mut leaf = leaf(1, None);
        leaf.next_retry_at = Some(time);
        assert_eq!(
            leaf.encode(),
            Err(LeafError::TimeOutOfRange("next_retry_at"))
        );
    }
}

#[test]
fn a_leap_second_is_written_as_the_second_after_it() {
    let mut leaf = leaf(1, None);
    leaf.occurred_at = "2016-12-31T23:59:60.5Z".parse().unwrap();
    assert!(encoded(&leaf).contains(r#""occurred_at":"2017-01-01T00:00:00.500000Z""#));
}

#[test]
fn the_decoder_refuses_what_is_not_canonical() {
    let good = encoded(&leaf(1, None));
    let salt = r#""leaf_salt":"AQEBAQEBAQEBAQEBAQEBAQ""#;
    for (from, to) in [
        ("{\"actor\"", "{ \"actor\""),
        ("\"event_type\":\"", "\"event_type\":\"\\u0061"),
        ("\"tenant_id\":\"", "\"tenant_id\":\"\\/"),
        ("\"tenant_id\":\"", "\"tenant_id\":\"\\n"),
        ("\"tenant_id\":\"", "\"tenant_id\":\"\u{85}"),
        ("\"entity_seq\":\"1\"", "\"entity_seq\":\"01\""),
        ("\"entity_seq\":\"1\"", "\"entity_seq\":\"+1\""),
        ("Z\",\"payment_id\"", "+00:00\",\"payment_id\""),
        (".000001Z", ".0000010Z"),
        ("\"payment_id\":\"01", "\"payment_id\":\"urn:uuid:01"),
        (salt, &format!("\"grpc_status\":null,{salt}")),
        (salt, &format!("\"details\":{{}},{salt}")),
        (
            salt,
            &format!("\"details\":{{\"a\":\"1\",\"a\":\"1\"}},{salt}"),
        ),
        (salt, &format!("\"currency\":\"EUR\",{salt}")),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        assert!(
            matches!(refused(&bad), LeafError::NotCanonical { .. }),
            "{from} -> {to}"
        );
    }
    assert_eq!(
        refused(&format!("{good}\n")),
        LeafError::NotCanonical { offset: good.len() }
    );
}

#[test]
fn the_decoder_refuses_what_is_not_an_entry() {
    let good = encoded(&leaf(1, None));
    let cut = good.len() - 1;
    for (from, to) in [
        ("{\"actor\":", "{\"actor\":null,\"actor\":"),
        (
            "\"schema_version\":1",
            "\"schema_version\":1,\"schema_version\":1",
        ),
        ("\"schema_version\":1", "\"schema_version\":1.0"),
        ("\"schema_version\":1", "\"schema_version\":1e0"),
        ("\"schema_version\":1", "\"schema_version\":\"1\""),
        ("\"trace_flags\":1", "\"trace_flags\":256"),
        ("\"trace_flags\":1", "\"trace_flags\":-1"),
        ("\"trace_id\":\"", "\"trace_id\":\"A"),
        ("\"entity_seq\":\"1\"", "\"entity_seq\":1"),
        (
            "\"entity_seq\":\"1\"",
            "\"entity_seq\":\"18446744073709551616\"",
        ),
        ("\"result\":\"success\"", "\"result\":\"fine\""),
        ("\"tenant_id\"", "\"tenant_ix\""),
        ("\"type\":", "\"kind\":"),
        (&good[cut..], "}}"),
        (&good[cut..], ""),
    ] {
        let bad = if from == "}" {
            format!("{}{to}", &good[..cut])
        } else {
            good.replacen(from, to, 1)
        };
        assert_ne!(bad, good, "{from}");
        assert!(
            matches!(refused(&bad), LeafError::Malformed { .. }),
            "{from} -> {to}"
        );
    }
    for bad in [
        "",
        "null",
        "[]",
        "{}",
        "0",
        "\u{FEFF}{}",
        &"[".repeat(60_000),
    ] {
        assert!(matches!(refused(bad), LeafError::Malformed { .. }));
    }
}

#[test]
fn an_entry_of_a_later_schema_is_told_apart_from_a_broken_one() {
    let good = encoded(&leaf(1, None));
    let later = good.replacen("\"schema_version\":1", "\"new\":[],\"schema_version\":7", 1);
    assert_eq!(refused(&later), LeafError::UnknownVersion(7));
    let same_fields = good.replacen("\"schema_version\":1", "\"schema_version\":2", 1);
    assert_eq!(refused(&same_fields), LeafError::UnknownVersion(2));
}

#[test]
fn errors_quote_nothing_of_the_entry() {
    let good = encoded(&leaf(1, None));
    let bad = good.replacen("{\"actor\"", "{\"4111111111111111\":1,\"actor\"", 1);
    let error = refused(&bad);
    assert!(!format!("{error} {error:?}").contains("4111"));
}

#[test]
fn a_mac_holds_for_its_key_and_key_id_only() {
    let data = leaf(1, None).encode().unwrap();
    let key = |id: &str, byte| MacKey::new(MacKeyId::new(id).unwrap(), [byte; 32]);
    let mac = LeafMac::compute(&key("k1", 1), &data);
    assert_eq!(mac.verify(&key("k1", 1), data.as_bytes()), Ok(()));
    assert_eq!(
        mac.verify(&key("k1", 2), data.as_bytes()),
        Err(MacError::Mismatch)
    );
    assert!(matches!(
        mac.verify(&key("k2", 1), data.as_bytes()),
        Err(MacError::OtherKey { stated, tried }) if stated.as_str() == "k1" && tried.as_str() == "k2"
    ));
    // The key id is under the MAC: relabelling does not help.
    let relabelled = LeafMac::from_parts(MacKeyId::new("k2").unwrap(), *mac.tag());
    assert_eq!(
        relabelled.verify(&key("k2", 1), data.as_bytes()),
        Err(MacError::Mismatch)
    );
}

#[test]
fn the_payment_of_the_stream_is_the_payment_of_the_entry() {
    let mut leaf = leaf(1, None);
    assert_eq!(leaf.stream_id, StreamId::Payment(PAYMENT));
    leaf.payment_id = Some(Uuid::nil());
    assert_eq!(leaf.encode(), Err(LeafError::StreamOfOtherPayment));
}
