//! What is stored of what witnesses said, read with the part of the tree that it is about.

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use quittance_domain::verification::{CosignatureMac, CosignatureRow};
use quittance_evidence::note::VerifierKey;

use crate::keys::KeyRing;
use crate::statement::statement;
use crate::tree::{CosignatureCells, witness_id};

/// Most cosignatures of one witness that are compared with one page: it gives one for a checkpoint. One has some hundred bytes.
const MAX_COSIGNATURES: usize = 8_192;

/// Reads cosignatures of some witnesses by size.
pub(super) struct ReadCosignatures {
    first: i64,
    to: i64,
    witnesses: Vec<String>,
    limit: i64,
}

type CosignatureTypes = (
    BigInt,
    Binary,
    Text,
    Text,
    (Nullable<BigInt>, Nullable<Binary>, Nullable<Text>),
);
type CosignatureTuple = (
    i64,
    Vec<u8>,
    String,
    String,
    (Option<i64>, Option<Vec<u8>>, Option<String>),
);

/// What the MAC of a row says.
fn mac(row: &CosignatureTuple, keys: &KeyRing) -> CosignatureMac {
    let (size, root, witness, line, (previous, mac, mac_key_id)) = row;
    let cells = CosignatureCells {
        size: *size,
        root,
        witness,
        line,
        previous: *previous,
        mac: mac.as_deref(),
        mac_key_id: mac_key_id.as_deref(),
    };
    cells.mac(keys)
}

statement!(
    ReadCosignatures,
    ReadCosignatures,
    CosignatureTypes,
    |self, out| {
        // Cut behind the longest that the service writes.
        out.push_sql(
            "select tree_size, substr(root_hash, 1, 33), witness, left(line, 1025), \
             previous_size, substr(mac, 1, 33), left(mac_key_id, 1024) from cosignatures where tree_size >= ",
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
        keys: &KeyRing,
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
        let mut rows: Vec<CosignatureTuple> = read.load(connection).await?;
        let cut = rows.len() > most;
        rows.truncate(most);
        let last = rows.last().map(|row| row.0);
        let rows = rows.into_iter().filter_map(|row| {
            let mac = mac(&row, keys);
            let (size, root, id, line, _) = row;
            let (_, key) = known.iter().find(|(known, _)| *known == id)?;
            Some(CosignatureRow {
                size,
                root,
                witness: (*key).clone(),
                line,
                mac,
            })
        });
        Ok((rows.collect(), last.filter(|_| cut)))
    }

    /// Whether the service stored one of this size and witness.
    pub(super) async fn is_stored(
        size: i64,
        witness: &VerifierKey,
        keys: &KeyRing,
        connection: &mut AsyncPgConnection,
    ) -> QueryResult<bool> {
        let witnesses = std::slice::from_ref(witness);
        let (rows, _) = Self::page((size, size), witnesses, keys, connection).await?;
        let ours = |row: &CosignatureRow| match row.mac {
            CosignatureMac::Ours { .. } | CosignatureMac::KeyUnknown(_) => true,
            CosignatureMac::Absent | CosignatureMac::Wrong => false,
        };
        Ok(rows.iter().any(ours))
    }
}
