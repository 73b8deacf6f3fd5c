//! Starts and stops the server: everything is wired here, and nowhere else.

mod running;

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use quittance_domain::context::Instance;
use quittance_domain::erasure::Erasures;
use quittance_domain::error::FlowError;
use quittance_domain::fingerprint::FingerprintKey;
use quittance_domain::flows::audit::AuditLog;
use quittance_domain::flows::reconcile::Reconciler;
use quittance_domain::flows::{FlowSettings, Flows, InboxDesk};
use quittance_domain::notification::Outbox;
use quittance_domain::ports::Ports;
use quittance_domain::webhook::Inbox;
use quittance_providers::registry::Registry;
use quittance_store::{KeyRing, KeyRingError, PgStore, WorkerSettings};
use quittance_telemetry::{self as telemetry, KnownLabels, Metrics, Telemetry};
use thiserror::Error;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::adapters::{self, DatabaseTime, OsRandomness, TelemetryObserver, TrackedSpawn};
use crate::auth::Authenticator;
use crate::config::{AuditConfig, Config, ServerConfig};
use crate::database::{self, StoreMetrics};
use crate::grpc::{self, EdgeRoutes, LogVerifier, Notifications, Services, Tokens};
use crate::http::webhooks::{self, WebhookParts};
use crate::http::{self, HttpState, Readiness};
use crate::layers::{Edge, EdgeSettings, Methods, Refusals, TenantRates};
use crate::net::{self, Alpn, Http2Settings, Listener, ListenerSettings, TlsError};
use crate::notifications::{Sender, Trials};
use crate::signing::{Cosigning, Evidence, SIGNER_CHECK, Signer, SigningError, WITNESS_CHECK};
use crate::trail::{REFUSALS_EVERY, Trail};
use crate::workers::{
    self, ErasureWorker, Gauges, NotificationParts, NotificationRetention, Notifier, Recovery,
    RecoveryParts, Retention, Verification, WebhookWorker, WebhookWorkerParts,
};

use self::running::{Parts, Stop};

pub use self::running::RunningServer;

/// This service's name, in traces and audit entries.
const SERVICE: &str = "quittance";

/// Why the server did not start. Says what to do; holds no secret.
#[derive(Debug, Error)]
pub enum StartError {
    /// The keys cannot be used.
    #[error("secrets.keys: {0}")]
    Keys(#[from] KeyRingError),
    /// A provider account or a routing rule cannot be used.
    #[error("providers: {0}")]
    Providers(#[from] quittance_providers::config::ConfigError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] quittance_store::StoreStartError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error("{setting}: cannot listen on {address}: {source}")]
    Listen {
        /// The setting.
        setting: &'static str,
        /// Its value.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The descriptor set of the contract cannot be read: a defect of the build.
    #[error("server reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The start could not be put on record.
    #[error("the start could not be put on record in the audit log: {0}")]
    Trail(#[from] FlowError),
    /// The audit log cannot be signed.
    #[error("audit: {0}")]
    Signing(#[from] SigningError),
    /// Metrics could not be set up.
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
}

/// The server.
pub struct Server;

impl Server {
    /// Starts a server with metrics of its own and whatever tracing subscriber the process has: for
    /// tests and benchmarks, which may run several in one process.
    ///
    /// # Errors
    /// [`StartError`] says what is missing and what to do about it.
    pub async fn start(config: Config) -> Result<RunningServer, StartError> {
        let (telemetry, _dispatch) = Telemetry::new(&config.telemetry)?;
        // On the heap: it holds the whole configuration, and whoever starts a server would too.
        let mut running = Box::pin(Self::start_with(config, &telemetry)).await?;
        running.own_telemetry = Some(telemetry);
        Ok(running)
    }

    /// Starts the server of this process, which has set telemetry up.
    ///
    /// # Errors
    /// [`StartError`] says what is missing and what to do about it.
    pub async fn start_with(
        config: Config,
        telemetry: &Telemetry,
    ) -> Result<RunningServer, StartError> {
        // Other crates may ask for the process's default; a second start finds it installed.
        telemetry::ensure_crypto_provider();
        let metrics = telemetry.metrics();
        let keys = database::key_ring(&config.secrets)?;
        let registry = Registry::from_config(&config.providers, telemetry::inject)?;
        known_labels(&metrics, &config);
        let listeners = bind(&config.server).await?;
        let observer = Arc::new(StoreMetrics(metrics.clone()));
        let store = database::connect(&config.database, keys.clone(), observer).await?;
        let (evidence, signing) = evidence(&config, &keys, &store, &metrics)?;
        store.start_workers_with(WorkerSettings {
            clock_sample: config.database.clock_sample,
            integrate: config.signing.is_some(),
        });
        let tasks = TaskTracker::new();
        let stop = Stop::default();
        let ports = ports(&config, &store, registry, &tasks, &metrics);
        let instance = instance();
        let settings = flow_settings(&config, &keys, instance.clone());
        let log = AuditLog::new(ports.clone(), instance.clone());
        let trail = Trail::new(log.clone(), instance);
        let authenticator = authenticator(&config, &keys, &store);
        let wired = Wired {
            outbox: Arc::<PgStore>::clone(&store),
            sender: Sender::new(config.notifications.sender.clone(), telemetry::inject),
            desk: desk(&store, &ports, &log),
            reconciler: reconciler(&store, &ports, &log),
            flows: Flows::new(ports.clone(), settings),
            erasures: Arc::<PgStore>::clone(&store),
            ports,
            log,
            verifier: verifier(&config, &store, evidence.as_ref()),
            authenticator,
            metrics,
            refusals: Refusals::default(),
            evidence,
            stop,
        };
        let routes = grpc::routes(services(&config, &keys, &wired)?)?;
        let edge = Edge::new(routes, edge(&config.server, &wired));
        // Before the first call: what cannot be recorded is not done.
        let signing_keys = wired.evidence.as_ref().map(|evidence| &*evidence.keys);
        trail.service_started(signing_keys).await?;
        let webhooks = start_workers(&config, &wired, &store, &trail, &tasks);
        start_keepers(&config, &wired, signing, &trail, &tasks);
        start_verification(&config.audit, &wired, &store, &trail, &tasks);
        let http = HttpState {
            readiness: Arc::new(DatabaseReadiness(Arc::clone(&store))),
            prometheus: telemetry.prometheus(),
            stop: wired.stop.accepting.clone(),
        };
        let kept = Parts {
            store,
            tasks,
            stop: wired.stop,
            trail,
            refusals: wired.refusals,
        };
        let side = http::router(http).merge(webhooks::router(webhooks));
        Ok(serve(&config.server, listeners, edge, side, kept))
    }
}

fn verifier(
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

fn authenticator(config: &Config, keys: &KeyRing, store: &Arc<PgStore>) -> Arc<Authenticator> {
    let directory = Arc::new(database::Keys::new(Arc::clone(store)));
    Arc::new(Authenticator::new(directory, keys.clone(), &config.auth))
}

fn desk(store: &Arc<PgStore>, ports: &Ports, log: &AuditLog) -> InboxDesk {
    let inbox = Arc::<PgStore>::clone(store);
    InboxDesk::new(inbox, Arc::clone(&ports.providers), log.clone())
}

fn reconciler(store: &Arc<PgStore>, ports: &Ports, log: &AuditLog) -> Reconciler {
    let (providers, clock) = (Arc::clone(&ports.providers), Arc::clone(&ports.clock));
    Reconciler::new(Arc::<PgStore>::clone(store), providers, clock, log.clone())
}

/// What the edge, the services and the workers share.
struct Wired {
    ports: Ports,
    outbox: Arc<dyn Outbox>,
    sender: Sender,
    flows: Flows,
    desk: InboxDesk,
    log: AuditLog,
    reconciler: Reconciler,
    erasures: Arc<dyn Erasures>,
    verifier: Arc<dyn LogVerifier>,
    authenticator: Arc<Authenticator>,
    metrics: Metrics,
    refusals: Refusals,
    evidence: Option<Evidence>,
    stop: Stop,
}

struct Listeners {
    grpc: Listener,
    http: Listener,
}

async fn bind(config: &ServerConfig) -> Result<Listeners, StartError> {
    let settings = |address, alpn| -> Result<ListenerSettings, StartError> {
        let tls = config
            .tls
            .as_ref()
            .map(|files| net::acceptor(files, alpn))
            .transpose()?;
        Ok(ListenerSettings {
            address,
            tls,
            handshake_timeout: config.handshake_timeout,
            max_connections: config.limits.max_connections,
        })
    };
    let listen = |setting, settings: ListenerSettings| async move {
        let address = settings.address;
        let bound = Listener::bind(settings).await;
        bound.map_err(|source| StartError::Listen {
            setting,
            address,
            source,
        })
    };
    let grpc = listen(
        "server.grpc_listen",
        settings(config.grpc_listen, Alpn::Http2)?,
    )
    .await?;
    let http = listen(
        "server.http_listen",
        settings(config.http_listen, Alpn::Http1)?,
    )
    .await?;
    Ok(Listeners { grpc, http })
}

fn ports(
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

fn flow_settings(config: &Config, keys: &KeyRing, instance: Instance) -> FlowSettings {
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

fn services(config: &Config, keys: &KeyRing, wired: &Wired) -> Result<Services, KeyRingError> {
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
fn evidence(
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

/// Who signs the log, and who has it cosigned.
struct Signing {
    signer: Signer,
    cosigning: Vec<Cosigning>,
}

fn edge(config: &ServerConfig, wired: &Wired) -> EdgeSettings {
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

/// Who signs the log, who erases what is to be erased, and who tells tenants of their events.
fn start_keepers(
    config: &Config,
    wired: &Wired,
    signing: Option<Signing>,
    trail: &Trail,
    tasks: &TaskTracker,
) {
    let accepting = &wired.stop.accepting;
    if let Some(Signing { signer, cosigning }) = signing {
        for witness in cosigning {
            drop(tasks.spawn(witness.run(accepting.clone())));
        }
        drop(tasks.spawn(signer.run(accepting.clone())));
    }
    start_erasing(config, wired, trail, tasks);
    start_notifications(config, wired, trail, tasks);
}

/// What the server does without being called. At the end workers have the same grace as calls. Gives what
/// webhooks are received with, which wakes their worker.
fn start_workers(
    config: &Config,
    wired: &Wired,
    log: &Arc<PgStore>,
    trail: &Trail,
    tasks: &TaskTracker,
) -> WebhookParts {
    let inbox: Arc<dyn Inbox> = Arc::<PgStore>::clone(log);
    let Stop {
        accepting, serving, ..
    } = wired.stop.clone();
    let (store, providers) = (&wired.ports.store, &wired.ports.providers);
    let gauges = Gauges {
        store: Arc::clone(store),
        inbox: Arc::clone(&inbox),
        outbox: Arc::clone(&wired.outbox),
        log: Arc::clone(log),
        keys: wired
            .evidence
            .as_ref()
            .map(|evidence| Arc::clone(&evidence.keys)),
        providers: Arc::clone(providers),
        metrics: wired.metrics.clone(),
        every: config.gauges_every,
    };
    drop(tasks.spawn(gauges.run(accepting.clone())));
    if config.recovery.enabled {
        let recovery = Recovery::new(RecoveryParts {
            flows: wired.flows.clone(),
            store: Arc::clone(store),
            providers: Arc::clone(providers),
            metrics: wired.metrics.clone(),
            settings: config.recovery.clone(),
        });
        drop(tasks.spawn(recovery.run(accepting.clone(), serving.clone())));
    }
    let wake = Arc::<Notify>::default();
    let worker = WebhookWorker::new(WebhookWorkerParts {
        trail: trail.clone(),
        inbox: Arc::clone(&inbox),
        flows: wired.flows.clone(),
        store: Arc::clone(store),
        providers: Arc::clone(providers),
        metrics: wired.metrics.clone(),
        settings: config.webhooks.clone(),
        wake: Arc::clone(&wake),
    });
    drop(tasks.spawn(worker.run(accepting.clone(), serving)));
    let retention = Retention {
        inbox: Arc::clone(&inbox),
        metrics: wired.metrics.clone(),
        settings: config.webhooks.retention,
    };
    drop(tasks.spawn(retention.run(accepting.clone())));
    WebhookParts {
        inbox,
        providers: Arc::clone(providers),
        clock: Arc::clone(&wired.ports.clock),
        random: Arc::clone(&wired.ports.random),
        metrics: wired.metrics.clone(),
        refusals: wired.refusals.clone(),
        settings: config.webhooks.clone(),
        wake,
        stop: accepting,
    }
}

/// Erases personal data, as it was asked for.
fn start_erasing(config: &Config, wired: &Wired, trail: &Trail, tasks: &TaskTracker) {
    let erasing = ErasureWorker {
        erasures: Arc::clone(&wired.erasures),
        trail: trail.clone(),
        poll: config.database.customer_keys_remembered / 2,
    };
    drop(tasks.spawn(erasing.run(wired.stop.accepting.clone())));
}

/// Makes notifications and sends them, where this server shall.
fn start_notifications(config: &Config, wired: &Wired, trail: &Trail, tasks: &TaskTracker) {
    if !config.notifications.enabled {
        return;
    }
    let Stop {
        accepting, serving, ..
    } = wired.stop.clone();
    let parts = NotificationParts {
        outbox: Arc::clone(&wired.outbox),
        store: Arc::clone(&wired.ports.store),
        clock: Arc::clone(&wired.ports.clock),
        trail: trail.clone(),
        sender: wired.sender.clone(),
        metrics: wired.metrics.clone(),
        settings: config.notifications.clone(),
        wake: Arc::default(),
    };
    drop(tasks.spawn(workers::plan(parts.clone(), accepting.clone())));
    let retention = NotificationRetention {
        outbox: Arc::clone(&parts.outbox),
        keep_delivered: parts.settings.keep_delivered,
        keep_dead: parts.settings.keep_dead,
    };
    drop(tasks.spawn(retention.run(accepting.clone())));
    drop(tasks.spawn(Notifier::new(parts).run(accepting, serving)));
}

/// Verifies the log from time to time, where that is wished.
fn start_verification(
    config: &AuditConfig,
    wired: &Wired,
    store: &Arc<PgStore>,
    trail: &Trail,
    tasks: &TaskTracker,
) {
    let Some(every) = config.verify_every else {
        return;
    };
    let verification = Verification {
        schedule: Arc::new(database::Verifier::new(Arc::clone(store), config, None)),
        verifier: Arc::clone(&wired.verifier),
        trail: trail.clone(),
        metrics: wired.metrics.clone(),
        every,
    };
    drop(tasks.spawn(verification.run(wired.stop.accepting.clone())));
}

fn serve(
    config: &ServerConfig,
    listeners: Listeners,
    edge: Edge<EdgeRoutes>,
    router: Router,
    parts: Parts,
) -> RunningServer {
    let (grpc_addr, http_addr) = (listeners.grpc.address(), listeners.http.address());
    let Stop {
        accepting,
        serving,
        watching,
    } = parts.stop.clone();
    let (calls, watchers) = (TaskTracker::new(), TaskTracker::new());
    let http2 = http2(config);
    let (stop, kill) = (accepting.clone(), serving);
    let grpc = listeners
        .grpc
        .run(accepting, calls.clone(), move |connection| {
            net::serve_grpc(
                connection,
                edge.clone(),
                http2.clone(),
                stop.clone(),
                kill.clone(),
            )
        });
    let stop = watching.clone();
    let http = listeners
        .http
        .run(watching, watchers.clone(), move |connection| {
            net::serve_http(connection, router.clone(), stop.clone())
        });
    let trail = parts.trail.clone();
    let recording = trail.keep_refusals(
        parts.refusals.clone(),
        REFUSALS_EVERY,
        parts.stop.accepting.clone(),
    );
    RunningServer {
        grpc_addr,
        http_addr,
        accepting_calls: tokio::spawn(grpc),
        accepting_watchers: tokio::spawn(http),
        recording: tokio::spawn(recording),
        calls,
        watchers,
        grace: config.shutdown_grace,
        parts,
        own_telemetry: None,
    }
}

fn http2(config: &ServerConfig) -> Http2Settings {
    let limits = &config.limits;
    Http2Settings {
        preface_timeout: config.handshake_timeout,
        max_concurrent_streams: limits.max_concurrent_requests_per_connection,
        max_header_list_size: limits.max_metadata_bytes,
        keepalive_interval: limits.keepalive_interval,
        keepalive_timeout: limits.keepalive_timeout,
    }
}

/// This process, as audit entries name it.
pub(crate) fn instance() -> Instance {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_else(|_| "unknown".to_owned());
    Instance {
        service: SERVICE,
        version: env!("CARGO_PKG_VERSION"),
        instance: format!("{}/{}", host.trim(), uuid::Uuid::new_v4()),
    }
}

/// Counters begin at 0, so that the first failure is seen.
fn known_labels(metrics: &Metrics, config: &Config) {
    let accounts: Vec<&str> = config
        .providers
        .accounts
        .iter()
        .map(|account| account.name.as_str())
        .collect();
    metrics.start_at_zero(&KnownLabels {
        idempotent_rpcs: &adapters::idempotent_rpcs(),
        provider_accounts: &accounts,
        operations: &adapters::operations(),
        outcomes: &adapters::outcomes(),
        retries: &adapters::RETRIES,
        recoveries: &workers::RECOVERIES,
        cases: &adapters::cases(),
        webhook_rejections: &webhooks::rejections(),
        audit_checks: &audit_checks(),
    });
}

/// What is checked of the audit log.
fn audit_checks() -> Vec<&'static str> {
    let store = quittance_store::VERIFICATION_CHECKS;
    store
        .into_iter()
        .chain([
            SIGNER_CHECK,
            WITNESS_CHECK,
            grpc::PROOF_CHECK,
            workers::SCHEDULED_CHECK,
        ])
        .collect()
}

struct DatabaseReadiness(Arc<PgStore>);

#[async_trait]
impl Readiness for DatabaseReadiness {
    async fn check(&self) -> Result<(), &'static str> {
        self.0
            .ping()
            .await
            .map_err(|_| "the database is out of reach")
    }
}
