//! A payment's row and its transactions against what its entries say.

use std::fmt::Display;

use chrono::{DateTime, Utc};
use quittance_evidence::Hash;

use super::entry::LeafFacts;
use super::erasures::UnjudgedErasure;
use super::mismatch::{Fault, Mismatch, Shown};
use super::stream::{StreamEnd, TransactionFacts};
use crate::ids::{PaymentId, TransactionId};
use crate::journal::{AMOUNT_NAMES, row_digest, transaction_row_digest};
use crate::payment::Payment;
use crate::transaction::Transaction;

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
    /// Whose data it holds.
    pub customer: StoredCustomer,
    /// The payment; or the column that cannot be read.
    pub payment: Result<Payment, String>,
    /// Its transactions; `None` where they were not read.
    pub transactions: Option<Vec<StoredTransaction>>,
}

/// The customer's data of a payment as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredCustomer {
    /// None.
    None,
    /// They open under the customer's key.
    Held,
    /// The log says that the customer's data was erased, or is being erased, and the key is gone.
    Erased,
    /// They do not open, or there is no key: the column that does not fit.
    Unreadable(&'static str),
    /// They open, and this column of the customer is not what they or the log say.
    Differs(&'static str),
    /// Whether the key should be there is not known.
    Unjudged(UnjudgedErasure),
}

/// A transaction as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTransaction {
    /// Its id.
    pub id: TransactionId,
    /// The transaction, its request left out; or the column that cannot be read.
    pub row: Result<Transaction, String>,
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
    match &stored.customer {
        // An erasure would pass the payment by.
        StoredCustomer::None if log.of_customer => {
            report.column("customer_id", Shown::of(&"a customer"), Shown::of(&"none"));
        }
        StoredCustomer::Unreadable(column) => {
            report.add(Fault::PaymentUnreadable((*column).to_owned()));
        }
        StoredCustomer::Differs(column) => {
            let expected = Shown::of(&"what the payment and the log say of its customer");
            report.column(column, expected, Shown::of(&"something else"));
        }
        StoredCustomer::Unjudged(erasure) => report.add(Fault::Row(erasure.fault())),
        StoredCustomer::None | StoredCustomer::Held | StoredCustomer::Erased => {}
    }
    if let Some(newest) = &log.newest {
        compare_row(newest, stored, report);
    }
    if let (Some(replay), Ok(payment)) = (&log.replay, &stored.payment) {
        let derived = [
            ("disputed", replay.disputed(), payment.disputed),
            ("expired", replay.expired, payment.expired),
        ];
        for (column, expected, found) in derived {
            if expected != found {
                report.column(column, Shown::of(&expected), Shown::of(&found));
            }
        }
    }
    if let Some(transactions) = &stored.transactions {
        compare_transactions(log, stored, transactions, report);
    }
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

fn compare_transactions(
    log: &StreamEnd,
    stored: &StoredPayment,
    transactions: &[StoredTransaction],
    report: &mut Report<'_>,
) {
    for stored_row in transactions {
        let id = stored_row.id;
        match (log.transactions.get(&id.0), &stored_row.row) {
            (None, _) => report.add(Fault::TransactionWithoutEntries(id)),
            (Some(_), Err(column)) => report.add(Fault::PaymentUnreadable(column.clone())),
            (Some(facts), Ok(row)) => compare_transaction(facts, row, stored, report),
        }
    }
    let known = |id| transactions.iter().any(|row| row.id.0 == id);
    for id in log.transactions.keys().copied().filter(|id| !known(*id)) {
        report.add(Fault::TransactionMissing(TransactionId(id)));
    }
}

/// A transaction's row against what is said last about it: what entries state by itself tells which column it is.
fn compare_transaction(
    facts: &TransactionFacts,
    row: &Transaction,
    stored: &StoredPayment,
    report: &mut Report<'_>,
) {
    let mut compare = |column, expected: Option<&dyn Display>, found: Option<&dyn Display>| {
        let (expected, found) = (Shown::of_option(expected), Shown::of_option(found));
        if expected != found {
            report.add(Fault::TransactionColumnDiffers {
                transaction: row.id,
                column,
                expected,
                found,
            });
        }
    };
    if let Some(kind) = &facts.kind {
        compare("kind", Some(kind), Some(&row.kind));
    }
    if let Some(amount) = &facts.amount {
        compare("amount", Some(amount), Some(&row.amount));
    }
    if let Some(state) = &facts.state {
        compare("state", Some(state), Some(&row.state));
    }
    if let Some(said) = &facts.said {
        let account = said.provider_account.as_ref();
        compare(
            "provider_account",
            account.map(shown),
            Some(&row.provider_account),
        );
        let (expected, found) = (&said.provider_reference, &row.provider_reference);
        let (expected, found) = (expected.as_ref().map(shown), found.as_ref().map(shown));
        compare("provider_reference", expected, found);
        let code = row.decline.as_ref().map(|decline| decline.code);
        let expected = said.decline_code.as_ref().map(shown);
        compare("decline_code", expected, code.as_ref().map(shown));
    }
    let Ok(payment) = &stored.payment else {
        return;
    };
    let found = Hash::from_bytes(transaction_row_digest(payment, row));
    if let Some(expected) = facts.row.filter(|expected| *expected != found) {
        report.add(Fault::TransactionRowDiffers {
            transaction: row.id,
            expected,
            found,
        });
    }
}

fn shown(value: &impl Display) -> &dyn Display {
    value
}
