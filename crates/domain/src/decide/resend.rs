//! What allows a transaction to be sent (again), as types that only their proofs make.
//!
//! [`start_attempt`](super::start_attempt) wants one of them, so a retry that could charge twice cannot be
//! written down.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::ids::TransactionId;
use crate::payment::PaymentRecord;
use crate::ports::Capabilities;
use crate::retry::KEY_AGE_MARGIN;
use crate::transaction::{OperationKind, Transaction};

use super::attempt::next_operation;

/// How far the clocks of two servers can be apart: each is within 5 s of the database's.
const CLOCKS_APART: Duration = Duration::from_secs(10);

/// Proof that, when it was judged, every sender of a transaction was gone and the provider's lookup had caught
/// up. To be judged before the provider is asked: what is under way may arrive while it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quiet(Judged);

/// Proof that no send of a transaction was processed, nor can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvedUnsent(Judged);

/// That the provider still remembers the transaction's key: the same bytes are processed at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyAlive(Judged);

/// What allows a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaySend {
    /// Nothing was processed.
    Unsent(ProvedUnsent),
    /// The provider tells a second send from the first by its key.
    SameKey(KeyAlive),
}

/// The transaction that was judged, and how many sends it had: a further one makes the judgement void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Judged {
    transaction: TransactionId,
    attempts: u32,
}

impl Judged {
    fn of(transaction: &Transaction) -> Self {
        Self {
            transaction: transaction.id,
            attempts: transaction.attempts,
        }
    }
}

impl Quiet {
    /// Whether it still says something about the transaction.
    pub(super) fn holds(self, transaction: &Transaction) -> bool {
        self.0 == Judged::of(transaction)
    }

    /// Judges by the sender's lease and by the `window` in which the provider's lookup may miss a request.
    pub fn judge(transaction: &Transaction, window: Duration, now: DateTime<Utc>) -> Option<Self> {
        // The end of a lease has room for clocks that differ; the time of an answer has none.
        let apart = if transaction.lease_until.is_none() && !window.is_zero() {
            CLOCKS_APART
        } else {
            Duration::ZERO
        };
        let window = TimeDelta::from_std(window.saturating_add(apart)).unwrap_or(TimeDelta::MAX);
        // A lease counts from the commit before the send, and is longer than the send: what it covers has
        // arrived when it ends.
        let last = transaction.lease_until.unwrap_or(transaction.updated_at);
        let seen = last.checked_add_signed(window)?;
        (seen <= now).then(|| Self(Judged::of(transaction)))
    }
}

impl ProvedUnsent {
    /// Every send so far was proved not to be processed; or there was none.
    pub fn by_sends(transaction: &Transaction) -> Option<Self> {
        transaction
            .certainly_unprocessed()
            .then(|| Self(Judged::of(transaction)))
    }

    /// The provider's authoritative lookup does not hold it, asked after all was quiet. `None` where the provider has it, as
    /// it once said itself: whatever the lookup misses, it does not prove that nothing was processed.
    pub fn by_lookup(quiet: Quiet, record: &PaymentRecord, held: &Transaction) -> Option<Self> {
        (!known_there(record, held)).then_some(Self(quiet.0))
    }

    /// Of a confirmation: the provider still waits for the customer, asked after all was quiet.
    pub fn by_waiting(quiet: Quiet) -> Self {
        Self(quiet.0)
    }

    /// Whether it still says something about the transaction.
    pub(super) fn holds(self, transaction: &Transaction) -> bool {
        self.0 == Judged::of(transaction)
    }
}

/// Whether the provider has named a transaction, or asked its customer for something: it holds it, whatever a lookup misses.
pub(super) fn known_there(record: &PaymentRecord, held: &Transaction) -> bool {
    held.provider_reference.is_some() || held.kind.opens() && record.payment.next_action.is_some()
}

/// Whether the provider has named what the next send would ask for, and so holds it. Of a confirmation its name says nothing: it
/// is that of the payment, which is confirmed by its customer.
pub(crate) fn is_named(record: &PaymentRecord, held: &Transaction) -> bool {
    let confirms = next_operation(record, held) == Some(OperationKind::Confirm);
    held.provider_reference.is_some() && !confirms
}

impl KeyAlive {
    /// Judges by the age of the transaction, which is at least that of its key.
    pub fn judge(
        transaction: &Transaction,
        capabilities: &Capabilities,
        now: DateTime<Utc>,
    ) -> Option<Self> {
        let kept = capabilities
            .idempotency_key_lifetime
            .saturating_sub(KEY_AGE_MARGIN);
        let kept = TimeDelta::from_std(kept).unwrap_or(TimeDelta::MAX);
        let age = now - transaction.created_at;
        (age < kept).then(|| Self(Judged::of(transaction)))
    }
}

impl MaySend {
    /// Whether it still says something about the transaction.
    pub(super) fn holds(self, transaction: &Transaction) -> bool {
        let (Self::Unsent(ProvedUnsent(judged)) | Self::SameKey(KeyAlive(judged))) = self;
        judged == Judged::of(transaction)
    }
}
