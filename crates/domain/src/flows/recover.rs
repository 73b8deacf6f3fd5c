//! Taking a transaction up again: for recovery, and for `SyncPayment`.

use std::time::Duration;

use crate::change::Change;
use crate::context::{Actor, ActorKind, Caller, Origin};
use crate::decide::{self, KeyAlive, MaySend, ProvedUnsent, Quiet};
use crate::decline::Cause;
use crate::error::FlowError;
use crate::ids::{TenantId, TransactionId};
use crate::journal::Stamp;
use crate::payment::PaymentRecord;
use crate::ports::{Circuit, Commit, Due, LookupQuery};
use crate::retry::WaitFor;
use crate::transaction::{
    AttemptOutcome, Fact, FactKind, LookupOutcome, Transaction, TransactionKind, TransactionState,
};

use super::execute::{Start, Started};
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
    busy: bool,
    /// What it waits for if there is no news, and why.
    wait: WaitFor,
    cause: Option<Cause>,
    retry_after: Option<Duration>,
}

impl Stepped {
    fn at(record: PaymentRecord) -> Self {
        Self {
            record,
            busy: false,
            wait: WaitFor::Decision,
            cause: None,
            retry_after: None,
        }
    }

    fn without_news(record: PaymentRecord) -> Self {
        Self {
            wait: WaitFor::Outcome,
            ..Self::at(record)
        }
    }
}

impl Flows {
    /// Takes up a transaction whose next step is due: sends it (again) where that is safe, else asks the provider
    /// about it; and says when the next step is due if that brings no news.
    pub async fn recover(&self, due: &Due) -> Result<Recovered, FlowError> {
        let caller = recovery(&due.tenant);
        let Some(record) = self.claimed(&caller, due).await? else {
            return Ok(Recovered::NotDue);
        };
        let step = match self.take_up(&caller, record, due.transaction).await {
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
        let trace = self.ports().observer.current_trace();
        let stamp = self.stamp(&caller, trace, Duration::ZERO);
        let news = (step.wait, step.cause, step.retry_after);
        let change = decide::unresolved(&step.record, due.transaction, news, &stamp)?;
        if let Some(change) = change {
            // On a conflict someone else is at it.
            self.commit(&change).await.map_err(accept_error)?;
        }
        let held = step.record.transaction(due.transaction);
        let settled = held.is_none_or(|held| held.state.ended());
        Ok(if settled {
            Recovered::Settled
        } else {
            Recovered::Waiting
        })
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
            let open = held.filter(|held| !held.state.ended());
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
    async fn settle(
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
    async fn unsent(
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
            return Ok(Stepped::at(record));
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
    async fn send_again(
        &self,
        caller: &Caller,
        mut record: PaymentRecord,
        id: TransactionId,
        allowed: MaySend,
    ) -> Result<Stepped, FlowError> {
        if !self.is_due(&record, id) {
            return Ok(Stepped::at(record));
        }
        match self.start_attempt(caller, &mut record, id, allowed).await? {
            Start::Attempt(started) => {
                let record = self.carry_on(caller, record, *started).await?;
                Ok(Stepped::at(record))
            }
            Start::NotDue => {
                let record = self.read(caller, record.payment.id).await?;
                Ok(Stepped::without_news(record))
            }
            Start::Busy => Ok(Stepped {
                busy: true,
                ..Stepped::at(record)
            }),
        }
    }

    /// Asks the provider about it, and applies what it says.
    async fn look_up(
        &self,
        caller: &Caller,
        mut record: PaymentRecord,
        held: &Transaction,
    ) -> Result<Stepped, FlowError> {
        let id = held.id;
        let provider = self.provider_of(&record, id)?;
        let query = LookupQuery::about(&record.payment, held);
        // Judged before the question: what is still under way may arrive while it is being answered.
        let capabilities = provider.capabilities();
        let now = self.ports().clock.now();
        let quiet = Quiet::judge(held, capabilities.consistency_window, now);
        self.retried(&record, id, "lookup");
        let found = provider.lookup(&query).await;
        let pending = held.state == TransactionState::Pending;
        match found {
            LookupOutcome::Found(fact) => self.found(caller, record, held, &fact, quiet).await,
            LookupOutcome::NotFound { authoritative } if !pending => {
                if let Some(quiet) = quiet.filter(|_| authoritative) {
                    let proof = ProvedUnsent::by_lookup(quiet);
                    let decide = |record: &PaymentRecord, stamp: &Stamp<'_>| {
                        decide::refuted_by_lookup(record, id, proof, stamp)
                    };
                    record = self.apply(caller, record, decide).await?;
                }
                if provider.lookup_asks() {
                    return Ok(Stepped::at(record));
                }
                // It cannot be asked whether the customer has acted: its webhook would have said so.
                Box::pin(self.abandon_or_leave(caller, record, id)).await
            }
            LookupOutcome::NotFound { authoritative } => match quiet {
                Some(quiet) if authoritative => {
                    let proof = ProvedUnsent::by_lookup(quiet);
                    self.unsent(caller, record, held, proof).await
                }
                Some(_) => self.resend_same_key(caller, record, held).await,
                None => Ok(Stepped::without_news(record)),
            },
            LookupOutcome::Unavailable { cause, retry_after } => {
                tracing::warn!(payment.id = %record.payment.id, cause = %cause, "the provider could not be asked");
                Ok(Stepped {
                    retry_after,
                    wait: WaitFor::after(cause),
                    cause: Some(cause),
                    ..Stepped::at(record)
                })
            }
        }
    }

    /// Applies what a lookup found, and goes on with what that makes due.
    async fn found(
        &self,
        caller: &Caller,
        mut record: PaymentRecord,
        held: &Transaction,
        fact: &Fact,
        quiet: Option<Quiet>,
    ) -> Result<Stepped, FlowError> {
        let id = held.id;
        let still_asked = matches!(fact.kind, FactKind::RequiresAction(_));
        if still_asked && decide::confirmation_open(&record, held) {
            // It still waits for the customer: once all is quiet, the confirmation did not arrive, and never will.
            let Some(quiet) = quiet else {
                return Ok(Stepped::without_news(record));
            };
            let proof = ProvedUnsent::by_lookup(quiet);
            let decide = |record: &PaymentRecord, stamp: &Stamp<'_>| {
                decide::confirmation_lost(record, id, fact, proof, stamp)
            };
            let record = self.apply(caller, record, decide).await?;
            return self.go_on_with_void(caller, record).await;
        }
        if still_asked && self.confirmation_unsent(&record, held).await? {
            // It still waits for the customer, who has done that already.
            let Some(quiet) = quiet else {
                return Ok(Stepped::without_news(record));
            };
            self.retried(&record, id, "resend");
            let allowed = MaySend::Unsent(ProvedUnsent::by_lookup(quiet));
            return self.send_again(caller, record, id, allowed).await;
        }
        let decide =
            |record: &PaymentRecord, stamp: &Stamp<'_>| decide::fact(record, id, fact, stamp);
        record = self.apply(caller, record, decide).await?;
        if still_asked {
            return Box::pin(self.abandon_or_leave(caller, record, id)).await;
        }
        self.go_on_with_void(caller, record).await
    }

    /// Releases a payment that its customer has left, if it is one; or sends the void that waited.
    async fn abandon_or_leave(
        &self,
        caller: &Caller,
        mut record: PaymentRecord,
        id: TransactionId,
    ) -> Result<Stepped, FlowError> {
        if let Some(void) = self.abandon(caller, &mut record, id).await? {
            let record = self.carry_on(caller, record, void).await?;
            return Ok(Stepped::at(record));
        }
        self.go_on_with_void(caller, record).await
    }

    /// Whether a confirmation was proved not sent, is still wanted, and so is to be sent again: what the customer returned
    /// is not asked for twice.
    pub(super) async fn confirmation_unsent(
        &self,
        record: &PaymentRecord,
        held: &Transaction,
    ) -> Result<bool, FlowError> {
        let now = self.ports().clock.now();
        if !decide::confirmation_waits(record, held) || !decide::still_wanted(record, held, now) {
            return Ok(false);
        }
        let (payment, store) = (record.payment.id, &self.ports().store);
        let last = store.attempt(payment, held.id, held.attempts).await;
        let ended = last.map_err(read_error)?.and_then(|attempt| attempt.ended);
        Ok(ended.is_some_and(|end| end.outcome == AttemptOutcome::NotSent))
    }

    /// Starts the void of a payment that its customer has left, if it is one.
    async fn abandon(
        &self,
        caller: &Caller,
        record: &mut PaymentRecord,
        id: TransactionId,
    ) -> Result<Option<Started>, FlowError> {
        let provider = self.provider_of(record, id)?;
        let Ok(place) = provider.reserve() else {
            // At the next step.
            return Ok(None);
        };
        let trace = self.ports().observer.current_trace();
        let stamp = self.stamp(caller, trace, provider.send_timeout());
        let Some(change) = decide::abandon(record, id, provider.as_ref(), &stamp)? else {
            return Ok(None);
        };
        match self.commit(&change).await {
            Ok(Commit::Committed) => {
                *record = change.apply_to(Some(record.clone()));
                Ok(Started::by(&change, place))
            }
            // Someone else is at it: the customer, perhaps.
            Ok(Commit::VersionConflict | Commit::IdempotencyKeyTaken) => Ok(None),
            Err(error) => Err(accept_error(error)),
        }
    }

    /// Sends the void that waited for what was found.
    async fn go_on_with_void(
        &self,
        caller: &Caller,
        mut record: PaymentRecord,
    ) -> Result<Stepped, FlowError> {
        let void = self.start_waiting_void(caller, &mut record).await?;
        let record = match void {
            Some(started) => self.carry_on(caller, record, started).await?,
            None => record,
        };
        Ok(Stepped::at(record))
    }

    /// The provider cannot say whether it holds it: the same bytes under the same key, while it remembers the key;
    /// after that a person decides.
    async fn resend_same_key(
        &self,
        caller: &Caller,
        mut record: PaymentRecord,
        held: &Transaction,
    ) -> Result<Stepped, FlowError> {
        if self.may_never_have_begun(&record, held).await? {
            let trace = self.ports().observer.current_trace();
            let stamp = self.stamp(caller, trace, Duration::ZERO);
            let change = decide::too_late_to_begin(&record, held.id, &stamp)?;
            self.settle(caller, &mut record, change).await?;
            return Ok(Stepped::at(record));
        }
        let provider = self.provider_of(&record, held.id)?;
        let now = self.ports().clock.now();
        if let Some(alive) = KeyAlive::judge(held, provider.capabilities(), now) {
            self.retried(&record, held.id, "resend");
            let allowed = MaySend::SameKey(alive);
            return self.send_again(caller, record, held.id, allowed).await;
        }
        let trace = self.ports().observer.current_trace();
        let stamp = self.stamp(caller, trace, Duration::ZERO);
        let change = decide::key_expired(&record, held.id, &stamp)?;
        self.settle(caller, &mut record, change).await?;
        Ok(Stepped::at(record))
    }
}

impl Flows {
    /// Whether the time of a first send has passed, and the only send that can have been processed is one whose process
    /// died: perhaps before it began.
    async fn may_never_have_begun(
        &self,
        record: &PaymentRecord,
        held: &Transaction,
    ) -> Result<bool, FlowError> {
        let in_time = self.ports().clock.now() < held.execute_before;
        if in_time || held.kind == TransactionKind::Void {
            return Ok(false);
        }
        let (payment, store) = (record.payment.id, &self.ports().store);
        let last = store.attempt(payment, held.id, held.attempts).await;
        let ended = last.map_err(read_error)?.and_then(|attempt| attempt.ended);
        if ended.and_then(|end| end.cause) != Some(Cause::SenderLost) {
            return Ok(false);
        }
        let in_doubt = store.attempts_in_doubt(payment, held.id).await;
        Ok(in_doubt.map_err(read_error)? == 1)
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
