//! The database is there and does not answer: its processes stand still, or the connection is open at our
//! end only. Every caller is answered in time, with the truth, and nothing is written that was called lost.
#![allow(
    clippy::similar_names,
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::default_trait_access,
    clippy::large_futures,
    reason = "a test reads like its story, and one that cannot go on panics"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use quittance_domain::change::Change;
use quittance_domain::ids::IdempotencyKey;
use quittance_domain::ports::{
    Accounts, CaseFilter, Claim, Commit, DueKind, EntryFilter, Store, StoreError,
};
use quittance_embedded_postgres::{EmbeddedPostgres, Options};
use quittance_store::{DatabaseTls, NewApiKey, PgStore, StoreConfig, StoreObserver};
use quittance_test_support::{
    Direction, FaultProxy, Plan, Story, TestDb, eventually, in_time, patient_config, tenant,
};
use tokio_postgres::NoTls;

/// A caller is told within this time that the database does not answer: long enough for a machine that stalls.
const UNAVAILABLE_AFTER: Duration = Duration::from_secs(3);
/// A caller is answered within this time, where the machine is not busy: less than two waits after each other.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// And within this one, however busy it is: far less than many callers' waits after each other.
const TOLD_AT_LATEST: Duration = Duration::from_secs(30);

/// Counts batches that are given to the database.
#[derive(Default)]
struct Batches(AtomicUsize);

impl Batches {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl StoreObserver for Batches {
    fn batch(&self, _size: usize) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
    fn operation(&self, _summary: &'static str, _seconds: f64, _ok: bool) {}
}

/// State and parent of a process, as /proc tells them.
fn process(pid: &str) -> Option<(char, String)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.to_owned()))
}

fn children_of(parent: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    pids.filter(|pid| process(pid).is_some_and(|(_, of)| of == parent))
        .collect()
}

/// Every process of a server, standing still as on a machine that hangs; they go on when it is dropped.
struct Frozen(Vec<String>);

impl Frozen {
    async fn new(server: &EmbeddedPostgres) -> Self {
        let parent = server.process_id().unwrap().to_string();
        let mut frozen = Self(vec![parent.clone()]);
        // First who makes the others, so that no more come.
        frozen.stand_still().await;
        frozen.0.extend(children_of(&parent));
        frozen.stand_still().await;
        frozen
    }

    async fn stand_still(&self) {
        self.signal("-STOP");
        eventually("the processes stand still", || async {
            let still = |pid: &String| process(pid).is_none_or(|(state, _)| "TZ".contains(state));
            self.0.iter().all(still)
        })
        .await;
    }

    fn signal(&self, signal: &str) {
        let mut kill = std::process::Command::new("kill");
        // One that has ended in the meantime makes it fail.
        let _ = kill.arg(signal).args(&self.0).output().unwrap();
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}

/// Makes a key, through a store that has the time for it.
async fn new_key(config: StoreConfig) {
    let store = PgStore::connect(config, Arc::new(Batches::default()))
        .await
        .unwrap();
    store.create_tenant(&tenant("acme")).await.unwrap();
    let (secret_mac, mac_key_id) = store.keys().api_key_mac(b"secret");
    let key = NewApiKey {
        key_id: "k1".to_owned(),
        tenant: tenant("acme"),
        name: "shop".to_owned(),
        roles: Vec::new(),
        secret_mac,
        mac_key_id,
    };
    assert_eq!(store.create_api_key(&key).await, Ok(true));
    store.shutdown(Duration::from_secs(60)).await;
}

/// The change is committed and the key is found, on connections that stay.
async fn works(store: &PgStore, change: &Change) {
    eventually("commits work", || async {
        store.commit(change.clone()).await == Ok(Commit::Committed)
    })
    .await;
    eventually("reads work", || async {
        store.api_key("k1").await.is_ok_and(|key| key.is_some())
    })
    .await;
}

async fn is_unavailable<T>(call: impl Future<Output = Result<T, StoreError>>) {
    assert_eq!(call.await.err(), Some(StoreError::Unavailable));
}

/// Every kind of read is told, at once with the others, that the database is away.
async fn every_read_is_unavailable(store: &PgStore, story: &Story) {
    let acme = tenant("acme");
    let (key, claim) = (
        IdempotencyKey::parse("key-1").unwrap(),
        Claim {
            kind: DueKind::Any,
            limit: 1,
            lease: Duration::from_secs(1),
            accounts: Accounts::all(),
        },
    );
    let (payments, entries) = (Default::default(), EntryFilter::default());
    let (payment, transaction) = (story.payment.id, story.transaction.id);
    let cases = CaseFilter::default();
    tokio::join!(
        is_unavailable(store.api_key("k1")),
        is_unavailable(store.payment(&acme, payment)),
        is_unavailable(store.idempotency_record(&acme, &key)),
        is_unavailable(store.list_payments(&acme, &payments, None, 9)),
        is_unavailable(store.list_entries(None, &entries, None, 9)),
        is_unavailable(store.list_cases(None, &cases, None, 9)),
        is_unavailable(store.attempt(payment, transaction, 1)),
        is_unavailable(store.method_token(payment)),
        is_unavailable(store.claim_due(&claim)),
        is_unavailable(store.backlog()),
        is_unavailable(store.next_position()),
        is_unavailable(store.ping()),
        is_unavailable(store.revoke_api_key("k1")),
    );
}

async fn timed_commit(store: &PgStore, change: Change) -> Result<Commit, StoreError> {
    let started = Instant::now();
    let answer = store.commit(change).await;
    let took = started.elapsed();
    assert!(took < TOLD_AT_LATEST, "{took:?}");
    answer
}

async fn number(url: &str, sql: &str) -> i64 {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_database_keeps_nobody_waiting_and_what_was_called_lost_is_never_written() {
    let server = EmbeddedPostgres::start_async(Options::default())
        .await
        .unwrap();
    let url = server.url("postgres");
    PgStore::migrate(&url, &DatabaseTls::default())
        .await
        .unwrap();
    let mut config = patient_config(&url);
    (config.committers, config.queue_len) = (1, 100);
    config.unavailable_after = UNAVAILABLE_AFTER;
    config.connect_timeout = Duration::from_secs(15);
    let batches = Arc::new(Batches::default());
    let store = PgStore::connect(config, batches.clone()).await.unwrap();
    store.start_workers();
    new_key(patient_config(&url)).await;
    let (mut story, accepted) = Story::accept("acme", "key-1", 1_000);
    works(&store, &accepted).await;

    let changes = |wave: usize, count: usize| -> Vec<_> {
        let change = |number| Story::accept("acme", &format!("lost-{wave}-{number}"), 1).1;
        (0..count).map(change).collect()
    };
    let (many, fewer) = (changes(1, 2_000), changes(2, 50));

    let frozen = Frozen::new(&server).await;
    let authorized = story.authorized();
    let in_flight = loop {
        let (store, change, before) = (store.clone(), authorized.clone(), batches.count());
        let committing = tokio::spawn(async move { timed_commit(&store, change).await });
        eventually(
            "the change is given to the database, or given up",
            || async { batches.count() > before || committing.is_finished() },
        )
        .await;
        // Where the machine stalls for too long, it is not given any more: then another attempt is.
        if batches.count() > before {
            break committing;
        }
    };
    let lost = |changes: Vec<Change>| -> Vec<_> {
        let task = |change| {
            let store = store.clone();
            tokio::spawn(async move { timed_commit(&store, change).await })
        };
        changes.into_iter().map(task).collect()
    };
    let waiting = lost(many);
    every_read_is_unavailable(&store, &story).await;
    let (mut refused, mut unavailable) = (0, 0);
    for task in waiting {
        match task.await.unwrap() {
            Err(StoreError::Unavailable) => unavailable += 1,
            Err(StoreError::Overloaded) => refused += 1,
            other => panic!("never given to the database: {other:?}"),
        }
    }
    assert!(unavailable >= 100 && refused > 0, "{unavailable} {refused}");
    assert_eq!(in_flight.await.unwrap(), Err(StoreError::CommitUnknown));
    // While it is sought what became of that one, everybody else is still answered. (What was given up
    // leaves the queue a moment after its caller was answered.)
    eventually("there is room in the queue again", || async {
        let change = Story::accept("acme", "lost-room", 1).1;
        let answer = in_time(TOLD_WITHIN, async || store.commit(change.clone()).await).await;
        answer == Err(StoreError::Unavailable)
    })
    .await;
    for task in lost(fewer) {
        assert_eq!(task.await.unwrap(), Err(StoreError::Unavailable));
    }
    in_time(TOLD_WITHIN, async || {
        every_read_is_unavailable(&store, &story).await;
    })
    .await;

    drop(frozen);
    eventually("commits work again", || async {
        store.commit(authorized.clone()).await == Ok(Commit::Committed)
    })
    .await;
    let last = Story::accept("acme", "last", 1).1;
    works(&store, &last).await;
    // The one committer has come to what was asked for last: what it was to write before is written.
    assert_eq!(number(&url, "select count(*) from payments").await, 2);
    assert_eq!(number(&url, "select count(*) from journal").await, 3);
    eventually("the sequencer works again", || async {
        store.next_position().await == Ok(3)
    })
    .await;
    // Connections that were given up are closed: the pool's, the committer's, and two of the workers'.
    let backends = "select count(*) from pg_stat_activity where application_name like 'quittance%'";
    eventually("no connection is left over", || async {
        number(&url, backends).await <= 16 + 1 + 2
    })
    .await;
    store.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_open_at_our_end_only_keeps_nobody_waiting() {
    let db = TestDb::new().await;
    let (proxy, url) = FaultProxy::before_database(db.url()).await;
    let mut config = db.config();
    (config.url, config.committers) = (url, 1);
    config.unavailable_after = UNAVAILABLE_AFTER;
    // What is being made when the bytes are swallowed is made in vain.
    config.connect_timeout = Duration::from_secs(5);
    let store = PgStore::connect(config, Arc::new(Batches::default()))
        .await
        .unwrap();
    new_key(db.config()).await;
    let (mut story, accepted) = Story::accept("acme", "key-1", 1_000);
    works(&store, &accepted).await;
    for swallowed in [Direction::ToServer, Direction::ToClient] {
        let change = story.answer_lost();
        proxy.set(swallowed, Plan::swallow());
        let (answer, ()) = tokio::join!(
            timed_commit(&store, change.clone()),
            in_time(TOLD_WITHIN, async || every_read_is_unavailable(
                &store, &story
            )
            .await)
        );
        assert_eq!(answer, Err(StoreError::CommitUnknown));
        proxy.pass().await;
        works(&store, &change).await;
    }
    eventually("both changes are read", || async {
        let read = store.payment(&tenant("acme"), story.payment.id).await;
        read.is_ok_and(|found| found.unwrap().payment.version == 3)
    })
    .await;
    let entries = "select count(*) from journal";
    assert_eq!(number(db.url(), entries).await, 3);
}

/// A caller that goes away leaves its query behind: that connection must not be the next one's.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_was_left_takes_its_connection_with_it() {
    let db = TestDb::new().await;
    let mut config = db.config();
    config.pool_size = 1;
    let store = PgStore::connect(config, Arc::new(Batches::default()))
        .await
        .unwrap();
    new_key(db.config()).await;
    let client = db.client().await;
    client
        .batch_execute("begin; lock table api_keys in access exclusive mode")
        .await
        .unwrap();
    let read = {
        let store = store.clone();
        tokio::spawn(async move { store.api_key("k1").await })
    };
    let waiting = "select count(*) from pg_locks where not granted \
                   and database = (select oid from pg_database where datname = current_database())";
    eventually("the read waits for the lock", || async {
        client
            .query_one(waiting, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 1
    })
    .await;
    read.abort();
    assert!(read.await.unwrap_err().is_cancelled());
    // The only place of the pool is free, and what stands in it does not wait for the lock.
    assert_eq!(store.ping().await, Ok(()));
    // The server notices that nobody waits for that answer.
    eventually("the statement that was left has ended", || async {
        client
            .query_one(waiting, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 0
    })
    .await;
    client.batch_execute("commit").await.unwrap();
}

/// A report may take longer than a lookup, as long as the database answers others.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_list_is_waited_for_while_the_database_answers_others() {
    let db = TestDb::new().await;
    let mut config = db.config();
    // What a lookup may take; in half of it the database has to be found to answer others.
    config.unavailable_after = Duration::from_secs(6);
    let longer_than_a_lookup = config.unavailable_after;
    let store = PgStore::connect(config, Arc::new(Batches::default()))
        .await
        .unwrap();
    // Two connections at least, so that none has to be made in the middle.
    assert_eq!(tokio::join!(store.ping(), store.ping()), (Ok(()), Ok(())));
    let client = db.client().await;
    let slow = "begin; lock table operator_actions in access exclusive mode";
    client.batch_execute(slow).await.unwrap();
    let listing = {
        let store = store.clone();
        tokio::spawn(async move {
            let started = Instant::now();
            let listed = store.list_cases(None, &Default::default(), None, 1).await;
            (listed, started.elapsed())
        })
    };
    let waited = "select coalesce(max(extract(epoch from clock_timestamp() - query_start)), 0)::float8 \
                  from pg_stat_activity \
                  where wait_event_type = 'Lock' and datname = current_database()";
    eventually("the list has waited longer than a lookup may", || async {
        let waited: f64 = client.query_one(waited, &[]).await.unwrap().get(0);
        waited > longer_than_a_lookup.as_secs_f64() + 0.2
    })
    .await;
    client.batch_execute("commit").await.unwrap();
    let (listed, took) = listing.await.unwrap();
    assert_eq!(listed, Ok(Vec::new()));
    assert!(took > longer_than_a_lookup, "{took:?}");
}
