//! The database goes away, and comes back; connections break under load.
#![allow(
    clippy::similar_names,
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::default_trait_access,
    reason = "a test reads like its story, and one that cannot go on panics"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quittance_domain::change::Change;
use quittance_domain::ids::PaymentId;
use quittance_domain::ports::{Commit, Store, StoreError};
use quittance_embedded_postgres::{EmbeddedPostgres, Options};
use quittance_store::{DEFAULT_UNAVAILABLE_AFTER, DatabaseTls, NewApiKey, PgStore, Unobserved};
use quittance_test_support::{Story, TestDb, eventually, in_time, patient_config, tenant};

/// A caller is told that the database is away within this time, where the machine is not busy.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
/// And within this one, however busy it is: far less than many callers' times after each other.
const TOLD_AT_LATEST: Duration = Duration::from_secs(30);

/// The answer of a database that is there, asked for again where the machine was too busy to give it in time.
async fn answered<T>(mut ask: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    for _ in 0..100 {
        match ask().await {
            Ok(answer) => return answer,
            Err(StoreError::Unavailable) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("unavailable each time");
}

async fn start(data_dir: &std::path::Path) -> EmbeddedPostgres {
    let data_dir = Some(data_dir.to_owned());
    EmbeddedPostgres::start_async(Options {
        data_dir,
        ..Options::default()
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_database_is_unavailable_within_two_seconds_and_works_again_by_itself() {
    // Where the database's own user comes, whatever TMPDIR is.
    let parent = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let directory = parent.path().join("pg");
    let server = start(&directory).await;
    let url = server.url("postgres");
    PgStore::migrate(&url, &DatabaseTls::default())
        .await
        .unwrap();
    let mut config = patient_config(&url);
    config.unavailable_after = DEFAULT_UNAVAILABLE_AFTER;
    let store = PgStore::connect(config, Arc::new(Unobserved))
        .await
        .unwrap();
    store.start_workers();
    let (mut story, accepted) = Story::accept("acme", "key-1", 1_000);
    eventually("the first commit", || async {
        store.commit(accepted.clone()).await == Ok(Commit::Committed)
    })
    .await;
    let read = async || store.payment(&tenant("acme"), story.payment.id).await;
    assert!(answered(read).await.is_some());

    tokio::task::spawn_blocking(move || server.stop().unwrap())
        .await
        .unwrap();
    let authorized = story.authorized();
    for _ in 0..3 {
        let answer = in_time(TOLD_WITHIN, async || store.commit(authorized.clone()).await).await;
        assert_eq!(answer, Err(StoreError::Unavailable));
    }
    let started = Instant::now();
    let many = (0..200).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            store
                .commit(Story::accept("acme", &format!("lost-{number}"), 1).1)
                .await
        })
    });
    for task in many.collect::<Vec<_>>() {
        assert_eq!(task.await.unwrap(), Err(StoreError::Unavailable));
    }
    let took = started.elapsed();
    assert!(took < TOLD_AT_LATEST, "{took:?}");
    let read = in_time(TOLD_WITHIN, async || {
        store.payment(&tenant("acme"), story.payment.id).await
    })
    .await;
    assert_eq!(read, Err(StoreError::Unavailable));
    assert!(
        in_time(TOLD_WITHIN, async || store.ping().await)
            .await
            .is_err()
    );

    let server = start(&directory).await;
    assert_eq!(server.url("postgres"), url);
    eventually("commits work again", || async {
        store.commit(authorized.clone()).await == Ok(Commit::Committed)
    })
    .await;
    let read = answered(async || store.payment(&tenant("acme"), story.payment.id).await).await;
    assert_eq!(read.unwrap().payment.version, 2);
    // What was answered "unavailable" was not written, and never is.
    let (acme, all) = (tenant("acme"), Default::default());
    let list = answered(async || store.list_payments(&acme, &all, None, 10).await).await;
    assert_eq!(list.payments.len(), 1);
    eventually("the sequencer works again", || async {
        store.next_position().await == Ok(2)
    })
    .await;
    store.shutdown(Duration::from_secs(60)).await;
}

/// One caller: accepts and authorizes payments until told to stop; gives what it was answered.
async fn call(
    store: PgStore,
    caller: usize,
    stop: Arc<AtomicBool>,
) -> Vec<(PaymentId, u64, Result<Commit, StoreError>)> {
    let mut answers = Vec::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let (mut story, accepted) = Story::accept("acme", &format!("key-{caller}-{number}"), 1_000);
        let answer = store.commit(accepted).await;
        let accepted = answer == Ok(Commit::Committed);
        answers.push((story.payment.id, 1, answer));
        if accepted {
            let answer = store.commit(story.authorized()).await;
            answers.push((story.payment.id, 2, answer));
        }
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn under_broken_connections_every_change_is_committed_once_or_reported() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..16)
        .map(|caller| tokio::spawn(call(store.clone(), caller, Arc::clone(&stop))))
        .collect();
    let client = db.client().await;
    let entries = "select count(*) from journal";
    for round in 1..=25 {
        eventually("commits go on", || async {
            let count: i64 = client.query_one(entries, &[]).await.unwrap().get(0);
            count > 20 * round
        })
        .await;
        let kill = "select pg_terminate_backend(pid) from pg_stat_activity \
                    where application_name = 'quittance commit' and datname = current_database()";
        client.query(kill, &[]).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let mut answers = Vec::new();
    for caller in callers {
        answers.extend(caller.await.unwrap());
    }
    let versions = "select p.payment_id::text, p.version, count(j.entity_seq), max(j.entity_seq) \
                    from payments p join journal j on j.stream_id = p.payment_id group by 1, 2";
    let rows = client.query(versions, &[]).await.unwrap();
    let versions: std::collections::HashMap<uuid::Uuid, i64> = rows
        .iter()
        .map(|row| {
            let (version, entries, last): (i64, i64, i64) = (row.get(1), row.get(2), row.get(3));
            assert_eq!((entries, last), (version, version));
            (row.get::<_, String>(0).parse().unwrap(), version)
        })
        .collect();
    for (payment, version, answer) in answers {
        let written =
            versions.get(&payment.0).copied().unwrap_or(0) >= i64::try_from(version).unwrap();
        match answer {
            Ok(Commit::Committed) => assert!(written),
            Err(StoreError::Unavailable) => assert!(!written),
            Err(StoreError::CommitUnknown) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_overloaded_and_a_shut_down_store_writes_what_waits() {
    let db = TestDb::new().await;
    let mut config = db.config();
    (config.committers, config.queue_len) = (1, 4);
    let store = PgStore::connect(config, Arc::new(Unobserved))
        .await
        .unwrap();
    let client = db.client().await;
    let mut changes = (0..2_000).map(|number| Story::accept("acme", &format!("key-{number}"), 1).1);
    let first = changes.next().unwrap();
    let more: Vec<_> = changes.collect();
    // Commits wait for this lock, well within their time.
    client
        .batch_execute("begin; lock table idempotency_records in share mode")
        .await
        .unwrap();
    let commit = |change: Change| {
        let store = store.clone();
        tokio::spawn(async move { store.commit(change).await })
    };
    let first = commit(first);
    let waiting = "select count(*) from pg_locks where not granted \
                   and database = (select oid from pg_database where datname = current_database())";
    eventually("the first batch waits for the lock", || async {
        client
            .query_one(waiting, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            > 0
    })
    .await;
    // A batch in the statement, at most 512 beside the queue, and the queue: one of these is too many.
    let more: Vec<_> = more.into_iter().map(commit).collect();
    let shutdown = tokio::spawn({
        let store = store.clone();
        async move { store.shutdown(Duration::from_secs(60)).await }
    });
    client.batch_execute("commit").await.unwrap();
    assert_eq!(first.await.unwrap(), Ok(Commit::Committed));
    let mut written = 1;
    let mut refused = 0;
    for task in more {
        match task.await.unwrap() {
            Ok(Commit::Committed) => written += 1,
            Err(StoreError::Overloaded | StoreError::Unavailable) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    shutdown.await.unwrap();
    assert!(refused > 0);
    let payments = client
        .query_one("select count(*) from payments", &[])
        .await
        .unwrap();
    assert_eq!(payments.get::<_, i64>(0), written);
    let late = store.commit(Story::accept("acme", "late", 1).1).await;
    assert_eq!(late, Err(StoreError::Unavailable));
}

async fn set(client: &tokio_postgres::Client, db: &TestDb, setting: &str) {
    let alter = format!("alter database {} {setting}", db.name());
    client.batch_execute(&alter).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writes_is_unavailable_and_not_a_defect() {
    let db = TestDb::new().await;
    let client = db.client().await;
    set(&client, &db, "set default_transaction_read_only = on").await;
    let mut config = db.config();
    config.unavailable_after = DEFAULT_UNAVAILABLE_AFTER;
    let store = PgStore::connect(config, Arc::new(Unobserved))
        .await
        .unwrap();
    let started = Instant::now();
    let many = (0..50).map(|number| {
        let store = store.clone();
        let change = Story::accept("acme", &format!("key-{number}"), 1).1;
        tokio::spawn(async move { store.commit(change).await })
    });
    for task in many.collect::<Vec<_>>() {
        assert_eq!(task.await.unwrap(), Err(StoreError::Unavailable));
    }
    let took = started.elapsed();
    assert!(took < TOLD_AT_LATEST, "{took:?}");
    let change = Story::accept("acme", "one", 1).1;
    let answer = in_time(TOLD_WITHIN, async || store.commit(change.clone()).await).await;
    assert_eq!(answer, Err(StoreError::Unavailable));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_outlives_a_failover_that_ends_before_its_time_is_up() {
    let db = TestDb::new().await;
    let client = db.client().await;
    set(&client, &db, "set default_transaction_read_only = on").await;
    let store = db.store().await;
    let committing = tokio::spawn({
        let store = store.clone();
        async move { store.commit(Story::accept("acme", "key-1", 1).1).await }
    });
    let tried = "select count(*) from pg_stat_activity where datname = current_database() \
                 and application_name = 'quittance commit' and query like 'with %'";
    eventually("the change was refused", || async {
        client.query_one(tried, &[]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
    set(&client, &db, "reset default_transaction_read_only").await;
    assert_eq!(committing.await.unwrap(), Ok(Commit::Committed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_fails_for_no_known_reason_holds_nobody_up() {
    let db = TestDb::new().await;
    let mut config = db.config();
    (config.committers, config.unavailable_after) = (1, Duration::from_secs(15));
    let store = PgStore::connect(config, Arc::new(Unobserved))
        .await
        .unwrap();
    let commit = |number: usize| {
        let (_, mut change) = Story::accept("acme", &format!("key-{number}"), 1);
        if number == 23 {
            // JSON, but none that PostgreSQL stores; the driver does not say what is wrong with it.
            let metadata = &mut change.payment.metadata;
            metadata.insert("colour".to_owned(), "\0".to_owned());
        }
        let store = store.clone();
        tokio::spawn(async move { store.commit(change).await })
    };
    let begun = Instant::now();
    let mut tasks: Vec<_> = (0..50).map(commit).collect();
    let guilty = tasks.remove(23);
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(Commit::Committed));
    }
    for number in 50..60 {
        assert_eq!(commit(number).await.unwrap(), Ok(Commit::Committed));
    }
    let there_is_time_to_try_it_again = !guilty.is_finished();
    assert!(there_is_time_to_try_it_again || begun.elapsed() > Duration::from_secs(10));
    assert_eq!(guilty.await.unwrap(), Err(StoreError::Unavailable));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_answer_was_lost_is_known_again() {
    // Commits wait for a standby that there is not, after they are durable here: that is when their
    // connections are cut.
    let standby = ("synchronous_standby_names".to_owned(), "nobody".to_owned());
    let server = EmbeddedPostgres::start_async(Options {
        settings: vec![standby],
        ..Options::default()
    })
    .await
    .unwrap();
    let url = server.url("postgres");
    let separator = if url.contains('?') { '&' } else { '?' };
    let local_url = format!("{url}{separator}options=-c%20synchronous_commit%3Dlocal");
    PgStore::migrate(&local_url, &DatabaseTls::default())
        .await
        .unwrap();
    let connect = async |url: &str| {
        PgStore::connect(patient_config(url), Arc::new(Unobserved))
            .await
            .unwrap()
    };
    let (store, local) = (connect(&url).await, connect(&local_url).await);
    let (client, connection) = tokio_postgres::connect(&local_url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let cut = async || {
        let waiting = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                       where wait_event = 'SyncRep'";
        eventually("a commit waits", || async {
            client
                .query_one(waiting, &[])
                .await
                .unwrap()
                .get::<_, i64>(0)
                == 1
        })
        .await;
    };
    let acme = tenant("acme");
    let (secret_mac, mac_key_id) = store.keys().api_key_mac(b"secret");
    let key = NewApiKey {
        key_id: "k1".to_owned(),
        tenant: acme.clone(),
        name: "shop".to_owned(),
        roles: Vec::new(),
        secret_mac,
        mac_key_id,
    };
    assert_eq!(tokio::join!(store.create_tenant(&acme), cut()).0, Ok(true));
    assert_eq!(tokio::join!(store.create_api_key(&key), cut()).0, Ok(true));
    assert_eq!(tokio::join!(store.revoke_api_key("k1"), cut()).0, Ok(true));
    // Whoever asks anew is told that it is done already.
    assert_eq!(local.create_tenant(&acme).await, Ok(false));
    assert_eq!(local.create_api_key(&key).await, Ok(false));
    assert_eq!(local.revoke_api_key("k1").await, Ok(false));
}
