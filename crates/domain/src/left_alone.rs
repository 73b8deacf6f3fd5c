//! Until when providers are to be left alone about a transaction, as they asked for (`Retry-After`).

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use crate::ids::ProviderAccount;
use crate::transaction::Transaction;

/// Until when each provider account is to be left alone about a transaction. What is learned meanwhile does not undo it,
/// nor does another account that the transaction goes to; what is over is forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftAlone(BTreeMap<ProviderAccount, DateTime<Utc>>);

impl LeftAlone {
    /// Reads it as it is stored; `None` where it is not.
    pub fn from_stored(text: &str) -> Option<Self> {
        let read = |line: &str| {
            let (until, account) = line.split_once(' ')?;
            let until = DateTime::parse_from_rfc3339(until).ok()?;
            Some((ProviderAccount::parse(account).ok()?, until.to_utc()))
        };
        let all: Option<_> = text.lines().map(read).collect();
        all.map(Self).filter(|all| all.to_stored() == text)
    }

    /// As it is stored: a line for each account, in their order, with the time (RFC 3339, in microseconds) and its name; empty
    /// where there is none.
    pub fn to_stored(&self) -> String {
        let line = |(account, until): (&ProviderAccount, &DateTime<Utc>)| {
            let until = until.to_rfc3339_opts(SecondsFormat::Micros, true);
            format!("{until} {account}")
        };
        let lines: Vec<_> = self.0.iter().map(line).collect();
        lines.join("\n")
    }

    /// Whether no account asked for it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Until when an account is to be left alone; `None` where it did not ask for it.
    pub fn until(&self, account: &ProviderAccount) -> Option<DateTime<Utc>> {
        self.0.get(account).copied()
    }

    /// Whether an account is to be left alone now.
    pub fn holds(&self, account: &ProviderAccount, now: DateTime<Utc>) -> bool {
        self.until(account).is_some_and(|until| until > now)
    }

    /// An account asks for it: the longest that it asked for counts.
    fn ask(&mut self, account: &ProviderAccount, until: DateTime<Utc>, now: DateTime<Utc>) {
        self.0.retain(|_, until| *until > now);
        // As precise as it is stored.
        let until = DateTime::from_timestamp_micros(until.timestamp_micros()).unwrap_or(until);
        if until > now {
            let held = self.0.entry(account.clone()).or_insert(until);
            *held = until.max(*held);
        }
    }
}

impl Transaction {
    /// Until when its provider account is to be left alone about it, if that asked for it.
    pub fn left_alone_until(&self) -> Option<DateTime<Utc>> {
        self.left_alone.until(&self.provider_account)
    }

    /// An account asks to be left alone about it: its next step is not due before, where it is that account's and no
    /// attempt runs.
    pub(crate) fn leave_alone(
        &mut self,
        account: &ProviderAccount,
        until: DateTime<Utc>,
        now: DateTime<Utc>,
    ) {
        self.left_alone.ask(account, until, now);
        let leased = self.next_step_at == self.lease_until;
        if let Some(due) = self.next_step_at.filter(|_| !leased) {
            self.take_up_at(due);
        }
    }

    /// Has its provider asked about it at `due`, or once that need not be left alone any more.
    pub(crate) fn take_up_at(&mut self, due: DateTime<Utc>) {
        self.set_next_step(self.left_alone_until().map_or(due, |until| due.max(until)));
    }

    /// Sets when its next step is due. No attempt runs: one that does has its lease's end as next step.
    pub(crate) fn set_next_step(&mut self, due: DateTime<Utc>) {
        let clear = self.lease_until == Some(due);
        let apart = TimeDelta::microseconds(i64::from(clear));
        self.next_step_at = Some(due + apart);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> ProviderAccount {
        ProviderAccount::parse(name).unwrap()
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 500_000_000).unwrap()
    }

    #[test]
    fn it_reads_as_it_was_stored_and_nothing_else_does() {
        let mut alone = LeftAlone::default();
        assert!(alone.is_empty());
        assert_eq!(alone.to_stored(), "");
        alone.ask(&account("second"), at(60), at(0));
        alone.ask(&account("first"), at(90), at(0));
        let stored = "2027-01-15T08:01:30.500000Z first\n2027-01-15T08:01:00.500000Z second";
        assert_eq!(alone.to_stored(), stored);
        assert_eq!(LeftAlone::from_stored(stored), Some(alone));
        assert_eq!(LeftAlone::from_stored(""), Some(LeftAlone::default()));
        let twice = format!("{stored}\n{stored}");
        for other in ["x", "2027-01-15T08:01:00Z first", &twice] {
            assert_eq!(LeftAlone::from_stored(other), None, "{other}");
        }
    }

    #[test]
    fn s18_the_longest_that_was_asked_for_counts_and_what_is_over_is_forgotten() {
        let (first, second) = (account("first"), account("second"));
        let mut alone = LeftAlone::default();
        alone.ask(&first, at(60), at(0));
        alone.ask(&first, at(30), at(1));
        assert_eq!(alone.until(&first), Some(at(60)));
        assert!(alone.holds(&first, at(59)) && !alone.holds(&first, at(60)));
        assert!(!alone.holds(&second, at(0)));
        alone.ask(&second, at(90), at(60));
        assert_eq!(alone.until(&first), None);
        alone.ask(&first, at(60), at(60));
        assert_eq!(alone.until(&first), None, "it need not wait");
    }
}
