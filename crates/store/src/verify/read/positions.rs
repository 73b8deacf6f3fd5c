//! The positions, in pages that are each of one moment with the tree.

use std::sync::Arc;

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Binary, Nullable, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ports::StoreError;
use quittance_domain::verification::{PositionRow, TreeEnd, TreePage};
use quittance_evidence::note::VerifierKey;
use uuid::Uuid;

use super::{POSITIONS, Verifying, head};
use crate::verify::tree::TreePart;

/// Positions from one on, with what the journal has for each. Where somebody dropped a key and repeated entries, one row more than
/// [`POSITIONS`] shows it, whatever more there are.
struct ReadPositions {
    from: i64,
}

type PositionTypes = (
    BigInt,
    BigInt,
    SqlUuid,
    SqlUuid,
    BigInt,
    Nullable<BigInt>,
    Nullable<SqlUuid>,
    Nullable<Binary>,
);

type PositionTuple = (
    i64,
    i64,
    Uuid,
    Uuid,
    i64,
    Option<i64>,
    Option<Uuid>,
    Option<Vec<u8>>,
);

impl QueryFragment<Pg> for ReadPositions {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "select p.position, p.arrival, p.entry_id, p.stream_id, p.entity_seq, \
             j.arrival, j.entry_id, substr(j.leaf_hash, 1, 33) \
             from (select * from journal_positions where position >= ",
        );
        out.push_bind_param::<BigInt, _>(&self.from)?;
        out.push_sql(" order by position limit ");
        out.push_bind_param::<BigInt, _>(&POSITIONS)?;
        out.push_sql(
            ") p left join journal j on j.stream_id = p.stream_id and j.entity_seq = p.entity_seq \
             order by p.position limit ",
        );
        out.push_bind_param::<BigInt, _>(&(POSITIONS + 1))?;
        Ok(())
    }
}

impl QueryId for ReadPositions {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for ReadPositions {
    type SqlType = PositionTypes;
}

/// Positions, and the sequencer's head and the tree of the same moment.
pub(in crate::verify) struct PositionPage {
    pub(in crate::verify) rows: Vec<PositionRow>,
    pub(in crate::verify) head: i64,
    pub(in crate::verify) tree: TreePage,
    /// Where nothing comes behind it: what is stored beyond the log.
    pub(in crate::verify) end: Option<TreeEnd>,
}

impl Verifying {
    /// The positions from one on, and what is stored about the part of the tree that they are; `tree` is how large the
    /// tree is that was rebuilt so far.
    pub(in crate::verify) async fn positions(
        &mut self,
        from: i64,
        tree: u64,
        witnesses: &Arc<[VerifierKey]>,
    ) -> Result<PositionPage, StoreError> {
        let keys = Arc::clone(&self.store.inner.keys);
        self.read(|connection| {
            let (keys, witnesses) = (Arc::clone(&keys), Arc::clone(witnesses));
            async move {
                let mut transaction = connection.build_transaction().repeatable_read().read_only();
                transaction
                    .run(async |connection| {
                        let rows: Vec<PositionTuple> =
                            ReadPositions { from }.load(connection).await?;
                        let (head, _) = head(connection).await?;
                        let last = i64::try_from(rows.len()).is_ok_and(|rows| rows < POSITIONS);
                        let rows: Vec<PositionRow> = rows.into_iter().map(position_row).collect();
                        let to = rows.last().map(|row| row.position.saturating_add(1));
                        let part = TreePart::new(tree, to.and_then(|to| u64::try_from(to).ok()));
                        let end = if last {
                            Some(part.end(connection, &witnesses).await?)
                        } else {
                            None
                        };
                        let tree = part.page(connection, &keys, &witnesses).await?;
                        Ok(PositionPage {
                            rows,
                            head,
                            tree,
                            end,
                        })
                    })
                    .await
            }
            .boxed()
        })
        .await
    }
}

fn position_row(row: PositionTuple) -> PositionRow {
    let (position, arrival, entry_id, stream_id, entity_seq, found_arrival, found_entry, hash) =
        row;
    let found = match (found_arrival, found_entry, hash) {
        (Some(arrival), Some(entry), Some(hash)) => Some((arrival, entry, hash)),
        _ => None,
    };
    PositionRow {
        position,
        arrival,
        entry_id,
        stream_id,
        entity_seq,
        found,
    }
}
