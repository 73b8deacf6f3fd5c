//! How long the provider asks not to be asked about a transaction (`Retry-After`), and whether it is left alone.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use quittance_domain::change::JournalEntry;
use quittance_domain::decline::Cause;
use quittance_domain::ids::{ProviderAccount, TransactionId};
use quittance_domain::retry::RetryPolicy;
use quittance_domain::transaction::OperationKind;

use super::SimProvider;
use super::wire::Wire;
use crate::store::Tables;

/// What recovery puts on record after a step without news, while another one follows.
const UNRESOLVED: &str = ".unresolved";
/// What is put on record of a person who has it taken up now.
const RETRIED: &str = ".retry_requested";
/// How long somebody may be at it who took a transaction up before the wait was known.
const IN_HAND: TimeDelta = TimeDelta::seconds(10);

/// The answer by which it was asked to wait.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answered {
    /// That of this send.
    Send(u32),
    /// That of a lookup: so many of the transaction were answered like this, by whatever account.
    Lookup(usize),
}

/// One wait that was asked for.
#[derive(Debug, Clone, Copy)]
struct Wait {
    asked_at: DateTime<Utc>,
    until: DateTime<Utc>,
    by: Answered,
    /// How often a person had had it taken up before.
    retried: usize,
}

/// The waits that were asked for, by account and transaction.
#[derive(Default)]
pub(super) struct Waits {
    asked: BTreeMap<(ProviderAccount, TransactionId), Vec<Wait>>,
    /// How many lookups were answered by asking to wait.
    lookups: BTreeMap<TransactionId, usize>,
    /// How far the clocks of two servers are apart at most.
    clocks_apart: Duration,
}

impl SimProvider {
    /// Says how far the clocks of two servers can be apart: as much sooner may it be asked again.
    pub fn allow_clocks_apart(&self, apart: Duration) {
        self.waits.lock().clocks_apart = apart;
    }

    /// Asks us to wait, from now on: how long. Most often seconds, now and then longer than is honoured.
    pub(super) fn asks_to_wait(&self, id: TransactionId, send: Option<u32>) -> Duration {
        let limit = match self.executor.pick(0..10) {
            0..=6 => 60,
            7 | 8 => 900,
            _ => 7_200,
        };
        let asked = Duration::from_secs(u64::from(self.executor.pick(1..limit)));
        let honoured = asked.min(RetryPolicy::default().max_retry_after);
        let mut waits = self.waits.lock();
        let lookups = waits.lookups.entry(id).or_default();
        *lookups += usize::from(send.is_none());
        let now = self.executor.now();
        let wait = Wait {
            asked_at: now,
            until: now + TimeDelta::from_std(honoured).unwrap_or_default(),
            by: send.map_or(Answered::Lookup(*lookups), Answered::Send),
            retried: self.store.look(|tables| retried(tables, id)),
        };
        let place = (self.account.clone(), id);
        waits.asked.entry(place).or_default().push(wait);
        asked
    }

    /// Looks at whether a send comes too early. What its customer returned is handed over at once.
    pub(super) fn judge_send(&self, wire: &Wire) {
        let confirms = wire.kind == OperationKind::Confirm && self.executor.on_demand();
        if !confirms {
            self.judge_wait(wire.transaction, "sent");
        }
    }

    /// Looks at whether a lookup comes too early. Who asks for one does not wait.
    pub(super) fn judge_lookup(&self, id: TransactionId) {
        if !self.executor.on_demand() {
            self.judge_wait(id, "looked up");
        }
    }

    /// Looks at whether the first request of a transaction is made after its time. What releases may be sent at any time, and
    /// what the customer returned has a time of its own.
    pub(super) fn judge_begin(&self, wire: &Wire) {
        let own_rules = matches!(wire.kind, OperationKind::Void | OperationKind::Confirm);
        let id = wire.transaction;
        if own_rules || self.books.lock().begun.contains(&id) {
            return;
        }
        let before = self.store.look(|tables| {
            let record = tables.payments.get(&wire.payment)?;
            record.transaction(id).map(|row| row.execute_before)
        });
        let apart = self.waits.lock().clocks_apart;
        let late = before.map(|before| self.executor.now() - before);
        let allowed = TimeDelta::from_std(apart).unwrap_or_default();
        if let Some(late) = late.filter(|late| *late > allowed) {
            let seconds = late.num_seconds();
            let text = format!("{id} was sent for the first time {seconds} s after its time");
            self.books.lock().violations.push(text);
        }
    }

    /// Keeps that a request has left for the provider, whatever becomes of it.
    pub(super) fn begins(&self, id: TransactionId) {
        self.books.lock().begun.insert(id);
    }

    fn judge_wait(&self, id: TransactionId, how: &str) {
        let (waits, lookups, apart) = {
            let waits = self.waits.lock();
            let asked = waits.asked.get(&(self.account.clone(), id)).cloned();
            let lookups = waits.lookups.get(&id).copied();
            let (asked, lookups) = (asked.unwrap_or_default(), lookups.unwrap_or_default());
            (asked, lookups, waits.clocks_apart)
        };
        let apart = TimeDelta::from_std(apart).unwrap_or_default();
        let now = self.executor.now();
        for wait in waits {
            let early = wait.until - now;
            let heard = |tables: &Tables| heard_at(tables, id, (wait, lookups));
            let heard_at = self.store.look(heard);
            let known = heard_at.is_some_and(|at| now - at.max(wait.asked_at) > IN_HAND);
            if known && early > apart {
                let seconds = early.num_seconds();
                let text = format!(
                    "{id} was {how} {seconds} s before it was to be ({:?}) at {}",
                    wait.by, now
                );
                self.books.lock().violations.push(text);
            }
        }
    }
}

/// Since when the wait is on record, so that whoever takes the transaction up knows of it: whoever was asked may have died.
/// `None` where it is not, or a person has had the transaction taken up since: nothing else undoes it, be it what a webhook
/// or an older attempt told, or another account that it went to. `lookups` is how many were answered by asking to wait: once
/// one of them was not heard, it is not known whose what is on record is.
fn heard_at(
    tables: &Tables,
    id: TransactionId,
    (wait, lookups): (Wait, usize),
) -> Option<DateTime<Utc>> {
    let heard_at = match wait.by {
        Answered::Send(number) => {
            let attempt = tables.attempts.get(&(id, number));
            let end = attempt.and_then(|attempt| attempt.ended.as_ref());
            let told = end
                .filter(|end| matches!(end.cause, Some(Cause::RateLimited | Cause::ProviderError)));
            told.map(|end| end.ended_at)
        }
        Answered::Lookup(answered) => recorded_wait(tables, id, (answered, lookups)),
    };
    heard_at.filter(|_| retried(tables, id) <= wait.retried)
}

fn about(tables: &Tables, id: TransactionId) -> impl Iterator<Item = &JournalEntry> {
    let all = tables.journal.values();
    all.filter(move |entry| entry.transaction == Some(id))
}

/// When the wait was put on record that the `answered`th of so many `lookups` was answered with; `None` while those of
/// some are not.
fn recorded_wait(
    tables: &Tables,
    id: TransactionId,
    (answered, lookups): (usize, usize),
) -> Option<DateTime<Utc>> {
    let asked = about(tables, id).filter(|entry| {
        let unresolved = entry.event_type.ends_with(UNRESOLVED);
        unresolved && entry.cause.as_deref() == Some(Cause::RateLimited.name())
    });
    let times: Vec<_> = asked.map(|entry| entry.occurred_at).collect();
    let all = times.len() >= lookups;
    times.get(answered.checked_sub(1)?).copied().filter(|_| all)
}

/// How often a person has had a transaction taken up.
fn retried(tables: &Tables, id: TransactionId) -> usize {
    let by_person = about(tables, id).filter(|entry| entry.event_type.ends_with(RETRIED));
    by_person.count()
}
