//! A hash map in many small parts.
//!
//! One large `HashMap` that doubles while a lock is held stalls every request for as long as it
//! takes to move millions of entries. Parts double one at a time, each in microseconds.

use sha2::{Digest, Sha256};
use std::collections::HashMap;

const PARTS: usize = 256;

/// Keys must be evenly distributed in their lowest byte: digests or random ids.
pub(crate) struct SplitMap<V> {
    parts: Vec<HashMap<u128, V>>,
    len: usize,
}

impl<V> SplitMap<V> {
    pub(crate) fn new() -> Self {
        Self {
            parts: (0..PARTS).map(|_| HashMap::new()).collect(),
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: u128) -> Option<&V> {
        self.parts.get(part_of(key))?.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: u128) -> Option<&mut V> {
        self.parts.get_mut(part_of(key))?.get_mut(&key)
    }

    pub(crate) fn insert(&mut self, key: u128, value: V) {
        if let Some(part) = self.parts.get_mut(part_of(key))
            && part.insert(key, value).is_none()
        {
            self.len += 1;
        }
    }
}

fn part_of(key: u128) -> usize {
    let [low, ..] = key.to_le_bytes();
    usize::from(low)
}

/// The first 128 bits of SHA-256 over the parts, each ended by a zero byte, so that
/// ("ab", "c") and ("a", "bc") differ.
pub(crate) fn digest(parts: &[&[u8]]) -> u128 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    hash.finalize()
        .iter()
        .take(16)
        .fold(0, |sum, byte| (sum << 8) | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_values_apart_by_key() {
        let mut map = SplitMap::new();
        let (a, b) = (digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_ne!(a, b);
        map.insert(a, 1);
        map.insert(b, 2);
        map.insert(b, 3);
        assert_eq!((map.get(a), map.get(b), map.len()), (Some(&1), Some(&3), 2));
    }
}
