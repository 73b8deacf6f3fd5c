//! The endpoints of notifications: URL and secrets are encrypted, and wiped when one is deleted.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ids::{EndpointId, TenantId};
use quittance_domain::notification::{Destination, Endpoint, EndpointState};
use quittance_domain::ports::StoreError;
use quittance_domain::text::Sensitive;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::keys::KeyRing;
use crate::payment_row::ReadAs as _;
use crate::sealing::{self, Place};
use crate::store::PgStore;

const COLUMNS: &str = "\
    select endpoint_id, tenant_id, url, description, event_types, state, created_at, updated_at, \
           case when previous_secret_until > now() then previous_secret_until end as previous_secret_until \
    from notification_endpoints where state <> 'DELETED' ";

const DESTINATION: &str = "\
    select endpoint_id, url, secret, \
           case when previous_secret_until > now() then previous_secret end as previous_secret, \
           case when previous_secret_until > now() then older_secret end as older_secret \
    from notification_endpoints where endpoint_id = $1 and tenant_id = $2 and state <> 'DELETED'";

#[derive(QueryableByName)]
struct EndpointRow {
    #[diesel(sql_type = SqlUuid)]
    endpoint_id: Uuid,
    #[diesel(sql_type = Text)]
    tenant_id: String,
    #[diesel(sql_type = Binary)]
    url: Vec<u8>,
    #[diesel(sql_type = Text)]
    description: String,
    #[diesel(sql_type = Array<Text>)]
    event_types: Vec<String>,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    updated_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    previous_secret_until: Option<DateTime<Utc>>,
}

impl EndpointRow {
    fn open(self, ring: &KeyRing) -> Result<Endpoint, StoreError> {
        let place = url_place(self.endpoint_id);
        Ok(Endpoint {
            id: EndpointId(self.endpoint_id),
            url: open_text(ring, place, &self.tenant_id, &self.url)?,
            tenant: TenantId::parse(self.tenant_id).at("notification_endpoints.tenant_id")?,
            description: self.description,
            events: self.event_types,
            state: EndpointState::from_name(&self.state).at("notification_endpoints.state")?,
            created_at: self.created_at,
            updated_at: self.updated_at,
            previous_secret_until: self.previous_secret_until,
        })
    }
}

/// What a notification is sent with, still encrypted.
#[derive(QueryableByName)]
pub(crate) struct DestinationRow {
    #[diesel(sql_type = SqlUuid)]
    endpoint_id: Uuid,
    #[diesel(sql_type = Nullable<Binary>)]
    url: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Binary>)]
    secret: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Binary>)]
    previous_secret: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Binary>)]
    older_secret: Option<Vec<u8>>,
}

impl DestinationRow {
    /// `None` where the endpoint was deleted meanwhile. Opens for the tenant whose endpoint it is, and for no other.
    pub(crate) fn open(
        &self,
        ring: &KeyRing,
        tenant: &str,
    ) -> Result<Option<Destination>, StoreError> {
        let (Some(url), Some(secret)) = (&self.url, &self.secret) else {
            return Ok(None);
        };
        let place = secret_place(self.endpoint_id);
        let before = [&self.previous_secret, &self.older_secret];
        let live = [Some(secret)].into_iter().chain(before.map(Option::as_ref));
        let secrets = live.flatten();
        Ok(Some(Destination {
            url: open_text(ring, url_place(self.endpoint_id), tenant, url)?,
            secrets: secrets
                .map(|sealed| open_text(ring, place, tenant, sealed))
                .collect::<Result<_, _>>()?,
        }))
    }
}

pub(crate) const fn url_place(endpoint: Uuid) -> Place {
    Place::new("notification_endpoints", "url", endpoint)
}

pub(crate) const fn secret_place(endpoint: Uuid) -> Place {
    Place::new("notification_endpoints", "secret", endpoint)
}

/// Between the tenant and the text that is sealed for its endpoint; neither holds it.
const END_OF_TENANT: char = '\0';

/// Seals a text together with the tenant whose endpoint it is for: an endpoint is told of what happens to its tenant, so one that
/// somebody gave to another must not be opened.
pub(crate) fn seal_text(
    ring: &KeyRing,
    place: Place,
    tenant: &str,
    text: &Sensitive<String>,
) -> Result<Vec<u8>, StoreError> {
    let bound = Zeroizing::new(format!("{tenant}{END_OF_TENANT}{}", text.expose()));
    sealing::seal(ring, None, place, bound.as_bytes())
}

/// Opens a text that was sealed for an endpoint of this tenant; or without a tenant, as they were at first.
pub(crate) fn open_text(
    ring: &KeyRing,
    place: Place,
    tenant: &str,
    sealed: &[u8],
) -> Result<Sensitive<String>, StoreError> {
    let corrupt = || StoreError::Corrupt(format!("{}.{}", place.table, place.column));
    let opened = sealing::open(ring, None, place, sealed)?;
    let text = std::str::from_utf8(&opened).map_err(|_| corrupt())?;
    let text = match text.split_once(END_OF_TENANT) {
        Some((owner, text)) if owner == tenant => text,
        Some(_) => return Err(corrupt()),
        None => text,
    };
    Ok(Sensitive::new(text.to_owned()))
}

impl PgStore {
    pub(crate) async fn read_endpoints(
        &self,
        tenant: Option<&TenantId>,
        only: Option<EndpointId>,
        after: Option<EndpointId>,
        limit: usize,
    ) -> Result<Vec<Endpoint>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let tenant = tenant.map(|tenant| tenant.as_str().to_owned());
        let read = self.inner.reader.read("list endpoints", |connection| {
            let text = format!(
                "{COLUMNS} and ($1 is null or tenant_id = $1) and ($2 is null or endpoint_id = $2) \
                 and ($3 is null or endpoint_id > $3) order by endpoint_id limit $4"
            );
            let query = diesel::sql_query(text)
                .bind::<Nullable<Text>, _>(tenant.clone())
                .bind::<Nullable<SqlUuid>, _>(only.map(|id| id.0))
                .bind::<Nullable<SqlUuid>, _>(after.map(|id| id.0))
                .bind::<BigInt, _>(limit);
            async move { query.load::<EndpointRow>(connection).await }.boxed()
        });
        let rows = read.await?.into_iter();
        rows.map(|row| row.open(&self.inner.keys)).collect()
    }

    pub(crate) async fn read_destination(
        &self,
        tenant: &TenantId,
        id: EndpointId,
    ) -> Result<Option<Destination>, StoreError> {
        let read = self
            .inner
            .reader
            .read("read endpoint secrets", |connection| {
                let query = diesel::sql_query(DESTINATION)
                    .bind::<SqlUuid, _>(id.0)
                    .bind::<Text, _>(tenant.as_str().to_owned());
                async move {
                    query
                        .get_result::<DestinationRow>(connection)
                        .await
                        .optional()
                }
                .boxed()
            });
        match read.await? {
            Some(row) => row.open(&self.inner.keys, tenant.as_str()),
            None => Ok(None),
        }
    }
}
