//! What only whoever keeps the log can do: entries, disclosures and files that are signed and proved, and still are none.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use proptest::{prelude::*, sample::Index};
use quittance_evidence::{
    DisclosureDigest,
    note::{Note, SigningKey},
};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256, Sha512};
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

/// The `y` of a point of order 8, little-endian.
const ORDER_8: &str = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05";
/// The prime of the field, little-endian.
const PRIME: &str = "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";

/// Signs a note anew, with a nonce of nothing: `R` is the neutral point, of order 1. Only whoever holds the key can.
pub fn sign_oddly(note: &mut Note, key: &SigningKey) {
    let text = note.text().to_owned();
    let secret = key.to_secret_text();
    let secret = STANDARD.decode(secret.rsplit('+').next().unwrap());
    let seed: [u8; 32] = secret.unwrap()[1..].try_into().unwrap();
    let secret = ed25519_dalek::SigningKey::from_bytes(&seed);
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut hash = Sha512::new();
    hash.update(neutral);
    hash.update(secret.verifying_key().as_bytes());
    hash.update(text.as_bytes());
    let scalar = secret.to_scalar();
    // s = k · a, k being the hash as a number, little-endian.
    let s = times(scalar, &hash.finalize()).to_bytes();
    let data = [&key.verifier().id().as_bytes()[..], &neutral, &s].concat();
    let line = format!("\u{2014} {} {}\n", key.name(), STANDARD.encode(data));
    let others = note.to_string();
    let own = format!("\u{2014} {} ", key.name());
    let (_, others) = others.rsplit_once("\n\n").unwrap();
    let others = others
        .split_inclusive('\n')
        .filter(|it| !it.starts_with(&own));
    let lines: String = others.collect();
    *note = Note::parse(format!("{text}\n{line}{lines}").as_bytes()).unwrap();
}

/// A scalar times a number, without naming the scalar's type.
fn times<S>(scalar: S, number: &[u8]) -> S
where
    S: Copy + From<u64> + std::ops::Mul<Output = S> + std::ops::Add<Output = S>,
{
    let number = number.iter().rev().fold(S::from(0), |sum, byte| {
        sum * S::from(256) + S::from(u64::from(*byte))
    });
    scalar * number
}

/// Every encoding of a point of small order: of orders 1, 2, 4 and 8, also with the other sign, and with the prime added
/// where that fits.
pub fn keys_of_small_order() -> Vec<[u8; 32]> {
    let of = |text: &str| -> [u8; 32] { hex::decode(text).unwrap().try_into().unwrap() };
    let (zero, prime) = ([0; 32], of(PRIME));
    let mut one = zero;
    one[0] = 1;
    let (mut minus_one, mut prime_and_one) = (prime, prime);
    minus_one[0] -= 1;
    prime_and_one[0] += 1;
    let order_8 = of(ORDER_8);
    let mut keys = vec![zero, one, minus_one, prime, prime_and_one, order_8];
    keys.push(minus(prime, order_8));
    let negative = keys.clone().into_iter().map(|mut key| {
        key[31] |= 0x80;
        key
    });
    keys.extend(negative.collect::<Vec<_>>());
    keys
}

fn minus(from: [u8; 32], number: [u8; 32]) -> [u8; 32] {
    let mut borrowed = 0;
    let mut out = [0; 32];
    for ((out, a), b) in out.iter_mut().zip(from).zip(number) {
        let digit = i16::from(a) - i16::from(b) - borrowed;
        borrowed = i16::from(digit < 0);
        *out = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    out
}

/// The text of a verifier key, whatever its bytes are.
pub fn verifier_key(name: &str, kind: u8, public: [u8; 32]) -> String {
    let data = [&[kind][..], &public].concat();
    let id = Sha256::new()
        .chain_update(name)
        .chain_update(b"\n")
        .chain_update(&data)
        .finalize();
    format!("{name}+{}+{}", hex::encode(&id[..4]), STANDARD.encode(data))
}

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
