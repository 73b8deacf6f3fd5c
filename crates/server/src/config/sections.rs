//! The sections of the configuration, parsed.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quittance_domain::retry::RetryPolicy;
use quittance_providers::config::ProvidersConfig;
use quittance_telemetry::{LogFormat, OtlpProtocol};
use zeroize::Zeroizing;

use super::audit::AuditConfig;
use super::error::ConfigError;
use super::notifications::NotificationsConfig;
use super::recovery::{self, RecoveryConfig};
use super::secret::Secret;
use super::settings::{Settings, Sources};
use super::signing::SigningConfig;
use super::webhooks::WebhooksConfig;

/// Bytes of a master key.
const MASTER_KEY_BYTES: usize = 32;
/// Longest id of a master key; it is stored beside every ciphertext.
const MASTER_KEY_ID_MAX: usize = 64;

/// Everything that `serve` needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses, TLS and limits.
    pub server: ServerConfig,
    /// The database.
    pub database: DatabaseConfig,
    /// The master keys.
    pub secrets: SecretsConfig,
    /// Provider accounts and routing.
    pub providers: ProvidersConfig,
    /// How payments are handled.
    pub payments: PaymentsConfig,
    /// How payments without an outcome are recovered.
    pub recovery: RecoveryConfig,
    /// The audit log.
    pub audit: AuditConfig,
    /// How webhooks are received and applied.
    pub webhooks: WebhooksConfig,
    /// How tenants are told of their events.
    pub notifications: NotificationsConfig,
    /// How the log is signed; `None`: it is not.
    pub signing: Option<SigningConfig>,
    /// How callers are known.
    pub auth: AuthConfig,
    /// Logs, traces and metrics.
    pub telemetry: quittance_telemetry::TelemetryConfig,
    /// How often gauges that the database has to be asked for are measured.
    pub gauges_every: Duration,
}

impl Config {
    /// Gathers and parses.
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that is wrong.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Self::parse(&Settings::gather(sources)?)
    }

    /// Parses gathered settings.
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that is wrong.
    pub fn parse(settings: &Settings) -> Result<Self, ConfigError> {
        let config = Self {
            server: ServerConfig::parse(settings)?,
            audit: AuditConfig::parse(settings)?,
            database: DatabaseConfig::parse(settings)?,
            secrets: SecretsConfig::parse(settings)?,
            providers: super::providers::parse(settings)?,
            notifications: NotificationsConfig::parse(settings)?,
            payments: PaymentsConfig::parse(settings)?,
            recovery: RecoveryConfig::parse(settings)?,
            webhooks: WebhooksConfig::parse(settings)?,
            signing: SigningConfig::parse(settings)?,
            auth: AuthConfig::parse(settings)?,
            telemetry: telemetry(settings)?,
            gauges_every: settings.millis("telemetry.gauge_interval_ms", 100..=600_000)?,
        };
        config.check_waits(settings)?;
        Ok(config)
    }

    /// A call that is cut off is DEADLINE_EXCEEDED although its payment may be accepted: whatever a call waits for
    /// has to end, and its answer to be given, before `server.limits.request_timeout_ms`.
    fn check_waits(&self, settings: &Settings) -> Result<(), ConfigError> {
        let limit = self.server.limits.request_timeout;
        let margin = self.payments.answer_margin;
        let reason = format!(
            "must, with payments.answer_margin_ms ({} ms), be below server.limits.request_timeout_ms ({} ms)",
            margin.as_millis(),
            limit.as_millis()
        );
        if self.payments.default_wait + margin >= limit {
            return Err(settings.invalid("payments.default_wait_ms", reason));
        }
        self.check_accounts(settings, |timeout| {
            let slow = timeout.saturating_add(margin) >= limit;
            slow.then(|| format!("total_timeout_ms {reason}"))
        })?;
        // Each call waits for its turn and for its answer: of recovery a lookup and a send, of a webhook up to five lookups
        // (which payment, what holds of it, what its dispute is about, and both once more after they were applied).
        for (setting, claim, (waits, share)) in [
            (
                "recovery.claim_seconds",
                self.recovery.claim,
                (4, "a quarter"),
            ),
            (
                "webhooks.claim_seconds",
                self.webhooks.claim,
                (10, "a tenth"),
            ),
        ] {
            self.check_accounts(settings, |timeout| {
                let slow = timeout.saturating_mul(waits) >= claim;
                let reason = format!("total_timeout_ms must be below {share} of {setting}");
                slow.then(|| format!("{reason} ({} s)", claim.as_secs()))
            })?;
        }
        Ok(())
    }

    /// Refuses the first account whose total timeout is refused.
    fn check_accounts(
        &self,
        settings: &Settings,
        refused: impl Fn(Duration) -> Option<String>,
    ) -> Result<(), ConfigError> {
        let accounts = (1..).zip(&self.providers.accounts);
        let refused = accounts.filter_map(|(number, account)| {
            let reason = refused(Duration::from_millis(account.total_timeout_ms))?;
            Some((number, reason))
        });
        match refused.into_iter().next() {
            Some((number, reason)) => Err(settings.invalid(
                "providers.accounts",
                format_args!("entry {number}: {reason}"),
            )),
            None => Ok(()),
        }
    }
}

/// Who may use server reflection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReflectionAccess {
    /// Anybody.
    Open,
    /// Any valid API key.
    Authenticated,
    /// Nobody: the services are not served.
    Off,
}

/// Section `[server]`.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where gRPC is served.
    pub grpc_listen: SocketAddr,
    /// Where `/healthz`, `/readyz`, `/metrics` and webhooks are served.
    pub http_listen: SocketAddr,
    /// The certificate; `None`: plaintext, and both addresses are loopback.
    pub tls: Option<TlsFiles>,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long calls in flight may take to finish at the end.
    pub shutdown_grace: Duration,
    /// Who may use server reflection.
    pub reflection: ReflectionAccess,
    /// Limits.
    pub limits: LimitsConfig,
}

/// Where the certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file with the chain.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

impl ServerConfig {
    fn parse(settings: &Settings) -> Result<Self, ConfigError> {
        let grpc_listen = settings.address("server.grpc_listen")?;
        let http_listen = settings.address("server.http_listen")?;
        Ok(Self {
            grpc_listen,
            http_listen,
            tls: tls_files(settings, [grpc_listen, http_listen])?,
            handshake_timeout: settings.millis("server.tls.handshake_timeout_ms", 100..=60_000)?,
            shutdown_grace: settings.seconds("server.shutdown_grace_seconds", 0..=3_600)?,
            reflection: settings.choice(
                "server.reflection",
                &[
                    ("open", ReflectionAccess::Open),
                    ("authenticated", ReflectionAccess::Authenticated),
                    ("off", ReflectionAccess::Off),
                ],
            )?,
            limits: LimitsConfig::parse(settings)?,
        })
    }
}

fn tls_files(
    settings: &Settings,
    addresses: [SocketAddr; 2],
) -> Result<Option<TlsFiles>, ConfigError> {
    const CERTIFICATE: &str = "server.tls.certificate_file";
    const KEY: &str = "server.tls.key_file";
    let files = (settings.text(CERTIFICATE)?, settings.text(KEY)?);
    if settings.flag("server.plaintext")? {
        if addresses.iter().any(|address| !address.ip().is_loopback()) {
            let reason = "is only allowed while grpc_listen and http_listen are loopback addresses";
            return Err(settings.invalid("server.plaintext", reason));
        }
        return match files {
            (None, None) => Ok(None),
            (_, _) => Err(settings.invalid("server.plaintext", "contradicts server.tls")),
        };
    }
    match files {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles {
            certificate: certificate.into(),
            key: key.into(),
        })),
        (None, _) => Err(settings.invalid(
            CERTIFICATE,
            "a certificate is needed (or server.plaintext = true, on loopback)",
        )),
        (Some(_), None) => Err(settings.invalid(KEY, "the certificate's private key is needed")),
    }
}

/// Section `[server.limits]`.
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// Connections open at once, of each listener.
    pub max_connections: usize,
    /// Calls open at once on one connection.
    pub max_concurrent_requests_per_connection: u32,
    /// Unary calls worked on at once.
    pub max_in_flight: usize,
    /// Bytes of one request message.
    pub max_request_bytes: usize,
    /// Bytes of all metadata of one request.
    pub max_metadata_bytes: u32,
    /// Streams of one tenant.
    pub max_streams_per_tenant: usize,
    /// Calls of one tenant each second, on average; `None`: as many as it likes.
    pub tenant_requests_per_second: Option<NonZeroU32>,
    /// Calls that a tenant may make at once after a pause.
    pub tenant_burst: NonZeroU32,
    /// How long a unary call may take.
    pub request_timeout: Duration,
    /// Pause after which a silent connection is pinged.
    pub keepalive_interval: Duration,
    /// How long the answer to a ping may take.
    pub keepalive_timeout: Duration,
}

impl LimitsConfig {
    fn parse(settings: &Settings) -> Result<Self, ConfigError> {
        Ok(Self {
            max_connections: settings.number("server.limits.max_connections", 1..=100_000)?,
            max_concurrent_requests_per_connection: settings.number(
                "server.limits.max_concurrent_requests_per_connection",
                1..=10_000,
            )?,
            max_in_flight: settings.number("server.limits.max_in_flight", 1..=1_000_000)?,
            max_request_bytes: settings
                .number("server.limits.max_request_bytes", 1_024..=16_777_216)?,
            max_metadata_bytes: settings
                .number("server.limits.max_metadata_bytes", 1_024..=1_048_576)?,
            max_streams_per_tenant: settings
                .number("server.limits.max_streams_per_tenant", 1..=100_000)?,
            tenant_requests_per_second: NonZeroU32::new(
                settings.number("server.limits.tenant_requests_per_second", 0..=1_000_000)?,
            ),
            tenant_burst: NonZeroU32::new(
                settings.number("server.limits.tenant_burst", 1..=1_000_000)?,
            )
            .unwrap_or(NonZeroU32::MIN),
            request_timeout: settings
                .millis("server.limits.request_timeout_ms", 1_000..=600_000)?,
            keepalive_interval: settings
                .seconds("server.limits.keepalive_interval_seconds", 1..=3_600)?,
            keepalive_timeout: settings
                .seconds("server.limits.keepalive_timeout_seconds", 1..=600)?,
        })
    }
}

/// Section `[database]`.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// The URL, password included.
    pub url: Secret,
    /// PEM file with the authorities of the database's certificate; `None`: the platform's.
    pub ca_file: Option<PathBuf>,
    /// The role that every connection takes.
    pub application_role: String,
    /// Connections for reading.
    pub pool_size: usize,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long one statement may take.
    pub statement_timeout: Duration,
    /// Connections that commit.
    pub committers: usize,
    /// Changes that may wait for one of them.
    pub commit_queue: usize,
    /// How long a read waits for a connection, and a change for a lost database.
    pub unavailable_after: Duration,
    /// How long the outcome of a lost commit is sought.
    pub commit_resolution_timeout: Duration,
    /// How often the database's clock is looked at.
    pub clock_sample: Duration,
    /// How long customers' keys are remembered.
    pub customer_keys_remembered: Duration,
    /// Start although the database is not durable.
    pub allow_unsafe_durability: bool,
}

impl DatabaseConfig {
    /// Parses this section alone, for commands that need no other.
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that is wrong.
    pub fn parse(settings: &Settings) -> Result<Self, ConfigError> {
        const ROLE: &str = "database.application_role";
        let url = settings.secret("database.url")?.ok_or_else(|| {
            let reason = "the database's URL is needed (or in the variable DATABASE_URL)";
            settings.invalid("database.url", reason)
        })?;
        let role = settings.text(ROLE)?.unwrap_or_default();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        // An identifier of PostgreSQL that needs no quotes; at most NAMEDATALEN - 1 bytes.
        if role.is_empty() || role.len() > 63 || !role.chars().all(plain) {
            return Err(settings.invalid(ROLE, "must be 1 to 63 of a-z 0-9 _"));
        }
        Ok(Self {
            url,
            ca_file: settings.text("database.ca_file")?.map(PathBuf::from),
            application_role: role,
            pool_size: settings.number("database.pool_size", 1..=1_000)?,
            connect_timeout: settings.millis("database.connect_timeout_ms", 100..=60_000)?,
            statement_timeout: settings.millis("database.statement_timeout_ms", 100..=60_000)?,
            committers: settings.number("database.committers", 1..=16)?,
            commit_queue: settings.number("database.commit_queue", 1..=1_000_000)?,
            unavailable_after: settings.millis("database.unavailable_after_ms", 100..=60_000)?,
            commit_resolution_timeout: settings
                .millis("database.commit_resolution_timeout_ms", 100..=60_000)?,
            clock_sample: settings.millis("database.clock_sample_ms", 100..=600_000)?,
            customer_keys_remembered: settings
                .millis("database.customer_keys_remembered_ms", 100..=3_600_000)?,
            allow_unsafe_durability: settings.flag("database.allow_unsafe_durability")?,
        })
    }
}

/// One master key: everything else is derived from it.
#[derive(Clone)]
pub struct MasterKey {
    /// Its name, stored beside what it protects.
    pub id: String,
    /// The key.
    pub secret: Zeroizing<[u8; MASTER_KEY_BYTES]>,
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MasterKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Section `[secrets]`.
#[derive(Debug, Clone)]
pub struct SecretsConfig {
    /// The key for new data.
    pub active: MasterKey,
    /// Keys that still open old data.
    pub older: Vec<MasterKey>,
}

impl SecretsConfig {
    /// Parses this section alone, for commands that need no other.
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that is wrong.
    pub fn parse(settings: &Settings) -> Result<Self, ConfigError> {
        const KEYS: &str = "secrets.keys";
        const FILE: &str = "secrets.keys_file";
        let given = settings.texts(KEYS)?;
        let (key, lines) = match settings.text(FILE)? {
            Some(_) if !given.is_empty() => {
                return Err(settings.invalid(FILE, "secrets.keys is set too; set one of them"));
            }
            Some(path) => {
                let text = super::settings::read(FILE, path.as_ref())?;
                (FILE, text.lines().map(str::to_owned).collect())
            }
            None => (KEYS, given),
        };
        let mut keys = Vec::new();
        for line in lines
            .iter()
            .map(|line| line.trim())
            .filter(|line| !line.is_empty())
        {
            let parsed = master_key(line).ok_or_else(|| {
                let reason =
                    "each key must be id:base64 of 32 bytes (id: 1 to 64 of A-Z a-z 0-9 . _ -)";
                settings.invalid(key, reason)
            })?;
            if keys.iter().any(|known: &MasterKey| known.id == parsed.id) {
                return Err(settings.invalid(key, format_args!("key {} appears twice", parsed.id)));
            }
            keys.push(parsed);
        }
        if keys.is_empty() {
            return Err(settings.invalid(KEYS, "at least one key is needed"));
        }
        Ok(Self {
            active: keys.remove(0),
            older: keys,
        })
    }
}

fn master_key(line: &str) -> Option<MasterKey> {
    let (id, encoded) = line.split_once(':')?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if id.is_empty() || id.len() > MASTER_KEY_ID_MAX || !id.bytes().all(plain) {
        return None;
    }
    let bytes = Zeroizing::new(STANDARD.decode(encoded.trim()).ok()?);
    let secret = <[u8; MASTER_KEY_BYTES]>::try_from(bytes.as_slice()).ok()?;
    Some(MasterKey {
        id: id.to_owned(),
        secret: Zeroizing::new(secret),
    })
}

/// Section `[payments]`.
#[derive(Debug, Clone)]
pub struct PaymentsConfig {
    /// How long before a caller's deadline it is answered.
    pub answer_margin: Duration,
    /// How long a caller without a deadline is kept waiting.
    pub default_wait: Duration,
    /// How often a change is decided again after losing a race.
    pub max_decisions: u32,
    /// How long an outcome is offered to a lost database.
    pub outcome_patience: Duration,
    /// How long beyond the provider's timeout a sender is taken to be alive.
    pub lease_margin: Duration,
    /// Commands that may be carried out at once, those included whose callers have their answer.
    pub max_commands_in_flight: usize,
    /// When what has no outcome is taken up again, and when a person is asked.
    pub retries: RetryPolicy,
}

impl PaymentsConfig {
    fn parse(settings: &Settings) -> Result<Self, ConfigError> {
        Ok(Self {
            answer_margin: settings.millis("payments.answer_margin_ms", 0..=10_000)?,
            default_wait: settings.millis("payments.default_wait_ms", 100..=300_000)?,
            max_decisions: settings.number("payments.max_decisions", 1..=100)?,
            outcome_patience: settings.millis("payments.outcome_patience_ms", 1_000..=600_000)?,
            lease_margin: settings.millis("payments.lease_margin_ms", 1_000..=600_000)?,
            max_commands_in_flight: settings
                .number("payments.max_commands_in_flight", 1..=1_000_000)?,
            retries: recovery::retries(settings)?,
        })
    }
}

/// Section `[auth]`.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// How long a looked-up key is remembered.
    pub cache_ttl: Duration,
    /// Keys remembered at once.
    pub cache_entries: usize,
    /// How often the key of an open stream is looked at again.
    pub stream_recheck: Duration,
}

impl AuthConfig {
    fn parse(settings: &Settings) -> Result<Self, ConfigError> {
        Ok(Self {
            cache_ttl: settings.millis("auth.cache_ttl_ms", 0..=300_000)?,
            cache_entries: settings.number("auth.cache_entries", 1..=1_000_000)?,
            stream_recheck: settings.millis("auth.stream_recheck_ms", 100..=30_000)?,
        })
    }
}

/// Parses section `[telemetry]` alone: logs begin before the rest is parsed.
///
/// # Errors
/// [`ConfigError`] names the first setting that is wrong.
pub fn telemetry(settings: &Settings) -> Result<quittance_telemetry::TelemetryConfig, ConfigError> {
    Ok(quittance_telemetry::TelemetryConfig {
        log_filter: settings
            .text("telemetry.log_filter")?
            .unwrap_or_else(|| "off".to_owned()),
        log_format: settings.choice(
            "telemetry.log_format",
            &[("json", LogFormat::Json), ("readable", LogFormat::Readable)],
        )?,
        otlp_endpoint: settings.text("telemetry.otlp_endpoint")?,
        otlp_protocol: settings.choice(
            "telemetry.otlp_protocol",
            &[
                ("", None),
                ("grpc", Some(OtlpProtocol::Grpc)),
                ("http/protobuf", Some(OtlpProtocol::HttpProtobuf)),
            ],
        )?,
        shutdown_timeout: settings.millis("telemetry.shutdown_timeout_ms", 100..=60_000)?,
        ..quittance_telemetry::TelemetryConfig::default()
    })
}
