//! Properties of entries, MACs, disclosures and chains over generated values.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "a panic is a failed test"
)]

mod support;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use proptest::{array, collection, option, prelude::*};
use quittance_evidence::{
    Actor, Amounts, Cause, ChainCheck, ChainFault, Disclosure, EntryResult, Hash, Leaf, LeafMac,
    MacError, MacKey, MacKeyId, SCHEMA_VERSION, Source, StreamId, clean_text, leaf_hash,
};
use serde_json::Value;
use uuid::Uuid;

/// Text as entries keep it: nothing that cleaning would replace.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9_./:\"\\\\ -]{1,24}",
        any::<String>().prop_map(|s| clean_text(&s).into_owned() + "."),
    ]
}

fn hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash::from_bytes)
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

/// Whole microseconds in the years 0001 to 9999, which an entry can say.
fn time() -> impl Strategy<Value = DateTime<Utc>> {
    (-62_135_596_800_000_000..253_402_300_800_000_000_i64)
        .prop_map(|micros| DateTime::from_timestamp_micros(micros).unwrap())
}

fn names<V: Strategy>(value: V) -> impl Strategy<Value = BTreeMap<String, V::Value>>
where
    V::Value: std::fmt::Debug,
{
    collection::btree_map("[a-z][a-z0-9_.-]{0,12}", value, 0..5)
}

fn amounts() -> impl Strategy<Value = Amounts> {
    array::uniform9(any::<i64>()).prop_map(|[a, b, c, d, e, f, g, h, i]| Amounts {
        authorized: a,
        captured: b,
        capture_pending: c,
        voided: d,
        void_pending: e,
        refunded: f,
        refund_pending: g,
        charged_back: h,
        excess: i,
    })
}

prop_compose! {
    fn identity()(
        leaf_salt in any::<[u8; 16]>(), entry_id in uuid(), tenant_id in text(),
        payment in option::of(uuid()), stream in ("[a-z][a-z0-9_.-]{0,12}", uuid()),
        entity_seq in prop_oneof![Just(1), 2..=u64::MAX], prev in hash(),
        transaction_id in option::of(uuid()), times in (time(), time(), option::of(time())),
        payment_row_digest in option::of(hash()),
    ) -> Leaf {
        let stream_id = match payment {
            Some(payment) => StreamId::Payment(payment),
            None => StreamId::named(stream.0, stream.1).unwrap(),
        };
        Leaf {
            schema_version: SCHEMA_VERSION,
            leaf_salt, entry_id, tenant_id, stream_id, entity_seq,
            prev_leaf_hash: (entity_seq > 1).then_some(prev),
            payment_id: payment, transaction_id, payment_row_digest,
            occurred_at: times.0, recorded_at: times.1, next_retry_at: times.2,
            ..support::leaf(1, None)
        }
    }
}

prop_compose! {
    fn entry()(
        leaf in identity(), event_type in text(), actor in (text(), any::<String>(), option::of(text())),
        source in (text(), text(), text(), option::of(text()), option::of(text())),
        result in prop_oneof![
            Just(EntryResult::Success), Just(EntryResult::Failure), Just(EntryResult::Unknown)
        ],
        cause in option::of((text(), any::<bool>())),
        money in option::of((amounts(), option::of(any::<i64>()), text(), any::<u8>())),
        counts in (option::of(any::<u32>()), option::of(any::<u32>()), any::<u8>()),
        texts in array::uniform9(option::of(text())),
        digests in array::uniform3(option::of(hash())),
        trace in (any::<[u8; 16]>(), any::<[u8; 8]>(), any::<Option<[u8; 16]>>(), any::<Option<[u8; 8]>>()),
        maps in (names(any::<[u8; 32]>().prop_map(Into::into)), names(text())),
    ) -> Leaf {
        let [merchant, capture, decline, grpc, from, to, account, reference, request] = texts;
        let (kind, id, auth_method) = actor;
        let (service, version, instance, peer, rpc_method) = source;
        Leaf {
            event_type, result,
            actor: Actor { kind, id: clean_text(&id).into_owned(), auth_method },
            source: Source { service, version, instance, peer, rpc_method },
            cause: cause.map(|(code, retryable)| Cause { code, retryable }),
            amounts: money.as_ref().map(|money| money.0),
            amount_minor: money.as_ref().and_then(|money| money.1),
            currency_exponent: money.as_ref().map(|money| money.3),
            currency: money.map(|money| money.2),
            attempt: counts.0, max_attempts: counts.1, trace_flags: counts.2,
            merchant_reference: merchant, capture_method: capture, decline_code: decline,
            grpc_status: grpc, state_from: from, state_to: to, provider_account: account,
            provider_reference: reference, request_id: request,
            provider_request_digest: digests[0], provider_response_digest: digests[1],
            idempotency_key_digest: digests[2],
            trace_id: trace.0, span_id: trace.1, remote_trace_id: trace.2, remote_span_id: trace.3,
            personal_data: maps.0, details: maps.1,
            ..leaf
        }
    }
}

fn mac_key() -> MacKey {
    MacKey::new(MacKeyId::new("k1").unwrap(), [5; 32])
}

/// A second canonical writer, over parsed values: sorts by UTF-16 code units as RFC 8785 says.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<_> = fields.keys().collect();
            keys.sort_by_key(|key| key.encode_utf16().collect::<Vec<_>>());
            let field = |key: &&String| {
                format!("{}:{}", Value::from(key.as_str()), canonical(&fields[*key]))
            };
            format!(
                "{{{}}}",
                keys.iter().map(field).collect::<Vec<_>>().join(",")
            )
        }
        Value::String(_) | Value::Bool(_) => value.to_string(),
        Value::Number(number) if number.is_u64() => number.to_string(),
        Value::Number(_) | Value::Null | Value::Array(_) => panic!("not in an entry: {value}"),
    }
}

/// A valid stream of `length` entries.
fn chain(length: u64) -> Vec<Vec<u8>> {
    let mut prev = None;
    (1..=length)
        .map(|seq| {
            let data = support::leaf(seq, prev).encode().unwrap();
            prev = Some(data.leaf_hash());
            data.into_bytes()
        })
        .collect()
}

proptest! {
    #[test]
    fn an_entry_decodes_to_what_was_encoded(leaf in entry()) {
        let data = leaf.encode().unwrap();
        prop_assert_eq!(Leaf::decode(data.as_bytes()).unwrap(), leaf);
    }

    #[test]
    fn the_bytes_are_canonical_json(leaf in entry()) {
        let data = leaf.encode().unwrap();
        let value: Value = serde_json::from_slice(data.as_bytes()).unwrap();
        let again = canonical(&value);
        prop_assert_eq!(again.as_bytes(), data.as_bytes());
    }

    #[test]
    fn unclean_text_is_cleaned_once_and_for_all(dirty in any::<String>(), seconds in any::<u32>()) {
        let mut leaf = support::leaf(1, None);
        leaf.merchant_reference = Some(format!("\r\n{dirty}\u{2028}"));
        leaf.details.insert("reason".to_owned(), dirty);
        leaf.occurred_at = DateTime::from_timestamp(seconds.into(), 999_999_999).unwrap();
        let data = leaf.encode().unwrap();
        prop_assert!(!str::from_utf8(data.as_bytes()).unwrap().chars().any(char::is_control));
        let decoded = Leaf::decode(data.as_bytes()).unwrap();
        prop_assert_eq!(decoded.encode().unwrap(), data);
    }

    #[test]
    fn any_changed_byte_changes_the_hash_and_breaks_the_mac(
        leaf in entry(), at in any::<prop::sample::Index>(), flip in 1..=255_u8
    ) {
        let data = leaf.encode().unwrap();
        let mac = LeafMac::compute(&mac_key(), &data);
        let mut tampered = data.as_bytes().to_vec();
        let at = at.index(tampered.len());
        tampered[at] ^= flip;
        prop_assert_ne!(leaf_hash(&tampered), data.leaf_hash());
        prop_assert_eq!(mac.verify(&mac_key(), &tampered), Err(MacError::Mismatch));
        // Where it still reads as an entry, it is another entry: no two spellings of one.
        if let Ok(other) = Leaf::decode(&tampered) {
            prop_assert_ne!(other, leaf);
        }
    }

    #[test]
    fn decoding_never_panics(bytes in collection::vec(any::<u8>(), 0..512), text in any::<String>()) {
        prop_assert!(Leaf::decode(&bytes).is_err());
        prop_assert!(Leaf::decode(text.as_bytes()).is_err());
        let _ = Disclosure::parse(&text);
        let _ = text.parse::<StreamId>();
        let _ = text.parse::<Hash>();
    }

    #[test]
    fn decoding_mangled_entries_never_panics(
        leaf in entry(), from in any::<prop::sample::Index>(), length in 0..64_usize,
        insert in "[\\[\\]{}\",:0-9a-zé\\\\ -]{0,32}"
    ) {
        let mut bytes = leaf.encode().unwrap().into_bytes();
        let from = from.index(bytes.len());
        let to = (from + length).min(bytes.len());
        bytes.splice(from..to, insert.bytes());
        if let Ok(decoded) = Leaf::decode(&bytes) {
            let again = decoded.encode().unwrap();
            prop_assert_eq!(again.as_bytes(), bytes.as_slice());
        }
    }

    #[test]
    fn disclosures_round_trip_and_differ_by_salt(
        salt in any::<[u8; 16]>(), other in any::<[u8; 16]>(), name in "[a-z][a-z0-9_.-]{0,20}",
        value in any::<String>()
    ) {
        let disclosure = Disclosure::new(salt, name.clone(), value.clone()).unwrap();
        prop_assert_eq!(&Disclosure::parse(&disclosure.encode()).unwrap(), &disclosure);
        let same = Disclosure::new(other, name, value).unwrap();
        prop_assert_eq!(same.digest() == disclosure.digest(), salt == other);
    }

    #[test]
    fn an_untampered_chain_passes_whole_or_in_two_parts(
        length in 0..12_u64, cut in any::<prop::sample::Index>()
    ) {
        let entries = chain(length);
        let whole = ChainCheck::run(&entries).unwrap();
        prop_assert_eq!(whole.as_ref().map_or(0, |head| head.entity_seq), length);
        let (before, after) = entries.split_at(cut.index(entries.len() + 1));
        let mut check = ChainCheck::run(before).unwrap().map_or_else(ChainCheck::new, ChainCheck::after);
        for entry in after {
            check.push(entry).unwrap();
        }
        prop_assert_eq!(check.head(), whole.as_ref());
    }

    #[test]
    fn a_removed_repeated_or_swapped_entry_is_found_where_it_happened(
        length in 3..12_u64, at in any::<prop::sample::Index>(), kind in 0..3_u8
    ) {
        let mut entries = chain(length);
        // Not the last one: removing the tail leaves a chain, which only a known head reveals.
        let at = at.index(entries.len() - 1);
        let bad = match kind {
            0 => { entries.remove(at); at }
            1 => { entries.insert(at, entries[at].clone()); at + 1 }
            _ => { entries.swap(at, at + 1); at }
        };
        let error = ChainCheck::run(&entries).unwrap_err();
        prop_assert_eq!(error.place, bad as u64 + 1);
        prop_assert!(matches!(error.fault, ChainFault::WrongNumber(_)));
    }

    #[test]
    fn a_rewritten_entry_breaks_the_link_of_the_next(
        length in 2..12_u64, at in any::<prop::sample::Index>(), amount in any::<u32>()
    ) {
        let mut entries = chain(length);
        let at = at.index(entries.len() - 1);
        let mut forged = Leaf::decode(&entries[at]).unwrap();
        forged.attempt = Some(amount);
        entries[at] = forged.encode().unwrap().into_bytes();
        let error = ChainCheck::run(&entries).unwrap_err();
        prop_assert_eq!(error.place, at as u64 + 2);
        prop_assert_eq!(error.fault, ChainFault::WrongLink);
        prop_assert_eq!(error.entry_id, Some(Uuid::from_u128(at as u128 + 2)));
    }
}

#[test]
fn entries_of_another_stream_or_tenant_do_not_belong() {
    let first = support::leaf(1, None).encode().unwrap();
    let mut check = ChainCheck::new();
    check.push(first.as_bytes()).unwrap();

    let mut other = support::leaf(2, Some(first.leaf_hash()));
    let stream = StreamId::named("admin", Uuid::nil()).unwrap();
    other.stream_id = stream.clone();
    let fault = check
        .push(other.encode().unwrap().as_bytes())
        .unwrap_err()
        .fault;
    assert_eq!(fault, ChainFault::OtherStream(stream));

    let mut other = support::leaf(2, Some(first.leaf_hash()));
    other.tenant_id = "umbrella".to_owned();
    let fault = check
        .push(other.encode().unwrap().as_bytes())
        .unwrap_err()
        .fault;
    assert_eq!(fault, ChainFault::OtherTenant);

    let error = check.push(b"{}").unwrap_err();
    assert_eq!((error.place, error.entry_id), (2, None));
    assert!(matches!(error.fault, ChainFault::Unreadable(_)));

    // After the errors, the right entry still fits.
    check
        .push(
            support::leaf(2, Some(first.leaf_hash()))
                .encode()
                .unwrap()
                .as_bytes(),
        )
        .unwrap();
}
