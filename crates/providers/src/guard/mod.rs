//! What stands before every account: a circuit breaker, and limits on how much it is asked at once.
//!
//! The circuit concerns this process alone: replicas find out for themselves, within a few calls.

mod breaker;
mod settings;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use quittance_domain::decline::Cause;
use quittance_domain::ids::{ProviderAccount, ProviderReference};
use quittance_domain::ports::{
    Capabilities, Circuit, LookupQuery, Named, Operation, Place, Provider, ProviderRules,
    Saturated, Unpreparable,
};
use quittance_domain::reconciliation::{SettlementPage, SettlementSource};
use quittance_domain::transaction::{
    Dispute, LookupOutcome, PreparedRequest, SendOutcome, SendReport, TransactionKind,
};
use quittance_domain::unconfirmed::Unconfirmed;
use quittance_domain::webhook::{
    Delivery, ProviderWebhooks, Unreadable, Unverified, VerifiedEvent, WebhookFact,
};
use tokio::sync::Semaphore;

use crate::outcome::NotSent;
use breaker::{Breaker, Health, Ticket};

pub use settings::{
    CircuitConfig, CircuitSettings, DEFAULT_MAX_CONCURRENT_CALLS, DEFAULT_MAX_CONCURRENT_LOOKUPS,
    GuardSettings, MAX_CONCURRENT_CALLS, MAX_CONCURRENT_LOOKUPS, MAX_HALF_OPEN_PROBES,
    MAX_JITTER_PERCENT, MAX_MAX_OPEN_MS, MAX_OPEN_GROWTH, MAX_OPEN_MS, MAX_WINDOW_CALLS,
    MIN_OPEN_MS, OutOfRange,
};

/// A clock that never goes back: the time since some moment that stays the same.
pub type Monotonic = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The machine's monotonic clock.
pub fn monotonic() -> Monotonic {
    let origin = Instant::now();
    Arc::new(move || origin.elapsed())
}

/// An account behind its circuit breaker and its limits.
///
/// - [`Provider::send`] and [`Provider::lookup`] answer [`Cause::CircuitOpen`] at once while the circuit is
///   open, with what is left of its pause as the time to wait. Nothing is written then.
/// - [`Provider::reserve`] hands out places up to the limit. `send` takes none by itself: its caller holds
///   one since before it accepted the payment. [`Provider::place`] waits for one, up to [`Provider::send_timeout`],
///   before those who only try.
/// - Lookups have a limit of their own, so that recovery after an outage is no second one. Those above it
///   wait up to [`Provider::send_timeout`], then answer [`Cause::RateLimited`]: this time it is us who
///   limit the rate.
pub struct Guarded {
    account: ProviderAccount,
    inner: Arc<dyn Provider>,
    calls: Arc<Semaphore>,
    lookups: Semaphore,
    breaker: Mutex<Breaker>,
    clock: Monotonic,
}

/// Hand-written: adapters hold credentials.
impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded")
            .field("account", &self.account)
            .field("circuit", &self.circuit())
            .finish_non_exhaustive()
    }
}

impl Guarded {
    /// Puts an account behind its guard. The clock times pauses and slow calls.
    pub fn new(
        account: ProviderAccount,
        inner: Arc<dyn Provider>,
        settings: GuardSettings,
        clock: Monotonic,
    ) -> Self {
        Self {
            account,
            inner,
            calls: Arc::new(Semaphore::new(settings.max_concurrent_calls)),
            lookups: Semaphore::new(settings.max_concurrent_lookups),
            breaker: Mutex::new(Breaker::new(settings.circuit)),
            clock,
        }
    }

    /// The account's name.
    pub fn account(&self) -> &ProviderAccount {
        &self.account
    }

    /// Whether a call would be let through now: not while the circuit is open, nor while it is half-open
    /// and enough others are trying.
    pub fn admits(&self) -> bool {
        self.on_breaker(|breaker, now| breaker.admits(now))
    }

    /// Admits a call, or says how long to wait: `None` where that is not known.
    fn begin(&self) -> Result<Call<'_>, Option<Duration>> {
        self.on_breaker(|breaker, now| match breaker.admit(now) {
            Some(ticket) => Ok((ticket, now)),
            None => Err(Some(breaker.pause_left(now)).filter(|left| !left.is_zero())),
        })
        .map(|(ticket, started)| Call {
            guarded: self,
            ticket: Some(ticket),
            started,
        })
    }

    /// Asks the provider something: as a lookup, within the limits and the circuit.
    async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, Unconfirmed>>,
    ) -> Result<T, Unconfirmed> {
        // Asked before as well as after waiting: an open circuit makes nobody wait.
        if self.admits() {
            let place = tokio::time::timeout(self.send_timeout(), self.lookups.acquire()).await;
            let Ok(Ok(_place)) = place else {
                return Err(Cause::RateLimited.into());
            };
            if let Ok(call) = self.begin() {
                let answer = question.await;
                call.ended(match &answer {
                    Ok(_) => Health::Working,
                    Err(why) => health_after(why.cause),
                });
                return answer;
            }
        }
        Err(self.shut())
    }

    /// Nobody is let through: with what is left of the circuit's pause, where it is known.
    fn shut(&self) -> Unconfirmed {
        let left = self.on_breaker(|breaker, now| breaker.pause_left(now));
        Unconfirmed {
            cause: Cause::CircuitOpen,
            retry_after: Some(left).filter(|left| !left.is_zero()),
        }
    }

    /// Every use of the breaker; tells operators when its state changed.
    fn on_breaker<T>(&self, act: impl FnOnce(&mut Breaker, Duration) -> T) -> T {
        let now = (self.clock)();
        // Each of the breaker's steps is complete in itself, so a panic elsewhere leaves it sound.
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let before = breaker.entered();
        let result = act(&mut breaker, now);
        let (after, pause) = (breaker.entered(), breaker.pause_left(now));
        drop(breaker);
        if before != after {
            self.tell(after, pause);
        }
        result
    }

    fn tell(&self, circuit: Circuit, pause: Duration) {
        let account = &self.account;
        match circuit {
            Circuit::Open => tracing::warn!(
                provider.account = %account,
                pause_seconds = pause.as_secs_f64(),
                "the circuit of a provider account has opened: it fails or is slow, and is left alone"
            ),
            Circuit::HalfOpen => tracing::info!(
                provider.account = %account,
                "the circuit of a provider account is half-open: a few calls try it"
            ),
            Circuit::Closed => tracing::info!(
                provider.account = %account,
                "the circuit of a provider account has closed: it works again"
            ),
        }
    }
}

impl ProviderRules for Guarded {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn prepare(&self, operation: &Operation<'_>) -> Result<PreparedRequest, Unpreparable> {
        self.inner.prepare(operation)
    }
}

/// Webhooks come from outside: no limit of ours is between them and their account.
impl ProviderWebhooks for Guarded {
    fn verify(&self, delivery: &Delivery<'_>) -> Result<Vec<VerifiedEvent>, Unverified> {
        self.inner.verify(delivery)
    }

    fn webhook(&self, body: &[u8]) -> Result<Vec<WebhookFact>, Unreadable> {
        self.inner.webhook(body)
    }
}

#[async_trait]
impl Provider for Guarded {
    async fn send(&self, request: &PreparedRequest, send: u32) -> SendReport {
        let call = match self.begin() {
            Ok(call) => call,
            Err(retry_after) => return not_sent(retry_after),
        };
        let report = self.inner.send(request, send).await;
        call.ended(health_after_send(&report));
        report
    }

    async fn lookup(&self, query: &LookupQuery) -> LookupOutcome {
        // As in `ask`.
        if self.admits() {
            if !self.inner.lookup_asks() {
                // No call: counted as one that worked, it would hide those that fail, and close a circuit.
                return self.inner.lookup(query).await;
            }
            let place = tokio::time::timeout(self.send_timeout(), self.lookups.acquire()).await;
            let Ok(Ok(_place)) = place else {
                return unavailable(Cause::RateLimited, None);
            };
            if let Ok(call) = self.begin() {
                let outcome = self.inner.lookup(query).await;
                call.ended(health_after_lookup(&outcome));
                return outcome;
            }
        }
        let Unconfirmed { cause, retry_after } = self.shut();
        unavailable(cause, retry_after)
    }

    fn lookup_asks(&self) -> bool {
        self.inner.lookup_asks()
    }

    async fn dispute(&self, query: &LookupQuery) -> Result<Option<Dispute>, Unconfirmed> {
        self.ask(self.inner.dispute(query)).await
    }

    async fn payment_named(&self, reference: &ProviderReference) -> Result<Named, Unconfirmed> {
        self.ask(self.inner.payment_named(reference)).await
    }

    async fn operations(
        &self,
        kind: TransactionKind,
        payment: &ProviderReference,
    ) -> Result<Vec<WebhookFact>, Unconfirmed> {
        self.ask(self.inner.operations(kind, payment)).await
    }

    fn settlements(&self) -> Option<SettlementSource> {
        self.inner.settlements()
    }

    async fn settlement_page(&self, after: u64) -> Result<SettlementPage, Cause> {
        let question = async { Ok(self.inner.settlement_page(after).await?) };
        self.ask(question).await.map_err(|why| why.cause)
    }

    fn send_timeout(&self) -> Duration {
        self.inner.send_timeout()
    }

    fn livemode(&self) -> bool {
        self.inner.livemode()
    }

    fn reserve(&self) -> Result<Place, Saturated> {
        let permit = Arc::clone(&self.calls).try_acquire_owned();
        permit.map(Place::holding).map_err(|_| Saturated)
    }

    async fn place(&self) -> Result<Place, Saturated> {
        let acquired = Arc::clone(&self.calls).acquire_owned();
        match tokio::time::timeout(self.send_timeout(), acquired).await {
            Ok(Ok(permit)) => Ok(Place::holding(permit)),
            Ok(Err(_)) | Err(_) => Err(Saturated),
        }
    }

    fn circuit(&self) -> Circuit {
        self.on_breaker(|breaker, now| breaker.circuit(now))
    }
}

/// One admitted call. Dropped before its end, it says nothing about the account, and gives its place
/// among the probes back.
struct Call<'a> {
    guarded: &'a Guarded,
    ticket: Option<Ticket>,
    started: Duration,
}

impl Call<'_> {
    fn ended(mut self, health: Health) {
        self.finish(health);
    }

    fn finish(&mut self, health: Health) {
        if let Some(ticket) = self.ticket.take() {
            let (started, chance) = (self.started, rand::random());
            self.guarded.on_breaker(|breaker, now| {
                let took = now.saturating_sub(started);
                breaker.finish(ticket, health, took, now, chance);
            });
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.finish(Health::Unclear);
    }
}

fn not_sent(retry_after: Option<Duration>) -> SendReport {
    SendReport {
        outcome: NotSent::CircuitOpen.into(),
        latency_micros: 0,
        http_status: None,
        response: None,
        retry_after,
    }
}

fn unavailable(cause: Cause, retry_after: Option<Duration>) -> LookupOutcome {
    LookupOutcome::Unavailable { cause, retry_after }
}

fn health_after_send(report: &SendReport) -> Health {
    match &report.outcome {
        SendOutcome::Answered(_) => Health::Working,
        // Refused by our own adapter, which could not read the stored request: nobody was asked.
        SendOutcome::NotSent(Cause::RequestRefused) if report.http_status.is_none() => {
            Health::Unclear
        }
        SendOutcome::NotSent(cause) | SendOutcome::Unknown(cause) => health_after(*cause),
    }
}

fn health_after_lookup(outcome: &LookupOutcome) -> Health {
    match outcome {
        LookupOutcome::Found(_) | LookupOutcome::NotFound { .. } => Health::Working,
        LookupOutcome::Unavailable { cause, .. } => health_after(*cause),
    }
}

/// What a cause tells about the account. A refusal of what was asked is the request's fault.
fn health_after(cause: Cause) -> Health {
    match cause {
        Cause::ConnectionRefused
        | Cause::ConnectTimeout
        | Cause::NameResolution
        | Cause::TlsHandshake
        | Cause::CredentialsRefused
        | Cause::ResponseTimeout
        | Cause::ConnectionLost
        | Cause::ProviderError
        | Cause::UnreadableResponse
        | Cause::ResponseTooLarge => Health::Failing,
        Cause::RequestRefused
        | Cause::AmountMismatch
        | Cause::NotProcessed
        | Cause::ProviderReportedFailure
        | Cause::AlreadyCaptured
        | Cause::Voided
        | Cause::Expired
        | Cause::NothingToVoid => Health::Working,
        // 429 and 409 come from a provider that is there, but do not show that it does its work: they
        // neither open a circuit nor close one. The rest are no answers of a provider.
        Cause::RateLimited
        | Cause::RequestInProgress
        | Cause::CircuitOpen
        | Cause::NotSentInTime
        | Cause::SendOverdue
        | Cause::SenderLost
        | Cause::ResolvedByOperator => Health::Unclear,
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
