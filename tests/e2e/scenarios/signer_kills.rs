//! Two replicas under load, and whoever is signing the log at that moment is killed, again and again.
//!
//! `QUITTANCE_KILLS=200` is the long run; `QUITTANCE_KILLS_SEED` repeats the choices of a run, though not the timing.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::future::join_all;
use quittance_server::auth::Role;
use rustix::process::{Pid, Signal, kill_process};
use toml::Value;
use uuid::Uuid;

use super::kills_under_load::{Chance, number};
use super::log_under_load::{
    BLOWS, CLIENTS, Load, MOST_BETWEEN_BLOWS, Signed, one_tree_was_signed, verifier,
};
use super::verification::verified;
use crate::harness::process::ServerProcess;
use crate::harness::site::TENANT;
use crate::harness::{Site, SiteOptions, eventually};

/// A checkpoint takes some milliseconds, and is killed at one of them.
const LONGEST_PASS: u64 = 12_000;
/// How long it may take until one signs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which of these processes holds the lock on the signer's state now, as the kernel says (proc_locks(5)).
fn holder(processes: [u32; 2], inode: u64) -> Option<usize> {
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let held = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", process, file, ..] = words.as_slice() else {
            return None;
        };
        let (_, of) = file.rsplit_once(':')?;
        let is_state = of.parse() == Ok(inode);
        let process = process.parse::<u32>().ok().filter(|_| is_state)?;
        processes.iter().position(|it| *it == process)
    };
    locks.lines().find_map(held)
}

/// Waits until one of them signs, and kills it so many microseconds later.
fn kill_the_signer(processes: [u32; 2], lock: &Path, after: u64) -> usize {
    let inode = std::fs::metadata(lock).unwrap().ino();
    let give_up = Instant::now() + PATIENCE;
    let victim = loop {
        if let Some(victim) = holder(processes, inode) {
            break victim;
        }
        assert!(Instant::now() < give_up, "nobody signs");
    };
    // At any step: while it reads, signs, writes its state, and after that, before the checkpoint is stored.
    let at = Instant::now() + Duration::from_micros(after);
    while Instant::now() < at {
        std::hint::spin_loop();
    }
    let process = i32::try_from(processes[victim])
        .ok()
        .and_then(Pid::from_raw);
    kill_process(process.unwrap(), Signal::KILL).unwrap();
    victim
}

/// Entries of the largest checkpoint.
async fn covered(site: &Site) -> i64 {
    let covered = "select coalesce(max(tree_size), 0) from checkpoints";
    site.db.number(covered).await
}

/// Each entry has one position, and no position is left out.
async fn every_entry_has_one_index(site: &Site) {
    let without = "select count(*) from journal j where not exists \
                   (select from journal_positions p where p.arrival = j.arrival)";
    eventually("every entry has an index", async || {
        (site.db.number(without).await == 0).then_some(())
    })
    .await;
    let wrong = "select count(*) from (select position, arrival, \
                 row_number() over (order by position) - 1 as expected, count(*) over (partition by arrival) as times \
                 from journal_positions) p where position <> expected or times > 1";
    assert_eq!(site.db.number(wrong).await, 0);
    let entries = site.db.number("select count(*) from journal").await;
    let positions = "select count(*) from journal_positions";
    assert_eq!(site.db.number(positions).await, entries);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s76_whoever_is_signing_is_killed_under_load_and_the_other_goes_on_with_the_one_tree() {
    let blows = number("QUITTANCE_KILLS").unwrap_or(BLOWS);
    let seed = number("QUITTANCE_KILLS_SEED").unwrap_or(Uuid::new_v4().as_u64_pair().0);
    println!("{blows} blows; QUITTANCE_KILLS_SEED={seed}");
    let site = Site::new(SiteOptions::short_leases().recovering()).await;
    let often = || vec![("audit.checkpoint_interval_ms", Value::from(100))];
    let mut replicas = [
        ServerProcess::start(&site, often()).await,
        ServerProcess::start(&site, often()).await,
    ];
    let lock = site.audit.path().join("state/signer.lock");
    let keys = [verifier(&site, "log.key")];
    let signed = Signed::default();
    let load = Load::new(&replicas, seed, &signed);
    let paying = join_all((0..CLIENTS).map(|number| load.pay(number)));
    let killing = async {
        let mut chance = Chance(seed.wrapping_add(CLIENTS + 1));
        let mut victims = [0_u64; 2];
        for _ in 0..blows {
            load.get_on(1 + chance.below(MOST_BETWEEN_BLOWS)).await;
            let processes = replicas.each_ref().map(ServerProcess::id);
            let (lock, after) = (lock.clone(), chance.below(LONGEST_PASS));
            let killed =
                tokio::task::spawn_blocking(move || kill_the_signer(processes, &lock, after));
            let victim = killed.await.unwrap();
            replicas[victim].kill();
            victims[victim] += 1;
            let before = covered(&site).await;
            // The other one, and nobody else is there.
            eventually("the other signs", async || {
                (covered(&site).await > before).then_some(())
            })
            .await;
            load.get_on(1).await;
            replicas[victim].start_again().await;
        }
        load.end();
        victims
    };
    let (_, (), victims) = tokio::join!(paying, load.watch(&keys), killing);
    every_entry_has_one_index(&site).await;
    one_tree_was_signed(&site, &signed, &keys, &replicas).await;
    // Every head and checkpoint names the one before it, what was signed last is stored, and nothing else is wrong.
    let auditor = site
        .caller(replicas[0].address, TENANT, &[Role::PlatformAudit])
        .await;
    let (found, summary) = verified(&auditor).await;
    assert_eq!(found, []);
    assert!(summary.checkpoint.is_some());
    println!("killed while signing: {victims:?}; {load}");
}
