//! The small ports: time, tasks, ids and telemetry.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, SubsecRound as _, Utc};
use quittance_domain::change::CommandKind;
use quittance_domain::context::TraceIds;
use quittance_domain::decline::Cause;
use quittance_domain::ids::ProviderAccount;
use quittance_domain::ports::{Clock, Observer, Randomness, Spawn, Task};
use quittance_domain::transaction::OperationKind;
use quittance_providers::{NotSent, Unknown};
use quittance_telemetry::{self as telemetry, Metrics};
use rand::RngCore as _;
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

/// Tasks that outlive their caller: counted, so that shutdown waits for them.
#[derive(Debug, Clone)]
pub struct TrackedSpawn(TaskTracker);

impl TrackedSpawn {
    /// Spawns into `tracker`.
    pub fn new(tracker: TaskTracker) -> Self {
        Self(tracker)
    }
}

impl Spawn for TrackedSpawn {
    fn spawn(&self, task: Task) {
        drop(self.0.spawn(task.instrument(Span::current())));
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

const NOT_SENT: [NotSent; 7] = [
    NotSent::ConnectionRefused,
    NotSent::ConnectTimeout,
    NotSent::NameResolution,
    NotSent::TlsHandshake,
    NotSent::CredentialsRefused,
    NotSent::RateLimited,
    NotSent::RequestRefused,
];

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
    let not_sent = NOT_SENT
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
