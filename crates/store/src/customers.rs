//! Customers: one random data key each, made when first seen, under which their data is encrypted.

use std::collections::HashMap;
use std::sync::Arc;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use parking_lot::Mutex;
use quittance_domain::ports::StoreError;
use uuid::Uuid;

use crate::keys::KeyRing;
use crate::pool::Reader;
use crate::schema::customers;
use crate::sealing::CustomerKey;

/// Data keys remembered in each of two generations: one that is used moves to the young one.
const CACHE_GENERATION: usize = 5_000;

/// Finds and makes customers' data keys.
#[derive(Clone)]
pub(crate) struct Customers {
    reader: Reader,
    ring: Arc<KeyRing>,
    cache: Arc<Mutex<Cache>>,
}

/// The MAC of (tenant, reference) under the active key.
type CacheKey = [u8; 32];

#[derive(Default)]
struct Cache {
    young: HashMap<CacheKey, CustomerKey>,
    old: HashMap<CacheKey, CustomerKey>,
}

impl Cache {
    fn get(&mut self, key: &CacheKey) -> Option<CustomerKey> {
        if let Some(found) = self.young.get(key) {
            return Some(found.clone());
        }
        let found = self.old.remove(key)?;
        self.insert(*key, found.clone());
        Some(found)
    }

    fn insert(&mut self, key: CacheKey, value: CustomerKey) {
        if self.young.len() >= CACHE_GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

impl Customers {
    pub(crate) fn new(reader: Reader, ring: Arc<KeyRing>) -> Self {
        Self {
            reader,
            ring,
            cache: Arc::default(),
        }
    }

    /// The data key of a tenant's customer; makes the customer where it is new.
    pub(crate) async fn key(
        &self,
        tenant: &str,
        reference: &str,
    ) -> Result<CustomerKey, StoreError> {
        let macs = self.ring.customer_reference_macs(tenant, reference);
        let active = *macs
            .as_slice()
            .first()
            .ok_or_else(|| StoreError::Corrupt("key ring".to_owned()))?;
        if let Some(found) = self.cache.lock().get(&active) {
            return Ok(found);
        }
        let key = match self.find(tenant, &macs).await? {
            Some(found) => found,
            None => self.make(tenant, active, &macs).await?,
        };
        self.cache.lock().insert(active, key.clone());
        Ok(key)
    }

    async fn find(
        &self,
        tenant: &str,
        macs: &[[u8; 32]],
    ) -> Result<Option<CustomerKey>, StoreError> {
        let macs: Vec<Vec<u8>> = macs.iter().map(|mac| mac.to_vec()).collect();
        let row = self.reader.read("find customer", |connection| {
            let query = customers::table
                .filter(customers::tenant_id.eq(tenant.to_owned()))
                .filter(customers::reference_mac.eq_any(macs.clone()))
                .order(customers::customer_id)
                .select((customers::customer_id, customers::data_key));
            async move { query.first::<(Uuid, Vec<u8>)>(connection).await.optional() }.boxed()
        });
        let row = row.await?;
        row.map(|(id, sealed)| CustomerKey::unwrap(&self.ring, id, &sealed))
            .transpose()
    }

    /// Makes the customer; where another was quicker, takes what that one made.
    async fn make(
        &self,
        tenant: &str,
        mac: CacheKey,
        macs: &[[u8; 32]],
    ) -> Result<CustomerKey, StoreError> {
        let key = CustomerKey::random(Uuid::now_v7());
        let sealed = key.wrap(&self.ring)?;
        let made = self.reader.read("make customer", |connection| {
            let query = diesel::insert_into(customers::table)
                .values((
                    customers::customer_id.eq(key.customer),
                    customers::tenant_id.eq(tenant.to_owned()),
                    customers::reference_mac.eq(mac.to_vec()),
                    customers::data_key.eq(sealed.clone()),
                ))
                .on_conflict((customers::tenant_id, customers::reference_mac))
                .do_nothing();
            async move { query.execute(connection).await }.boxed()
        });
        if made.await? == 1 {
            return Ok(key);
        }
        let found = self.find(tenant, macs).await?;
        found.ok_or_else(|| StoreError::Corrupt("customers.reference_mac".to_owned()))
    }
}
