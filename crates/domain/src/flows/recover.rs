//! Taking a transaction up again: for recovery, and for `SyncPayment`.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;

use crate::change::Change;
use crate::context::{Actor, ActorKind, Caller, Origin};
use crate::decide::{self, MaySend, ProvedUnsent};
use crate::decline::Cause;
use crate::error::FlowError;
use crate::ids::{TenantId, TransactionId};
use crate::payment::PaymentRecord;
use crate::ports::{Circuit, Commit, Due};
use crate::retry::WaitFor;
use crate::transaction::{Transaction, TransactionState};

use super::execute::Start;
use super::{Flows, accept_error, read_error};

/// How journal entries name recovery.
const RECOVERY: &str = "recovery";

/// How far our clock can be behind the database's, by which a transaction was claimed.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(10);

/// What recovery did with a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovered {
    /// Its outcome is known now.
    Settled,
    /// It was taken up, and waits for its next step (or for a person).
    Waiting,
    /// There was nothing to do.
    NotDue,
    /// Its account is called as often as is allowed: it is taken up when the claim has run out.
    Busy,
}

/// Where a transaction was left by one step.
pub(super) struct Stepped {
    pub record: PaymentRecord,
    pub busy: bool,
    /// What it waits for if there is no news, and why.
    pub wait: WaitFor,
    pub cause: Option<Cause>,
    pub retry_after: Option<Duration>,
}

impl Stepped {
    pub fn at(record: PaymentRecord) -> Self {
        Self {
            record,
            busy: false,
            wait: WaitFor::Decision,
            cause: None,
            retry_after: None,
        }
    }

    /// It could not be gone on with, and is due as it was.
    pub fn busy(record: PaymentRecord) -> Self {
        Self {
            busy: true,
            ..Self::at(record)
        }
    }

    pub fn without_news(record: PaymentRecord) -> Self {
        Self {
            wait: WaitFor::Outcome,
            ..Self::at(record)
        }
    }
}

impl Flows {
    /// Takes up a transaction whose next step is due: sends it (again) where that is safe, else asks the provider
    /// about it; and says when the next step is due if that brings no news.
    ///
    /// An error that is not transient says that the payment itself cannot be read or written (a key that is gone, a
    /// damaged row): nothing can be put on record about it then, and whoever called has to tell a person.
    pub async fn recover(&self, due: &Due) -> Result<Recovered, FlowError> {
        let caller = recovery(&due.tenant);
        let Some(record) = self.claimed(&caller, due).await? else {
            return Ok(Recovered::NotDue);
        };
        // One answer that an adapter chokes on must not be asked for again for ever, without anybody hearing of it.
        let taken_up = AssertUnwindSafe(self.take_up_in_time(&caller, record, due.transaction));
        let panicked = |_| Err(FlowError::Internal("a step panicked".to_owned()));
        let step = match taken_up.catch_unwind().await.unwrap_or_else(panicked) {
            Ok(step) => step,
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                // A defect, or a provider account that is not configured any more: it is tried as often as any
                // step without news is, and then shown to a person.
                tracing::error!(
                    payment.id = %due.payment,
                    transaction.id = %due.transaction,
                    error = %error,
                    "a transaction could not be taken up"
                );
                Stepped::without_news(self.read(&caller, due.payment).await?)
            }
        };
        if step.busy {
            return Ok(Recovered::Busy);
        }
        let record = self.put_off(&caller, step, due.transaction).await?;
        let held = record.transaction(due.transaction);
        let settled = held.is_none_or(|held| held.state.ended() && !held.is_watched());
        Ok(if settled {
            Recovered::Settled
        } else {
            Recovered::Waiting
        })
    }

    /// Says when the next step is due of a transaction that is still due after this one. A change of the payment's other
    /// transactions must not keep that from being said: the claim would run out first, and nothing be done until then.
    async fn put_off(
        &self,
        caller: &Caller,
        step: Stepped,
        id: TransactionId,
    ) -> Result<PaymentRecord, FlowError> {
        let news = (step.wait, step.cause, step.retry_after);
        let mut record = step.record;
        for _ in 0..=self.settings().max_decisions {
            let trace = self.ports().observer.current_trace();
            let stamp = self.stamp(caller, trace, Duration::ZERO);
            let Some(change) = decide::unresolved(&record, id, news, &stamp)? else {
                return Ok(record);
            };
            match self.commit(&change).await.map_err(accept_error)? {
                Commit::Committed => return Ok(change.apply_to(Some(record))),
                Commit::VersionConflict | Commit::IdempotencyKeyTaken => {
                    record = self.read(caller, record.payment.id).await?;
                }
            }
        }
        Ok(record)
    }

    /// The payment of a claimed transaction, if it is still due. It is due by the database's clock: where ours is
    /// behind, it is waited for.
    async fn claimed(
        &self,
        caller: &Caller,
        due: &Due,
    ) -> Result<Option<PaymentRecord>, FlowError> {
        loop {
            let record = self.read(caller, due.payment).await?;
            let held = record.transaction(due.transaction);
            let open = held.filter(|held| held.is_taken_up() || held.is_watched());
            let Some(at) = open.and_then(|held| held.next_step_at) else {
                return Ok(None);
            };
            let early = (at - self.ports().clock.now()).to_std().unwrap_or_default();
            if early.is_zero() {
                return Ok(Some(record));
            }
            if early > MAX_CLOCK_DIFFERENCE {
                // Somebody else has taken it up meanwhile.
                return Ok(None);
            }
            self.ports().clock.sleep(early).await;
        }
    }

    /// One step on a transaction that was due: a sender that was lost may have been one that did not wait, where the provider
    /// is still to be left alone.
    async fn take_up_in_time(
        &self,
        caller: &Caller,
        mut record: PaymentRecord,
        id: TransactionId,
    ) -> Result<Stepped, FlowError> {
        self.close_lost_attempt(caller, &mut record, id).await?;
        if !self.is_due(&record, id) {
            return Ok(Stepped::at(record));
        }
        self.take_up(caller, record, id).await
    }

    /// One step on a transaction: what the proofs at hand allow.
    pub(super) async fn take_up(
        &self,
        caller: &Caller,
        mut record: PaymentRecord,
        id: TransactionId,
    ) -> Result<Stepped, FlowError> {
        self.close_lost_attempt(caller, &mut record, id).await?;
        let Some(held) = record.transaction(id).cloned() else {
            return Ok(Stepped::at(record));
        };
        let pending = held.state == TransactionState::Pending;
        match ProvedUnsent::by_sends(&held).filter(|_| pending) {
            Some(proof) => self.unsent(caller, record, &held, proof).await,
            None => self.look_up(caller, record, &held).await,
        }
    }

    /// Puts on record that the process which made the last attempt is gone.
    async fn close_lost_attempt(
        &self,
        caller: &Caller,
        record: &mut PaymentRecord,
        id: TransactionId,
    ) -> Result<(), FlowError> {
        let now = self.ports().clock.now();
        let Some(lost) = record
            .transaction(id)
            .filter(|held| held.sender_is_lost(now))
        else {
            return Ok(());
        };
        let store = &self.ports().store;
        let attempt = store.attempt(record.payment.id, id, lost.attempts).await;
        let Some(attempt) = attempt.map_err(read_error)? else {
            return Err(FlowError::Internal("an attempt has no row".to_owned()));
        };
        let trace = self.ports().observer.current_trace();
        let stamp = self.stamp(caller, trace, Duration::ZERO);
        let change = decide::sender_lost(record, &attempt, &stamp)?;
        self.settle(caller, record, change).await
    }

    /// Commits a decision about the payment as it was read; reads it again where it has moved.
    pub(super) async fn settle(
        &self,
        caller: &Caller,
        record: &mut PaymentRecord,
        change: Option<Change>,
    ) -> Result<(), FlowError> {
        let Some(change) = change else { return Ok(()) };
        match self.commit(&change).await {
            Ok(Commit::Committed) => *record = change.apply_to(Some(record.clone())),
            // Someone else was at it: what was proved is proved no longer.
            Ok(Commit::VersionConflict | Commit::IdempotencyKeyTaken) => {
                *record = self.read(caller, record.payment.id).await?;
            }
            Err(error) => return Err(accept_error(error)),
        }
        Ok(())
    }

    /// Nothing of it was processed: it is sent while that is wanted, at any account that may serve it; else it ends.
    pub(super) async fn unsent(
        &self,
        caller: &Caller,
        mut record: PaymentRecord,
        held: &Transaction,
        proof: ProvedUnsent,
    ) -> Result<Stepped, FlowError> {
        let now = self.ports().clock.now();
        if !decide::still_wanted(&record, held, now) {
            let trace = self.ports().observer.current_trace();
            let stamp = self.stamp(caller, trace, Duration::ZERO);
            let change = decide::give_up_unsent(&record, held.id, proof, &stamp)?;
            self.settle(caller, &mut record, change).await?;
            return self.go_on_with_void(caller, record).await;
        }
        let provider = self.provider_of(&record, held.id)?;
        if !decide::can_be_sent(&record, held, provider.as_ref(), now) {
            return Ok(Stepped::at(record));
        }
        if !self.is_due(&record, held.id) {
            return Ok(Stepped::at(record));
        }
        self.retried(&record, held.id, "resend");
        if provider.circuit() == Circuit::Open {
            let tried = [held.provider_account.clone()];
            if let Some(started) = self.fail_over(caller, &mut record, held.id, &tried).await? {
                let record = self.carry_on(caller, record, started).await?;
                return Ok(Stepped::at(record));
            }
            // It would be answered as not sent.
            return Ok(Stepped {
                wait: WaitFor::Reach,
                cause: Some(Cause::CircuitOpen),
                ..Stepped::at(record)
            });
        }
        self.send_again(caller, record, held.id, MaySend::Unsent(proof))
            .await
    }

    /// Whether its next step is due. Whoever asks by `SyncPayment` may come before: the provider is asked then, and nothing is
    /// sent, so that nobody's impatience undoes the waits, nor what the provider asked for.
    fn is_due(&self, record: &PaymentRecord, id: TransactionId) -> bool {
        let now = self.ports().clock.now();
        let next = record.transaction(id).and_then(|held| held.next_step_at);
        next.is_some_and(|at| at <= now)
    }

    /// Starts an attempt and carries it out, if it is time for it.
    pub(super) async fn send_again(
        &self,
        caller: &Caller,
        mut record: PaymentRecord,
        id: TransactionId,
        allowed: MaySend,
    ) -> Result<Stepped, FlowError> {
        if !self.is_due(&record, id) {
            return Ok(Stepped::at(record));
        }
        let provider = self.provider_of(&record, id)?;
        let Ok(place) = provider.place().await else {
            return Ok(Stepped::busy(record));
        };
        let started = self.start_attempt(caller, &mut record, (id, allowed), place);
        match started.await? {
            Start::Attempt(started) => {
                let record = self.carry_on(caller, record, *started).await?;
                Ok(Stepped::at(record))
            }
            Start::NotDue => {
                let record = self.read(caller, record.payment.id).await?;
                Ok(Stepped::without_news(record))
            }
            Start::Busy => Ok(Stepped::busy(record)),
        }
    }
}

/// Who recovery is.
fn recovery(tenant: &TenantId) -> Caller {
    Caller {
        tenant: tenant.clone(),
        actor: Actor {
            kind: ActorKind::System,
            id: RECOVERY.to_owned(),
            auth_method: "",
        },
        origin: Origin {
            rpc_method: RECOVERY.to_owned(),
            ..Origin::default()
        },
        remote: None,
        deadline: None,
    }
}
