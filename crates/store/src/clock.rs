//! The database's clock, as this process reckons it: sampled now and then, carried on by the machine's
//! monotonic clock in between. Leases, due times and ages of keys are compared with the database's own
//! time, so a step of this machine's wall clock, its time zone, or another replica's skew change nothing.
//!
//! What is shown:
//! - Of samples of one server the one with the least uncertainty counts: half of its round trip, and
//!   [`DRIFT_PER_MILLION`] of its age. A sample that contradicts it beyond both uncertainties always counts:
//!   the server's clock was stepped.
//! - A sample of another server (after a failover or a restart) always counts.
//! - A correction forward is made at once. For one backward of at most [`MAX_STANDSTILL`] time stands still
//!   until the database's has caught up; for a longer one it steps back, which is logged. So time never runs
//!   backwards but when the database's own did, and it differs from the database's by more than
//!   [`MAX_STANDSTILL`] for no longer than until the next sample.
//! - A machine that was suspended is behind until the next sample: its monotonic clock stood still.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use diesel::sql_types::Timestamptz;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::config::StoreStartError;
use crate::connection::{Connector, Use};
use crate::failure;
use crate::warning::Thinned;

/// Default of [`crate::WorkerSettings::clock_sample`].
pub const DEFAULT_CLOCK_SAMPLE: Duration = Duration::from_secs(10);
/// By how much two clocks may drift apart, in millionths: more than a clock that is disciplined (500 at most).
const DRIFT_PER_MILLION: u32 = 1_000;
/// Longest correction backward for which time stands still rather than step.
pub const MAX_STANDSTILL: Duration = Duration::from_secs(1);
/// Longest round trip of a sample that counts, unless there is no other: it is uncertain by half of it.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(1);
/// Looks at the clock that one sample chooses from: the quickest says most.
const LOOKS: u32 = 3;
/// How soon a sample that could not be taken is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Digits of a second that the database keeps.
const SUBSECOND_DIGITS: u16 = 6;

static NO_SAMPLE: Thinned = Thinned::new();

/// One look at the database's clock.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// The middle of the round trip.
    at: Instant,
    /// What the database's clock showed.
    shown: DateTime<Utc>,
    /// Half of the round trip: the clock may have shown it that much earlier or later.
    uncertainty: Duration,
    /// When that server was started: another one's moment is another.
    server_started: DateTime<Utc>,
}

impl Sample {
    /// What the clock shows at a moment, if it went on as this one's.
    fn shown_at(&self, at: Instant) -> DateTime<Utc> {
        let later = at.saturating_duration_since(self.at);
        let earlier = self.at.saturating_duration_since(at);
        let delta = |duration| TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX);
        let moved = self.shown.checked_add_signed(delta(later));
        moved
            .and_then(|moved| moved.checked_sub_signed(delta(earlier)))
            .unwrap_or(self.shown)
    }

    fn uncertainty_at(&self, at: Instant) -> Duration {
        let age = at.saturating_duration_since(self.at);
        self.uncertainty + age / 1_000_000 * DRIFT_PER_MILLION
    }
}

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Observed {
    /// A better one is known.
    Kept,
    /// It counts from now on; shown time goes on from where it is.
    Taken,
    /// It counts from now on; shown time has stepped back by this much.
    SteppedBack(Duration),
}

/// The sample that counts, and the latest time that was shown.
#[derive(Debug)]
struct Reckoning {
    sample: Sample,
    shown: DateTime<Utc>,
}

impl Reckoning {
    fn new(sample: Sample) -> Self {
        Self {
            sample,
            shown: sample.shown,
        }
    }

    /// The time at a moment: never before what was shown.
    fn show(&mut self, at: Instant) -> DateTime<Utc> {
        let now = self.sample.shown_at(at).trunc_subsecs(SUBSECOND_DIGITS);
        self.shown = self.shown.max(now);
        self.shown
    }

    fn observe(&mut self, sample: Sample) -> Observed {
        let expected = self.sample.shown_at(sample.at);
        let uncertainty = self.sample.uncertainty_at(sample.at);
        let off = (sample.shown - expected).abs().to_std();
        let contradicts = off.unwrap_or(Duration::MAX) > uncertainty + sample.uncertainty;
        let same_server = sample.server_started == self.sample.server_started;
        if same_server && !contradicts && sample.uncertainty >= uncertainty {
            return Observed::Kept;
        }
        self.sample = sample;
        let back = (self.shown - sample.shown).to_std().unwrap_or_default();
        if back <= MAX_STANDSTILL {
            return Observed::Taken;
        }
        self.shown = sample.shown;
        Observed::SteppedBack(back)
    }
}

/// The database's clock, as this process reckons it (see the module's documentation). Cheap to clone.
#[derive(Clone, Debug)]
pub struct DatabaseClock(Arc<Mutex<Reckoning>>);

impl DatabaseClock {
    /// Now by the database's clock, UTC, in whole microseconds. Asks nobody.
    pub fn now(&self) -> DateTime<Utc> {
        // The lock comes first: whoever has it later must not show an earlier moment.
        let mut reckoning = self.0.lock();
        reckoning.show(Instant::now())
    }
}

/// Takes the samples, on a connection of its own.
pub(crate) struct Sampler {
    clock: DatabaseClock,
    connector: Connector,
    reconnected: Arc<Notify>,
}

impl Sampler {
    /// Takes the first sample.
    pub(crate) async fn start(connector: &Connector) -> Result<Self, StoreStartError> {
        let connection = connector.connect(Use::Read).await;
        let mut connection =
            connection.map_err(|error| StoreStartError::Connect(error.to_string()))?;
        let sample = sample(&mut connection).await;
        let sample = sample.map_err(|error| StoreStartError::Database(error.to_string()))?;
        Ok(Self {
            clock: DatabaseClock(Arc::new(Mutex::new(Reckoning::new(sample)))),
            connector: connector.clone(),
            reconnected: Arc::default(),
        })
    }

    pub(crate) fn clock(&self) -> DatabaseClock {
        self.clock.clone()
    }

    /// To be told when a connection was made anew, perhaps to another server: its clock is looked at then.
    pub(crate) fn reconnected(&self) -> Arc<Notify> {
        Arc::clone(&self.reconnected)
    }

    /// Takes samples until the store is shut down.
    pub(crate) async fn run(&self, every: Duration, mut stop: watch::Receiver<bool>) {
        let mut connection = None;
        let mut pause = every;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // One that was made before may still be to the server that was left.
                () = self.reconnected.notified() => connection = None,
                _ = stop.wait_for(|stop| *stop) => return,
            }
            pause = match self.look(&mut connection).await {
                Ok(()) => every,
                Err(error) => {
                    connection = None;
                    if let Some(count) = NO_SAMPLE.due() {
                        tracing::warn!(%error, count, "the database's clock cannot be read");
                    }
                    RETRY_AFTER.min(every)
                }
            };
        }
    }

    async fn look(&self, connection: &mut Option<AsyncPgConnection>) -> Result<(), String> {
        let ready = if let Some(ready) = connection {
            ready
        } else {
            let made = self.connector.connect(Use::Read).await;
            connection.insert(made.map_err(|error| error.to_string())?)
        };
        let limit = self.connector.client_timeout();
        let sample = tokio::time::timeout(limit, sample(ready)).await;
        let sample = sample
            .map_err(|_| "no answer".to_owned())?
            .map_err(|error| failure::kind(&error))?;
        if sample.uncertainty * 2 > MAX_ROUND_TRIP {
            return Err("too slow".to_owned());
        }
        let observed = self.clock.0.lock().observe(sample);
        match observed {
            Observed::Kept | Observed::Taken => {}
            Observed::SteppedBack(by) => {
                let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(
                    duration_ms = millis,
                    "the database's clock has gone back, and ours with it"
                );
            }
        }
        Ok(())
    }
}

#[derive(QueryableByName)]
struct Moments {
    #[diesel(sql_type = Timestamptz)]
    shown: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    server_started: DateTime<Utc>,
}

/// Looks a few times; the quickest look counts.
async fn sample(connection: &mut AsyncPgConnection) -> Result<Sample, diesel::result::Error> {
    let mut best = look(connection).await?;
    for _ in 1..LOOKS {
        let next = look(connection).await?;
        if next.uncertainty < best.uncertainty {
            best = next;
        }
    }
    Ok(best)
}

async fn look(connection: &mut AsyncPgConnection) -> Result<Sample, diesel::result::Error> {
    const LOOK: &str =
        "select clock_timestamp() as shown, pg_postmaster_start_time() as server_started";
    let before = Instant::now();
    let row: Moments = sql_query(LOOK).get_result(connection).await?;
    let uncertainty = before.elapsed() / 2;
    Ok(Sample {
        at: before + uncertainty,
        shown: row.shown,
        uncertainty,
        server_started: row.server_started,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn time(millis: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_800_000_000_000 + millis).unwrap()
    }

    /// A sample after so many milliseconds of the monotonic clock, showing so many of the database's.
    fn sample(start: Instant, at: u32, shown: i64, uncertainty: u32) -> Sample {
        Sample {
            at: start + MS * at,
            shown: time(shown),
            uncertainty: MS * uncertainty,
            server_started: time(-1_000),
        }
    }

    #[test]
    fn time_goes_on_with_the_monotonic_clock() {
        let start = Instant::now();
        let mut reckoning = Reckoning::new(sample(start, 0, 0, 1));
        assert_eq!(reckoning.show(start), time(0));
        assert_eq!(reckoning.show(start + MS * 2_500), time(2_500));
        // Whoever was late with reading the monotonic clock.
        assert_eq!(reckoning.show(start + MS * 2_400), time(2_500));
    }

    #[test]
    fn the_least_uncertain_sample_counts() {
        let start = Instant::now();
        let mut reckoning = Reckoning::new(sample(start, 0, 0, 5));
        // Agrees, and says less.
        assert_eq!(reckoning.observe(sample(start, 100, 90, 8)), Observed::Kept);
        assert_eq!(reckoning.show(start + MS * 100), time(100));
        // Agrees, and says more.
        assert_eq!(
            reckoning.observe(sample(start, 200, 203, 2)),
            Observed::Taken
        );
        assert_eq!(reckoning.show(start + MS * 200), time(203));
        // The old one has aged: 100 s at a thousandth are 100 ms.
        assert_eq!(
            reckoning.observe(sample(start, 100_200, 100_180, 50)),
            Observed::Taken
        );
        assert_eq!(reckoning.show(start + MS * 100_300), time(100_280));
    }

    #[test]
    fn a_clock_that_was_stepped_is_followed() {
        let start = Instant::now();
        let mut reckoning = Reckoning::new(sample(start, 0, 0, 1));
        // Forward: at once, though the sample is a poor one.
        let forward = sample(start, 1_000, 61_000, 40);
        assert_eq!(reckoning.observe(forward), Observed::Taken);
        assert_eq!(reckoning.show(start + MS * 1_000), time(61_000));
        // A little back: time stands still.
        let back = sample(start, 2_000, 61_500, 40);
        assert_eq!(reckoning.show(start + MS * 2_000), time(62_000));
        assert_eq!(reckoning.observe(back), Observed::Taken);
        assert_eq!(reckoning.show(start + MS * 2_100), time(62_000));
        assert_eq!(reckoning.show(start + MS * 2_501), time(62_001));
        // Far back: it steps.
        let far = sample(start, 3_000, 2_500, 40);
        assert_eq!(
            reckoning.observe(far),
            Observed::SteppedBack(MS * (62_001 - 2_500))
        );
        assert_eq!(reckoning.show(start + MS * 3_100), time(2_600));
    }

    #[test]
    fn after_a_failover_the_new_server_s_clock_counts() {
        let start = Instant::now();
        let mut reckoning = Reckoning::new(sample(start, 0, 0, 1));
        let other = Sample {
            server_started: time(0),
            ..sample(start, 10_000, 9_700, 300)
        };
        assert_eq!(reckoning.show(start + MS * 10_000), time(10_000));
        assert_eq!(reckoning.observe(other), Observed::Taken);
        assert_eq!(reckoning.show(start + MS * 10_200), time(10_000));
        assert_eq!(reckoning.show(start + MS * 11_000), time(10_700));
    }
}
