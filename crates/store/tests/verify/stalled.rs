//! What keeps the sequencer from finding entries: whoever looks is told, and what docs/signing.md says repairs it.

use std::sync::Arc;
use std::time::Duration;

use quittance_domain::notification::Outbox as _;
use quittance_domain::ports::{Commit, Store as _};
use quittance_store::PgStore;
use quittance_test_support::{Alarms, Story, TestDb, eventually};
use tokio_postgres::Client;

use super::{codes, commit_world, grow, number, sequenced, verify};

async fn age(store: &PgStore) -> f64 {
    store.oldest_pending_entry_age().await.unwrap()
}

/// The repair that docs/signing.md gives.
fn repair() -> &'static str {
    let docs = include_str!("../../../../docs/signing.md");
    let (_, after) = docs.split_once("```sql\nbegin;").unwrap();
    let (sql, _) = after.split_once("```").unwrap();
    sql.trim()
}

/// How an attacker, or a database that was moved without the values of its sequences, stops the sequencer.
struct Way {
    sql: &'static str,
    /// Whether also a server tells that committed nothing meanwhile.
    shows_to_all: bool,
    /// Whether the sequencer itself tells.
    stops: bool,
    /// How verification reports it.
    code: &'static str,
    /// Whether it was over by itself, so that later entries of a payment may have come before earlier ones.
    passes: bool,
}

const WAYS: [Way; 8] = [
    Way {
        sql: "update sequencer_head set low_arrival = 1000000000000000, holder = null",
        shows_to_all: true,
        stops: true,
        code: "NOT_SEQUENCED",
        passes: false,
    },
    Way {
        sql: "delete from sequencer_head",
        shows_to_all: true,
        stops: true,
        code: "HEAD_DIFFERS",
        passes: false,
    },
    Way {
        sql: "select setval('journal_arrival', 1)",
        shows_to_all: true,
        stops: false,
        code: "POSITION_DIFFERS",
        passes: false,
    },
    Way {
        sql: "update sequencer_head set next_position = 1000000000000000",
        shows_to_all: true,
        stops: true,
        code: "HEAD_DIFFERS",
        passes: false,
    },
    // Any holder of the application's role can do so.
    Way {
        sql: "set role quittance_app; \
              insert into journal_positions select n, 9223372036854775600 - m, entry_id, stream_id, entity_seq, tenant_id \
              from sequencer_head h, \
              unnest(array[h.next_position, h.next_position + 7, 9223372036854775807]) with ordinality s (n, m), \
              (select * from journal limit 1) j; \
              reset role",
        shows_to_all: true,
        stops: false,
        code: "POSITION_DIFFERS",
        passes: false,
    },
    // And raise the head beyond: what is notified of walks there.
    Way {
        sql: "insert into journal_positions select 100000000, -7, entry_id, stream_id, entity_seq, tenant_id \
              from journal limit 1; \
              update sequencer_head set next_position = 1000000000",
        shows_to_all: true,
        stops: true,
        code: "HEAD_DIFFERS",
        passes: false,
    },
    // So little that it is over before anybody looks.
    Way {
        sql: "select setval('journal_arrival', (select last_value - 5 from journal_arrival))",
        shows_to_all: false,
        stops: false,
        code: "POSITION_DIFFERS",
        passes: true,
    },
    Way {
        sql: "alter table journal alter arrival set default -1",
        shows_to_all: false,
        stops: false,
        code: "NOT_SEQUENCED",
        passes: false,
    },
];

async fn wait_until_nothing_waits(store: &PgStore) {
    eventually("no entry waits", || async { age(store).await == 0.0 }).await;
}

/// A log of some entries, nothing of it waiting.
async fn quiet() -> (TestDb, PgStore, Arc<Alarms>, Client) {
    let db = TestDb::new().await;
    let (store, alarms) = Alarms::watch(db.config()).await;
    store.start_workers();
    let client = db.client().await;
    grow(&store, &client, 200).await;
    wait_until_nothing_waits(&store).await;
    assert_eq!(alarms.taken_of("sequencer"), 0);
    (db, store, alarms, client)
}

async fn is_told_of_and_repaired(way: &Way) {
    let (db, store, alarms, client) = quiet().await;
    client.batch_execute(way.sql).await.unwrap();
    let before = number(&client, "select count(*) from journal_positions").await;
    commit_world(&store, 1_000_000).await;
    if way.stops {
        eventually("the sequencer tells", || async {
            alarms.taken_of("sequencer") > 0
        })
        .await;
    }
    eventually("who committed it tells", || async {
        age(&store).await > 0.0 && alarms.taken_of("sequencer") > 0
    })
    .await;
    if way.shows_to_all {
        let after = number(&client, "select count(*) from journal_positions").await;
        assert_eq!(after, before, "{}", way.sql);
        let (other, told) = Alarms::watch(db.config()).await;
        age(&other).await;
        assert_eq!(told.taken_of("sequencer"), 1, "{}", way.sql);
    }
    let found = codes(&verify(&store).await.0);
    assert!(found.contains(&way.code), "{}: {found:?}", way.sql);
    let _ = store.plan_notifications(1_000).await;

    client
        .batch_execute(&format!("begin; {}", repair()))
        .await
        .unwrap();
    commit_world(&store, 2_000_000).await;
    sequenced(&client).await;
    wait_until_nothing_waits(&store).await;
    let _ = alarms.taken();
    commit_world(&store, 3_000_000).await;
    sequenced(&client).await;
    wait_until_nothing_waits(&store).await;
    assert_eq!(alarms.taken_of("sequencer"), 0, "{}", way.sql);
    let found = codes(&verify(&store).await.0);
    let all = number(&client, "select count(*) from journal_positions").await;
    eventually("everything is looked at to be notified of", || async {
        store.plan_notifications(1_000).await.unwrap().next == all
    })
    .await;
    let allowed = |code: &&str| way.passes && *code == "POSITIONS_REORDERED";
    assert!(found.iter().all(allowed), "{}: {found:?}", way.sql);
    store.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_a_sequencer_that_was_stopped_is_told_of_and_goes_on_once_it_is_repaired() {
    for way in &WAYS {
        is_told_of_and_repaired(way).await;
    }
}

/// Streams and notifications go by how many entries have a position: whoever was told of more would leave out for good what comes.
#[tokio::test(flavor = "multi_thread")]
async fn s75_a_next_position_that_was_raised_for_a_moment_is_told_of_and_believed_by_nobody() {
    let (db, store, alarms, client) = quiet().await;
    let positions = number(&client, "select count(*) from journal_positions").await;
    let other = db.store().await;
    let planned_to = async |next: u64| {
        eventually("all is looked at that there is", || async {
            other.plan_notifications(1_000).await.unwrap().next == next
        })
        .await;
    };
    planned_to(positions).await;
    let raise = "update sequencer_head set next_position = 1000000000000000";
    client.batch_execute(raise).await.unwrap();
    for store in [&store, &other] {
        assert_eq!(store.next_position().await, Ok(positions));
    }
    planned_to(positions).await;
    eventually("it is told of", || async {
        age(&store).await;
        alarms.taken_of("sequencer") > 0
    })
    .await;
    let put_back = format!("update sequencer_head set next_position = {positions}");
    client.batch_execute(&put_back).await.unwrap();
    commit_world(&store, 1_000_000).await;
    sequenced(&client).await;
    wait_until_nothing_waits(&store).await;
    let all = number(&client, "select count(*) from journal").await;
    planned_to(all).await;
    let _ = alarms.taken();
    age(&store).await;
    assert_eq!(alarms.taken_of("sequencer"), 0);
    assert_eq!(codes(&verify(&store).await.0), [""; 0]);
    store.shutdown(Duration::from_secs(60)).await;
}

/// Any holder of the application's role can insert a position.
#[tokio::test(flavor = "multi_thread")]
async fn s75_a_position_that_was_put_far_behind_is_told_of_and_in_nobodys_way() {
    let (_db, store, alarms, client) = quiet().await;
    let put = "set role quittance_app; \
               insert into journal_positions select n, -n, entry_id, stream_id, entity_seq, tenant_id \
               from unnest(array[1000000000000, 9223372036854775807]) n, (select * from journal limit 1) j; \
               reset role";
    client.batch_execute(put).await.unwrap();
    let anew = "update sequencer_head set holder = null, fence = fence + 1";
    client.batch_execute(anew).await.unwrap();
    commit_world(&store, 1_000_000).await;
    let all = number(&client, "select count(*) from journal").await;
    eventually("every entry has a position", || async {
        store.next_position().await == Ok(all)
    })
    .await;
    eventually("nothing is left to be told", || async {
        store.plan_notifications(1_000).await.unwrap().next == all
    })
    .await;
    age(&store).await;
    assert!(alarms.taken_of("sequencer") > 0);
    let gone = "delete from journal_positions where position >= 1000000000000";
    client.batch_execute(gone).await.unwrap();
    wait_until_nothing_waits(&store).await;
    let _ = alarms.taken();
    age(&store).await;
    assert_eq!(alarms.taken_of("sequencer"), 0);
    assert_eq!(codes(&verify(&store).await.0), [""; 0]);
    store.shutdown(Duration::from_secs(60)).await;
}

/// Without a word nobody would ever miss it: no tree has it, and nothing follows upon it.
#[tokio::test(flavor = "multi_thread")]
async fn s75_an_entry_that_is_deleted_before_it_has_a_position_is_missed_by_whoever_committed_it() {
    let (_db, store, alarms, client) = quiet().await;
    let hidden = "alter table journal alter arrival set default -1";
    client.batch_execute(hidden).await.unwrap();
    commit_world(&store, 1_000_000).await;
    let gone = "delete from journal where arrival = -1";
    client.batch_execute(gone).await.unwrap();
    age(&store).await;
    assert_eq!(alarms.taken_of("sequencer"), 1);
    // Once: nothing brings it back.
    assert_eq!((age(&store).await, alarms.taken_of("sequencer")), (0.0, 0));
    store.shutdown(Duration::from_secs(60)).await;
}

/// An entry has the first position, as far as the rows say.
const SAID_TO_BE_FIRST: &str = "update journal_positions p set arrival = j.arrival, entry_id = j.entry_id, \
     stream_id = j.stream_id, entity_seq = j.entity_seq from journal j where j.arrival = -1 and p.position = 0";
/// And the first tile, too.
const PUT_INTO_THE_TILE: &str = "update tree_tiles set hashes = j.leaf_hash || substr(hashes, 33) \
     from journal j where j.arrival = -1 and level = 0 and tile_index = 0";
const PUT_BACK: &str = "delete from journal_positions where position = 0; \
     insert into journal_positions select * from first_position; \
     update tree_tiles t set hashes = f.hashes from first_tile f where t.level = 0 and t.tile_index = 0";

/// Positions and tiles are rows. Only a proof that leads to a head of ours shows that the tree has an entry.
#[tokio::test(flavor = "multi_thread")]
async fn s75_an_entry_is_not_forgotten_because_rows_say_for_a_moment_that_the_tree_has_it() {
    let (_db, store, alarms, client) = quiet().await;
    let prepared = "alter table journal alter arrival set default -1; alter table tree_tiles disable trigger all; \
         create table first_position as select * from journal_positions where position = 0; \
         create table first_tile as select * from tree_tiles where level = 0 and tile_index = 0";
    client.batch_execute(prepared).await.unwrap();
    let (_, accepted) = Story::accept("acme", "key-1", 1_000);
    assert_eq!(store.commit(accepted).await, Ok(Commit::Committed));
    for said in [SAID_TO_BE_FIRST, PUT_INTO_THE_TILE] {
        client.batch_execute(said).await.unwrap();
        assert!(age(&store).await > 0.0, "{said}");
        assert_eq!(alarms.taken_of("sequencer"), 1, "{said}");
    }
    client.batch_execute(PUT_BACK).await.unwrap();
    let gone = "delete from journal where arrival = -1";
    client.batch_execute(gone).await.unwrap();
    assert_eq!((age(&store).await, alarms.taken_of("sequencer")), (0.0, 1));
    store.shutdown(Duration::from_secs(60)).await;
}

/// A repair where nothing was wrong changes nothing that anybody sees.
#[tokio::test(flavor = "multi_thread")]
async fn the_repair_of_a_sequencer_does_no_harm_to_a_sound_one() {
    let (_db, store, alarms, client) = quiet().await;
    let positions = "select count(*) from journal_positions";
    let before = number(&client, positions).await;
    client
        .batch_execute(&format!("begin; {}", repair()))
        .await
        .unwrap();
    assert_eq!(number(&client, positions).await, before);
    commit_world(&store, 1_000_000).await;
    sequenced(&client).await;
    wait_until_nothing_waits(&store).await;
    assert_eq!(alarms.taken_of("sequencer"), 0);
    assert_eq!(verify(&store).await.0, []);
    store.shutdown(Duration::from_secs(60)).await;
}
