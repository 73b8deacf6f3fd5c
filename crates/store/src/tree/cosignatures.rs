//! What witnesses said about checkpoints.
//!
//! Anybody who can write to the database can add rows. So a row is what it says only where its line verifies under the
//! witness's key, over the checkpoint that its columns state; others are passed over and reported, and stand in nobody's
//! way: they are told apart before any is counted.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ports::StoreError;
use quittance_evidence::Checkpoint;
use quittance_evidence::note::{KeyName, Note, VerifierKey};

use super::heads::head_of;
use super::{StoredCheckpoint, TreeHead, TreeReadError};
use crate::schema::cosignatures;
use crate::store::PgStore;
use crate::warning::Thinned;

/// Rows of one witness that are read at once: few, and many only where all of those were forged. With more forged ones
/// before it, a cosignature is not found.
const COSIGNATURES_READ: [usize; 2] = [8, 256];

static FORGED: Thinned = Thinned::new();

/// A witness's word on a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCosignature {
    /// The tree that the checkpoint states.
    pub head: TreeHead,
    /// Name and id of the witness's key: [`witness_id`].
    pub witness: String,
    /// When, as the witness says.
    pub cosigned_at: DateTime<Utc>,
    /// The line under the checkpoint's note, with its newline.
    pub line: String,
}

/// How a witness's key is named in the database.
pub fn witness_id(key: &VerifierKey) -> String {
    format!("{}+{}", key.name(), key.id())
}

/// A cosignature as read: anybody may have written it.
#[derive(Queryable)]
struct CosignatureRow {
    tree_size: i64,
    root_hash: Vec<u8>,
    line: String,
}

impl CosignatureRow {
    /// The cosignature, where `witness` gave it for the log `origin`.
    fn open(&self, origin: &KeyName, witness: &VerifierKey) -> Option<StoredCosignature> {
        let head = head_of(self.tree_size, &self.root_hash).ok()?;
        let checkpoint = Checkpoint {
            origin: origin.clone(),
            size: head.size,
            root: head.root,
        };
        let time = checkpoint.cosigned_by(witness, &self.line)?;
        let seconds = i64::try_from(time).ok()?;
        Some(StoredCosignature {
            head,
            witness: witness_id(witness),
            cosigned_at: DateTime::from_timestamp(seconds, 0)?,
            line: self.line.clone(),
        })
    }
}

impl PgStore {
    /// Keeps a cosignature, which was verified. The same one stays; what somebody put in its place does not keep it out.
    pub async fn keep_cosignature(
        &self,
        cosignature: &StoredCosignature,
    ) -> Result<(), StoreError> {
        let size = i64::try_from(cosignature.head.size)
            .map_err(|_| StoreError::Corrupt("cosignatures.tree_size".to_owned()))?;
        let write = self
            .inner
            .reader
            .write("keep cosignature", |connection, _| {
                let row = (
                    cosignatures::tree_size.eq(size),
                    cosignatures::witness.eq(cosignature.witness.clone()),
                    cosignatures::root_hash.eq(cosignature.head.root.as_bytes().to_vec()),
                    cosignatures::cosigned_at.eq(cosignature.cosigned_at),
                    cosignatures::line.eq(cosignature.line.clone()),
                );
                let insert = diesel::insert_into(cosignatures::table)
                    .values(row)
                    .on_conflict_do_nothing();
                async move { insert.execute(connection).await }.boxed()
            });
        write.await.map(|_| ())
    }

    /// The witness's cosignature of the largest tree of the log `origin`, as far as is known here.
    pub async fn last_cosigned(
        &self,
        origin: &KeyName,
        witness: &VerifierKey,
    ) -> Result<Option<StoredCosignature>, StoreError> {
        self.cosignature(origin, witness, None).await
    }

    /// The same checkpoint with the cosignatures of `witnesses` that are stored for it under its note, each verified.
    /// Of others there are none: nobody here could tell them from forged ones.
    pub async fn with_cosignatures(
        &self,
        mut checkpoint: StoredCheckpoint,
        witnesses: &[VerifierKey],
    ) -> Result<StoredCheckpoint, TreeReadError> {
        let Some(origin) = origin_of(&checkpoint) else {
            return Ok(checkpoint);
        };
        for witness in witnesses {
            let head = Some(checkpoint.head);
            let cosignature = self.cosignature(&origin, witness, head).await?;
            checkpoint.note.extend(cosignature.map(|it| it.line));
        }
        Ok(checkpoint)
    }

    /// The largest checkpoint, signed by one of `keys`, that one of `witnesses` cosigned, with its cosignatures.
    pub async fn newest_cosigned_checkpoint(
        &self,
        keys: &[VerifierKey],
        witnesses: &[VerifierKey],
    ) -> Result<Option<StoredCheckpoint>, TreeReadError> {
        let Some(origin) = keys.first().map(VerifierKey::name) else {
            return Ok(None);
        };
        let mut newest: Option<TreeHead> = None;
        for witness in witnesses {
            let last = self.last_cosigned(origin, witness).await?;
            let last = last.map(|it| it.head);
            newest = newest.into_iter().chain(last).max_by_key(|head| head.size);
        }
        let Some(size) = newest.and_then(|head| i64::try_from(head.size).ok()) else {
            return Ok(None);
        };
        match self.newest_checkpoint_of(Some(size), keys).await? {
            Some(checkpoint) => Ok(Some(self.with_cosignatures(checkpoint, witnesses).await?)),
            None => Ok(None),
        }
    }

    /// A witness's cosignature of one tree, or of the largest.
    async fn cosignature(
        &self,
        origin: &KeyName,
        witness: &VerifierKey,
        head: Option<TreeHead>,
    ) -> Result<Option<StoredCosignature>, StoreError> {
        for limit in COSIGNATURES_READ {
            let rows = self.cosignature_rows(witness, head, limit).await?;
            let forged = rows
                .iter()
                .take_while(|row| row.open(origin, witness).is_none());
            let forged = forged.count();
            self.report_forged_cosignatures(forged);
            let genuine = rows.get(forged).and_then(|row| row.open(origin, witness));
            if genuine.is_some() || rows.len() < limit {
                return Ok(genuine);
            }
        }
        Ok(None)
    }

    async fn cosignature_rows(
        &self,
        witness: &VerifierKey,
        head: Option<TreeHead>,
        limit: usize,
    ) -> Result<Vec<CosignatureRow>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self.inner.reader.read("read cosignatures", |connection| {
            let mut query = cosignatures::table
                .select((
                    cosignatures::tree_size,
                    cosignatures::root_hash,
                    cosignatures::line,
                ))
                .into_boxed::<Pg>()
                .filter(cosignatures::witness.eq(witness_id(witness)))
                .order((cosignatures::tree_size.desc(), cosignatures::line))
                .limit(limit);
            if let Some(head) = head {
                let size = i64::try_from(head.size).unwrap_or(i64::MAX);
                query = query
                    .filter(cosignatures::tree_size.eq(size))
                    .filter(cosignatures::root_hash.eq(head.root.as_bytes().to_vec()));
            }
            async move { query.load(connection).await }.boxed()
        });
        read.await
    }

    fn report_forged_cosignatures(&self, count: usize) {
        if count == 0 {
            return;
        }
        let observer = &self.inner.observer;
        observer.verification_failed("cosignature", count);
        if FORGED.due().is_some() {
            tracing::error!(
                count,
                "cosignatures are stored that their witness did not give: they are passed over"
            );
        }
    }
}

/// The log that a checkpoint is of.
fn origin_of(checkpoint: &StoredCheckpoint) -> Option<KeyName> {
    let note = Note::parse(checkpoint.note.as_bytes()).ok()?;
    let stated = Checkpoint::parse_text(note.text()).ok()?;
    Some(stated.origin)
}
