//! The key ring: secrets that the database never sees, and the subkeys derived from them.

mod facts;

use std::fmt;

use chrono::{DateTime, Utc};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use quittance_evidence::{MacKey, MacKeyId};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use zeroize::Zeroizing;

pub use facts::{CheckpointFacts, CosignatureFacts, TreeHeadFacts};

/// Size of a key of the ring, and of every subkey, in bytes.
pub const KEY_BYTES: usize = 32;
/// Most keys of a ring.
pub const MAX_KEYS: usize = 16;

/// What a subkey is for. Each purpose has its own, so that no two uses share a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Encryption of columns.
    Columns,
    /// MAC of journal entries.
    Journal,
    /// Fingerprints of requests.
    Fingerprint,
    /// MAC of API keys' secrets.
    ApiKey,
    /// MAC of what is stored of API keys.
    ApiKeyRow,
    /// Page and resume tokens.
    PageToken,
    /// MAC of customer references.
    CustomerReference,
    /// MAC of the Merkle tree's heads.
    TreeHead,
    /// MAC of checkpoints as they are stored.
    Checkpoint,
    /// MAC of cosignatures as they are stored.
    Cosignature,
}

impl Purpose {
    /// HKDF's `info`. Never change one: what it protects could not be read any more.
    const fn info(self) -> &'static [u8] {
        match self {
            Self::Columns => b"quittance columns v1",
            Self::Journal => b"quittance journal-mac v1",
            Self::Fingerprint => b"quittance fingerprint v1",
            Self::ApiKey => b"quittance api-key v1",
            Self::ApiKeyRow => b"quittance api-key-row-mac v1",
            Self::PageToken => b"quittance page-token v1",
            Self::CustomerReference => b"quittance customer-reference v1",
            Self::TreeHead => b"quittance tree-head-mac v1",
            Self::Checkpoint => b"quittance checkpoint-mac v1",
            Self::Cosignature => b"quittance cosignature-mac v1",
        }
    }
}

/// Why a key ring was refused. Names ids, never secrets.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyRingError {
    /// There is no key.
    #[error("the key ring is empty")]
    Empty,
    /// There are more than [`MAX_KEYS`].
    #[error("the key ring holds more than {MAX_KEYS} keys")]
    TooMany,
    /// An id is not 1 to 64 of `A-Z a-z 0-9 . _ -`.
    #[error("a key id is 1 to 64 of A-Z a-z 0-9 . _ -")]
    Id,
    /// Two keys have the same id.
    #[error("two keys have the id {0}")]
    DuplicateId(String),
}

/// What is believed of an API key's row.
#[derive(Debug, Clone, Copy)]
pub struct ApiKeyFacts<'a> {
    /// Its public part.
    pub key_id: &'a str,
    /// For which tenant it calls.
    pub tenant: &'a str,
    /// The caller's name.
    pub name: &'a str,
    /// What it may do: names of roles, which hold no blanks, with a blank between two.
    pub roles: &'a str,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// MAC of its secret part.
    pub secret_mac: &'a [u8],
}

/// One key and its subkeys.
#[derive(Clone)]
struct RingKey {
    id: String,
    columns: Zeroizing<[u8; KEY_BYTES]>,
    journal: MacKey,
    fingerprint: Zeroizing<[u8; KEY_BYTES]>,
    api_key: Zeroizing<[u8; KEY_BYTES]>,
    api_key_row: Zeroizing<[u8; KEY_BYTES]>,
    page_token: Zeroizing<[u8; KEY_BYTES]>,
    customer_reference: Zeroizing<[u8; KEY_BYTES]>,
    tree_head: Zeroizing<[u8; KEY_BYTES]>,
    checkpoint: Zeroizing<[u8; KEY_BYTES]>,
    cosignature: Zeroizing<[u8; KEY_BYTES]>,
}

impl RingKey {
    fn derive(id: String, secret: &[u8; KEY_BYTES]) -> Result<Self, KeyRingError> {
        let subkey = |purpose| subkey(secret, purpose);
        let mac_id = MacKeyId::new(id.as_str()).map_err(|_| KeyRingError::Id)?;
        Ok(Self {
            columns: subkey(Purpose::Columns),
            journal: MacKey::new(mac_id, *subkey(Purpose::Journal)),
            fingerprint: subkey(Purpose::Fingerprint),
            api_key: subkey(Purpose::ApiKey),
            api_key_row: subkey(Purpose::ApiKeyRow),
            page_token: subkey(Purpose::PageToken),
            customer_reference: subkey(Purpose::CustomerReference),
            tree_head: subkey(Purpose::TreeHead),
            checkpoint: subkey(Purpose::Checkpoint),
            cosignature: subkey(Purpose::Cosignature),
            id,
        })
    }
}

/// HKDF-SHA256 (RFC 5869) without salt: the ring's keys are random already.
fn subkey(secret: &[u8; KEY_BYTES], purpose: Purpose) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut out = Zeroizing::new([0; KEY_BYTES]);
    // Fails only for more than 255 blocks of output; this is one.
    let expanded = Hkdf::<Sha256>::new(None, secret).expand(purpose.info(), out.as_mut());
    debug_assert!(expanded.is_ok());
    out
}

/// HMAC-SHA256. Takes a key of any length, so that it cannot fail.
fn hmac(key: &[u8; KEY_BYTES], parts: &[&[u8]]) -> [u8; 32] {
    let mut block = Zeroizing::new([0_u8; 64]);
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new((&*block).into());
    for part in parts {
        mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// The active key and older ones. What older ones encrypted or signed stays readable.
#[derive(Clone)]
pub struct KeyRing {
    active: RingKey,
    older: Vec<RingKey>,
}

impl KeyRing {
    /// Takes (id, secret) pairs: the active key first, then older ones, newest first; 1 to
    /// [`MAX_KEYS`]. Never take a key out of the configuration while anything was made under it.
    pub fn new(
        keys: impl IntoIterator<Item = (String, [u8; KEY_BYTES])>,
    ) -> Result<Self, KeyRingError> {
        let mut derived: Vec<RingKey> = Vec::new();
        for (id, secret) in keys {
            let secret = Zeroizing::new(secret);
            if derived.len() == MAX_KEYS {
                return Err(KeyRingError::TooMany);
            }
            if derived.iter().any(|known| known.id == id) {
                return Err(KeyRingError::DuplicateId(id));
            }
            derived.push(RingKey::derive(id, &secret)?);
        }
        let mut derived = derived.into_iter();
        let active = derived.next().ok_or(KeyRingError::Empty)?;
        Ok(Self {
            active,
            older: derived.collect(),
        })
    }

    fn all(&self) -> impl Iterator<Item = &RingKey> {
        std::iter::once(&self.active).chain(&self.older)
    }

    fn find(&self, id: &str) -> Option<&RingKey> {
        self.all().find(|key| key.id == id)
    }

    /// The key of request fingerprints (32 secret bytes).
    ///
    /// From the ring's *oldest* key: stored fingerprints name no key, and idempotency keys never
    /// expire, so it must stay the same when another key becomes active.
    pub fn fingerprint_key(&self) -> [u8; KEY_BYTES] {
        *self.older.last().unwrap_or(&self.active).fingerprint
    }

    /// The keys of page and resume tokens (32 secret bytes each): made under the first, read under any.
    pub fn page_token_keys(&self) -> Vec<[u8; KEY_BYTES]> {
        self.all().map(|key| *key.page_token).collect()
    }

    /// The MAC of an API key's secret part, to be stored with the id of the key that made it.
    pub fn api_key_mac(&self, secret: &[u8]) -> ([u8; 32], String) {
        (
            hmac(&self.active.api_key, &[secret]),
            self.active.id.clone(),
        )
    }

    /// Whether `mac`, made under the ring's key `key_id`, is of this secret; in constant time.
    pub fn verify_api_key(&self, secret: &[u8], key_id: &str, mac: &[u8]) -> bool {
        self.find(key_id)
            .is_some_and(|key| bool::from(hmac(&key.api_key, &[secret]).as_slice().ct_eq(mac)))
    }

    /// The MAC of all that is believed of an API key's row, under the ring's key `key_id`; `None` where the ring lacks it.
    ///
    /// Apart from that of the secret, so that a row can be verified by whoever does not have the secret.
    pub fn api_key_row_mac(&self, row: &ApiKeyFacts<'_>, key_id: &str) -> Option<[u8; 32]> {
        let key = self.find(key_id)?;
        let parts: [&[u8]; 6] = [
            row.key_id.as_bytes(),
            row.tenant.as_bytes(),
            row.name.as_bytes(),
            row.roles.as_bytes(),
            &row.created_at.timestamp_micros().to_be_bytes(),
            row.secret_mac,
        ];
        Some(hmac(&key.api_key_row, &parts))
    }

    /// Whether `mac`, made under the ring's key `key_id`, is of this row; in constant time. False where the ring lacks
    /// the key.
    pub fn verify_api_key_row(&self, row: &ApiKeyFacts<'_>, key_id: &str, mac: &[u8]) -> bool {
        let expected = self.api_key_row_mac(row, key_id);
        expected.is_some_and(|expected| bool::from(expected.as_slice().ct_eq(mac)))
    }

    /// The key under which journal entries are authenticated.
    pub fn journal_key(&self) -> &MacKey {
        &self.active.journal
    }

    /// The journal key with this id, where the ring has it.
    pub fn journal_key_by_id(&self, id: &str) -> Option<&MacKey> {
        self.find(id).map(|key| &key.journal)
    }

    /// The MAC of a head of the tree, to be stored with the id of the key that made it.
    pub fn tree_head_mac(&self, head: TreeHeadFacts<'_>) -> ([u8; 32], String) {
        let mac = head.mac(&self.active.tree_head);
        (mac, self.active.id.clone())
    }

    /// Whether `mac`, made under the ring's key `key_id`, is of this head; in constant time. `None` where the ring lacks the key.
    pub fn verify_tree_head(
        &self,
        head: TreeHeadFacts<'_>,
        key_id: &str,
        mac: &[u8],
    ) -> Option<bool> {
        let key = self.find(key_id)?;
        Some(head.mac(&key.tree_head).as_slice().ct_eq(mac).into())
    }

    /// The MAC of a checkpoint's row.
    pub fn checkpoint_mac(&self, row: CheckpointFacts<'_>) -> ([u8; 32], String) {
        let mac = row.mac(&self.active.checkpoint);
        (mac, self.active.id.clone())
    }

    /// Whether `mac`, made under the ring's key `key_id`, is of this row; in constant time. `None` where the ring lacks the key.
    pub fn verify_checkpoint(
        &self,
        row: CheckpointFacts<'_>,
        key_id: &str,
        mac: &[u8],
    ) -> Option<bool> {
        let key = self.find(key_id)?;
        Some(row.mac(&key.checkpoint).as_slice().ct_eq(mac).into())
    }

    /// The MAC of a cosignature's row.
    pub fn cosignature_mac(&self, row: CosignatureFacts<'_>) -> ([u8; 32], String) {
        let mac = row.mac(&self.active.cosignature);
        (mac, self.active.id.clone())
    }

    /// Whether `mac`, made under the ring's key `key_id`, is of this row; in constant time. `None` where the ring lacks the key.
    pub fn verify_cosignature(
        &self,
        row: CosignatureFacts<'_>,
        key_id: &str,
        mac: &[u8],
    ) -> Option<bool> {
        let key = self.find(key_id)?;
        Some(row.mac(&key.cosignature).as_slice().ct_eq(mac).into())
    }

    /// The column key in use.
    pub(crate) fn column_key(&self) -> (&str, &[u8; KEY_BYTES]) {
        (&self.active.id, &self.active.columns)
    }

    /// The column key with this id.
    pub(crate) fn column_key_by_id(&self, id: &str) -> Option<&[u8; KEY_BYTES]> {
        self.find(id).map(|key| &*key.columns)
    }

    /// The MAC of a customer's reference, by which the customer is found.
    ///
    /// From the ring's *oldest* key: while a new key becomes active on one replica after the other, all
    /// must find the same row, or one customer would get two data keys, and be erased by halves.
    pub(crate) fn customer_reference_mac(&self, tenant: &str, reference: &str) -> [u8; 32] {
        let oldest = self.older.last().unwrap_or(&self.active);
        let parts = [tenant.as_bytes(), reference.as_bytes()];
        hmac(&oldest.customer_reference, &parts)
    }

    /// Whether `mac` is that of a tenant's reference of a customer, under any key; in constant time.
    pub(crate) fn verify_customer_reference(
        &self,
        tenant: &str,
        reference: &str,
        mac: &[u8],
    ) -> bool {
        let parts = [tenant.as_bytes(), reference.as_bytes()];
        self.all()
            .any(|key| bool::from(hmac(&key.customer_reference, &parts).as_slice().ct_eq(mac)))
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.all().map(|key| &key.id))
            .finish()
    }
}

#[cfg(test)]
mod tests;
