//! Asking the provider about a transaction, and going on with what it says.

use std::time::Duration;

use crate::context::Caller;
use crate::decide::{self, KeyAlive, MaySend, ProvedUnsent, Quiet};
use crate::error::FlowError;
use crate::ids::TransactionId;
use crate::journal::Stamp;
use crate::payment::PaymentRecord;
use crate::ports::{Commit, LookupQuery};
use crate::retry::WaitFor;
use crate::transaction::{
    AttemptOutcome, Fact, FactKind, LookupOutcome, Transaction, TransactionKind, TransactionState,
};

use super::execute::Start;
use super::recover::Stepped;
use super::{Flows, accept_error, read_error};

impl Flows {
    /// Asks the provider about it, and applies what it says.
    pub(super) async fn look_up(
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
                    let decide = |record: &PaymentRecord, stamp: &Stamp<'_>| {
                        decide::refuted_by_lookup(record, id, quiet, stamp)
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
                    match ProvedUnsent::by_lookup(quiet, &record, held) {
                        Some(proof) => self.unsent(caller, record, held, proof).await,
                        // It had it: nothing is sent again because a lookup misses it.
                        None => Ok(Stepped::at(record)),
                    }
                }
                // Nor because one misses it that proves nothing: an account that never had it may be asked by now.
                Some(_) if decide::is_named(&record, held) => Ok(Stepped::at(record)),
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
            let proof = ProvedUnsent::by_waiting(quiet);
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
            let allowed = MaySend::Unsent(ProvedUnsent::by_waiting(quiet));
            return self.send_again(caller, record, id, allowed).await;
        }
        let decide = |record: &PaymentRecord, stamp: &Stamp<'_>| {
            let sent = record.transaction(id).map(|row| row.attempts);
            if still_asked && sent != Some(held.attempts) {
                // The customer came back after the provider was asked: what it waited for then says nothing of that.
                return Ok(None);
            }
            decide::fact(record, id, fact, stamp)
        };
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
        match self.abandon(caller, &mut record, id).await? {
            Start::Attempt(void) => {
                let record = self.carry_on(caller, record, *void).await?;
                Ok(Stepped::at(record))
            }
            Start::NotDue => self.go_on_with_void(caller, record).await,
            Start::Busy => Ok(Stepped::busy(record)),
        }
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
    ) -> Result<Start, FlowError> {
        let provider = self.provider_of(record, id)?;
        let decided = |record: &PaymentRecord| {
            let trace = self.ports().observer.current_trace();
            let stamp = self.stamp(caller, trace, provider.send_timeout());
            decide::abandon(record, id, provider.as_ref(), &stamp)
        };
        if decided(record)?.is_none() {
            return Ok(Start::NotDue);
        }
        let Ok(place) = provider.place().await else {
            return Ok(Start::Busy);
        };
        // Its lease counts from now, whatever was waited.
        let Some(change) = decided(record)? else {
            return Ok(Start::NotDue);
        };
        match self.commit(&change).await {
            Ok(Commit::Committed) => {
                *record = change.apply_to(Some(record.clone()));
                Ok(Start::by(&change, place))
            }
            // Someone else is at it, the customer perhaps: it is taken up once more.
            Ok(Commit::VersionConflict | Commit::IdempotencyKeyTaken) => Ok(Start::Busy),
            Err(error) => Err(accept_error(error)),
        }
    }

    /// Sends the void that waited for what was found.
    pub(super) async fn go_on_with_void(
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
            if self.provider_of(&record, held.id)?.lookup_asks() {
                // What it holds may be found later than at once: it is asked for as long as about any other.
                return Ok(Stepped::without_news(record));
            }
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

    /// Whether the time of a first send has passed, and none has certainly begun: of what may have been processed, each
    /// process died, perhaps before it sent.
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
        let Some(last) = last.map_err(read_error)? else {
            return Ok(false);
        };
        let of = (held.id, last.operation);
        Ok(!self.has_begun(record, of).await?)
    }
}
