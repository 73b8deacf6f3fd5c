//! Following one stream of entries.

use uuid::Uuid;

use crate::{
    hash::{Hash, leaf_hash},
    leaf::{Leaf, LeafError, StreamId},
};

/// Where a verified chain stands: its newest entry.
///
/// A chain that was cut off at the end is still a chain: compare the head with one that is known from
/// elsewhere (a receipt, a signed statement) to see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainHead {
    /// The stream.
    pub stream_id: StreamId,
    /// The tenant of all its entries.
    pub tenant_id: String,
    /// Number of the newest entry, which is also how many there are.
    pub entity_seq: u64,
    /// Id of the newest entry.
    pub entry_id: Uuid,
    /// Leaf hash of the newest entry.
    pub leaf_hash: Hash,
}

/// The first entry that does not belong where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry at place {place} of its stream: {fault}")]
pub struct ChainError {
    /// Where in the stream it stands (from 1), that is, the `entity_seq` it should have.
    pub place: u64,
    /// Its id, where its bytes can be read.
    pub entry_id: Option<Uuid>,
    /// What is wrong with it.
    #[source]
    pub fault: ChainFault,
}

/// What is wrong with an entry of a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// Its bytes are not a canonical entry.
    #[error("unreadable")]
    Unreadable(#[source] LeafError),
    /// It belongs to another stream.
    #[error("belongs to stream {0}")]
    OtherStream(StreamId),
    /// It belongs to another tenant than the stream's first entry.
    #[error("belongs to another tenant")]
    OtherTenant,
    /// An entry is missing, repeated or out of order before it.
    #[error("numbered {0}")]
    WrongNumber(u64),
    /// The entry before it is not the one it was chained to.
    #[error("not chained to the entry before it")]
    WrongLink,
}

/// Checks the entries of one stream in order, in constant memory: numbered 1, 2, 3 … without gaps, each
/// linked to the leaf hash of the one before, all of one stream and tenant.
#[derive(Debug, Clone, Default)]
pub struct ChainCheck {
    head: Option<ChainHead>,
}

impl ChainCheck {
    /// Starts at the beginning of whatever stream the first entry belongs to.
    pub const fn new() -> Self {
        Self { head: None }
    }

    /// Goes on after a head that was verified before.
    pub const fn after(head: ChainHead) -> Self {
        Self { head: Some(head) }
    }

    /// Checks a whole stream from its first entry; gives its head, `None` for no entries.
    pub fn run<I>(entries: I) -> Result<Option<ChainHead>, ChainError>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        let mut check = Self::new();
        for bytes in entries {
            check.push(bytes.as_ref())?;
        }
        Ok(check.head)
    }

    /// Checks the next entry and gives it back decoded. After an error the check stands where it stood.
    pub fn push(&mut self, leaf_data: &[u8]) -> Result<Leaf, ChainError> {
        let place = self
            .head
            .as_ref()
            .map_or(1, |head| head.entity_seq.saturating_add(1));
        let leaf = Leaf::decode(leaf_data).map_err(|error| ChainError {
            place,
            entry_id: None,
            fault: ChainFault::Unreadable(error),
        })?;
        if let Some(fault) = self.fault(place, &leaf) {
            return Err(ChainError {
                place,
                entry_id: Some(leaf.entry_id),
                fault,
            });
        }
        self.head = Some(ChainHead {
            stream_id: leaf.stream_id.clone(),
            tenant_id: leaf.tenant_id.clone(),
            entity_seq: leaf.entity_seq,
            entry_id: leaf.entry_id,
            leaf_hash: leaf_hash(leaf_data),
        });
        Ok(leaf)
    }

    /// The newest entry that passed.
    pub const fn head(&self) -> Option<&ChainHead> {
        self.head.as_ref()
    }

    fn fault(&self, place: u64, leaf: &Leaf) -> Option<ChainFault> {
        let head = self.head.as_ref();
        if head.is_some_and(|head| head.stream_id != leaf.stream_id) {
            Some(ChainFault::OtherStream(leaf.stream_id.clone()))
        } else if head.is_some_and(|head| head.tenant_id != leaf.tenant_id) {
            Some(ChainFault::OtherTenant)
        } else if leaf.entity_seq != place {
            Some(ChainFault::WrongNumber(leaf.entity_seq))
        } else if leaf.prev_leaf_hash != head.map(|head| head.leaf_hash) {
            Some(ChainFault::WrongLink)
        } else {
            None
        }
    }
}
