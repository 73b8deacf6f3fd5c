//! What the server is made of: each part made of the configuration and of the parts before it.

use std::sync::Arc;

use quittance_domain::context::Instance;
use quittance_domain::erasure::Erasures;
use quittance_domain::fingerprint::FingerprintKey;
use quittance_domain::flows::audit::AuditLog;
use quittance_domain::flows::reconcile::Reconciler;
use quittance_domain::flows::{FlowSettings, Flows, InboxDesk};
use quittance_domain::notification::Outbox;
use quittance_domain::ports::Ports;
use quittance_providers::registry::Registry;
use quittance_store::{KeyRing, KeyRingError, PgStore};
use quittance_telemetry::Metrics;
use tokio_util::task::TaskTracker;

use super::running::Stop;
use super::workers::Signing;
use crate::adapters::{DatabaseTime, OsRandomness, TelemetryObserver, TrackedSpawn};
use crate::auth::Authenticator;
use crate::config::{Config, ServerConfig};
use crate::database;
use crate::grpc::{self, LogVerifier, Notifications, Services, Tokens};
use crate::layers::{EdgeSettings, Methods, Refusals, TenantRates};
use crate::notifications::{Sender, Trials};
use crate::signing::{Evidence, SigningError};

/// What the edge, the services and the workers share.
pub(super) struct Wired {
    pub(super) ports: Ports,
    pub(super) outbox: Arc<dyn Outbox>,
    pub(super) sender: Sender,
    pub(super) flows: Flows,
    pub(super) desk: InboxDesk,
    pub(super) log: AuditLog,
    pub(super) reconciler: Reconciler,
    pub(super) erasures: Arc<dyn Erasures>,
    pub(super) verifier: Arc<dyn LogVerifier>,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) metrics: Metrics,
    pub(super) refusals: Refusals,
    pub(super) evidence: Option<Evidence>,
    pub(super) stop: Stop,
}

pub(super) fn ports(
    config: &Config,
    store: &Arc<PgStore>,
    registry: Registry,
    tasks: &TaskTracker,
    metrics: &Metrics,
) -> Ports {
    Ports {
        store: Arc::<PgStore>::clone(store),
        providers: Arc::new(registry),
        clock: Arc::new(DatabaseTime::new(store.clock())),
        spawn: Arc::new(TrackedSpawn::new(
            tasks.clone(),
            config.payments.max_commands_in_flight,
        )),
        random: Arc::new(OsRandomness::default()),
        observer: Arc::new(TelemetryObserver::new(metrics.clone())),
    }
}

pub(super) fn flow_settings(config: &Config, keys: &KeyRing, instance: Instance) -> FlowSettings {
    FlowSettings {
        instance,
        fingerprint_key: FingerprintKey::new(keys.fingerprint_key()),
        answer_margin: config.payments.answer_margin,
        default_wait: config.payments.default_wait,
        max_decisions: config.payments.max_decisions,
        outcome_patience: config.payments.outcome_patience,
        lease_margin: config.payments.lease_margin,
        retries: config.payments.retries,
    }
}

pub(super) fn services(
    config: &Config,
    keys: &KeyRing,
    wired: &Wired,
) -> Result<Services, KeyRingError> {
    Ok(Services {
        flows: wired.flows.clone(),
        audit: wired.log.clone(),
        inbox: wired.desk.clone(),
        verifier: Arc::clone(&wired.verifier),
        store: Arc::clone(&wired.ports.store),
        reconciler: wired.reconciler.clone(),
        erasures: Arc::clone(&wired.erasures),
        notifications: Notifications {
            outbox: Arc::clone(&wired.outbox),
            sender: wired.sender.clone(),
            trials: Trials::default(),
            max_endpoints: config.notifications.max_endpoints,
        },
        clock: Arc::clone(&wired.ports.clock),
        random: Arc::clone(&wired.ports.random),
        authenticator: Arc::clone(&wired.authenticator),
        stream_recheck: config.auth.stream_recheck,
        tokens: Tokens::new(&keys.page_token_keys()).ok_or(KeyRingError::Empty)?,
        max_request_bytes: config.server.limits.max_request_bytes,
        max_streams_per_tenant: config.server.limits.max_streams_per_tenant,
        evidence: wired.evidence.clone(),
        stop: wired.stop.accepting.clone(),
    })
}

/// What proves the log, and who signs it.
pub(super) fn evidence(
    config: &Config,
    keys: &KeyRing,
    store: &Arc<PgStore>,
    metrics: &Metrics,
) -> Result<(Option<Evidence>, Option<Signing>), SigningError> {
    let Some(signing) = &config.signing else {
        tracing::warn!("the audit log is not signed: the setting audit.enabled is off");
        return Ok((None, None));
    };
    let fingerprints = FingerprintKey::new(keys.fingerprint_key());
    let evidence = Evidence::load(signing, store, fingerprints, metrics)?;
    let signer = evidence.signer(signing)?;
    let cosigning = evidence.cosigning(&signing.witnesses, &signer)?;
    Ok((Some(evidence), Some(Signing { signer, cosigning })))
}

pub(super) fn verifier(
    config: &Config,
    store: &Arc<PgStore>,
    evidence: Option<&Evidence>,
) -> Arc<dyn LogVerifier> {
    let signed = evidence
        .zip(config.signing.as_ref())
        .map(|(evidence, signing)| evidence.signed(signing));
    let verifier = database::Verifier::new(Arc::clone(store), &config.audit, signed);
    Arc::new(verifier)
}

pub(super) fn authenticator(
    config: &Config,
    keys: &KeyRing,
    store: &Arc<PgStore>,
) -> Arc<Authenticator> {
    let directory = Arc::new(database::Keys::new(Arc::clone(store)));
    Arc::new(Authenticator::new(directory, keys.clone(), &config.auth))
}

pub(super) fn desk(store: &Arc<PgStore>, ports: &Ports, log: &AuditLog) -> InboxDesk {
    let inbox = Arc::<PgStore>::clone(store);
    InboxDesk::new(inbox, Arc::clone(&ports.providers), log.clone())
}

pub(super) fn reconciler(store: &Arc<PgStore>, ports: &Ports, log: &AuditLog) -> Reconciler {
    let (providers, clock) = (Arc::clone(&ports.providers), Arc::clone(&ports.clock));
    Reconciler::new(Arc::<PgStore>::clone(store), providers, clock, log.clone())
}

pub(super) fn edge(config: &ServerConfig, wired: &Wired) -> EdgeSettings {
    let limits = &config.limits;
    EdgeSettings {
        methods: Methods::new(config.reflection),
        authenticator: Arc::clone(&wired.authenticator),
        refusals: wired.refusals.clone(),
        metrics: wired.metrics.clone(),
        clock: Arc::clone(&wired.ports.clock),
        random: Arc::clone(&wired.ports.random),
        max_in_flight: limits.max_in_flight,
        tenant_rates: TenantRates::new(limits.tenant_requests_per_second, limits.tenant_burst),
        request_timeout: limits.request_timeout,
        kill: wired.stop.serving.clone(),
        status: grpc::refusal,
    }
}
