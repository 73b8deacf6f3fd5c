//! Random schedules. `SEEDS=first..last` (or one number) runs others than the default; `make simulate` runs many.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use quittance_simulation::check;
use quittance_simulation::situations::{self, Situations};
use quittance_simulation::world::World;

/// Schedules of an ordinary test run: about a minute of one core, unoptimized.
const DEFAULT_SCHEDULES: u64 = 6_000;
/// A run ends after this many schedules have failed.
const MAX_FAILED: u64 = 10;
/// Of a long run, progress is told this often.
const TOLD_EVERY: u64 = 50_000;

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("SEEDS") else {
        return 0..DEFAULT_SCHEDULES;
    };
    if let Some((first, last)) = text.split_once("..") {
        return first.parse().unwrap()..last.parse().unwrap();
    }
    let seed: u64 = text.parse().unwrap();
    seed..seed + 1
}

#[test]
fn every_schedule_keeps_the_invariants() {
    let seeds = seeds();
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let came_up = Mutex::new(Situations::new());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.load(Ordering::Relaxed) < MAX_FAILED {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        return;
                    }
                    if !holds(seed, &came_up) {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    if seed > seeds.start && seed % TOLD_EVERY == 0 {
                        println!("{} schedules", seed - seeds.start);
                    }
                }
            });
        }
    });
    assert_eq!(failed.into_inner(), 0, "schedules failed");
    if seeds == (0..DEFAULT_SCHEDULES) {
        each_came_up(&came_up.into_inner().unwrap());
    }
    println!("{} schedules, no violation", seeds.end - seeds.start);
}

fn holds(seed: u64, came_up: &Mutex<Situations>) -> bool {
    let world = World::new(seed);
    let violations = check::judge(&world);
    let mut came_up = came_up.lock().unwrap();
    for (name, count) in situations::of(&world) {
        *came_up.entry(name).or_default() += count;
    }
    drop(came_up);
    if violations.is_empty() {
        return true;
    }
    println!("seed {seed} (replay with SEEDS={seed}):");
    for violation in violations {
        println!("  {violation}");
    }
    false
}

/// What has to come up in an ordinary run, by the beginning of its name, and how often at least: less than half of what was
/// seen. So a world that does not do something any more is noticed, though no schedule fails.
const COME_UP: &[(&str, u64)] = &[
    ("attempt UNKNOWN RESPONSE_TIMEOUT", 600),
    ("attempt UNKNOWN UNREADABLE_RESPONSE", 700),
    ("attempt UNKNOWN SENDER_LOST", 700),
    ("attempt UNKNOWN PROVIDER_ERROR", 300),
    ("attempt NOT_SENT CONNECTION_REFUSED", 4_000),
    ("attempt NOT_SENT CIRCUIT_OPEN", 700),
    ("attempt NOT_SENT RATE_LIMITED", 300),
    ("attempt NOT_SENT SEND_OVERDUE", 1),
    ("attempt PENDING", 1_200),
    ("attempt REQUIRES_ACTION", 600),
    ("attempt DECLINED", 600),
    ("entry payment.failed_over", 3_000),
    ("entry payment.unresolved: RATE_LIMITED", 180),
    ("entry payment.attempt_ended", 70),
    ("entry payment.recovery_exhausted", 400),
    ("entry payment.retry_requested", 400),
    ("entry payment.amount_mismatch", 200),
    ("entry payment.expired", 300),
    ("transaction decided by a person", 200),
    ("transaction VOID of SERVICE", 60),
    ("transaction REFUND of PROVIDER", 400),
    ("transaction CAPTURE of PROVIDER", 100),
    ("transaction CHARGEBACK of PROVIDER", 150),
    ("transaction CHARGEBACK_REVERSAL of PROVIDER", 70),
    ("transaction CAPTURE of CALLER REVERSED", 30),
    (
        "transaction PURCHASE of CALLER SUCCEEDED after unknown",
        700,
    ),
    ("case RECOVERY_EXHAUSTED", 500),
    ("case AMOUNT_MISMATCH", 200),
    ("case CONTRADICTING_FACT", 400),
    ("case EXCESS_AMOUNT", 100),
];

fn each_came_up(came_up: &Situations) {
    let mut seldom = Vec::new();
    for (name, floor) in COME_UP {
        let all = came_up.iter().filter(|(seen, _)| seen.starts_with(name));
        let count: u64 = all.map(|(_, count)| count).sum();
        println!("{count:>7} {name}");
        if count < *floor {
            seldom.push(format!("{name}: {count} times, not {floor}"));
        }
    }
    assert!(seldom.is_empty(), "too seldom: {seldom:#?}");
}
