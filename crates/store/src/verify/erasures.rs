//! Erasures that entries say were done, against their rows and the customers that are stored.

use diesel::sql_types::{Array, Bool, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ids::CustomerId;
use quittance_domain::ports::StoreError;
use quittance_domain::verification::{
    CheckedEntry, Mismatch, StoredErasure, compare_erasure, erasure_done,
};
use uuid::Uuid;

use super::read::Verifying;
use crate::statement::statement;

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
