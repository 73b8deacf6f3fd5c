//! Verification of the whole log, and what somebody with every right on the database may do to it (scenario 75).
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test reads like its story, and one that cannot go on panics"
)]

mod built_upon;
mod cut_off;
mod deleted;
mod every_kind;
mod floods;
mod outside;
mod signing;
mod stalled;
mod tampering;
mod unknown_key;
mod untampered;

use std::time::Duration;

use futures::future::join_all;
use quittance_domain::change::Change;
use quittance_domain::ports::{Commit, Store as _};
use quittance_domain::verification::{Mismatch, Trusted};
use quittance_simulation::world::World;
use quittance_store::{
    PgStore, SIGNER_WITHIN, VERIFY_PATIENCE, VerifyError, VerifyEvent, VerifyProgress,
    VerifySettings, VerifySummary,
};
use quittance_test_support::{TestDb, eventually};
use tokio::sync::mpsc;
use tokio_postgres::Client;

/// Worlds whose changes are committed beside each other.
const WORLDS_AT_ONCE: u64 = 32;

/// A number of the environment, for the full run.
fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// The changes that payments went through in a random schedule, as the product's own flows made them.
fn changes(store: &PgStore, seed: u64) -> Vec<Change> {
    let key = store.keys().fingerprint_key();
    let world = World::new(seed).with_fingerprint_key(key).with_customers();
    world.store.keep_offers();
    assert!(world.live_in_trouble(), "seed {seed}");
    let committed = world.store.offers().into_iter();
    let committed = committed.filter(|(_, answer)| answer == &Ok(Commit::Committed));
    committed.map(|(change, _)| change).collect()
}

async fn commit_world(store: &PgStore, seed: u64) -> usize {
    let changes = changes(store, seed);
    let count = changes.len();
    for change in changes {
        // One whose answer was lost is offered again.
        store.commit(change).await.unwrap();
    }
    count
}

/// A log of at least so many entries, each with its position and in the tree.
async fn grow(store: &PgStore, client: &Client, entries: usize) {
    grow_from(store, client, 0, entries).await;
}

async fn grow_from(store: &PgStore, client: &Client, mut seed: u64, entries: usize) {
    let mut count = 0;
    while count < entries {
        let worlds = (seed..seed + WORLDS_AT_ONCE).map(|seed| commit_world(store, seed));
        count += join_all(worlds).await.into_iter().sum::<usize>();
        seed += WORLDS_AT_ONCE;
    }
    sequenced(client).await;
}

async fn sequenced(client: &Client) {
    let without = "select count(*) from journal j where not exists \
                   (select 1 from journal_positions p where p.arrival = j.arrival)";
    eventually("every entry has a position", || async {
        client
            .query_one(without, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 0
    })
    .await;
    let outside = "select (select count(*) from journal_positions) - \
                   coalesce((select max(tree_size) from tree_heads), 0)";
    eventually("every entry is in the tree", || async {
        client
            .query_one(outside, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 0
    })
    .await;
}

async fn run(
    store: &PgStore,
    lanes: usize,
    resume: VerifyProgress,
    trusted: &Trusted,
) -> (Result<VerifySummary, VerifyError>, Vec<VerifyEvent>) {
    let settings = VerifySettings {
        lanes,
        resume,
        trusted: trusted.clone(),
        patience: VERIFY_PATIENCE,
        signer_within: SIGNER_WITHIN,
    };
    run_with(store, settings).await
}

async fn run_with(
    store: &PgStore,
    settings: VerifySettings,
) -> (Result<VerifySummary, VerifyError>, Vec<VerifyEvent>) {
    let (sender, mut events) = mpsc::channel(16);
    let running = store.verify_log(settings, sender);
    let listening = async {
        let mut heard = Vec::new();
        while let Some(event) = events.recv().await {
            heard.push(event);
        }
        heard
    };
    tokio::join!(running, listening)
}

/// What is found, and the summary; the numbers agree.
async fn verify(store: &PgStore) -> (Vec<Mismatch>, VerifySummary) {
    verify_against(store, &Trusted::default()).await
}

async fn verify_against(store: &PgStore, trusted: &Trusted) -> (Vec<Mismatch>, VerifySummary) {
    found_in(run(store, 2, VerifyProgress::default(), trusted).await)
}

/// The same where nobody signs meanwhile: a checkpoint that is not there is not waited for.
async fn verify_at_rest(store: &PgStore, trusted: &Trusted) -> (Vec<Mismatch>, VerifySummary) {
    let settings = VerifySettings {
        lanes: 2,
        resume: VerifyProgress::default(),
        trusted: trusted.clone(),
        patience: VERIFY_PATIENCE,
        signer_within: Duration::ZERO,
    };
    found_in(run_with(store, settings).await)
}

fn found_in(
    (summary, events): (Result<VerifySummary, VerifyError>, Vec<VerifyEvent>),
) -> (Vec<Mismatch>, VerifySummary) {
    let summary = summary.unwrap();
    let found: Vec<Mismatch> = events
        .into_iter()
        .filter_map(|event| match event {
            VerifyEvent::Mismatch(mismatch) => Some(*mismatch),
            VerifyEvent::Progress { .. } => None,
        })
        .collect();
    assert_eq!(u64::try_from(found.len()).unwrap(), summary.mismatches);
    (found, summary)
}

async fn number(client: &Client, sql: &str) -> u64 {
    let number: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    number.try_into().unwrap()
}

async fn grown(entries: usize) -> (TestDb, PgStore, Client) {
    let db = TestDb::new().await;
    let store = db.store().await;
    store.start_workers();
    let client = db.client().await;
    grow(&store, &client, entries).await;
    (db, store, client)
}

fn codes(found: &[Mismatch]) -> Vec<&'static str> {
    found.iter().map(|mismatch| mismatch.fault.code()).collect()
}
