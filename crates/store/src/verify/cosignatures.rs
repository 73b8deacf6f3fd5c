//! What is stored of what witnesses said, read with the part of the tree that it is about.

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use quittance_domain::verification::CosignatureRow;
use quittance_evidence::note::VerifierKey;

use crate::statement::statement;
use crate::tree::witness_id;

/// Most cosignatures of one witness that are compared with one page: it gives one for a checkpoint. One has some hundred bytes.
const MAX_COSIGNATURES: usize = 8_192;

/// Reads cosignatures of some witnesses by size.
pub(super) struct ReadCosignatures {
    first: i64,
    to: i64,
    witnesses: Vec<String>,
    limit: i64,
}

statement!(
    ReadCosignatures,
    ReadCosignatures,
    (BigInt, Binary, Text, Text),
    |self, out| {
        // Cut behind the longest that the service writes.
        out.push_sql(
            "select tree_size, substr(root_hash, 1, 33), witness, left(line, 1025) from cosignatures where tree_size >= ",
        );
        out.push_bind_param::<BigInt, _>(&self.first)?;
        out.push_sql(" and tree_size <= ");
        out.push_bind_param::<BigInt, _>(&self.to)?;
        out.push_sql(" and witness = any(");
        out.push_bind_param::<Array<Text>, _>(&self.witnesses)?;
        out.push_sql(") order by tree_size limit ");
        out.push_bind_param::<BigInt, _>(&self.limit)?;
    }
);

impl ReadCosignatures {
    /// Those of these sizes, and from which size on some were not read.
    pub(super) async fn page(
        (first, to): (i64, i64),
        witnesses: &[VerifierKey],
        connection: &mut AsyncPgConnection,
    ) -> QueryResult<(Vec<CosignatureRow>, Option<i64>)> {
        let known: Vec<(String, &VerifierKey)> =
            witnesses.iter().map(|key| (witness_id(key), key)).collect();
        // One of each witness for each checkpoint.
        let most = known.len().saturating_mul(MAX_COSIGNATURES);
        if known.is_empty() {
            return Ok((Vec::new(), None));
        }
        let read = Self {
            first,
            to,
            witnesses: known.iter().map(|(id, _)| id.clone()).collect(),
            limit: i64::try_from(most.saturating_add(1)).unwrap_or(i64::MAX),
        };
        let mut rows: Vec<(i64, Vec<u8>, String, String)> = read.load(connection).await?;
        let cut = rows.len() > most;
        rows.truncate(most);
        let last = rows.last().map(|row| row.0);
        let rows = rows.into_iter().filter_map(|(size, root, id, line)| {
            let (_, key) = known.iter().find(|(known, _)| *known == id)?;
            Some(CosignatureRow {
                size,
                root,
                witness: (*key).clone(),
                line,
            })
        });
        Ok((rows.collect(), last.filter(|_| cut)))
    }
}
