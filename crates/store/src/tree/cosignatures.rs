//! What witnesses said about checkpoints.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ports::StoreError;
use quittance_evidence::note::{Signature, VerifierKey};

use super::heads::head_of;
use super::{StoredCheckpoint, TreeHead, TreeReadError};
use crate::schema::cosignatures;
use crate::store::PgStore;

/// Most cosignatures of one checkpoint that are read.
const MAX_COSIGNATURES: i64 = 32;

/// A witness's word on a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCosignature {
    /// The tree that the checkpoint states.
    pub head: TreeHead,
    /// Name and id of the witness's key.
    pub witness: String,
    /// When, as the witness says.
    pub cosigned_at: DateTime<Utc>,
    /// The line under the checkpoint's note, with its newline.
    pub line: String,
}

impl PgStore {
    /// Keeps a cosignature, which was verified. One of the same witness that is there already stays.
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

    /// The largest tree that a witness cosigned, as far as is known here.
    pub async fn last_cosigned(&self, witness: &str) -> Result<Option<TreeHead>, TreeReadError> {
        let read = self.inner.reader.read("read cosigned size", |connection| {
            let last = cosignatures::table
                .filter(cosignatures::witness.eq(witness.to_owned()))
                .select((cosignatures::tree_size, cosignatures::root_hash))
                .order(cosignatures::tree_size.desc());
            async move { last.first::<(i64, Vec<u8>)>(connection).await.optional() }.boxed()
        });
        let head = read.await?.map(|(size, root)| head_of(size, &root));
        Ok(head.transpose()?)
    }

    /// The same checkpoint with all cosignatures that are stored for it under its note. What they are worth says who
    /// verifies them.
    pub async fn with_cosignatures(
        &self,
        mut checkpoint: StoredCheckpoint,
    ) -> Result<StoredCheckpoint, TreeReadError> {
        let size = i64::try_from(checkpoint.head.size).unwrap_or(i64::MAX);
        let root = checkpoint.head.root;
        let read = self.inner.reader.read("read cosignatures", |connection| {
            let lines = cosignatures::table
                .filter(cosignatures::tree_size.eq(size))
                .filter(cosignatures::root_hash.eq(root.as_bytes().to_vec()))
                .order(cosignatures::witness)
                .limit(MAX_COSIGNATURES)
                .select(cosignatures::line);
            async move { lines.load::<String>(connection).await }.boxed()
        });
        // One that was changed into no line would make the whole note unreadable.
        let lines = read.await?.into_iter();
        let whole = |line: &String| Signature::parse_lines(line).is_ok();
        checkpoint.note.extend(lines.filter(whole));
        Ok(checkpoint)
    }

    /// The largest checkpoint, signed by one of `keys`, that a witness cosigned, with its cosignatures.
    pub async fn newest_cosigned_checkpoint(
        &self,
        keys: &[VerifierKey],
    ) -> Result<Option<StoredCheckpoint>, TreeReadError> {
        let read = self.inner.reader.read("read cosigned", |connection| {
            let newest = cosignatures::table
                .select(cosignatures::tree_size)
                .order(cosignatures::tree_size.desc());
            async move { newest.first::<i64>(connection).await.optional() }.boxed()
        });
        let Some(size) = read.await? else {
            return Ok(None);
        };
        match self.newest_checkpoint_of(Some(size), keys).await? {
            Some(checkpoint) => Ok(Some(self.with_cosignatures(checkpoint).await?)),
            None => Ok(None),
        }
    }
}
