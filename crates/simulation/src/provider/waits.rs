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
/// How long somebody may be at it who took a transaction up before the wait was known.
const IN_HAND: TimeDelta = TimeDelta::seconds(10);
/// What is put on record before a send.
const STARTED: &str = ".attempt_started";

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
    /// How much news was on record before.
    news: usize,
}

/// The waits that were asked for last, by account and transaction.
#[derive(Default)]
pub(super) struct Waits {
    asked: BTreeMap<(ProviderAccount, TransactionId), Wait>,
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
            news: self.store.look(|tables| news(tables, id)),
        };
        let place = (self.account.clone(), id);
        waits.asked.insert(place, wait);
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

    fn judge_wait(&self, id: TransactionId, how: &str) {
        let (wait, apart) = {
            let waits = self.waits.lock();
            let wait = waits.asked.get(&(self.account.clone(), id)).copied();
            (wait, waits.clocks_apart)
        };
        let Some(wait) = wait else { return };
        let now = self.executor.now();
        let early = wait.until - now;
        let in_hand = now - wait.asked_at <= IN_HAND;
        if in_hand || early <= TimeDelta::from_std(apart).unwrap_or_default() {
            return;
        }
        if self.store.look(|tables| was_heard(tables, id, wait)) {
            let seconds = early.num_seconds();
            let text = format!(
                "{id} was {how} {seconds} s before it was to be ({:?}) at {}",
                wait.by, now
            );
            self.books.lock().violations.push(text);
        }
    }
}

/// Whether the wait is on record, so that whoever takes the transaction up knows of it: whoever was asked may have died, or
/// come back when another one was at it. What has news is taken up by the schedule of that: what a webhook or a late answer
/// told, a person's retry, another account.
fn was_heard(tables: &Tables, id: TransactionId, wait: Wait) -> bool {
    let heard = match wait.by {
        Answered::Send(number) => {
            let attempt = |number| tables.attempts.get(&(id, number));
            let end = attempt(number).and_then(|attempt| attempt.ended.as_ref());
            let told = end
                .filter(|end| matches!(end.cause, Some(Cause::RateLimited | Cause::ProviderError)));
            let next = attempt(number.saturating_add(1));
            told.is_some_and(|end| next.is_none_or(|next| next.started_at > end.ended_at))
        }
        Answered::Lookup(answered) => recorded_waits(tables, id) >= answered,
    };
    let own = match wait.by {
        Answered::Send(_) => 1,
        Answered::Lookup(_) => 0,
    };
    heard && news(tables, id) <= wait.news + own
}

fn about(tables: &Tables, id: TransactionId) -> impl Iterator<Item = &JournalEntry> {
    let all = tables.journal.values();
    all.filter(move |entry| entry.transaction == Some(id))
}

/// How many waits that lookups were answered with are on record.
fn recorded_waits(tables: &Tables, id: TransactionId) -> usize {
    let asked = about(tables, id).filter(|entry| {
        let unresolved = entry.event_type.ends_with(UNRESOLVED);
        unresolved && entry.cause.as_deref() == Some(Cause::RateLimited.name())
    });
    asked.count()
}

/// How much is on record about a transaction that is more than a step after which another one follows, or the start of a send.
fn news(tables: &Tables, id: TransactionId) -> usize {
    let none = |entry: &&JournalEntry| {
        entry.event_type.ends_with(UNRESOLVED) || entry.event_type.ends_with(STARTED)
    };
    about(tables, id).filter(|entry| !none(entry)).count()
}
