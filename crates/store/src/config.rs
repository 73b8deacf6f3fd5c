//! Settings of the store, and why it would not start.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::customers::KeyAges;
use crate::keys::KeyRing;

/// The role that the migrations make for the running service.
pub const APPLICATION_ROLE: &str = "quittance_app";
/// Default of [`StoreConfig::pool_size`].
pub const DEFAULT_POOL_SIZE: usize = 16;
/// Default of [`StoreConfig::committers`].
pub const DEFAULT_COMMITTERS: usize = 2;
/// Most committers.
pub const MAX_COMMITTERS: usize = 16;
/// Default of [`StoreConfig::queue_len`].
pub const DEFAULT_QUEUE_LEN: usize = 4_096;
/// Default of [`StoreConfig::unavailable_after`].
pub const DEFAULT_UNAVAILABLE_AFTER: Duration = Duration::from_millis(1_500);
/// Default of [`StoreConfig::commit_resolution_timeout`].
pub const DEFAULT_COMMIT_RESOLUTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Default of [`StoreConfig::statement_timeout`].
pub const DEFAULT_STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Default of [`StoreConfig::connect_timeout`].
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Default of [`StoreConfig::customer_keys_remembered`].
pub const DEFAULT_CUSTOMER_KEYS_REMEMBERED: Duration = Duration::from_secs(60);

/// TLS to the database.
///
/// Whether it is used is said by `sslmode` in the URL (`disable`, `prefer`, `require`); by default it
/// is required, but over a Unix socket or on loopback. The server's certificate is always verified.
#[derive(Clone, Debug, Default)]
pub struct DatabaseTls {
    /// PEM file of the authorities to trust; `None` for the system's.
    pub ca_file: Option<PathBuf>,
}

/// Settings of the store. [`StoreConfig::new`] gives the defaults.
#[derive(Clone)]
pub struct StoreConfig {
    /// `postgres://user:password@host:port/database?…`, as tokio-postgres reads it. Secret.
    pub url: String,
    /// TLS.
    pub tls: DatabaseTls,
    /// Connections for reads, 1 or more.
    pub pool_size: usize,
    /// Connections that commit, 1 to [`MAX_COMMITTERS`]. More than the database has cores is no use.
    pub committers: usize,
    /// Changes that may wait for each committer; one more is answered `Overloaded`. 1 or more.
    pub queue_len: usize,
    /// In which a call is answered though the database is not: a read, waiting for a connection included, is
    /// `Unavailable`, and so is a change that was not given to the database; one that was is `CommitUnknown`.
    pub unavailable_after: Duration,
    /// How long it is sought, by executing it again, whether a change was written whose answer did not come.
    pub commit_resolution_timeout: Duration,
    /// How long one statement may take while the database answers others.
    pub statement_timeout: Duration,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long customers' keys are remembered; an erasure waits twice as long, and at least for that and what a commit may
    /// take. More than zero.
    pub customer_keys_remembered: Duration,
    /// Role that every connection takes on; `None` keeps the login's own rights (not for production).
    pub application_role: Option<String>,
    /// The keys.
    pub keys: KeyRing,
}

impl StoreConfig {
    /// The defaults for a database and a key ring.
    pub fn new(url: impl Into<String>, keys: KeyRing) -> Self {
        Self {
            url: url.into(),
            tls: DatabaseTls::default(),
            pool_size: DEFAULT_POOL_SIZE,
            committers: DEFAULT_COMMITTERS,
            queue_len: DEFAULT_QUEUE_LEN,
            unavailable_after: DEFAULT_UNAVAILABLE_AFTER,
            commit_resolution_timeout: DEFAULT_COMMIT_RESOLUTION_TIMEOUT,
            statement_timeout: DEFAULT_STATEMENT_TIMEOUT,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            customer_keys_remembered: DEFAULT_CUSTOMER_KEYS_REMEMBERED,
            application_role: Some(APPLICATION_ROLE.to_owned()),
            keys,
        }
    }

    /// How old keys become. A process may have looked for one just before it was not to be given out any more, and remembers it
    /// for one period. What it begins then ends within another, or when no commit can be under way: one is given to the
    /// database within `unavailable_after`, its answer is waited for as long, then its outcome is sought, and the last
    /// statement may run on where nobody waits for it.
    pub(crate) fn key_ages(&self) -> KeyAges {
        let remembered_for = self.customer_keys_remembered;
        let committed_within =
            2 * self.unavailable_after + self.commit_resolution_timeout + self.statement_timeout;
        KeyAges {
            remembered_for,
            unused_after: remembered_for + remembered_for.max(committed_within),
        }
    }

    pub(crate) fn check(&self) -> Result<(), StoreStartError> {
        if self.pool_size == 0 {
            return Err(StoreStartError::Setting("pool_size must be at least 1"));
        }
        if !(1..=MAX_COMMITTERS).contains(&self.committers) {
            return Err(StoreStartError::Setting("committers must be 1 to 16"));
        }
        if self.queue_len == 0 {
            return Err(StoreStartError::Setting("queue_len must be at least 1"));
        }
        let durations = [
            self.unavailable_after,
            self.commit_resolution_timeout,
            self.statement_timeout,
            self.connect_timeout,
        ];
        if durations.iter().any(Duration::is_zero) {
            return Err(StoreStartError::Setting(
                "timeouts must be longer than zero",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig")
            .field("url", &"<sensitive>")
            .field("tls", &self.tls)
            .field("pool_size", &self.pool_size)
            .field("committers", &self.committers)
            .field("queue_len", &self.queue_len)
            .field("unavailable_after", &self.unavailable_after)
            .field("commit_resolution_timeout", &self.commit_resolution_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("customer_keys_remembered", &self.customer_keys_remembered)
            .field("application_role", &self.application_role)
            .field("keys", &self.keys)
            .finish()
    }
}

/// Why the store would not start. Says what to do; holds no secret.
#[derive(Debug, Error)]
pub enum StoreStartError {
    /// A setting is out of its range.
    #[error("database settings: {0}")]
    Setting(&'static str),
    /// The URL cannot be read.
    #[error("database.url is not a PostgreSQL URL: {0}")]
    Url(String),
    /// The file of certificate authorities cannot be used.
    #[error("database.ca_file: {0}")]
    Authorities(String),
    /// The database cannot be reached.
    #[error("the database that database.url names cannot be reached: {0}")]
    Connect(String),
    /// The role cannot be taken on.
    #[error(
        "the login may not act as role {role}: run `quittance migrate`, then `grant {role} to <login>`"
    )]
    Role {
        /// The application role.
        role: String,
    },
    /// The server is too old.
    #[error("PostgreSQL {found} is too old: version 15 or newer is needed")]
    Version {
        /// What the server is.
        found: String,
    },
    /// The server does not keep what it was told to keep.
    #[error(
        "the database has {setting} = off: a committed payment could be lost. Turn it on, or allow it explicitly"
    )]
    NotDurable {
        /// Which setting.
        setting: &'static str,
    },
    /// The clocks differ.
    #[error(
        "the clock of the database differs from this machine's by {seconds:.1} s (at most {max} s): synchronise them"
    )]
    Clock {
        /// By how much.
        seconds: f64,
        /// What is allowed.
        max: i64,
    },
    /// Migrations were not run.
    #[error(
        "the database lacks {count} migration(s), the first is {first}: run `quittance migrate`"
    )]
    PendingMigrations {
        /// How many.
        count: usize,
        /// The first that is missing.
        first: String,
    },
    /// A migration failed.
    #[error("a migration failed: {0}")]
    Migration(String),
    /// The database answered with an error.
    #[error("the database refused: {0}")]
    Database(String),
}
