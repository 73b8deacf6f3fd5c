//! Asking the provider now.

use std::time::Duration;

use crate::change::Change;
use crate::context::Caller;
use crate::decide::{self, DecideError};
use crate::error::FlowError;
use crate::ids::{PaymentId, TransactionId};
use crate::journal::Stamp;
use crate::payment::PaymentRecord;
use crate::ports::{Commit, LookupQuery};
use crate::transaction::{LookupOutcome, Transaction, TransactionKind, TransactionState};

use super::execute::Report;
use super::{Answer, Flows, accept_error};

/// Most transactions that one `SyncPayment` asks the provider about, unresolved ones first, then the newest.
const MAX_SYNC_LOOKUPS: usize = 20;

impl Flows {
    /// Asks the provider about a payment's transactions, and applies what it says.
    ///
    /// A transaction that the provider proves not to hold is sent (again, the same bytes) while its
    /// `execute_before` allows, and fails as proved not processed after it. If the provider cannot be asked, the
    /// payment is answered as it stands.
    pub async fn sync(&self, caller: &Caller, payment: PaymentId) -> Result<Answer, FlowError> {
        self.run(caller, move |flows, caller, report| async move {
            flows.sync_now(&caller, payment, &report).await
        })
        .await
    }

    async fn sync_now(
        &self,
        caller: &Caller,
        payment: PaymentId,
        report: &Report,
    ) -> Result<Answer, FlowError> {
        let mut record = self.read(caller, payment).await?;
        let asked = worth_asking(&record);
        let subject = asked
            .first()
            .copied()
            .or_else(|| record.transactions.last().map(|transaction| transaction.id))
            .ok_or(FlowError::PaymentNotFound)?;
        let answer = |record| Answer {
            record,
            transaction: subject,
            replayed: false,
        };
        // Nobody listens once the caller is gone.
        let _ = report.unbounded_send(super::execute::Progress::Accepted(answer(record.clone())));
        for id in asked {
            match self.sync_transaction(caller, record.clone(), id).await {
                Ok(moved) => record = moved,
                // Something may have been sent meanwhile, so no error is said (I13): the payment is answered as
                // it was last seen.
                Err(error) => {
                    tracing::error!(
                        payment.id = %payment,
                        transaction.id = %id,
                        error = %error,
                        "a synchronization was left to recovery"
                    );
                    break;
                }
            }
        }
        Ok(answer(record))
    }

    /// Looks one transaction up, and applies what is found.
    async fn sync_transaction(
        &self,
        caller: &Caller,
        record: PaymentRecord,
        id: TransactionId,
    ) -> Result<PaymentRecord, FlowError> {
        let Some(transaction) = record.transaction(id).cloned() else {
            return Ok(record);
        };
        if transaction.attempts == 0 {
            return self.send_waiting(caller, record, id).await;
        }
        let provider = self.provider_of(&record, id)?;
        let query = LookupQuery {
            transaction: id,
            provider_reference: transaction.provider_reference.clone(),
            payment_reference: record.payment.provider_reference.clone(),
        };
        // Judged before the question: what is still under way may arrive while it is being answered.
        let window = provider.capabilities().consistency_window;
        let quiet = self.no_sender_alive(&transaction, window);
        match provider.lookup(&query).await {
            LookupOutcome::Found(fact) => {
                let decide = |record: &PaymentRecord, stamp: &Stamp<'_>| {
                    decide::fact(record, id, &fact, stamp)
                };
                let record = self.apply(caller, record, decide).await?;
                self.send_waiting_void(caller, record).await
            }
            LookupOutcome::NotFound { authoritative } => {
                let proved = authoritative && quiet;
                if !proved || transaction.state != TransactionState::Pending {
                    return Ok(record);
                }
                self.not_held(caller, record, &transaction).await
            }
            LookupOutcome::Unavailable(cause) => {
                tracing::warn!(payment.id = %record.payment.id, cause = %cause, "the provider could not be asked");
                Ok(record)
            }
        }
    }

    /// Whether every sender of the transaction is certainly gone, and the provider's lookup has caught up.
    fn no_sender_alive(&self, transaction: &Transaction, window: Duration) -> bool {
        let now = self.ports().clock.now();
        let window = chrono::TimeDelta::from_std(window).unwrap_or(chrono::TimeDelta::MAX);
        let gone = transaction.lease_until.is_none_or(|until| until <= now);
        gone && transaction
            .updated_at
            .checked_add_signed(window)
            .is_some_and(|seen| seen <= now)
    }

    /// The provider proved that it does not hold a transaction: send it while that is wanted, else end it.
    async fn not_held(
        &self,
        caller: &Caller,
        record: PaymentRecord,
        transaction: &Transaction,
    ) -> Result<PaymentRecord, FlowError> {
        let id = transaction.id;
        let voiding = transaction.kind.opens()
            && record
                .transactions
                .iter()
                .any(|other| other.kind == TransactionKind::Void && !other.state.ended());
        if self.ports().clock.now() < transaction.execute_before && !voiding {
            return self.send_waiting(caller, record, id).await;
        }
        let trace = self.ports().observer.current_trace();
        let stamp = self.stamp(caller, trace, Duration::ZERO);
        let Some(change) = decide::give_up_unsent(&record, id, &stamp)? else {
            return Ok(record);
        };
        match self.ports().store.commit(change.clone()).await {
            Ok(Commit::Committed) => Ok(change.apply_to(Some(record))),
            // Someone else was at it: what was proved is proved no longer.
            Ok(Commit::VersionConflict | Commit::IdempotencyKeyTaken) => {
                self.read(caller, record.payment.id).await
            }
            Err(error) => Err(accept_error(error)),
        }
    }

    /// Starts an attempt and carries it out.
    async fn send_waiting(
        &self,
        caller: &Caller,
        mut record: PaymentRecord,
        id: TransactionId,
    ) -> Result<PaymentRecord, FlowError> {
        let opened = record
            .opening()
            .is_some_and(|opening| opening.state.ended());
        let opens = record
            .transaction(id)
            .is_some_and(|transaction| transaction.kind.opens());
        if !opened && !opens {
            return Ok(record);
        }
        match self.start_attempt(caller, &mut record, id).await? {
            Some(started) => self.carry_on(caller, record, started).await,
            None => self.read(caller, record.payment.id).await,
        }
    }

    /// Sends the void that waited for the authorization, if it has something to release now.
    async fn send_waiting_void(
        &self,
        caller: &Caller,
        record: PaymentRecord,
    ) -> Result<PaymentRecord, FlowError> {
        let waiting = record.transactions.iter().find(|transaction| {
            transaction.kind == TransactionKind::Void
                && !transaction.state.ended()
                && transaction.attempts == 0
        });
        match waiting.map(|void| void.id) {
            Some(id) => self.send_waiting(caller, record, id).await,
            None => Ok(record),
        }
    }

    /// Decides and commits until the payment holds still, a bounded number of times. A decision without news
    /// leaves the payment as it is.
    async fn apply<D>(
        &self,
        caller: &Caller,
        mut record: PaymentRecord,
        decide: D,
    ) -> Result<PaymentRecord, FlowError>
    where
        D: Fn(&PaymentRecord, &Stamp<'_>) -> Result<Option<Change>, DecideError>,
    {
        for _ in 0..=self.settings().max_decisions {
            let trace = self.ports().observer.current_trace();
            let stamp = self.stamp(caller, trace, Duration::ZERO);
            let Some(change) = decide(&record, &stamp)? else {
                return Ok(record);
            };
            match self.ports().store.commit(change.clone()).await {
                Ok(Commit::Committed) => return Ok(change.apply_to(Some(record))),
                Ok(Commit::VersionConflict | Commit::IdempotencyKeyTaken) => {
                    record = self.read(caller, record.payment.id).await?;
                }
                Err(error) => return Err(accept_error(error)),
            }
        }
        Err(FlowError::ConcurrentChange)
    }
}

/// The transactions worth asking about: the unresolved ones; if there are none, those that succeeded, newest
/// first, since a success can still be taken back (a refund, a capture).
fn worth_asking(record: &PaymentRecord) -> Vec<TransactionId> {
    let all = || record.transactions.iter().rev();
    let unresolved: Vec<_> = all()
        .filter(|transaction| !transaction.state.ended())
        .map(|transaction| transaction.id)
        .collect();
    let asked = if unresolved.is_empty() {
        all()
            .filter(|transaction| {
                transaction.state == TransactionState::Succeeded && transaction.attempts > 0
            })
            .map(|transaction| transaction.id)
            .collect()
    } else {
        // Oldest first: an authorization is settled before the void that waits for it.
        unresolved.into_iter().rev().collect::<Vec<_>>()
    };
    asked.into_iter().take(MAX_SYNC_LOOKUPS).collect()
}
