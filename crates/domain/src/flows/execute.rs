//! Executing decisions: commit, call the provider, commit what it proved.

use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use futures::future::{Either, select};
use futures::{FutureExt, StreamExt};
use tracing::Instrument;

use crate::change::{Change, Write};
use crate::context::Caller;
use crate::decide::{self, DecideError, MaySend, ProvedUnsent};
use crate::error::{FlowError, Rejection};
use crate::ids::{ProviderAccount, TransactionId};
use crate::payment::PaymentRecord;
use crate::ports::{Circuit, Commit, Place, Provider, ProviderRules, Saturated};
use crate::transaction::{Attempt, PreparedRequest, TransactionKind, TransactionState};

use super::{Answer, Flows, OVERLOAD_RETRY_AFTER, accept_error, read_error};

/// What a running command has reached.
pub(super) enum Progress {
    /// Accepted; the provider is being called.
    Accepted(Answer),
    /// Over.
    Done(Result<Answer, FlowError>),
}

/// Where a running command reports to. Sending never blocks, and nobody need listen.
pub(super) type Report = mpsc::UnboundedSender<Progress>;

impl Flows {
    /// Runs a command on a task of its own and waits for it: to its end, or until the caller's deadline less a
    /// margin, when the payment is answered as it stands.
    pub(super) async fn run<F, Fut>(&self, caller: &Caller, command: F) -> Result<Answer, FlowError>
    where
        F: FnOnce(Flows, Caller, Report) -> Fut,
        Fut: Future<Output = Result<Answer, FlowError>> + Send + 'static,
    {
        let wait = self.patience(caller)?;
        // At most two messages are ever sent, so the channel is bounded by its use.
        let (report, mut progress) = mpsc::unbounded();
        let running = command(self.clone(), caller.clone(), report.clone());
        let task = async move {
            let result = running.await;
            // Nobody listens once the caller has its answer.
            let _ = report.unbounded_send(Progress::Done(result));
        };
        let started = self.ports().spawn.spawn(Box::pin(task.in_current_span()));
        started.map_err(|Saturated| FlowError::Overloaded {
            retry_after: OVERLOAD_RETRY_AFTER,
        })?;
        let mut timer = self.ports().clock.sleep(wait).fuse();
        let mut standing = None;
        loop {
            match select(progress.next(), &mut timer).await {
                Either::Left((Some(Progress::Done(result)), _)) => return result,
                Either::Left((Some(Progress::Accepted(answer)), _)) => standing = Some(answer),
                Either::Left((None, _)) => {
                    return standing.ok_or(FlowError::AcceptanceUnknown);
                }
                // The deadline: what is accepted is an answer; what is not may still be (I13).
                Either::Right(_) => return standing.ok_or(FlowError::AcceptanceUnknown),
            }
        }
    }

    /// How long before the caller stops waiting it is answered: the setting, or two hundredths of the wait where
    /// that is more, since some clients round the deadline that they send up (gRPC's C core: to 100 ms from
    /// 10 s on, to a second from 100 s on).
    pub(super) fn margin(&self, left: Duration) -> Duration {
        self.settings().answer_margin.max(left / 50)
    }

    /// How long the caller can be made to wait.
    fn patience(&self, caller: &Caller) -> Result<Duration, FlowError> {
        let Some(deadline) = caller.deadline else {
            return Ok(self.settings().default_wait);
        };
        let left = (deadline - self.ports().clock.now()).to_std();
        match left {
            Ok(left) if !left.is_zero() => Ok(left.saturating_sub(self.margin(left))),
            Ok(_) | Err(_) => Err(FlowError::DeadlineExceeded),
        }
    }

    /// Carries an accepted change to its end.
    pub(super) async fn carry_out(
        &self,
        caller: &Caller,
        record: PaymentRecord,
        accepted: &Change,
        place: Place,
    ) -> Result<PaymentRecord, FlowError> {
        match Started::by(accepted, place) {
            Some(started) => self.carry_on(caller, record, started).await,
            None => Ok(record),
        }
    }

    /// Makes a call whose attempt is committed, commits the outcome, and goes on with what that makes due: the
    /// next account where nothing was sent, or the void that waited.
    pub(super) async fn carry_on(
        &self,
        caller: &Caller,
        mut record: PaymentRecord,
        started: Started,
    ) -> Result<PaymentRecord, FlowError> {
        let mut tried = Vec::new();
        let mut next = Some(started);
        while let Some(started) = next {
            let attempt = &started.attempt;
            let provider = self.provider_of(&record, attempt.transaction)?;
            let begun = self
                .may_still_send(&record, attempt, provider.as_ref())
                .await;
            let report = if begun {
                self.send(provider.as_ref(), attempt, &started.request)
                    .await
            } else {
                self.overdue(&record, attempt)
            };
            // The place is for the call alone: the outcome's commit must not keep others from it.
            drop(started.place);
            record = self
                .commit_outcome(caller, record, attempt, &report)
                .await?;
            if !begun {
                // Not the account's fault: recovery sends it, or it has ended.
                return Ok(record);
            }
            tried.push(attempt.provider_account.clone());
            next = match self.start_waiting_void(caller, &mut record).await? {
                Some(void) => Some(void),
                None => {
                    self.fail_over(caller, &mut record, attempt.transaction, &tried)
                        .await?
                }
            };
        }
        Ok(record)
    }

    /// Starts an attempt at the next account that routing offers, where it is proved that nothing was sent.
    pub(super) async fn fail_over(
        &self,
        caller: &Caller,
        record: &mut PaymentRecord,
        id: TransactionId,
        tried: &[ProviderAccount],
    ) -> Result<Option<Started>, FlowError> {
        let Some(held) = record
            .transaction(id)
            .filter(|held| decide::may_fail_over(record, held))
        else {
            return Ok(None);
        };
        let Some(proof) = ProvedUnsent::by_sends(held) else {
            return Ok(None);
        };
        let payment = &record.payment;
        let providers = &self.ports().providers;
        let route = providers.route(&payment.tenant, payment.amount, payment.method.kind);
        let now = self.ports().clock.now();
        let mut untried = route;
        untried.retain(|name| !tried.contains(name) && !held.left_alone.holds(name, now));
        for name in untried {
            let Some(provider) = providers.account(&name) else {
                continue;
            };
            let usable = provider.livemode() == record.payment.livemode
                && provider.circuit() != Circuit::Open;
            let Some(place) = provider.reserve().ok().filter(|_| usable) else {
                continue;
            };
            self.recall_token(record).await?;
            let trace = self.ports().observer.current_trace();
            let stamp = self.stamp(caller, trace, provider.send_timeout());
            let rules: &dyn ProviderRules = provider.as_ref();
            let change = match decide::fail_over(record, id, proof, &name, rules, &stamp) {
                Ok(Some(change)) => change,
                Ok(None) => return Ok(None),
                // This account cannot take it; the next may.
                Err(DecideError::Rejected(Rejection::Unpreparable(_))) => continue,
                Err(error) => return Err(error.into()),
            };
            self.retried(record, id, "failover");
            return match self.commit(&change).await {
                Ok(Commit::Committed) => {
                    *record = change.apply_to(Some(record.clone()));
                    Ok(Started::by(&change, place))
                }
                Ok(Commit::VersionConflict | Commit::IdempotencyKeyTaken) => Ok(None),
                Err(error) => Err(accept_error(error)),
            };
        }
        Ok(None)
    }

    /// Reads the provider's token of the payment's method, which reading the payment leaves out.
    async fn recall_token(&self, record: &mut PaymentRecord) -> Result<(), FlowError> {
        if record.payment.method.token.is_none() {
            let token = self.ports().store.method_token(record.payment.id).await;
            record.payment.method.token = token.map_err(read_error)?;
        }
        Ok(())
    }

    /// Tells telemetry that a transaction is taken up again.
    pub(super) fn retried(&self, record: &PaymentRecord, id: TransactionId, how: &'static str) {
        let held = record.transaction(id);
        if let Some((held, operation)) =
            held.and_then(|held| Some((held, decide::next_operation(record, held)?)))
        {
            let account = &held.provider_account;
            self.ports().observer.retried(account, operation, how);
        }
    }

    /// Starts the void that was accepted while the payment was pending, once there is something to release.
    pub(super) async fn start_waiting_void(
        &self,
        caller: &Caller,
        record: &mut PaymentRecord,
    ) -> Result<Option<Started>, FlowError> {
        let mut all = record.transactions.iter();
        let Some(void) = all.find(|transaction| {
            transaction.kind == TransactionKind::Void
                && transaction.state == TransactionState::Pending
                && transaction.attempts == 0
        }) else {
            return Ok(None);
        };
        let provider = self.provider(&void.provider_account)?;
        let now = self.ports().clock.now();
        let proof = ProvedUnsent::by_sends(void)
            .filter(|_| decide::can_be_sent(record, void, provider.as_ref(), now));
        let Some((id, allowed)) = proof.map(|proof| (void.id, MaySend::Unsent(proof))) else {
            return Ok(None);
        };
        let Ok(place) = provider.reserve() else {
            // Recovery sends it.
            return Ok(None);
        };
        let started = self.start_attempt(caller, record, (id, allowed), place);
        Ok(started.await?.attempt())
    }

    /// Commits the start of an attempt of a waiting transaction.
    pub(super) async fn start_attempt(
        &self,
        caller: &Caller,
        record: &mut PaymentRecord,
        (id, allowed): (TransactionId, MaySend),
        place: Place,
    ) -> Result<Start, FlowError> {
        let provider = self.provider_of(record, id)?;
        let trace = self.ports().observer.current_trace();
        let in_doubt = self.sends_in_doubt(record, id).await?;
        let stamp = self.stamp(caller, trace, provider.send_timeout());
        let rules: &dyn ProviderRules = provider.as_ref();
        let started = decide::start_attempt(record, id, (allowed, in_doubt), rules, &stamp)?;
        let Some(change) = started else {
            return Ok(Start::NotDue);
        };
        match self.commit(&change).await {
            Ok(Commit::Committed) => {
                *record = change.apply_to(Some(record.clone()));
                Ok(Start::by(&change, place))
            }
            // Someone else is at it.
            Ok(Commit::VersionConflict | Commit::IdempotencyKeyTaken) => Ok(Start::NotDue),
            Err(error) => Err(accept_error(error)),
        }
    }

    /// The account that serves a transaction.
    pub(super) fn provider_of(
        &self,
        record: &PaymentRecord,
        id: TransactionId,
    ) -> Result<Arc<dyn Provider>, FlowError> {
        let account = record
            .transaction(id)
            .map_or(&record.payment.provider_account, |transaction| {
                &transaction.provider_account
            });
        self.ports()
            .providers
            .account(account)
            .ok_or_else(|| FlowError::UnknownProviderAccount(account.clone()))
    }
}

/// A committed attempt, with what is needed to make it.
pub(super) struct Started {
    attempt: Attempt,
    request: PreparedRequest,
    place: Place,
}

/// What became of starting an attempt.
pub(super) enum Start {
    /// It is committed.
    Attempt(Box<Started>),
    /// None is due, or someone else is at it.
    NotDue,
    /// The account is called as often as is allowed, or someone else was at it: it is still due.
    Busy,
}

impl Start {
    /// The attempt that a committed change starts.
    pub(super) fn by(change: &Change, place: Place) -> Self {
        Started::by(change, place).map_or(Self::NotDue, |started| Self::Attempt(Box::new(started)))
    }

    fn attempt(self) -> Option<Started> {
        match self {
            Self::Attempt(started) => Some(*started),
            Self::NotDue | Self::Busy => None,
        }
    }
}

impl Started {
    /// The attempt that a committed change starts; `None` where it starts none.
    pub(super) fn by(change: &Change, place: Place) -> Option<Self> {
        let Some(Write::Insert(attempt)) = &change.attempt else {
            return None;
        };
        let transaction = change
            .transactions
            .iter()
            .find(|write| write.row().id == attempt.transaction)?;
        Some(Self {
            attempt: attempt.clone(),
            request: transaction.row().request.clone()?,
            place,
        })
    }
}
