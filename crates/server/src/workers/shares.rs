//! Whose work is being done: a provider or a receiver that is slow takes its own places only.

use std::collections::HashMap;
use std::hash::Hash;

use tokio::task::{Id, JoinError};

/// The tasks that run, by whose they are.
#[derive(Debug)]
pub(super) struct Shares<K> {
    tasks: HashMap<Id, K>,
    taken: HashMap<K, usize>,
}

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self {
            tasks: HashMap::new(),
            taken: HashMap::new(),
        }
    }
}

/// How many of `places` one of so many accounts may have: half of them, where there is more than one.
pub(super) const fn share(places: usize, accounts: usize) -> usize {
    if accounts > 1 {
        places.div_ceil(2)
    } else {
        places
    }
}

/// Which task has ended, however it did.
pub(super) fn task_of<T>(ended: &Result<(Id, T), JoinError>) -> Id {
    match ended {
        Ok((id, _)) => *id,
        Err(error) => error.id(),
    }
}

impl<K: Clone + Eq + Hash> Shares<K> {
    pub fn begun(&mut self, task: Id, of: K) {
        *self.taken.entry(of.clone()).or_default() += 1;
        self.tasks.insert(task, of);
    }

    /// Whose it was.
    pub fn ended(&mut self, task: Id) -> Option<K> {
        let of = self.tasks.remove(&task)?;
        if let Some(taken) = self.taken.get_mut(&of) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                self.taken.remove(&of);
            }
        }
        Some(of)
    }

    /// How many run, in all.
    pub fn total(&self) -> usize {
        self.tasks.len()
    }

    pub fn taken_by(&self, of: &K) -> usize {
        self.taken.get(of).copied().unwrap_or_default()
    }

    pub fn taken(&self) -> Vec<(K, usize)> {
        let taken = self.taken.iter();
        taken.map(|(of, taken)| (of.clone(), *taken)).collect()
    }

    /// Whether one of them has all the places that it may: there may be more of it.
    pub fn crowded(&self, share: usize) -> bool {
        self.taken.values().any(|taken| *taken >= share)
    }
}

#[cfg(test)]
mod tests {
    use quittance_domain::ids::ProviderAccount;

    use super::*;

    #[test]
    fn i12_an_account_among_others_has_half_of_the_places() {
        for (places, accounts, expected) in [
            (16, 0, 16),
            (16, 1, 16),
            (16, 2, 8),
            (16, 9, 8),
            (1, 2, 1),
            (3, 2, 2),
        ] {
            assert_eq!(share(places, accounts), expected, "{places} {accounts}");
        }
    }

    #[tokio::test]
    async fn places_are_counted_until_their_task_ends() {
        let account = ProviderAccount::parse("slow").unwrap();
        let mut shares = Shares::default();
        let [first, second] = [(); 2].map(|()| tokio::spawn(async {}).id());
        shares.begun(first, account.clone());
        shares.begun(second, account.clone());
        assert_eq!(shares.taken(), [(account.clone(), 2)]);
        assert!(shares.crowded(2) && !shares.crowded(3));
        assert_eq!((shares.taken_by(&account), shares.total()), (2, 2));
        assert_eq!(shares.ended(first).as_ref(), Some(&account));
        assert_eq!(shares.ended(first), None);
        assert_eq!(shares.taken(), [(account.clone(), 1)]);
        assert_eq!(shares.ended(second).as_ref(), Some(&account));
        assert_eq!(shares.taken(), []);
        assert_eq!((shares.taken_by(&account), shares.total()), (0, 0));
    }
}
