//! How many payments (accepted + outcome, two commits each) the write path takes a second.
//!
//! `DATABASE_URL=… cargo run --release -p quittance-store --example commit_throughput [tasks] [seconds] [committers]`
//!
//! Not a benchmark of the service (see `bench/`): callers are tasks of this process, and making their
//! changes (leaves, encryption) is measured with them.
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::similar_names,
    reason = "a program for people, run by hand"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quittance_domain::ports::{Commit, Store as _};
use quittance_store::{PgStore, StoreObserver};
use quittance_test_support::{Story, TestDb};

/// Counts batches and their members.
#[derive(Default)]
struct Batches {
    batches: AtomicU64,
    changes: AtomicU64,
}

impl StoreObserver for Batches {
    fn batch(&self, size: usize) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.changes
            .fetch_add(u64::try_from(size).unwrap_or(0), Ordering::Relaxed);
    }
    fn operation(&self, _summary: &'static str, _seconds: f64, _ok: bool) {}
}

/// One caller: accepts and authorizes payments until the end; gives how long each took.
async fn call(store: PgStore, task: usize, end: Instant) -> Vec<Duration> {
    let mut taken = Vec::new();
    while Instant::now() < end {
        let key = format!("key-{task}-{}", taken.len());
        let (mut story, accepted) = Story::accept("acme", &key, 1_000);
        let started = Instant::now();
        for change in [accepted, story.authorized()] {
            assert_eq!(store.commit(change).await, Ok(Commit::Committed));
        }
        taken.push(started.elapsed());
    }
    taken
}

fn argument(position: usize, default: u64) -> u64 {
    std::env::args()
        .nth(position)
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[tokio::main]
async fn main() {
    let (tasks, seconds) = (argument(1, 128), argument(2, 8));
    let db = TestDb::new().await;
    let batches = Arc::new(Batches::default());
    let mut config = db.config();
    let committers = u64::try_from(config.committers).expect("few committers");
    config.committers = usize::try_from(argument(3, committers)).expect("fewer committers");
    let store = PgStore::connect(config, batches.clone())
        .await
        .expect("a store");
    store.start_workers();
    let started = Instant::now();
    let end = started + Duration::from_secs(seconds);
    let callers: Vec<_> = (0..usize::try_from(tasks).expect("fewer tasks"))
        .map(|task| tokio::spawn(call(store.clone(), task, end)))
        .collect();
    let mut taken = Vec::new();
    for caller in callers {
        taken.extend(caller.await.expect("a caller"));
    }
    let elapsed = started.elapsed().as_secs_f64();
    let behind = db.client().await;
    let unplaced = "select (select count(*) from journal) - next_position from sequencer_head";
    let unplaced: i64 = behind
        .query_one(unplaced, &[])
        .await
        .expect("a count")
        .get(0);
    taken.sort_unstable();
    let at = |share: usize| {
        taken
            .get(taken.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    let (count, members) = (
        batches.batches.load(Ordering::Relaxed),
        batches.changes.load(Ordering::Relaxed),
    );
    println!("tasks                {tasks}");
    println!(
        "payments/s           {:.0}",
        f64::from(u32::try_from(taken.len()).expect("fewer")) / elapsed
    );
    println!("p50 / p99 (2 commits) {:?} / {:?}", at(50), at(99));
    println!("changes per batch    {}", members / count.max(1));
    println!("entries not sequenced yet at the end  {unplaced}");
    store.shutdown(Duration::from_secs(5)).await;
}
