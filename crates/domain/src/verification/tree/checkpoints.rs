//! The checkpoints that are stored, held to the tree and to what the signer signed last.

use quittance_evidence::note::{KeyName, Note, Signature};
use quittance_evidence::{Checkpoint, CheckpointError, SignedCheckpoint};

use super::{Report, Stated, TreeWalk};
use crate::verification::mismatch::Shown;
use crate::verification::stored_tree::{CheckpointMac, CheckpointRow, SignedLast, TreeEnd};
use crate::verification::tree_fault::TreeFault;

/// Where so many checkpoints in a row are not of the tree, those behind are not told one by one: after an entry that was
/// changed, all are not.
const MAX_IN_A_ROW: u32 = 64;
/// What a note states.
struct Opened {
    stated: Checkpoint,
    /// Whether a key that is at hand signed it.
    signed: bool,
}

impl TreeWalk {
    pub(super) fn checkpoint(&mut self, row: &CheckpointRow, report: &mut Report<'_>) {
        let (size, expected) = (row.size, self.range.root());
        let Opened { stated, signed } = match self.open(&row.note) {
            Ok(opened) => opened,
            Err(error) => {
                return report.add(TreeFault::CheckpointNotSigned { size, error });
            }
        };
        let mut column = |column| report.add(TreeFault::CheckpointColumnDiffers { size, column });
        if i64::try_from(stated.size) != Ok(size) {
            return column("tree_size");
        }
        if stated.root.as_bytes().as_slice() != row.root {
            column("root_hash");
        }
        if signed {
            self.shown = self.shown.max(stated.size);
        }
        self.stated.retain(|it| it.size == size);
        let named = |it: &Stated| it.root == row.root && it.origin == stated.origin;
        let ours = row.mac == CheckpointMac::Ours && row.note_is_ours;
        if ours && !self.stated.iter().any(named) {
            self.stated.push(Stated {
                size,
                root: row.root.clone(),
                origin: stated.origin.clone(),
            });
        }
        self.mac(row, report);
        if stated.root == expected {
            self.checkpoints_in_a_row = 0;
            match row.mac {
                CheckpointMac::Ours => {
                    let before = row.previous.and_then(|size| u64::try_from(size).ok());
                    self.checkpoints.push(stated.size, before);
                    if signed {
                        self.newest_signed = Some(row.clone());
                    }
                }
                // It is there; which one was before it, is not known.
                CheckpointMac::KeyUnknown(_) => self.checkpoints.push(stated.size, None),
                CheckpointMac::Wrong => {}
            }
            return;
        }
        self.checkpoints_in_a_row = self.checkpoints_in_a_row.saturating_add(1);
        if self.checkpoints_in_a_row <= MAX_IN_A_ROW {
            let found = Shown::of(&stated.root);
            report.add(TreeFault::CheckpointDiffers {
                size,
                expected,
                found,
            });
        }
    }

    /// Whether it was stored with its time and its signatures. One that was put in has neither.
    fn mac(&mut self, row: &CheckpointRow, report: &mut Report<'_>) {
        let size = row.size;
        let column = |column| TreeFault::CheckpointColumnDiffers { size, column };
        let fault = match (&row.mac, row.note_is_ours) {
            (CheckpointMac::Wrong, _) => column("signed_at"),
            (CheckpointMac::Ours, false) => column("note"),
            (CheckpointMac::KeyUnknown(key), _) => TreeFault::CheckpointKeyUnknown {
                size,
                key: Shown::of(key),
            },
            (CheckpointMac::Ours, true) => {
                self.odd_in_a_row = 0;
                return;
            }
        };
        self.odd_in_a_row = self.odd_in_a_row.saturating_add(1);
        if self.odd_in_a_row <= MAX_IN_A_ROW {
            report.add(fault);
        }
    }

    /// What a note states. Those before the first that today's keys alone have signed may be of keys that were
    /// replaced, which are not at hand any more; later ones are not. Whether their signatures were destroyed instead, the row's
    /// digest of its note tells.
    fn open(&mut self, note: &str) -> Result<Opened, CheckpointError> {
        let note = Note::parse(note.as_bytes())?;
        let keys = &self.trusted.keys;
        let by_known = |signature: &Signature| keys.iter().any(|key| signature.is_of(key));
        let replaced = !self.only_known_keys && !note.signatures().iter().any(by_known);
        if keys.is_empty() || replaced {
            return Ok(Opened {
                stated: Checkpoint::parse_text(note.text())?,
                signed: false,
            });
        }
        let stated = SignedCheckpoint::open(&note, keys)?.checkpoint;
        let of_log = |name: &KeyName| *name == stated.origin;
        let mut signatures = note.signatures().iter().filter(|it| of_log(it.name()));
        self.only_known_keys |= signatures.all(by_known);
        Ok(Opened {
            stated,
            signed: true,
        })
    }

    /// How many entries the checkpoint has that was signed last, where neither it nor a larger one was seen by the end. The
    /// signer keeps in mind what it signs before it shows it, so it may be a moment late.
    pub fn awaits(&self, end: &TreeEnd) -> Option<u64> {
        let SignedLast::Tree { size, .. } = self.trusted.signed else {
            return None;
        };
        // What was cut off is told as such, and what cannot be compared, too.
        let covered = i64::try_from(size).is_ok_and(|size| size <= end.newest);
        let known = !self.trusted.keys.is_empty() && covered && size <= self.size();
        (known && size > self.shown).then_some(size)
    }

    /// Takes checkpoints that were stored meanwhile. Only whether they are signed is looked at.
    pub fn late(&mut self, notes: &[String]) {
        for note in notes {
            let Ok(note) = Note::parse(note.as_bytes()) else {
                continue;
            };
            if let Ok(signed) = SignedCheckpoint::open(&note, &self.trusted.keys) {
                self.shown = self.shown.max(signed.checkpoint.size);
            }
        }
    }

    /// What was signed last, once the tree has as many entries.
    pub(super) fn signed(&self, report: &mut Report<'_>) {
        let SignedLast::Tree { size, root } = self.trusted.signed else {
            return;
        };
        if size != self.size() {
            return;
        }
        let expected = self.range.root();
        if root != expected {
            report.add(TreeFault::SignedDiffers {
                size,
                expected,
                signed: root,
            });
        }
    }
}
