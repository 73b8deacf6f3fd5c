//! What an entry says about the rows that its change found and left, beside the payment's own digest: so that replaying
//! the log shows a row that was changed without an entry, also where a later change has built upon it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::{digest_lines, row_digest};
use crate::change::Write;
use crate::payment::{Payment, PaymentRecord};
use crate::transaction::{Transaction, TransactionOrigin};

/// Detail of a payment's entry: the state of the transaction that it is about.
pub(crate) const TRANSACTION_STATE: &str = "transaction_state";
/// Detail of a payment's entry: before the id of another transaction that changed with it, whose state follows. So
/// the log tells the state of each transaction, and a row that was changed without an entry shows.
pub(crate) const OTHER_TRANSACTION_STATE: &str = "transaction_state.";
/// Detail of a payment's entry: the digest of the row of the transaction that it is about, as the change leaves it
/// ([`transaction_row_digest`], hexadecimal).
pub(crate) const TRANSACTION_ROW: &str = "transaction_row";
/// The same of another transaction that changed with it, whose id follows.
pub(crate) const OTHER_TRANSACTION_ROW: &str = "transaction_row.";
/// Detail of a payment's entry: the digest of the rows that the change replaces, as they were read ([`rows_before`],
/// hexadecimal). None in the first.
pub(crate) const ROWS_BEFORE: &str = "rows_before";
/// Detail of the entry that makes a transaction: its kind, which never changes.
pub(crate) const TRANSACTION_KIND: &str = "transaction_kind";
/// Detail of the entry that makes a transaction: who caused it, where it is no caller.
pub(crate) const TRANSACTION_ORIGIN: &str = "origin";
/// Detail of the entry that makes a transaction: `true` where a capture releases the rest.
pub(crate) const FINAL_CAPTURE: &str = "final_capture";
/// Detail of an entry that opens a case for a person about its transaction: why.
pub(crate) const CASE_OPENED: &str = "case_opened";
/// Detail of an entry that closes open cases of a transaction, whose id follows: of which kinds, as [`OpenCases`] are
/// written. Entries of before say `true` where they closed those of every kind.
///
/// [`OpenCases`]: crate::cases::OpenCases
pub(crate) const CASE_CLOSED: &str = "case_closed.";
/// Detail of the entry by which a person closes a case or decides a transaction: which.
pub(crate) const RESOLUTION: &str = "resolution";

/// Says how each transaction that a change writes stands afterwards, and what the change was decided upon: `record`,
/// as it was read; `None` for a new payment.
pub(crate) fn tell_rows(
    details: &mut BTreeMap<String, String>,
    payment: &Payment,
    (subject, others): (&Write<Transaction>, &[Transaction]),
    record: Option<&PaymentRecord>,
) {
    let mut tell = |name: String, value: String| {
        details.insert(name, value);
    };
    let row = subject.row();
    tell(TRANSACTION_STATE.to_owned(), row.state.name().to_owned());
    let digest = |row| hex::encode(transaction_row_digest(payment, row));
    tell(TRANSACTION_ROW.to_owned(), digest(row));
    for other in others {
        let id = other.id;
        let state = other.state.name().to_owned();
        tell(format!("{OTHER_TRANSACTION_STATE}{id}"), state);
        tell(format!("{OTHER_TRANSACTION_ROW}{id}"), digest(other));
    }
    if matches!(subject, Write::Insert(_)) {
        tell(TRANSACTION_KIND.to_owned(), row.kind.name().to_owned());
        if row.origin != TransactionOrigin::Caller {
            tell(TRANSACTION_ORIGIN.to_owned(), row.origin.name().to_owned());
        }
        if row.final_capture {
            tell(FINAL_CAPTURE.to_owned(), true.to_string());
        }
    }
    let Some(record) = record else {
        return;
    };
    let written = std::iter::once(row).chain(others).map(|row| row.id);
    let held = written.filter_map(|id| record.transaction(id));
    let held = held.map(|held| (held.id.0, transaction_row_digest(&record.payment, held)));
    let before = rows_before(row_digest(&record.payment), held.collect());
    tell(ROWS_BEFORE.to_owned(), hex::encode(before));
}

/// SHA-256 over the digest of a payment's row, and those of the transactions that are replaced, in the order of their
/// ids: each 32 bytes.
pub(crate) fn rows_before(
    payment: [u8; 32],
    transactions: BTreeMap<uuid::Uuid, [u8; 32]>,
) -> [u8; 32] {
    let mut hash = Sha256::new().chain_update(payment);
    for digest in transactions.into_values() {
        hash.update(digest);
    }
    hash.finalize().into()
}

/// Digest of a transaction's row: as [`row_digest`], over every column that is not encrypted. `claimed_until` is left
/// out, since a claim is no change.
pub fn transaction_row_digest(payment: &Payment, row: &Transaction) -> [u8; 32] {
    let micros = |time: DateTime<Utc>| time.timestamp_micros().to_string();
    let optional = |time: Option<DateTime<Utc>>| time.map(micros).unwrap_or_default();
    let decline = row.decline.as_ref();
    let dispute = row.dispute.as_ref();
    digest_lines(|line| {
        line("payment_id", &payment.id);
        line("transaction_id", &row.id);
        line("kind", &row.kind);
        line("origin", &row.origin);
        line("state", &row.state);
        line("amount", &row.amount);
        line("provider_account", &row.provider_account);
        let reference = row.provider_reference.as_ref();
        line(
            "provider_reference",
            &reference.map_or("", |it| it.as_str()),
        );
        line("decline_code", &decline.map_or("", |it| it.code.name()));
        let code = decline.map_or("", |it| it.provider_code.as_str());
        line("decline_provider_code", &code);
        let cause = row.failure.map_or("", |failure| failure.cause.name());
        line("failure_cause", &cause);
        line("reason", &row.reason.as_str());
        line("final_capture", &row.final_capture);
        line("attempts", &row.attempts);
        line("ever_unknown", &row.ever_unknown);
        line("retries", &row.retries);
        line("resolved_by_operator", &row.resolved_by_operator);
        line("open_case", &row.open_cases);
        // Since they are remembered; the digest of a row without any is what it was before.
        if !row.contradictions.is_empty() {
            line("contradictions", &row.contradictions.to_stored());
        }
        line("execute_before", &micros(row.execute_before));
        line("lease_until", &optional(row.lease_until));
        line("next_step_at", &optional(row.next_step_at));
        // As with the contradictions.
        if !row.left_alone.is_empty() {
            line("left_alone", &row.left_alone.to_stored());
        }
        line("created_at", &micros(row.created_at));
        line("updated_at", &micros(row.updated_at));
        line(
            "dispute_reason",
            &dispute.map_or("", |it| it.reason.as_str()),
        );
        line(
            "dispute_due_at",
            &optional(dispute.and_then(|it| it.due_at)),
        );
        let amount = dispute.map(|it| it.amount.minor_units().to_string());
        line("dispute_amount", &amount.unwrap_or_default());
        let currency = dispute.map_or("", |it| it.amount.currency().code());
        line("dispute_currency", &currency);
    })
}
