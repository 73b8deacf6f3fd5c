//! What can be wrong with rows that entries speak of, beside payments and transactions.

use thiserror::Error;

use super::mismatch::Shown;
use crate::ids::{CustomerId, EntryId, ErasureId, TransactionId};

/// What is wrong with an attempt, an idempotency record, an operator action or an erasure.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RowFault {
    /// An entry is about an attempt that is not there.
    #[error("the attempt {number} of the transaction {transaction} has entries, and no row")]
    AttemptMissing {
        /// Of which transaction.
        transaction: TransactionId,
        /// Its number.
        number: u32,
    },
    /// A column of an attempt is not what its entry says.
    #[error(
        "{column} of the attempt {number} of the transaction {transaction} should be {expected}, and is {found}"
    )]
    AttemptDiffers {
        /// Of which transaction.
        transaction: TransactionId,
        /// Its number.
        number: u32,
        /// Which column.
        column: &'static str,
        /// What the entry says.
        expected: Shown,
        /// As stored.
        found: Shown,
    },
    /// The provider's stored answer is gone, cannot be read, or is not the one that the entry is about.
    #[error(
        "the provider's answer to the attempt {number} of the transaction {transaction} {problem}"
    )]
    Response {
        /// Of which transaction.
        transaction: TransactionId,
        /// The attempt's number.
        number: u32,
        /// What is wrong with it.
        problem: ResponseProblem,
    },
    /// There is an attempt that no entry began, or one that has ended and that no entry ended.
    #[error(
        "no entry speaks of the attempt {number} of the transaction {transaction}, or of its end"
    )]
    AttemptWithoutEntry {
        /// Of which transaction.
        transaction: TransactionId,
        /// Its number.
        number: i32,
    },
    /// There are attempts of what no entry says was sent.
    #[error("there are attempts of this payment, and no entry says that anything of it was sent")]
    AttemptsOfNothing,
    /// There are more attempts of these payments than entries can be about.
    #[error(
        "from this payment on, there are more attempts than entries can be about: some are not compared"
    )]
    TooManyAttempts,
    /// A command was accepted, and what it was asked under is forgotten: asked again, it would be carried out again.
    #[error("the command was accepted under an idempotency key that has no record")]
    IdempotencyRecordMissing,
    /// The record leads to another transaction, or is of another command.
    #[error("{column} of the idempotency record should be {expected}, and is {found}")]
    IdempotencyRecordDiffers {
        /// Which column.
        column: &'static str,
        /// What the entry says.
        expected: Shown,
        /// As stored.
        found: Shown,
    },
    /// A record is there whose key no entry is about: a command would be answered that was never accepted.
    #[error(
        "an idempotency record leads to the transaction {0}, and no command of the payment was accepted under its key"
    )]
    IdempotencyRecordWithoutEntry(TransactionId),
    /// Records lead to what has no entry that accepted a command.
    #[error(
        "idempotency records lead to this payment, and no entry says that a command of it was accepted"
    )]
    IdempotencyRecordsOfNothing,
    /// There are more records of these payments than entries can be about.
    #[error(
        "from this payment on, there are more idempotency records than entries can be about: some are not compared"
    )]
    TooManyIdempotencyRecords,
    /// A case for a person was opened, and is not there.
    #[error("an operator action about the transaction {0} was opened, and has no row")]
    OperatorActionMissing(TransactionId),
    /// A case for a person is not what the entries say.
    #[error("{column} of the operator action should be {expected}, and is {found}")]
    OperatorActionDiffers {
        /// Which column.
        column: &'static str,
        /// What the entries say.
        expected: Shown,
        /// As stored.
        found: Shown,
    },
    /// A case for a person is there that no entry opened.
    #[error("there is an operator action {0} that no entry opened")]
    OperatorActionWithoutEntry(EntryId),
    /// A customer is there whose key was destroyed: somebody put it back.
    #[error("the customer {0} was erased, and is stored again")]
    ErasedCustomerStored(CustomerId),
    /// An erasure was done, and is not there.
    #[error("the erasure {0} was done, and has no row")]
    ErasureMissing(ErasureId),
    /// An erasure is closed that was not done: somebody cancelled it, or made it up.
    #[error("the erasure {0} is closed, and no entry says that it was done")]
    ErasureWithoutEntry(ErasureId),
    /// What the log says of an erasure is under a key that we do not have: whether it was done is not known here.
    #[error(
        "an entry about the erasure {erasure} is under the key {key}, which is not in secrets.keys: whether it was done is not known"
    )]
    ErasureKeyUnknown {
        /// Which erasure.
        erasure: ErasureId,
        /// The key's id, as stored.
        key: Shown,
    },
    /// A column of an erasure is not what its entry says.
    #[error("{column} of the erasure {erasure} should be {expected}, and is {found}")]
    ErasureDiffers {
        /// Which erasure.
        erasure: ErasureId,
        /// Which column.
        column: &'static str,
        /// What the entry says.
        expected: Shown,
        /// As stored.
        found: Shown,
    },
}

/// What is wrong with a stored answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ResponseProblem {
    /// It is not there.
    #[error("is not stored any more")]
    Gone,
    /// It does not open under its key.
    #[error("cannot be read")]
    Unreadable,
    /// Its digest is another.
    #[error("is not the one whose digest the entry holds")]
    Differs,
}

impl RowFault {
    /// A stable name.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AttemptMissing { .. } => "ATTEMPT_MISSING",
            Self::AttemptDiffers { .. } => "ATTEMPT_DIFFERS",
            Self::Response { .. } => "ATTEMPT_RESPONSE_DIFFERS",
            Self::AttemptWithoutEntry { .. } | Self::AttemptsOfNothing => "ATTEMPT_WITHOUT_ENTRY",
            Self::TooManyAttempts => "TOO_MANY_ATTEMPTS",
            Self::IdempotencyRecordMissing => "IDEMPOTENCY_RECORD_MISSING",
            Self::IdempotencyRecordDiffers { .. } => "IDEMPOTENCY_RECORD_DIFFERS",
            Self::IdempotencyRecordWithoutEntry(_) | Self::IdempotencyRecordsOfNothing => {
                "IDEMPOTENCY_RECORD_WITHOUT_ENTRY"
            }
            Self::TooManyIdempotencyRecords => "TOO_MANY_IDEMPOTENCY_RECORDS",
            Self::OperatorActionMissing(_) => "OPERATOR_ACTION_MISSING",
            Self::OperatorActionDiffers { .. } => "OPERATOR_ACTION_DIFFERS",
            Self::OperatorActionWithoutEntry(_) => "OPERATOR_ACTION_WITHOUT_ENTRY",
            Self::ErasedCustomerStored(_) => "ERASED_CUSTOMER_STORED",
            Self::ErasureMissing(_) => "ERASURE_MISSING",
            Self::ErasureWithoutEntry(_) => "ERASURE_WITHOUT_ENTRY",
            Self::ErasureKeyUnknown { .. } => "ERASURE_KEY_UNKNOWN",
            Self::ErasureDiffers { .. } => "ERASURE_DIFFERS",
        }
    }
}
