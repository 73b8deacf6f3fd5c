//! Reconciliation: a provider's account of what it settled against ours (`docs/reconciliation.md`).
//!
//! An adapter reads the export into lines ([`SettledLine`]); lines about one operation are added up ([`Settlement`]);
//! each of our transactions is then compared with what the provider says about it ([`judge`]). All of it is pure; the
//! flow (`flows/reconcile.rs`) brings the lines and our transactions together.

mod compare;
mod decimal;
mod settlement;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use thiserror::Error;
use uuid::Uuid;

use crate::ids::{PaymentId, ProviderAccount, ProviderReference, TenantId, TransactionId};
use crate::money::Currency;
use crate::named::named_enum;
use crate::ports::StoreError;
use crate::transaction::{TransactionKind, TransactionState};

pub use compare::{Difference, Finding, FindingKind, Verdict, extra, judge, unknown};
pub use decimal::minor_units;
pub use settlement::{Settled, Settlement, Told, TooManyLines};

/// Most lines of one export that move a payment's money. Each is kept until the end, with about 400 bytes.
pub const MAX_SETTLED_LINES: usize = 500_000;
/// How far before and behind the export's range our transactions are read, to find what a line is about. Captures and
/// refunds are settled within days.
pub const REACH: TimeDelta = TimeDelta::days(45);
/// Most findings of one run that are put into the log one by one; all of them are counted.
pub const MAX_RECORDED_FINDINGS: usize = 1_000;

named_enum! {
    /// What a line settles, as far as payments are concerned.
    pub enum SettledKind {
        /// Money was taken: by a purchase or a capture.
        Captured = "CAPTURED",
        /// It was given back.
        Refunded = "REFUNDED",
        /// The issuer took it back.
        ChargedBack = "CHARGED_BACK",
        /// The issuer returned it.
        ChargebackReversed = "CHARGEBACK_REVERSED",
    }
}

impl SettledKind {
    /// How a transaction shows in a settlement; `None` where it moves no money.
    pub fn of(kind: TransactionKind) -> Option<Self> {
        match kind {
            TransactionKind::Purchase | TransactionKind::Capture => Some(Self::Captured),
            TransactionKind::Refund => Some(Self::Refunded),
            TransactionKind::Chargeback => Some(Self::ChargedBack),
            TransactionKind::ChargebackReversal => Some(Self::ChargebackReversed),
            TransactionKind::Authorization | TransactionKind::Void => None,
        }
    }
}

/// Whose operation a line is about, by the names that it gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Our payment.
    pub payment: Option<PaymentId>,
    /// Our transaction.
    pub transaction: Option<TransactionId>,
    /// The provider's reference of the operation.
    pub operation: Option<ProviderReference>,
    /// The provider's reference of the payment, where that has one operation of this kind at most.
    pub payment_reference: Option<ProviderReference>,
}

impl Names {
    /// What the provider calls it.
    pub fn reference(&self) -> Option<&ProviderReference> {
        self.operation.as_ref().or(self.payment_reference.as_ref())
    }
}

/// A line that moves a payment's money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledLine {
    /// Where it begins in the export: 1 is the first line. Of a provider that was asked, the number of its entry.
    pub line: u64,
    /// When the provider booked it, where it says so.
    pub at: Option<DateTime<Utc>>,
    /// What it settles.
    pub kind: SettledKind,
    /// Gross, before fees, in minor units: positive where it does what its kind says, negative where it undoes that, 0
    /// where the provider has the operation and moved nothing (yet).
    pub amount: i64,
    /// Whether it returns what a capture left of its authorization, and undoes nothing that was taken: how much that was, an
    /// earlier line tells.
    pub returns_rest: bool,
    /// The amount's currency.
    pub currency: Currency,
    /// Whether that is the currency of the payout, because the export names no other: then only an equal currency can be
    /// compared.
    pub in_payout_currency: bool,
    /// What it is about.
    pub names: Names,
}

/// A line of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportLine {
    /// It moves a payment's money.
    Settled(SettledLine),
    /// It is known not to: a fee, a payout, or another merchant's.
    Passed {
        /// When, where it says so.
        at: Option<DateTime<Utc>>,
    },
    /// Its type is not known, so that nobody can say what it moves.
    Unknown {
        /// Where it begins.
        line: u64,
        /// The type, as it stands there; shortened.
        named: String,
    },
}

/// What is wrong with an export.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExportProblem {
    /// There is no header line.
    #[error("there is no header")]
    NoHeader,
    /// A column that is needed is not there.
    #[error("the column is missing")]
    MissingColumn,
    /// A column is there twice.
    #[error("the column is there twice")]
    RepeatedColumn,
    /// Another number of fields than the header has.
    #[error("expected as many fields as the header has, {expected}, and found {found}")]
    Fields {
        /// How many there should be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// The line is longer than any line may be.
    #[error("longer than {max} bytes")]
    TooLong {
        /// Most bytes of a line.
        max: usize,
    },
    /// Not UTF-8.
    #[error("not UTF-8")]
    Encoding,
    /// A value is needed.
    #[error("must not be empty")]
    Empty,
    /// Not an amount in whole minor units of its currency.
    #[error("not an amount in whole minor units of its currency")]
    Amount,
    /// Not a currency of ISO 4217.
    #[error("not a currency of ISO 4217")]
    Currency,
    /// Not a time of the form that the export has.
    #[error("not a time of the form that this export has")]
    Time,
    /// Not a reference of the provider's.
    #[error("not a reference")]
    Reference,
    /// Not what the provider's documentation promises.
    #[error("not what the provider's documentation promises")]
    Shape,
}

/// An export that cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}{}: {problem}", column_text(.column.as_deref()))]
pub struct ExportError {
    /// 1 is the first line. Of a provider that was asked, the number of its entry.
    pub line: u64,
    /// In which column; `None` for the line as a whole.
    pub column: Option<String>,
    /// What is wrong there.
    pub problem: ExportProblem,
}

fn column_text(column: Option<&str>) -> String {
    column.map_or_else(String::new, |column| format!(", column \"{column}\""))
}

impl ExportError {
    /// About a line as a whole.
    pub fn line(line: u64, problem: ExportProblem) -> Self {
        Self {
            line,
            column: None,
            problem,
        }
    }

    /// About one column of it.
    pub fn column(line: u64, column: impl Into<String>, problem: ExportProblem) -> Self {
        Self {
            line,
            column: Some(column.into()),
            problem,
        }
    }
}

/// Reads an export as it comes. Holds one line at a time.
pub trait SettlementReader: Send {
    /// Reads on.
    ///
    /// # Errors
    /// What is wrong with the export, and where.
    fn read(&mut self, chunk: &[u8]) -> Result<Vec<ExportLine>, ExportError>;

    /// Reads what is left: nothing comes behind it.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn finish(&mut self) -> Result<Vec<ExportLine>, ExportError>;

    /// The columns that are there and were not looked at.
    fn ignored_columns(&self) -> Vec<String>;
}

/// How an account's settlements are learnt.
pub struct SettlementSource {
    /// Reads them.
    pub reader: Box<dyn SettlementReader>,
    /// Whether the provider is asked for them; else a person hands an export over.
    pub asked: bool,
    /// Whether it has all that was booked between its first and its last line. Else nothing is called missing, unless a
    /// person says from when to when it has everything.
    pub complete: bool,
    /// Our transactions nearer than this to an end of the export's range are not called missing.
    pub margin: TimeDelta,
}

/// A part of what an account was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettlementPage {
    /// The answer, as the account's reader reads it.
    pub bytes: Vec<u8>,
    /// What to ask for next; `None` at the end.
    pub next: Option<u64>,
}

/// One of our transactions that moves money, with what it is compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booked {
    /// Whose.
    pub tenant: TenantId,
    /// Of which payment.
    pub payment: PaymentId,
    /// Which.
    pub transaction: TransactionId,
    /// How it shows in a settlement.
    pub kind: SettledKind,
    /// Whether it opened the payment, whose provider reference it then has.
    pub opens: bool,
    /// Where it stands.
    pub state: TransactionState,
    /// Its amount, in minor units; of a dispute that of the dispute.
    pub amount: i64,
    /// The amount's currency.
    pub currency: Currency,
    /// The provider's reference of it.
    pub provider_reference: Option<ProviderReference>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it last changed: what it is now it became between these two.
    pub updated_at: DateTime<Utc>,
}

/// The time that an export tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// From here.
    pub from: DateTime<Utc>,
    /// To here.
    pub to: DateTime<Utc>,
    /// What is nearer than this to either end may be in the export before, or in the next.
    pub margin: TimeDelta,
    /// Whether the export has all of it.
    pub complete: bool,
}

impl Window {
    /// Whether what was accepted and last changed at these times happened within, away from both ends. Whenever our
    /// transaction succeeded, it was between the two.
    pub fn holds(&self, created_at: DateTime<Utc>, updated_at: DateTime<Utc>) -> bool {
        let first = self.from.checked_add_signed(self.margin);
        self.complete
            && first.is_some_and(|first| created_at >= first)
            && self.is_before_end(updated_at)
    }

    /// Whether a change at this time can show in the export.
    pub fn is_before_end(&self, at: DateTime<Utc>) -> bool {
        let last = self.to.checked_sub_signed(self.margin);
        last.is_some_and(|last| at <= last)
    }

    /// Whether what was accepted then is among those that are read.
    pub fn reaches(&self, created_at: DateTime<Utc>) -> bool {
        let (from, to) = self.reached();
        (from..to).contains(&created_at)
    }

    /// The time over which our transactions are read.
    pub fn reached(&self) -> (DateTime<Utc>, DateTime<Utc>) {
        let from = self.from.checked_sub_signed(REACH);
        let to = self.to.checked_add_signed(REACH);
        (
            from.unwrap_or(DateTime::<Utc>::MIN_UTC),
            to.unwrap_or(DateTime::<Utc>::MAX_UTC),
        )
    }
}

/// Where the transactions of an account are read, a page at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookedRange {
    /// Of this account.
    pub account: ProviderAccount,
    /// Accepted at or after.
    pub from: DateTime<Utc>,
    /// Accepted before.
    pub to: DateTime<Utc>,
    /// Behind this one.
    pub after: Option<(DateTime<Utc>, TransactionId)>,
}

/// The newest entry of a stream of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHead {
    /// Its number.
    pub entity_seq: u64,
    /// Its hash.
    pub leaf_hash: [u8; 32],
}

/// Our side of a reconciliation.
#[async_trait]
pub trait Bookings: Send + Sync + 'static {
    /// Transactions that move money, of every tenant, by the time they were accepted.
    async fn booked(&self, range: &BookedRange, limit: usize) -> Result<Vec<Booked>, StoreError>;

    /// Those of these payments that were sent through the account.
    async fn booked_of(
        &self,
        account: &ProviderAccount,
        payments: &[PaymentId],
    ) -> Result<Vec<Booked>, StoreError>;

    /// The newest entry of a stream of the journal; `None` where it has none.
    async fn stream_head(&self, stream: Uuid) -> Result<Option<StreamHead>, StoreError>;
}
