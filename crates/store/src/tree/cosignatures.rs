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
use quittance_domain::verification::CosignatureMac;
use quittance_evidence::Checkpoint;
use quittance_evidence::note::{KeyName, Note, VerifierKey};

use super::heads::head_of;
use super::{StoredCheckpoint, TreeHead, TreeReadError};
use crate::keys::{CosignatureFacts, KeyRing};
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

/// What the MAC of a cosignature's row is over, and the MAC, as read.
pub(crate) struct CosignatureCells<'a> {
    pub(crate) size: i64,
    pub(crate) root: &'a [u8],
    pub(crate) witness: &'a str,
    pub(crate) line: &'a str,
    pub(crate) previous: Option<i64>,
    pub(crate) mac: Option<&'a [u8]>,
    pub(crate) mac_key_id: Option<&'a str>,
}

impl CosignatureCells<'_> {
    /// Whether the service stored the row so.
    pub(crate) fn mac(&self, ring: &KeyRing) -> CosignatureMac {
        let (None, None, None) = (self.previous, self.mac, self.mac_key_id) else {
            return self.judged(ring).unwrap_or(CosignatureMac::Wrong);
        };
        CosignatureMac::Absent
    }

    /// What the MAC says; `None` where the row is none that this service writes.
    fn judged(&self, ring: &KeyRing) -> Option<CosignatureMac> {
        let previous = u64::try_from(self.previous?).ok()?;
        let facts = CosignatureFacts {
            size: u64::try_from(self.size).ok()?,
            root: self.root,
            witness: self.witness,
            line: self.line,
            previous,
        };
        let key = self.mac_key_id?;
        Some(match ring.verify_cosignature(facts, key, self.mac?) {
            Some(true) => CosignatureMac::Ours { previous },
            Some(false) => CosignatureMac::Wrong,
            None => CosignatureMac::KeyUnknown(key.to_owned()),
        })
    }
}

/// A cosignature as read: anybody may have written it.
#[derive(Queryable, Selectable)]
#[diesel(table_name = cosignatures)]
struct CosignatureRow {
    tree_size: i64,
    root_hash: Vec<u8>,
    line: String,
    previous_size: Option<i64>,
    mac: Option<Vec<u8>>,
    mac_key_id: Option<String>,
}

impl CosignatureRow {
    /// Whether this service stored it, for the witness of this key's id.
    fn is_ours(&self, witness: &str, ring: &KeyRing) -> bool {
        let cells = CosignatureCells {
            size: self.tree_size,
            root: &self.root_hash,
            witness,
            line: &self.line,
            previous: self.previous_size,
            mac: self.mac.as_deref(),
            mac_key_id: self.mac_key_id.as_deref(),
        };
        match cells.mac(ring) {
            CosignatureMac::Ours { .. } => true,
            CosignatureMac::Absent | CosignatureMac::Wrong | CosignatureMac::KeyUnknown(_) => false,
        }
    }

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
    ///
    /// It names the one of its witness that was kept before it, as the database has it, or as the caller remembers it: `before`
    /// is the size of one that is known to have been kept, 0 for none. Somebody may have deleted it since.
    pub async fn keep_cosignature(
        &self,
        cosignature: &StoredCosignature,
        before: u64,
    ) -> Result<(), StoreError> {
        let corrupt = |column: &str| StoreError::Corrupt(format!("cosignatures.{column}"));
        let size = cosignature.head.size;
        let column = i64::try_from(size).map_err(|_| corrupt("tree_size"))?;
        let known = self.kept_before(&cosignature.witness, column).await?;
        let previous = known.max(Some(before).filter(|before| *before < size));
        let previous = previous.unwrap_or(0);
        let previous_column = i64::try_from(previous).map_err(|_| corrupt("previous_size"))?;
        let (mac, mac_key_id) = self.inner.keys.cosignature_mac(CosignatureFacts {
            size,
            root: cosignature.head.root.as_bytes(),
            witness: &cosignature.witness,
            line: &cosignature.line,
            previous,
        });
        let write = self
            .inner
            .reader
            .write("keep cosignature", |connection, _| {
                let row = (
                    cosignatures::tree_size.eq(column),
                    cosignatures::witness.eq(cosignature.witness.clone()),
                    cosignatures::root_hash.eq(cosignature.head.root.as_bytes().to_vec()),
                    cosignatures::cosigned_at.eq(cosignature.cosigned_at),
                    cosignatures::line.eq(cosignature.line.clone()),
                    cosignatures::previous_size.eq(previous_column),
                    cosignatures::mac.eq(mac.to_vec()),
                    cosignatures::mac_key_id.eq(mac_key_id.clone()),
                );
                let insert = diesel::insert_into(cosignatures::table)
                    .values(row)
                    .on_conflict_do_nothing();
                async move { insert.execute(connection).await }.boxed()
            });
        write.await.map(|_| ())
    }

    /// Entries of the last cosignature of a witness, by the id of its key, that this service kept of less than so many.
    async fn kept_before(&self, witness: &str, size: i64) -> Result<Option<u64>, StoreError> {
        for limit in COSIGNATURES_READ {
            let rows_read = i64::try_from(limit).unwrap_or(i64::MAX);
            let read = self.inner.reader.read("read cosignatures", |connection| {
                let query = cosignatures::table
                    .select(CosignatureRow::as_select())
                    .filter(cosignatures::witness.eq(witness.to_owned()))
                    .filter(cosignatures::tree_size.lt(size))
                    .order((cosignatures::tree_size.desc(), cosignatures::line))
                    .limit(rows_read);
                async move { query.load::<CosignatureRow>(connection).await }.boxed()
            });
            let rows = read.await?;
            let ours = rows
                .iter()
                .find(|row| row.is_ours(witness, &self.inner.keys));
            if ours.is_some() || rows.len() < limit {
                return Ok(ours.and_then(|row| u64::try_from(row.tree_size).ok()));
            }
        }
        Ok(None)
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
                .select(CosignatureRow::as_select())
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
