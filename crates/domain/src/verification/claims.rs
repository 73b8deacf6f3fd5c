//! What entries say of rows beside payments and transactions: attempts, idempotency records, operator actions.
//!
//! Each is written in one commit with the entry that speaks of it, and never taken back: so the rows may be read at any
//! later moment.

use quittance_evidence::{Hash, Leaf};
use uuid::Uuid;

use super::entry::CheckedEntry;
use super::mismatch::{Fault, Mismatch, Shown};
use super::row_fault::{ResponseProblem, RowFault};
use crate::cases::OpenCases;
use crate::change::OperatorActionKind;
use crate::ids::{EntryId, PaymentId, TransactionId};
use crate::journal::{CASE_CLOSED, CASE_OPENED, salted_digest};
use crate::transaction::MAX_STORED_RESPONSE;

/// What an entry says of other rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowsSaid {
    /// Number and digests of the attempt that began or ended with it.
    pub attempt: Option<AttemptSaid>,
    /// Digest of the idempotency key under which its command was asked.
    pub key_digest: Option<Hash>,
    /// The case that it opened about its transaction.
    pub opened: Option<OperatorActionKind>,
    /// The transactions whose cases it closed, with each kind of them; `None` for every kind.
    pub closed: Vec<(Uuid, Option<OperatorActionKind>)>,
}

/// What an entry says of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptSaid {
    /// Its number.
    pub number: u32,
    /// Digest of the bytes sent.
    pub request: Option<Hash>,
    /// Digest of what came back.
    pub response: Option<Hash>,
}

impl RowsSaid {
    pub(super) fn of(leaf: &Leaf) -> Self {
        let closed = leaf.details.iter().filter_map(|(name, kinds)| {
            let id = Uuid::try_parse(name.strip_prefix(CASE_CLOSED)?).ok()?;
            Some(closed_kinds(kinds).into_iter().map(move |kind| (id, kind)))
        });
        let opened = leaf.details.get(CASE_OPENED);
        Self {
            attempt: leaf.attempt.map(|number| AttemptSaid {
                number,
                request: leaf.provider_request_digest,
                response: leaf.provider_response_digest,
            }),
            key_digest: leaf.idempotency_key_digest,
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
    /// The entry.
    pub entry: EntryId,
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
            entry: entry.entry,
            entity_seq: entry.entity_seq,
            position: entry.position,
            transaction: TransactionId(leaf.transaction_id?),
            said: leaf.rows_said.clone(),
        })
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

/// An attempt as stored.
#[derive(Debug, Clone)]
pub struct StoredAttempt {
    /// Column `request_digest`.
    pub request_digest: Vec<u8>,
    /// Column `response_digest`.
    pub response_digest: Option<Vec<u8>>,
    /// What came back, opened.
    pub response: StoredResponse,
}

/// What a provider answered, as stored.
#[derive(Debug, Clone)]
pub enum StoredResponse {
    /// Nothing.
    None,
    /// It opens, and so does the salt of its digest.
    Opened {
        /// At most the first 16 KiB of what came.
        bytes: Vec<u8>,
        /// The attempt's salt.
        salt: [u8; 16],
    },
    /// It does not open.
    Unreadable,
    /// The payment's customer was erased, or is being erased: nothing is kept.
    Erased,
}

/// Holds an attempt to what an entry says of it.
pub fn compare_attempt(claim: &Claim, row: Option<&StoredAttempt>, out: &mut Vec<Mismatch>) {
    let Some(said) = claim.said.attempt else {
        return;
    };
    let (transaction, number) = (claim.transaction, said.number);
    let Some(row) = row else {
        let missing = RowFault::AttemptMissing {
            transaction,
            number,
        };
        return out.push(claim.mismatch(missing));
    };
    let stored = [
        ("request_digest", said.request, Some(&row.request_digest)),
        (
            "response_digest",
            said.response,
            row.response_digest.as_ref(),
        ),
    ];
    for (column, expected, found) in stored {
        let Some(expected) = expected else { continue };
        if found.is_none_or(|found| found.as_slice() != expected.as_bytes()) {
            out.push(claim.mismatch(RowFault::AttemptDiffers {
                transaction,
                number,
                column,
                expected,
                found: Shown::of_option(found.map(hex::encode).as_ref()),
            }));
        }
    }
    let problem = said
        .response
        .and_then(|digest| problem_of(&row.response, &digest));
    if let Some(problem) = problem {
        out.push(claim.mismatch(RowFault::Response {
            transaction,
            number,
            problem,
        }));
    }
}

/// One that was too long to be stored whole cannot be digested again; that it opens says that it is the attempt's.
fn problem_of(response: &StoredResponse, digest: &Hash) -> Option<ResponseProblem> {
    match response {
        StoredResponse::None => Some(ResponseProblem::Gone),
        StoredResponse::Unreadable => Some(ResponseProblem::Unreadable),
        StoredResponse::Erased => None,
        StoredResponse::Opened { bytes, salt } => {
            let whole = bytes.len() < MAX_STORED_RESPONSE;
            (whole && salted_digest(salt, bytes) != *digest.as_bytes())
                .then_some(ResponseProblem::Differs)
        }
    }
}

/// An idempotency record as stored: the digest of its key, and where it leads to.
#[derive(Debug, Clone, Copy)]
pub struct StoredKeyRecord {
    /// Digest of tenant and key, as entries have it.
    pub key_digest: [u8; 32],
    /// The payment.
    pub payment: PaymentId,
    /// The transaction that the command made or advanced.
    pub transaction: TransactionId,
}

/// Holds the records of a payment to what an entry says.
pub fn compare_key_record(claim: &Claim, rows: &[StoredKeyRecord], out: &mut Vec<Mismatch>) {
    let Some(digest) = claim.said.key_digest else {
        return;
    };
    let mut own = rows.iter().filter(|row| row.payment == claim.payment);
    match own.find(|row| row.key_digest == *digest.as_bytes()) {
        None => out.push(claim.mismatch(RowFault::IdempotencyRecordMissing)),
        Some(row) if row.transaction != claim.transaction => {
            out.push(claim.mismatch(RowFault::IdempotencyRecordDiffers {
                expected: claim.transaction,
                found: row.transaction,
            }));
        }
        Some(_) => {}
    }
}

/// A case for a person, as stored.
#[derive(Debug, Clone)]
pub struct StoredAction {
    /// Column `payment_id`.
    pub payment: PaymentId,
    /// Column `transaction_id`.
    pub transaction: TransactionId,
    /// Column `kind`.
    pub kind: String,
    /// By which entry it was closed, as far as the row says.
    pub closed_by: Option<EntryId>,
    /// Whether that entry is there, comes after the one that opened it, and closes it ([`closes_case_of`]).
    pub closes: bool,
}

/// Whether the bytes are an entry that closes the cases of this kind about a transaction. Whether the service wrote them is
/// looked at where the entry itself is checked.
pub fn closes_case_of(
    leaf: &[u8],
    transaction: TransactionId,
    kind: Option<OperatorActionKind>,
) -> bool {
    let closes = |leaf: Leaf| {
        let closed = RowsSaid::of(&leaf).closed;
        let mut closed = closed.iter().filter(|(id, _)| *id == transaction.0);
        closed.any(|(_, closed)| closed.is_none() || *closed == kind)
    };
    Leaf::decode(leaf).is_ok_and(closes)
}

/// Holds the case that an entry opened to what it says.
pub fn compare_action(claim: &Claim, row: Option<&StoredAction>, out: &mut Vec<Mismatch>) {
    let Some(kind) = claim.said.opened else {
        return;
    };
    let Some(row) = row else {
        let missing = RowFault::OperatorActionMissing(claim.transaction);
        return out.push(claim.mismatch(missing));
    };
    let mut differs = |column, expected, found| {
        out.push(claim.mismatch(RowFault::OperatorActionDiffers {
            column,
            expected,
            found,
        }));
    };
    if row.payment != claim.payment {
        let (expected, found) = (Shown::of(&claim.payment), Shown::of(&row.payment));
        differs("payment_id", expected, found);
    }
    if row.transaction != claim.transaction {
        let (expected, found) = (Shown::of(&claim.transaction), Shown::of(&row.transaction));
        differs("transaction_id", expected, found);
    }
    if row.kind != kind.name() {
        differs("kind", Shown::of(kind.name()), Shown::of(&row.kind));
    }
    if let Some(entry) = row.closed_by.filter(|_| !row.closes) {
        let expected = Shown::of("an entry that closes it");
        differs("closed_by", expected, Shown::of(&entry));
    }
}

/// A case that an entry closed, and that is open by its row.
pub fn left_open(claim: &Claim) -> Mismatch {
    claim.mismatch(RowFault::OperatorActionDiffers {
        column: "closed_by",
        expected: Shown::of(&claim.entry),
        found: Shown::of_option(None::<&str>),
    })
}

/// A case that no entry opened.
pub fn operator_action_without_entry(action: EntryId, payment: PaymentId) -> Mismatch {
    Mismatch {
        fault: Fault::Row(RowFault::OperatorActionWithoutEntry(action)),
        entry: None,
        payment: Some(payment),
        position: None,
    }
}
