//! What an evidence bundle of one payment is made of: its entries as far as they are merged, their proofs, and the
//! personal values that were recorded with it.

mod places;

use diesel::dsl::max;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ids::{PaymentId, TenantId};
use quittance_domain::ports::StoreError;
use quittance_evidence::tile::TileSet;
use quittance_evidence::tree::{Path, frontier, verify_inclusion};
use quittance_evidence::{Disclosure, Hash};
use uuid::Uuid;

use crate::payment_row::ReadAs as _;
use crate::prepare::SealedCustomer;
use crate::schema::{customers, journal, payments};
use crate::sealing::{CustomerKey, Place, open};
use crate::sequencer::Claimed;
use crate::statement::statement;
use crate::store::PgStore;
use crate::tree::{TreeDamage, TreeReadError, prove, root_of};
use crate::warning::Thinned;

pub use places::{MergedEntries, MergedEntry};

/// Most entries whose proofs are made from tiles that are read at once: at most this many tiles of the lowest level.
const PROOFS_AT_ONCE: usize = 256;
/// Rows behind a payment's newest entry that are read at once: 2 MiB of them at most. There is none that we wrote.
const BEHIND_AT_ONCE: i64 = 32;
/// How often more of them are read, where all were put in.
const MAX_BEHIND_READS: usize = 128;

static PUT_IN: Thinned = Thinned::new();

/// A payment's sealed customer, with the customer's id and sealed key.
type SealedRow = (Option<Vec<u8>>, Uuid, Vec<u8>);

fn column(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Rows of a payment that are numbered behind its version, the last first. An entry commits together with its version, so
/// in one snapshot there is none, unless one of both was written past us.
struct ReadBehind {
    payment: Uuid,
    /// Up to this number.
    to: i64,
}

type BehindTypes = (BigInt, SqlUuid, Binary, Binary, Text);
type BehindTuple = (i64, Uuid, Vec<u8>, Vec<u8>, String);

statement!(ReadBehind, ReadBehind, BehindTypes, |self, out| {
    out.push_sql(
        "select entity_seq, entry_id, substr(leaf, 1, 65536), substr(mac, 1, 33), left(mac_key_id, 1024) \
         from journal where stream_id = ",
    );
    out.push_bind_param::<SqlUuid, _>(&self.payment)?;
    out.push_sql(
        " and entity_seq > coalesce((select max(version) from payments where payment_id = ",
    );
    out.push_bind_param::<SqlUuid, _>(&self.payment)?;
    out.push_sql("), 0) and entity_seq <= ");
    out.push_bind_param::<BigInt, _>(&self.to)?;
    out.push_sql(" order by entity_seq desc limit ");
    out.push_bind_param::<BigInt, _>(&BEHIND_AT_ONCE)?;
});

impl PgStore {
    /// Number of the payment's newest entry; `None` where the tenant, or with `None` nobody, has such a payment. It is
    /// told by the journal and by the payment's row, whichever says more: so an entry that was taken away is missed. Rows
    /// that this service did not write count for nothing, and are reported: anybody could keep the evidence back with one.
    pub async fn newest_entry(
        &self,
        tenant: Option<&TenantId>,
        payment: PaymentId,
    ) -> Result<Option<u64>, StoreError> {
        let read = self.inner.reader.read("find last entry", |connection| {
            let own = journal::table.filter(journal::stream_id.eq(payment.0));
            let mut known = own
                .filter(journal::payment_id.eq(payment.0))
                .select(journal::entity_seq)
                .into_boxed();
            if let Some(tenant) = tenant {
                known = known.filter(journal::tenant_id.eq(tenant.as_str().to_owned()));
            }
            async move { known.first::<i64>(connection).await.optional() }.boxed()
        });
        if read.await?.is_none() {
            return Ok(None);
        }
        let behind = self.newest_behind(payment).await?;
        // Behind the journal: the entry of this version is there when it is looked for.
        let read = self.inner.reader.read("read version", |connection| {
            let version = payments::table
                .filter(payments::payment_id.eq(payment.0))
                .select(max(payments::version));
            async move { version.first::<Option<i64>>(connection).await }.boxed()
        });
        let newest = behind.max(read.await?);
        let newest = newest.map(|newest| u64::try_from(newest).at("journal.entity_seq"));
        newest.transpose()
    }

    /// The last entry of ours behind the payment's version, where there is one. Whoever wrote thousands of rows there hides
    /// it: so much as whoever deletes it.
    async fn newest_behind(&self, payment: PaymentId) -> Result<Option<i64>, StoreError> {
        let (mut to, mut put_in, mut newest) = (i64::MAX, 0, None);
        for _ in 0..MAX_BEHIND_READS {
            let read = self.inner.reader.read("find entries behind", |connection| {
                let payment = payment.0;
                async move {
                    let query = ReadBehind { payment, to };
                    query.load::<BehindTuple>(connection).await
                }
                .boxed()
            });
            let rows = read.await?;
            let ours = |(entity_seq, entry_id, leaf, mac, mac_key_id): &BehindTuple| {
                let claimed = Claimed {
                    stream_id: payment.0,
                    entity_seq: *entity_seq,
                    entry_id: *entry_id,
                    leaf,
                    mac,
                    mac_key_id,
                };
                claimed.is_authentic(&self.inner.keys)
            };
            let found = rows.iter().position(ours);
            put_in += found.unwrap_or(rows.len());
            newest = found.and_then(|at| rows.get(at)).map(|row| row.0);
            match rows.last() {
                Some(last) if newest.is_none() => to = last.0.saturating_sub(1),
                Some(_) | None => break,
            }
        }
        self.report_put_in(put_in);
        Ok(newest)
    }

    /// Tells of rows behind a payment's newest entry that this service did not write.
    fn report_put_in(&self, count: usize) {
        if count == 0 {
            return;
        }
        self.inner.observer.verification_failed("entry", count);
        if PUT_IN.due().is_some() {
            tracing::error!(
                count,
                "journal rows behind a payment's newest entry are not ours: they are passed over"
            );
        }
    }

    /// The personal values that were recorded with a payment of this tenant. None where there was no customer, or
    /// their erasure is asked for: what is being erased is shown to nobody any more.
    pub async fn disclosures(
        &self,
        tenant: &TenantId,
        payment: PaymentId,
    ) -> Result<Vec<Disclosure>, StoreError> {
        // Past the keys that are remembered: those know nothing of an erasure.
        let read = self.inner.reader.read("read disclosures", |connection| {
            let query = payments::table
                .inner_join(
                    customers::table
                        .on(payments::customer_id.eq(customers::customer_id.nullable())),
                )
                .filter(payments::payment_id.eq(payment.0))
                .filter(payments::tenant_id.eq(tenant.as_str().to_owned()))
                .filter(customers::erasing_since.is_null())
                .select((
                    payments::customer_sealed,
                    customers::customer_id,
                    customers::data_key,
                ));
            async move { query.first::<SealedRow>(connection).await.optional() }.boxed()
        });
        let Some((Some(sealed), customer, key)) = read.await? else {
            return Ok(Vec::new());
        };
        let ring = &self.inner.keys;
        let key = CustomerKey::unwrap(ring, customer, &key)?;
        let place = Place::new("payments", "customer_sealed", payment.0);
        let plain = open(ring, Some(&key), place, &sealed)?;
        let value: SealedCustomer =
            serde_json::from_slice(&plain).at("payments.customer_sealed")?;
        value.disclosures().at("payments.customer_sealed")
    }

    /// The proofs that entries, given by leaf hash and place, are in the tree of `size` entries, and the root that they
    /// lead to. Each was verified: one that would not convince anybody is `Damaged`.
    pub async fn inclusion_proofs(
        &self,
        leaves: &[(Hash, u64)],
        size: u64,
    ) -> Result<(Vec<Vec<Hash>>, Hash), TreeReadError> {
        let root = self.tree_root(size).await?;
        let mut proofs = Vec::with_capacity(leaves.len());
        for some in leaves.chunks(PROOFS_AT_ONCE) {
            let paths = some.iter().map(|(_, index)| Path::inclusion(*index, size));
            let paths: Vec<Path> = paths.collect::<Result<_, _>>()?;
            let nodes = paths.iter().flat_map(Path::nodes);
            let tiles = self.tiles_holding(nodes.chain(frontier(size))).await?;
            if root_of(&tiles, size)? != root {
                return Err(TreeDamage::Root.into());
            }
            for (path, (leaf, index)) in paths.iter().zip(some) {
                proofs.push(verified(&tiles, path, leaf, *index, size, &root)?);
            }
        }
        Ok((proofs, root))
    }
}

fn verified(
    tiles: &TileSet,
    path: &Path,
    leaf: &Hash,
    index: u64,
    size: u64,
    root: &Hash,
) -> Result<Vec<Hash>, TreeDamage> {
    let proof = prove(tiles, path)?;
    verify_inclusion(leaf, index, size, &proof, root).map_err(|_| TreeDamage::Root)?;
    Ok(proof)
}
