//! The small ports: time, tasks, ids and telemetry.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, SubsecRound as _, Utc};
use quittance_domain::change::{CommandKind, OperatorActionKind};
use quittance_domain::context::TraceIds;
use quittance_domain::decline::Cause;
use quittance_domain::ids::{ProviderAccount, TenantId};
use quittance_domain::money::Money;
use quittance_domain::payment::PaymentMethodType;
use quittance_domain::ports::{
    Clock, Observer, Provider, Providers, Randomness, Saturated, Spawn, Task,
};
use quittance_domain::transaction::OperationKind;
use quittance_providers::{NotSent, Unknown};
use quittance_store::DatabaseClock;
use quittance_telemetry::{self as telemetry, Metrics};
use rand::RngCore as _;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};
use uuid::timestamp::context::ContextV7;
use uuid::{Timestamp, Uuid};

use crate::layers::domain_ids;

/// Digits after the second that are kept: PostgreSQL's `timestamptz` has microseconds.
const SUBSECOND_DIGITS: u16 = 6;
/// The cause of an outcome that has none.
const NO_CAUSE: &str = "none";

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now().trunc_subsecs(SUBSECOND_DIGITS)
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// The database's clock: every replica has the same time, whatever its own machine's clock says.
#[derive(Debug, Clone)]
pub struct DatabaseTime(DatabaseClock);

impl DatabaseTime {
    /// Time as `clock` tells it.
    pub fn new(clock: DatabaseClock) -> Self {
        Self(clock)
    }
}

#[async_trait]
impl Clock for DatabaseTime {
    fn now(&self) -> DateTime<Utc> {
        self.0.now()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Tasks that outlive their caller: counted, so that shutdown waits for them, and limited, because each
/// holds a payment in memory for as long as its provider takes to answer (I12).
#[derive(Debug, Clone)]
pub struct TrackedSpawn {
    tracker: TaskTracker,
    places: Arc<Semaphore>,
}

impl TrackedSpawn {
    /// Spawns into `tracker`, at most `max` tasks at once; more than [`Semaphore::MAX_PERMITS`] count as that.
    pub fn new(tracker: TaskTracker, max: usize) -> Self {
        Self {
            tracker,
            places: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
        }
    }
}

impl Spawn for TrackedSpawn {
    fn spawn(&self, task: Task) -> Result<(), Saturated> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| Saturated)?;
        let task = async move {
            task.await;
            // Held to the end, also if the task panics.
            drop(place);
        };
        drop(self.tracker.spawn(task.instrument(Span::current())));
        Ok(())
    }
}

/// No provider accounts: for commands that write audit entries and handle no payment.
#[derive(Debug, Clone, Copy)]
pub struct NoProviders;

impl Providers for NoProviders {
    fn account(&self, _: &ProviderAccount) -> Option<Arc<dyn Provider>> {
        None
    }

    fn serves(&self, _: &TenantId, _: &ProviderAccount) -> bool {
        false
    }

    fn names(&self) -> Vec<ProviderAccount> {
        Vec::new()
    }

    fn route(&self, _: &TenantId, _: Money, _: PaymentMethodType) -> Vec<ProviderAccount> {
        Vec::new()
    }
}

/// Ids and salts from generators that the operating system seeds.
#[derive(Debug)]
pub struct OsRandomness {
    sequence: Mutex<ContextV7>,
}

impl Default for OsRandomness {
    fn default() -> Self {
        Self {
            sequence: Mutex::new(ContextV7::new()),
        }
    }
}

impl Randomness for OsRandomness {
    fn uuid_v7(&self, now: DateTime<Utc>) -> Uuid {
        let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
        let timestamp = Timestamp::from_unix(&self.sequence, seconds, now.timestamp_subsec_nanos());
        Uuid::new_v7(timestamp)
    }

    fn salt(&self) -> [u8; 16] {
        let mut salt = [0; 16];
        // A ChaCha generator, seeded and reseeded by the operating system.
        rand::rng().fill_bytes(&mut salt);
        salt
    }
}

/// Telemetry, as the domain needs it.
#[derive(Debug, Clone)]
pub struct TelemetryObserver(Metrics);

impl TelemetryObserver {
    /// Records into `metrics`.
    pub fn new(metrics: Metrics) -> Self {
        Self(metrics)
    }
}

impl Observer for TelemetryObserver {
    fn current_trace(&self) -> TraceIds {
        domain_ids(telemetry::current_ids())
    }

    fn attempt_ended(
        &self,
        account: &ProviderAccount,
        operation: OperationKind,
        outcome: &'static str,
        cause: Option<Cause>,
        seconds: f64,
    ) {
        let cause = cause.map_or(NO_CAUSE, Cause::name);
        self.0
            .attempt(account.as_str(), operation.name(), outcome, cause, seconds);
    }

    fn retried(&self, account: &ProviderAccount, operation: OperationKind, how: &'static str) {
        self.0.retry(account.as_str(), operation.name(), how);
    }

    fn changed(&self, account: &ProviderAccount, event_type: &str, cause: Option<&str>) {
        let cause = cause.unwrap_or(NO_CAUSE);
        self.0.event(account.as_str(), event_type, cause);
    }

    fn case_opened(&self, account: &ProviderAccount, kind: OperatorActionKind) {
        self.0.case_opened(account.as_str(), kind.name());
        match kind {
            OperatorActionKind::RecoveryExhausted => self.0.recovery_exhausted(account.as_str()),
            OperatorActionKind::AmountMismatch
            | OperatorActionKind::ContradictingFact
            | OperatorActionKind::ExcessAmount => {}
        }
    }

    fn replayed(&self, command: CommandKind) {
        self.0.idempotency_replay(rpc_of(command));
    }
}

/// The RPC that gives a command.
pub const fn rpc_of(command: CommandKind) -> &'static str {
    match command {
        CommandKind::Create => "quittance.v1.PaymentService/CreatePayment",
        CommandKind::Confirm => "quittance.v1.PaymentService/ConfirmPayment",
        CommandKind::Capture => "quittance.v1.PaymentService/CapturePayment",
        CommandKind::Void => "quittance.v1.PaymentService/VoidPayment",
        CommandKind::Refund => "quittance.v1.PaymentService/RefundPayment",
    }
}

/// The RPCs that take an idempotency key.
pub fn idempotent_rpcs() -> Vec<&'static str> {
    CommandKind::ALL
        .iter()
        .map(|command| rpc_of(*command))
        .collect()
}

/// What a provider can be asked for.
pub fn operations() -> Vec<&'static str> {
    OperationKind::ALL
        .iter()
        .map(|operation| operation.name())
        .collect()
}

/// Ways in which a transaction is taken up again, as the flows name them.
pub const RETRIES: [&str; 3] = ["resend", "lookup", "failover"];

/// Kinds of cases for a person.
pub fn cases() -> Vec<&'static str> {
    let kinds = OperatorActionKind::ALL.iter();
    kinds.map(|kind| kind.name()).collect()
}

const UNKNOWN: [Unknown; 6] = [
    Unknown::ResponseTimeout,
    Unknown::ConnectionLost,
    Unknown::ProviderError,
    Unknown::UnreadableResponse,
    Unknown::ResponseTooLarge,
    Unknown::RequestInProgress,
];

/// How a call to a provider can end, with the causes that it can have.
pub fn outcomes() -> Vec<(&'static str, &'static str)> {
    let not_sent = NotSent::ALL
        .iter()
        .map(|cause| ("not_sent", cause.cause().name()));
    let unknown = UNKNOWN
        .iter()
        .map(|cause| ("unknown", cause.cause().name()));
    std::iter::once(("answered", NO_CAUSE))
        .chain(not_sent)
        .chain(unknown)
        .collect()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn ids_rise_even_when_the_clock_goes_back() {
        let random = OsRandomness::default();
        let mut now = SystemClock.now();
        let mut last = random.uuid_v7(now);
        assert_eq!(last.get_version_num(), 7);
        for step in 0..10_000 {
            now += TimeDelta::microseconds(if step % 3 == 0 { -1_500 } else { 700 });
            let next = random.uuid_v7(now);
            assert!(next > last);
            last = next;
        }
    }

    #[tokio::test]
    async fn i12_tasks_beyond_the_limit_are_refused_until_one_ends() {
        let tracker = TaskTracker::new();
        let spawn = TrackedSpawn::new(tracker.clone(), 2);
        let go = Arc::new(Semaphore::new(0));
        let waiting = || -> Task {
            let go = Arc::clone(&go);
            Box::pin(async move { drop(go.acquire().await) })
        };
        assert_eq!(spawn.spawn(waiting()), Ok(()));
        assert_eq!(spawn.spawn(Box::pin(async { panic!("a defect") })), Ok(()));
        assert_eq!(spawn.spawn(waiting()), Err(Saturated));
        let soon = |wanted: usize| {
            let places = Arc::clone(&spawn.places);
            async move {
                let wanted = u32::try_from(wanted).unwrap();
                let places = places.acquire_many_owned(wanted);
                let places = tokio::time::timeout(Duration::from_secs(60), places).await;
                drop(places.unwrap().unwrap());
            }
        };
        // The task that panicked gives its place back.
        soon(1).await;
        assert_eq!(spawn.spawn(waiting()), Ok(()));
        assert_eq!(spawn.spawn(waiting()), Err(Saturated));
        go.add_permits(1);
        soon(2).await;
        tracker.close();
        tracker.wait().await;
    }

    #[test]
    fn the_clock_has_whole_microseconds() {
        assert_eq!(SystemClock.now().timestamp_subsec_nanos() % 1_000, 0);
    }

    #[test]
    fn every_command_is_an_rpc() {
        for command in CommandKind::ALL {
            let rpc = rpc_of(*command);
            assert!(
                crate::auth::permissions::RPCS
                    .iter()
                    .any(|known| known.method == rpc)
            );
            assert!(rpc.ends_with(command.name()));
        }
    }
}
