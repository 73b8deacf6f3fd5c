//! Summaries of failed attempts, counted from the bytes of the audit log.

use std::collections::{BinaryHeap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use quittance_domain::failures::{EndedAttempt, FailureTally};
use quittance_domain::ids::TenantId;
use quittance_domain::ports::{FailureReport, StoreError, StoredEntry};
use quittance_evidence::Leaf;
use uuid::Uuid;

use crate::store::PgStore;

/// Most entries that are read for one summary: some seconds' work. Of a range with more, the newest are read.
pub const MAX_SUMMARY_ENTRIES: u64 = 200_000;

/// Entries that are read at once, of all tenants together, and the least and most of one tenant: so many are in memory.
const AT_ONCE: usize = 2_000;
const AT_ONCE_OF_ONE: (usize, usize) = (16, 500);

/// How far the time in an entry's id may be from the time in its bytes.
const ID_MARGIN: TimeDelta = TimeDelta::seconds(1);

/// What one entry of the range says; what is not ours says nothing.
struct Read {
    id: Uuid,
    at: Option<DateTime<Utc>>,
    attempt: Option<EndedAttempt>,
}

/// The entries of one tenant, newest first.
struct Lane {
    tenant: String,
    read: VecDeque<Read>,
    /// Where the next page begins; `None` after the last.
    before: Option<Uuid>,
}

impl Lane {
    fn newest(&self) -> Option<Uuid> {
        self.read.front().map(|read| read.id)
    }
}

impl PartialEq for Lane {
    fn eq(&self, other: &Self) -> bool {
        self.newest() == other.newest()
    }
}

impl Eq for Lane {}

impl PartialOrd for Lane {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Lane {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.newest().cmp(&other.newest())
    }
}

/// Which entries are read.
struct Range {
    from: DateTime<Utc>,
    at_once: usize,
}

impl PgStore {
    /// How calls to providers failed in a range of time: of one tenant, or of all. Reads at most `most` entries.
    ///
    /// The entries are found by the time in their ids, and the newest of all tenants are read first; what is counted,
    /// and whether it is in the range, their bytes say.
    ///
    /// # Errors
    /// [`StoreError`] where the database cannot be read.
    pub async fn read_failures(
        &self,
        tenant: Option<&TenantId>,
        (from, to): (DateTime<Utc>, DateTime<Utc>),
        limit: usize,
        most: u64,
    ) -> Result<FailureReport, StoreError> {
        let tenants = match tenant {
            Some(tenant) => vec![tenant.as_str().to_owned()],
            None => self.read_journal_tenants().await?,
        };
        let (least, greatest) = AT_ONCE_OF_ONE;
        let each = AT_ONCE.checked_div(tenants.len()).unwrap_or(AT_ONCE);
        let at_once = each.clamp(least, greatest);
        let range = Range { from, at_once };
        let mut lanes = BinaryHeap::new();
        for tenant in tenants {
            let lane = Lane {
                tenant,
                read: VecDeque::new(),
                before: Some(id_at(to + ID_MARGIN)),
            };
            lanes.extend(self.filled(lane, &range).await?);
        }
        let mut tally = FailureTally::default();
        let mut report = FailureReport {
            summaries: Vec::new(),
            from,
            entries: 0,
            refused: 0,
        };
        while let Some(mut lane) = lanes.pop() {
            let Some(read) = lane.read.pop_front() else {
                continue;
            };
            if report.entries >= most {
                report.from = time_of(read.id).max(from).min(to);
                break;
            }
            report.entries += 1;
            match read.at {
                None => report.refused += 1,
                Some(at) if at < from || at >= to => report.entries -= 1,
                Some(_) => read.attempt.into_iter().for_each(|it| tally.add(it)),
            }
            lanes.extend(self.filled(lane, &range).await?);
        }
        report.summaries = tally.summaries(limit);
        Ok(report)
    }

    /// The lane with entries to read; `None` where there are no more.
    async fn filled(&self, mut lane: Lane, range: &Range) -> Result<Option<Lane>, StoreError> {
        if lane.read.is_empty()
            && let Some(before) = lane.before
        {
            let from = id_at(range.from - ID_MARGIN);
            let page = self
                .read_newest_entries(&lane.tenant, (from, before), range.at_once)
                .await?;
            let is_last = page.len() < range.at_once;
            lane.before = page.last().map(|last| last.id.0).filter(|_| !is_last);
            lane.read = page.iter().map(|entry| read(entry, &lane.tenant)).collect();
        }
        Ok((!lane.read.is_empty()).then_some(lane))
    }
}

fn read(entry: &StoredEntry, tenant: &str) -> Read {
    let leaf = entry
        .authentic_leaf()
        .and_then(|leaf| Leaf::decode(leaf).ok());
    let leaf = leaf.filter(|leaf| leaf.tenant_id == tenant);
    Read {
        id: entry.id.0,
        at: leaf.as_ref().map(|leaf| leaf.occurred_at),
        attempt: leaf.as_ref().and_then(EndedAttempt::read),
    }
}

/// The least UUIDv7 of a time: its first 48 bits are milliseconds since 1970 (RFC 9562, 5.7).
fn id_at(time: DateTime<Utc>) -> Uuid {
    let millis = u128::try_from(time.timestamp_millis()).unwrap_or(0);
    Uuid::from_u128(millis << 80)
}

/// The time in a UUIDv7.
fn time_of(id: Uuid) -> DateTime<Utc> {
    let millis = i64::try_from(id.as_u128() >> 80).unwrap_or(i64::MAX);
    DateTime::from_timestamp_millis(millis).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
