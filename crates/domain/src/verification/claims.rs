//! What entries say of rows beside payments and transactions: attempts, idempotency records, operator actions.
//!
//! Each is written in one commit with the entry that speaks of it, and never taken back: so the rows may be read at any
//! later moment.

use chrono::{DateTime, Utc};
use quittance_evidence::Leaf;
use uuid::Uuid;

use super::attempts::AttemptSaid;
use super::entry::CheckedEntry;
use super::key_records::KeySaid;
use super::mismatch::{Fault, Mismatch};
use super::row_fault::RowFault;
use crate::cases::OpenCases;
use crate::change::OperatorActionKind;
use crate::ids::{EntryId, PaymentId, TransactionId};
use crate::journal::{CASE_CLOSED, CASE_OPENED};

/// What an entry says of other rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowsSaid {
    /// The attempt that began or ended with it.
    pub attempt: Option<AttemptSaid>,
    /// The idempotency key under which its command was accepted.
    pub key: Option<KeySaid>,
    /// The case that it opened about its transaction.
    pub opened: Option<OperatorActionKind>,
    /// The transactions whose cases it closed, with each kind of them; `None` for every kind.
    pub closed: Vec<(Uuid, Option<OperatorActionKind>)>,
}

impl RowsSaid {
    pub(super) fn of(leaf: &Leaf) -> Self {
        let closed = leaf.details.iter().filter_map(|(name, kinds)| {
            let id = Uuid::try_parse(name.strip_prefix(CASE_CLOSED)?).ok()?;
            Some(closed_kinds(kinds).into_iter().map(move |kind| (id, kind)))
        });
        let opened = leaf.details.get(CASE_OPENED);
        Self {
            attempt: AttemptSaid::of(leaf),
            key: KeySaid::of(leaf),
            opened: opened.and_then(|name| OperatorActionKind::from_name(name)),
            closed: closed.flatten().collect(),
        }
    }
}

/// The kinds that an entry names; `None` for every kind, where it names none that is known.
fn closed_kinds(told: &str) -> Vec<Option<OperatorActionKind>> {
    OpenCases::parse(told).map_or_else(|| vec![None], |kinds| kinds.iter().map(Some).collect())
}

/// What one genuine entry of a payment says of other rows, and where it stands.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The payment.
    pub payment: PaymentId,
    /// Whose it is.
    pub tenant: String,
    /// The entry.
    pub entry: EntryId,
    /// When it was made: what it writes with a time has this one.
    pub at: DateTime<Utc>,
    /// Its number.
    pub entity_seq: i64,
    /// Its position.
    pub position: Option<i64>,
    /// The transaction that it is about.
    pub transaction: TransactionId,
    /// What it says.
    pub said: RowsSaid,
}

impl Claim {
    /// `None` where it says nothing of such rows, or the service did not write it.
    pub fn of(entry: &CheckedEntry) -> Option<Self> {
        let leaf = entry.leaf.as_ref();
        let leaf = leaf.filter(|leaf| entry.genuine && leaf.of_payment)?;
        if leaf.rows_said == RowsSaid::default() {
            return None;
        }
        Some(Self {
            payment: PaymentId(entry.stream),
            tenant: leaf.tenant_id.clone(),
            entry: entry.entry,
            at: leaf.occurred_at,
            entity_seq: entry.entity_seq,
            position: entry.position,
            transaction: TransactionId(leaf.transaction_id?),
            said: leaf.rows_said.clone(),
        })
    }

    /// Whether a time of a row is this entry's, as the database holds it.
    pub(super) fn is_at(&self, time: DateTime<Utc>) -> bool {
        self.at.timestamp_micros() == time.timestamp_micros()
    }

    /// A mismatch about this entry.
    pub fn mismatch(&self, fault: RowFault) -> Mismatch {
        Mismatch {
            fault: Fault::Row(fault),
            entry: Some(self.entry),
            payment: Some(self.payment),
            position: self.position.and_then(|at| u64::try_from(at).ok()),
        }
    }
}
