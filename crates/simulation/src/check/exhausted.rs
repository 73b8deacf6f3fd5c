//! I3: recovery that gives up leaves the payment as it is, and asks a person; and only then.

use quittance_domain::change::OperatorActionKind;
use quittance_domain::payment::PaymentRecord;
use quittance_domain::retry::RetryPolicy;
use quittance_domain::transaction::{
    Transaction, TransactionKind, TransactionOrigin, TransactionState,
};

use super::cases::Open;
use crate::store::Tables;

/// Why a person is asked although the schedule is not used up, as the entry says it.
const OTHER_REASONS: [&str; 3] = ["idempotency_key", "execute_before", "releases_refused"];

/// What breaks that in a database in which nothing runs at the moment.
pub fn look(tables: &Tables, retries: &RetryPolicy, violations: &mut Vec<String>) {
    let open = Open::of(tables);
    for record in tables.payments.values() {
        for row in &record.transactions {
            judge(tables, (record, row), &open, retries, violations);
        }
    }
}

fn judge(
    tables: &Tables,
    (record, row): (&PaymentRecord, &Transaction),
    open: &Open,
    retries: &RetryPolicy,
    violations: &mut Vec<String>,
) {
    let (kind, id, state) = (row.kind, row.id, row.state);
    let given_up = open.has(row, OperatorActionKind::RecoveryExhausted);
    if given_up && state.ended() {
        violations.push(format!(
            "I3: {kind} {id} is {state}, and its outcome is asked for"
        ));
    }
    if row.origin == TransactionOrigin::Provider || row.is_taken_up() || state.ended() {
        return;
    }
    // A void that was never sent ends with what it waits for; whom the customer left is not asked about.
    let opening_open = record
        .opening()
        .is_some_and(|opening| !opening.state.ended());
    let waits = row.kind == TransactionKind::Void && row.attempts == 0 && opening_open;
    let asked = given_up || open.has(row, OperatorActionKind::AmountMismatch);
    if state == TransactionState::Pending && !waits && !asked {
        violations.push(format!("I3: {kind} {id} is {state}, and left to nobody"));
    }
    if given_up && state == TransactionState::Pending && !is_used_up(tables, row, retries) {
        let steps = row.retries;
        violations.push(format!("I3: {kind} {id} was given up after {steps} steps"));
    }
}

/// Whether recovery had reason to give up.
fn is_used_up(tables: &Tables, row: &Transaction, retries: &RetryPolicy) -> bool {
    let all = [
        retries.reach,
        retries.leave,
        retries.outcome,
        retries.decision,
    ];
    let steps = all.iter().map(|backoff| backoff.steps).min();
    let longest = all.iter().map(|backoff| backoff.give_up_after).min();
    let gave_up = |entry: &&quittance_domain::change::JournalEntry| {
        entry.transaction == Some(row.id) && entry.event_type.ends_with(".recovery_exhausted")
    };
    let Some(entry) = tables.journal.values().rfind(gave_up) else {
        return false;
    };
    let age = (entry.occurred_at - row.created_at)
        .to_std()
        .unwrap_or_default();
    let text = String::from_utf8_lossy(entry.leaf.as_bytes());
    steps.is_some_and(|steps| row.retries >= steps)
        || longest.is_some_and(|longest| age >= longest)
        || OTHER_REASONS.iter().any(|why| text.contains(why))
}
