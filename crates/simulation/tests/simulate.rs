//! Random schedules. `SEEDS=first..last` (or one number) runs others than the default; `make simulate` runs many.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

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
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.load(Ordering::Relaxed) < MAX_FAILED {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        return;
                    }
                    if !holds(seed) {
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
    println!("{} schedules, no violation", seeds.end - seeds.start);
}

fn holds(seed: u64) -> bool {
    let violations = quittance_simulation::check::run(seed);
    if violations.is_empty() {
        return true;
    }
    println!("seed {seed} (replay with SEEDS={seed}):");
    for violation in violations {
        println!("  {violation}");
    }
    false
}
