//! Adyen's settlement details report, in CSV: what one batch paid out.
//!
//! Columns and types as Adyen documents them
//! (<https://docs.adyen.com/reporting/settlement-reconciliation/transaction-level/settlement-details-report>). Gross amounts are in the payment's currency (`GC`), in major units.

use chrono::{DateTime, FixedOffset, NaiveDateTime, TimeDelta, TimeZone as _, Utc};
use quittance_domain::ids::ProviderReference;
use quittance_domain::reconciliation::{
    ExportError, ExportLine, ExportProblem, Names, SettledKind, SettledLine, SettlementSource,
};
use quittance_domain::transaction::TransactionKind;

use super::reference::Reference;
use crate::settlement::{Row, Rows, Table};

const ACCOUNT: &str = "Merchant Account";
const PAYMENT: &str = "Psp Reference";
const REFERENCE: &str = "Merchant Reference";
const CREATED: &str = "Creation Date";
const ZONE: &str = "TimeZone";
const TYPE: &str = "Type";
const MODIFICATION: &str = "Modification Reference";
const CURRENCY: &str = "Gross Currency";
const DEBIT: &str = "Gross Debit (GC)";
const CREDIT: &str = "Gross Credit (GC)";
/// Our reference of the operation, where the report has this column.
const OUR_OPERATION: &str = "Modification Merchant Reference";
/// How Adyen writes a time.
const TIME: &str = "%Y-%m-%d %H:%M:%S";
/// How long until what was captured is paid out: two or three days for cards.
const MARGIN: TimeDelta = TimeDelta::days(3);

/// Types that move no payment's money.
const OTHERS: [&str; 14] = [
    "AdvancementCommissioned",
    "Balancetransfer",
    "BankInstructionReturned",
    "DepositCorrection",
    "EpaPaid",
    "Fee",
    "InvoiceDeduction",
    "ManualCorrected",
    "MatchedStatement",
    "MerchantPayout",
    "MiscCosts",
    "PaidOut",
    "PaidOutReversed",
    "PaymentCost",
];

/// Hours east of UTC of zones that mean one thing only.
const ZONES: [(&str, i32); 24] = [
    ("ACST", 9),
    ("AEDT", 11),
    ("AEST", 10),
    ("AWST", 8),
    ("BRT", -3),
    ("BST", 1),
    ("CDT", -5),
    ("CEST", 2),
    ("CET", 1),
    ("EDT", -4),
    ("EEST", 3),
    ("EET", 2),
    ("EST", -5),
    ("GMT", 0),
    ("HKT", 8),
    ("JST", 9),
    ("MDT", -6),
    ("MST", -7),
    ("NZDT", 13),
    ("NZST", 12),
    ("PDT", -7),
    ("PST", -8),
    ("SGT", 8),
    ("UTC", 0),
];

/// What a type settles; whether money goes out when it does; whether the line undoes it.
fn settles(r#type: &str) -> Option<(SettledKind, bool)> {
    match r#type {
        "Settled" => Some((SettledKind::Captured, false)),
        "Refunded" | "RefundedReversed" => Some((SettledKind::Refunded, true)),
        "Chargeback" | "SecondChargeback" => Some((SettledKind::ChargedBack, true)),
        "ChargebackReversed" => Some((SettledKind::ChargebackReversed, false)),
        _ => None,
    }
}

/// How the settlements of a merchant account are learnt. A batch has what was due then, and payment methods are due at
/// different times: from its first to its last line it has not everything.
pub(super) fn source(merchant_account: &str) -> SettlementSource {
    SettlementSource {
        reader: Box::new(Table::new(SettlementDetails {
            merchant_account: merchant_account.to_owned(),
        })),
        asked: false,
        complete: false,
        margin: MARGIN,
    }
}

struct SettlementDetails {
    merchant_account: String,
}

impl Rows for SettlementDetails {
    const NEEDED: &'static [&'static str] = &[
        ACCOUNT,
        PAYMENT,
        REFERENCE,
        CREATED,
        ZONE,
        TYPE,
        MODIFICATION,
        CURRENCY,
        DEBIT,
        CREDIT,
    ];
    const READ: &'static [&'static str] = &[OUR_OPERATION];

    fn line(&self, row: &Row<'_>) -> Result<ExportLine, ExportError> {
        let of_other_account = row.get(ACCOUNT) != self.merchant_account;
        let Some((kind, goes_out)) = settles(row.get(TYPE)) else {
            let known = of_other_account || OTHERS.contains(&row.get(TYPE));
            // Fees and payouts are dated when the batch was closed.
            return Ok(if known {
                ExportLine::Passed { at: None }
            } else {
                row.unknown(TYPE)
            });
        };
        if of_other_account {
            return Ok(ExportLine::Passed { at: None });
        }
        let currency = row.currency(CURRENCY)?;
        let amount = |column| match row.get(column) {
            "" => Ok(0),
            _ => row.amount(column, currency),
        };
        let came_in = amount(CREDIT)?.checked_sub(amount(DEBIT)?);
        let came_in = came_in.ok_or_else(|| row.wrong(CREDIT, ExportProblem::Amount))?;
        if came_in == 0 {
            return Err(row.wrong(CREDIT, ExportProblem::Amount));
        }
        Ok(ExportLine::Settled(SettledLine {
            line: row.line,
            at: time(row)?,
            kind,
            amount: if goes_out { -came_in } else { came_in },
            returns_rest: false,
            currency,
            in_payout_currency: false,
            names: names(row, kind)?,
        }))
    }
}

/// `None` where the zone is not known, or means several.
fn time(row: &Row<'_>) -> Result<Option<DateTime<Utc>>, ExportError> {
    let at = NaiveDateTime::parse_from_str(row.get(CREATED), TIME);
    let at = at.map_err(|_| row.wrong(CREATED, ExportProblem::Time))?;
    let zone = ZONES.iter().find(|(name, _)| *name == row.get(ZONE));
    let offset = zone.and_then(|(_, hours)| FixedOffset::east_opt(hours * 3_600));
    let local = offset.and_then(|offset| offset.from_local_datetime(&at).single());
    Ok(local.map(|local| local.with_timezone(&Utc)))
}

/// By our own reference, which names payment and transaction; by Adyen's, of what was not asked for by us.
fn names(row: &Row<'_>, kind: SettledKind) -> Result<Names, ExportError> {
    let payment = Reference::parse(row.get(REFERENCE));
    let operation = Reference::parse(row.get(OUR_OPERATION));
    let ours = |reference: &Reference| SettledKind::of(reference.kind) == Some(kind);
    let transaction = operation.filter(ours).or_else(|| payment.filter(ours));
    let mut modification = row.reference(MODIFICATION)?;
    if row.get(TYPE) == "SecondChargeback" {
        // As its webhook is named.
        let second = modification.map(|first| ProviderReference::parse(format!("{first}/second")));
        let second = second.transpose();
        modification = second.map_err(|_| row.wrong(MODIFICATION, ExportProblem::Reference))?;
    }
    let psp = row.reference(PAYMENT)?;
    if transaction.is_none() && modification.is_none() && psp.is_none() {
        return Err(row.wrong(MODIFICATION, ExportProblem::Empty));
    }
    // A payment that was captured with its authorization is captured once.
    let once = payment.is_some_and(|it| it.kind == TransactionKind::Purchase);
    Ok(Names {
        payment: payment.or(operation).map(|it| it.payment),
        transaction: transaction.map(|it| it.transaction),
        payment_reference: psp
            .clone()
            .filter(|_| once && kind == SettledKind::Captured),
        operation: modification.or(psp),
    })
}

#[cfg(test)]
#[path = "settlement_tests.rs"]
mod tests;
