//! Checking a bundle under the keys that its reader trusts.

use std::collections::HashSet;

use super::named::{can_be_a_log, states_for};
use super::{Bundle, Check, CheckFailure, CheckName, CheckedEntry, Report};
use crate::{
    chain::{ChainCheck, ChainHead},
    checkpoint::{Checkpoint, SignedCheckpoint},
    disclosure::Disclosure,
    hash::leaf_hash,
    leaf::StreamId,
    note::{KeyName, KeyType, VerifierKey},
    statement::LastEntry,
    tree::verify_inclusion,
};

/// The published keys of the log and of witnesses that a reader trusts: had from the log's operator and
/// the witnesses, and never from a bundle.
#[derive(Debug, Clone, Default)]
pub struct TrustedKeys {
    keys: Vec<VerifierKey>,
    witnesses_may_be_late: bool,
}

impl TrustedKeys {
    /// Takes keys. Which of them are the log's, its name tells, and which are witnesses', their type.
    ///
    /// Who gives the key of a witness relies on it: a bundle that it has not cosigned is not proved. Of two keys of one
    /// name, while one replaces the other, either will do.
    pub const fn new(keys: Vec<VerifierKey>) -> Self {
        Self {
            keys,
            witnesses_may_be_late: false,
        }
    }

    /// The same keys for whoever publishes bundles, and waits for no witness: one that has not cosigned is named, and
    /// no check fails for it.
    #[must_use]
    pub fn with_late_witnesses(self) -> Self {
        Self {
            witnesses_may_be_late: true,
            ..self
        }
    }

    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = &VerifierKey> {
        self.keys.iter()
    }

    /// The witnesses' names, each once, that are not among `cosigned`.
    fn witnesses_without(&self, cosigned: &[(KeyName, u64)]) -> Vec<KeyName> {
        let mut missing = Vec::new();
        for key in self.keys.iter().filter(|key| is_witness(key)) {
            let name = key.name();
            let cosigned = cosigned.iter().any(|(witness, _)| witness == name);
            if !cosigned && !missing.contains(name) {
                missing.push(name.clone());
            }
        }
        missing
    }
}

fn is_witness(key: &VerifierKey) -> bool {
    key.key_type() == KeyType::Cosignature
}

impl Bundle {
    /// Checks everything that the bundle claims. Every check is made and reported, also after one failed.
    pub fn verify(&self, keys: &TrustedKeys) -> Report {
        let signed = self.check_checkpoint(keys);
        let (entries, chain) = self.check_entries();
        let (disclosures, disclosed) = self.check_disclosures(&entries);
        let checkpoint = signed.as_ref().ok().map(|signed| &signed.checkpoint);
        let inclusion = self.check_inclusion(checkpoint);
        let last_entry = self.check_last_entry(keys, checkpoint, chain.as_ref().ok());
        let cosigned: Vec<_> = signed.iter().flat_map(SignedCheckpoint::cosigned).collect();
        let not_cosigned = keys.witnesses_without(&cosigned);
        let results = [
            signed.as_ref().map(|_| ()).map_err(CheckFailure::clone),
            chain.map(|_| ()),
            inclusion,
            last_entry,
            disclosed,
            if not_cosigned.is_empty() || keys.witnesses_may_be_late {
                Ok(())
            } else {
                Err(CheckFailure::NotCosigned(not_cosigned.clone()))
            },
        ];
        Report {
            payment_id: self.payment_id,
            checks: CheckName::ALL
                .into_iter()
                .zip(results)
                .map(|(name, result)| Check { name, result })
                .collect(),
            origin: checkpoint.map(|at| at.origin.clone()),
            tree_size: checkpoint.map(|at| at.size),
            root: checkpoint.map(|at| at.root),
            cosigned,
            not_cosigned,
            entries,
            disclosures,
        }
    }

    /// The checkpoint, where a log signed it that the reader trusts.
    fn check_checkpoint<'k>(
        &self,
        keys: &'k TrustedKeys,
    ) -> Result<SignedCheckpoint<'k>, CheckFailure> {
        let signed = SignedCheckpoint::open(&self.checkpoint, &keys.keys)?;
        let origin = &signed.checkpoint.origin;
        if can_be_a_log(origin, &keys.keys) {
            Ok(signed)
        } else {
            Err(CheckFailure::NotALog(origin.clone()))
        }
    }

    /// The sound entries, and the head of their chain if all of them are.
    fn check_entries(&self) -> (Vec<CheckedEntry>, Result<ChainHead, CheckFailure>) {
        let mut chain = ChainCheck::new();
        let mut sound = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let bytes = entry.leaf_data.as_bytes();
            match chain.push(bytes) {
                Ok(leaf) => sound.push(CheckedEntry {
                    leaf,
                    leaf_hash: leaf_hash(bytes),
                }),
                Err(error) => return (sound, Err(error.into())),
            }
        }
        let head = match chain.head() {
            None => Err(CheckFailure::NoEntries),
            Some(head) if head.stream_id == StreamId::Payment(self.payment_id) => Ok(head.clone()),
            Some(_) => Err(CheckFailure::OtherPayment(self.payment_id)),
        };
        (sound, head)
    }

    fn check_inclusion(&self, checkpoint: Option<&Checkpoint>) -> Result<(), CheckFailure> {
        let at = checkpoint.ok_or(CheckFailure::NoCheckpoint)?;
        if self.entries.is_empty() {
            return Err(CheckFailure::NoEntries);
        }
        for (number, entry) in (1..).zip(&self.entries) {
            let leaf = leaf_hash(entry.leaf_data.as_bytes());
            let proof = &entry.inclusion_proof;
            verify_inclusion(&leaf, entry.leaf_index, at.size, proof, &at.root)
                .map_err(|source| CheckFailure::NotInLog { number, source })?;
        }
        Ok(())
    }

    fn check_last_entry(
        &self,
        keys: &TrustedKeys,
        checkpoint: Option<&Checkpoint>,
        head: Option<&ChainHead>,
    ) -> Result<(), CheckFailure> {
        let at = checkpoint.ok_or(CheckFailure::NoCheckpoint)?;
        let signers = self
            .last_entry
            .verify(&keys.keys)
            .map_err(CheckFailure::StatementNote)?;
        if !signers.iter().any(|by| states_for(&at.origin, by.key)) {
            return Err(CheckFailure::StatementNotByTheLog(at.origin.clone()));
        }
        let stated =
            LastEntry::parse_text(self.last_entry.text()).map_err(CheckFailure::StatementText)?;
        let another = |what| Err(CheckFailure::StatementAboutAnother(what));
        if stated.payment_id != self.payment_id {
            return another("payment");
        }
        if stated.origin != at.origin {
            return another("log");
        }
        if (stated.tree_size, stated.root) != (at.size, at.root) {
            return another("checkpoint");
        }
        let head = head.ok_or(CheckFailure::NoSoundEntries)?;
        if stated.entity_seq != head.entity_seq {
            Err(CheckFailure::OtherLastEntry {
                stated: stated.entity_seq,
                found: head.entity_seq,
            })
        } else if stated.leaf_hash == head.leaf_hash {
            Ok(())
        } else {
            Err(CheckFailure::OtherLastLeaf)
        }
    }

    /// The disclosures that belong to sound entries, and whether all do.
    fn check_disclosures(
        &self,
        entries: &[CheckedEntry],
    ) -> (Vec<Disclosure>, Result<(), CheckFailure>) {
        let held: HashSet<_> = entries
            .iter()
            .flat_map(|entry| &entry.leaf.personal_data)
            .collect();
        let (mut belong, mut result) = (Vec::new(), Ok(()));
        for (number, disclosure) in (1..).zip(&self.disclosures) {
            let name = disclosure.name().to_owned();
            if held.contains(&(&name, &disclosure.digest())) {
                belong.push(disclosure.clone());
            } else if result.is_ok() {
                result = Err(CheckFailure::NotInEntries { number, name });
            }
        }
        (belong, result)
    }
}
