//! How fast a log is verified, and how much memory that takes: `quittance-bench verify-log`.
//!
//! A private database is filled through the real store with the changes of random schedules (the simulation's, as the
//! product's own flows make them), sequenced and put into the tree. Then the real server verifies it, asked by
//! `quittance audit verify`, in a process that has done nothing else. Then again with ten times as many entries: a server
//! that needs no more memory for them holds no more than its batches.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use quittance_domain::ports::Store as _;
use quittance_store::PgStore;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::number::float;
use crate::options::Options;
use crate::process::{self, Memory};
use crate::run::{progress, say, throw_away_in};
use crate::schedules;
use crate::service::{self, Quittance, SERVICE_DATABASE, SandboxProcess};
use crate::setup::Works;

/// The second log has so many times the entries of the first.
const GROWTH: u64 = 10;
/// Schedules whose changes are committed beside each other.
const WORLDS_AT_ONCE: usize = 64;
/// How often it is looked how many entries there are.
const LOOK_EVERY: usize = 64;
/// How long the sequencer and the tree may take without giving out a position.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);
/// How long connections may take to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// One verification.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Measured {
    entries: u64,
    payments: u64,
    seconds: f64,
    /// When the server was ready, and when it had verified.
    memory: Option<[Memory; 2]>,
}

impl Measured {
    fn row(&self) -> String {
        let per_second = float(self.entries) / self.seconds.max(f64::EPSILON);
        let memory = self.memory.map_or_else(
            || "- | -".to_owned(),
            |[before, after]| format!("{:.0} | {:.0}", before.resident, after.peak),
        );
        format!(
            "| {} | {} | {:.1} | {per_second:.0} | {memory} |",
            self.entries, self.payments, self.seconds
        )
    }
}

/// Fills, verifies, fills on and verifies again; prints the table. Fails where anything does not verify.
///
/// # Errors
/// Where a part cannot be started, or fails.
pub async fn run(options: Options, entries: u64) -> anyhow::Result<ExitCode> {
    let kept = options.data_dir.as_deref().map(throw_away_in).transpose()?;
    let data_dir = kept.as_ref().map(|it| it.path().join("postgres"));
    let postgres = service::start_postgres(data_dir).await?;
    let sandbox = SandboxProcess::start().await?;
    let url = postgres.url(SERVICE_DATABASE);
    let quittance = Quittance::prepare(&options, &url, &sandbox, Works::Idle)?;
    quittance.migrate(&url).await?;
    quittance.prepare_log().await?;
    let client = service::connect(&url).await?;
    say("| entries | payments | seconds | entries per second | MiB before | MiB at most |")?;
    say("| ---: | ---: | ---: | ---: | ---: | ---: |")?;
    let mut seed = 0;
    for wanted in [entries, entries.saturating_mul(GROWTH)] {
        progress(&format!("filling the log up to {wanted} entries"));
        seed = fill(&quittance, &url, &client, seed, wanted).await?;
        progress("verifying it");
        let log = options.server_log.as_deref();
        say(&verify(&quittance, &client, log).await?.row())?;
    }
    drop(quittance);
    postgres.stop()?;
    Ok(ExitCode::SUCCESS)
}

/// Commits schedules from one on until there are so many entries, all of them in the tree. Gives the next schedule.
async fn fill(
    quittance: &Quittance,
    url: &str,
    client: &Client,
    mut seed: u64,
    wanted: u64,
) -> anyhow::Result<u64> {
    let store = schedules::store(quittance, url).await?;
    store.start_workers();
    let (mut worlds, mut ended) = (JoinSet::new(), 0_usize);
    let mut enough = count(client, "journal").await? >= wanted;
    while !enough || !worlds.is_empty() {
        while !enough && worlds.len() < WORLDS_AT_ONCE {
            worlds.spawn(commit_world(store.clone(), seed));
            seed += 1;
        }
        if let Some(committed) = worlds.join_next().await {
            committed??;
            ended += 1;
        }
        if ended.is_multiple_of(LOOK_EVERY) || enough {
            enough = enough || count(client, "journal").await? >= wanted;
        }
    }
    in_the_tree(client).await?;
    store.shutdown(CLOSE_LIMIT).await;
    // As a server finds it that has run for long: no table without statistics, nothing that is only in the WAL.
    for upkeep in ["vacuum analyze", "checkpoint"] {
        client.batch_execute(upkeep).await?;
    }
    Ok(seed)
}

/// The changes that payments went through in one schedule.
async fn commit_world(store: PgStore, seed: u64) -> anyhow::Result<()> {
    for change in schedules::changes(&store, seed).await? {
        store.commit(change).await?;
    }
    Ok(())
}

async fn in_the_tree(client: &Client) -> anyhow::Result<()> {
    let (mut before, mut since) = (0, Instant::now());
    loop {
        let size: i64 = client
            .query_one("select coalesce(max(tree_size), 0) from tree_heads", &[])
            .await?
            .get(0);
        if u64::try_from(size)? == count(client, "journal").await? {
            return Ok(());
        }
        if size > before {
            (before, since) = (size, Instant::now());
        }
        ensure!(since.elapsed() < PATIENCE, "the tree stands still");
        tokio::time::sleep(POLL).await;
    }
}

async fn count(client: &Client, table: &str) -> anyhow::Result<u64> {
    let sql = format!("select count(*) from {table}");
    let count: i64 = client.query_one(&sql, &[]).await?.get(0);
    Ok(u64::try_from(count)?)
}

async fn verify(
    quittance: &Quittance,
    client: &Client,
    log: Option<&Path>,
) -> anyhow::Result<Measured> {
    let api_key = quittance.create_key("platform.audit").await?;
    let server = quittance.serve(api_key, log).await?;
    let memory = || server.pid().and_then(process::memory);
    let before = memory();
    let begun = Instant::now();
    let said = quittance.verify_log(&server.target).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let measured = Measured {
        // What was there to be verified; a few came while it ran.
        entries: count(client, "journal").await?,
        payments: count(client, "payments").await?,
        seconds,
        memory: before.zip(memory()).map(|(before, after)| [before, after]),
    };
    server.stop().await?;
    let last = said.lines().last().context("it said nothing")?;
    progress(last);
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_how_fast_and_with_how_much_memory() {
        let memory = |resident, peak| Memory { resident, peak };
        let measured = Measured {
            entries: 20_000,
            payments: 1_000,
            seconds: 2.0,
            memory: Some([memory(40.2, 41.0), memory(50.0, 61.7)]),
        };
        assert_eq!(measured.row(), "| 20000 | 1000 | 2.0 | 10000 | 40 | 62 |");
        let elsewhere = Measured {
            memory: None,
            ..measured
        };
        assert_eq!(elsewhere.row(), "| 20000 | 1000 | 2.0 | 10000 | - | - |");
    }
}
