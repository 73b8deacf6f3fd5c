//! The heads of the tree, one after the other.

use quittance_evidence::Hash;

use super::links::{Gap, Links};
use super::mismatch::Shown;
use super::stored_tree::{HeadMac, HeadRow};
use super::tree::Report;
use super::tree_fault::TreeFault;

/// Where so many heads in a row are not of the tree, those behind are not told one by one: after an entry that was
/// changed, all are not.
const MAX_IN_A_ROW: u32 = 64;

/// Compares heads with the tree, and follows them from one to the next: each names the one that it was grown from.
#[derive(Debug, Default)]
pub(super) struct HeadWalk {
    differ_in_a_row: u32,
    macs_in_a_row: u32,
    /// Entries of the last one that this service did not make, which is told as such.
    last_forged: Option<i64>,
    /// Those that it made.
    links: Links,
}

impl HeadWalk {
    /// Takes the next head, by size, and the root that it should have.
    pub(super) fn push(&mut self, row: &HeadRow, expected: Hash, report: &mut Report<'_>) {
        self.root(row, expected, report);
        self.mac(row, report);
        if row.mac == HeadMac::Ours {
            self.follows(row);
        } else {
            self.last_forged = Some(row.size);
        }
    }

    fn root(&mut self, row: &HeadRow, expected: Hash, report: &mut Report<'_>) {
        if row.root == expected.as_bytes() {
            self.differ_in_a_row = 0;
            return;
        }
        self.differ_in_a_row = self.differ_in_a_row.saturating_add(1);
        if self.differ_in_a_row <= MAX_IN_A_ROW {
            report.add(TreeFault::HeadDiffers {
                size: row.size,
                expected,
                found: Shown::of(&hex::encode(&row.root)),
            });
        }
    }

    fn mac(&mut self, row: &HeadRow, report: &mut Report<'_>) {
        let size = row.size;
        let fault = match &row.mac {
            HeadMac::Ours => {
                self.macs_in_a_row = 0;
                return;
            }
            HeadMac::Wrong => TreeFault::HeadMacWrong { size },
            HeadMac::KeyUnknown(key) => TreeFault::HeadKeyUnknown {
                size,
                key: Shown::of(key),
            },
        };
        self.macs_in_a_row = self.macs_in_a_row.saturating_add(1);
        if self.macs_in_a_row <= MAX_IN_A_ROW {
            report.add(fault);
        }
    }

    /// Whether the head that this one was grown from is there.
    fn follows(&mut self, row: &HeadRow) {
        let Ok(size) = u64::try_from(row.size) else {
            return;
        };
        let before = row.previous.filter(|_| row.previous != self.last_forged);
        let before = before.and_then(|size| u64::try_from(size).ok());
        self.links.push(size, before);
    }

    /// Entries of heads that were not seen. One may have been stored behind the page that it belongs to.
    pub(super) fn missing(&self) -> Vec<u64> {
        self.links.missing()
    }

    /// Takes the sizes of heads that are stored after all.
    pub(super) fn stored(&mut self, sizes: &[u64]) {
        self.links.stored(sizes);
    }

    /// The end of the log.
    pub(super) fn finish(&self, report: &mut Report<'_>) {
        for Gap { size, after } in self.links.gaps() {
            report.add(TreeFault::HeadMissing { size, after });
        }
    }
}
