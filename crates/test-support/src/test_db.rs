//! A fresh database for each test, copied from a migrated template.

use std::future::Future;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use quittance_embedded_postgres::{EmbeddedPostgres, Options};
use quittance_store::{DatabaseTls, KeyRing, PgStore, StoreConfig, Unobserved};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

/// The server that all tests of this process share.
struct Server {
    /// URL of a database of its, to be replaced by another's name.
    url: String,
    /// Where we started it ourselves: its keeper stops it when this process ends.
    _own: Option<EmbeddedPostgres>,
}

static SERVER: OnceCell<Server> = OnceCell::const_new();
static TEMPLATE: OnceCell<String> = OnceCell::const_new();

/// A database of its own, dropped at the end.
#[derive(Debug)]
pub struct TestDb {
    name: String,
    url: String,
    admin_url: String,
}

impl TestDb {
    /// A migrated, empty database: on the server of `DATABASE_URL` where that is set, else on one
    /// that is started once per process.
    pub async fn new() -> Self {
        Self::create(true).await.expect("a test database")
    }

    /// A database without any table of ours.
    pub async fn unmigrated() -> Self {
        Self::create(false).await.expect("a test database")
    }

    async fn create(migrated: bool) -> Result<Self> {
        let server = SERVER.get_or_try_init(Server::find).await?;
        let admin_url = with_database(&server.url, "postgres");
        let name = format!("quittance_test_{}", Uuid::now_v7().simple());
        let admin = connect(&admin_url).await?;
        let create = if migrated {
            let template = TEMPLATE.get_or_try_init(|| template(&server.url)).await?;
            format!("create database {name} template {template}")
        } else {
            format!("create database {name} template template0")
        };
        admin
            .batch_execute(&create)
            .await
            .context("creating the test database")?;
        Ok(Self {
            url: with_database(&server.url, &name),
            name,
            admin_url,
        })
    }

    /// The URL of the database, as its owner.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A connection as the owner, for looking behind the store.
    pub async fn client(&self) -> Client {
        connect(&self.url)
            .await
            .expect("a connection to the test database")
    }

    /// Settings of a store on this database.
    pub fn config(&self) -> StoreConfig {
        let mut config = patient_config(&self.url);
        // Tests run beside each other on one server.
        config.pool_size = 4;
        config
    }

    /// A store on this database.
    pub async fn store(&self) -> PgStore {
        PgStore::connect(self.config(), Arc::new(Unobserved))
            .await
            .expect("a store")
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let (url, name) = (self.admin_url.clone(), self.name.clone());
        // A thread with a runtime of its own: the test's may be ending.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                if let Ok(admin) = connect(&url).await {
                    let drop = format!("drop database if exists {name} with (force)");
                    // What is left over goes with the server.
                    let _ = admin.batch_execute(&drop).await;
                }
            });
        });
        let _ = dropping.join();
    }
}

impl Server {
    async fn find() -> Result<Self> {
        if let Ok(url) = std::env::var("DATABASE_URL") {
            return Ok(Self { url, _own: None });
        }
        let server = EmbeddedPostgres::start_async(Options::default()).await?;
        Ok(Self {
            url: server.url("postgres"),
            _own: Some(server),
        })
    }
}

/// Limits of a store whose subject they are not.
const LONG: Duration = Duration::from_secs(60);

/// Settings of a store on a database, with limits that no busy machine comes to: a test whose subject is a
/// limit sets it itself.
pub fn patient_config(url: &str) -> StoreConfig {
    let mut config = StoreConfig::new(url, test_keys());
    (config.unavailable_after, config.statement_timeout) = (LONG, LONG);
    (config.connect_timeout, config.commit_resolution_timeout) = (LONG, LONG);
    config
}

/// Two fixed keys, the first active.
pub fn test_keys() -> KeyRing {
    KeyRing::new([
        ("test-2".to_owned(), [2; 32]),
        ("test-1".to_owned(), [1; 32]),
    ])
    .expect("a valid key ring")
}

/// Waits until `condition` holds, at most two minutes; says `what` did not happen otherwise.
pub async fn eventually<F, Fut>(what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let polling = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(120), polling).await;
    assert!(done.is_ok(), "did not happen: {what}");
}

/// The answer, which comes within `limit`; a machine that is busy with something else gets some more attempts.
pub async fn in_time<T>(limit: Duration, mut ask: impl AsyncFnMut() -> T) -> T {
    for _ in 0..20 {
        let started = Instant::now();
        let answer = ask().await;
        if started.elapsed() < limit {
            return answer;
        }
    }
    panic!("an answer took longer than {limit:?} each time");
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The same server's URL with another database.
fn with_database(url: &str, name: &str) -> String {
    let (address, query) = url
        .split_once('?')
        .map_or((url, None), |(a, q)| (a, Some(q)));
    let after_scheme = address.find("://").map_or(0, |at| at + 3);
    let end = address[after_scheme..]
        .find('/')
        .map_or(address.len(), |at| after_scheme + at);
    let base = &address[..end];
    query.map_or_else(
        || format!("{base}/{name}"),
        |query| format!("{base}/{name}?{query}"),
    )
}

/// Makes the template once per server and state of the migrations, whoever comes first.
async fn template(server_url: &str) -> Result<String> {
    let name = format!("quittance_template_{:016x}", migrations_hash()?);
    let admin = connect(&with_database(server_url, "postgres")).await?;
    admin
        .batch_execute("select pg_advisory_lock(hashtext('quittance_test_template'))")
        .await?;
    let exists = "select 1 from pg_database where datname = $1";
    if admin.query_opt(exists, &[&name]).await?.is_none() {
        let unfinished = format!("{name}_new");
        admin
            .batch_execute(&format!(
                "drop database if exists {unfinished} with (force)"
            ))
            .await?;
        admin
            .batch_execute(&format!("create database {unfinished} template template0"))
            .await?;
        let url = with_database(server_url, &unfinished);
        PgStore::migrate(&url, &DatabaseTls::default())
            .await
            .context("migrating the template")?;
        // The migration's connection ends a moment later; a database in use cannot be renamed.
        let end = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = $1";
        admin.query(end, &[&unfinished]).await?;
        admin
            .batch_execute(&format!("alter database {unfinished} rename to {name}"))
            .await?;
    }
    Ok(name)
}

/// A hash of all migrations, so that a changed one makes a new template.
fn migrations_hash() -> Result<u64> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
    let mut files: Vec<_> = std::fs::read_dir(&root)?
        .map(|entry| entry.map(|entry| entry.path().join("up.sql")))
        .collect::<Result<_, _>>()?;
    files.sort_unstable();
    let mut hasher = DefaultHasher::new();
    for file in files.iter().filter(|file| file.exists()) {
        std::fs::read(file)?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}
