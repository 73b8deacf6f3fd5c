//! Why an entry cannot be written or read.

/// Why an entry cannot be encoded, or why bytes are not an entry. Quotes no content of the entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// More than [`MAX_LEAF_BYTES`](super::MAX_LEAF_BYTES).
    #[error(
        "an entry of {size} bytes is over the limit; its largest field is {largest_field} ({largest_bytes} bytes)"
    )]
    TooLarge {
        /// Size of the whole entry, in bytes.
        size: usize,
        /// The top-level field that takes the most; `leaf_data` where the bytes were not parsed.
        largest_field: &'static str,
        /// Bytes that it takes, its key included.
        largest_bytes: usize,
    },
    /// Written under another schema than this build reads.
    #[error("entry schema version {0} is not known")]
    UnknownVersion(u64),
    /// A field that every entry must fill is empty.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A name in the given field is not 1 to 64 of `a-z 0-9 _ . -`, starting with a letter.
    #[error("a name in {0} is not 1 to 64 of a-z 0-9 _ . - starting with a letter")]
    InvalidName(&'static str),
    /// A time outside the years 0000 to 9999, which RFC 3339 cannot write.
    #[error("{0} is outside the years 0000 to 9999")]
    TimeOutOfRange(&'static str),
    /// `entity_seq` is 0; or is 1 with, or above 1 without, a `prev_leaf_hash`.
    #[error("entity_seq counts from 1, and exactly the first entry has no prev_leaf_hash")]
    ChainStart,
    /// An entry of a payment's stream names another payment, or none.
    #[error("an entry of a payment's stream must carry that payment's id")]
    StreamOfOtherPayment,
    /// An amount without `currency` and `currency_exponent` means nothing.
    #[error("an amount needs a currency and its exponent")]
    AmountWithoutCurrency,
    /// Not JSON, or not the fields and types of an entry.
    #[error("not an entry: refused at line {line}, column {column}")]
    Malformed {
        /// Line, from 1 (canonical bytes have one).
        line: usize,
        /// Byte within the line, from 1.
        column: usize,
    },
    /// An entry, but not written in the one canonical way.
    #[error("the entry is not canonical from byte {offset} on")]
    NotCanonical {
        /// First byte that differs from the canonical form, from 0.
        offset: usize,
    },
}
