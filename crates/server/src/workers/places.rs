//! How many transactions may be taken up now, in all and of each provider account.

use quittance_domain::ids::ProviderAccount;
use quittance_domain::ports::{Accounts, Circuit, Claim, DueKind};
use tokio::task::Id;

use super::shares::Shares;
use crate::config::RecoveryConfig;

/// Transactions of an account taken up at once while its circuit is half-open: enough to see whether it is back,
/// without taking all the calls that it is tried with from new payments.
const HALF_OPEN_AT_ONCE: usize = 2;

/// The places of recovery.
#[derive(Debug)]
pub(super) struct Places {
    settings: RecoveryConfig,
    shares: Shares<ProviderAccount>,
}

/// What may be claimed in one go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub claim: Claim,
    /// Whether an account is left out for want of places: there may be more of it.
    pub crowded: bool,
}

impl Places {
    pub fn new(settings: RecoveryConfig) -> Self {
        Self {
            settings,
            shares: Shares::default(),
        }
    }

    pub fn take(&mut self, task: Id, account: ProviderAccount) {
        self.shares.begun(task, account);
    }

    /// Whose it was.
    pub fn give_back(&mut self, task: Id) -> Option<ProviderAccount> {
        self.shares.ended(task)
    }

    /// What to claim of all accounts whose circuit is closed: no more than each of them has places for, because it
    /// is not known beforehand whose transactions will come. An account is left out while more than half of its
    /// places are taken: one claim for many rather than one for each place. `None` where nothing can be started.
    ///
    /// Also claimed are transactions of accounts that are not configured any more.
    pub fn of_closed(&self, circuits: &[(ProviderAccount, Circuit)]) -> Option<Room> {
        let most = self.settings.concurrency_per_account;
        let mut limit = most;
        let (mut except, mut crowded) = (Vec::new(), false);
        let taken = self.shares.taken();
        let gone = taken.iter().map(|(name, _)| name).filter(|name| {
            let configured = |(known, _): &&(ProviderAccount, Circuit)| known == *name;
            circuits.iter().find(configured).is_none()
        });
        let gone = gone.map(|name| (name, Circuit::Closed));
        let known = circuits.iter().map(|(name, circuit)| (name, *circuit));
        for (name, circuit) in known.chain(gone) {
            let free = most.saturating_sub(self.shares.taken_by(name));
            match circuit {
                Circuit::Open | Circuit::HalfOpen => except.push(name.clone()),
                Circuit::Closed if free * 2 < most => {
                    except.push(name.clone());
                    crowded = true;
                }
                Circuit::Closed => limit = limit.min(free),
            }
        }
        self.room(DueKind::Any, limit, Accounts::AllBut(except), crowded)
    }

    /// The same of authorizations that may have run out.
    pub fn of_ran_out(&self, circuits: &[(ProviderAccount, Circuit)]) -> Option<Room> {
        let mut room = self.of_closed(circuits)?;
        room.claim.kind = DueKind::RanOut;
        Some(room)
    }

    /// What to claim of one account whose circuit is half-open.
    pub fn of_half_open(&self, account: &ProviderAccount) -> Option<Room> {
        self.of_one(account, (DueKind::Any, HALF_OPEN_AT_ONCE))
    }

    /// What to claim of one account that is not to be called, since its circuit is open or half-open: what has to end
    /// since it is too late.
    pub fn of_too_late(&self, account: &ProviderAccount) -> Option<Room> {
        let most = self.settings.concurrency_per_account;
        self.of_one(account, (DueKind::TooLate, most))
    }

    /// What to claim of one account whose circuit is open, where others may take it: few, while all of them are only
    /// being tried.
    pub fn of_unsent(
        &self,
        account: &ProviderAccount,
        circuits: &[(ProviderAccount, Circuit)],
    ) -> Option<Room> {
        let others = |wanted| {
            let mut all = circuits.iter();
            all.any(|(name, circuit)| name != account && *circuit == wanted)
        };
        let most = if others(Circuit::Closed) {
            self.settings.concurrency_per_account
        } else if others(Circuit::HalfOpen) {
            HALF_OPEN_AT_ONCE
        } else {
            return None;
        };
        self.of_one(account, (DueKind::Unsent, most))
    }

    /// What to claim of one account, at most so many at once.
    fn of_one(&self, account: &ProviderAccount, (kind, most): (DueKind, usize)) -> Option<Room> {
        let most = most.min(self.settings.concurrency_per_account);
        let limit = most.saturating_sub(self.shares.taken_by(account));
        self.room(kind, limit, Accounts::Only(account.clone()), false)
    }

    fn room(&self, kind: DueKind, limit: usize, accounts: Accounts, crowded: bool) -> Option<Room> {
        let all = self.settings.concurrency;
        let limit = limit.min(all.saturating_sub(self.shares.total()));
        let claim = Claim {
            kind,
            limit,
            lease: self.settings.claim,
            accounts,
        };
        (limit > 0).then_some(Room { claim, crowded })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn places(concurrency: usize, per_account: usize) -> Places {
        Places::new(RecoveryConfig {
            enabled: true,
            poll_interval: Duration::from_secs(1),
            concurrency,
            concurrency_per_account: per_account,
            claim: Duration::from_secs(60),
        })
    }

    /// Takes so many places of an account, each for a task.
    fn take(places: &mut Places, count: usize, name: &str) -> Vec<Id> {
        let take = |_| {
            let task = tokio::spawn(async {}).id();
            places.take(task, account(name));
            task
        };
        (0..count).map(take).collect()
    }

    fn account(name: &str) -> ProviderAccount {
        ProviderAccount::parse(name).unwrap()
    }

    fn all_but(names: &[&str]) -> Accounts {
        Accounts::AllBut(names.iter().map(|name| account(name)).collect())
    }

    fn circuits(of: &[(&str, Circuit)]) -> Vec<(ProviderAccount, Circuit)> {
        of.iter().map(|(name, it)| (account(name), *it)).collect()
    }

    #[tokio::test]
    async fn i12_a_claim_is_no_larger_than_what_every_account_has_places_for() {
        let mut places = places(10, 8);
        let both = circuits(&[("a", Circuit::Closed), ("b", Circuit::Closed)]);
        assert_eq!(places.of_closed(&both).unwrap().claim.limit, 8);
        let mut of_a = take(&mut places, 3, "a");
        let room = places.of_closed(&both).unwrap();
        assert_eq!((room.claim.limit, room.crowded), (5, false));
        // More than half of its places are taken: it waits until a claim is worth it.
        of_a.extend(take(&mut places, 2, "a"));
        let room = places.of_closed(&both).unwrap();
        assert_eq!(room.claim.accounts, all_but(&["a"]));
        assert_eq!((room.claim.limit, room.crowded), (5, true));
        take(&mut places, 5, "b");
        assert_eq!(places.of_closed(&both), None, "as many as allowed in all");
        for task in of_a {
            assert_eq!(places.give_back(task), Some(account("a")));
        }
        assert_eq!(places.of_closed(&both).unwrap().claim.limit, 5);
    }

    #[tokio::test]
    async fn an_account_whose_circuit_is_open_is_left_alone_and_a_half_open_one_is_tried_with_few()
    {
        let mut places = places(64, 16);
        let all = circuits(&[
            ("open", Circuit::Open),
            ("half", Circuit::HalfOpen),
            ("closed", Circuit::Closed),
        ]);
        let room = places.of_closed(&all).unwrap();
        assert_eq!(room.claim.accounts, all_but(&["open", "half"]));
        assert!(!room.crowded, "they are not looked for again at once");
        let half = account("half");
        let room = places.of_half_open(&half).unwrap();
        assert_eq!(room.claim.limit, HALF_OPEN_AT_ONCE);
        // By its name: what waits for accounts that are not configured any more takes none of its places.
        assert_eq!(room.claim.accounts, Accounts::Only(half.clone()));
        take(&mut places, 2, "half");
        assert_eq!(places.of_half_open(&half), None);
    }

    #[tokio::test]
    async fn of_an_open_circuit_only_what_needs_no_call_there_is_claimed() {
        let mut places = places(64, 16);
        let down = account("down");
        let with = |other| circuits(&[("down", Circuit::Open), ("other", other)]);
        for (other, limit) in [
            (Circuit::Closed, Some(16)),
            (Circuit::HalfOpen, Some(HALF_OPEN_AT_ONCE)),
            (Circuit::Open, None),
        ] {
            let all = with(other);
            let room = places.of_unsent(&down, &all);
            assert_eq!(room.as_ref().map(|room| room.claim.limit), limit);
            if let Some(room) = room {
                assert_eq!(room.claim.kind, DueKind::Unsent);
                assert_eq!(room.claim.accounts, Accounts::Only(down.clone()));
            }
            let room = places.of_too_late(&down).unwrap();
            assert_eq!(
                (room.claim.kind, room.claim.limit),
                (DueKind::TooLate, 16),
                "it ends whatever the others do"
            );
            assert_eq!(room.claim.accounts, Accounts::Only(down.clone()));
        }
        take(&mut places, 16, "down");
        let all = with(Circuit::Closed);
        assert_eq!(places.of_unsent(&down, &all), None);
        assert_eq!(places.of_too_late(&down), None);
    }

    #[tokio::test]
    async fn an_account_that_is_not_configured_any_more_has_no_more_places_than_others() {
        let mut places = places(64, 2);
        let known = circuits(&[("a", Circuit::Closed)]);
        take(&mut places, 2, "gone");
        let room = places.of_closed(&known).unwrap();
        assert_eq!(room.claim.accounts, all_but(&["gone"]));
        assert_eq!(room.claim.limit, 2);
    }
}
