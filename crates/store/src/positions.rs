//! How many journal entries have a position, and waiting for more of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ports::StoreError;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::pool::Reader;
use crate::sequencer::ReadHead;

/// How often the database is asked, where no worker of this process follows it.
const POLL: Duration = Duration::from_millis(100);

/// The newest known count, published to whoever waits.
#[derive(Clone)]
pub(crate) struct Positions {
    reader: Reader,
    next: Arc<watch::Sender<u64>>,
    /// Whether the sequencer's worker of this process keeps `next` up to date.
    followed: Arc<AtomicBool>,
    /// Held by the one waiter that asks the database for all.
    asking: Arc<tokio::sync::Mutex<()>>,
}

impl Positions {
    pub(crate) fn new(reader: Reader) -> Self {
        Self {
            reader,
            next: Arc::new(watch::Sender::new(0)),
            followed: Arc::default(),
            asking: Arc::default(),
        }
    }

    /// Takes what the database has, from the one that follows it: also where that is less than was known, because the
    /// database lost its last moments.
    pub(crate) fn set(&self, next: u64) {
        self.next.send_if_modified(|known| {
            let newer = next > *known;
            *known = next;
            newer
        });
    }

    /// Tells those who wait that entries below `next` have their positions.
    fn publish(&self, next: u64) {
        self.next.send_if_modified(|known| {
            let newer = next > *known;
            *known = next.max(*known);
            newer
        });
    }

    /// Whether somebody else publishes.
    pub(crate) fn set_followed(&self, followed: bool) {
        AtomicBool::store(&self.followed, followed, Ordering::Relaxed);
    }

    pub(crate) async fn next_position(&self) -> Result<u64, StoreError> {
        let read = self.reader.read("read next position", |connection| {
            async move { ReadHead.get_result::<i64>(connection).await }.boxed()
        });
        let next = u64::try_from(read.await?)
            .map_err(|_| StoreError::Corrupt("sequencer_head.next_position".to_owned()))?;
        if AtomicBool::load(&self.followed, Ordering::Relaxed) {
            // It may have been read before what is known by now.
            self.publish(next);
        } else {
            self.set(next);
        }
        Ok(next)
    }

    /// Waits until more than `position` entries have a position, or `limit` has passed.
    pub(crate) async fn wait_for(&self, position: u64, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut next = self.next.subscribe();
        loop {
            if *next.borrow_and_update() > position {
                return;
            }
            let tick = (Instant::now() + POLL).min(deadline);
            tokio::select! {
                changed = next.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(tick) => {}
            }
            if Instant::now() >= deadline {
                return;
            }
            if !AtomicBool::load(&self.followed, Ordering::Relaxed)
                && let Ok(_turn) = self.asking.try_lock()
            {
                // An error is no reason to wake anybody: the next tick asks again.
                let _ = self.next_position().await;
            }
        }
    }
}
