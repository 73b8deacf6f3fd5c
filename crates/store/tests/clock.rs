//! Time as the database tells it.
#![allow(
    clippy::unwrap_used,
    reason = "a test reads like its story, and one that cannot go on panics"
)]

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use quittance_store::{PgStore, Unobserved, WorkerSettings};
use quittance_test_support::{Cut, FaultProxy, TestDb, eventually};
use tokio_postgres::Client;

/// How far the clock may be off: a sample is off by half its round trip at most, and a busy machine makes that
/// long.
const MARGIN: TimeDelta = TimeDelta::seconds(1);

async fn database_time(client: &Client) -> DateTime<Utc> {
    let sql = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint";
    let micros: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    DateTime::from_timestamp_micros(micros).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn s74_the_time_is_the_databases_and_never_runs_backwards() {
    let db = TestDb::new().await;
    let store = db.store().await;
    store.start_workers_with(WorkerSettings {
        clock_sample: Duration::from_millis(5),
        ..WorkerSettings::default()
    });
    let (client, clock) = (db.client().await, store.clock());
    let mut last = clock.now();
    for _ in 0..200 {
        let before = clock.now();
        let theirs = database_time(&client).await;
        let after = clock.now();
        assert!(last <= before && before <= after);
        assert!(before - MARGIN <= theirs && theirs <= after + MARGIN);
        assert_eq!(after.timestamp_subsec_nanos() % 1_000, 0);
        last = after;
    }
    store.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_goes_on_while_the_database_is_away_and_is_looked_at_again_after() {
    let db = TestDb::new().await;
    let (proxy, url) = FaultProxy::before_database(db.url()).await;
    let mut config = db.config();
    config.url = url;
    let store = PgStore::connect(config, Arc::new(Unobserved))
        .await
        .unwrap();
    store.start_workers_with(WorkerSettings {
        clock_sample: Duration::from_millis(20),
        ..WorkerSettings::default()
    });
    let (client, clock) = (db.client().await, store.clock());
    proxy.refuse_connections().await;
    proxy.cut_all(Cut::Close).await;
    let away_since = clock.now();
    eventually("time goes on", || async {
        clock.now() > away_since + TimeDelta::milliseconds(50)
    })
    .await;
    proxy.pass().await;
    let connected = proxy.accepted();
    eventually("the clock is looked at again", || async {
        proxy.accepted() > connected
    })
    .await;
    let before = clock.now();
    let theirs = database_time(&client).await;
    let after = clock.now();
    assert!(
        before - MARGIN <= theirs && theirs <= after + MARGIN,
        "{before} {theirs} {after}"
    );
    store.shutdown(Duration::from_secs(60)).await;
}
