//! What tells one entry from all others, read without decoding all of it.

use serde::Deserialize;
use uuid::Uuid;

use super::{LeafError, StreamId, decode};

/// Which entry some bytes are.
///
/// Of bytes that are known to be authentic only (their MAC was verified): [`Leaf::decode`] is what checks bytes
/// from elsewhere. It takes a tenth of the time.
///
/// [`Leaf::decode`]: super::Leaf::decode
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LeafIdentity {
    /// The entry's id.
    pub entry_id: Uuid,
    /// Tenant whose entry it is.
    pub tenant_id: String,
    /// The stream in which it is numbered.
    pub stream_id: StreamId,
    /// Its number there.
    #[serde(deserialize_with = "decode::decimal")]
    pub entity_seq: u64,
}

impl LeafIdentity {
    /// Reads the identity of authentic bytes.
    ///
    /// # Errors
    /// `Malformed`: the bytes are not an entry's.
    pub fn read(authentic: &[u8]) -> Result<Self, LeafError> {
        serde_json::from_slice(authentic).map_err(|error| LeafError::Malformed {
            line: error.line(),
            column: error.column(),
        })
    }
}
