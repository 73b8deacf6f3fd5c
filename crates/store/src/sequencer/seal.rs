//! What the sequencer refused, in a form that nobody else can write.
//!
//! What is refused is not read again: a flood of forged rows would be judged in each pass. But whoever may insert into
//! `refused_entries` could name a genuine entry there. So a refusal counts only with its seal, SHA-256 over a secret and the
//! row. The secret is drawn anew for each term and lies in no table; the database is given it with the question, since
//! it has to compare. Whatever lacks the seal, or has that of an earlier term, is judged again by its MAC.

use std::fmt;

use rand::RngCore as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::statements::Arrived;

/// Bytes of the secret.
const SECRET_BYTES: usize = 32;

/// The same seal in SQL, of the journal's row `j`, behind the secret: of its bytes as they are read, cut. Every part has a fixed
/// length.
pub(super) const SEALED_PARTS: &str = " || int8send(j.arrival) || uuid_send(j.entry_id) || uuid_send(j.stream_id) \
     || int8send(j.entity_seq) || sha256(substr(j.leaf, 1, 65536)) || sha256(substr(j.mac, 1, 33))";

/// The secret of one term.
#[derive(Clone)]
pub(super) struct Sealing(Zeroizing<Vec<u8>>);

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealing(..)")
    }
}

impl Sealing {
    /// Draws one.
    pub(super) fn draw() -> Self {
        let mut secret = Zeroizing::new(vec![0; SECRET_BYTES]);
        rand::rng().fill_bytes(&mut secret);
        Self(secret)
    }

    /// What the database compares with.
    pub(super) fn secret(&self) -> &Vec<u8> {
        &self.0
    }

    /// The seal of a row that is refused.
    pub(super) fn seal(&self, row: &Arrived) -> Vec<u8> {
        let mut seal = Sha256::new();
        seal.update(self.0.as_slice());
        seal.update(row.arrival.to_be_bytes());
        seal.update(row.entry_id);
        seal.update(row.stream_id);
        seal.update(row.entity_seq.to_be_bytes());
        seal.update(Sha256::digest(&row.leaf));
        seal.update(Sha256::digest(&row.mac));
        seal.finalize().to_vec()
    }
}
