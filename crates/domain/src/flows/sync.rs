//! Asking the provider now.

use std::time::Duration;

use crate::change::Change;
use crate::context::Caller;
use crate::decide::{self, DecideError};
use crate::error::FlowError;
use crate::ids::{PaymentId, TransactionId};
use crate::journal::Stamp;
use crate::payment::PaymentRecord;
use crate::ports::Commit;
use crate::transaction::{Transaction, TransactionKind, TransactionState};

use super::execute::Report;
use super::{Answer, Flows, accept_error};

/// Most transactions that one `SyncPayment` asks the provider about, unresolved ones first, then the newest.
const MAX_SYNC_LOOKUPS: usize = 20;

impl Flows {
    /// Asks the provider about a payment's transactions, and applies what it says.
    ///
    /// A transaction that the provider proves not to hold is sent (again, the same bytes) while its
    /// `execute_before` allows and once its next step is due, and fails as proved not processed after it. If the provider
    /// cannot be asked, the payment is answered as it stands.
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
            match self.ask_now(caller, record.clone(), id).await {
                Ok(asked) => record = asked,
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

    /// Asks the provider now. Where that asks to be left alone, recovery does so.
    async fn ask_now(
        &self,
        caller: &Caller,
        record: PaymentRecord,
        id: TransactionId,
    ) -> Result<PaymentRecord, FlowError> {
        let step = self.take_up(caller, record, id).await?;
        let now = self.ports().clock.now();
        let alone = |held: &Transaction| held.left_alone.holds(&held.provider_account, now);
        // Whoever asks again and again would keep recovery from its turn.
        let known = step.record.transaction(id).is_some_and(alone);
        if step.retry_after.is_none() || known {
            return Ok(step.record);
        }
        let told = (step.cause, step.retry_after);
        let decide =
            |record: &PaymentRecord, stamp: &Stamp<'_>| decide::held_off(record, id, told, stamp);
        self.apply(caller, step.record, decide).await
    }

    /// Decides and commits until the payment holds still, a bounded number of times. A decision without news
    /// leaves the payment as it is.
    pub(super) async fn apply<D>(
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
            match self.commit(&change).await {
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

/// The transactions worth asking about: the unresolved ones, and those that a person decided; then those that ended and that
/// the provider knows, newest first: a success can still be taken back (a refund, a capture), and what was not done be done
/// after all, without a word that reached us. Not a void that was not done: whether its payment is released, the opening says.
fn worth_asking(record: &PaymentRecord) -> Vec<TransactionId> {
    let unresolved = |held: &&Transaction| !held.state.ended() || held.resolved_by_operator;
    let all = || record.transactions.iter();
    // Oldest first: an authorization is settled before the void that waits for it.
    let open = all().filter(unresolved);
    let ended = all()
        .rev()
        .filter(|held| !unresolved(held) && may_have_changed(held));
    let asked = open.chain(ended).map(|held| held.id);
    asked.take(MAX_SYNC_LOOKUPS).collect()
}

/// Whether the provider may say otherwise by now of what has ended: what was sent, and what it did by itself, which is found by
/// its reference.
fn may_have_changed(held: &Transaction) -> bool {
    let known = held.attempts > 0 || held.provider_reference.is_some();
    known
        && match held.state {
            TransactionState::Succeeded => true,
            TransactionState::Declined | TransactionState::Failed => {
                held.kind != TransactionKind::Void
            }
            TransactionState::Pending
            | TransactionState::RequiresAction
            | TransactionState::Reversed => false,
        }
}
