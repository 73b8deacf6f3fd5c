//! Lists of a file of which no more is kept than a bundle may have, however many it has.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

/// At most `MOST` items, and how many were given.
///
/// The rest is read and let go: a file of a few bytes an item must not take many times its length.
pub(super) struct Counted<T, const MOST: usize> {
    /// The first of them.
    pub(super) kept: Vec<T>,
    /// How many there were.
    pub(super) given: usize,
}

struct Items<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Items<T, MOST> {
    type Value = Counted<T, MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < MOST {
            let Some(item) = items.next_element()? else {
                let given = kept.len();
                return Ok(Counted { kept, given });
            };
            kept.push(item);
        }
        let mut given = kept.len();
        while items.next_element::<IgnoredAny>()?.is_some() {
            given += 1;
        }
        Ok(Counted { kept, given })
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Counted<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Items(PhantomData))
    }
}
