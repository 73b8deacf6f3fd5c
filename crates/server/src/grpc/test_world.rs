//! What the services are tested over: a log in memory, and nothing behind it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use quittance_domain::change::{Change, IdempotencyRecord, JournalEntry, OperatorActionKind};
use quittance_domain::context::Instance;
use quittance_domain::erasure::{Erasure, ErasureStep, NewErasure};
use quittance_domain::fingerprint::FingerprintKey;
use quittance_domain::flows::FlowSettings;
use quittance_domain::ids::{
    CustomerId, EntryId, ErasureId, EventId, IdempotencyKey, PaymentId, ProviderAccount, TenantId,
    TransactionId, WebhookId,
};
use quittance_domain::money::Money;
use quittance_domain::payment::{PaymentMethodType, PaymentRecord};
use quittance_domain::ports::{
    Authenticity, Backlog, CaseFilter, Claim, Commit, Due, EntryFilter, FailureReport, InDoubt,
    Named, Observer, PaymentFilter, PaymentPage, Ports, Provider, Providers, SentThrough,
    StoreError, StoredCase, StoredEntry,
};
use quittance_domain::reconciliation::{Booked, BookedRange, Bookings, StreamHead};
use quittance_domain::retry::RetryPolicy;
use quittance_domain::text::Sensitive;
use quittance_domain::transaction::{Attempt, OperationKind};
use quittance_domain::verification::Stage;
use quittance_domain::webhook::{
    ClaimedWebhook, Inbox, InboxBacklog, InboxClaim, NewWebhook, Receipt, Replay, StoredBody,
    StoredWebhook, WebhookFilter, WebhookVerdict, Wiped,
};
use quittance_evidence::{Actor, EntryResult, Leaf, SCHEMA_VERSION, Source, StreamId};
use quittance_store::{VerifyError, VerifyEvent, VerifyProgress, VerifySummary};
use tokio::sync::mpsc;
use tonic::Request;
use uuid::{NoContext, Timestamp, Uuid};

use super::super::*;
use crate::adapters::{OsRandomness, SystemClock, TrackedSpawn};
use crate::auth::{
    Access, Authenticated, Authenticator, KeyDirectory, KeyHash, KeyId, Role, Rpc, StoredKey,
};
use crate::config::AuthConfig;
use crate::grpc::feed::StreamLimit;
use crate::layers::CallContext;
use crate::notifications::Trials;

/// Most bytes of a request.
pub(super) const MAX_REQUEST: usize = 4_096;

/// An id older than any that the services make now, and younger than those made here before.
pub(super) fn past_id() -> Uuid {
    static SECONDS: AtomicU64 = AtomicU64::new(1_600_000_000);
    let seconds = SECONDS.fetch_add(1, Ordering::Relaxed);
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, 0))
}

/// A log in memory; payments are the store's own tests' business.
#[derive(Default)]
pub(super) struct Log {
    pub(super) entries: Mutex<Vec<(TenantId, StoredEntry)>>,
    pub(super) cases: Mutex<Vec<StoredCase>>,
    pub(super) grown: tokio::sync::Notify,
    pub(super) down: Mutex<bool>,
    /// How many positions more than there are the head is said to have.
    pub(super) head_ahead: Mutex<u64>,
    /// How often that was read.
    pub(super) heads_read: Mutex<usize>,
}

impl Log {
    pub(super) fn push(&self, tenant: &str, id: Uuid, stream: Uuid, leaf: Vec<u8>) {
        self.push_judged(tenant, (id, stream), leaf, Authenticity::Ours);
    }

    /// An entry, as the store judges it.
    pub(super) fn push_judged(
        &self,
        tenant: &str,
        (id, stream): (Uuid, Uuid),
        leaf: Vec<u8>,
        authenticity: Authenticity,
    ) {
        let mut entries = self.entries.lock();
        let position = u64::try_from(entries.len()).unwrap();
        let stored = StoredEntry {
            id: EntryId(id),
            stream,
            entity_seq: 1,
            leaf,
            position: Some(position),
            authenticity,
        };
        entries.push((TenantId::parse(tenant).unwrap(), stored));
        self.grown.notify_waiters();
    }

    /// A payment's first entry.
    pub(super) fn accept(&self, tenant: &str) -> Uuid {
        let payment = past_id();
        let leaf = leaf(tenant, StreamId::Payment(payment), "payment.accepted");
        self.push(
            tenant,
            leaf.entry_id,
            payment,
            leaf.encode().unwrap().into_bytes(),
        );
        payment
    }

    /// A case about a payment that nobody looked at yet.
    pub(super) fn open_case(&self, tenant: &str, kind: OperatorActionKind) -> StoredCase {
        let case = StoredCase {
            id: EntryId(past_id()),
            tenant: TenantId::parse(tenant).unwrap(),
            payment: PaymentId(past_id()),
            transaction: TransactionId(past_id()),
            kind,
            opened_at: DateTime::from_timestamp(1_790_000_000, 0).unwrap(),
            closed: None,
        };
        self.cases.lock().push(case.clone());
        case
    }

    pub(super) fn up(&self) -> Result<(), StoreError> {
        if *self.down.lock() {
            Err(StoreError::Unavailable)
        } else {
            Ok(())
        }
    }

    pub(super) fn seen(
        &self,
        tenant: Option<&TenantId>,
        wanted: impl Fn(&StoredEntry) -> bool,
    ) -> Vec<StoredEntry> {
        let entries = self.entries.lock();
        let own = entries
            .iter()
            .filter(|(owner, _)| tenant.is_none_or(|tenant| tenant == owner));
        own.map(|(_, entry)| entry)
            .filter(|entry| wanted(entry))
            .cloned()
            .collect()
    }

    pub(super) fn types(&self, tenant: &str) -> Vec<String> {
        let tenant = TenantId::parse(tenant).unwrap();
        let entries = self.seen(Some(&tenant), |_| true);
        entries
            .iter()
            .map(|entry| Leaf::decode(&entry.leaf).unwrap().event_type)
            .collect()
    }
}

#[allow(clippy::too_many_lines, reason = "a table")]
pub(super) fn leaf(tenant: &str, stream_id: StreamId, event_type: &str) -> Leaf {
    let now = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
    let payment_id = match stream_id {
        StreamId::Payment(id) => Some(id),
        StreamId::Named { .. } => None,
    };
    Leaf {
        schema_version: SCHEMA_VERSION,
        leaf_salt: [7; 16],
        entry_id: past_id(),
        tenant_id: tenant.to_owned(),
        stream_id,
        entity_seq: 1,
        prev_leaf_hash: None,
        payment_id,
        transaction_id: Some(past_id()),
        merchant_reference: Some("order 1".to_owned()),
        capture_method: Some("AUTOMATIC".to_owned()),
        decline_code: None,
        amounts: Some(quittance_evidence::Amounts {
            authorized: 5,
            ..Default::default()
        }),
        payment_row_digest: None,
        event_type: event_type.to_owned(),
        occurred_at: now,
        recorded_at: now,
        actor: Actor {
            kind: "service".to_owned(),
            id: "key".to_owned(),
            auth_method: None,
        },
        source: Source {
            service: "quittance".to_owned(),
            version: "1".to_owned(),
            instance: "a".to_owned(),
            peer: None,
            rpc_method: None,
        },
        result: EntryResult::Success,
        grpc_status: None,
        cause: None,
        state_from: None,
        state_to: Some("PENDING".to_owned()),
        amount_minor: Some(1234),
        currency: Some("EUR".to_owned()),
        currency_exponent: Some(2),
        attempt: Some(1),
        max_attempts: None,
        next_retry_at: None,
        provider_account: Some("sandbox".to_owned()),
        provider_reference: None,
        provider_request_digest: None,
        provider_response_digest: None,
        idempotency_key_digest: None,
        request_id: None,
        trace_id: [3; 16],
        span_id: [4; 8],
        trace_flags: 1,
        remote_trace_id: None,
        remote_span_id: None,
        personal_data: std::collections::BTreeMap::new(),
        details: std::collections::BTreeMap::new(),
    }
}

/// Nothing hangs on this log that could differ.
#[async_trait]
impl LogVerifier for Log {
    async fn verify(
        &self,
        resume: VerifyProgress,
        events: mpsc::Sender<VerifyEvent>,
    ) -> Result<VerifySummary, VerifyError> {
        self.up()?;
        let entries = u64::try_from(self.entries.lock().len()).unwrap();
        let event = VerifyEvent::Progress {
            stage: Stage::Leaves,
            checked: entries,
            total: entries,
            at: VerifyProgress {
                entries,
                begun: true,
                ..resume
            },
        };
        let _ = events.send(event).await;
        Ok(VerifySummary {
            entries,
            payments: 0,
            mismatches: resume.mismatches,
            checkpoint: None,
        })
    }
}

#[async_trait]
impl Store for Log {
    async fn commit(&self, _: Change) -> Result<Commit, StoreError> {
        Err(StoreError::Unavailable)
    }

    async fn append(&self, entry: JournalEntry) -> Result<Commit, StoreError> {
        self.up()?;
        let tenant = entry.tenant.unwrap();
        self.push(
            tenant.as_str(),
            entry.id.0,
            entry.stream,
            entry.leaf.into_bytes(),
        );
        Ok(Commit::Committed)
    }

    async fn payment(
        &self,
        _: &TenantId,
        _: PaymentId,
    ) -> Result<Option<PaymentRecord>, StoreError> {
        self.up()?;
        Ok(None)
    }

    async fn idempotency_record(
        &self,
        _: &TenantId,
        _: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.up()?;
        Ok(None)
    }

    async fn list_payments(
        &self,
        _: &TenantId,
        _: &PaymentFilter,
        _: Option<PaymentId>,
        _: usize,
    ) -> Result<PaymentPage, StoreError> {
        self.up()?;
        Ok(PaymentPage::default())
    }

    async fn list_entries(
        &self,
        tenant: Option<&TenantId>,
        _: &EntryFilter,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        self.up()?;
        let mut entries = self.seen(tenant, |entry| after.is_none_or(|after| entry.id > after));
        entries.sort_by_key(|entry| entry.id);
        entries.truncate(limit);
        Ok(entries)
    }

    async fn entry(
        &self,
        tenant: Option<&TenantId>,
        id: EntryId,
    ) -> Result<Option<StoredEntry>, StoreError> {
        self.up()?;
        Ok(self.seen(tenant, |entry| entry.id == id).pop())
    }

    async fn entries_from(
        &self,
        tenant: Option<&TenantId>,
        position: u64,
        limit: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        self.up()?;
        let mut entries = self.seen(tenant, |entry| entry.position >= Some(position));
        entries.truncate(limit);
        Ok(entries)
    }

    async fn next_position(&self) -> Result<u64, StoreError> {
        self.up()?;
        *self.heads_read.lock() += 1;
        let entries = u64::try_from(self.entries.lock().len()).unwrap();
        Ok(entries + *self.head_ahead.lock())
    }

    async fn wait_for_position(&self, position: u64, limit: Duration) {
        let grown = self.grown.notified();
        let mut grown = std::pin::pin!(grown);
        grown.as_mut().enable();
        if u64::try_from(self.entries.lock().len()).unwrap() <= position {
            let _ = tokio::time::timeout(limit, grown).await;
        }
    }

    async fn claim_due(&self, _: &Claim) -> Result<Vec<Due>, StoreError> {
        self.up()?;
        Ok(Vec::new())
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.up()?;
        Ok(Backlog::default())
    }

    async fn attempt(
        &self,
        _: PaymentId,
        _: TransactionId,
        _: u32,
    ) -> Result<Option<Attempt>, StoreError> {
        self.up()?;
        Ok(None)
    }

    async fn attempts_in_doubt(
        &self,
        _: PaymentId,
        _: TransactionId,
        _: OperationKind,
    ) -> Result<InDoubt, StoreError> {
        self.up()?;
        Ok(InDoubt::default())
    }

    async fn sent_through(
        &self,
        _: PaymentId,
        _: Option<TransactionId>,
        _: &ProviderAccount,
    ) -> Result<SentThrough, StoreError> {
        self.up()?;
        Ok(SentThrough::UnknownPayment)
    }

    async fn payment_of_event(
        &self,
        _: &ProviderAccount,
        _: &EventId,
    ) -> Result<Named, StoreError> {
        self.up()?;
        Ok(Named::NotFound)
    }

    async fn method_token(&self, _: PaymentId) -> Result<Option<Sensitive<String>>, StoreError> {
        self.up()?;
        Ok(None)
    }

    async fn list_cases(
        &self,
        tenant: Option<&TenantId>,
        filter: &CaseFilter,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<StoredCase>, StoreError> {
        self.up()?;
        let cases = self.cases.lock();
        let wanted = cases.iter().filter(|case| {
            tenant.is_none_or(|tenant| *tenant == case.tenant)
                && (filter.closed || case.closed.is_none())
                && filter.payment.is_none_or(|payment| payment == case.payment)
                && filter.kind.is_none_or(|kind| kind == case.kind)
                && after.is_none_or(|after| case.id > after)
        });
        Ok(wanted.take(limit).cloned().collect())
    }

    async fn summarize_failures(
        &self,
        _: Option<&TenantId>,
        from: DateTime<Utc>,
        _: DateTime<Utc>,
        _: usize,
    ) -> Result<FailureReport, StoreError> {
        self.up()?;
        Ok(FailureReport {
            summaries: Vec::new(),
            from,
            entries: 0,
            refused: 0,
        })
    }
}

pub(super) struct Nothing;

impl Providers for Nothing {
    fn serves(&self, _: &TenantId, _: &ProviderAccount) -> bool {
        false
    }

    fn account(&self, _: &ProviderAccount) -> Option<Arc<dyn Provider>> {
        None
    }

    fn names(&self) -> Vec<ProviderAccount> {
        Vec::new()
    }

    fn route(&self, _: &TenantId, _: Money, _: PaymentMethodType) -> Vec<ProviderAccount> {
        Vec::new()
    }
}

impl Observer for Nothing {
    fn current_trace(&self) -> quittance_domain::context::TraceIds {
        quittance_domain::context::TraceIds::default()
    }

    fn attempt_ended(
        &self,
        _: &ProviderAccount,
        _: OperationKind,
        _: &'static str,
        _: Option<quittance_domain::decline::Cause>,
        _: f64,
    ) {
    }

    fn retried(&self, _: &ProviderAccount, _: OperationKind, _: &'static str) {}

    fn changed(&self, _: &ProviderAccount, _: &str, _: Option<&str>) {}
    fn case_opened(&self, _: &ProviderAccount, _: OperatorActionKind) {}

    fn replayed(&self, _: quittance_domain::change::CommandKind) {}
}

/// The one key that there is, if there is one.
#[derive(Default)]
pub(super) struct Directory(
    pub(super) Mutex<Option<StoredKey>>,
    /// Whether it cannot be asked.
    pub(super) Mutex<bool>,
    /// Counts how often it was asked.
    tokio::sync::watch::Sender<usize>,
);

impl Directory {
    /// Waits until it was asked so often.
    pub(super) async fn asked(&self, times: usize) {
        let mut asked = self.2.subscribe();
        asked.wait_for(|asked| *asked >= times).await.unwrap();
    }

    /// Adds a caller's key.
    pub(super) fn add(&self, caller: &Authenticated) {
        *self.0.lock() = Some(StoredKey {
            tenant: caller.tenant.clone(),
            name: caller.name.to_string(),
            roles: caller.roles,
            hash: KeyHash {
                mac: Vec::new(),
                mac_key_id: String::new(),
            },
        });
    }
}

#[async_trait]
impl KeyDirectory for Directory {
    async fn find(&self, _: &KeyId) -> Result<Option<StoredKey>, StoreError> {
        self.2.send_modify(|asked| *asked += 1);
        if *self.1.lock() {
            return Err(StoreError::Unavailable);
        }
        Ok(self.0.lock().clone())
    }
}

/// An inbox that nothing came into.
struct EmptyInbox;

#[async_trait]
impl Inbox for EmptyInbox {
    async fn receive(&self, _: Vec<NewWebhook>) -> Result<Vec<Receipt>, StoreError> {
        Err(StoreError::Unavailable)
    }

    async fn claim_webhooks(&self, _: &InboxClaim) -> Result<Vec<ClaimedWebhook>, StoreError> {
        Ok(Vec::new())
    }

    async fn close_webhook(
        &self,
        _: &ClaimedWebhook,
        _: WebhookVerdict,
        _: &[PaymentId],
    ) -> Result<Option<f64>, StoreError> {
        Ok(None)
    }

    async fn inbox_backlog(&self) -> Result<InboxBacklog, StoreError> {
        Ok(InboxBacklog::default())
    }

    async fn list_webhooks(
        &self,
        _: &WebhookFilter,
        _: Option<WebhookId>,
        _: usize,
    ) -> Result<Vec<StoredWebhook>, StoreError> {
        Ok(Vec::new())
    }

    async fn webhook(
        &self,
        _: WebhookId,
    ) -> Result<Option<(StoredWebhook, StoredBody)>, StoreError> {
        Ok(None)
    }

    async fn replay_webhook(&self, _: WebhookId) -> Result<Replay, StoreError> {
        Ok(Replay::NotReplayable)
    }

    async fn wipe_webhooks(&self, _: Wiped, _: Duration, _: usize) -> Result<usize, StoreError> {
        Ok(0)
    }
}

pub(super) struct World {
    pub(super) log: Arc<Log>,
    pub(super) directory: Arc<Directory>,
    pub(super) services: Services,
    pub(super) streams: StreamLimit,
}

impl World {
    #[allow(clippy::too_many_lines)] // one literal
    pub(super) fn new() -> Self {
        let log = Arc::new(Log::default());
        let ports = Ports {
            store: Arc::<Log>::clone(&log),
            providers: Arc::new(Nothing),
            clock: Arc::new(SystemClock),
            spawn: Arc::new(TrackedSpawn::new(tokio_util::task::TaskTracker::new(), 100)),
            random: Arc::new(OsRandomness::default()),
            observer: Arc::new(Nothing),
        };
        let instance = Instance {
            service: "quittance",
            version: "1",
            instance: "test".to_owned(),
        };
        let settings = FlowSettings {
            instance: instance.clone(),
            fingerprint_key: FingerprintKey::new([1; 32]),
            answer_margin: Duration::from_millis(100),
            default_wait: Duration::from_secs(1),
            max_decisions: 8,
            outcome_patience: Duration::from_secs(1),
            lease_margin: Duration::from_secs(15),
            retries: RetryPolicy::default(),
        };
        let directory = Arc::new(Directory::default());
        let ring = quittance_store::KeyRing::new([("k1".to_owned(), [7; 32])]).unwrap();
        let auth = AuthConfig {
            cache_ttl: Duration::ZERO,
            cache_entries: 1,
            stream_recheck: Duration::from_secs(10),
        };
        let instance_again = instance.clone();
        let services = Services {
            evidence: None,
            authenticator: Arc::new(Authenticator::new(directory.clone(), ring, &auth)),
            stream_recheck: auth.stream_recheck,
            flows: Flows::new(ports.clone(), settings),
            inbox: InboxDesk::new(
                Arc::new(EmptyInbox),
                Arc::new(Nothing),
                AuditLog::new(ports.clone(), instance.clone()),
            ),
            audit: AuditLog::new(ports.clone(), instance),
            store: Arc::<Log>::clone(&log),
            verifier: Arc::<Log>::clone(&log),
            reconciler: Reconciler::new(
                Arc::<Log>::clone(&log),
                Arc::new(Nothing),
                Arc::clone(&ports.clock),
                AuditLog::new(ports.clone(), instance_again),
            ),
            erasures: Arc::<Log>::clone(&log),
            notifications: Notifications {
                outbox: Arc::new(no_outbox::NoOutbox),
                sender: no_outbox::sender(),
                trials: Trials::default(),
                max_endpoints: 2,
            },
            clock: Arc::clone(&ports.clock),
            random: Arc::clone(&ports.random),
            tokens: Tokens::new(&[[9; 32]]).unwrap(),
            max_request_bytes: MAX_REQUEST,
            max_streams_per_tenant: 2,
            stop: CancellationToken::new(),
        };
        Self {
            log,
            directory,
            services,
            streams: StreamLimit::new(2),
        }
    }

    pub(super) fn payments(&self) -> PaymentRpcs {
        PaymentRpcs::new(self.services.clone(), self.streams.clone())
    }

    pub(super) fn admin(&self) -> AdminRpcs {
        AdminRpcs::new(self.services.clone())
    }

    pub(super) fn audit(&self) -> AuditRpcs {
        AuditRpcs::new(self.services.clone(), self.streams.clone())
    }
}

/// Has booked nothing.
#[async_trait]
impl Bookings for Log {
    async fn booked(&self, _: &BookedRange, _: usize) -> Result<Vec<Booked>, StoreError> {
        Ok(Vec::new())
    }

    async fn booked_of(
        &self,
        _: &ProviderAccount,
        _: &[PaymentId],
    ) -> Result<Vec<Booked>, StoreError> {
        Ok(Vec::new())
    }

    async fn stream_head(&self, _: Uuid) -> Result<Option<StreamHead>, StoreError> {
        Ok(None)
    }
}

/// Knows no customer.
#[async_trait]
impl Erasures for Log {
    async fn customer(
        &self,
        _: &TenantId,
        _: &Sensitive<String>,
    ) -> Result<Option<CustomerId>, StoreError> {
        Ok(None)
    }

    async fn request_erasure(&self, _: NewErasure) -> Result<Option<Erasure>, StoreError> {
        Ok(None)
    }

    async fn erasure(&self, _: &TenantId, _: ErasureId) -> Result<Option<Erasure>, StoreError> {
        Ok(None)
    }

    async fn claim_erasure(&self, _: Duration) -> Result<Option<Erasure>, StoreError> {
        Ok(None)
    }

    async fn erase(&self, _: &Erasure, _: Duration) -> Result<ErasureStep, StoreError> {
        Err(StoreError::Unavailable)
    }

    async fn close_erasure(
        &self,
        _: ErasureId,
        _: u64,
        _: Option<DateTime<Utc>>,
    ) -> Result<(), StoreError> {
        Err(StoreError::Unavailable)
    }
}

pub(super) fn authenticated(tenant: &str, role: Role) -> Authenticated {
    Authenticated {
        tenant: TenantId::parse(tenant).unwrap(),
        key_id: "00000000000000aa".into(),
        name: "test".into(),
        roles: [role].into_iter().collect(),
        auth_method: "api_key",
    }
}

pub(super) fn context() -> CallContext {
    CallContext {
        rpc: Rpc {
            method: "test",
            access: Access::Authenticated,
            streams: true,
            denies_nothing: false,
        },
        peer: SocketAddr::from(([127, 0, 0, 1], 1)),
        request_id: "r".into(),
        remote: None,
        deadline: None,
    }
}

pub(super) fn asked<T>(tenant: &str, role: Role, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(authenticated(tenant, role));
    request.extensions_mut().insert(context());
    request
}
