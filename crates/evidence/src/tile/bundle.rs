//! Entry bundles: up to 256 entries, each behind its length.

use super::TILE_WIDTH;
use crate::leaf::MAX_LEAF_BYTES;

/// Bytes of a length.
const LENGTH_BYTES: usize = 2;

/// The bytes are no entry bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The bytes end within an entry.
    #[error("the entry bundle ends within entry {0}")]
    Cut(usize),
    /// More than 256 entries.
    #[error("an entry bundle has at most {TILE_WIDTH} entries")]
    TooMany,
    /// An entry is longer than its length can say.
    #[error("an entry has at most {MAX_LEAF_BYTES} bytes")]
    TooLong,
}

/// Adds an entry to a bundle: its length in two bytes, big-endian, and its bytes.
///
/// # Errors
/// `TooLong` for stored bytes above [`MAX_LEAF_BYTES`], which no encoded entry has.
pub fn write_entry(bundle: &mut Vec<u8>, leaf_data: &[u8]) -> Result<(), BundleError> {
    let length = u16::try_from(leaf_data.len()).map_err(|_| BundleError::TooLong)?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(leaf_data);
    Ok(())
}

/// The entries of a bundle, one after the other, without copying them. Ends after an error.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    rest: &'a [u8],
    read: usize,
}

impl<'a> Entries<'a> {
    /// Starts at the beginning of a bundle.
    pub const fn new(bundle: &'a [u8]) -> Self {
        Self {
            rest: bundle,
            read: 0,
        }
    }

    fn take(&mut self) -> Result<&'a [u8], BundleError> {
        if self.read == usize::from(TILE_WIDTH) {
            return Err(BundleError::TooMany);
        }
        let cut = BundleError::Cut(self.read);
        let (length, rest) = self.rest.split_first_chunk::<LENGTH_BYTES>().ok_or(cut)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, rest) = rest.split_at_checked(length).ok_or(cut)?;
        self.rest = rest;
        self.read += 1;
        Ok(entry)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<&'a [u8], BundleError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.take();
        if entry.is_err() {
            self.rest = &[];
        }
        Some(entry)
    }
}

// Keeps the limit of an entry and the width of its length together.
const _: () = assert!(MAX_LEAF_BYTES == 0xFFFF);
