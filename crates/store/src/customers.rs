//! Customers: one random data key each, made when first seen, under which their data is encrypted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    ages: KeyAges,
}

/// How old customers' keys become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyAges {
    /// How long a process remembers one: no longer, or an erased customer's would be used on.
    pub(crate) remembered_for: Duration,
    /// After which one is in no process any more that was not to be given out, and nothing that was begun with it is under way.
    pub(crate) unused_after: Duration,
}

/// By what data keys are remembered.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum CacheKey {
    /// The MAC of (tenant, reference).
    Reference([u8; 32]),
    /// A payment of the customer's.
    Payment(Uuid),
}

/// A key, and since when it is known that it is not to be forgotten.
#[derive(Clone)]
struct Remembered {
    key: CustomerKey,
    since: Instant,
}

#[derive(Default)]
struct Cache {
    young: HashMap<CacheKey, Remembered>,
    old: HashMap<CacheKey, Remembered>,
}

impl Cache {
    /// The key, if it is remembered for less than `limit`.
    fn get(&mut self, key: &CacheKey, limit: Duration) -> Option<Remembered> {
        let found = match self.young.remove(key) {
            Some(found) => found,
            None => self.old.remove(key)?,
        };
        if found.since.elapsed() >= limit {
            return None;
        }
        self.insert(*key, found.clone());
        Some(found)
    }

    fn insert(&mut self, key: CacheKey, value: Remembered) {
        if self.young.len() >= CACHE_GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

impl Customers {
    pub(crate) fn new(reader: Reader, ring: Arc<KeyRing>, ages: KeyAges) -> Self {
        Self {
            reader,
            ring,
            cache: Arc::default(),
            ages,
        }
    }

    /// When a key is not used by anybody any more.
    pub(crate) fn unused_after(&self) -> Duration {
        self.ages.unused_after
    }

    /// The data key for a new payment of a tenant's customer; makes the customer where it is new.
    pub(crate) async fn key_for_new(
        &self,
        tenant: &str,
        reference: &str,
        payment: Uuid,
    ) -> Result<CustomerKey, StoreError> {
        let mac = self.ring.customer_reference_mac(tenant, reference);
        let remembered = if let Some(remembered) = self.recall(CacheKey::Reference(mac)) {
            remembered
        } else {
            // Before it is read: what is read may be erased while the answer is on its way.
            let since = Instant::now();
            let key = match self.find(tenant, mac).await? {
                Some(key) => key,
                None => self.make(tenant, mac).await?,
            };
            let remembered = Remembered { key, since };
            self.keep(CacheKey::Reference(mac), remembered.clone());
            remembered
        };
        let key = remembered.key.clone();
        self.keep(CacheKey::Payment(payment), remembered);
        Ok(key)
    }

    /// The data key of the customer that a payment was accepted for, whoever has its reference by now.
    /// `None` where there was none, or the customer was erased.
    pub(crate) async fn key_of(&self, payment: Uuid) -> Result<Option<CustomerKey>, StoreError> {
        let remembered = self.recall(CacheKey::Payment(payment));
        if let Some(remembered) = remembered {
            return Ok(Some(remembered.key));
        }
        let since = Instant::now();
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
        self.remember(payment, &key, since);
        Ok(Some(key))
    }

    fn recall(&self, key: CacheKey) -> Option<Remembered> {
        self.cache.lock().get(&key, self.ages.remembered_for)
    }

    fn keep(&self, key: CacheKey, remembered: Remembered) {
        self.cache.lock().insert(key, remembered);
    }

    /// Remembers under which key a payment's personal data is. It was read after `since`: what is read may be erased while the
    /// answer is on its way.
    pub(crate) fn remember(&self, payment: Uuid, key: &CustomerKey, since: Instant) {
        let key = key.clone();
        let remembered = Remembered { key, since };
        self.keep(CacheKey::Payment(payment), remembered);
    }

    async fn find(&self, tenant: &str, mac: [u8; 32]) -> Result<Option<CustomerKey>, StoreError> {
        let row = self.reader.read("find customer", |connection| {
            let query = customers::table
                .filter(customers::tenant_id.eq(tenant.to_owned()))
                .filter(customers::reference_mac.eq(mac.to_vec()))
                .filter(customers::erasing_since.is_null())
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
                .filter_target(customers::erasing_since.is_null())
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
