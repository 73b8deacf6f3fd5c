//! What is seen of the server's memory and of its log while something is measured.

use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_postgres::Client;

use crate::process;

/// How often the server's memory and its log are looked at.
const INTERVAL: Duration = Duration::from_millis(200);
/// Age in milliseconds of the first entry in the log that no checkpoint covers, or of the first that has no
/// position yet; null where there is none.
const UNCOVERED: &str = "
    select (extract(epoch from clock_timestamp() - coalesce(
        (select j.occurred_at from journal_positions p join journal j using (stream_id, entity_seq)
         where p.position = (select coalesce(max(tree_size), 0) from checkpoints)),
        (select occurred_at from journal
         where arrival > (select coalesce(max(arrival), 0) from journal_positions)
         order by arrival limit 1))) * 1000)::float8";

/// What was seen in a measurement.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// Most memory of the server that was resident, in MiB.
    pub resident: Option<f64>,
    /// Age of the oldest entry that no checkpoint covered, in milliseconds, each time there was one.
    pub uncovered: Vec<f64>,
}

impl Watched {
    /// The most that an entry was old while no checkpoint covered it.
    pub fn most_uncovered(&self) -> Option<f64> {
        self.uncovered.iter().copied().reduce(f64::max)
    }
}

/// Runs a load, and looks now and then at the memory of the server, and at the log in its database if there is one that is
/// signed.
///
/// # Errors
/// Where the database does not answer.
pub async fn watched<T>(
    server: Option<u32>,
    log: Option<&Client>,
    load: impl Future<Output = T>,
) -> anyhow::Result<(T, Watched)> {
    let mut seen = Watched::default();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(load);
    loop {
        tokio::select! {
            done = &mut load => return Ok((done, seen)),
            _ = ticks.tick() => {
                let now = server.and_then(process::memory).map(|memory| memory.resident);
                seen.resident = seen.resident.into_iter().chain(now).reduce(f64::max);
                if let Some(log) = log {
                    let row = log.query_one(UNCOVERED, &[]).await?;
                    seen.uncovered.extend(row.try_get::<_, Option<f64>>(0)?);
                }
            }
        }
    }
}
