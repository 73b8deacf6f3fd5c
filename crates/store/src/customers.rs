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
use crate::schema::{customers, payments};
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

/// By what data keys are remembered.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum CacheKey {
    /// The MAC of (tenant, reference).
    Reference([u8; 32]),
    /// A payment of the customer's.
    Payment(Uuid),
}

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

    /// The data key for a new payment of a tenant's customer; makes the customer where it is new.
    pub(crate) async fn key_for_new(
        &self,
        tenant: &str,
        reference: &str,
        payment: Uuid,
    ) -> Result<CustomerKey, StoreError> {
        let mac = self.ring.customer_reference_mac(tenant, reference);
        let remembered = self.cache.lock().get(&CacheKey::Reference(mac));
        let key = match remembered {
            Some(key) => key,
            None => match self.find(tenant, mac).await? {
                Some(key) => key,
                None => self.make(tenant, mac).await?,
            },
        };
        self.cache
            .lock()
            .insert(CacheKey::Reference(mac), key.clone());
        self.remember(payment, &key);
        Ok(key)
    }

    /// The data key of the customer that a payment was accepted for, whoever has its reference by now.
    /// `None` where there was none, or the customer was erased.
    pub(crate) async fn key_of(&self, payment: Uuid) -> Result<Option<CustomerKey>, StoreError> {
        let remembered = self.cache.lock().get(&CacheKey::Payment(payment));
        if remembered.is_some() {
            return Ok(remembered);
        }
        let row = self.reader.read("find customer of payment", |connection| {
            let query = payments::table
                .inner_join(
                    customers::table
                        .on(payments::customer_id.eq(customers::customer_id.nullable())),
                )
                .filter(payments::payment_id.eq(payment))
                .select((customers::customer_id, customers::data_key));
            async move { query.first::<(Uuid, Vec<u8>)>(connection).await.optional() }.boxed()
        });
        let Some((customer, sealed)) = row.await? else {
            return Ok(None);
        };
        let key = CustomerKey::unwrap(&self.ring, customer, &sealed)?;
        self.remember(payment, &key);
        Ok(Some(key))
    }

    /// Remembers under which key a payment's personal data is.
    pub(crate) fn remember(&self, payment: Uuid, key: &CustomerKey) {
        self.cache
            .lock()
            .insert(CacheKey::Payment(payment), key.clone());
    }

    async fn find(&self, tenant: &str, mac: [u8; 32]) -> Result<Option<CustomerKey>, StoreError> {
        let row = self.reader.read("find customer", |connection| {
            let query = customers::table
                .filter(customers::tenant_id.eq(tenant.to_owned()))
                .filter(customers::reference_mac.eq(mac.to_vec()))
                .select((customers::customer_id, customers::data_key));
            async move { query.first::<(Uuid, Vec<u8>)>(connection).await.optional() }.boxed()
        });
        let row = row.await?;
        row.map(|(id, sealed)| CustomerKey::unwrap(&self.ring, id, &sealed))
            .transpose()
    }

    /// Makes the customer; where another was quicker, takes what that one made. That is also how it
    /// knows its own row again, where the answer was lost.
    async fn make(&self, tenant: &str, mac: [u8; 32]) -> Result<CustomerKey, StoreError> {
        let key = CustomerKey::random(Uuid::now_v7());
        let sealed = key.wrap(&self.ring)?;
        let made = self.reader.write("make customer", |connection, _| {
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
        let found = self.find(tenant, mac).await?;
        found.ok_or_else(|| StoreError::Corrupt("customers.reference_mac".to_owned()))
    }
}
