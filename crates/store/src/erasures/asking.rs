//! Asking for erasures, and telling how far they are.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Double, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::erasure::{Erasure, NewErasure};
use quittance_domain::ids::{CustomerId, ErasureId, TenantId};
use quittance_domain::ports::StoreError;
use quittance_domain::text::Sensitive;
use uuid::Uuid;

use super::ErasureRow;
use super::said::{self, ReadSaid, SaidRow};
use crate::schema::customers;
use crate::sequencer::UNKNOWN_KEY_CHECK;
use crate::store::PgStore;

/// Most customers, or erasures, of one reference that are looked at: one after the other has it, the newest first. More than
/// that somebody put there.
const MOST_OF_ONE_REFERENCE: i64 = 16;

/// Whoever asks at the same moment waits for the customer's row, and then finds the erasure there. Due once every process has
/// forgotten the key, and whatever was begun with it is over.
const REQUEST: &str = "\
    with known as ( \
        update customers set erasing_since = coalesce(erasing_since, now()) \
        where tenant_id = $1 and customer_id = $2 \
        returning reference_mac \
    ) \
    insert into erasures (erasure_id, tenant_id, reference_mac, customer_id, next_step_at) \
    select $3, $1, reference_mac, $2, now() + make_interval(secs => $4) from known \
    on conflict do nothing";

const FIND: &str = "\
    select erasure_id, tenant_id, customer_id, requested_at, open_payments, finished_at is not null as closed \
    from erasures where customer_id = $1 or ($1 is null and tenant_id = $2 and reference_mac = $3) \
    order by requested_at desc limit $4";

const READ: &str = "\
    select erasure_id, tenant_id, customer_id, requested_at, open_payments, finished_at is not null as closed \
    from erasures where tenant_id = $1 and erasure_id = $2";

/// Takes one up again, under the id that the log knows.
const REOPEN: &str = "\
    update erasures set erasure_id = $2, tenant_id = $3, reference_mac = $4, payments = null, finished_at = null, \
        next_step_at = now() + make_interval(secs => $5), claimed_until = null \
    where erasure_id = $1 and customer_id = $6";

impl PgStore {
    pub(crate) async fn customer_to_erase(
        &self,
        tenant: &TenantId,
        reference: &Sensitive<String>,
    ) -> Result<Option<CustomerId>, StoreError> {
        let (tenant, reference) = (tenant.as_str(), reference.expose());
        let mac = self.inner.keys.customer_reference_mac(tenant, reference);
        let read = self
            .inner
            .reader
            .read("find customer to erase", |connection| {
                let query = customers::table
                    .filter(customers::tenant_id.eq(tenant.to_owned()))
                    .filter(customers::reference_mac.eq(mac.to_vec()))
                    .order(customers::erasing_since.desc().nulls_first())
                    .limit(MOST_OF_ONE_REFERENCE)
                    .select((customers::customer_id, customers::erasing_since.is_null()));
                async move { query.load::<(Uuid, bool)>(connection).await }.boxed()
            });
        let found = read.await?;
        if let Some((customer, true)) = found.as_slice().first() {
            return Ok(Some(CustomerId(*customer)));
        }
        // One that is being erased is there to be erased where the log, or its erasure's row, says nothing of that.
        let found: Vec<Uuid> = found.into_iter().map(|(customer, _)| customer).collect();
        let said = self.said_of(found.clone()).await?;
        let asked = said::requested(&said, &self.inner.keys);
        let left = found.into_iter().find(|id| !asked.contains(id));
        Ok(left.map(CustomerId))
    }

    pub(crate) async fn store_erasure(
        &self,
        new: NewErasure,
    ) -> Result<Option<Erasure>, StoreError> {
        let (tenant, reference) = (new.tenant.as_str(), new.reference.expose());
        let mac = self.inner.keys.customer_reference_mac(tenant, reference);
        if let Some(customer) = new.customer {
            self.insert_erasure(&new, customer).await?;
        }
        let rows = self.find_erasures(&new, &mac).await?;
        let customers = rows.iter().map(|row| row.customer_id).collect();
        let said = self.said_of(customers).await?;
        for mut row in rows {
            let asked = said::asked(&said, row.erasure_id, &self.inner.keys);
            if asked.is_none() && new.customer.is_none() {
                // Somebody put it there, and nobody of whom the log knows is meant by it.
                continue;
            }
            if asked.is_none() || row.closed {
                let known = asked.as_ref().map_or(new.id.0, |_| row.erasure_id);
                self.reopen_erasure(&row, known, &new.tenant, &mac).await?;
                row.erasure_id = known;
                row.tenant_id = tenant.to_owned();
            }
            let done = asked.and_then(|asked| asked.done);
            return row.into_erasure(done).map(Some);
        }
        Ok(None)
    }

    /// Made again after a lost connection it changes nothing, and what is there is read.
    async fn insert_erasure(
        &self,
        new: &NewErasure,
        customer: CustomerId,
    ) -> Result<(), StoreError> {
        let unused_after = self.inner.customers.unused_after().as_secs_f64();
        let written = self.inner.reader.write("request erasure", |connection, _| {
            let query = diesel::sql_query(REQUEST)
                .bind::<Text, _>(new.tenant.as_str().to_owned())
                .bind::<SqlUuid, _>(customer.0)
                .bind::<SqlUuid, _>(new.id.0)
                .bind::<Double, _>(unused_after);
            async move { query.execute(connection).await }.boxed()
        });
        written.await.map(drop)
    }

    /// The erasure of the customer that is meant, or else those of the reference, the newest first.
    async fn find_erasures(
        &self,
        new: &NewErasure,
        mac: &[u8; 32],
    ) -> Result<Vec<ErasureRow>, StoreError> {
        let read = self.inner.reader.read("find erasure", |connection| {
            let query = diesel::sql_query(FIND)
                .bind::<Nullable<SqlUuid>, _>(new.customer.map(|customer| customer.0))
                .bind::<Text, _>(new.tenant.as_str().to_owned())
                .bind::<Binary, _>(mac.to_vec())
                .bind::<BigInt, _>(MOST_OF_ONE_REFERENCE);
            async move { query.load::<ErasureRow>(connection).await }.boxed()
        });
        read.await
    }

    /// Has one that is closed, or that the log does not know, be taken up as any other.
    async fn reopen_erasure(
        &self,
        row: &ErasureRow,
        known: Uuid,
        tenant: &TenantId,
        mac: &[u8; 32],
    ) -> Result<(), StoreError> {
        let unused_after = self.inner.customers.unused_after().as_secs_f64();
        let written = self.inner.reader.write("reopen erasure", |connection, _| {
            let query = diesel::sql_query(REOPEN)
                .bind::<SqlUuid, _>(row.erasure_id)
                .bind::<SqlUuid, _>(known)
                .bind::<Text, _>(tenant.as_str().to_owned())
                .bind::<Binary, _>(mac.to_vec())
                .bind::<Double, _>(unused_after)
                .bind::<SqlUuid, _>(row.customer_id);
            async move { query.execute(connection).await }.boxed()
        });
        written.await.map(drop)
    }

    pub(crate) async fn read_erasure(
        &self,
        tenant: &TenantId,
        id: ErasureId,
    ) -> Result<Option<Erasure>, StoreError> {
        let read = self.inner.reader.read("read erasure", |connection| {
            let query = diesel::sql_query(READ)
                .bind::<Text, _>(tenant.as_str().to_owned())
                .bind::<SqlUuid, _>(id.0);
            async move { query.get_result::<ErasureRow>(connection).await.optional() }.boxed()
        });
        let Some(row) = read.await? else {
            return Ok(None);
        };
        let said = self.said_of(vec![row.customer_id]).await?;
        let Some(asked) = said::asked(&said, id.0, &self.inner.keys) else {
            return Ok(None);
        };
        row.into_erasure(asked.done).map(Some)
    }

    /// What the log says of the erasures of these customers.
    ///
    /// # Errors
    /// Also where the ring lacks a key, and what is said can therefore not be told from what somebody put there: it is
    /// neither believed, nor is an erasure under way given another id.
    pub(super) async fn said_of(&self, customers: Vec<Uuid>) -> Result<Vec<SaidRow>, StoreError> {
        if customers.is_empty() {
            return Ok(Vec::new());
        }
        let read = self
            .inner
            .reader
            .read("read erasure's entries", |connection| {
                let read = ReadSaid::of(customers.clone());
                async move { read.load::<SaidRow>(connection).await }.boxed()
            });
        let said = read.await?;
        match said::unjudged(&said, &self.inner.keys) {
            None => Ok(said),
            Some(erasure) => {
                self.inner
                    .observer
                    .verification_failed(UNKNOWN_KEY_CHECK, 1);
                Err(StoreError::Corrupt(format!(
                    "journal.mac_key_id of erasure {erasure}: this process lacks the key"
                )))
            }
        }
    }
}
