//! What verification can find wrong.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use quittance_evidence::{Hash, LeafError, StreamId, clean_text};
use thiserror::Error;

use super::api_keys::ApiKeyFault;
use super::row_fault::RowFault;
use super::tree_fault::TreeFault;
use crate::ids::{EntryId, PaymentId, TransactionId};
use crate::named::named_enum;

/// Most characters of a stored value that a mismatch quotes.
const MAX_QUOTED: usize = 64;

named_enum! {
    /// A step of verification.
    pub enum Stage {
        /// Each entry's bytes against its hash, its columns and its MAC.
        Leaves = "LEAVES",
        /// The tree, its tiles and its checkpoints against the leaves.
        Tree = "TREE",
        /// Each stream's numbers and chain, and the positions of its entries.
        Chains = "CHAINS",
        /// The payments, and other rows that the log speaks of, against a replay of the log.
        Payments = "PAYMENTS",
    }
}

/// A stored value as a mismatch shows it: cleaned, and cut where it is long.
///
/// No column that is compared holds personal data; but whoever tampered may have written anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    pub(super) fn of(value: &(impl fmt::Display + ?Sized)) -> Self {
        let text = value.to_string();
        let mut shown: String = clean_text(&text).chars().take(MAX_QUOTED).collect();
        if shown.chars().count() < text.chars().count() {
            shown.push('…');
        }
        Self(format!("\"{shown}\""))
    }

    pub(super) fn of_option(value: Option<&(impl fmt::Display + ?Sized)>) -> Self {
        value.map_or_else(|| Self("nothing".to_owned()), Self::of)
    }

    pub(super) fn of_time(value: DateTime<Utc>) -> Self {
        Self::of(&value.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong. Its text says what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// The bytes are not an entry in its canonical form.
    #[error("the bytes are not an entry: {0}")]
    LeafUnreadable(LeafError),
    /// `leaf_hash` is not the hash of the bytes.
    #[error("the bytes hash to {computed}, and leaf_hash is {stored}")]
    LeafHashDiffers {
        /// Of the bytes.
        computed: Hash,
        /// As stored, in hexadecimal.
        stored: String,
    },
    /// The MAC names a key that we do not have.
    #[error("the MAC is under the key {0}, which is not in the key ring")]
    MacKeyUnknown(Shown),
    /// The MAC is not of these bytes: they were written past the service.
    #[error("the MAC is not of these bytes: they were not written by the service")]
    MacWrong,
    /// An index column is not what the bytes say.
    #[error("the column {column} should be {expected}, and is {found}")]
    ColumnDiffers {
        /// Its name.
        column: &'static str,
        /// What the bytes say.
        expected: Shown,
        /// As stored.
        found: Shown,
    },
    /// Entries are missing before this one, or it is out of its place.
    #[error(
        "entity_seq should be {expected}, and is {found}: entries are missing, repeated or reordered"
    )]
    SequenceGap {
        /// The number that comes next.
        expected: i64,
        /// As stored.
        found: i64,
    },
    /// The entry before it in the stream is not the one that it was chained to.
    #[error("prev_leaf_hash should be {expected}, the hash of the entry before, and is {found}")]
    ChainBroken {
        /// Hash of the bytes of the entry before; `nothing` for the first.
        expected: Shown,
        /// What the bytes say.
        found: Shown,
    },
    /// It belongs to another tenant than the stream's first entry.
    #[error("the entry is of another tenant than the stream's first entry")]
    OtherTenant,
    /// The sequencer passed by, and it got no position: it was put in afterwards.
    #[error(
        "the entry has no position, and its arrival {arrival} is below {low}, where all have one"
    )]
    NotSequenced {
        /// Its arrival.
        arrival: i64,
        /// The sequencer's mark.
        low: i64,
    },
    /// The sequencer never looks at its arrival, which the database has not given out: somebody wrote it in.
    #[error(
        "the entry has no position, and its arrival {arrival} is above {given}, the last one given out"
    )]
    ArrivalNotGiven {
        /// Its arrival.
        arrival: i64,
        /// The last one given out.
        given: i64,
    },
    /// The service wrote it, and `refused_entries` has it, so that the sequencer gives it no position: somebody put it there, or
    /// gave the entry another arrival after it had got one.
    #[error(
        "the entry's arrival has no position, since it is taken for refused, though the service wrote it"
    )]
    RefusedThoughGenuine,
    /// The row of its position is about another entry.
    #[error("the position's {column} should be {expected}, and is {found}")]
    PositionDiffers {
        /// Which column of the position.
        column: &'static str,
        /// What the journal says.
        expected: Shown,
        /// As stored.
        found: Shown,
    },
    /// It stands before an earlier entry of its stream.
    #[error(
        "the position should be above {after}, that of the stream's entry before, and is {found}"
    )]
    PositionsReordered {
        /// Position of the entry before.
        after: i64,
        /// Its own.
        found: i64,
    },
    /// Positions are missing or repeated.
    #[error("the next position should be {expected}, and is {found}")]
    PositionGap {
        /// The position that comes next.
        expected: i64,
        /// As stored.
        found: i64,
    },
    /// The sequencer's head does not say how many positions there are.
    #[error("the sequencer's head says {head} positions, and there are {found}")]
    HeadDiffers {
        /// What the head says.
        head: i64,
        /// How many there are.
        found: i64,
    },
    /// A position has no entry any more.
    #[error("the journal lacks the entry, number {entity_seq} of stream {stream}")]
    EntryMissing {
        /// Of which stream it was.
        stream: uuid::Uuid,
        /// Its number there.
        entity_seq: i64,
    },
    /// A payment's entries are there, and the payment is not.
    #[error("the payment has {entries} entries, and no row")]
    PaymentMissing {
        /// How many entries.
        entries: i64,
    },
    /// A payment's row is there, and nothing about it in the log.
    #[error("the payment has a row of version {version}, and no entry")]
    PaymentWithoutEntries {
        /// As the row says.
        version: i64,
    },
    /// The row's version is not the number of its newest entry.
    #[error("the version should be {expected}, that of the newest entry, and is {found}")]
    PaymentVersionDiffers {
        /// `entity_seq` of the newest entry.
        expected: i64,
        /// As the row says.
        found: i64,
    },
    /// The row does not name its newest entry.
    #[error("last_leaf_hash should be {expected}, that of the newest entry, and is {found}")]
    PaymentLastHashDiffers {
        /// Of the newest entry.
        expected: Hash,
        /// As stored, in hexadecimal.
        found: String,
    },
    /// A column of the payment that its newest entry states is another.
    #[error("the payment's {column} should be {expected}, and is {found}")]
    PaymentColumnDiffers {
        /// Which.
        column: &'static str,
        /// What the newest entry says.
        expected: Shown,
        /// As stored.
        found: Shown,
    },
    /// The row is not the one whose digest the newest entry holds.
    #[error("the row's digest should be {expected}, as the newest entry says, and is {found}")]
    PaymentRowDiffers {
        /// What the newest entry says.
        expected: Hash,
        /// Of the row.
        found: Hash,
    },
    /// A value of the row cannot be read, or a sealed one does not open.
    #[error("{0} cannot be read")]
    PaymentUnreadable(String),
    /// An entry is about a transaction that is not there.
    #[error("the transaction {0} has entries, and no row")]
    TransactionMissing(TransactionId),
    /// A transaction is there that no entry is about.
    #[error("the transaction {0} has a row, and no entry")]
    TransactionWithoutEntries(TransactionId),
    /// A column of a transaction is not what the log says.
    #[error("{column} of the transaction {transaction} should be {expected}, and is {found}")]
    TransactionColumnDiffers {
        /// Which transaction.
        transaction: TransactionId,
        /// Which column.
        column: &'static str,
        /// What the newest entry about it says.
        expected: Shown,
        /// As stored.
        found: Shown,
    },
    /// The tree, or what is signed about it, is not that of the entries.
    #[error(transparent)]
    Tree(#[from] TreeFault),
    /// The row of an API key is not what the log says.
    #[error(transparent)]
    ApiKey(#[from] ApiKeyFault),
    /// An attempt, an idempotency record, an operator action or an erasure is not what the log says.
    #[error(transparent)]
    Row(#[from] RowFault),
    /// Transactions were put in, so many that they are not all read.
    #[error(
        "from this payment on, there are more transactions than entries can be about: some are not compared"
    )]
    TooManyTransactions,
    /// The row is not the one whose digest the newest entry about it holds.
    #[error(
        "the row's digest of the transaction {transaction} should be {expected}, and is {found}"
    )]
    TransactionRowDiffers {
        /// Which transaction.
        transaction: TransactionId,
        /// What the newest entry about it says.
        expected: Hash,
        /// Of the row.
        found: Hash,
    },
    /// An entry says something else than follows from the entries before it and from what happened.
    #[error(
        "by the entries before it, {field} should be {expected}, and the entry says {found}: it was made of a row that was changed without an entry"
    )]
    ReplayDiffers {
        /// Which field of the entry.
        field: &'static str,
        /// What follows.
        expected: Shown,
        /// What the entry says.
        found: Shown,
    },
    /// The rows that a change was decided upon are not those that the entries before it had left.
    #[error(
        "the digest of the rows that the change found should be {expected}, as the entries before left them, and is {found}: a row was changed without an entry"
    )]
    RowsChangedBefore {
        /// As the entries before left them.
        expected: Hash,
        /// As the entry says.
        found: Hash,
    },
    /// The bytes belong to another stream than the row.
    #[error("the bytes are an entry of the stream {0}")]
    OtherStream(StreamId),
}

impl Fault {
    /// A stable name.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::LeafUnreadable(_) => "LEAF_UNREADABLE",
            Self::LeafHashDiffers { .. } => "LEAF_HASH_DIFFERS",
            Self::MacKeyUnknown(_) => "MAC_KEY_UNKNOWN",
            Self::MacWrong => "MAC_WRONG",
            Self::ColumnDiffers { .. } => "COLUMN_DIFFERS",
            Self::OtherStream(_) => "OTHER_STREAM",
            Self::Tree(fault) => fault.code(),
            Self::ApiKey(fault) => fault.code(),
            Self::Row(fault) => fault.code(),
            Self::SequenceGap { .. } => "SEQUENCE_GAP",
            Self::ChainBroken { .. } => "CHAIN_BROKEN",
            Self::OtherTenant => "OTHER_TENANT",
            Self::NotSequenced { .. } => "NOT_SEQUENCED",
            Self::ArrivalNotGiven { .. } => "ARRIVAL_NOT_GIVEN",
            Self::RefusedThoughGenuine => "REFUSED_THOUGH_GENUINE",
            Self::PositionDiffers { .. } => "POSITION_DIFFERS",
            Self::PositionsReordered { .. } => "POSITIONS_REORDERED",
            Self::PositionGap { .. } => "POSITION_GAP",
            Self::HeadDiffers { .. } => "HEAD_DIFFERS",
            Self::EntryMissing { .. } => "ENTRY_MISSING",
            Self::PaymentMissing { .. } => "PAYMENT_MISSING",
            Self::PaymentWithoutEntries { .. } => "PAYMENT_WITHOUT_ENTRIES",
            Self::PaymentVersionDiffers { .. } => "PAYMENT_VERSION_DIFFERS",
            Self::PaymentLastHashDiffers { .. } => "PAYMENT_LAST_HASH_DIFFERS",
            Self::PaymentColumnDiffers { .. } => "PAYMENT_COLUMN_DIFFERS",
            Self::PaymentRowDiffers { .. } => "PAYMENT_ROW_DIFFERS",
            Self::PaymentUnreadable(_) => "PAYMENT_UNREADABLE",
            Self::TransactionMissing(_) => "TRANSACTION_MISSING",
            Self::TransactionWithoutEntries(_) => "TRANSACTION_WITHOUT_ENTRIES",
            Self::TransactionColumnDiffers { .. } => "TRANSACTION_COLUMN_DIFFERS",
            Self::TooManyTransactions => "TOO_MANY_TRANSACTIONS",
            Self::TransactionRowDiffers { .. } => "TRANSACTION_ROW_DIFFERS",
            Self::ReplayDiffers { .. } => "REPLAY_DIFFERS",
            Self::RowsChangedBefore { .. } => "ROWS_CHANGED_BEFORE",
        }
    }

    /// The step that finds it.
    pub const fn stage(&self) -> Stage {
        match self {
            Self::LeafUnreadable(_)
            | Self::LeafHashDiffers { .. }
            | Self::MacKeyUnknown(_)
            | Self::MacWrong
            | Self::OtherStream(_)
            | Self::ColumnDiffers { .. } => Stage::Leaves,
            Self::Tree(_) => Stage::Tree,
            Self::SequenceGap { .. }
            | Self::ChainBroken { .. }
            | Self::OtherTenant
            | Self::NotSequenced { .. }
            | Self::ArrivalNotGiven { .. }
            | Self::RefusedThoughGenuine
            | Self::PositionDiffers { .. }
            | Self::PositionsReordered { .. }
            | Self::PositionGap { .. }
            | Self::HeadDiffers { .. }
            | Self::EntryMissing { .. } => Stage::Chains,
            Self::ApiKey(_)
            | Self::Row(_)
            | Self::PaymentMissing { .. }
            | Self::PaymentWithoutEntries { .. }
            | Self::PaymentVersionDiffers { .. }
            | Self::PaymentLastHashDiffers { .. }
            | Self::PaymentColumnDiffers { .. }
            | Self::PaymentRowDiffers { .. }
            | Self::PaymentUnreadable(_)
            | Self::TransactionMissing(_)
            | Self::TransactionWithoutEntries(_)
            | Self::TransactionColumnDiffers { .. }
            | Self::TooManyTransactions
            | Self::TransactionRowDiffers { .. }
            | Self::ReplayDiffers { .. }
            | Self::RowsChangedBefore { .. } => Stage::Payments,
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// What.
    pub fault: Fault,
    /// The entry concerned, where it can be told.
    pub entry: Option<EntryId>,
    /// The payment concerned, where it can be told.
    pub payment: Option<PaymentId>,
    /// The position concerned, where it can be told.
    pub position: Option<u64>,
}

impl Mismatch {
    /// What is wrong with a payment, where no entry can be named.
    pub fn of_payment(payment: PaymentId, fault: impl Into<Fault>) -> Self {
        Self {
            fault: fault.into(),
            entry: None,
            payment: Some(payment),
            position: None,
        }
    }
}
