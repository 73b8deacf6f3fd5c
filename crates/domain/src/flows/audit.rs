//! The audit log as callers read it; reading it is itself logged (R18).

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::lock::Mutex;
use quittance_evidence::{Cause, EntryResult, Hash, StreamId};
use thiserror::Error;
use uuid::Uuid;

use crate::change::JournalEntry;
use crate::context::{Caller, Instance};
use crate::error::FlowError;
use crate::ids::{AttemptId, EntryId, PaymentId, TenantId, TransactionId};
use crate::journal::{Stamp, blank};
use crate::ports::{Commit, EntryFilter, Ports, StoreError, StoredEntry};
use crate::reconciliation::StreamHead;
use crate::retry::RetryPolicy;

use super::{accept_error, read_error};

/// Name of the streams that hold accesses to the audit log.
const ACCESS_STREAM: &str = "audit-access";
/// Most tenants whose access streams are kept open by one process; the streams of others are opened anew.
const MAX_OPEN_STREAMS: usize = 10_000;

/// What is recorded about an access.
#[derive(Debug, Clone)]
pub struct AuditEvent {
    /// What happened, such as `audit.entries_listed`.
    pub event_type: &'static str,
    /// The payment asked for, where one was.
    pub payment: Option<PaymentId>,
    /// Why it was refused, as an error reason; `None` for what was done.
    pub refused: Option<&'static str>,
    /// The filters and other facts, by name; names are 1 to 64 of `a-z 0-9 _ . -`.
    pub details: BTreeMap<String, String>,
}

impl AuditEvent {
    /// Something that was done, and concerns no payment.
    pub const fn done(event_type: &'static str, details: BTreeMap<String, String>) -> Self {
        Self {
            event_type,
            payment: None,
            refused: None,
            details,
        }
    }
}

/// Why something was neither done nor recorded.
#[derive(Debug, Error)]
pub enum RecordError {
    /// No entry could be made of it.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// The store refused, or could not be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The next entry of an open stream.
#[derive(Clone, Copy)]
struct Head {
    stream: Uuid,
    entity_seq: u64,
    leaf_hash: Option<[u8; 32]>,
}

/// Reads of the audit log. Cheap to clone.
///
/// Each process writes its own stream of accesses for each tenant, opened with the first one: streams need no
/// coordination between replicas, and no tenant's stream tells of another (I11).
#[derive(Clone)]
pub struct AuditLog {
    inner: Arc<Inner>,
}

struct Inner {
    ports: Ports,
    instance: Instance,
    streams: Mutex<HashMap<TenantId, Arc<Mutex<Option<Head>>>>>,
}

impl std::fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditLog")
            .field("instance", &self.inner.instance)
            .finish_non_exhaustive()
    }
}

impl AuditLog {
    /// The log behind these ports.
    pub fn new(ports: Ports, instance: Instance) -> Self {
        Self {
            inner: Arc::new(Inner {
                ports,
                instance,
                streams: Mutex::default(),
            }),
        }
    }

    /// Records an access. Whoever reads must have recorded it first: if this fails, the read fails.
    pub async fn record(&self, caller: &Caller, event: AuditEvent) -> Result<(), FlowError> {
        let stream = self.stream(&caller.tenant).await;
        let mut head = stream.lock().await;
        // Whatever goes wrong, the next access opens a stream of its own rather than risk a gap.
        let before = head.take();
        let mut behind = self.append_behind(before, caller, event.clone()).await?;
        if behind.is_none() && before.is_some() {
            // A database that went back has lost the entry that this one follows upon: another stream begins.
            behind = self.append_behind(None, caller, event).await?;
        }
        *head = Some(behind.ok_or(FlowError::ConcurrentChange)?);
        Ok(())
    }

    /// Appends an entry behind the head of a stream of accesses, or as the first of a new one; `None` where the stream does
    /// not end there.
    async fn append_behind(
        &self,
        head: Option<Head>,
        caller: &Caller,
        event: AuditEvent,
    ) -> Result<Option<Head>, FlowError> {
        let (entry, behind) = self.next_of(head, caller, event)?;
        match self.inner.ports.store.append(entry).await {
            Ok(Commit::Committed) => Ok(Some(behind)),
            Ok(Commit::VersionConflict | Commit::IdempotencyKeyTaken) => Ok(None),
            Err(error) => Err(accept_error(error)),
        }
    }

    /// Records an access together with what it does: `write` makes both durable in one commit, or neither, and says
    /// whether there was anything to do.
    pub async fn record_with<W, F>(
        &self,
        caller: &Caller,
        event: AuditEvent,
        write: W,
    ) -> Result<bool, RecordError>
    where
        W: FnOnce(JournalEntry) -> F,
        F: Future<Output = Result<bool, StoreError>>,
    {
        let stream = self.stream(&caller.tenant).await;
        let mut head = stream.lock().await;
        let (entry, behind) = self.next_of(*head, caller, event)?;
        let before = head.take();
        let done = write(entry).await?;
        *head = if done { Some(behind) } else { before };
        Ok(done)
    }

    /// The next entry of the stream of accesses with this head, of a new one where there is none; and the head behind it.
    fn next_of(
        &self,
        head: Option<Head>,
        caller: &Caller,
        event: AuditEvent,
    ) -> Result<(JournalEntry, Head), FlowError> {
        let now = self.inner.ports.clock.now();
        let at = head.unwrap_or_else(|| Head {
            stream: self.inner.ports.random.uuid_v7(now),
            entity_seq: 1,
            leaf_hash: None,
        });
        let entry = self.entry_at(caller, event, ACCESS_STREAM, at)?;
        let behind = Head {
            entity_seq: at.entity_seq + 1,
            leaf_hash: Some(entry.leaf_hash),
            ..at
        };
        Ok((entry, behind))
    }

    /// Appends an entry to a stream that is named from without, behind `head`: `None` where the stream has that entry
    /// already, by whomever it was written, or has lost the one before.
    pub async fn append_to(
        &self,
        caller: &Caller,
        event: AuditEvent,
        named: &str,
        stream: Uuid,
        head: Option<StreamHead>,
    ) -> Result<Option<StreamHead>, FlowError> {
        let at = Head {
            stream,
            entity_seq: head.map_or(1, |head| head.entity_seq + 1),
            leaf_hash: head.map(|head| head.leaf_hash),
        };
        let entry = self.entry_at(caller, event, named, at)?;
        let leaf_hash = entry.leaf_hash;
        match self.inner.ports.store.append(entry).await {
            Ok(Commit::Committed) => Ok(Some(StreamHead {
                entity_seq: at.entity_seq,
                leaf_hash,
            })),
            Ok(Commit::VersionConflict | Commit::IdempotencyKeyTaken) => Ok(None),
            Err(error) => Err(accept_error(error)),
        }
    }

    async fn stream(&self, tenant: &TenantId) -> Arc<Mutex<Option<Head>>> {
        let mut streams = self.inner.streams.lock().await;
        if streams.len() >= MAX_OPEN_STREAMS && !streams.contains_key(tenant) {
            streams.clear();
        }
        Arc::clone(streams.entry(tenant.clone()).or_default())
    }

    fn entry_at(
        &self,
        caller: &Caller,
        event: AuditEvent,
        named: &str,
        at: Head,
    ) -> Result<JournalEntry, FlowError> {
        let ports = &self.inner.ports;
        let now = ports.clock.now();
        let stamp = Stamp {
            now,
            entry_id: EntryId(ports.random.uuid_v7(now)),
            transaction_id: TransactionId(Uuid::nil()),
            attempt_id: AttemptId(Uuid::nil()),
            leaf_salt: ports.random.salt(),
            digest_salt: [0; 16],
            sender_lease: chrono::TimeDelta::zero(),
            jitter: 0,
            retries: &RetryPolicy::default(),
            caller,
            trace: ports.observer.current_trace(),
            instance: &self.inner.instance,
        };
        let defect = |error: &dyn std::error::Error| FlowError::Internal(error.to_string());
        let id = StreamId::named(named, at.stream).map_err(|error| defect(&error))?;
        let mut leaf = blank(id, event.event_type.to_owned(), None, &stamp);
        leaf.entity_seq = at.entity_seq;
        leaf.prev_leaf_hash = at.leaf_hash.map(Hash::from_bytes);
        leaf.payment_id = event.payment.map(|payment| payment.0);
        leaf.details = event.details;
        if let Some(reason) = event.refused {
            leaf.result = EntryResult::Failure;
            leaf.cause = Some(Cause {
                code: reason.to_owned(),
                retryable: false,
            });
        }
        let data = leaf.encode().map_err(|error| defect(&error))?;
        Ok(JournalEntry {
            id: stamp.entry_id,
            stream: at.stream,
            entity_seq: at.entity_seq,
            tenant: Some(caller.tenant.clone()),
            payment: event.payment,
            transaction: None,
            event_type: leaf.event_type,
            result: leaf.result.as_str(),
            cause: leaf.cause.map(|cause| cause.code),
            actor: leaf.actor.id,
            source: caller.origin.rpc_method.clone(),
            provider_account: None,
            trace_id: (stamp.trace.trace_id != [0; 16]).then_some(stamp.trace.trace_id),
            occurred_at: now,
            leaf_hash: *data.leaf_hash().as_bytes(),
            leaf: data,
        })
    }

    /// Lists entries in chronological order; `across` reads every tenant's (platform roles).
    pub async fn list(
        &self,
        caller: &Caller,
        across: bool,
        filter: &EntryFilter,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<StoredEntry>, FlowError> {
        let tenant = (!across).then_some(&caller.tenant);
        let store = &self.inner.ports.store;
        store
            .list_entries(tenant, filter, after, limit)
            .await
            .map_err(read_error)
    }

    /// Reads one entry.
    pub async fn entry(
        &self,
        caller: &Caller,
        across: bool,
        id: EntryId,
    ) -> Result<StoredEntry, FlowError> {
        let tenant = (!across).then_some(&caller.tenant);
        let found = self.inner.ports.store.entry(tenant, id).await;
        found.map_err(read_error)?.ok_or(FlowError::EntryNotFound)
    }

    /// Reads sequenced entries from a position on.
    pub async fn entries_from(
        &self,
        caller: &Caller,
        across: bool,
        position: u64,
        limit: usize,
    ) -> Result<Vec<StoredEntry>, FlowError> {
        let tenant = (!across).then_some(&caller.tenant);
        let store = &self.inner.ports.store;
        store
            .entries_from(tenant, position, limit)
            .await
            .map_err(read_error)
    }

    /// The position that the next entry will get.
    pub async fn next_position(&self) -> Result<u64, FlowError> {
        self.inner
            .ports
            .store
            .next_position()
            .await
            .map_err(read_error)
    }

    /// Waits until more than `position` entries are sequenced, or until `limit` has passed.
    pub async fn wait_for_position(&self, position: u64, limit: Duration) {
        self.inner
            .ports
            .store
            .wait_for_position(position, limit)
            .await;
    }
}
