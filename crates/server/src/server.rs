//! Starts and stops the server: everything is wired here, and nowhere else.

mod running;

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use quittance_domain::context::Instance;
use quittance_domain::error::FlowError;
use quittance_domain::fingerprint::FingerprintKey;
use quittance_domain::flows::audit::AuditLog;
use quittance_domain::flows::{FlowSettings, Flows};
use quittance_domain::ports::Ports;
use quittance_providers::registry::Registry;
use quittance_store::{KeyRing, KeyRingError, PgStore};
use quittance_telemetry::{self as telemetry, KnownLabels, Metrics, Telemetry};
use thiserror::Error;
use tokio_util::task::TaskTracker;

use crate::adapters::{self, OsRandomness, SystemClock, TelemetryObserver, TrackedSpawn};
use crate::auth::Authenticator;
use crate::config::{Config, LimitsConfig, ServerConfig};
use crate::database::{self, StoreMetrics};
use crate::grpc::{self, EdgeRoutes, Services, Tokens};
use crate::http::{HttpState, Readiness};
use crate::layers::{Edge, EdgeSettings, Methods, Refusals};
use crate::net::{self, Alpn, Http2Settings, Listener, ListenerSettings, TlsError};
use crate::trail::{REFUSALS_EVERY, Trail};

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
        let mut running = Self::start_with(config, &telemetry).await?;
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
        let _ = rustls::crypto::ring::default_provider().install_default();
        let metrics = telemetry.metrics();
        let keys = database::key_ring(&config.secrets)?;
        let registry = Registry::from_config(&config.providers, telemetry::inject)?;
        known_labels(&metrics, &config);
        let listeners = bind(&config.server).await?;
        let observer = Arc::new(StoreMetrics(metrics.clone()));
        let store = database::connect(&config.database, keys.clone(), observer).await?;
        store.start_workers();
        let tasks = TaskTracker::new();
        let stop = Stop::default();
        let ports = ports(&config, &store, registry, &tasks, &metrics);
        let authenticator = Arc::new(Authenticator::new(
            Arc::new(database::Keys::new(Arc::clone(&store))),
            keys.clone(),
            &config.auth,
        ));
        let instance = instance();
        let log = AuditLog::new(ports.clone(), instance.clone());
        let trail = Trail::new(log.clone(), instance.clone());
        let services = services(
            &config,
            &keys,
            Wired {
                ports: &ports,
                log,
                instance,
                authenticator: &authenticator,
                stop: &stop,
            },
        )?;
        let routes = grpc::routes(services)?;
        let refusals = Refusals::default();
        let settings = edge(&config.server, authenticator, metrics, &refusals, &ports);
        let edge = Edge::new(routes, settings);
        // Before the first call: what cannot be recorded is not done.
        trail.service_started().await?;
        let http = HttpState {
            readiness: Arc::new(DatabaseReadiness(Arc::clone(&store))),
            prometheus: telemetry.prometheus(),
            stop: stop.accepting.clone(),
        };
        Ok(serve(
            &config.server,
            listeners,
            edge,
            http,
            Parts {
                store,
                tasks,
                stop,
                trail,
                refusals,
            },
        ))
    }
}

/// What the services share with the rest of the server.
struct Wired<'a> {
    ports: &'a Ports,
    log: AuditLog,
    instance: Instance,
    authenticator: &'a Arc<Authenticator>,
    stop: &'a Stop,
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
        clock: Arc::new(SystemClock),
        spawn: Arc::new(TrackedSpawn::new(
            tasks.clone(),
            config.payments.max_commands_in_flight,
        )),
        random: Arc::new(OsRandomness::default()),
        observer: Arc::new(TelemetryObserver::new(metrics.clone())),
    }
}

fn services(config: &Config, keys: &KeyRing, wired: Wired<'_>) -> Result<Services, KeyRingError> {
    let ports = wired.ports;
    let flows = Flows::new(
        ports.clone(),
        FlowSettings {
            instance: wired.instance,
            fingerprint_key: FingerprintKey::new(keys.fingerprint_key()),
            answer_margin: config.payments.answer_margin,
            default_wait: config.payments.default_wait,
            max_decisions: config.payments.max_decisions,
            outcome_patience: config.payments.outcome_patience,
            lease_margin: config.payments.lease_margin,
        },
    );
    Ok(Services {
        flows,
        audit: wired.log,
        store: Arc::clone(&ports.store),
        clock: Arc::clone(&ports.clock),
        authenticator: Arc::clone(wired.authenticator),
        stream_recheck: config.auth.stream_recheck,
        tokens: Tokens::new(&keys.page_token_keys()).ok_or(KeyRingError::Empty)?,
        max_request_bytes: config.server.limits.max_request_bytes,
        max_streams_per_tenant: config.server.limits.max_streams_per_tenant,
        stop: wired.stop.accepting.clone(),
    })
}

fn edge(
    config: &ServerConfig,
    authenticator: Arc<Authenticator>,
    metrics: Metrics,
    refusals: &Refusals,
    ports: &Ports,
) -> EdgeSettings {
    EdgeSettings {
        methods: Methods::new(config.reflection),
        authenticator,
        refusals: refusals.clone(),
        metrics,
        clock: Arc::clone(&ports.clock),
        random: Arc::clone(&ports.random),
        max_in_flight: config.limits.max_in_flight,
        request_timeout: config.limits.request_timeout,
        status: grpc::refusal,
    }
}

fn serve(
    config: &ServerConfig,
    listeners: Listeners,
    edge: Edge<EdgeRoutes>,
    http: HttpState,
    parts: Parts,
) -> RunningServer {
    let (grpc_addr, http_addr) = (listeners.grpc.address(), listeners.http.address());
    let Stop { accepting, serving } = parts.stop.clone();
    let connections = TaskTracker::new();
    let http2 = http2(&config.limits);
    let (stop, kill) = (accepting.clone(), serving.clone());
    let grpc = listeners
        .grpc
        .run(accepting.clone(), connections.clone(), move |connection| {
            net::serve_grpc(
                connection,
                edge.clone(),
                http2.clone(),
                stop.clone(),
                kill.clone(),
            )
        });
    let router = crate::http::router(http);
    let stop = accepting.clone();
    let http = listeners
        .http
        .run(accepting, connections.clone(), move |connection| {
            net::serve_http(connection, router.clone(), stop.clone(), serving.clone())
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
        acceptors: vec![tokio::spawn(grpc), tokio::spawn(http)],
        recording: tokio::spawn(recording),
        connections,
        grace: config.shutdown_grace,
        parts,
        own_telemetry: None,
    }
}

fn http2(limits: &LimitsConfig) -> Http2Settings {
    Http2Settings {
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
    });
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
