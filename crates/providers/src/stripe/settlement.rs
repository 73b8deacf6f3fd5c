//! Stripe's itemized reports of balance transactions, in CSV: "balance change from activity" and "payout reconciliation".
//!
//! Columns as Stripe documents them (<https://docs.stripe.com/reports/report-types>), categories as in
//! <https://docs.stripe.com/reports/reporting-categories>. Amounts are in major units, fees are columns of their own.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use quittance_domain::ids::{PaymentId, TransactionId};
use quittance_domain::money::Currency;
use quittance_domain::reconciliation::{
    ExportError, ExportLine, ExportProblem, Names, SettledKind, SettledLine, SettlementSource,
};
use uuid::Uuid;

use crate::settlement::{Row, Rows, Table};

const CATEGORY: &str = "reporting_category";
const CREATED: &str = "created_utc";
const CURRENCY: &str = "currency";
const GROSS: &str = "gross";
const SOURCE: &str = "source_id";
/// What the customer paid, where the payout is in another currency.
const FACING_AMOUNT: &str = "customer_facing_amount";
const FACING_CURRENCY: &str = "customer_facing_currency";
const CHARGE: &str = "charge_id";
const INTENT: &str = "payment_intent_id";
/// Our names, which the report has where its metadata columns are asked for.
const OUR_PAYMENT: &str = "payment_metadata[quittance_payment]";
const OUR_OPENING: &str = "payment_metadata[quittance_transaction]";
const OUR_CAPTURE: &str = "payment_metadata[quittance_capture]";
const OUR_REFUND: &str = "refund_metadata[quittance_transaction]";
/// How Stripe writes a time.
const TIME: &str = "%Y-%m-%d %H:%M:%S";
/// A charge is booked when it is made; an hour is for answers that were lost and found again.
const MARGIN: TimeDelta = TimeDelta::hours(1);

/// Categories that move no payment's money.
const OTHERS: [&str; 31] = [
    "advance",
    "advance_funding",
    "anticipation_repayment",
    "climate_order_purchase",
    "climate_order_refund",
    "connect_collection_transfer",
    "connect_reserved_funds",
    "contribution",
    "fee",
    "financing_paydown",
    "financing_paydown_reversal",
    "financing_payout",
    "financing_payout_reversal",
    "issuing_authorization_hold",
    "issuing_authorization_release",
    "issuing_dispute",
    "issuing_transaction",
    "network_cost",
    "obligation",
    "other_adjustment",
    "payout",
    "payout_reversal",
    "platform_earning",
    "platform_earning_refund",
    "risk_reserved_funds",
    "tax",
    "topup",
    "topup_reversal",
    "transfer",
    "transfer_reversal",
    "unreconciled_customer_funds",
];

/// The category of what a capture left of its authorization.
const REST: &str = "partial_capture_reversal";

/// What a category settles, and whether money goes out when it does.
fn settles(category: &str) -> Option<(SettledKind, bool)> {
    match category {
        "charge" | "charge_failure" | REST => Some((SettledKind::Captured, false)),
        "refund" | "refund_failure" => Some((SettledKind::Refunded, true)),
        "dispute" => Some((SettledKind::ChargedBack, true)),
        "dispute_reversal" => Some((SettledKind::ChargebackReversed, false)),
        _ => None,
    }
}

/// How an account's settlements are learnt.
pub(super) fn source() -> SettlementSource {
    SettlementSource {
        reader: Box::new(Table::new(BalanceTransactions)),
        asked: false,
        // A payout has what became available until then, and its report looks like that of an interval.
        complete: false,
        margin: MARGIN,
    }
}

struct BalanceTransactions;

impl Rows for BalanceTransactions {
    // Without the names of charge and intent no purchase would be found, and the rest of a partial capture would be an
    // operation of its own.
    const NEEDED: &'static [&'static str] =
        &[CREATED, CURRENCY, GROSS, CATEGORY, SOURCE, CHARGE, INTENT];
    const READ: &'static [&'static str] = &[
        FACING_AMOUNT,
        FACING_CURRENCY,
        OUR_PAYMENT,
        OUR_OPENING,
        OUR_CAPTURE,
        OUR_REFUND,
    ];

    fn line(&self, row: &Row<'_>) -> Result<ExportLine, ExportError> {
        let category = row.get(CATEGORY);
        let at = time(row)?;
        let Some((kind, goes_out)) = settles(category) else {
            return Ok(if OTHERS.contains(&category) {
                ExportLine::Passed { at: Some(at) }
            } else {
                row.unknown(CATEGORY)
            });
        };
        let (came_in, currency, in_payout_currency) = amount(row)?;
        Ok(ExportLine::Settled(SettledLine {
            line: row.line,
            at: Some(at),
            kind,
            amount: if goes_out { -came_in } else { came_in },
            returns_rest: category == REST,
            currency,
            in_payout_currency,
            names: names(row, kind)?,
        }))
    }
}

fn time(row: &Row<'_>) -> Result<DateTime<Utc>, ExportError> {
    let at = NaiveDateTime::parse_from_str(row.get(CREATED), TIME);
    at.map(|at| at.and_utc())
        .map_err(|_| row.wrong(CREATED, ExportProblem::Time))
}

/// What came in (negative: went out), as the customer saw it where the report says so; else as it was paid out.
fn amount(row: &Row<'_>) -> Result<(i64, Currency, bool), ExportError> {
    let currency = row.currency(CURRENCY)?;
    let gross = row.amount(GROSS, currency)?;
    if row.get(FACING_AMOUNT).is_empty() || row.get(FACING_CURRENCY).is_empty() {
        return Ok((gross, currency, true));
    }
    let facing_currency = row.currency(FACING_CURRENCY)?;
    let facing = row.amount(FACING_AMOUNT, facing_currency)?;
    // The direction is that of the balance, whatever sign the customer's amount has.
    Ok((facing.abs() * gross.signum(), facing_currency, false))
}

fn names(row: &Row<'_>, kind: SettledKind) -> Result<Names, ExportError> {
    let ours = |column| Uuid::try_parse(row.get(column)).ok().map(TransactionId);
    let payment = Uuid::try_parse(row.get(OUR_PAYMENT)).ok().map(PaymentId);
    let (transaction, operation, payment_reference) = match kind {
        SettledKind::Captured => (
            ours(OUR_CAPTURE).or_else(|| ours(OUR_OPENING)),
            // The charge, also of what returns a part of it.
            row.reference(CHARGE)?
                .map_or_else(|| row.reference(SOURCE), |it| Ok(Some(it)))?,
            row.reference(INTENT)?,
        ),
        SettledKind::Refunded => (ours(OUR_REFUND), row.reference(SOURCE)?, None),
        SettledKind::ChargedBack | SettledKind::ChargebackReversed => {
            (None, row.reference(SOURCE)?, None)
        }
    };
    if transaction.is_none() && operation.is_none() {
        return Err(row.wrong(SOURCE, ExportProblem::Empty));
    }
    Ok(Names {
        payment,
        transaction,
        operation,
        payment_reference,
    })
}

#[cfg(test)]
#[path = "settlement_tests.rs"]
mod tests;
