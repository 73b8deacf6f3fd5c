//! A small map from what a caller presented to what is known about it, for a few seconds.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// SHA-256 of the presented key: the cache holds no secret.
pub(super) type Fingerprint = [u8; 32];

struct Entry<V> {
    value: V,
    expires: Instant,
}

/// At most `capacity` values, each for `ttl`.
pub(super) struct Cache<V> {
    entries: Mutex<HashMap<Fingerprint, Entry<V>>>,
    ttl: Duration,
    capacity: usize,
}

impl<V: Clone> Cache<V> {
    pub(super) fn new(ttl: Duration, capacity: usize) -> Self {
        Self {
            entries: Mutex::new(HashMap::new()),
            ttl,
            capacity,
        }
    }

    pub(super) fn get(&self, key: &Fingerprint, now: Instant) -> Option<V> {
        let entries = self.entries.lock();
        let entry = entries.get(key).filter(|entry| entry.expires > now)?;
        Some(entry.value.clone())
    }

    pub(super) fn insert(&self, key: Fingerprint, value: V, now: Instant) {
        if self.ttl.is_zero() {
            return;
        }
        let mut entries = self.entries.lock();
        if entries.len() >= self.capacity && !entries.contains_key(&key) {
            entries.retain(|_, entry| entry.expires > now);
            // Full of live entries: forgetting all costs a look-up each, and keeps this short.
            if entries.len() >= self.capacity {
                entries.clear();
            }
        }
        entries.insert(
            key,
            Entry {
                value,
                expires: now + self.ttl,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_expire_and_the_cache_stays_bounded() {
        let cache = Cache::new(Duration::from_secs(5), 2);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        cache.insert([1; 32], "a", start);
        assert_eq!(cache.get(&[1; 32], after(4)), Some("a"));
        assert_eq!(cache.get(&[1; 32], after(5)), None);
        cache.insert([2; 32], "b", after(3));
        cache.insert([3; 32], "c", after(6));
        assert_eq!(
            cache.get(&[2; 32], after(6)),
            Some("b"),
            "only the expired one went"
        );
        cache.insert([4; 32], "d", after(6));
        assert_eq!(cache.entries.lock().len(), 1);
        assert_eq!(cache.get(&[4; 32], after(6)), Some("d"));
    }

    #[test]
    fn without_a_ttl_nothing_is_remembered() {
        let cache = Cache::new(Duration::ZERO, 2);
        cache.insert([1; 32], (), Instant::now());
        assert_eq!(cache.get(&[1; 32], Instant::now()), None);
    }
}
