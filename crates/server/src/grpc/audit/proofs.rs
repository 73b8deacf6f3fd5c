//! Checkpoints and proofs. Every proof was verified before it is given.

use quittance_domain::ids::EntryId;
use quittance_domain::ports::StoredEntry;
use quittance_evidence::{Hash, leaf_hash};
use quittance_proto::v1;
use quittance_proto::v1::ErrorReason;
use quittance_store::{StoredCheckpoint, TreeDamage, TreeHead, TreeReadError};
use tonic::Request;

use super::super::call::Call;
use super::super::facts::Facts;
use super::super::status::{Failure, platform_role_required};
use super::{AuditRpcs, Scope};
use crate::auth::Role;
use crate::convert;
use crate::convert::ProvedEntry;
use crate::convert::payment::timestamp;
use crate::signing::Evidence;

/// How metrics name a tree that proves nothing.
pub const PROOF_CHECK: &str = "proof";

/// A proof, and the checkpoint that it may lead to.
struct Proved {
    hashes: Vec<Hash>,
    tree_size: u64,
    checkpoint: StoredCheckpoint,
}

fn not_signed() -> Failure {
    let message = "this server does not sign its log (audit.enabled = false)";
    Failure::new(ErrorReason::NotImplemented, message)
}

pub(super) fn not_merged(message: &str) -> Failure {
    Failure::new(ErrorReason::EntryNotMerged, message)
}

fn out_of_range(message: &str) -> Failure {
    Failure::new(ErrorReason::TreeSizeOutOfRange, message)
}

fn bytes(hashes: &[Hash]) -> Vec<Vec<u8>> {
    hashes.iter().map(|hash| hash.as_bytes().to_vec()).collect()
}

pub(super) fn checkpoint_message(
    evidence: &Evidence,
    checkpoint: StoredCheckpoint,
) -> v1::Checkpoint {
    let origin = evidence.keys.origin().map(ToString::to_string);
    v1::Checkpoint {
        signed_note: checkpoint.note,
        origin: origin.unwrap_or_default(),
        tree_size: checkpoint.head.size,
        root_hash: checkpoint.head.root.as_bytes().to_vec(),
        sign_time: Some(timestamp(checkpoint.signed_at)),
    }
}

/// What is read of the tree, or why it cannot be.
pub(super) fn read_error(evidence: &Evidence, error: TreeReadError) -> Failure {
    match error {
        TreeReadError::Store(error) => error.into(),
        TreeReadError::OutOfRange(error) => out_of_range(&error.to_string()),
        TreeReadError::Damaged(damage) => unproved(evidence, &damage.to_string()),
    }
}

/// What is stored proves nothing: an alarm.
pub(super) fn unproved(evidence: &Evidence, why: &str) -> Failure {
    evidence.metrics.verification_failed(PROOF_CHECK, 1);
    tracing::error!(error.message = why, "the stored tree proves nothing");
    Failure::defect(why)
}

impl AuditRpcs {
    pub(super) fn evidence(&self) -> Result<&Evidence, Failure> {
        self.services.evidence.as_ref().ok_or_else(not_signed)
    }

    async fn newest_checkpoint(evidence: &Evidence) -> Result<StoredCheckpoint, Failure> {
        let keys = evidence.keys.verifiers();
        let newest = evidence.store.newest_checkpoint(&keys).await;
        let newest = newest.map_err(|error| read_error(evidence, error))?;
        let newest = newest.ok_or_else(|| not_merged("no checkpoint is signed yet"))?;
        let cosigned = evidence
            .store
            .with_cosignatures(newest, &evidence.witnesses);
        let cosigned = cosigned.await;
        cosigned.map_err(|error| read_error(evidence, error))
    }

    pub(super) async fn checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<v1::GetCheckpointResponse, Failure> {
        let Call {
            caller, platform, ..
        } = Call::of(request)?;
        let evidence = self.evidence()?;
        let scope = Scope::of(&caller, platform, None)?;
        self.record(
            &caller,
            &scope,
            "audit.checkpoint_read",
            None,
            Facts::default(),
        )
        .await?;
        let checkpoint = Self::newest_checkpoint(evidence).await?;
        Ok(v1::GetCheckpointResponse {
            checkpoint: Some(checkpoint_message(evidence, checkpoint)),
        })
    }

    pub(super) async fn inclusion(
        &self,
        request: Request<v1::GetInclusionProofRequest>,
    ) -> Result<v1::GetInclusionProofResponse, Failure> {
        let Call {
            caller,
            platform,
            message,
            ..
        } = Call::of(request)?;
        let evidence = self.evidence()?;
        let query = convert::inclusion_proof(&message)?;
        let scope = Scope::of(&caller, platform, None)?;
        let mut facts = Facts::default();
        match query.entry {
            ProvedEntry::Id(id) => facts.add("entry_id", &id),
            ProvedEntry::Index(_) if !platform => {
                return Err(platform_role_required(Role::PlatformAudit));
            }
            ProvedEntry::Index(index) => facts.add("leaf_index", &index),
        }
        facts.add_if("tree_size", query.tree_size);
        self.record(&caller, &scope, "audit.inclusion_proved", None, facts)
            .await?;
        // Before the entry is looked for: one that is merged meanwhile is only told to be so later.
        let checkpoint = Self::newest_checkpoint(evidence).await?;
        let tree_size = query.tree_size.unwrap_or(checkpoint.head.size);
        if tree_size > checkpoint.head.size {
            return Err(out_of_range("tree_size is beyond the newest checkpoint"));
        }
        let stored = match query.entry {
            ProvedEntry::Id(id) => self.entry_to_prove(&caller, &scope, id).await?,
            ProvedEntry::Index(index) if index >= checkpoint.head.size => {
                return Err(out_of_range("leaf_index is beyond the newest checkpoint"));
            }
            ProvedEntry::Index(index) => self.entry_at(index).await?,
        };
        let leaf = leaf_hash(&stored.leaf);
        let Some(index) = stored
            .position
            .filter(|index| *index < checkpoint.head.size)
        else {
            return Err(not_merged("the entry is not merged into the tree yet"));
        };
        if index >= tree_size {
            return Err(out_of_range("the entry is not in a tree of that size"));
        }
        let proved = evidence.store.inclusion_proof(leaf, index, tree_size).await;
        let (hashes, root) = proved.map_err(|error| read_error(evidence, error))?;
        let tree = TreeHead {
            size: tree_size,
            root,
        };
        let proved = Self::proved(evidence, hashes, tree, checkpoint).await?;
        Ok(v1::GetInclusionProofResponse {
            proof: Some(v1::InclusionProof {
                leaf_hash: leaf.as_bytes().to_vec(),
                leaf_index: index,
                tree_size: proved.tree_size,
                hashes: bytes(&proved.hashes),
            }),
            checkpoint: Some(checkpoint_message(evidence, proved.checkpoint)),
        })
    }

    async fn entry_to_prove(
        &self,
        caller: &quittance_domain::context::Caller,
        scope: &Scope,
        id: EntryId,
    ) -> Result<StoredEntry, Failure> {
        let log = &self.services.audit;
        let stored = log.entry(caller, scope.across(), id).await?;
        // Not by the index alone: another tenant's entry is nobody's to prove (I11).
        convert::entry::decode(&stored, scope.tenant.as_ref())?;
        Ok(stored)
    }

    async fn entry_at(&self, index: u64) -> Result<StoredEntry, Failure> {
        let found = self.services.store.entries_from(None, index, 1).await?;
        let at = found
            .into_iter()
            .find(|entry| entry.position == Some(index));
        at.ok_or_else(|| Failure::defect("an entry of the tree is missing from the journal"))
    }

    pub(super) async fn consistency(
        &self,
        request: Request<v1::GetConsistencyProofRequest>,
    ) -> Result<v1::GetConsistencyProofResponse, Failure> {
        let Call {
            caller,
            platform,
            message,
            ..
        } = Call::of(request)?;
        let evidence = self.evidence()?;
        let query = convert::consistency_proof(&message)?;
        let scope = Scope::of(&caller, platform, None)?;
        let mut facts = Facts::default();
        facts.add("first_tree_size", &query.first);
        facts.add_if("second_tree_size", query.second);
        self.record(&caller, &scope, "audit.consistency_proved", None, facts)
            .await?;
        let checkpoint = Self::newest_checkpoint(evidence).await?;
        let second = query.second.unwrap_or(checkpoint.head.size);
        if second > checkpoint.head.size || query.first > second {
            return Err(out_of_range(
                "the sizes are beyond the newest checkpoint, or in the wrong order",
            ));
        }
        let proved = evidence.store.consistency_proof(query.first, second).await;
        let (hashes, [_, root]) = proved.map_err(|error| read_error(evidence, error))?;
        let tree = TreeHead { size: second, root };
        let proved = Self::proved(evidence, hashes, tree, checkpoint).await?;
        Ok(v1::GetConsistencyProofResponse {
            proof: Some(v1::ConsistencyProof {
                first_tree_size: query.first,
                second_tree_size: proved.tree_size,
                hashes: bytes(&proved.hashes),
            }),
            checkpoint: Some(checkpoint_message(evidence, proved.checkpoint)),
        })
    }

    /// Refuses a proof that does not lead to the newest checkpoint: to its root, or to one of fewer entries that it continues. A
    /// proof between two trees of which nobody signed either would say nothing.
    async fn proved(
        evidence: &Evidence,
        hashes: Vec<Hash>,
        tree: TreeHead,
        checkpoint: StoredCheckpoint,
    ) -> Result<Proved, Failure> {
        let signed = checkpoint.head;
        let (before, root) = if tree.size == signed.size {
            (tree.root, tree.root)
        } else {
            let proof = evidence.store.consistency_proof(tree.size, signed.size);
            let (_, [before, root]) = proof.await.map_err(|error| read_error(evidence, error))?;
            (before, root)
        };
        if before != tree.root || root != signed.root {
            return Err(read_error(evidence, TreeDamage::Root.into()));
        }
        Ok(Proved {
            hashes,
            tree_size: tree.size,
            checkpoint,
        })
    }
}
