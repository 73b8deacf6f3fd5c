//! How long an entry waits for a checkpoint that covers it, at a rate of writing: `quittance-bench checkpoint-lag`.
//!
//! Whole payments take more processors than a small machine has at a thousand a second: load generator, provider and
//! database run on it as well. So here the entries of so many payments, two for each, are written through the real store by
//! this process, while the real server gives them their positions, puts them into the tree and signs it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use quittance_domain::change::Change;
use quittance_domain::ports::Store as _;
use quittance_store::PgStore;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_postgres::Client;

use crate::number::{float, median};
use crate::options::Options;
use crate::run::{progress, say, throw_away_in};
use crate::schedules;
use crate::service::{self, Quittance, SERVICE_DATABASE, SandboxProcess};
use crate::setup::Works;

/// Entries of a payment that is taken at once: accepted, and its outcome.
const ENTRIES_PER_PAYMENT: u32 = 2;
/// How often it is looked at what has come, and what is covered.
const LOOK: Duration = Duration::from_millis(50);
/// The newest arrival that was given out, and the newest that a checkpoint covers; 0 where there is none.
const ARRIVALS: &str = "
    select (select coalesce(max(arrival), 0) from journal),
           coalesce((select arrival from journal_positions
                     where position = (select max(tree_size) - 1 from checkpoints)), 0)";
/// How long connections may take to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
struct Measured {
    entries: u64,
    seconds: f64,
    /// Each time it was looked: the longest that an entry can have waited for a checkpoint by then, in milliseconds.
    waits: Vec<f64>,
}

impl Measured {
    fn row(&self) -> String {
        let per_second = float(self.entries) / self.seconds.max(f64::EPSILON);
        let payments = per_second / f64::from(ENTRIES_PER_PAYMENT);
        let most = self.waits.iter().copied().fold(0.0, f64::max);
        let usual = median(self.waits.iter().copied());
        let (entries, seconds) = (self.entries, self.seconds);
        format!(
            "| {entries} | {seconds:.1} | {per_second:.0} | {payments:.0} | {usual:.0} | {most:.0} |"
        )
    }
}

/// Writes at the rate of so many payments a second for as long as a measurement takes, and prints the table.
///
/// # Errors
/// Where a part cannot be started, or fails.
pub async fn run(options: Options, payments_per_second: u32) -> anyhow::Result<ExitCode> {
    let kept = options.data_dir.as_deref().map(throw_away_in).transpose()?;
    let data_dir = kept.as_ref().map(|it| it.path().join("postgres"));
    let postgres = service::start_postgres(data_dir).await?;
    let sandbox = SandboxProcess::start().await?;
    let url = postgres.url(SERVICE_DATABASE);
    let quittance = Quittance::prepare(&options, &url, &sandbox, Works::Idle)?;
    quittance.migrate(&url).await?;
    quittance.prepare_log().await?;
    let store = schedules::store(&quittance, &url).await?;
    let rate = payments_per_second.saturating_mul(ENTRIES_PER_PAYMENT);
    let wanted = u64::from(rate).saturating_mul(options.seconds);
    progress(&format!("making {wanted} changes"));
    let schedules = make(&store, wanted).await?;
    let api_key = quittance.create_key("platform.audit").await?;
    let server = quittance
        .serve(api_key, options.server_log.as_deref())
        .await?;
    progress(&format!("writing {rate} of them a second"));
    let log = service::connect(&url).await?;
    let measured = measure(&store, &log, schedules, rate).await?;
    say(
        "| entries | seconds | entries per second | payments per second | median wait, ms | longest wait, ms |",
    )?;
    say("| ---: | ---: | ---: | ---: | ---: | ---: |")?;
    say(&measured.row())?;
    server.stop().await?;
    store.shutdown(CLOSE_LIMIT).await;
    postgres.stop()?;
    Ok(ExitCode::SUCCESS)
}

/// Schedules that have so many changes, or a few more.
async fn make(store: &PgStore, wanted: u64) -> anyhow::Result<Vec<Vec<Change>>> {
    let (mut schedules, mut made) = (Vec::new(), 0);
    for seed in 0.. {
        if made >= wanted {
            break;
        }
        let changes = schedules::changes(store, seed).await?;
        made += u64::try_from(changes.len())?;
        schedules.push(changes);
    }
    Ok(schedules)
}

/// Writes at this many changes a second, and looks what is covered meanwhile.
async fn measure(
    store: &PgStore,
    log: &Client,
    schedules: Vec<Vec<Change>>,
    rate: u32,
) -> anyhow::Result<Measured> {
    let entries = schedules.iter().map(Vec::len).sum::<usize>();
    let begun = Instant::now();
    let writing = write(store, schedules, rate, begun);
    tokio::pin!(writing);
    let mut waits = Waits::since(begun);
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            written = &mut writing => {
                written?;
                return Ok(Measured {
                    entries: u64::try_from(entries)?,
                    seconds: begun.elapsed().as_secs_f64(),
                    waits: waits.found,
                });
            }
            _ = ticks.tick() => {
                let row = log.query_one(ARRIVALS, &[]).await?;
                waits.look(Instant::now(), row.try_get(0)?, row.try_get(1)?);
            }
        }
    }
}

/// Begins each schedule when it is due, late rather than never; its changes follow each other at once.
async fn write(
    store: &PgStore,
    schedules: Vec<Vec<Change>>,
    rate: u32,
    begun: Instant,
) -> anyhow::Result<()> {
    let (mut under_way, mut before) = (JoinSet::new(), 0);
    for changes in schedules {
        let due = begun + Duration::from_secs_f64(float(before) / f64::from(rate));
        before += u64::try_from(changes.len())?;
        tokio::time::sleep_until(due.into()).await;
        let store = store.clone();
        under_way.spawn(async move {
            for change in changes {
                store.commit(change).await?;
            }
            anyhow::Ok(())
        });
        while let Some(ended) = under_way.try_join_next() {
            ended??;
        }
    }
    while let Some(ended) = under_way.join_next().await {
        ended??;
    }
    Ok(())
}

/// How long entries wait, from what had come at which moment.
struct Waits {
    /// The moments, and the newest arrival by then; what a checkpoint covers is dropped from the front.
    came: Vec<(Instant, i64)>,
    /// Of the look before, which found nothing uncovered that is still so.
    before: Instant,
    found: Vec<f64>,
}

impl Waits {
    const fn since(begun: Instant) -> Self {
        Self {
            came: Vec::new(),
            before: begun,
            found: Vec::new(),
        }
    }

    /// Takes in that at this moment `newest` was the last arrival and `covered` the last under a checkpoint. Whatever was seen
    /// first now, may have come right after the look before.
    fn look(&mut self, now: Instant, newest: i64, covered: i64) {
        self.came.push((now, newest));
        let uncovered = self.came.iter().position(|(_, came)| *came > covered);
        let seen = uncovered.unwrap_or(self.came.len());
        if let Some((moment, _)) = self.came.drain(..seen).next_back() {
            self.before = moment;
        }
        let wait = match uncovered {
            Some(_) => now.duration_since(self.before),
            None => Duration::ZERO,
        };
        self.found.push(wait.as_secs_f64() * 1e3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_waits_from_the_look_before_it_was_seen() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut waits = Waits::since(begun);
        waits.look(at(50), 0, 0);
        waits.look(at(100), 10, 0);
        waits.look(at(150), 20, 0);
        waits.look(at(200), 20, 15);
        waits.look(at(250), 20, 20);
        waits.look(at(300), 21, 20);
        let found: Vec<_> = waits.found.iter().map(|wait| wait.round()).collect();
        assert_eq!(found, [0.0, 50.0, 100.0, 100.0, 0.0, 50.0]);
    }

    #[test]
    fn a_row_says_the_rate_and_the_longest_wait() {
        let measured = Measured {
            entries: 4_000,
            seconds: 2.0,
            waits: vec![100.0, 900.0, 500.0],
        };
        assert_eq!(measured.row(), "| 4000 | 2.0 | 2000 | 1000 | 500 | 900 |");
    }
}
