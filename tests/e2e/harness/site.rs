//! What replicas share: a database, a provider, keys. Each test has a site of its own.

use std::net::SocketAddr;
use std::time::Duration;

use chrono::SubsecRound as _;
use quittance_sandbox::{Books, Charged, Sandbox, SandboxConfig, SandboxHandle};
use quittance_server::auth::{ApiKey, Role};
use quittance_server::config::{Config, Sources};
use quittance_server::signing;
use quittance_store::{ApiKeyFacts, KeyRing};
use quittance_test_support::TestDb;
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use toml::{Table, Value};

use super::database::Database;
use super::tls::pki;
use super::{Client, Links};

/// The tenant of most callers.
pub const TENANT: &str = "acme";
/// The provider account of every site.
pub const ACCOUNT: &str = "sandbox";
/// The name of every site's log.
pub const LOG_NAME: &str = "quittance.test/log";
pub const SANDBOX_KEY: &str = "sandbox-key";
/// The id of the key ring's only key.
pub const KEY_ID: &str = "e2e";
const MASTER_KEY: [u8; 32] = [7; 32];
/// How long a provider's answer is waited for, unless a test says otherwise.
pub const PROVIDER_TIMEOUT_MS: i64 = 28_000;
/// Everything that a caller of a tenant may do.
pub const TENANT_ROLES: [Role; 4] = [
    Role::PaymentsWrite,
    Role::PaymentsRefund,
    Role::PaymentsRead,
    Role::AuditRead,
];

/// A setting by its dotted path.
pub type Setting = (&'static str, Value);

/// How a site differs from the usual one.
pub struct SiteOptions {
    /// How long the provider's answer is waited for. Milliseconds.
    pub provider_timeout_ms: i64,
    /// How long the provider's lookup may miss what it has processed; while not zero, to find nothing proves nothing.
    pub lookup_window: Duration,
    /// Settings of every replica.
    pub settings: Vec<Setting>,
    /// A migrated database of the test's own instead of a fresh one.
    pub database_url: Option<String>,
    /// Whether every replica goes through [`Site::links`].
    pub behind_proxies: bool,
}

impl Default for SiteOptions {
    fn default() -> Self {
        Self {
            // Under half of the time for which what is claimed is left alone.
            provider_timeout_ms: PROVIDER_TIMEOUT_MS,
            lookup_window: Duration::ZERO,
            settings: Vec::new(),
            database_url: None,
            behind_proxies: false,
        }
    }
}

impl SiteOptions {
    /// A provider that is given up on soon: for answers that never come.
    pub fn impatient() -> Self {
        Self {
            provider_timeout_ms: 3_000,
            ..Self::default()
        }
    }

    /// Servers that die: what they were sending is taken over after three seconds.
    pub fn short_leases() -> Self {
        Self {
            provider_timeout_ms: 1_000,
            ..Self::default()
        }
        .with("payments.lease_margin_ms", 2_000)
        // The least that is allowed: above four times the provider's time.
        .with("recovery.claim_seconds", 5)
    }

    /// Servers that recover by themselves, soon and often.
    pub fn recovering(self) -> Self {
        let mut options = self
            .with("recovery.enabled", true)
            .with("recovery.poll_interval_ms", 50);
        for schedule in ["unreachable", "not_let_in", "outcome_unknown", "undecided"] {
            let key = |part: &str| -> &'static str {
                // A few per test: settings are named by constants everywhere else.
                format!("payments.retries.{schedule}.{part}").leak()
            };
            options = options.with(key("first_ms"), 50).with(key("max_ms"), 300);
        }
        options
    }

    /// Servers that give up on their database as soon as they do by default.
    pub fn soon_without_database(self) -> Self {
        let limits = DATABASE_LIMITS.into_iter();
        limits.fold(self, |options, (key, value)| options.with(key, value))
    }

    /// With proxies between every replica and what it depends on.
    pub fn behind_proxies(mut self) -> Self {
        self.behind_proxies = true;
        self
    }

    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.settings.push((key, value.into()));
        self
    }
}

pub struct Site {
    pub db: Database,
    pub sandbox: SandboxHandle,
    pub keys: KeyRing,
    database_url: String,
    settings: Vec<Setting>,
    links: Option<Links>,
    /// Keys and state of the signer, shared by all replicas.
    pub audit: TempDir,
    /// Drops the database at the end.
    _test_db: Option<TestDb>,
    _place: SemaphorePermit<'static>,
}

/// Sites at once, so that a machine of many cores does not run out of database connections.
static PLACES: Semaphore = Semaphore::const_new(8);

impl Site {
    pub async fn new(options: SiteOptions) -> Self {
        let place = PLACES.acquire().await.unwrap();
        let (test_db, database_url) = if let Some(url) = options.database_url {
            (None, url)
        } else {
            let test_db = TestDb::new().await;
            let url = test_db.url().to_owned();
            (Some(test_db), url)
        };
        let sandbox = Sandbox::start(SandboxConfig {
            lookup_window: options.lookup_window,
            ..SandboxConfig::new(SANDBOX_KEY)
        })
        .await
        .unwrap();
        let base_url = sandbox.base_url();
        let account = account(ACCOUNT, &base_url, options.provider_timeout_ms);
        let mut settings = common_settings(&database_url, account);
        let audit = tempfile::tempdir().unwrap();
        settings.extend(signing::set_up(audit.path(), LOG_NAME).unwrap());
        settings.extend(options.settings);
        let links = if options.behind_proxies {
            let links = Links::between(&settings, sandbox.addr()).await;
            settings.extend(links.settings());
            Some(links)
        } else {
            None
        };
        Self {
            db: Database::connect(&database_url).await,
            sandbox,
            keys: KeyRing::new([(KEY_ID.to_owned(), MASTER_KEY)]).unwrap(),
            database_url,
            settings,
            links,
            audit,
            _test_db: test_db,
            _place: place,
        }
    }

    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// The proxies that every replica goes through, of a site that was asked for them.
    pub fn links(&self) -> &Links {
        self.links.as_ref().expect("a site behind proxies")
    }

    /// The settings of a replica.
    pub fn settings(&self) -> Vec<Setting> {
        self.settings.clone()
    }

    /// The configuration of a replica in this process.
    pub fn config(&self) -> Config {
        self.config_with(Vec::new())
    }

    /// The same with settings of its own.
    pub fn config_with(&self, settings: Vec<Setting>) -> Config {
        let mut forced = self.settings();
        forced.extend(settings);
        Config::load(&Sources {
            forced,
            ..Sources::default()
        })
        .unwrap()
    }

    /// A new API key.
    pub async fn api_key(&self, tenant: &str, roles: &[Role]) -> String {
        let key = ApiKey::generate().unwrap();
        let hash = key.hash(&self.keys);
        let roles: Vec<_> = roles.iter().map(|role| role.name()).collect();
        let created_at = chrono::Utc::now().trunc_subsecs(6);
        let sql = "insert into tenants (tenant_id) values ($1) on conflict do nothing";
        self.db.execute(sql, &[&tenant]).await;
        let sql = "insert into api_keys (key_id, tenant_id, name, roles, secret_mac, mac_key_id, row_mac, created_at) \
                   values ($1, $2, 'e2e', $3, $4, $5, $6, to_timestamp($7::bigint / 1000000.0))";
        let id = key.id().as_str();
        let facts = ApiKeyFacts {
            key_id: id,
            tenant,
            name: "e2e",
            roles: &roles.join(" "),
            created_at,
            secret_mac: &hash.mac,
        };
        let row_mac = self.keys.api_key_row_mac(&facts, &hash.mac_key_id);
        let row_mac = row_mac.unwrap().to_vec();
        let created_at = created_at.timestamp_micros();
        self.db
            .execute(
                sql,
                &[
                    &id,
                    &tenant,
                    &roles,
                    &hash.mac,
                    &hash.mac_key_id,
                    &row_mac,
                    &created_at,
                ],
            )
            .await;
        key.reveal().to_string()
    }

    /// A caller of a server of this site.
    pub async fn caller(&self, server: SocketAddr, tenant: &str, roles: &[Role]) -> Client {
        Client::new(server).with_key(&self.api_key(tenant, roles).await)
    }

    /// Lets so much time pass that no sender of an unanswered request can be alive: only then is a
    /// provider's "not found" proof, and the request sent again.
    pub async fn let_leases_run_out(&self) {
        let sql = "update transactions set lease_until = now() - interval '1 second' \
                   where lease_until is not null";
        self.db.execute(sql, &[]).await;
    }

    /// Lets the leases run out of those alone who were not answered, and so send no more; what they sent is looked for at
    /// once. For loops that wait until a server has found out by itself.
    pub async fn let_unanswered_leases_run_out(&self) {
        let sql = "update transactions set lease_until = now() - interval '1 second', next_step_at = now() \
                   where lease_until > now() and next_step_at is distinct from lease_until";
        self.db.execute(sql, &[]).await;
    }

    /// Lets so much time pass that nobody is taken to be sending, or at work on anything, any more: every server that was
    /// has died.
    pub async fn all_senders_are_gone(&self) {
        // Whoever is sending has the end of its lease as next step.
        self.db
            .batch(
                "update transactions set next_step_at = case when next_step_at = lease_until \
                 then now() - interval '1 minute' else next_step_at end, \
                 lease_until = now() - interval '1 minute' where lease_until is not null; \
                 update transactions set claimed_until = null where claimed_until is not null",
            )
            .await;
    }

    /// Lets the waits end that stand before what is not being sent: its next step is due.
    pub async fn let_waits_end(&self) {
        let sql = "update transactions set next_step_at = now() \
                   where next_step_at is not null and next_step_at is distinct from lease_until";
        self.db.execute(sql, &[]).await;
    }

    /// What the provider really charged, in total.
    pub fn books(&self) -> Books {
        self.sandbox.books()
    }

    /// What the provider really charged for one transaction.
    pub fn charged(&self, transaction_id: &str) -> Charged {
        self.sandbox.charged(transaction_id)
    }
}

/// An account at a sandbox.
pub fn account(name: &str, base_url: &str, timeout_ms: i64) -> Table {
    let mut account = Table::new();
    for (key, value) in [
        ("name", Value::from(name)),
        ("kind", Value::from("sandbox")),
        ("base_url", Value::from(base_url)),
        ("api_key", Value::from(SANDBOX_KEY)),
        ("connect_timeout_ms", Value::from(timeout_ms / 2)),
        ("total_timeout_ms", Value::from(timeout_ms)),
        ("allow_plaintext", Value::from(true)),
    ] {
        account.insert(key.to_owned(), value);
    }
    account
}

/// What a server waits for longer here than by default, so that one on a busy machine is not taken for one that is broken.
/// A test in which such a wait has to end gives a short one of its own.
const PATIENT: [(&str, i64); 11] = [
    ("recovery.claim_seconds", 120),
    ("webhooks.claim_seconds", 300),
    ("server.shutdown_grace_seconds", 60),
    ("server.tls.handshake_timeout_ms", 60_000),
    ("database.connect_timeout_ms", 60_000),
    ("database.statement_timeout_ms", 60_000),
    ("database.unavailable_after_ms", 60_000),
    ("database.commit_resolution_timeout_ms", 60_000),
    // A third of it is the time that a send may come after its acceptance.
    ("payments.lease_margin_ms", 600_000),
    ("telemetry.shutdown_timeout_ms", 60_000),
    // What is tried again is so every few milliseconds.
    ("webhooks.max_attempts", 1_000),
];

/// How soon the product gives up on its database by default, for tests of that.
const DATABASE_LIMITS: [(&str, i64); 4] = [
    ("database.connect_timeout_ms", 2_000),
    ("database.statement_timeout_ms", 5_000),
    ("database.unavailable_after_ms", 1_500),
    ("database.commit_resolution_timeout_ms", 5_000),
];

fn common_settings(database_url: &str, account: Table) -> Vec<Setting> {
    let pki = pki();
    let path = |path: &std::path::Path| Value::from(path.to_str().unwrap());
    let key = {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(MASTER_KEY);
        format!("{KEY_ID}:{encoded}")
    };
    let mut settings = vec![
        ("server.grpc_listen", Value::from("127.0.0.1:0")),
        ("server.http_listen", Value::from("127.0.0.1:0")),
        ("server.tls.certificate_file", path(&pki.certificate_file)),
        ("server.tls.key_file", path(&pki.key_file)),
        ("database.url", Value::from(database_url)),
        // Most tests ask for themselves what became of a payment (`sync`), and when.
        ("recovery.enabled", Value::from(false)),
        // Many servers share one PostgreSQL here.
        ("database.pool_size", Value::from(4)),
        ("secrets.keys", Value::from(vec![key])),
        (
            "providers.accounts",
            Value::from(vec![Value::from(account)]),
        ),
    ];
    settings.extend(PATIENT.map(|(key, value)| (key, Value::from(value))));
    settings
}
