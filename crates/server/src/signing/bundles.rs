//! Evidence bundles: put together from the database, stated and checked before they are given.

use quittance_domain::ids::{PaymentId, TenantId};
use quittance_domain::ports::StoreError;
use quittance_evidence::bundle::{
    Bundle, BundleEntry, BundleFormError, MAX_BUNDLE_BYTES, MAX_BUNDLE_ENTRIES, Report, TrustedKeys,
};
use quittance_evidence::note::{KeyName, Note, NoteError};
use quittance_evidence::{Disclosure, Hash, LastEntry, leaf_hash, page};
use quittance_store::{StoredCheckpoint, TreeDamage, TreeReadError};
use thiserror::Error;

use super::Evidence;

/// Most entries that are read at once: 16 MiB of the longest that there are.
const ENTRIES_AT_ONCE: usize = 256;

/// Why there is no bundle.
#[derive(Debug, Error)]
pub enum BundleError {
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tree proves nothing.
    #[error(transparent)]
    Tree(#[from] TreeReadError),
    /// There is more than a bundle holds.
    #[error("the payment has more than an evidence bundle holds")]
    TooLarge,
    /// What is stored makes no bundle.
    #[error("what is stored makes no evidence bundle: {0}")]
    Form(BundleFormError),
    /// What is stored as the checkpoint is no signed note, or a statement cannot be signed.
    #[error("a signed note: {0}")]
    Note(#[from] NoteError),
    /// There is no key of the log.
    #[error("the log has no key")]
    NoKey,
    /// The bundle would not convince anybody; which checks fail.
    #[error("what is stored does not prove itself: {0}")]
    NotProved(String),
    /// The payment's row is not as the newest of its entries left it: some may be missing behind. What differs.
    #[error("the payment is not as its newest entry left it: {0}")]
    RowDiffers(&'static str),
    /// The entries are another tenant's, whatever the index says.
    #[error("the entries are not those of the tenant that the index names")]
    OtherTenant,
}

/// A bundle that was verified.
#[derive(Debug)]
pub struct Exported {
    /// The file.
    pub json: Vec<u8>,
    /// The page made from it, where one was asked for.
    pub page: Option<String>,
    /// Number of the last entry.
    pub last_entity_seq: u64,
    /// How many personal values are disclosed.
    pub disclosures: usize,
}

impl Evidence {
    /// The bundle of a payment under a checkpoint, which covers at least its entries up to number `last`, with these
    /// disclosures. Nothing is checked yet but that, and that the payment is as its newest entry left it.
    ///
    /// # Errors
    /// [`BundleError`].
    pub async fn bundle(
        &self,
        payment: PaymentId,
        last: u64,
        checkpoint: &StoredCheckpoint,
        disclosures: Vec<Disclosure>,
    ) -> Result<Bundle, BundleError> {
        let size = checkpoint.head.size;
        let stored = self.stored_entries(payment, last, size).await?;
        let leaves: Vec<_> = stored
            .iter()
            .map(|(leaf, index)| (leaf_hash(leaf), *index))
            .collect();
        let (proofs, root) = self.store.inclusion_proofs(&leaves, size).await?;
        if root != checkpoint.head.root {
            return Err(TreeReadError::Damaged(TreeDamage::Root).into());
        }
        let entries = stored.into_iter().zip(proofs).map(|((leaf, index), path)| {
            let entry = BundleEntry::new(leaf, index, path);
            entry.map_err(|_| TreeReadError::Damaged(TreeDamage::EntryChanged))
        });
        let entries: Vec<_> = entries.collect::<Result<_, _>>()?;
        // Behind the entries: what was cut off before they were read is missed here, too.
        let differing = self.store.compare_with_entries(payment).await?;
        if let Some(mismatch) = differing.first() {
            return Err(BundleError::RowDiffers(mismatch.fault.code()));
        }
        let last = leaves.last().map(|(hash, _)| *hash);
        let last_entry = self.state_last(payment, entries.len(), last, checkpoint)?;
        Ok(Bundle {
            payment_id: payment.0,
            checkpoint: Note::parse(checkpoint.note.as_bytes())?,
            last_entry,
            entries,
            disclosures,
        })
    }

    /// The payment's entries in the tree of that size, with their places, in order.
    async fn stored_entries(
        &self,
        payment: PaymentId,
        last: u64,
        size: u64,
    ) -> Result<Vec<(Vec<u8>, u64)>, BundleError> {
        let (mut entries, mut after, mut bytes) = (Vec::new(), 0, 0_usize);
        loop {
            let store = &self.store;
            let some = store
                .merged_entries(payment, after, last, size, ENTRIES_AT_ONCE)
                .await?;
            for entry in some.entries {
                after = entry.entity_seq;
                bytes = bytes.saturating_add(entry.leaf.len());
                entries.push((entry.leaf, entry.position));
            }
            if entries.len() > MAX_BUNDLE_ENTRIES || bytes > MAX_BUNDLE_BYTES {
                return Err(BundleError::TooLarge);
            }
            if some.done && after < last {
                // Stating that there are no more would be false.
                return Err(TreeReadError::Damaged(TreeDamage::EntryMissing).into());
            }
            if some.done {
                return Ok(entries);
            }
        }
    }

    /// Our signed word which entry was the payment's last: the keys of receipts that sign now give it, since those of the
    /// log sign checkpoints and nothing else.
    fn state_last(
        &self,
        payment: PaymentId,
        entries: usize,
        leaf: Option<Hash>,
        checkpoint: &StoredCheckpoint,
    ) -> Result<Note, BundleError> {
        let origin: KeyName = self.keys.origin().cloned().ok_or(BundleError::NoKey)?;
        let statement = LastEntry {
            payment_id: payment.0,
            // Numbered from 1 without gaps, which is checked with everything else.
            entity_seq: u64::try_from(entries).unwrap_or(u64::MAX),
            leaf_hash: leaf.ok_or(TreeReadError::Damaged(TreeDamage::EntryMissing))?,
            origin,
            tree_size: checkpoint.head.size,
            root: checkpoint.head.root,
        };
        let now = self.store.clock().now();
        Ok(statement.sign(&self.keys.receipts_at(now))?)
    }
}

/// Writes a bundle, and checks it as whoever gets it will, but for witnesses that have yet to cosign: nothing waits for
/// them. Takes a while for a large one.
///
/// # Errors
/// [`BundleError`], also where it proves nothing, or is of another tenant than `tenant`.
pub fn finish(
    bundle: &Bundle,
    keys: &TrustedKeys,
    tenant: Option<&TenantId>,
    as_page: bool,
) -> Result<Exported, BundleError> {
    let json = bundle.encode().map_err(form_error)?;
    let report = bundle.verify(keys);
    if !report.is_proved() {
        return Err(BundleError::NotProved(failed_checks(&report)));
    }
    let mut leaves = report.entries.iter().map(|entry| &entry.leaf);
    if !leaves.all(|leaf| tenant.is_none_or(|tenant| tenant.as_str() == leaf.tenant_id)) {
        return Err(BundleError::OtherTenant);
    }
    let page = as_page
        .then(|| page::render(&json, keys).map_err(form_error))
        .transpose()?;
    Ok(Exported {
        json,
        page,
        last_entity_seq: report
            .entries
            .last()
            .map_or(0, |entry| entry.leaf.entity_seq),
        disclosures: report.disclosures.len(),
    })
}

fn form_error(error: BundleFormError) -> BundleError {
    match error {
        BundleFormError::TooLarge(_) | BundleFormError::TooMany { .. } => BundleError::TooLarge,
        error @ (BundleFormError::Malformed { .. }
        | BundleFormError::OtherFormat
        | BundleFormError::Note { .. }
        | BundleFormError::Disclosure { .. }
        | BundleFormError::NotCanonical { .. }) => BundleError::Form(error),
    }
}

fn failed_checks(report: &Report) -> String {
    let failed = report
        .failures()
        .map(|(check, why)| format!("{check}: {why}"));
    failed.collect::<Vec<_>>().join("; ")
}
