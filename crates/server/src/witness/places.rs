//! Places for requests, and for connections: so many at once, and whoever dawdles gives way.
//!
//! Anybody may send requests, as slowly as they like. If they could hold all places, the log's own would wait behind them:
//! so the request whose body is read longest loses its place to one that comes. A body of a few kilobytes is read in
//! moments, so that it takes more strangers in those moments than there are places to be in its way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// The places. Cheap to clone.
#[derive(Clone)]
pub(super) struct Places(Arc<Mutex<Taken>>);

struct Taken {
    most: usize,
    next: u64,
    /// Requests whose bodies are being read, or connections that wait for one, oldest first, and what tells each that it has lost its place.
    reading: BTreeMap<u64, CancellationToken>,
    /// Requests that were read, and are being answered.
    answering: usize,
}

impl Taken {
    fn count(&self) -> usize {
        self.reading.len() + self.answering
    }
}

/// A place, until it is dropped.
pub(super) struct Place {
    places: Places,
    number: u64,
    lost: CancellationToken,
    answering: bool,
}

impl Places {
    /// So many.
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Taken {
            most,
            next: 0,
            reading: BTreeMap::new(),
            answering: 0,
        })))
    }

    /// Takes one, from whoever reads longest if all are taken. `None` where all are about to be answered.
    pub(super) fn take(&self) -> Option<Place> {
        let lost = CancellationToken::new();
        let number = self.with(|taken| {
            if taken.count() >= taken.most {
                let (_, dawdler) = taken.reading.pop_first()?;
                dawdler.cancel();
            }
            let number = taken.next;
            taken.next += 1;
            taken.reading.insert(number, lost.clone());
            Some(number)
        })?;
        Some(Place {
            places: self.clone(),
            number,
            lost,
            answering: false,
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut Taken) -> T) -> T {
        // Nothing in here panics.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Place {
    /// What tells that the place is lost.
    pub(super) fn lost_token(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// It was answered, and waits again: behind those that wait already.
    pub(super) fn wait_again(&mut self) {
        if !std::mem::take(&mut self.answering) {
            return;
        }
        let lost = self.lost.clone();
        self.number = self.places.with(|taken| {
            let number = taken.next;
            taken.next += 1;
            taken.answering -= 1;
            taken.reading.insert(number, lost);
            number
        });
    }

    /// Waits until the place is lost.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Everything is read: from now on the place is kept. False where it is lost already.
    pub(super) fn keep(&mut self) -> bool {
        let number = self.number;
        self.answering = self.places.with(|taken| {
            let held = taken.reading.remove(&number).is_some();
            taken.answering += usize::from(held);
            held
        });
        self.answering
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (number, answering) = (self.number, self.answering);
        self.places.with(|taken| {
            taken.reading.remove(&number);
            taken.answering -= usize::from(answering);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_longest_gives_way_and_who_is_answered_does_not() {
        let places = Places::new(2);
        let mut first = places.take().unwrap();
        let mut second = places.take().unwrap();
        assert!(first.keep());
        let mut third = places.take().unwrap();
        assert!(second.lost.is_cancelled() && !second.keep());
        assert!(!third.lost.is_cancelled() && third.keep());
        assert!(places.take().is_none());
        drop(second);
        assert!(places.take().is_none());
        drop(first);
        assert!(places.take().is_some());
    }

    #[test]
    fn who_was_answered_waits_behind_those_that_wait() {
        let places = Places::new(2);
        let mut first = places.take().unwrap();
        assert!(first.keep());
        let second = places.take().unwrap();
        first.wait_again();
        let third = places.take().unwrap();
        assert!(second.lost.is_cancelled() && !first.lost.is_cancelled());
        drop((first, second, third));
        let all: Vec<_> = (0..2).filter_map(|_| places.take()).collect();
        assert!(all.iter().all(|place| !place.lost.is_cancelled()));
    }
}
