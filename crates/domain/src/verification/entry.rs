//! One row of the journal.

use chrono::{DateTime, Utc};
use quittance_evidence::{
    Amounts, Hash, Leaf, LeafMac, MacKey, MacKeyId, StreamId, clean_text, leaf_hash,
};
use uuid::Uuid;

use super::api_keys::ApiKeySaid;
use super::claims::RowsSaid;
use super::mismatch::{Fault, Mismatch, Shown};
use crate::command::Resolution;
use crate::erasure::ErasureSaid;
use crate::ids::{EntryId, PaymentId};
use crate::journal::{
    FINAL_CAPTURE, OTHER_TRANSACTION_ROW, OTHER_TRANSACTION_STATE, RESOLUTION, ROWS_BEFORE,
    TRANSACTION_KIND, TRANSACTION_ORIGIN, TRANSACTION_ROW, TRANSACTION_STATE,
};
use crate::transaction::{TransactionKind, TransactionOrigin};

/// A row of the journal as stored, with the position that it has.
#[derive(Debug, Clone)]
pub struct LoggedRow {
    /// Column `stream_id`.
    pub stream_id: Uuid,
    /// Column `entity_seq`.
    pub entity_seq: i64,
    /// Column `entry_id`.
    pub entry_id: Uuid,
    /// Column `tenant_id`.
    pub tenant_id: Option<String>,
    /// Column `payment_id`.
    pub payment_id: Option<Uuid>,
    /// Column `transaction_id`.
    pub transaction_id: Option<Uuid>,
    /// Column `event_type`.
    pub event_type: String,
    /// Column `result`.
    pub result: String,
    /// Column `cause`.
    pub cause: Option<String>,
    /// Column `actor`.
    pub actor: String,
    /// Column `source`.
    pub source: String,
    /// Column `provider_account`.
    pub provider_account: Option<String>,
    /// Column `trace_id`.
    pub trace_id: Option<Vec<u8>>,
    /// Column `occurred_at`.
    pub occurred_at: DateTime<Utc>,
    /// Column `leaf`: the entry itself.
    pub leaf: Vec<u8>,
    /// Column `leaf_hash`.
    pub leaf_hash: Vec<u8>,
    /// Column `mac`.
    pub mac: Vec<u8>,
    /// Column `mac_key_id`.
    pub mac_key_id: String,
    /// Column `arrival`.
    pub arrival: i64,
    /// Whether its arrival has no position, and `refused_entries` says that it is to have none.
    pub refused: bool,
    /// The position that was given to this arrival.
    pub placed: Option<Placed>,
}

/// A position as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// 0, 1, 2 …
    pub position: i64,
    /// Of which entry.
    pub entry_id: Uuid,
    /// Of which stream.
    pub stream_id: Uuid,
    /// Its number there.
    pub entity_seq: i64,
    /// Whose it is.
    pub tenant_id: Option<String>,
}

/// Where MAC keys are found.
pub trait MacKeys {
    /// The key of this id.
    fn mac_key(&self, id: &str) -> Option<&MacKey>;
}

/// What is needed of an entry after it was checked by itself.
#[derive(Debug, Clone)]
pub struct CheckedEntry {
    /// Stream of the row.
    pub stream: Uuid,
    /// Number of the row.
    pub entity_seq: i64,
    /// Id of the row.
    pub entry: EntryId,
    /// Payment of the row.
    pub payment: Option<PaymentId>,
    /// Its position.
    pub position: Option<i64>,
    /// Hash of the bytes that are there.
    pub leaf_hash: Hash,
    /// What the bytes say, where they can be read.
    pub leaf: Option<LeafFacts>,
    /// Whether the service wrote these bytes, as their MAC says.
    pub genuine: bool,
}

/// What the other stages need of an entry's bytes.
#[allow(clippy::struct_excessive_bools)] // independent yes-or-no answers, not a state
#[derive(Debug, Clone)]
pub struct LeafFacts {
    /// Whose it is.
    pub tenant_id: String,
    /// Whether its stream is a payment's.
    pub of_payment: bool,
    /// What it was chained to.
    pub prev_leaf_hash: Option<Hash>,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// What happened.
    pub event_type: String,
    /// Why not.
    pub cause: Option<String>,
    /// Digest of the payment's row.
    pub row_digest: Option<Hash>,
    /// The payment's state before.
    pub state_from: Option<String>,
    /// The payment's state.
    pub state_to: Option<String>,
    /// The payment's amounts.
    pub amounts: Option<Amounts>,
    /// Decimals of the currency.
    pub currency_exponent: Option<u8>,
    /// Which transaction it is about.
    pub transaction_id: Option<Uuid>,
    /// That transaction's amount.
    pub amount_minor: Option<i64>,
    /// That transaction's account.
    pub provider_account: Option<String>,
    /// That transaction's reference at the provider.
    pub provider_reference: Option<String>,
    /// That transaction's decline.
    pub decline_code: Option<String>,
    /// States of transactions after it, where it tells them.
    pub transaction_states: Vec<(Uuid, String)>,
    /// Digests of their rows after it, where it tells them.
    pub transaction_rows: Vec<(Uuid, Hash)>,
    /// Digest of the rows that its change replaced, where it tells it.
    pub rows_before: Option<Hash>,
    /// Kind, origin and whether it is a final capture, where its transaction is new.
    pub makes: Option<(TransactionKind, TransactionOrigin, bool)>,
    /// Whether an attempt of its transaction began or ended.
    pub attempted: bool,
    /// Whether a person decided its transaction.
    pub decided: bool,
    /// Whether it holds digests of a customer's data.
    pub of_customer: bool,
    /// What it says of attempts, idempotency records and operator actions.
    pub rows_said: RowsSaid,
    /// What it says of an erasure, where it says that one was done.
    pub erased: Option<ErasureSaid>,
    /// What it says of an API key.
    pub api_key: Option<ApiKeySaid>,
}

/// Checks one row by itself, and its position; `low_arrival` is the sequencer's mark of the same moment.
pub fn check_entry(
    row: &LoggedRow,
    low_arrival: i64,
    keys: &(impl MacKeys + ?Sized),
    out: &mut Vec<Mismatch>,
) -> CheckedEntry {
    let position = row.placed.as_ref().map(|placed| placed.position);
    let computed = leaf_hash(&row.leaf);
    let mut faults = Vec::new();
    if computed.as_bytes() != row.leaf_hash.as_slice() {
        faults.push(Fault::LeafHashDiffers {
            computed,
            stored: hex::encode(&row.leaf_hash),
        });
    }
    let genuine = check_mac(row, keys, &mut faults);
    let leaf = match Leaf::decode(&row.leaf) {
        Ok(leaf) => {
            check_columns(row, &leaf, &mut faults);
            Some(LeafFacts::of(leaf))
        }
        Err(error) => {
            faults.push(Fault::LeafUnreadable(error));
            None
        }
    };
    check_position(row, low_arrival, &mut faults);
    if genuine && row.refused {
        faults.push(Fault::RefusedThoughGenuine);
    }
    out.extend(faults.into_iter().map(|fault| Mismatch {
        fault,
        entry: Some(EntryId(row.entry_id)),
        payment: row.payment_id.map(PaymentId),
        position: position.and_then(|position| u64::try_from(position).ok()),
    }));
    CheckedEntry {
        stream: row.stream_id,
        entity_seq: row.entity_seq,
        entry: EntryId(row.entry_id),
        payment: row.payment_id.map(PaymentId),
        position,
        leaf_hash: computed,
        leaf,
        genuine,
    }
}

fn check_mac(row: &LoggedRow, keys: &(impl MacKeys + ?Sized), faults: &mut Vec<Fault>) -> bool {
    let Some(key) = keys.mac_key(&row.mac_key_id) else {
        faults.push(Fault::MacKeyUnknown(Shown::of(&row.mac_key_id)));
        return false;
    };
    let tag: Result<[u8; 32], _> = row.mac.as_slice().try_into();
    let genuine = match (MacKeyId::new(row.mac_key_id.as_str()), tag) {
        (Ok(id), Ok(tag)) => LeafMac::from_parts(id, tag).verify(key, &row.leaf).is_ok(),
        (Err(_), _) | (_, Err(_)) => false,
    };
    if !genuine {
        faults.push(Fault::MacWrong);
    }
    genuine
}

/// Compares one column with what the bytes say, both as text.
struct Columns<'a> {
    faults: &'a mut Vec<Fault>,
}

impl Columns<'_> {
    fn differs(&mut self, column: &'static str, expected: Shown, found: Shown) {
        self.faults.push(Fault::ColumnDiffers {
            column,
            expected,
            found,
        });
    }

    fn id(&mut self, column: &'static str, expected: Option<Uuid>, found: Option<Uuid>) {
        if expected != found {
            let (expected, found) = (expected.as_ref(), found.as_ref());
            self.differs(column, Shown::of_option(expected), Shown::of_option(found));
        }
    }

    /// Columns hold texts as they came, the bytes hold them cleaned.
    fn text(&mut self, column: &'static str, expected: Option<&str>, found: Option<&str>) {
        if expected != found
            && expected.map(str::to_owned) != found.map(|it| clean_text(it).into_owned())
        {
            self.differs(column, Shown::of_option(expected), Shown::of_option(found));
        }
    }
}

fn check_columns(row: &LoggedRow, leaf: &Leaf, faults: &mut Vec<Fault>) {
    let (StreamId::Payment(stream) | StreamId::Named { id: stream, .. }) = &leaf.stream_id;
    if *stream != row.stream_id {
        faults.push(Fault::OtherStream(leaf.stream_id.clone()));
    }
    let mut columns = Columns { faults };
    if u64::try_from(row.entity_seq) != Ok(leaf.entity_seq) {
        let (expected, found) = (Shown::of(&leaf.entity_seq), Shown::of(&row.entity_seq));
        columns.differs("entity_seq", expected, found);
    }
    columns.id("entry_id", Some(leaf.entry_id), Some(row.entry_id));
    columns.id("payment_id", leaf.payment_id, row.payment_id);
    columns.id("transaction_id", leaf.transaction_id, row.transaction_id);
    let tenant = leaf.tenant_id.as_str();
    columns.text("tenant_id", Some(tenant), row.tenant_id.as_deref());
    columns.text("event_type", Some(&leaf.event_type), Some(&row.event_type));
    columns.text("result", Some(leaf.result.as_str()), Some(&row.result));
    let cause = leaf.cause.as_ref().map(|cause| cause.code.as_str());
    columns.text("cause", cause, row.cause.as_deref());
    columns.text("actor", Some(&leaf.actor.id), Some(&row.actor));
    let source = leaf.source.rpc_method.as_deref().unwrap_or_default();
    columns.text("source", Some(source), Some(&row.source));
    let account = leaf.provider_account.as_deref();
    columns.text("provider_account", account, row.provider_account.as_deref());
    let trace = (leaf.trace_id != [0; 16]).then_some(leaf.trace_id.as_slice());
    if trace != row.trace_id.as_deref() {
        let (expected, found) = (
            trace.map(hex::encode),
            row.trace_id.as_ref().map(hex::encode),
        );
        let (expected, found) = (expected.as_ref(), found.as_ref());
        columns.differs(
            "trace_id",
            Shown::of_option(expected),
            Shown::of_option(found),
        );
    }
    if leaf.occurred_at.timestamp_micros() != row.occurred_at.timestamp_micros() {
        let (expected, found) = (leaf.occurred_at, row.occurred_at);
        columns.differs(
            "occurred_at",
            Shown::of_time(expected),
            Shown::of_time(found),
        );
    }
}

/// The position of the row's arrival must be about this very row.
fn check_position(row: &LoggedRow, low_arrival: i64, faults: &mut Vec<Fault>) {
    let Some(placed) = &row.placed else {
        if row.arrival < low_arrival {
            faults.push(Fault::NotSequenced {
                arrival: row.arrival,
                low: low_arrival,
            });
        }
        return;
    };
    let mut differs = |column, expected, found| {
        faults.push(Fault::PositionDiffers {
            column,
            expected,
            found,
        });
    };
    if placed.entry_id != row.entry_id {
        let (expected, found) = (Shown::of(&row.entry_id), Shown::of(&placed.entry_id));
        differs("entry_id", expected, found);
    }
    if placed.stream_id != row.stream_id {
        let (expected, found) = (Shown::of(&row.stream_id), Shown::of(&placed.stream_id));
        differs("stream_id", expected, found);
    }
    if placed.entity_seq != row.entity_seq {
        let (expected, found) = (Shown::of(&row.entity_seq), Shown::of(&placed.entity_seq));
        differs("entity_seq", expected, found);
    }
    if placed.tenant_id != row.tenant_id {
        let (expected, found) = (row.tenant_id.as_ref(), placed.tenant_id.as_ref());
        differs(
            "tenant_id",
            Shown::of_option(expected),
            Shown::of_option(found),
        );
    }
}

impl LeafFacts {
    fn of(leaf: Leaf) -> Self {
        let of_transactions = |own, others| {
            let values = of_transactions(&leaf, own, others);
            values.map(|(id, value)| (id, value.clone()))
        };
        let states = of_transactions(TRANSACTION_STATE, OTHER_TRANSACTION_STATE);
        let transaction_states = states.collect();
        let rows = of_transactions(TRANSACTION_ROW, OTHER_TRANSACTION_ROW);
        let rows = rows.filter_map(|(id, text)| Some((id, hash(&text)?)));
        let transaction_rows = rows.collect();
        let decided = leaf.details.get(RESOLUTION);
        Self {
            of_payment: matches!(leaf.stream_id, StreamId::Payment(_)),
            makes: makes(&leaf),
            rows_before: leaf.details.get(ROWS_BEFORE).and_then(|text| hash(text)),
            decided: decided.is_some_and(|it| it != Resolution::ACKNOWLEDGED),
            attempted: leaf.attempt.is_some(),
            of_customer: !leaf.personal_data.is_empty(),
            rows_said: RowsSaid::of(&leaf),
            erased: ErasureSaid::of(&leaf).filter(|said| said.done.is_some()),
            api_key: ApiKeySaid::of(&leaf),
            tenant_id: leaf.tenant_id,
            prev_leaf_hash: leaf.prev_leaf_hash,
            occurred_at: leaf.occurred_at,
            event_type: leaf.event_type,
            cause: leaf.cause.map(|cause| cause.code),
            row_digest: leaf.payment_row_digest,
            state_from: leaf.state_from,
            state_to: leaf.state_to,
            amounts: leaf.amounts,
            currency_exponent: leaf.currency_exponent,
            transaction_id: leaf.transaction_id,
            amount_minor: leaf.amount_minor,
            provider_account: leaf.provider_account,
            provider_reference: leaf.provider_reference,
            decline_code: leaf.decline_code,
            transaction_states,
            transaction_rows,
        }
    }

    /// Digest of a transaction's row after it, where it tells it.
    pub fn transaction_row(&self, id: Uuid) -> Option<Hash> {
        let mut rows = self.transaction_rows.iter();
        rows.find(|(told, _)| *told == id).map(|(_, hash)| *hash)
    }
}

/// What an entry tells of its own transaction, and of others that ended with it.
fn of_transactions<'a>(
    leaf: &'a Leaf,
    own: &str,
    others: &'static str,
) -> impl Iterator<Item = (Uuid, &'a String)> {
    let own = leaf.transaction_id.zip(leaf.details.get(own));
    let others = leaf.details.iter().filter_map(move |(name, value)| {
        let id = name.strip_prefix(others)?;
        Some((Uuid::try_parse(id).ok()?, value))
    });
    own.into_iter().chain(others)
}

fn makes(leaf: &Leaf) -> Option<(TransactionKind, TransactionOrigin, bool)> {
    let details = &leaf.details;
    let kind = TransactionKind::from_name(details.get(TRANSACTION_KIND)?)?;
    let origin = match details.get(TRANSACTION_ORIGIN) {
        Some(name) => TransactionOrigin::from_name(name)?,
        None => TransactionOrigin::Caller,
    };
    Some((kind, origin, details.contains_key(FINAL_CAPTURE)))
}

fn hash(text: &str) -> Option<Hash> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(Hash::from_bytes(bytes))
}
