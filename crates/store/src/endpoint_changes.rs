//! Changes of the endpoints of notifications: each in one transaction with its entry of the journal.

use std::sync::Arc;

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Bool, Double, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl};
use futures::FutureExt as _;
use quittance_domain::change::JournalEntry;
use quittance_domain::ids::{EndpointId, TenantId};
use quittance_domain::notification::{EndpointChange, EventPattern};
use quittance_domain::ports::StoreError;
use quittance_domain::text::Sensitive;
use uuid::Uuid;

use crate::batch::{BatchStatement, EntriesAt};
use crate::endpoints::{open_text, seal_text, secret_place, url_place};
use crate::prepare::entry_rows;
use crate::rows::ChangeRows;
use crate::sealing::Place;
use crate::store::PgStore;

/// Whoever makes an endpoint of the tenant at the same moment waits, so that both count the other's. Until the end of the
/// transaction.
const LOCK: &str =
    "select pg_advisory_xact_lock(hashtextextended('notification_endpoints/' || $1, 0))";

const CREATE: &str = "\
    insert into notification_endpoints (endpoint_id, tenant_id, url, description, event_types, secret) \
    select $1, $2, $3, $4, $5, $6 \
    where (select count(*) from notification_endpoints \
           where tenant_id = $2 and state <> 'DELETED') < $7";

const UPDATE: &str = "\
    update notification_endpoints \
    set url = coalesce($3, url), description = coalesce($4, description), \
        event_types = coalesce($5, event_types), \
        state = case when $6 is null then state when $6 then 'ENABLED' else 'DISABLED' end, updated_at = now() \
    where endpoint_id = $1 and tenant_id = $2 and state <> 'DELETED'";

const DELETE: &str = "\
    update notification_endpoints \
    set state = 'DELETED', url = null, secret = null, previous_secret = null, older_secret = null, \
        previous_secret_until = null, updated_at = now() \
    where endpoint_id = $1 and tenant_id = $2 and state <> 'DELETED'";

/// All secrets are bound to the same place, so that one can take the other's. One that is live stays so if it is the one before
/// the one before, too: an answer that is lost, and asked for again, has put a secret between that nobody has.
const ROTATE: &str = "\
    update notification_endpoints \
    set older_secret = case when $4 > 0 and previous_secret_until > now() then previous_secret end, \
        previous_secret = case when $4 > 0 then secret end, \
        previous_secret_until = case when $4 > 0 then now() + make_interval(secs => $4) end, \
        secret = $3, updated_at = now() \
    where endpoint_id = $1 and tenant_id = $2 and state <> 'DELETED'";

/// The encrypted bytes change with the URL, and only then: what a receiver said at the old one is nothing to the new one.
const GONE: &str = "\
    update notification_endpoints set state = 'GONE', updated_at = now() \
    where endpoint_id = $1 and tenant_id = $2 and state = 'ENABLED' and url = $3";

const ENABLED_URL: &str = "\
    select url from notification_endpoints \
    where endpoint_id = $1 and tenant_id = $2 and state = 'ENABLED'";

#[derive(QueryableByName)]
struct UrlRow {
    #[diesel(sql_type = Binary)]
    url: Vec<u8>,
}

/// A new endpoint, its texts encrypted.
#[derive(Clone)]
struct NewRow {
    id: Uuid,
    tenant: String,
    url: Vec<u8>,
    description: String,
    events: Vec<String>,
    secret: Vec<u8>,
    /// Most that the tenant may have.
    limit: i64,
}

impl NewRow {
    async fn insert(self, connection: &mut AsyncPgConnection) -> QueryResult<usize> {
        let lock = diesel::sql_query(LOCK).bind::<Text, _>(self.tenant.clone());
        lock.execute(connection).await?;
        // A statement of its own: it sees what was committed while the lock was waited for.
        let create = diesel::sql_query(CREATE)
            .bind::<SqlUuid, _>(self.id)
            .bind::<Text, _>(self.tenant)
            .bind::<Binary, _>(self.url)
            .bind::<Text, _>(self.description)
            .bind::<Array<Text>, _>(self.events)
            .bind::<Binary, _>(self.secret)
            .bind::<BigInt, _>(self.limit);
        create.execute(connection).await
    }
}

/// A change, its texts encrypted.
#[derive(Clone)]
enum Sealed {
    Create(NewRow),
    Update {
        id: Uuid,
        tenant: String,
        url: Option<Vec<u8>>,
        description: Option<String>,
        events: Option<Vec<String>>,
        enabled: Option<bool>,
    },
    Delete {
        id: Uuid,
        tenant: String,
    },
    Rotate {
        id: Uuid,
        tenant: String,
        secret: Vec<u8>,
        keep: f64,
    },
    Gone {
        id: Uuid,
        tenant: String,
        /// As it is stored.
        url: Vec<u8>,
    },
}

impl Sealed {
    /// How many rows it changed.
    async fn execute(self, connection: &mut AsyncPgConnection) -> QueryResult<usize> {
        match self {
            Self::Create(row) => row.insert(connection).await,
            Self::Update {
                id,
                tenant,
                url,
                description,
                events,
                enabled,
            } => {
                let update = diesel::sql_query(UPDATE)
                    .bind::<SqlUuid, _>(id)
                    .bind::<Text, _>(tenant)
                    .bind::<Nullable<Binary>, _>(url)
                    .bind::<Nullable<Text>, _>(description)
                    .bind::<Nullable<Array<Text>>, _>(events)
                    .bind::<Nullable<Bool>, _>(enabled);
                update.execute(connection).await
            }
            Self::Delete { id, tenant } => {
                let delete = diesel::sql_query(DELETE).bind::<SqlUuid, _>(id);
                delete.bind::<Text, _>(tenant).execute(connection).await
            }
            Self::Rotate {
                id,
                tenant,
                secret,
                keep,
            } => {
                let rotate = diesel::sql_query(ROTATE)
                    .bind::<SqlUuid, _>(id)
                    .bind::<Text, _>(tenant)
                    .bind::<Binary, _>(secret)
                    .bind::<Double, _>(keep);
                rotate.execute(connection).await
            }
            Self::Gone { id, tenant, url } => {
                let gone = diesel::sql_query(GONE)
                    .bind::<SqlUuid, _>(id)
                    .bind::<Text, _>(tenant)
                    .bind::<Binary, _>(url);
                gone.execute(connection).await
            }
        }
    }
}

/// Whether the journal holds this very entry.
async fn is_recorded(connection: &mut AsyncPgConnection, rows: &ChangeRows) -> QueryResult<bool> {
    let place = EntriesAt {
        streams: vec![rows.entry.stream_id],
        numbers: vec![rows.entry.entity_seq],
    };
    let found: Vec<Uuid> = place.load(connection).await?;
    Ok(found.contains(&rows.entry.entry_id))
}

/// Writes the entry. Where its place in the stream is taken, what was done is undone.
async fn record(connection: &mut AsyncPgConnection, rows: &ChangeRows) -> QueryResult<()> {
    let written: Vec<Uuid> = BatchStatement::new(&[rows]).load(connection).await?;
    if written.contains(&rows.entry.stream_id) {
        Ok(())
    } else {
        Err(diesel::result::Error::RollbackTransaction)
    }
}

fn names(events: &[EventPattern]) -> Vec<String> {
    let names = events.iter().map(|event| event.as_str().to_owned());
    names.collect()
}

impl PgStore {
    fn seal_text(
        &self,
        place: Place,
        tenant: &str,
        text: &Sensitive<String>,
    ) -> Result<Vec<u8>, StoreError> {
        seal_text(&self.inner.keys, place, tenant, text)
    }

    /// Seals what a change writes. `None` where there is nothing to change.
    async fn sealed(
        &self,
        tenant: &TenantId,
        change: EndpointChange,
    ) -> Result<Option<Sealed>, StoreError> {
        let tenant = tenant.as_str().to_owned();
        Ok(Some(match change {
            EndpointChange::Create { endpoint, limit } => Sealed::Create(NewRow {
                url: self.seal_text(url_place(endpoint.id.0), &tenant, &endpoint.url)?,
                secret: self.seal_text(secret_place(endpoint.id.0), &tenant, &endpoint.secret)?,
                id: endpoint.id.0,
                tenant,
                description: endpoint.description.as_str().to_owned(),
                events: names(&endpoint.events),
                limit: i64::try_from(limit).unwrap_or(i64::MAX),
            }),
            EndpointChange::Update { id, update } => {
                let url = update.url.as_ref();
                let url = url.map(|url| self.seal_text(url_place(id.0), &tenant, url));
                Sealed::Update {
                    id: id.0,
                    tenant,
                    url: url.transpose()?,
                    description: update.description.map(|text| text.as_str().to_owned()),
                    events: update.events.as_deref().map(names),
                    enabled: update.enabled,
                }
            }
            EndpointChange::Delete { id } => Sealed::Delete { id: id.0, tenant },
            EndpointChange::Rotate { id, secret, keep } => Sealed::Rotate {
                id: id.0,
                secret: self.seal_text(secret_place(id.0), &tenant, &secret)?,
                tenant,
                keep: keep.as_secs_f64(),
            },
            EndpointChange::Gone { id, url } => {
                let there = self.enabled_url(&tenant, id).await?;
                let Some(sealed) = there.filter(|(_, there)| *there == url) else {
                    return Ok(None);
                };
                Sealed::Gone {
                    id: id.0,
                    tenant,
                    url: sealed.0,
                }
            }
        }))
    }

    /// The URL of an endpoint that is on: as it is stored, and opened.
    async fn enabled_url(
        &self,
        tenant: &str,
        id: EndpointId,
    ) -> Result<Option<(Vec<u8>, Sensitive<String>)>, StoreError> {
        let read = self.inner.reader.read("read endpoint url", |connection| {
            let query = diesel::sql_query(ENABLED_URL)
                .bind::<SqlUuid, _>(id.0)
                .bind::<Text, _>(tenant.to_owned());
            async move { query.get_result::<UrlRow>(connection).await.optional() }.boxed()
        });
        let Some(UrlRow { url: sealed }) = read.await? else {
            return Ok(None);
        };
        let opened = open_text(&self.inner.keys, url_place(id.0), tenant, &sealed)?;
        Ok(Some((sealed, opened)))
    }

    /// Changes an endpoint and puts it on record, in one transaction.
    pub(crate) async fn change_on_record(
        &self,
        tenant: &TenantId,
        change: EndpointChange,
        entry: JournalEntry,
    ) -> Result<bool, StoreError> {
        let Some(sealed) = self.sealed(tenant, change).await? else {
            return Ok(false);
        };
        let rows = Arc::new(entry_rows(entry, &self.inner.keys)?);
        let changed = self
            .inner
            .reader
            .write("change endpoint", |connection, again| {
                let (sealed, rows) = (sealed.clone(), Arc::clone(&rows));
                async move {
                    connection
                        .transaction(async |connection| {
                            // After a lost connection it may have been this very call that did it.
                            if again.is_some() && is_recorded(connection, &rows).await? {
                                return Ok(true);
                            }
                            if sealed.execute(connection).await? != 1 {
                                return Ok(false);
                            }
                            record(connection, &rows).await.map(|()| true)
                        })
                        .await
                }
                .boxed()
            });
        let changed = changed.await?;
        if changed {
            self.inner.tree.own.remember(&rows.entry);
            self.inner.committed.notify_one();
        }
        Ok(changed)
    }
}
