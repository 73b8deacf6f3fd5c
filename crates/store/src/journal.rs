//! Reading the journal.

use diesel::expression::SqlLiteral;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Binary, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::FutureExt as _;
use quittance_domain::ids::{EntryId, TenantId};
use quittance_domain::ports::{Authenticity, EntryFilter, StoreError, StoredEntry};
use uuid::Uuid;

use crate::keys::KeyRing;
use crate::schema::{journal, journal_positions};
use crate::sequencer::{claimed, claimed_leaf, claimed_mac, claimed_mac_key_id};
use crate::store::PgStore;

/// An entry as read.
#[derive(Queryable)]
struct Row {
    entry_id: Uuid,
    stream_id: Uuid,
    entity_seq: i64,
    leaf: Vec<u8>,
    mac: Vec<u8>,
    mac_key_id: String,
    position: Option<i64>,
}

claimed!(Row);

impl Row {
    /// As it was read for a tenant, or for all (`None`). Numbers below zero, which somebody else wrote, are none.
    fn judged(self, ring: &KeyRing, tenant: Option<&str>) -> StoredEntry {
        let authenticity = match self.claimed().judge(ring) {
            // The column beside it led here.
            Ok(Ok(leaf)) if tenant.is_some_and(|tenant| tenant != leaf.tenant_id) => {
                Authenticity::Forged
            }
            Ok(Ok(_)) => Authenticity::Ours,
            Ok(Err(_)) => Authenticity::Forged,
            Err(_) => Authenticity::KeyUnknown,
        };
        StoredEntry {
            id: EntryId(self.entry_id),
            stream: self.stream_id,
            entity_seq: u64::try_from(self.entity_seq).unwrap_or_default(),
            leaf: self.leaf,
            position: self
                .position
                .and_then(|position| u64::try_from(position).ok()),
            authenticity,
        }
    }
}

/// Entries that are read at once to find ours with an id. Only what somebody else wrote has the id of another.
const SAME_ID_PAGE: usize = 16;
/// Most pages of them: whoever puts in more hides ours, and is told of.
const MAX_SAME_ID_PAGES: usize = 256;

/// Every tenant that the journal knows, and null: walks the index from one to the next.
const TENANTS: &str = "\
    with recursive known as ( \
        (select min(tenant_id) as tenant_id from journal) \
        union all \
        select (select min(j.tenant_id) from journal j where j.tenant_id > known.tenant_id) \
        from known where known.tenant_id is not null \
    ) select tenant_id from known";

#[derive(QueryableByName)]
struct KnownTenant {
    #[diesel(sql_type = Nullable<Text>)]
    tenant_id: Option<String>,
}

/// Whose entries one query reads. The index on entries starts with the tenant.
#[derive(Clone)]
enum Owner {
    Tenant(String),
    /// What concerns no tenant.
    Nobody,
    /// All of them: where another index finds the entries.
    Anybody,
}

/// Where one query looks. Each has its own index, which a query for both would not use.
#[derive(Clone, Copy)]
enum Place {
    Everywhere,
    /// The payment's own stream.
    Stream(Uuid),
    /// What other streams hold about the payment, such as who read its entries.
    About(Uuid),
}

impl PgStore {
    pub(crate) async fn read_entries(
        &self,
        tenant: Option<&TenantId>,
        filter: &EntryFilter,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        let read = self
            .inner
            .reader
            .scan("list journal entries", |connection| {
                let (tenant, filter) = (tenant.cloned(), filter.clone());
                async move { entries(connection, tenant, &filter, after, None, limit).await }
                    .boxed()
            });
        Ok(self.stored(read.await?, tenant.map(TenantId::as_str)))
    }

    /// A tenant's entries with ids from the first on and before the second, newest first.
    pub(crate) async fn read_newest_entries(
        &self,
        tenant: &str,
        (from, before): (Uuid, Uuid),
        limit: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        let rows = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self.inner.reader.scan("read newest entries", |connection| {
            let owner = Owner::Tenant(tenant.to_owned());
            let all = EntryFilter::default();
            let query = listed(&owner, Place::Everywhere, &all, None, None)
                .filter(journal::entry_id.ge(from))
                .filter(journal::entry_id.lt(before))
                .order(journal::entry_id.desc())
                .limit(rows);
            async move { query.load::<Row>(connection).await }.boxed()
        });
        Ok(self.stored(read.await?, Some(tenant)))
    }

    /// Every tenant that has entries.
    pub(crate) async fn read_journal_tenants(&self) -> Result<Vec<String>, StoreError> {
        let read = self
            .inner
            .reader
            .scan("list tenants of the journal", |connection| {
                async move { known_owners(connection).await }.boxed()
            });
        let tenants = read.await?.into_iter().filter_map(|owner| match owner {
            Owner::Tenant(tenant) => Some(tenant),
            Owner::Nobody | Owner::Anybody => None,
        });
        Ok(tenants.collect())
    }

    /// The entry with an id: ours, whatever others there are.
    pub(crate) async fn read_entry(
        &self,
        tenant: Option<&TenantId>,
        id: EntryId,
    ) -> Result<Option<StoredEntry>, StoreError> {
        let (mut behind, mut first) = (None, None);
        for _ in 0..MAX_SAME_ID_PAGES {
            let read = self.inner.reader.read("read journal entry", |connection| {
                let tenant = tenant.cloned();
                async move { entries_with_id(connection, tenant, id, behind).await }.boxed()
            });
            let rows = read.await?;
            let more = rows.len() >= SAME_ID_PAGE;
            behind = rows.last().map(|row| (row.stream_id, row.entity_seq));
            let mut found = self.stored(rows, tenant.map(TenantId::as_str));
            if let Some(ours) = found.iter().position(StoredEntry::is_authentic) {
                return Ok(Some(found.swap_remove(ours)));
            }
            first = first.or_else(|| found.into_iter().next());
            if !more {
                break;
            }
        }
        Ok(first)
    }

    pub(crate) async fn read_entries_from(
        &self,
        tenant: Option<&TenantId>,
        position: u64,
        limit: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        let Ok(position) = i64::try_from(position) else {
            return Ok(Vec::new());
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self
            .inner
            .reader
            .read("read sequenced entries", |connection| {
                let mut query = journal_positions::table
                    .inner_join(
                        journal::table.on(journal::stream_id
                            .eq(journal_positions::stream_id)
                            .and(journal::entity_seq.eq(journal_positions::entity_seq))),
                    )
                    .select((
                        journal::entry_id,
                        journal::stream_id,
                        journal::entity_seq,
                        claimed_leaf(),
                        claimed_mac(),
                        claimed_mac_key_id(),
                        journal_positions::position.nullable(),
                    ))
                    .into_boxed::<Pg>()
                    .filter(journal_positions::position.ge(position))
                    .order(journal_positions::position)
                    .limit(limit);
                if let Some(tenant) = tenant {
                    query =
                        query.filter(journal_positions::tenant_id.eq(tenant.as_str().to_owned()));
                }
                async move { query.load::<Row>(connection).await }.boxed()
            });
        Ok(self.stored(read.await?, tenant.map(TenantId::as_str)))
    }

    /// The entries; those that we did not write are served, too, marked and reported.
    fn stored(&self, rows: Vec<Row>, tenant: Option<&str>) -> Vec<StoredEntry> {
        let judged = rows
            .into_iter()
            .map(|row| row.judged(&self.inner.keys, tenant));
        let entries: Vec<StoredEntry> = judged.collect();
        let forged = entries.iter().filter(|entry| !entry.is_authentic());
        self.report_forged(forged.map(|entry| entry.id.0));
        entries
    }

    /// Tells of entries that this service did not write: one line for all of them, so that they cannot flood the log.
    pub(crate) fn report_forged(&self, mut entries: impl Iterator<Item = Uuid>) {
        let Some(first) = entries.next() else {
            return;
        };
        let count = entries.count() + 1;
        tracing::error!(audit.entry_id = %first, count, "journal entries have a wrong MAC, or are another entry's");
        self.inner.observer.unverified_entries(count);
    }
}

/// A page of the entries with an id, in the order of their streams, behind one of them.
async fn entries_with_id(
    connection: &mut AsyncPgConnection,
    tenant: Option<TenantId>,
    id: EntryId,
    behind: Option<(Uuid, i64)>,
) -> QueryResult<Vec<Row>> {
    let owners = match tenant {
        Some(tenant) => vec![Owner::Tenant(tenant.as_str().to_owned())],
        None => known_owners(connection).await?,
    };
    let rows = i64::try_from(SAME_ID_PAGE).unwrap_or(i64::MAX);
    let mut found: Vec<Row> = Vec::new();
    for owner in owners {
        let all = EntryFilter::default();
        let mut query = listed(&owner, Place::Everywhere, &all, None, Some(id))
            .then_order_by((journal::stream_id, journal::entity_seq))
            .limit(rows);
        if let Some((stream, entity_seq)) = behind {
            let in_stream = journal::stream_id
                .eq(stream)
                .and(journal::entity_seq.gt(entity_seq));
            query = query.filter(journal::stream_id.gt(stream).or(in_stream));
        }
        found.extend(query.load::<Row>(connection).await?);
    }
    found.sort_unstable_by_key(|row| (row.stream_id, row.entity_seq));
    found.truncate(SAME_ID_PAGE);
    Ok(found)
}

/// Entries in order of their ids: of one tenant, or of all, each read apart and merged.
async fn entries(
    connection: &mut AsyncPgConnection,
    tenant: Option<TenantId>,
    filter: &EntryFilter,
    after: Option<EntryId>,
    only: Option<EntryId>,
    limit: usize,
) -> QueryResult<Vec<Row>> {
    let rows = i64::try_from(limit).unwrap_or(i64::MAX);
    let owners = match (tenant, filter.payment) {
        (Some(tenant), _) => vec![Owner::Tenant(tenant.as_str().to_owned())],
        (None, Some(_)) => vec![Owner::Anybody],
        (None, None) => known_owners(connection).await?,
    };
    let places = match filter.payment {
        Some(payment) => vec![Place::Stream(payment.0), Place::About(payment.0)],
        None => vec![Place::Everywhere],
    };
    let mut found: Vec<Row> = Vec::new();
    for owner in owners {
        for place in &places {
            let query = listed(&owner, *place, filter, after, only).limit(rows);
            found.extend(query.load::<Row>(connection).await?);
            found.sort_unstable_by_key(|row| row.entry_id);
            found.truncate(limit);
        }
    }
    Ok(found)
}

async fn known_owners(connection: &mut AsyncPgConnection) -> QueryResult<Vec<Owner>> {
    let known: Vec<KnownTenant> = diesel::sql_query(TENANTS).load(connection).await?;
    let tenants = known
        .into_iter()
        .filter_map(|known| known.tenant_id)
        .map(Owner::Tenant);
    Ok(tenants.chain([Owner::Nobody]).collect())
}

#[diesel::dsl::auto_type]
fn selected() -> _ {
    let leaf: SqlLiteral<Binary> = claimed_leaf();
    let mac: SqlLiteral<Binary> = claimed_mac();
    let mac_key_id: SqlLiteral<Text> = claimed_mac_key_id();
    journal::table
        .left_join(journal_positions::table.on(journal_positions::arrival.eq(journal::arrival)))
        .select((
            journal::entry_id,
            journal::stream_id,
            journal::entity_seq,
            leaf,
            mac,
            mac_key_id,
            journal_positions::position.nullable(),
        ))
}

fn listed(
    owner: &Owner,
    place: Place,
    filter: &EntryFilter,
    after: Option<EntryId>,
    only: Option<EntryId>,
) -> diesel::helper_types::IntoBoxed<'static, selected, Pg> {
    let mut query = selected().into_boxed::<Pg>().order(journal::entry_id);
    query = match owner {
        Owner::Tenant(tenant) => query.filter(journal::tenant_id.eq(tenant.clone())),
        Owner::Nobody => query.filter(journal::tenant_id.is_null()),
        Owner::Anybody => query,
    };
    query = match place {
        Place::Everywhere => query,
        Place::Stream(payment) => query.filter(journal::stream_id.eq(payment)),
        Place::About(payment) => query
            .filter(journal::payment_id.eq(payment))
            // Says that the partial index holds what is looked for.
            .filter(journal::payment_id.ne(journal::stream_id.nullable())),
    };
    if let Some(after) = after {
        query = query.filter(journal::entry_id.gt(after.0));
    }
    if let Some(only) = only {
        query = query.filter(journal::entry_id.eq(only.0));
    }
    if let Some(transaction) = filter.transaction {
        query = query.filter(journal::transaction_id.eq(transaction.0));
    }
    if let Some(trace) = filter.trace_id {
        query = query.filter(journal::trace_id.eq(trace.to_vec()));
    }
    if let Some(actor) = &filter.actor {
        query = query.filter(journal::actor.eq(actor.clone()));
    }
    if let Some(event_type) = &filter.event_type {
        query = query.filter(journal::event_type.eq(event_type.clone()));
    }
    if let Some(source) = &filter.source {
        query = query.filter(journal::source.eq(source.clone()));
    }
    if let Some(result) = &filter.result {
        query = query.filter(journal::result.eq(result.clone()));
    }
    if let Some(cause) = &filter.cause {
        query = query.filter(journal::cause.eq(cause.clone()));
    }
    if let Some(from) = filter.from {
        query = query.filter(journal::occurred_at.ge(from));
    }
    if let Some(to) = filter.to {
        query = query.filter(journal::occurred_at.lt(to));
    }
    query
}
