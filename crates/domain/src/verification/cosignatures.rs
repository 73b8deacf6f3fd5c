//! What is stored of what witnesses said, under their keys.

use quittance_evidence::note::{KeyName, VerifierKey};
use quittance_evidence::{Checkpoint, Hash};

use super::links::{Gap, Links};
use super::mismatch::Shown;
use super::stored_tree::{CosignatureMac, CosignatureRow, Linked};
use super::tree::Report;
use super::tree_fault::TreeFault;

/// Where so many cosignatures in a row are forged, or of another tree, those behind are not told one by one.
const MAX_IN_A_ROW: u32 = 64;

/// Holds cosignatures to the tree.
#[derive(Debug, Default)]
pub(super) struct CosignatureWalk {
    forged_in_a_row: u32,
    differ_in_a_row: u32,
    macs_in_a_row: u32,
    /// Those that this service stored, of each witness.
    links: Vec<(VerifierKey, Links)>,
}

impl CosignatureWalk {
    /// Takes the next cosignature, by size, with the names that the log had then, and the root that the tree has there.
    pub(super) fn push(
        &mut self,
        row: &CosignatureRow,
        origins: &[Option<&KeyName>],
        expected: Hash,
        report: &mut Report<'_>,
    ) {
        let (size, witness) = (row.size, Shown::of(row.witness.name()));
        let mut origins = origins.iter().flatten();
        let Some(found) = origins.find_map(|origin| cosigned(row, origin)) else {
            self.forged_in_a_row = self.forged_in_a_row.saturating_add(1);
            if self.forged_in_a_row <= MAX_IN_A_ROW {
                report.add(TreeFault::CosignatureForged { size, witness });
            }
            return;
        };
        self.forged_in_a_row = 0;
        self.mac(row, report);
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

    /// Whether the one before it is there. One without a MAC says nothing of it, and is not named by any.
    fn mac(&mut self, row: &CosignatureRow, report: &mut Report<'_>) {
        let (size, witness) = (row.size, Shown::of(row.witness.name()));
        let fault = match &row.mac {
            CosignatureMac::Absent => return,
            CosignatureMac::Ours { previous } => {
                self.macs_in_a_row = 0;
                return self.seen(row, Some(*previous));
            }
            CosignatureMac::Wrong => TreeFault::CosignatureMacWrong { size, witness },
            CosignatureMac::KeyUnknown(key) => {
                // It is there; which one was before it, is not known.
                self.seen(row, None);
                let key = Shown::of(key);
                TreeFault::CosignatureKeyUnknown { size, witness, key }
            }
        };
        self.macs_in_a_row = self.macs_in_a_row.saturating_add(1);
        if self.macs_in_a_row <= MAX_IN_A_ROW {
            report.add(fault);
        }
    }

    fn seen(&mut self, row: &CosignatureRow, previous: Option<u64>) {
        let size = u64::try_from(row.size);
        if let (Ok(size), Some(links)) = (size, self.of(&row.witness)) {
            links.push(size, previous);
        }
    }

    /// What is known of a witness.
    fn of(&mut self, witness: &VerifierKey) -> Option<&mut Links> {
        if !self.links.iter().any(|(key, _)| key == witness) {
            self.links.push((witness.clone(), Links::default()));
        }
        let mut known = self.links.iter_mut();
        known.find_map(|(key, links)| (key == witness).then_some(links))
    }

    /// What was not seen, of each witness. One may have been stored behind the page that it belongs to.
    pub(super) fn missing(&self) -> impl Iterator<Item = (Linked, Vec<u64>)> {
        self.links
            .iter()
            .map(|(key, links)| (Linked::Cosignatures(Box::new(key.clone())), links.missing()))
    }

    /// Takes the sizes of those that are stored after all.
    pub(super) fn stored(&mut self, witness: &VerifierKey, sizes: &[u64]) {
        for (_, links) in self.links.iter_mut().filter(|(key, _)| key == witness) {
            links.stored(sizes);
        }
    }

    /// The end of the log.
    pub(super) fn finish(&self, report: &mut Report<'_>) {
        for (key, links) in &self.links {
            for Gap { size, after } in links.gaps() {
                let witness = Shown::of(key.name());
                report.add(TreeFault::CosignatureMissing {
                    size,
                    witness,
                    after,
                });
            }
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
