//! What an evidence bundle of one payment is made of: its entries as far as they are merged, their proofs, and the
//! personal values that were recorded with it.

mod places;

use diesel::dsl::max;
use diesel::prelude::*;
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
use crate::store::PgStore;
use crate::tree::{TreeDamage, TreeReadError, prove, root_of};

pub use places::{MergedEntries, MergedEntry};

/// Most entries whose proofs are made from tiles that are read at once: at most this many tiles of the lowest level.
const PROOFS_AT_ONCE: usize = 256;

/// A payment's sealed customer, with the customer's id and sealed key.
type SealedRow = (Option<Vec<u8>>, Uuid, Vec<u8>);

fn column(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl PgStore {
    /// Number of the payment's newest entry; `None` where the tenant, or with `None` nobody, has such a payment. It is
    /// told by the journal and by the payment's row, whichever says more: so an entry that was taken away is missed.
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
            let newest = own.select(max(journal::entity_seq));
            // Behind the journal: the entry of this version is there when it is looked for.
            let version = payments::table
                .filter(payments::payment_id.eq(payment.0))
                .select(max(payments::version));
            async move {
                if known.first::<i64>(connection).await.optional()?.is_none() {
                    return Ok(None);
                }
                let newest: Option<i64> = newest.first(connection).await?;
                Ok(newest.max(version.first(connection).await?))
            }
            .boxed()
        });
        let newest = read.await?;
        let newest = newest.map(|newest| u64::try_from(newest).at("journal.entity_seq"));
        newest.transpose()
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
