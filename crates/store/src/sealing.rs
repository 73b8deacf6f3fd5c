//! Encryption of columns: XChaCha20-Poly1305, under a key of the ring or a customer's data key.
//!
//! A sealed value is: a version byte (1), the length of the key's id (one byte), the id, a nonce of 24
//! random bytes, the ciphertext with its tag. Table, column and row id are its associated data, so
//! that a value moved to another place does not open. A customer's data key has the id
//! `c:<customer id>`; ids of the ring hold no colon.

use std::fmt;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use quittance_domain::ports::StoreError;
use rand::RngCore as _;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::keys::{KEY_BYTES, KeyRing};

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;
/// How the id of a customer's key begins.
const CUSTOMER_ID_PREFIX: &str = "c:";

/// Where a value is stored: what it is bound to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) table: &'static str,
    pub(crate) column: &'static str,
    pub(crate) row: Uuid,
}

impl Place {
    pub(crate) const fn new(table: &'static str, column: &'static str, row: Uuid) -> Self {
        Self { table, column, row }
    }

    fn associated_data(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.table.len() + self.column.len() + 18);
        // Names hold no NUL, so the parts cannot be confused.
        bytes.extend_from_slice(self.table.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(self.column.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(self.row.as_bytes());
        bytes
    }

    fn corrupt(&self) -> StoreError {
        StoreError::Corrupt(format!("{}.{}", self.table, self.column))
    }
}

/// A customer's own key: destroying its row makes everything sealed under it unreadable.
#[derive(Clone)]
pub(crate) struct CustomerKey {
    /// The customer's row.
    pub(crate) customer: Uuid,
    /// The data key.
    pub(crate) secret: Zeroizing<[u8; KEY_BYTES]>,
}

impl CustomerKey {
    /// Makes a new random key.
    pub(crate) fn random(customer: Uuid) -> Self {
        let mut secret = Zeroizing::new([0; KEY_BYTES]);
        rand::rng().fill_bytes(secret.as_mut());
        Self { customer, secret }
    }

    fn place(customer: Uuid) -> Place {
        Place::new("customers", "data_key", customer)
    }

    /// Encrypts the key itself, for its row.
    pub(crate) fn wrap(&self, ring: &KeyRing) -> Result<Vec<u8>, StoreError> {
        seal(ring, None, Self::place(self.customer), self.secret.as_ref())
    }

    /// Decrypts the key of a row.
    pub(crate) fn unwrap(
        ring: &KeyRing,
        customer: Uuid,
        sealed: &[u8],
    ) -> Result<Self, StoreError> {
        let place = Self::place(customer);
        let bytes = open(ring, None, place, sealed)?;
        let secret = bytes.as_slice().try_into().map_err(|_| place.corrupt())?;
        Ok(Self {
            customer,
            secret: Zeroizing::new(secret),
        })
    }

    fn id(&self) -> String {
        key_id(self.customer)
    }
}

fn key_id(customer: Uuid) -> String {
    format!("{CUSTOMER_ID_PREFIX}{}", customer.simple())
}

impl fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomerKey")
            .field("customer", &self.customer)
            .finish_non_exhaustive()
    }
}

/// Encrypts a value for its place: under the customer's key where there is one, else under the ring's.
pub(crate) fn seal(
    ring: &KeyRing,
    customer: Option<&CustomerKey>,
    place: Place,
    plain: &[u8],
) -> Result<Vec<u8>, StoreError> {
    let customer_id = customer.map(CustomerKey::id);
    let (id, key) = match (customer, &customer_id) {
        (Some(customer), Some(id)) => (id.as_str(), &*customer.secret),
        _ => ring.column_key(),
    };
    let mut nonce = [0; NONCE_BYTES];
    rand::rng().fill_bytes(&mut nonce);
    let payload = Payload {
        msg: plain,
        aad: &place.associated_data(),
    };
    let cipher = XChaCha20Poly1305::new(key.into());
    // Fails only for messages of hundreds of gigabytes.
    let sealed = cipher.encrypt(XNonce::from_slice(&nonce), payload);
    let sealed = sealed.map_err(|_| place.corrupt())?;
    let mut out = Vec::with_capacity(2 + id.len() + NONCE_BYTES + sealed.len());
    out.push(VERSION);
    // Ids are at most 64 bytes.
    out.push(u8::try_from(id.len()).map_err(|_| place.corrupt())?);
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&sealed);
    Ok(out)
}

/// Decrypts a value of this place. `Corrupt` where it was not sealed for it, or its key is not there.
pub(crate) fn open(
    ring: &KeyRing,
    customer: Option<&CustomerKey>,
    place: Place,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let (id, nonce, ciphertext) = split(sealed).ok_or_else(|| place.corrupt())?;
    let key = match customer {
        Some(customer) if customer.id() == id => Some(&*customer.secret),
        _ => ring.column_key_by_id(id),
    };
    let cipher = XChaCha20Poly1305::new(key.ok_or_else(|| place.corrupt())?.into());
    let payload = Payload {
        msg: ciphertext,
        aad: &place.associated_data(),
    };
    let plain = cipher
        .decrypt(XNonce::from_slice(nonce), payload)
        .map_err(|_| place.corrupt())?;
    Ok(Zeroizing::new(plain))
}

/// Decrypts a value of this place; `None` where it was a customer's, and the customer was erased.
pub(crate) fn open_unless_erased(
    ring: &KeyRing,
    customer: Option<&CustomerKey>,
    place: Place,
    sealed: &[u8],
) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    let (id, ..) = split(sealed).ok_or_else(|| place.corrupt())?;
    if customer.is_none() && id.starts_with(CUSTOMER_ID_PREFIX) {
        return Ok(None);
    }
    open(ring, customer, place, sealed).map(Some)
}

/// Whether a value says that it is sealed under this customer's key.
pub(crate) fn is_sealed_for(customer: Uuid, sealed: &[u8]) -> bool {
    split(sealed).is_some_and(|(id, ..)| id == key_id(customer))
}

/// Key id, nonce and ciphertext.
fn split(sealed: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let (version, rest) = sealed.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (id, rest) = rest.split_at_checked(usize::from(*length))?;
    let (nonce, ciphertext) = rest.split_at_checked(NONCE_BYTES)?;
    (*version == VERSION).then_some((std::str::from_utf8(id).ok()?, nonce, ciphertext))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(ids: &[(&str, u8)]) -> KeyRing {
        KeyRing::new(ids.iter().map(|(id, byte)| ((*id).to_owned(), [*byte; 32]))).unwrap()
    }

    const ROW: Uuid = Uuid::from_u128(1);
    const PLACE: Place = Place::new("payments", "provider_token", ROW);

    #[test]
    fn a_value_opens_only_in_its_place() {
        let ring = ring(&[("a", 1)]);
        let sealed = seal(&ring, None, PLACE, b"tok_approve").unwrap();
        assert_eq!(
            open(&ring, None, PLACE, &sealed).unwrap().as_slice(),
            b"tok_approve"
        );
        for place in [
            Place::new("payments", "provider_token", Uuid::from_u128(2)),
            Place::new("payments", "next_action", ROW),
            Place::new("transactions", "provider_token", ROW),
        ] {
            assert!(open(&ring, None, place, &sealed).is_err(), "{place:?}");
        }
    }

    #[test]
    fn older_keys_still_open_and_missing_ones_do_not() {
        let sealed = seal(&ring(&[("a", 1)]), None, PLACE, b"x").unwrap();
        assert!(open(&ring(&[("b", 2), ("a", 1)]), None, PLACE, &sealed).is_ok());
        assert!(open(&ring(&[("b", 2)]), None, PLACE, &sealed).is_err());
        assert!(open(&ring(&[("a", 2)]), None, PLACE, &sealed).is_err());
    }

    #[test]
    fn what_is_sealed_for_a_customer_needs_the_customers_key() {
        let ring = ring(&[("a", 1)]);
        let customer = CustomerKey::random(Uuid::from_u128(9));
        let sealed = seal(&ring, Some(&customer), PLACE, b"Ada").unwrap();
        assert!(open(&ring, None, PLACE, &sealed).is_err());
        let row = customer.wrap(&ring).unwrap();
        let again = CustomerKey::unwrap(&ring, customer.customer, &row).unwrap();
        assert_eq!(
            open(&ring, Some(&again), PLACE, &sealed)
                .unwrap()
                .as_slice(),
            b"Ada"
        );
        assert!(CustomerKey::unwrap(&ring, Uuid::from_u128(8), &row).is_err());
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_noticed(plain: Vec<u8>, at: usize, bit in 0..8_u32) {
            let ring = ring(&[("a", 1)]);
            let mut sealed = seal(&ring, None, PLACE, &plain).unwrap();
            let at = at % sealed.len();
            sealed[at] ^= 1 << bit;
            prop_assert!(open(&ring, None, PLACE, &sealed).is_err());
        }

        #[test]
        fn opening_anything_never_panics(bytes: Vec<u8>) {
            prop_assert!(open(&ring(&[("a", 1)]), None, PLACE, &bytes).is_err());
        }
    }
}
