//! The ports that are not the store's or the provider's: time, ids and telemetry.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use quittance_domain::change::{CommandKind, OperatorActionKind};
use quittance_domain::context::TraceIds;
use quittance_domain::decline::Cause;
use quittance_domain::ids::ProviderAccount;
use quittance_domain::ports::{Clock, Observer, Randomness};
use quittance_domain::transaction::OperationKind;
use uuid::Uuid;

use crate::executor::Executor;

/// A replica's idea of the database's clock.
pub(super) struct SkewedClock {
    pub executor: Executor,
    pub skew: TimeDelta,
}

#[async_trait]
impl Clock for SkewedClock {
    fn now(&self) -> DateTime<Utc> {
        self.executor.now() + self.skew
    }

    async fn sleep(&self, duration: Duration) {
        self.executor.wait(duration).await;
    }
}

/// Ids and salts from the seed.
pub struct Dice(pub Executor);

impl Randomness for Dice {
    fn uuid_v7(&self, now: DateTime<Utc>) -> Uuid {
        let millis = u128::try_from(now.timestamp_millis()).unwrap_or(0);
        let random = self.0.bits() & 0x0fff_3fff_ffff_ffff_ffff;
        Uuid::from_u128(millis << 80 | 0x7000_8000_0000_0000_0000 | random)
    }

    fn salt(&self) -> [u8; 16] {
        self.0.bits().to_be_bytes()
    }
}

/// Telemetry that nobody reads.
pub struct Nobody;

impl Observer for Nobody {
    fn current_trace(&self) -> TraceIds {
        TraceIds::default()
    }

    fn attempt_ended(
        &self,
        _account: &ProviderAccount,
        _operation: OperationKind,
        _outcome: &'static str,
        _cause: Option<Cause>,
        _seconds: f64,
    ) {
    }

    fn retried(&self, _account: &ProviderAccount, _operation: OperationKind, _how: &'static str) {}

    fn changed(&self, _account: &ProviderAccount, _event_type: &str, _cause: Option<&str>) {}

    fn case_opened(&self, _account: &ProviderAccount, _kind: OperatorActionKind) {}

    fn replayed(&self, _command: CommandKind) {}
}
