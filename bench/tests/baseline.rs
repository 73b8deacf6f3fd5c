//! The baseline is a fair one: `pgbench` writes the same rows into the same tables with the same
//! indexes as the service, in one database transaction per state change.
#![allow(clippy::unwrap_used, reason = "a test may panic; its helpers too")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quittance_bench::load::{Clients, Until};
use quittance_bench::pgbench::{self, Length};
use quittance_bench::sample::{Sample, TABLES};
use quittance_bench::script;
use quittance_bench::service::{self, BASELINE_DATABASE, SERVICE_DATABASE};
use quittance_bench::setup::{Setup, Works};
use quittance_embedded_postgres::{EmbeddedPostgres, Options};
use quittance_sandbox::{Sandbox, SandboxConfig, SandboxHandle};
use quittance_server::auth::Role;
use quittance_server::config::{Config, Settings, Sources};
use quittance_server::{RunningServer, Server, database};
use tokio_postgres::Client;
use toml::Value;

/// Payments that each side makes: clients times payments of each.
const PAYMENTS: i64 = 200;
const PGBENCH_CLIENTS: u16 = 4;
/// What a payment commits: its acceptance and its outcome.
const COMMITS_PER_PAYMENT: i64 = 2;
/// How much longer or shorter the text of the baseline's rows may be on average: ids differ, and numbers
/// in leaves have more or fewer digits.
const SIZE_TOLERANCE: f64 = 0.05;

/// One PostgreSQL, a service on one of its databases, and the other database ready for pgbench.
struct Side {
    postgres: EmbeddedPostgres,
    sandbox: SandboxHandle,
    server: RunningServer,
    setup: Setup,
    clients: Clients,
    service: Client,
    /// Only once pgbench is done: its commits are counted.
    baseline: Option<Client>,
}

impl Side {
    async fn start() -> Self {
        // Its workers commit too, in whichever database they look after.
        // And what is compared is what is written, not how long the disk takes.
        let settings = ["autovacuum", "fsync"].map(|name| (name.to_owned(), "off".to_owned()));
        let settings = settings.to_vec();
        let options = Options {
            settings,
            ..Options::default()
        };
        let postgres = EmbeddedPostgres::start_async(options).await.unwrap();
        let admin = service::connect(&postgres.url("postgres")).await.unwrap();
        let mut provider = SandboxConfig::new("sandbox-key");
        // The sample is read while its payment is under way.
        provider.slow = Duration::from_secs(4);
        let sandbox = Sandbox::start(provider).await.unwrap();
        let setup = Setup::write(
            &postgres.url(SERVICE_DATABASE),
            &sandbox.base_url(),
            "sandbox-key",
            Works::Unsigned,
        )
        .unwrap();
        for name in [BASELINE_DATABASE, SERVICE_DATABASE] {
            admin
                .batch_execute(&format!("create database {name}"))
                .await
                .unwrap();
            let environment = vec![("DATABASE_URL".to_owned(), postgres.url(name))];
            database::migrate(&config(&setup, environment).database)
                .await
                .unwrap();
        }
        let config = config(&setup, Vec::new());
        let ring = database::key_ring(&config.secrets).unwrap();
        let server = Server::start(config).await.unwrap();
        let keys = database::Keys::new(Arc::clone(server.store()));
        let roles = [Role::PaymentsWrite].into_iter().collect();
        let key = keys.create("bench", "load", roles, &ring).await.unwrap();
        let target = setup.target(key.reveal().to_string());
        Self {
            clients: Clients::connect(&target, 2).await.unwrap(),
            service: service::connect(&postgres.url(SERVICE_DATABASE))
                .await
                .unwrap(),
            baseline: None,
            setup,
            server,
            sandbox,
            postgres,
        }
    }

    fn baseline(&self) -> &Client {
        self.baseline.as_ref().unwrap()
    }

    async fn stop(self) {
        self.server.shutdown().await;
        self.sandbox.shutdown().await;
        self.postgres.stop().unwrap();
    }
}

fn config(setup: &Setup, environment: Vec<(String, String)>) -> Config {
    let mut forced = vec![("database.allow_unsafe_durability", Value::Boolean(true))];
    // No limit is the subject here, and no busy machine comes to these.
    let limits = [
        "database.connect_timeout_ms",
        "database.statement_timeout_ms",
        "database.unavailable_after_ms",
        "database.commit_resolution_timeout_ms",
    ];
    forced.extend(limits.map(|name| (name, Value::Integer(60_000))));
    let sources = Sources {
        file: Some(setup.config_file()),
        environment,
        forced,
        ..Sources::default()
    };
    let mut config = Config::parse(&Settings::gather(&sources).unwrap()).unwrap();
    for account in &mut config.providers.accounts {
        (account.connect_timeout_ms, account.total_timeout_ms) = (12_000, 25_000);
    }
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn the_baseline_writes_the_same_rows_with_one_commit_per_state_change() {
    let mut side = Side::start().await;
    let sample = Sample::take(&side.clients, &mut side.service)
        .await
        .unwrap();
    let script = side.setup.file("baseline.sql");
    std::fs::write(&script, script::render(&sample).unwrap()).unwrap();

    let before = counts(&side.service).await;
    let until = Until::Payments(PAYMENTS.unsigned_abs());
    let load = side.clients.closed_loop(8, until).await.unwrap();
    assert!(load.failures.is_empty(), "{:?}", load.failures);
    let written: Vec<i64> = counts(&side.service)
        .await
        .iter()
        .zip(before)
        .map(|(now, before)| now - before)
        .collect();
    assert_eq!(
        written,
        [
            PAYMENTS,
            PAYMENTS,
            PAYMENTS,
            PAYMENTS,
            PAYMENTS * COMMITS_PER_PAYMENT
        ]
    );

    // Connecting commits as well; what two runs of different length differ by are the payments.
    let first = pgbench(&side, &script, 1).await;
    let each = PAYMENTS / i64::from(PGBENCH_CLIENTS) - 1;
    let second = pgbench(&side, &script, each).await;
    let payments = i64::from(PGBENCH_CLIENTS) * (each - 1);
    assert_eq!(second - first, payments * COMMITS_PER_PAYMENT);
    side.baseline = Some(
        service::connect(&side.postgres.url(BASELINE_DATABASE))
            .await
            .unwrap(),
    );
    assert_eq!(counts(side.baseline()).await, written, "the same rows");

    for query in [STATES, VERSIONS] {
        let (one, other) = (
            texts(&side.service, query).await,
            texts(side.baseline(), query).await,
        );
        assert_eq!(one, other, "{query}");
    }
    same_sizes(&side).await;
    same_schema(&side).await;
    side.stop().await;
}

/// What payments have become, and after how many changes.
const STATES: &str =
    "select distinct state || ' ' || version || ' ' || (captured = authorized) from payments";
/// Every state change has its entry, and every version its state change.
const VERSIONS: &str = "
    select distinct p.version || ' ' || count(*) || ' ' || string_agg(j.event_type, ' ' order by entity_seq)
    from payments p join journal j on j.stream_id = p.payment_id and j.payment_id = p.payment_id
    join transactions t on t.payment_id = p.payment_id
    join attempts a on a.payment_id = p.payment_id and a.transaction_id = t.transaction_id
    join idempotency_records i on i.payment_id = p.payment_id and i.transaction_id = t.transaction_id
    group by p.payment_id, p.version";

async fn counts(database: &Client) -> Vec<i64> {
    let mut counts = Vec::new();
    for table in TABLES {
        let row = database
            .query_one(&format!("select count(*) from {table}"), &[])
            .await
            .unwrap();
        counts.push(row.get(0));
    }
    counts
}

/// Runs the script, and returns how many transactions were committed meanwhile in its database.
async fn pgbench(side: &Side, script: &Path, payments: i64) -> i64 {
    let before = commits(&side.service).await;
    let length = Length::Payments(payments.unsigned_abs());
    let (postgres, clients) = (&side.postgres, PGBENCH_CLIENTS);
    let done = pgbench::run(postgres, BASELINE_DATABASE, script, clients, length)
        .await
        .unwrap();
    let expected = payments.unsigned_abs() * u64::from(clients);
    assert_eq!((done.payments, done.failed), (expected, 0));
    commits(&side.service).await - before
}

/// Transactions committed in the baseline's database, as seen from another one. A backend reports
/// before it disappears, so nobody may be connected.
async fn commits(database: &Client) -> i64 {
    let query = "
        select xact_commit, (select count(*) from pg_stat_activity a where a.datname = d.datname)
        from pg_stat_database d where datname = 'baseline'";
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let row = database.query_one(query, &[]).await.unwrap();
        let connected: i64 = row.get(1);
        if connected == 0 {
            // Looked at once more, since the two numbers are not of one moment.
            return database.query_one(query, &[]).await.unwrap().get(0);
        }
        assert!(Instant::now() < deadline, "{connected} backends do not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn texts(database: &Client, query: &str) -> Vec<String> {
    let rows = database.query(query, &[]).await.unwrap();
    let mut texts: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    texts.sort();
    texts
}

async fn same_sizes(side: &Side) {
    for table in TABLES {
        let (one, other) = (
            row_length(&side.service, table).await,
            row_length(side.baseline(), table).await,
        );
        let difference = (one - other).abs() / one;
        assert!(
            difference < SIZE_TOLERANCE,
            "rows of {table}: {one} and {other} characters"
        );
    }
}

/// Of the rows' text, not of what is stored: whether PostgreSQL finds a leaf worth compressing depends
/// on a byte more or less.
async fn row_length(database: &Client, table: &str) -> f64 {
    let query = format!("select avg(length(t.*::text))::float8 from {table} t");
    database.query_one(&query, &[]).await.unwrap().get(0)
}

async fn same_schema(side: &Side) {
    const QUERIES: [&str; 3] = [
        "select format('%s %s %s %s %s %s', c.relname, c.relkind, c.reloptions, a.attname,
             format_type(a.atttypid, a.atttypmod), a.attnotnull)
         from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
         where c.relnamespace = 'public'::regnamespace",
        "select indexdef from pg_indexes where schemaname = 'public'",
        "select format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
         from pg_constraint where connamespace = 'public'::regnamespace",
    ];
    for query in QUERIES {
        let (one, other) = (
            texts(&side.service, query).await,
            texts(side.baseline(), query).await,
        );
        assert!(!one.is_empty() && one == other, "{query}");
    }
}
