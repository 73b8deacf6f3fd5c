//! Erasures that entries say were done, against their rows and the customers that are stored; and those whose rows say that
//! they were done, against the entries.

use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ids::{CustomerId, ErasureId};
use quittance_domain::ports::StoreError;
use quittance_domain::verification::{
    CheckedEntry, Mismatch, StoredErasure, UnjudgedErasure, compare_erasure, erasure_done,
    erasure_without_entry,
};
use uuid::Uuid;

use super::Events;
use super::claims::Behind;
use super::read::Verifying;
use crate::erasures::{ReadSaid, SaidRow, asked, undecided};
use crate::statement::statement;

/// Closed erasures of one page: of each, up to four entries are read.
const PAGE: i64 = 128;

/// The rows of some erasures, and whether their customers are there, in the order in which they are asked for. Of several
/// rows, where somebody dropped a key, the one that fits.
struct ReadErasures {
    erasures: Vec<Uuid>,
    customers: Vec<Uuid>,
}

type Types = (Nullable<SqlUuid>, Nullable<Text>, Bool);
type Row = (Option<Uuid>, Option<String>, bool);

statement!(ReadErasures, ReadErasures, Types, |self, out| {
    out.push_sql(
        "select e.customer_id, left(e.tenant_id, 1024), \
         exists (select from customers k where k.customer_id = c.customer_id) from unnest(",
    );
    out.push_bind_param::<Array<SqlUuid>, _>(&self.erasures)?;
    out.push_sql(", ");
    out.push_bind_param::<Array<SqlUuid>, _>(&self.customers)?;
    out.push_sql(
        ") with ordinality c (erasure_id, customer_id, place) \
         left join lateral (select * from erasures e where e.erasure_id = c.erasure_id \
         order by e.customer_id = c.customer_id desc limit 1) e on true order by c.place",
    );
});

/// Holds what is stored to these entries, each of which says that an erasure was done. A key is destroyed before its entry,
/// and never comes back; so the rows may be read after the entries.
pub(super) async fn compare(
    connection: &mut Verifying,
    entries: &[CheckedEntry],
) -> Result<Vec<Mismatch>, StoreError> {
    let mut found = Vec::new();
    let said: Vec<_> = entries.iter().filter_map(erasure_done).collect();
    if said.is_empty() {
        return Ok(found);
    }
    let rows = connection.read(|connection| {
        let query = ReadErasures {
            erasures: said.iter().map(|said| said.erasure.0).collect(),
            customers: said.iter().map(|said| said.customer.0).collect(),
        };
        async move { query.load::<Row>(connection).await }.boxed()
    });
    for (entry, (customer, tenant, customer_is_there)) in entries.iter().zip(rows.await?) {
        let stored = StoredErasure {
            row: customer.map(CustomerId).zip(tenant),
            customer_is_there,
        };
        compare_erasure(entry, &stored, &mut found);
    }
    Ok(found)
}

/// Erasures behind one whose rows say that nothing more is to be done, with their customers.
struct ReadClosed {
    after: Behind,
}

statement!(ReadClosed, ReadClosed, (SqlUuid, SqlUuid), |self, out| {
    out.push_sql("select erasure_id, customer_id from erasures where finished_at is not null and ");
    self.after.push("erasure_id", &mut out)?;
    out.push_sql(" order by erasure_id limit ");
    out.push_bind_param::<BigInt, _>(&PAGE)?;
});

/// Looks for erasures that are closed and were not done, as far as that can be told here. The entry that says so is written
/// before the row is closed; so the entries may be read after the rows.
pub(super) async fn verify(connection: &mut Verifying, events: &Events) -> Result<(), StoreError> {
    let mut after = Behind::default();
    loop {
        let page = connection.read(|connection| {
            let query = ReadClosed { after };
            async move { query.load::<(Uuid, Uuid)>(connection).await }.boxed()
        });
        let page = page.await?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        after = Behind::id(*last);
        let said = connection.read(|connection| {
            let query = ReadSaid::of(page.iter().map(|(_, customer)| *customer).collect());
            async move { query.load::<SaidRow>(connection).await }.boxed()
        });
        let said = said.await?;
        let keys = connection.keys();
        let undecided = undecided(&said, keys);
        let without = page.into_iter().filter(|(erasure, _)| {
            let asked = asked(&said, *erasure, keys);
            asked.and_then(|asked| asked.done).is_none()
        });
        let found = without.map(|(erasure, customer)| {
            let unjudged = undecided.get(&customer);
            let unjudged = unjudged.filter(|unjudged| unjudged.erasure.0 == erasure);
            unjudged.map_or_else(
                || erasure_without_entry(ErasureId(erasure)),
                UnjudgedErasure::mismatch,
            )
        });
        let found = found.collect();
        events.found(found).await?;
    }
}
