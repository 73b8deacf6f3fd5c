//! The sequencer: gapless, complete, and one at a time.
#![allow(
    clippy::similar_names,
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::default_trait_access,
    reason = "a test reads like its story, and one that cannot go on panics"
)]

use std::sync::Arc;
use std::time::Duration;

use quittance_domain::ports::{Commit, Store};
use quittance_store::{PgStore, Unobserved};
use quittance_test_support::{Story, TestDb, eventually, tenant};
use tokio_postgres::Client;

const INSERT: &str = "\
    insert into journal (stream_id, entity_seq, entry_id, event_type, result, actor, source, \
                         occurred_at, leaf, leaf_hash, mac, mac_key_id) \
    values (gen_random_uuid(), 1, gen_random_uuid(), 'x', 'success', 'a', 's', now(), '\\x01', \
            sha256(''), sha256(''), 'k')";

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Every committed entry has one position, and positions are 0, 1, 2 …
async fn assert_gapless_and_complete(client: &Client, entries: i64) {
    assert_eq!(
        number(client, "select count(*) from journal").await,
        entries
    );
    let unplaced = "select count(*) from journal j where not exists \
                    (select 1 from journal_positions p where p.arrival = j.arrival \
                     and p.entry_id = j.entry_id)";
    assert_eq!(number(client, unplaced).await, 0);
    assert_eq!(
        number(client, "select count(*) from journal_positions").await,
        entries
    );
    assert_eq!(
        number(
            client,
            "select coalesce(min(position), 0) from journal_positions"
        )
        .await,
        0
    );
    let last = "select coalesce(max(position), -1) from journal_positions";
    assert_eq!(number(client, last).await, entries - 1);
    assert_eq!(
        number(client, "select next_position from sequencer_head").await,
        entries
    );
}

async fn wait_for_positions(client: &Client, count: i64) {
    eventually("every entry has a position", || async {
        number(client, "select count(*) from journal_positions").await >= count
    })
    .await;
}

/// One writer's life: commits, rolls back, and leaves some transactions open while it goes on.
async fn write(db: Arc<TestDb>, writer: usize) -> i64 {
    let client = db.client().await;
    let mut delayed: Vec<(usize, Client)> = Vec::new();
    let mut committed = 0;
    for step in 0..60 {
        let finished = delayed.extract_if(.., |(since, _)| step >= *since + 9);
        for (since, client) in finished.collect::<Vec<_>>() {
            let end = if since % 2 == 0 { "commit" } else { "rollback" };
            client.batch_execute(end).await.unwrap();
            committed += i64::from(since % 2 == 0);
        }
        match (step + writer) % 6 {
            0 => {
                let begun = format!("begin; {INSERT}; {INSERT}; rollback");
                client.batch_execute(&begun).await.unwrap();
            }
            3 => {
                let other = db.client().await;
                other
                    .batch_execute(&format!("begin; {INSERT}"))
                    .await
                    .unwrap();
                delayed.push((step, other));
            }
            _ => {
                client.batch_execute(INSERT).await.unwrap();
                committed += 1;
            }
        }
    }
    for (_, client) in delayed {
        client.batch_execute("commit").await.unwrap();
        committed += 1;
    }
    committed
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_gapless_and_complete_whatever_order_commits_come_in() {
    let db = Arc::new(TestDb::new().await);
    let store = db.store().await;
    store.start_workers();
    let writers: Vec<_> = (0..4)
        .map(|writer| tokio::spawn(write(Arc::clone(&db), writer)))
        .collect();
    let mut entries = 0;
    for writer in writers {
        entries += writer.await.unwrap();
    }
    let client = db.client().await;
    wait_for_positions(&client, entries).await;
    assert_gapless_and_complete(&client, entries).await;
    // What was rolled back is proved dead, so nothing is looked for any more.
    eventually("every hole is proved dead", || async {
        let low = "select (low_arrival > (select last_value from journal_arrival) \
                           or low_arrival > (select max(arrival) from journal))::int::bigint \
                   from sequencer_head";
        number(&client, low).await == 1
    })
    .await;
    store.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_commits_late_is_not_lost_and_delays_nobody() {
    let db = TestDb::new().await;
    let store = db.store().await;
    store.start_workers();
    let (late, client) = (db.client().await, db.client().await);
    late.batch_execute(&format!("begin; {INSERT}"))
        .await
        .unwrap();
    for _ in 0..3 {
        client.batch_execute(INSERT).await.unwrap();
    }
    wait_for_positions(&client, 3).await;
    // Several looks later it is still a hole.
    let fence = "select extract(epoch from lease_until)::bigint from sequencer_head";
    let before = number(&client, fence).await;
    eventually("the lease is renewed", || async {
        number(&client, fence).await > before
    })
    .await;
    assert_eq!(
        number(&client, "select low_arrival from sequencer_head").await,
        1
    );
    late.batch_execute("commit").await.unwrap();
    wait_for_positions(&client, 4).await;
    assert_gapless_and_complete(&client, 4).await;
    let position = "select p.position from journal_positions p order by arrival limit 1";
    assert_eq!(number(&client, position).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payments_entries_are_in_order_and_waiters_are_woken() {
    let db = TestDb::new().await;
    let store = db.store().await;
    store.start_workers();
    let (mut story, accepted) = Story::accept("acme", "key-1", 1_000);
    let (_, foreign) = Story::accept("other", "key-1", 1_000);
    let waiter = tokio::spawn({
        let store = store.clone();
        async move {
            store.wait_for_position(2, Duration::from_secs(10)).await;
            store.next_position().await.unwrap()
        }
    });
    for change in [accepted, foreign, story.authorized()] {
        assert_eq!(store.commit(change).await, Ok(Commit::Committed));
    }
    assert_eq!(waiter.await.unwrap(), 3);
    let all = store.entries_from(None, 0, 10).await.unwrap();
    let positions: Vec<_> = all.iter().map(|entry| entry.position).collect();
    assert_eq!(positions, [Some(0), Some(1), Some(2)]);
    let own = store
        .entries_from(Some(&tenant("acme")), 0, 10)
        .await
        .unwrap();
    let numbers: Vec<_> = own.iter().map(|entry| entry.entity_seq).collect();
    assert_eq!(numbers, [1, 2]);
    assert_eq!(
        store
            .entries_from(Some(&tenant("acme")), 3, 10)
            .await
            .unwrap(),
        vec![]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_sequencers_one_is_active_and_a_fenced_one_writes_nothing() {
    let db = TestDb::new().await;
    let stores = [db.store().await, db.store().await];
    stores.iter().for_each(PgStore::start_workers);
    let client = db.client().await;
    eventually("one is active", || async {
        number(&client, "select count(holder) from sequencer_head").await == 1
    })
    .await;
    let mut entries = 0;
    for round in 0..5 {
        let fence = number(&client, "select fence from sequencer_head").await;
        // As if the holder had been silent for too long.
        eventually("another takes over", || async {
            client
                .batch_execute("update sequencer_head set lease_until = '-infinity'")
                .await
                .unwrap();
            number(&client, "select fence from sequencer_head").await > fence
        })
        .await;
        for number in 0..10 {
            let (_, change) = Story::accept("acme", &format!("key-{round}-{number}"), 1_000);
            assert_eq!(
                stores[number % 2].commit(change).await,
                Ok(Commit::Committed)
            );
            entries += 1;
        }
    }
    wait_for_positions(&client, entries).await;
    assert_gapless_and_complete(&client, entries).await;
}

#[test]
fn another_takes_over_from_one_that_died_with_holes() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let (first, second) = (runtime(), runtime());
    let db = second.block_on(TestDb::new());
    let client = second.block_on(db.client());
    let late = second.block_on(db.client());
    first.block_on(async {
        let store = PgStore::connect(db.config(), Arc::new(Unobserved))
            .await
            .unwrap();
        store.start_workers();
        late.batch_execute(&format!("begin; {INSERT}"))
            .await
            .unwrap();
        client.batch_execute(INSERT).await.unwrap();
        wait_for_positions(&client, 1).await;
    });
    // It ends as a killed process does: without giving its lease back.
    first.shutdown_background();
    second.block_on(async {
        let store = db.store().await;
        store.start_workers();
        client.batch_execute(INSERT).await.unwrap();
        late.batch_execute("commit").await.unwrap();
        wait_for_positions(&client, 3).await;
        assert_gapless_and_complete(&client, 3).await;
        assert!(number(&client, "select fence from sequencer_head").await >= 2);
        store.shutdown(Duration::from_secs(5)).await;
        // One that ends in order gives its lease back.
        assert_eq!(
            number(&client, "select count(holder) from sequencer_head").await,
            0
        );
    });
}

/// Nothing is looked for any more: every hole is filled or proved dead.
async fn wait_until_no_holes_are_left(client: &Client) {
    eventually("every hole is proved dead", || async {
        let low = "select (low_arrival > (select max(arrival) from journal))::int::bigint \
                   from sequencer_head";
        number(client, low).await == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vacuum_or_analyze_that_takes_hours_keeps_no_hole_alive() {
    let db = TestDb::new().await;
    let (vacuum, client) = (db.client().await, db.client().await);
    // The lock that they hold.
    vacuum
        .batch_execute("begin; lock table journal in share update exclusive mode")
        .await
        .unwrap();
    let rolled_back = format!("begin; {INSERT}; rollback");
    client.batch_execute(&rolled_back).await.unwrap();
    client.batch_execute(INSERT).await.unwrap();
    let store = db.store().await;
    store.start_workers();
    wait_for_positions(&client, 1).await;
    wait_until_no_holes_are_left(&client).await;
    vacuum.batch_execute("commit").await.unwrap();
    store.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_holes_than_one_pass_looks_into_are_all_filled() {
    let db = TestDb::new().await;
    let store = db.store().await;
    store.start_workers();
    let (late, early, client) = (db.client().await, db.client().await, db.client().await);
    for writer in [&late, &early] {
        writer.batch_execute("begin").await.unwrap();
    }
    let holes = 1_300;
    for _ in 0..holes {
        late.batch_execute(INSERT).await.unwrap();
        early.batch_execute(INSERT).await.unwrap();
    }
    early.batch_execute("commit").await.unwrap();
    wait_for_positions(&client, holes).await;
    late.batch_execute("commit").await.unwrap();
    wait_for_positions(&client, 2 * holes).await;
    assert_gapless_and_complete(&client, 2 * holes).await;
    wait_until_no_holes_are_left(&client).await;
    store.shutdown(Duration::from_secs(5)).await;
}
