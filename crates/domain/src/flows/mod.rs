//! The flows: they execute what [`crate::decide`] decides, against the ports.
//!
//! A command takes two commits: *accepted* (before the provider is called, the attempt recorded), and *outcome*.
//! Both, and the call between them, run on a task that outlives the caller; the caller waits for it as
//! long as it cares to, and gets the payment as it stands then.

mod ask;
pub mod audit;
mod command;
mod execute;
mod inbox;
mod look_up;
mod operator;
mod outcome;
pub mod reconcile;
mod recover;
mod replay;
mod send;
mod set_aside;
mod sync;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use crate::change::Change;
use crate::command::PaymentLookup;
use crate::context::{Caller, Instance, TraceIds};
use crate::decide::DecideError;
use crate::error::FlowError;
use crate::fingerprint::FingerprintKey;
use crate::ids::{AttemptId, EntryId, PaymentId, TransactionId};
use crate::journal::Stamp;
use crate::payment::PaymentRecord;
use crate::ports::{Commit, PaymentFilter, PaymentPage, Ports, StoreError};
use crate::retry::RetryPolicy;

pub use inbox::{InboxDesk, SeenBody, SeenWebhook};
pub use recover::Recovered;
pub use webhook::{Hearing, Told};

/// Settings of the flows.
#[derive(Debug, Clone)]
pub struct FlowSettings {
    /// This process, as journal entries name it.
    pub instance: Instance,
    /// The key under which requests are fingerprinted; the same on every replica, forever.
    pub fingerprint_key: FingerprintKey,
    /// An answer is given this long before the caller's deadline. Default 100 ms.
    pub answer_margin: Duration,
    /// How long a caller without a deadline is made to wait for an outcome. Default 30 s.
    pub default_wait: Duration,
    /// How often a command is decided again when the payment has moved meanwhile. Default 8.
    pub max_decisions: u32,
    /// How long an outcome is offered to a database that is out of reach, before it is left to recovery.
    /// Default 30 s.
    pub outcome_patience: Duration,
    /// How long beyond its provider's timeout a sender is taken to be alive. Two thirds are for the difference
    /// of two replicas' clocks (each within 5 s of the database's, or it does not start), one third for the
    /// commit before the send: a send that would begin later is left to recovery. Default 15 s.
    pub lease_margin: Duration,
    /// When what has no outcome is taken up again, and when a person is asked.
    pub retries: RetryPolicy,
}

/// A payment as it stands, in answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The payment.
    pub record: PaymentRecord,
    /// The transaction that the command made or advanced.
    pub transaction: TransactionId,
    /// Whether the command had been answered before, under the same key.
    pub replayed: bool,
}

/// The payment flows. Cheap to clone.
#[derive(Clone)]
pub struct Flows {
    inner: Arc<Inner>,
}

struct Inner {
    ports: Ports,
    settings: FlowSettings,
}

impl std::fmt::Debug for Flows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flows")
            .field("settings", &self.inner.settings)
            .finish_non_exhaustive()
    }
}

impl Flows {
    /// Flows on these ports.
    pub fn new(ports: Ports, settings: FlowSettings) -> Self {
        Self {
            inner: Arc::new(Inner { ports, settings }),
        }
    }

    fn ports(&self) -> &Ports {
        &self.inner.ports
    }

    fn settings(&self) -> &FlowSettings {
        &self.inner.settings
    }

    /// Reads a payment by its id, or by the idempotency key of any of its commands. Not to find the key says nothing of an
    /// acceptance whose commit still hangs ([`FlowError::NothingUnderKey`]).
    pub async fn get(
        &self,
        caller: &Caller,
        lookup: PaymentLookup,
    ) -> Result<PaymentRecord, FlowError> {
        let id = match lookup {
            PaymentLookup::Id(id) => id,
            PaymentLookup::IdempotencyKey(key) => {
                let found = self
                    .ports()
                    .store
                    .idempotency_record(&caller.tenant, &key)
                    .await;
                found
                    .map_err(read_error)?
                    .ok_or(FlowError::NothingUnderKey)?
                    .payment
            }
        };
        self.read(caller, id).await
    }

    /// Lists payments, newest first.
    pub async fn list(
        &self,
        caller: &Caller,
        filter: &PaymentFilter,
        after: Option<PaymentId>,
        limit: usize,
    ) -> Result<PaymentPage, FlowError> {
        let store = &self.ports().store;
        store
            .list_payments(&caller.tenant, filter, after, limit)
            .await
            .map_err(read_error)
    }

    /// Reads a payment of the caller's tenant; another's is not found (I11).
    async fn read(&self, caller: &Caller, id: PaymentId) -> Result<PaymentRecord, FlowError> {
        let found = self.ports().store.payment(&caller.tenant, id).await;
        found.map_err(read_error)?.ok_or(FlowError::PaymentNotFound)
    }

    /// Commits a change; tells of it, and of the case that it opens.
    async fn commit(&self, change: &Change) -> Result<Commit, StoreError> {
        let committed = self.ports().store.commit(change.clone()).await?;
        if committed != Commit::Committed {
            return Ok(committed);
        }
        let (account, observer) = (&change.payment.provider_account, &self.ports().observer);
        let entry = &change.entry;
        observer.changed(account, &entry.event_type, entry.cause.as_deref());
        if let Some(action) = change.operator_action {
            observer.case_opened(account, action.kind);
            tracing::warn!(
                payment.id = %change.payment.id,
                transaction.id = %action.transaction,
                case.kind = %action.kind,
                "a person has to look at a payment"
            );
        }
        Ok(committed)
    }

    /// Fresh ids, salts and the time, for one decision.
    fn stamp<'a>(
        &'a self,
        caller: &'a Caller,
        trace: TraceIds,
        send_timeout: Duration,
    ) -> Stamp<'a> {
        let random = &self.ports().random;
        let now = self.ports().clock.now();
        let lease = send_timeout + self.settings().lease_margin;
        let jitter = random
            .salt()
            .first_chunk()
            .copied()
            .map_or(0, u64::from_be_bytes);
        Stamp {
            now,
            entry_id: EntryId(random.uuid_v7(now)),
            transaction_id: TransactionId(random.uuid_v7(now)),
            attempt_id: AttemptId(random.uuid_v7(now)),
            leaf_salt: random.salt(),
            digest_salt: random.salt(),
            sender_lease: chrono::TimeDelta::from_std(lease).unwrap_or(chrono::TimeDelta::MAX),
            jitter,
            retries: &self.settings().retries,
            caller,
            trace,
            instance: &self.settings().instance,
        }
    }
}

/// What a store's error means that was met while reading: nothing was accepted.
#[allow(clippy::needless_pass_by_value)] // fits `map_err`
pub fn read_error(error: StoreError) -> FlowError {
    match error {
        StoreError::Unavailable | StoreError::CommitUnknown => FlowError::DatabaseUnavailable,
        StoreError::Overloaded => FlowError::Overloaded {
            retry_after: OVERLOAD_RETRY_AFTER,
        },
        StoreError::Refused(_) | StoreError::Corrupt(_) => FlowError::Internal(error.to_string()),
    }
}

/// What a store's error means that was met while accepting: it may be accepted if the commit is unknown (I13).
pub fn accept_error(error: StoreError) -> FlowError {
    match error {
        StoreError::CommitUnknown => FlowError::AcceptanceUnknown,
        StoreError::Unavailable
        | StoreError::Overloaded
        | StoreError::Refused(_)
        | StoreError::Corrupt(_) => read_error(error),
    }
}

/// What callers are told to wait when a queue is full.
const OVERLOAD_RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<DecideError> for FlowError {
    fn from(error: DecideError) -> Self {
        match error {
            DecideError::Rejected(rejection) => Self::Rejected(rejection),
            DecideError::Journal(_) | DecideError::NoTransaction(_) => {
                Self::Internal(error.to_string())
            }
        }
    }
}
