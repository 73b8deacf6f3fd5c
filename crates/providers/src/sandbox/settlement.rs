//! The sandbox's books, page by page, as it answers `GET /books?after=&limit=` (`docs/sandbox.md`).

use chrono::TimeDelta;
use quittance_domain::ids::{ProviderReference, TransactionId};
use quittance_domain::money::Currency;
use quittance_domain::reconciliation::{
    ExportError, ExportLine, ExportProblem, Names, SettledKind, SettledLine, SettlementReader,
    SettlementSource,
};
use uuid::Uuid;

use super::wire::{BookedOperation, BooksPage, Kind, Status};

/// How an account's settlements are learnt: the books have everything, up to now.
pub(super) fn source() -> SettlementSource {
    SettlementSource {
        reader: Box::new(Books { entries: 0 }),
        asked: true,
        complete: true,
        margin: TimeDelta::zero(),
    }
}

/// What to ask for next.
pub(super) fn next(page: &[u8]) -> Result<Option<u64>, serde_json::Error> {
    serde_json::from_slice::<BooksPage>(page).map(|page| page.next)
}

/// Each part is one page.
struct Books {
    /// How many were read.
    entries: u64,
}

impl SettlementReader for Books {
    fn read(&mut self, page: &[u8]) -> Result<Vec<ExportLine>, ExportError> {
        let shape = |_| ExportError::line(self.entries + 1, ExportProblem::Shape);
        let page: BooksPage = serde_json::from_slice(page).map_err(shape)?;
        let mut lines = Vec::with_capacity(page.operations.len());
        for operation in page.operations {
            self.entries += 1;
            lines.push(line(self.entries, operation)?);
        }
        Ok(lines)
    }

    fn finish(&mut self) -> Result<Vec<ExportLine>, ExportError> {
        Ok(Vec::new())
    }

    fn ignored_columns(&self) -> Vec<String> {
        Vec::new()
    }
}

fn line(entry: u64, operation: BookedOperation) -> Result<ExportLine, ExportError> {
    let at = Some(operation.created_at);
    let kind = match operation.kind {
        Kind::Purchase | Kind::Capture => SettledKind::Captured,
        Kind::Refund => SettledKind::Refunded,
        Kind::Chargeback => SettledKind::ChargedBack,
        Kind::ChargebackReversal => SettledKind::ChargebackReversed,
        Kind::Authorization | Kind::Void => return Ok(ExportLine::Passed { at }),
    };
    let wrong = |column, problem| ExportError::column(entry, column, problem);
    let currency = Currency::parse(&operation.currency);
    let reference = ProviderReference::parse(operation.id);
    Ok(ExportLine::Settled(SettledLine {
        line: entry,
        at,
        kind,
        amount: match operation.status {
            Status::Approved => operation.amount,
            Status::Declined | Status::Pending | Status::RequiresAction | Status::Failed => 0,
        },
        returns_rest: false,
        currency: currency.map_err(|_| wrong("currency", ExportProblem::Currency))?,
        in_payout_currency: false,
        names: Names {
            transaction: Uuid::try_parse(&operation.reference)
                .ok()
                .map(TransactionId),
            operation: Some(reference.map_err(|_| wrong("id", ExportProblem::Reference))?),
            ..Names::default()
        },
    }))
}
