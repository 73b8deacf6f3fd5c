//! Starts and stops the server: everything is wired here and below, and nowhere else.

mod parts;
mod running;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use quittance_domain::context::Instance;
use quittance_domain::error::FlowError;
use quittance_domain::flows::Flows;
use quittance_domain::flows::audit::AuditLog;
use quittance_providers::registry::Registry;
use quittance_store::{KeyRingError, PgStore, WorkerSettings};
use quittance_telemetry::{self as telemetry, KnownLabels, Metrics, Telemetry};
use thiserror::Error;
use tokio_util::task::TaskTracker;

use crate::adapters;
use crate::config::{Config, ServerConfig};
use crate::database::{self, StoreMetrics};
use crate::grpc::{self, EdgeRoutes};
use crate::http::{self, HttpState, Readiness, webhooks};
use crate::layers::{Edge, Refusals};
use crate::net::{self, Alpn, Http2Settings, Listener, ListenerSettings, TlsError};
use crate::notifications::Sender;
use crate::signing::{SIGNER_CHECK, SigningError, WITNESS_CHECK};
use crate::trail::{REFUSALS_EVERY, Trail};
use crate::workers::{RECOVERIES, SCHEDULED_CHECK};

use self::parts::Wired;
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
        let (evidence, signing) = parts::evidence(&config, &keys, &store, &metrics)?;
        store.start_workers_with(WorkerSettings {
            clock_sample: config.database.clock_sample,
            integrate: config.signing.is_some(),
        });
        let tasks = TaskTracker::new();
        let stop = Stop::default();
        let ports = parts::ports(&config, &store, registry, &tasks, &metrics);
        let instance = instance();
        let settings = parts::flow_settings(&config, &keys, instance.clone());
        let log = AuditLog::new(ports.clone(), instance.clone());
        let trail = Trail::new(log.clone(), instance);
        let authenticator = parts::authenticator(&config, &keys, &store);
        let wired = Wired {
            outbox: Arc::<PgStore>::clone(&store),
            sender: Sender::new(config.notifications.sender.clone(), telemetry::inject),
            desk: parts::desk(&store, &ports, &log),
            reconciler: parts::reconciler(&store, &ports, &log),
            flows: Flows::new(ports.clone(), settings),
            erasures: Arc::<PgStore>::clone(&store),
            ports,
            log,
            verifier: parts::verifier(&config, &store, evidence.as_ref()),
            authenticator,
            metrics,
            refusals: Refusals::default(),
            evidence,
            stop,
        };
        let routes = grpc::routes(parts::services(&config, &keys, &wired)?)?;
        let edge = Edge::new(routes, parts::edge(&config.server, &wired));
        // Before the first call: what cannot be recorded is not done.
        let signing_keys = wired.evidence.as_ref().map(|evidence| &*evidence.keys);
        trail.service_started(signing_keys).await?;
        let webhooks = workers::start_workers(&config, &wired, &store, &trail, &tasks);
        workers::start_keepers(&config, &wired, signing, &trail, &tasks);
        workers::start_verification(&config.audit, &wired, &store, &trail, &tasks);
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
        recoveries: &RECOVERIES,
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
            SCHEDULED_CHECK,
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
