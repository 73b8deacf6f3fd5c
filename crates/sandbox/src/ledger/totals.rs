//! Running totals, so that `GET /books` costs the same after a million payments.

use super::record::{Record, post};
use crate::parse::Currency;
use crate::wire::{Books, Counts, CurrencyTotals, OperationKind, OperationStatus};
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct Totals {
    currencies: BTreeMap<Currency, CurrencyTotals>,
    counts: Counts,
}

impl Totals {
    pub(crate) fn add(&mut self, record: &Record) {
        post(self.currencies.entry(record.currency).or_default(), record);
        *count_of(&mut self.counts, record) += 1;
    }

    /// Takes back exactly what `add` added for the same record.
    pub(crate) fn remove(&mut self, record: &Record) {
        let mut posted = CurrencyTotals::default();
        post(&mut posted, record);
        let totals = self.currencies.entry(record.currency).or_default();
        totals.authorized -= posted.authorized;
        totals.captured -= posted.captured;
        totals.voided -= posted.voided;
        totals.refunded -= posted.refunded;
        totals.charged_back -= posted.charged_back;
        totals.charges = totals.charges.saturating_sub(posted.charges);
        let count = count_of(&mut self.counts, record);
        *count = count.saturating_sub(1);
    }

    pub(crate) fn replayed(&mut self) {
        self.counts.replays += 1;
    }

    pub(crate) fn report(&self, payments: usize, operations: usize) -> Books {
        let mut counts = self.counts;
        counts.payments = u64::try_from(payments).unwrap_or(u64::MAX);
        counts.operations = u64::try_from(operations).unwrap_or(u64::MAX);
        let currencies = self.currencies.iter();
        Books {
            currencies: currencies
                .map(|(code, totals)| (code.to_string(), *totals))
                .collect(),
            counts,
        }
    }
}

fn count_of<'a>(counts: &'a mut Counts, record: &Record) -> &'a mut u64 {
    match record.status {
        OperationStatus::Approved => match record.kind {
            OperationKind::Purchase => &mut counts.purchases,
            OperationKind::Authorization => &mut counts.authorizations,
            OperationKind::Capture => &mut counts.captures,
            OperationKind::Void => &mut counts.voids,
            OperationKind::Refund => &mut counts.refunds,
            OperationKind::Chargeback => &mut counts.chargebacks,
            OperationKind::ChargebackReversal => &mut counts.chargeback_reversals,
        },
        OperationStatus::Declined => &mut counts.declined,
        OperationStatus::Pending | OperationStatus::RequiresAction => &mut counts.open,
        OperationStatus::Failed => &mut counts.failed,
    }
}
