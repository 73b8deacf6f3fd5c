//! Lists and streams.

use std::time::Duration;

use chrono::{DateTime, Utc};
use quittance_domain::ids::{EntryId, PaymentId, TenantId, TransactionId};
use quittance_domain::payment::PaymentState;
use quittance_domain::ports::{EntryFilter, PaymentFilter};
use quittance_evidence::EntryResult;
use quittance_proto::v1;

use super::payment::state_of;
use super::scalars::{self, Checked};
use super::violations::Violations;

/// Items of a page when the caller names no number.
pub const DEFAULT_PAGE: usize = 50;
/// Most items of a page.
pub const MAX_PAGE: usize = 500;
/// The range of a summary when the caller names no start.
pub const DEFAULT_SUMMARY_RANGE: Duration = Duration::from_secs(24 * 3_600);
/// The longest range of a summary.
pub const MAX_SUMMARY_RANGE: Duration = Duration::from_secs(366 * 24 * 3_600);
/// Most characters of a name in a filter of entries: actor, event type, source, cause.
const MAX_NAME: usize = 255;

/// A page of payments asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentsQuery {
    /// Which payments.
    pub filter: PaymentFilter,
    /// How many at most.
    pub page_size: usize,
}

/// A page of entries asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntriesQuery {
    /// Which entries.
    pub filter: EntryFilter,
    /// How many at most.
    pub page_size: usize,
    /// Of which tenant, where one is named.
    pub tenant: Option<TenantId>,
}

/// Where a stream starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With the oldest.
    Oldest,
    /// With what comes next.
    Now,
    /// Behind the one that this token belongs to.
    After(String),
}

/// A stream of payment events asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchQuery {
    /// From where.
    pub start: Start,
    /// Whether it stays open.
    pub follow: bool,
}

/// A stream of entries asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailQuery {
    /// From where.
    pub start: Start,
    /// Of which tenant, where one is named.
    pub tenant: Option<TenantId>,
}

/// A summary of failures asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SummaryQuery {
    /// Attempts that ended at or after.
    pub from: DateTime<Utc>,
    /// Attempts that ended before.
    pub to: DateTime<Utc>,
    /// How many buckets at most.
    pub max_buckets: usize,
    /// Of which tenant, where one is named.
    pub tenant: Option<TenantId>,
}

/// Parses `ListPayments`; its page token is opened by whoever has the keys.
///
/// # Errors
/// Every bad field.
pub fn list_payments(request: v1::ListPaymentsRequest) -> Result<PaymentsQuery, Violations> {
    let mut violations = Violations::default();
    let bad = &mut violations;
    let page_size = page_size(bad, "page_size", request.page_size);
    let states = scalars::states(bad, &request.states, PaymentState::ALL, state_of);
    let range = range(
        bad,
        ("create_time_from", request.create_time_from),
        ("create_time_to", request.create_time_to),
    );
    let account = scalars::provider_account(bad, request.provider_account);
    let reference = scalars::filter::<255>(bad, "merchant_reference", request.merchant_reference);
    let query = || {
        let (created_from, created_to) = range?;
        let filter = PaymentFilter {
            states: states?,
            created_from,
            created_to,
            provider_account: account?,
            merchant_reference: reference?,
        };
        Some(PaymentsQuery {
            filter,
            page_size: page_size?,
        })
    };
    let query = query();
    violations.finish(query)
}

/// Parses `WatchPayments`.
///
/// # Errors
/// Every bad field.
pub fn watch(request: v1::WatchPaymentsRequest) -> Result<WatchQuery, Violations> {
    let mut bad = Violations::default();
    if request.from_now && !request.follow {
        bad.invalid("from_now", "needs follow");
    }
    let start = start(&mut bad, request.resume_token, request.from_now);
    let follow = request.follow;
    bad.finish(start.map(|start| WatchQuery { start, follow }))
}

/// Parses `ListEntries`; its page token is opened by whoever has the keys.
///
/// # Errors
/// Every bad field.
pub fn list_entries(request: v1::ListEntriesRequest) -> Result<EntriesQuery, Violations> {
    let mut violations = Violations::default();
    let bad = &mut violations;
    let page_size = page_size(bad, "page_size", request.page_size);
    let payment = optional_uuid(bad, "payment_id", &request.payment_id);
    let transaction = optional_uuid(bad, "transaction_id", &request.transaction_id);
    let trace_id = trace_id(bad, &request.trace_id);
    let actor = scalars::filter::<MAX_NAME>(bad, "actor_id", request.actor_id);
    let event_type = scalars::filter::<MAX_NAME>(bad, "event_type", request.event_type);
    let source = scalars::filter::<MAX_NAME>(bad, "source", request.source);
    let result = result(bad, request.result);
    let cause = scalars::filter::<MAX_NAME>(bad, "cause", request.cause);
    let range = range(
        bad,
        ("occurred_from", request.occurred_from),
        ("occurred_to", request.occurred_to),
    );
    let tenant = tenant(bad, request.tenant_id);
    let query = || {
        let (from, to) = range?;
        let filter = EntryFilter {
            payment: payment?.map(PaymentId),
            transaction: transaction?.map(TransactionId),
            trace_id: trace_id?,
            actor: actor?,
            event_type: event_type?,
            source: source?,
            result: result?,
            cause: cause?,
            from,
            to,
        };
        Some(EntriesQuery {
            filter,
            page_size: page_size?,
            tenant: tenant?,
        })
    };
    let query = query();
    violations.finish(query)
}

/// Parses `GetEntry`.
///
/// # Errors
/// Every bad field.
pub fn get_entry(request: &v1::GetEntryRequest) -> Result<EntryId, Violations> {
    let mut bad = Violations::default();
    let id = scalars::uuid(&mut bad, "entry_id", &request.entry_id);
    bad.finish(id.map(EntryId))
}

/// Which entry is to be proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProvedEntry {
    /// By its id.
    Id(EntryId),
    /// By its position.
    Index(u64),
}

/// What an inclusion proof is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InclusionQuery {
    /// Of which entry.
    pub entry: ProvedEntry,
    /// In the tree of this size; `None`: that of the newest checkpoint.
    pub tree_size: Option<u64>,
}

/// Parses `GetInclusionProof`.
///
/// # Errors
/// Every bad field.
pub fn inclusion_proof(
    request: &v1::GetInclusionProofRequest,
) -> Result<InclusionQuery, Violations> {
    use v1::get_inclusion_proof_request::Entry;
    let mut bad = Violations::default();
    let entry = match &request.entry {
        Some(Entry::EntryId(id)) => {
            let id = scalars::uuid(&mut bad, "entry_id", id);
            id.map(|id| ProvedEntry::Id(EntryId(id)))
        }
        Some(Entry::LeafIndex(index)) => Some(ProvedEntry::Index(*index)),
        None => {
            bad.invalid("entry", "is required");
            None
        }
    };
    let tree_size = Some(request.tree_size).filter(|size| *size > 0);
    bad.finish(entry.map(|entry| InclusionQuery { entry, tree_size }))
}

/// Which evidence is asked for, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvidenceQuery {
    /// Of which payment.
    pub payment: PaymentId,
    /// For people, as a page; else for machines.
    pub page: bool,
    /// Without personal data, also where the caller may see it.
    pub omit_disclosures: bool,
}

/// Parses `ExportEvidence`.
///
/// # Errors
/// Every bad field.
pub fn export_evidence(request: &v1::ExportEvidenceRequest) -> Result<EvidenceQuery, Violations> {
    use v1::EvidenceForm as Form;
    let mut bad = Violations::default();
    let payment = scalars::payment_id(&mut bad, &request.payment_id);
    let form = scalars::known::<Form>(&mut bad, "form", request.form);
    let page = form.map(|form| match form {
        Form::Unspecified | Form::Json => false,
        Form::Html => true,
    });
    let query = payment.zip(page).map(|(payment, page)| EvidenceQuery {
        payment,
        page,
        omit_disclosures: request.omit_disclosures,
    });
    bad.finish(query)
}

/// Between which trees a consistency proof is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsistencyQuery {
    /// The size of the older tree, at least 1.
    pub first: u64,
    /// That of the newer; `None`: that of the newest checkpoint.
    pub second: Option<u64>,
}

/// Parses `GetConsistencyProof`.
///
/// # Errors
/// Every bad field.
pub fn consistency_proof(
    request: &v1::GetConsistencyProofRequest,
) -> Result<ConsistencyQuery, Violations> {
    let mut bad = Violations::default();
    let first = request.first_tree_size;
    if first == 0 {
        bad.invalid("first_tree_size", "must be at least 1");
    }
    let second = Some(request.second_tree_size).filter(|size| *size > 0);
    bad.finish(Some(ConsistencyQuery { first, second }))
}

/// Parses `TailEntries`.
///
/// # Errors
/// Every bad field.
pub fn tail(request: v1::TailEntriesRequest) -> Result<TailQuery, Violations> {
    let mut bad = Violations::default();
    let start = start(&mut bad, request.resume_token, request.from_now);
    let tenant = tenant(&mut bad, request.tenant_id);
    let query = start.zip(tenant);
    bad.finish(query.map(|(start, tenant)| TailQuery { start, tenant }))
}

/// Parses `SummarizeFailures`.
///
/// # Errors
/// Every bad field.
pub fn summarize(
    request: v1::SummarizeFailuresRequest,
    now: DateTime<Utc>,
) -> Result<SummaryQuery, Violations> {
    let mut bad = Violations::default();
    let from = scalars::time(&mut bad, "from_time", request.from_time);
    let to = scalars::time(&mut bad, "to_time", request.to_time);
    let max_buckets = page_size(&mut bad, "max_buckets", request.max_buckets);
    let tenant = tenant(&mut bad, request.tenant_id);
    let range = from
        .zip(to)
        .and_then(|(from, to)| summary_range(&mut bad, from, to, now));
    let query = || {
        let (from, to) = range?;
        Some(SummaryQuery {
            from,
            to,
            max_buckets: max_buckets?,
            tenant: tenant?,
        })
    };
    let query = query();
    bad.finish(query)
}

fn summary_range(
    bad: &mut Violations,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let to = to.unwrap_or(now);
    let before = to.checked_sub_signed(scalars::delta(DEFAULT_SUMMARY_RANGE));
    let from = from.or(before).unwrap_or(to);
    if from >= to {
        bad.invalid("to_time", "must lie after from_time");
        return None;
    }
    if to - from > scalars::delta(MAX_SUMMARY_RANGE) {
        bad.invalid("from_time", "must lie at most 366 days before to_time");
        return None;
    }
    Some((from, to))
}

pub(super) fn page_size(bad: &mut Violations, field: &str, asked: i32) -> Option<usize> {
    match usize::try_from(asked) {
        Ok(0) => Some(DEFAULT_PAGE),
        Ok(size @ 1..=MAX_PAGE) => Some(size),
        Ok(_) | Err(_) => {
            bad.invalid(field, format!("must be 0 to {MAX_PAGE}"));
            None
        }
    }
}

/// Two ends of a range of time, each absent where it is not given.
type Range = (Option<DateTime<Utc>>, Option<DateTime<Utc>>);
/// A time as it was given, with its field.
type Given = (&'static str, Option<prost_types::Timestamp>);

fn range(bad: &mut Violations, from: Given, to: Given) -> Option<Range> {
    let start = scalars::time(bad, from.0, from.1);
    let end = scalars::time(bad, to.0, to.1);
    let (start, end) = (start?, end?);
    if start.zip(end).is_some_and(|(start, end)| start >= end) {
        bad.invalid(to.0, format!("must lie after {}", from.0));
        return None;
    }
    Some((start, end))
}

fn start(bad: &mut Violations, token: String, from_now: bool) -> Option<Start> {
    match (token.is_empty(), from_now) {
        (true, false) => Some(Start::Oldest),
        (true, true) => Some(Start::Now),
        (false, false) => Some(Start::After(token)),
        (false, true) => {
            bad.invalid("from_now", "excludes resume_token");
            None
        }
    }
}

pub(super) fn optional_uuid(
    bad: &mut Violations,
    field: &str,
    value: &str,
) -> Checked<Option<uuid::Uuid>> {
    if value.is_empty() {
        return Some(None);
    }
    scalars::uuid(bad, field, value).map(Some)
}

fn trace_id(bad: &mut Violations, value: &str) -> Checked<Option<[u8; 16]>> {
    if value.is_empty() {
        return Some(None);
    }
    let lower = value
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut id = [0; 16];
    if !lower || hex::decode_to_slice(value, &mut id).is_err() {
        bad.invalid("trace_id", "must be 32 lower-case hexadecimal digits");
        return None;
    }
    Some(Some(id))
}

fn result(bad: &mut Violations, number: i32) -> Checked<Option<String>> {
    use v1::AuditResult as Given;
    let result = match scalars::known(bad, "result", number)? {
        Given::Unspecified => return Some(None),
        Given::Success => EntryResult::Success,
        Given::Failure => EntryResult::Failure,
        Given::Unknown => EntryResult::Unknown,
    };
    Some(Some(result.as_str().to_owned()))
}

pub(super) fn tenant(bad: &mut Violations, value: String) -> Checked<Option<TenantId>> {
    if value.is_empty() {
        return Some(None);
    }
    scalars::parsed(bad, "tenant_id", value, TenantId::parse).map(Some)
}
