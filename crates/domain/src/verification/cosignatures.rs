//! What is stored of what witnesses said, under their keys.

use quittance_evidence::note::KeyName;
use quittance_evidence::{Checkpoint, Hash};

use super::mismatch::Shown;
use super::stored_tree::CosignatureRow;
use super::tree::Report;
use super::tree_fault::TreeFault;

/// Where so many cosignatures in a row are forged, or of another tree, those behind are not told one by one.
const MAX_IN_A_ROW: u32 = 64;

/// Holds cosignatures to the tree.
#[derive(Debug, Default)]
pub(super) struct CosignatureWalk {
    forged_in_a_row: u32,
    differ_in_a_row: u32,
}

impl CosignatureWalk {
    /// Takes the next cosignature of the log `origin`, by size, and the root that the tree has there.
    pub(super) fn push(
        &mut self,
        row: &CosignatureRow,
        origin: &KeyName,
        expected: Hash,
        report: &mut Report<'_>,
    ) {
        let (size, witness) = (row.size, Shown::of(row.witness.name()));
        let Some(found) = cosigned(row, origin) else {
            self.forged_in_a_row = self.forged_in_a_row.saturating_add(1);
            if self.forged_in_a_row <= MAX_IN_A_ROW {
                report.add(TreeFault::CosignatureForged { size, witness });
            }
            return;
        };
        self.forged_in_a_row = 0;
        if found == expected {
            self.differ_in_a_row = 0;
            return;
        }
        self.differ_in_a_row = self.differ_in_a_row.saturating_add(1);
        if self.differ_in_a_row <= MAX_IN_A_ROW {
            report.add(TreeFault::CosignatureDiffers {
                size,
                witness,
                expected,
                found,
            });
        }
    }
}

/// The root that the witness cosigned; `None` where it did not.
fn cosigned(row: &CosignatureRow, origin: &KeyName) -> Option<Hash> {
    let root = Hash::from_bytes(row.root.as_slice().try_into().ok()?);
    let checkpoint = Checkpoint {
        origin: origin.clone(),
        size: row.size.try_into().ok()?,
        root,
    };
    checkpoint
        .cosigned_by(&row.witness, &row.line)
        .map(|_time| root)
}
