//! The ports: what the flows need from the world, as traits. The domain names no runtime, database or wire.

mod provider;
mod store;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use thiserror::Error;
use uuid::Uuid;

use crate::change::OperatorActionKind;
use crate::context::TraceIds;
use crate::decline::Cause;
use crate::ids::ProviderAccount;
use crate::transaction::OperationKind;

pub use provider::{
    Capabilities, Circuit, LookupQuery, Operation, Place, Provider, ProviderRules, Providers,
    Unpreparable, VoidBefore,
};
pub use store::{
    Accounts, Authenticity, Backlog, CaseFilter, Claim, Commit, Due, DueKind, EntryFilter,
    FailureReport, FailureSummary, InDoubt, Named, PaymentFilter, PaymentPage, SentThrough, Store,
    StoreError, StoredCase, StoredEntry,
};

/// Time, as the flows see it.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// Now, UTC, in whole microseconds.
    fn now(&self) -> DateTime<Utc>;

    /// Waits.
    async fn sleep(&self, duration: Duration);
}

/// A future that outlives its caller.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// As many tasks or calls run as are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("as many run as are allowed")]
pub struct Saturated;

/// Starts tasks that outlive the caller's cancellation or deadline, in the current trace.
pub trait Spawn: Send + Sync + 'static {
    /// Starts one, unless as many as are allowed run already.
    fn spawn(&self, task: Task) -> Result<(), Saturated>;
}

/// Ids and salts.
pub trait Randomness: Send + Sync + 'static {
    /// A `UUIDv7` for this time, larger than those made before it in this process.
    fn uuid_v7(&self, now: DateTime<Utc>) -> Uuid;

    /// 128 random bits.
    fn salt(&self) -> [u8; 16];
}

/// Telemetry, as the flows need it.
pub trait Observer: Send + Sync + 'static {
    /// The ids of the current span.
    fn current_trace(&self) -> TraceIds;

    /// An attempt ended.
    fn attempt_ended(
        &self,
        account: &ProviderAccount,
        operation: OperationKind,
        outcome: &'static str,
        cause: Option<Cause>,
        seconds: f64,
    );

    /// A transaction was taken up again: sent again, or looked up.
    fn retried(&self, account: &ProviderAccount, operation: OperationKind, how: &'static str);

    /// A change of a payment was committed: what happened, as its entry says, and why it did not succeed, where it did not.
    fn changed(&self, account: &ProviderAccount, event_type: &str, cause: Option<&str>);

    /// A case was opened for a person.
    fn case_opened(&self, account: &ProviderAccount, kind: OperatorActionKind);

    /// A command was answered from an earlier one.
    fn replayed(&self, command: crate::change::CommandKind);
}

/// Every port, bundled for the flows.
#[derive(Clone)]
pub struct Ports {
    /// The database.
    pub store: Arc<dyn Store>,
    /// The provider accounts.
    pub providers: Arc<dyn Providers>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Tasks.
    pub spawn: Arc<dyn Spawn>,
    /// Ids and salts.
    pub random: Arc<dyn Randomness>,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
}
