//! What the service itself puts on record beside payments and reads of the log: its start and stop, changed
//! credentials, refused calls (PCI DSS v4, 10.2.1.4 to 10.2.1.6).

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use quittance_domain::change::JournalEntry;
use quittance_domain::context::{Actor, ActorKind, Caller, Instance, Origin};
use quittance_domain::erasure::{
    CUSTOMER_DETAIL, ERASED, ERASURE_DETAIL, ERASURE_STREAM, Erasure, PAYMENTS_DETAIL,
};
use quittance_domain::error::FlowError;
use quittance_domain::flows::audit::{AuditEvent, AuditLog, RecordError};
use quittance_domain::ids::{EndpointId, PaymentId, TenantId};
use quittance_domain::journal::{API_KEY_CREATED, API_KEY_ID, API_KEY_REVOKED, API_KEY_ROLES};
use quittance_domain::ports::StoreError;
use quittance_domain::reconciliation::StreamHead;
use quittance_domain::webhook::{ClaimedWebhook, WebhookReason};
use tokio_util::sync::CancellationToken;

use crate::auth::{KeyId, Role, Roles, peer_text};
use crate::layers::{Refusals, RefusedCaller, RefusedCalls};
use crate::signing::{LogKeys, PublishedReceiptKey};

/// The tenant of what concerns no single tenant. A key of it with `audit.read` reads these entries.
pub const PLATFORM_TENANT: &str = "platform";
/// How often refused calls are put on record, each caller and cause as one entry (contract, `AuditService`).
pub const REFUSALS_EVERY: Duration = Duration::from_secs(60);
/// How often an entry is offered anew after another of the same process got in between.
const RECORD_TRIES: usize = 3;
/// The service, as an actor.
const SERVICE_ACTOR: &str = "server";
/// An actor that did not prove who it is.
const UNKNOWN_ACTOR: &str = "unknown";
/// What stands for callers that were counted together.
const MANY_PEERS: &str = "many";

/// What happened to an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyEvent {
    /// It was made.
    Created,
    /// It was revoked.
    Revoked,
}

impl KeyEvent {
    const fn event_type(self) -> &'static str {
        match self {
            Self::Created => API_KEY_CREATED,
            Self::Revoked => API_KEY_REVOKED,
        }
    }

    /// The command that did it.
    const fn source(self) -> &'static str {
        match self {
            Self::Created => "quittance keys create",
            Self::Revoked => "quittance keys revoke",
        }
    }
}

/// An API key as the record names it: never with its secret.
#[derive(Debug, Clone, Copy)]
pub struct AuditedKey<'a> {
    /// The public part.
    pub id: &'a KeyId,
    /// For which tenant.
    pub tenant: &'a TenantId,
    /// What it may do.
    pub roles: Roles,
}

/// A person at the command line, as the operating system knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// The user's name, or its number where it has none.
    pub name: String,
    /// Who called `sudo`, where root acts and says so: a claim of the environment.
    pub sudo_user: Option<String>,
}

/// The record. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trail {
    log: AuditLog,
    instance: Instance,
}

impl Trail {
    /// A record in this log, by this process.
    pub fn new(log: AuditLog, instance: Instance) -> Self {
        Self { log, instance }
    }

    /// The service has started, and signs with these keys: so the log says from when on which key was in use.
    ///
    /// # Errors
    /// [`FlowError`] where that could not be recorded.
    pub async fn service_started(&self, keys: Option<&LogKeys>) -> Result<(), FlowError> {
        let mut facts = BTreeMap::new();
        if let Some(keys) = keys {
            let log: Vec<_> = keys.verifiers().iter().map(ToString::to_string).collect();
            let receipts = keys.receipts().to_string();
            facts = details([("signing_keys", log.join(" ")), ("receipt_key", receipts)]);
            facts.extend(receipt_key_times(&keys.receipt_keys()));
        }
        self.service("service.started", facts).await
    }

    /// The service is stopping; `in_time` says whether everything under way was finished.
    ///
    /// # Errors
    /// [`FlowError`] where that could not be recorded.
    pub async fn service_stopped(&self, in_time: bool) -> Result<(), FlowError> {
        let details = details([("finished_in_time", in_time.to_string())]);
        self.service("service.stopped", details).await
    }

    /// The log was verified, as it is from time to time (R18).
    ///
    /// # Errors
    /// [`FlowError`] where that could not be recorded.
    pub async fn log_verified(
        &self,
        entries: u64,
        payments: u64,
        mismatches: u64,
    ) -> Result<(), FlowError> {
        let details = details([
            ("entries", entries.to_string()),
            ("payments", payments.to_string()),
            ("mismatches", mismatches.to_string()),
        ]);
        self.service("audit.log_verified", details).await
    }

    /// A customer's key was destroyed: the next entry of the erasure's own stream, behind `behind`. Where there is one
    /// already, another process has put it there.
    ///
    /// # Errors
    /// [`FlowError`] where that could not be recorded.
    pub async fn personal_data_erased(
        &self,
        erasure: &Erasure,
        payments: u64,
        behind: StreamHead,
    ) -> Result<(), FlowError> {
        let details = details([
            (ERASURE_DETAIL, erasure.id.to_string()),
            (CUSTOMER_DETAIL, erasure.customer.to_string()),
            (PAYMENTS_DETAIL, payments.to_string()),
        ]);
        let event = AuditEvent::done(ERASED, details);
        let caller = caller(erasure.tenant.clone(), itself(), "", "erasure");
        let (stream, head) = (erasure.id.0, Some(behind));
        let log = &self.log;
        log.append_to(&caller, event, ERASURE_STREAM, stream, head)
            .await
            .map(drop)
    }

    /// A webhook was given up: it was verified and stored, and will not be applied unless a person has it replayed.
    ///
    /// # Errors
    /// [`FlowError`] where that could not be recorded.
    pub async fn webhook_given_up(
        &self,
        webhook: &ClaimedWebhook,
        reason: WebhookReason,
        about: &[PaymentId],
    ) -> Result<(), FlowError> {
        let payments: Vec<_> = about.iter().map(ToString::to_string).collect();
        let mut facts = details([
            ("webhook_id", webhook.id.to_string()),
            ("provider_account", webhook.account.to_string()),
            ("webhook_reason", reason.name().to_owned()),
            ("tries", webhook.tries.to_string()),
        ]);
        if !payments.is_empty() {
            facts.insert("payment_ids".to_owned(), payments.join(" "));
        }
        self.service("webhook.given_up", facts).await
    }

    async fn service(
        &self,
        event_type: &'static str,
        mut facts: BTreeMap<String, String>,
    ) -> Result<(), FlowError> {
        facts.extend(details([
            ("version", self.instance.version.to_owned()),
            ("instance", self.instance.instance.clone()),
        ]));
        let caller = caller(platform()?, itself(), "", "quittance serve");
        self.record(&caller, event_type, facts).await
    }

    /// An operator has made or revoked an API key.
    ///
    /// # Errors
    /// [`FlowError`] where that could not be recorded.
    pub async fn key_changed(
        &self,
        event: KeyEvent,
        key: AuditedKey<'_>,
        operator: &Operator,
    ) -> Result<(), FlowError> {
        let roles: Vec<_> = key.roles.iter().map(Role::name).collect();
        let mut facts = details([
            (API_KEY_ID, key.id.to_string()),
            (API_KEY_ROLES, roles.join(" ")),
        ]);
        if let Some(user) = &operator.sudo_user {
            facts.insert("sudo_user".to_owned(), user.clone());
        }
        let caller = caller(key.tenant.clone(), operator.actor(), "", event.source());
        self.record(&caller, event.event_type(), facts).await
    }

    /// An operator has made a key that signs the log, or its receipts; `key` and `replaced` are the published halves.
    ///
    /// # Errors
    /// [`FlowError`] where that could not be recorded.
    pub async fn signing_key_made(
        &self,
        key: &str,
        replaced: &str,
        operator: &Operator,
    ) -> Result<(), FlowError> {
        let mut facts = details([
            ("public_key", key.to_owned()),
            ("replaces", replaced.to_owned()),
        ]);
        if let Some(user) = &operator.sudo_user {
            facts.insert("sudo_user".to_owned(), user.clone());
        }
        let actor = operator.actor();
        let caller = caller(platform()?, actor, "", "quittance audit keys rotate");
        self.record(&caller, "audit.signing_key_made", facts).await
    }

    /// The receiver of an endpoint has said that it is gone: `switch_off` switches the endpoint off, in one commit with the
    /// entry. False, and no entry, where there was nothing to switch off.
    ///
    /// # Errors
    /// [`RecordError`] where neither was done, as far as is known.
    pub async fn endpoint_gone<W, F>(
        &self,
        tenant: &TenantId,
        endpoint: EndpointId,
        switch_off: W,
    ) -> Result<bool, RecordError>
    where
        W: FnOnce(JournalEntry) -> F,
        F: Future<Output = Result<bool, StoreError>>,
    {
        let details = details([
            ("endpoint_id", endpoint.to_string()),
            ("http_status", "410".to_owned()),
        ]);
        let event = AuditEvent::done("endpoint.gone", details);
        let caller = caller(tenant.clone(), itself(), "", "quittance serve");
        self.log.record_with(&caller, event, switch_off).await
    }

    /// Puts refused calls on record, `every` so often, until `stop`.
    pub async fn keep_refusals(self, refusals: Refusals, every: Duration, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => self.record_refusals(&refusals).await,
            }
        }
    }

    /// Puts the refused calls since the last time on record. What cannot be recorded is kept for the next time.
    pub async fn record_refusals(&self, refusals: &Refusals) {
        let mut failed = None;
        for (who, calls) in refusals.take() {
            if failed.is_none() {
                failed = self.record_refused(&who, calls).await.err();
                if failed.is_none() {
                    continue;
                }
            }
            refusals.count(who, calls);
        }
        if let Some(error) = failed {
            tracing::warn!(error.message = %error, "refused calls could not be put on record yet");
        }
    }

    async fn record_refused(
        &self,
        who: &RefusedCaller,
        calls: RefusedCalls,
    ) -> Result<(), FlowError> {
        let unknown = || Actor {
            kind: ActorKind::Service,
            id: UNKNOWN_ACTOR.to_owned(),
            auth_method: "",
        };
        let (tenant, actor) = match &who.caller {
            Some(known) => (known.tenant.clone(), known.actor()),
            None => (platform()?, unknown()),
        };
        let peer = who.peer.map_or_else(|| MANY_PEERS.to_owned(), peer_text);
        let mut facts = details([
            ("cause", who.cause.to_owned()),
            ("count", calls.count.to_string()),
            ("peer", peer.clone()),
            ("key_id", actor.id.clone()),
            ("first_time", time(calls.first)),
            ("last_time", time(calls.last)),
        ]);
        if let Some(account) = &who.account {
            facts.insert("provider_account".to_owned(), account.to_string());
        }
        let caller = caller(tenant, actor, &peer, calls.rpc);
        let event = AuditEvent {
            refused: Some(who.cause),
            ..AuditEvent::done("access.refused", facts)
        };
        self.record_event(&caller, event).await
    }

    async fn record(
        &self,
        caller: &Caller,
        event_type: &'static str,
        details: BTreeMap<String, String>,
    ) -> Result<(), FlowError> {
        self.record_event(caller, AuditEvent::done(event_type, details))
            .await
    }

    async fn record_event(&self, caller: &Caller, event: AuditEvent) -> Result<(), FlowError> {
        for _ in 1..RECORD_TRIES {
            match self.log.record(caller, event.clone()).await {
                Err(FlowError::ConcurrentChange) => {}
                other => return other,
            }
        }
        self.log.record(caller, event).await
    }
}

/// The service itself, as an actor.
fn itself() -> Actor {
    Actor {
        kind: ActorKind::System,
        id: SERVICE_ACTOR.to_owned(),
        auth_method: "",
    }
}

/// The tenant of what concerns no single tenant.
///
/// # Errors
/// None: it is a tenant's name.
pub(crate) fn platform() -> Result<TenantId, FlowError> {
    TenantId::parse(PLATFORM_TENANT).map_err(|error| FlowError::Internal(error.to_string()))
}

fn caller(tenant: TenantId, actor: Actor, peer: &str, source: &str) -> Caller {
    Caller {
        tenant,
        actor,
        origin: Origin {
            peer: peer.to_owned(),
            rpc_method: source.to_owned(),
            request_id: String::new(),
        },
        remote: None,
        deadline: None,
    }
}

fn details<const N: usize>(facts: [(&str, String); N]) -> BTreeMap<String, String> {
    let named = facts.map(|(name, value)| (name.to_owned(), value));
    named.into()
}

/// When each key of receipts is used, where one replaces another.
fn receipt_key_times(keys: &[PublishedReceiptKey]) -> BTreeMap<String, String> {
    let from = |key: &PublishedReceiptKey| key.from.map(|from| format!(" from {}", time(from)));
    let until =
        |key: &PublishedReceiptKey| key.until.map(|until| format!(" until {}", time(until)));
    let (newest, older) = keys.split_first().unzip();
    let mut facts = BTreeMap::new();
    if let Some(from) = newest.and_then(|key| key.from) {
        facts.insert("receipt_key_from".to_owned(), time(from));
    }
    let older = older.unwrap_or_default().iter().map(|key| {
        let times = [from(key), until(key)].map(Option::unwrap_or_default);
        format!("{}{}", key.key, times.concat())
    });
    let older: Vec<_> = older.collect();
    if !older.is_empty() {
        facts.insert("older_receipt_keys".to_owned(), older.join("; "));
    }
    facts
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
#[path = "trail_tests.rs"]
mod tests;
