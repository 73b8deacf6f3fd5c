//! Whose webhooks are being worked at: a provider that is slow takes the places of its own account only.

use std::collections::HashMap;

use quittance_domain::ids::ProviderAccount;
use tokio::task::Id;

/// The tasks that run, by account.
#[derive(Debug, Default)]
pub(super) struct Shares {
    accounts: HashMap<Id, ProviderAccount>,
    taken: HashMap<ProviderAccount, usize>,
}

/// How many of `places` one of so many accounts may have: half of them, where there is more than one.
pub(super) const fn share(places: usize, accounts: usize) -> usize {
    if accounts > 1 {
        places.div_ceil(2)
    } else {
        places
    }
}

impl Shares {
    pub fn begun(&mut self, task: Id, account: ProviderAccount) {
        *self.taken.entry(account.clone()).or_default() += 1;
        self.accounts.insert(task, account);
    }

    pub fn ended(&mut self, task: Id) {
        let Some(account) = self.accounts.remove(&task) else {
            return;
        };
        if let Some(taken) = self.taken.get_mut(&account) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                self.taken.remove(&account);
            }
        }
    }

    pub fn taken(&self) -> Vec<(ProviderAccount, usize)> {
        let taken = self.taken.iter();
        taken.map(|(name, taken)| (name.clone(), *taken)).collect()
    }

    /// Whether an account has all the places that it may: there may be more of it.
    pub fn crowded(&self, share: usize) -> bool {
        self.taken.values().any(|taken| *taken >= share)
    }
}

#[cfg(test)]
mod tests {
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
        shares.ended(first);
        shares.ended(first);
        assert_eq!(shares.taken(), [(account, 1)]);
        shares.ended(second);
        assert_eq!(shares.taken(), []);
    }
}
