//! A payment's row and its transactions against what its entries say.

use chrono::{DateTime, Utc};
use quittance_evidence::Hash;

use super::entry::LeafFacts;
use super::mismatch::{Fault, Mismatch, Shown};
use super::stream::StreamEnd;
use crate::ids::{PaymentId, TransactionId};
use crate::journal::{AMOUNT_NAMES, row_digest};
use crate::payment::Payment;

/// A payment as stored.
#[derive(Debug, Clone)]
pub struct StoredPayment {
    /// Its id.
    pub id: PaymentId,
    /// Column `version`.
    pub version: i64,
    /// Column `last_leaf_hash`.
    pub last_leaf_hash: Vec<u8>,
    /// Column `updated_at`.
    pub updated_at: DateTime<Utc>,
    /// Column `currency_exponent`.
    pub currency_exponent: i16,
    /// The payment; or the column that cannot be read.
    pub payment: Result<Payment, String>,
    /// Its transactions.
    pub transactions: Vec<StoredTransaction>,
}

/// A transaction as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTransaction {
    /// Its id.
    pub id: TransactionId,
    /// Column `amount`.
    pub amount: i64,
    /// Column `state`.
    pub state: String,
    /// Column `provider_account`.
    pub provider_account: String,
    /// Column `provider_reference`.
    pub provider_reference: Option<String>,
    /// Column `decline_code`.
    pub decline_code: Option<String>,
    /// Whether its amount may change by an entry about another: that of a void follows what is left.
    pub amount_follows: bool,
}

/// Compares a payment with its stream, both of one moment; either may be missing.
pub fn compare_payment(
    log: Option<&StreamEnd>,
    stored: Option<&StoredPayment>,
    out: &mut Vec<Mismatch>,
) {
    let mut report = Report {
        entry: log.map(|log| log.entry),
        payment: stored
            .map(|stored| stored.id)
            .or(log.and_then(StreamEnd::payment)),
        position: log.and_then(|log| log.position),
        out,
    };
    match (log, stored) {
        (Some(log), Some(stored)) => compare(log, stored, &mut report),
        (Some(log), None) => {
            if log.of_payment == Some(true) {
                let entries = log.entries;
                report.add(Fault::PaymentMissing { entries });
            }
        }
        (None, Some(stored)) => report.add(Fault::PaymentWithoutEntries {
            version: stored.version,
        }),
        (None, None) => {}
    }
}

struct Report<'a> {
    entry: Option<crate::ids::EntryId>,
    payment: Option<PaymentId>,
    position: Option<i64>,
    out: &'a mut Vec<Mismatch>,
}

impl Report<'_> {
    fn add(&mut self, fault: Fault) {
        self.out.push(Mismatch {
            fault,
            entry: self.entry,
            payment: self.payment,
            position: self.position.and_then(|it| u64::try_from(it).ok()),
        });
    }

    fn column(&mut self, column: &'static str, expected: Shown, found: Shown) {
        self.add(Fault::PaymentColumnDiffers {
            column,
            expected,
            found,
        });
    }
}

fn compare(log: &StreamEnd, stored: &StoredPayment, report: &mut Report<'_>) {
    if stored.version != log.entity_seq {
        report.add(Fault::PaymentVersionDiffers {
            expected: log.entity_seq,
            found: stored.version,
        });
    }
    if stored.last_leaf_hash != log.leaf_hash.as_bytes() {
        report.add(Fault::PaymentLastHashDiffers {
            expected: log.leaf_hash,
            found: hex::encode(&stored.last_leaf_hash),
        });
    }
    let exponent = log.currency_exponent.map(i16::from);
    if exponent.is_some_and(|exponent| exponent != stored.currency_exponent) {
        let (expected, found) = (exponent.as_ref(), Shown::of(&stored.currency_exponent));
        report.column("currency_exponent", Shown::of_option(expected), found);
    }
    if let Some(newest) = &log.newest {
        compare_row(newest, stored, report);
        compare_newest_transaction(newest, stored, report);
    }
    compare_transactions(log, stored, report);
}

/// The row against the newest entry: what the entry states by itself tells which column it is.
fn compare_row(newest: &LeafFacts, stored: &StoredPayment, report: &mut Report<'_>) {
    if newest.occurred_at.timestamp_micros() != stored.updated_at.timestamp_micros() {
        let (expected, found) = (newest.occurred_at, stored.updated_at);
        report.column(
            "updated_at",
            Shown::of_time(expected),
            Shown::of_time(found),
        );
    }
    let payment = match &stored.payment {
        Ok(payment) => payment,
        Err(column) => return report.add(Fault::PaymentUnreadable(column.clone())),
    };
    let state = payment.state.name();
    if newest
        .state_to
        .as_deref()
        .is_some_and(|expected| expected != state)
    {
        let expected = newest.state_to.as_ref();
        report.column("state", Shown::of_option(expected), Shown::of(state));
    }
    if payment.tenant.as_str() != newest.tenant_id {
        let (expected, found) = (Shown::of(&newest.tenant_id), Shown::of(&payment.tenant));
        report.column("tenant_id", expected, found);
    }
    if let Some(amounts) = &newest.amounts {
        let said = [
            amounts.authorized,
            amounts.captured,
            amounts.capture_pending,
            amounts.voided,
            amounts.void_pending,
            amounts.refunded,
            amounts.refund_pending,
            amounts.charged_back,
            amounts.excess,
        ];
        for ((name, expected), found) in AMOUNT_NAMES
            .into_iter()
            .zip(said)
            .zip(payment.amounts.all())
        {
            if expected != found {
                report.column(name, Shown::of(&expected), Shown::of(&found));
            }
        }
    }
    let found = Hash::from_bytes(row_digest(payment));
    if let Some(expected) = newest.row_digest.filter(|expected| *expected != found) {
        report.add(Fault::PaymentRowDiffers { expected, found });
    }
}

/// The transaction that the newest entry is about: nothing has changed it since.
fn compare_newest_transaction(newest: &LeafFacts, stored: &StoredPayment, report: &mut Report<'_>) {
    let mut rows = stored.transactions.iter();
    let Some(row) = rows.find(|row| Some(row.id.0) == newest.transaction_id) else {
        return;
    };
    let texts = [
        (
            "provider_account",
            newest.provider_account.as_deref(),
            Some(row.provider_account.as_str()),
        ),
        (
            "provider_reference",
            newest.provider_reference.as_deref(),
            row.provider_reference.as_deref(),
        ),
        (
            "decline_code",
            newest.decline_code.as_deref(),
            row.decline_code.as_deref(),
        ),
    ];
    for (column, expected, found) in texts {
        if expected != found {
            report.add(Fault::TransactionColumnDiffers {
                transaction: row.id,
                column,
                expected: Shown::of_option(expected),
                found: Shown::of_option(found),
            });
        }
    }
}

fn compare_transactions(log: &StreamEnd, stored: &StoredPayment, report: &mut Report<'_>) {
    for row in &stored.transactions {
        let Some(facts) = log.transactions.get(&row.id.0) else {
            report.add(Fault::TransactionWithoutEntries(row.id));
            continue;
        };
        let mut differs = |column, expected, found| {
            report.add(Fault::TransactionColumnDiffers {
                transaction: row.id,
                column,
                expected,
                found,
            });
        };
        if let Some(amount) = facts
            .amount
            .filter(|it| *it != row.amount && !row.amount_follows)
        {
            differs("amount", Shown::of(&amount), Shown::of(&row.amount));
        }
        if let Some(state) = facts.state.as_ref().filter(|state| **state != row.state) {
            differs("state", Shown::of(state), Shown::of(&row.state));
        }
    }
    let known = |id| stored.transactions.iter().any(|row| row.id.0 == id);
    for id in log.transactions.keys().copied().filter(|id| !known(*id)) {
        report.add(Fault::TransactionMissing(TransactionId(id)));
    }
}
