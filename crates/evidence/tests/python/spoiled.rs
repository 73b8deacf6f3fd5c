//! What only whoever keeps the log can do: entries, disclosures and files that are signed and proved, and still are none.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::{prelude::*, sample::Index};
use quittance_evidence::DisclosureDigest;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::support::log::{Log, STORY, story};

/// One change of a JSON object: which field, what becomes of it, and how that is written.
#[derive(Debug, Clone)]
pub struct Spoil {
    field: Index,
    value: Index,
    how: How,
}

#[derive(Debug, Clone, Copy)]
enum How {
    /// The field has another value, or is new.
    Set,
    /// The same, as the text stands in [`VALUES`], whatever a writer of JSON would make of it.
    SetRaw,
    Remove,
    Twice,
    Blank,
}

pub fn spoil() -> impl Strategy<Value = Spoil> {
    let how = prop_oneof![
        6 => Just(How::Set),
        3 => Just(How::SetRaw),
        1 => Just(How::Remove),
        1 => Just(How::Twice),
        1 => Just(How::Blank),
    ];
    (any::<Index>(), any::<Index>(), how).prop_map(|(field, value, how)| Spoil {
        field,
        value,
        how,
    })
}

/// Stands for what no writer of JSON would write.
const PLACE: &str = "@here@";

/// Fields of an entry, and such as it never has.
const ENTRY_FIELDS: [&str; 58] = [
    "actor",
    "actor/auth_method",
    "actor/id",
    "actor/type",
    "actor/zz",
    "actor.id",
    "amount_minor",
    "amounts",
    "amounts/captured",
    "amounts/excess",
    "amounts/zz",
    "attempt",
    "capture_method",
    "cause",
    "cause/code",
    "cause/retryable",
    "currency",
    "currency_exponent",
    "decline_code",
    "details",
    "details/a",
    "details/A",
    "entity_seq",
    "entry_id",
    "event_type",
    "grpc_status",
    "idempotency_key_digest",
    "leaf_salt",
    "max_attempts",
    "merchant_reference",
    "next_retry_at",
    "occurred_at",
    "payment_id",
    "payment_row_digest",
    "personal_data",
    "personal_data/a",
    "prev_leaf_hash",
    "provider_account",
    "provider_reference",
    "recorded_at",
    "remote_span_id",
    "remote_trace_id",
    "request_id",
    "result",
    "schema_version",
    "source",
    "source/instance",
    "source/peer",
    "source/zz",
    "span_id",
    "state_to",
    "stream_id",
    "tenant_id",
    "trace_flags",
    "trace_id",
    "transaction_id",
    "zz",
    "Attempt",
];

/// Fields of a bundle, and such as it never has.
const FILE_FIELDS: [&str; 13] = [
    "checkpoint",
    "disclosures",
    "disclosures/0",
    "entries",
    "entries/0/inclusion_proof",
    "entries/0/inclusion_proof/0",
    "entries/0/leaf_data",
    "entries/0/leaf_index",
    "entries/0/zz",
    "format",
    "last_entry",
    "payment_id",
    "zz",
];

/// Values, right and wrong, for whatever field.
const VALUES: [&str; 62] = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "1.0",
    "1.5",
    "1e0",
    "0",
    "-0",
    "-1",
    "1",
    "2",
    "01",
    "255",
    "256",
    "65536",
    "4294967295",
    "4294967296",
    "18446744073709551616",
    "null",
    "true",
    "false",
    "[]",
    "{}",
    r#"{"zz":"x"}"#,
    r#"{"a":"x"}"#,
    r#"{"a":1}"#,
    r#"{"A":"x"}"#,
    r#"{"a":"x","b.c-d_9":"y"}"#,
    r#"{"a":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
    r#"{"a":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB"}"#,
    r#""""#,
    r#""x""#,
    r#""1""#,
    r#""01""#,
    r#""-0""#,
    r#""+1""#,
    r#""1e3""#,
    r#""1.0""#,
    r#""NaN""#,
    r#""9223372036854775807""#,
    r#""9223372036854775808""#,
    r#""-9223372036854775808""#,
    r#""-9223372036854775809""#,
    r#""success""#,
    r#""2026-02-28T23:52:51.000120Z""#,
    r#""2026-02-30T23:52:51.000120Z""#,
    r#""0000-01-01T00:00:00.000000Z""#,
    r#""9999-12-31T23:59:59.999999Z""#,
    r#""2026-02-28T23:52:60.000000Z""#,
    r#""2026-02-28T24:00:00.000000Z""#,
    r#""2026-02-28T23:52:51.12Z""#,
    r#""2026-02-28T23:52:51.000120+00:00""#,
    r#""01890A5D-AC96-774B-BCCE-B302099A8057""#,
    r#""01890a5d-ac96-774b-bcce-b302099a8057""#,
    r#""00000000000000000000000000000000""#,
    r#""AAAAAAAAAAAAAAAAAAAAAB""#,
    r#""line\nbreak""#,
    r#""\u202e""#,
    r#""a\"b\\c Größe 😀""#,
    r#""\u007f""#,
    r#""\ud800""#,
];

/// Disclosures whose digests an entry holds, right and wrong: `SALT` stands for a salt, `LONG` for a long value.
const DISCLOSURES: [&str; 12] = [
    r#"["SALT","customer.name","Zoë"]"#,
    r#"["SALT","customer.name","\n"]"#,
    r#"["SALT", "customer.name","Zoë"]"#,
    r#"["SALT","customer.name","\u005a"]"#,
    r#"["AAAA","customer.name","Zoë"]"#,
    r#"["AAAAAAAAAAAAAAAAAAAAAB","customer.name","Zoë"]"#,
    r#"["SALT","customer.name",1]"#,
    r#"["SALT","customer.name",NaN]"#,
    r#"["SALT","customer.name","Zoë","x"]"#,
    r#"["SALT","customer.name","LONG"]"#,
    r#"["SALT","customer.name","LONGx"]"#,
    r#"{"SALT":1,"customer.name":2,"x":3}"#,
];

/// A bundle of a log in which one entry, before all others are chained to it, was spoiled.
pub fn with_entry(payment: Uuid, place: Index, spoil: &Spoil) -> Vec<u8> {
    let spoiled = 1 + u64::try_from(place.index(usize::try_from(STORY).unwrap())).unwrap();
    let log = log_of(payment, |seq, bytes| {
        if seq == spoiled {
            spoil.of(&bytes, &ENTRY_FIELDS)
        } else {
            bytes
        }
    });
    log.bundle(payment).encode().unwrap()
}

/// A bundle that discloses what an entry holds the digest of, though it may be no disclosure.
pub fn with_disclosure(payment: Uuid, at: Index) -> Vec<u8> {
    let disclosed = DISCLOSURES[at.index(DISCLOSURES.len())]
        .replace("SALT", &URL_SAFE_NO_PAD.encode([9; 16]))
        .replace("LONG", &"x".repeat(8_192));
    let disclosed = URL_SAFE_NO_PAD.encode(disclosed);
    let digest = DisclosureDigest::of_encoded(&disclosed).to_string();
    let log = log_of(payment, |seq, bytes| {
        let mut entry: Value = serde_json::from_slice(&bytes).unwrap();
        if seq == 1 {
            entry["personal_data"] = serde_json::json!({ "customer.name": digest });
        }
        serde_json::to_vec(&entry).unwrap()
    });
    super::with_disclosures(&log.bundle(payment).encode().unwrap(), &[disclosed])
}

/// A file with one field spoiled.
pub fn of_file(file: &[u8], spoil: &Spoil) -> Vec<u8> {
    spoil.of_pretty(file)
}

fn log_of(payment: Uuid, mut edit: impl FnMut(u64, Vec<u8>) -> Vec<u8>) -> Log {
    let mut log = Log::new();
    let other = Uuid::from_u128(payment.as_u128() + 1);
    let (mut last, mut last_of_other) = (None, None);
    for seq in 1..=STORY {
        let bytes = story(payment, seq, last).encode().unwrap().into_bytes();
        last = Some(log.append_bytes(payment, edit(seq, bytes)));
        last_of_other = Some(log.append(&story(other, seq, last_of_other)));
    }
    log
}

impl Spoil {
    fn of(&self, bytes: &[u8], fields: &[&str]) -> Vec<u8> {
        let mut object: Value = serde_json::from_slice(bytes).unwrap();
        self.edit(&mut object, fields);
        self.write(&serde_json::to_string(&object).unwrap())
    }

    fn of_pretty(&self, bytes: &[u8]) -> Vec<u8> {
        let mut object: Value = serde_json::from_slice(bytes).unwrap();
        self.edit(&mut object, &FILE_FIELDS);
        let written = String::from_utf8(super::pretty(&object)).unwrap();
        self.write(&written)
    }

    fn edit(&self, object: &mut Value, fields: &[&str]) {
        let path = fields[self.field.index(fields.len())];
        let raw = VALUES[self.value.index(VALUES.len())];
        let parsed = serde_json::from_str(raw).ok();
        let value = match (self.how, parsed) {
            (How::Set, Some(value)) => match value {
                Value::Number(_) => Value::from(PLACE),
                other => other,
            },
            _ => Value::from(PLACE),
        };
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut parent = object;
        for step in parents.split('/').filter(|step| !step.is_empty()) {
            parent = match (parent, step.parse::<usize>()) {
                (Value::Array(items), Ok(at)) => &mut items[at],
                (parent, _) => {
                    let fields = parent.as_object_mut().unwrap();
                    fields.entry(step).or_insert_with(|| Map::new().into())
                }
            };
        }
        match (parent, self.how, name.parse::<usize>()) {
            (Value::Array(items), How::Remove, Ok(at)) => drop(items.remove(at)),
            (Value::Array(items), _, Ok(at)) => items[at] = value,
            (Value::Object(fields), How::Remove, _) => drop(fields.remove(name)),
            (Value::Object(_), How::Twice | How::Blank, _) => {}
            (Value::Object(fields), ..) => drop(fields.insert(name.to_owned(), value)),
            (other, ..) => panic!("{path} is in no object: {other}"),
        }
    }

    fn write(&self, text: &str) -> Vec<u8> {
        let raw = VALUES[self.value.index(VALUES.len())];
        let text = text.replace(&format!("\"{PLACE}\""), raw);
        let text = match self.how {
            How::Set | How::SetRaw | How::Remove => text,
            // The first field that ends with a comma, once more.
            How::Twice => {
                let start = text.find('"').unwrap();
                let end = start + text[start..].find(',').unwrap() + 1;
                format!("{}{}", &text[..end], &text[start..])
            }
            How::Blank => text.replacen(':', ": ", 1),
        };
        text.into_bytes()
    }
}
