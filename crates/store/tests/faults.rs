//! Faults that PostgreSQL reports, and connections that are cut in the middle of a commit.
#![allow(
    clippy::similar_names,
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::default_trait_access,
    reason = "a test reads like its story, and one that cannot go on panics"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use quittance_domain::change::Change;
use quittance_domain::ports::{Commit, Store, StoreError};
use quittance_embedded_postgres::{EmbeddedPostgres, Options};
use quittance_store::{DatabaseTls, PgStore, Unobserved};
use quittance_test_support::{
    Cut, Direction, FaultProxy, Plan, Story, TestDb, eventually, patient_config, tenant,
};
use tokio_postgres::Client;

/// Time enough to find out.
const LONG: Duration = Duration::from_secs(60);
const BOTH: [Direction; 2] = [Direction::ToServer, Direction::ToClient];

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// A store with one committer behind a proxy.
struct Cuts {
    db: TestDb,
    proxy: FaultProxy,
    store: PgStore,
    changes: usize,
}

impl Cuts {
    async fn new(unavailable_after: Duration, resolution: Duration) -> Self {
        let db = TestDb::new().await;
        let (proxy, url) = FaultProxy::before_database(db.url()).await;
        let mut config = db.config();
        (config.url, config.committers) = (url, 1);
        (config.unavailable_after, config.commit_resolution_timeout) =
            (unavailable_after, resolution);
        let store = PgStore::connect(config, Arc::new(Unobserved))
            .await
            .unwrap();
        Self {
            db,
            proxy,
            store,
            changes: 0,
        }
    }

    /// A change whose bytes are as many as every other's.
    fn change(&mut self) -> Change {
        self.changes += 1;
        Story::accept("acme", &format!("key-{:06}", self.changes), 1).1
    }

    async fn commit(&mut self) {
        let change = self.change();
        assert_eq!(self.store.commit(change).await, Ok(Commit::Committed));
    }

    /// How many bytes a commit is, each way: on a connection that has made one, or a new one.
    async fn exchange(&mut self, on_new_connection: bool) -> (u64, u64) {
        self.commit().await;
        if on_new_connection {
            self.proxy.cut_all(Cut::Close).await;
        }
        let before = self.proxy.traffic();
        self.commit().await;
        let after = self.proxy.traffic();
        (
            after.to_server - before.to_server,
            after.to_client - before.to_client,
        )
    }

    /// One commit whose connection is cut after so many bytes of the exchange, and what it is answered.
    async fn cut(&mut self, direction: Direction, after: u64, how: Cut) {
        let change = self.change();
        let plan = Plan::cut_after(after, how).once();
        self.proxy.set(direction, plan);
        let answer = self.store.commit(change.clone()).await;
        self.proxy.pass().await;
        // There was time to find out.
        assert_eq!(answer, Ok(Commit::Committed), "{direction:?} {after}");
    }

    /// Every change that was made is there once, whole.
    async fn assert_each_once(&self) {
        let client = self.db.client().await;
        let changes = i64::try_from(self.changes).unwrap();
        for table in [
            "payments",
            "transactions",
            "attempts",
            "journal",
            "idempotency_records",
        ] {
            let count = format!("select count(*) from {table}");
            assert_eq!(number(&client, &count).await, changes, "{table}");
        }
    }
}

/// Every so many bytes; every one where `QUITTANCE_EVERY_BYTE` is set.
fn stride(default: usize) -> usize {
    if std::env::var_os("QUITTANCE_EVERY_BYTE").is_some() {
        1
    } else {
        default
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_cut_at_any_byte_is_found_out_and_written_once() {
    let mut cuts = Cuts::new(LONG, LONG).await;
    let (to_server, to_client) = cuts.exchange(false).await;
    // The answer is short, and each of its bytes may be the one that says "committed".
    for (direction, bytes, stride) in [
        (Direction::ToServer, to_server, stride(37)),
        (Direction::ToClient, to_client, 1),
    ] {
        assert!(bytes > 0);
        for after in (0..bytes).step_by(stride).chain([bytes - 1]) {
            let how = if after % 2 == 0 {
                Cut::Close
            } else {
                Cut::Reset
            };
            cuts.cut(direction, after, how).await;
        }
    }
    cuts.assert_each_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_cut_while_its_connection_is_made_is_written_once() {
    let mut cuts = Cuts::new(LONG, LONG).await;
    let (to_server, to_client) = cuts.exchange(true).await;
    for (direction, bytes, stride) in [
        (Direction::ToServer, to_server, stride(397)),
        (Direction::ToClient, to_client, stride(41)),
    ] {
        assert!(bytes > 0);
        for after in (0..bytes).step_by(stride) {
            cuts.proxy.cut_all(Cut::Close).await;
            cuts.cut(direction, after, Cut::Close).await;
        }
    }
    cuts.assert_each_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_found_out_in_time_is_told_truthfully() {
    let mut cuts = Cuts::new(Duration::from_secs(10), Duration::from_millis(300)).await;
    let (to_server, to_client) = cuts.exchange(false).await;
    let (mut unknown, mut unavailable) = (0, 0);
    for (direction, bytes) in BOTH.into_iter().zip([to_server, to_client]) {
        for eighth in 0..8 {
            let after = bytes * eighth / 8;
            // Warm, so that it is the commit that is cut, and not the making of a connection.
            cuts.commit().await;
            let change = cuts.change();
            let plan = Plan::cut_after(after, Cut::Close).once();
            cuts.proxy.set(direction, plan);
            // Whoever comes after is reset: nobody finds out.
            let gone = async {
                let open = cuts.proxy.open();
                cuts.proxy.reset_connections().await;
                open
            };
            let (answer, _) = tokio::join!(cuts.store.commit(change.clone()), gone);
            cuts.proxy.pass().await;
            match answer {
                Ok(Commit::Committed) => {}
                Err(StoreError::CommitUnknown) => unknown += 1,
                Err(StoreError::Unavailable) => {
                    unavailable += 1;
                    let client = cuts.db.client().await;
                    let written = format!(
                        "select count(*) from payments where payment_id = '{}'",
                        change.payment.id.0
                    );
                    assert_eq!(number(&client, &written).await, 0);
                }
                other => panic!("{direction:?} {after}: {other:?}"),
            }
            eventually("the same change is committed", || async {
                cuts.store.commit(change.clone()).await == Ok(Commit::Committed)
            })
            .await;
        }
    }
    assert!(unknown > 0, "{unknown} {unavailable}");
    cuts.assert_each_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s72_a_serialization_failure_is_tried_again() {
    let db = TestDb::new().await;
    let client = db.client().await;
    let alter = format!(
        "alter database {} set default_transaction_isolation = 'repeatable read'",
        db.name()
    );
    client.batch_execute(&alter).await.unwrap();
    let store = db.store().await;
    let (mut story, accepted) = Story::accept("acme", "key-1", 1_000);
    assert_eq!(store.commit(accepted).await, Ok(Commit::Committed));
    client
        .batch_execute("begin; update payments set description = description")
        .await
        .unwrap();
    let committing = {
        let (store, change) = (store.clone(), story.authorized());
        tokio::spawn(async move { store.commit(change).await })
    };
    waits_for_a_lock(&db).await;
    // What the waiting statement was to update has another version now: it cannot be serialized.
    client.batch_execute("commit").await.unwrap();
    assert_eq!(committing.await.unwrap(), Ok(Commit::Committed));
    let failures = "select xact_rollback from pg_stat_database where datname = current_database()";
    assert_counted(&client, failures).await;
}

/// A backend counts what happened to it when it ends, at the latest.
async fn assert_counted(client: &Client, count: &str) {
    let end = "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity \
               where datname = current_database() and application_name = 'quittance commit'";
    number(client, end).await;
    eventually("it is counted", || async {
        number(client, count).await > 0
    })
    .await;
}

async fn waits_for_a_lock(db: &TestDb) {
    let client = db.client().await;
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' \
                   and datname = current_database() and application_name = 'quittance commit'";
    eventually("the commit waits for a lock", || async {
        number(&client, waiting).await > 0
    })
    .await;
}

/// On one thread, so that commits are in the committer's queue once their tasks have had their turn.
#[tokio::test]
async fn s72_a_deadlock_is_tried_again() {
    let db = TestDb::new().await;
    let client = db.client().await;
    // So that it is the commit which finds the deadlock, and is its victim.
    let alter = format!("alter database {} set deadlock_timeout = '20ms'", db.name());
    client.batch_execute(&alter).await.unwrap();
    let mut config = db.config();
    config.committers = 1;
    let store = PgStore::connect(config, Arc::new(Unobserved))
        .await
        .unwrap();
    let mut stories = Vec::new();
    for number in 0..4 {
        let (story, accepted) = Story::accept("acme", &format!("key-{number}"), 1_000);
        assert_eq!(store.commit(accepted).await, Ok(Commit::Committed));
        stories.push(story);
    }
    // A batch locks its payments in this order.
    stories.sort_by_key(|story| story.payment.id.0);
    let lock = |number: usize| {
        format!(
            "begin; set local deadlock_timeout = '1min'; \
             update payments set description = description where payment_id = '{}'",
            stories[number].payment.id.0
        )
    };
    let [first, second, third, other] = [0, 1, 2, 3].map(lock);
    let holder = async |lock: &str| {
        let holder = db.client().await;
        holder.batch_execute(lock).await.unwrap();
        holder
    };
    let (holds_second, rival) = (holder(&second).await, holder(&third).await);
    let mut committing: Vec<_> = {
        let commit = |mut story: Story| {
            let (store, change) = (store.clone(), story.authorized());
            tokio::spawn(async move { store.commit(change).await })
        };
        // While another payment keeps the committer busy, these three get into one batch.
        let holds_other = holder(&other).await;
        let mut committing = vec![commit(stories.pop().unwrap())];
        waits_for_a_lock(&db).await;
        committing.extend(stories.drain(..).map(commit));
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        holds_other.batch_execute("commit").await.unwrap();
        committing
    };
    assert_eq!(committing.remove(0).await.unwrap(), Ok(Commit::Committed));
    // The batch has the first, and waits for the second; the rival has the third, and waits for the first.
    waits_for_a_lock(&db).await;
    let rival = tokio::spawn(async move {
        rival.batch_execute(&first.replace("begin; ", "")).await?;
        rival.batch_execute("commit").await
    });
    let waiting = "select count(*) from pg_stat_activity \
                   where wait_event_type = 'Lock' and datname = current_database()";
    eventually("the rival waits for the batch", || async {
        number(&client, waiting).await == 2
    })
    .await;
    // With the second, the batch waits for the third, and closes the circle: it finds that out itself.
    holds_second.batch_execute("commit").await.unwrap();
    rival.await.unwrap().unwrap();
    for task in committing {
        assert_eq!(task.await.unwrap(), Ok(Commit::Committed));
    }
    let entries = "select count(*) from journal";
    assert_eq!(number(&client, entries).await, 8);
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_counted(&client, deadlocks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s72_a_standby_takes_no_writes_until_it_is_promoted() {
    // Where the database's own user comes, whatever TMPDIR is.
    let parent = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let directory = parent.path().join("pg");
    let start = async || {
        EmbeddedPostgres::start_async(Options {
            data_dir: Some(directory.clone()),
            ..Options::default()
        })
        .await
        .unwrap()
    };
    let server = start().await;
    let url = server.url("postgres");
    PgStore::migrate(&url, &DatabaseTls::default())
        .await
        .unwrap();
    let mut config = patient_config(&url);
    // In which a change waits for a primary.
    config.unavailable_after = Duration::from_secs(3);
    let store = PgStore::connect(config, Arc::new(Unobserved))
        .await
        .unwrap();
    store.start_workers();
    let (mut story, accepted) = Story::accept("acme", "key-1", 1_000);
    eventually("the first commit", || async {
        store.commit(accepted.clone()).await == Ok(Commit::Committed)
    })
    .await;
    let before = store.clock().now();

    // The primary is gone, and what answers in its place is a standby.
    let data = server.data_dir();
    tokio::task::spawn_blocking(move || server.stop().unwrap())
        .await
        .unwrap();
    std::fs::write(data.join("standby.signal"), "").unwrap();
    let server = start().await;
    assert_eq!(server.url("postgres"), url);
    let authorized = story.authorized();
    for _ in 0..2 {
        let answer = store.commit(authorized.clone()).await;
        assert_eq!(answer, Err(StoreError::Unavailable));
    }
    assert_eq!(
        store.create_tenant(&tenant("globex")).await,
        Err(StoreError::Unavailable)
    );
    eventually("a standby answers reads", || async {
        let read = store.payment(&tenant("acme"), story.payment.id).await;
        read.is_ok_and(|found| found.unwrap().payment.version == 1)
    })
    .await;

    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client.batch_execute("select pg_promote()").await.unwrap();
    eventually("commits work again", || async {
        store.commit(authorized.clone()).await == Ok(Commit::Committed)
    })
    .await;
    assert_eq!(number(&client, "select count(*) from journal").await, 2);
    eventually("the sequencer works again", || async {
        store.next_position().await == Ok(2)
    })
    .await;
    assert!(store.clock().now() > before);
    store.shutdown(Duration::from_secs(60)).await;
}
