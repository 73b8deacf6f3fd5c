//! Tenants and API keys.

use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ids::TenantId;
use quittance_domain::ports::StoreError;

use crate::keys::{ApiKeyFacts, KeyRing};
use crate::schema::{api_keys, tenants};
use crate::store::PgStore;
use crate::warning::Thinned;

static FORGED: Thinned = Thinned::new();

diesel::define_sql_function! {
    /// The database's clock.
    fn clock_timestamp() -> Timestamptz;
}

/// How much longer ago than a query began its row's time may be, by another clock's pace.
const CLOCK_MARGIN: Duration = Duration::from_millis(100);

/// Whether a row of this time was written since a query began so long ago.
fn written_since(written: DateTime<Utc>, now: DateTime<Utc>, ago: Duration) -> bool {
    let ago = TimeDelta::from_std(ago + CLOCK_MARGIN).unwrap_or(TimeDelta::MAX);
    now - written <= ago
}

/// A new API key, without its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct NewApiKey {
    /// Its public part.
    pub key_id: String,
    /// For which tenant it calls; must exist.
    pub tenant: TenantId,
    /// The caller's name.
    pub name: String,
    /// What it may do, such as `payments.write`.
    pub roles: Vec<String>,
    /// MAC of the secret part (see [`crate::KeyRing::api_key_mac`]).
    pub secret_mac: [u8; 32],
    /// Which key of the ring made it.
    pub mac_key_id: String,
}

/// An API key as stored.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public part.
    pub key_id: String,
    /// For which tenant it calls.
    pub tenant: TenantId,
    /// The caller's name.
    pub name: String,
    /// What it may do.
    pub roles: Vec<String>,
    /// MAC of the secret part.
    pub secret_mac: Vec<u8>,
    /// Which key of the ring made it.
    pub mac_key_id: String,
    /// When it was created (clock of whoever made it).
    pub created_at: DateTime<Utc>,
    /// When it was revoked (database clock), where it was.
    pub revoked_at: Option<DateTime<Utc>>,
    /// Whether this service wrote all of the above but `revoked_at`: the row's MAC is right. One that is not must not be
    /// let in, and nothing of it be believed.
    pub genuine: bool,
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKey")
            .field("key_id", &self.key_id)
            .field("tenant", &self.tenant)
            .field("name", &self.name)
            .field("roles", &self.roles)
            .field("revoked_at", &self.revoked_at)
            .field("genuine", &self.genuine)
            .finish_non_exhaustive()
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = api_keys, check_for_backend(diesel::pg::Pg))]
struct ApiKeyRow {
    key_id: String,
    tenant_id: String,
    name: String,
    roles: Vec<String>,
    secret_mac: Vec<u8>,
    mac_key_id: String,
    created_at: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
    row_mac: Option<Vec<u8>>,
}

/// Names of roles as a key's MAC and the audit log have them.
pub(crate) fn joined(roles: &[String]) -> String {
    roles.join(" ")
}

impl ApiKeyRow {
    fn is_genuine(&self, ring: &KeyRing) -> bool {
        let roles = joined(&self.roles);
        let facts = ApiKeyFacts {
            key_id: &self.key_id,
            tenant: &self.tenant_id,
            name: &self.name,
            roles: &roles,
            created_at: self.created_at,
            secret_mac: &self.secret_mac,
        };
        let mac = self.row_mac.as_deref();
        mac.is_some_and(|mac| ring.verify_api_key_row(&facts, &self.mac_key_id, mac))
    }

    fn into_key(self, ring: &KeyRing) -> Result<ApiKey, StoreError> {
        let genuine = self.is_genuine(ring);
        let row = self;
        let tenant = TenantId::parse(row.tenant_id)
            .map_err(|_| StoreError::Corrupt("api_keys.tenant_id".to_owned()))?;
        Ok(ApiKey {
            key_id: row.key_id,
            tenant,
            name: row.name,
            roles: row.roles,
            secret_mac: row.secret_mac,
            mac_key_id: row.mac_key_id,
            created_at: row.created_at,
            revoked_at: row.revoked_at,
            genuine,
        })
    }
}

impl PgStore {
    /// Creates a tenant; false where it existed before.
    pub async fn create_tenant(&self, tenant: &TenantId) -> Result<bool, StoreError> {
        let created = self
            .inner
            .reader
            .write("create tenant", |connection, again| {
                let name = tenant.as_str().to_owned();
                let insert = diesel::insert_into(tenants::table)
                    .values(tenants::tenant_id.eq(tenant.as_str().to_owned()))
                    .on_conflict(tenants::tenant_id)
                    .do_nothing();
                async move {
                    if insert.execute(connection).await? == 1 {
                        return Ok(true);
                    }
                    let Some(ago) = again else { return Ok(false) };
                    // Perhaps ours, from the time when the answer was lost.
                    let times = tenants::table
                        .find(name)
                        .select((tenants::created_at, clock_timestamp()));
                    let (created, now) = times.first(connection).await?;
                    Ok(written_since(created, now, ago))
                }
                .boxed()
            });
        created.await
    }

    /// Creates an API key; false where its id is taken. `Refused` where the tenant does not exist.
    pub async fn create_api_key(&self, key: &NewApiKey) -> Result<bool, StoreError> {
        let created_at = Utc::now().trunc_subsecs(6);
        let roles = joined(&key.roles);
        let facts = ApiKeyFacts {
            key_id: &key.key_id,
            tenant: key.tenant.as_str(),
            name: &key.name,
            roles: &roles,
            created_at,
            secret_mac: &key.secret_mac,
        };
        let row_mac = self.inner.keys.api_key_row_mac(&facts, &key.mac_key_id);
        let row_mac = row_mac
            .ok_or_else(|| StoreError::Corrupt("api_keys.mac_key_id".to_owned()))?
            .to_vec();
        let created = self
            .inner
            .reader
            .write("create API key", |connection, again| {
                let (id, secret_mac) = (key.key_id.clone(), key.secret_mac);
                let insert = diesel::insert_into(api_keys::table)
                    .values((
                        api_keys::key_id.eq(key.key_id.clone()),
                        api_keys::tenant_id.eq(key.tenant.as_str().to_owned()),
                        api_keys::name.eq(key.name.clone()),
                        api_keys::roles.eq(key.roles.clone()),
                        api_keys::secret_mac.eq(key.secret_mac.to_vec()),
                        api_keys::mac_key_id.eq(key.mac_key_id.clone()),
                        api_keys::created_at.eq(created_at),
                        api_keys::row_mac.eq(row_mac.clone()),
                    ))
                    .on_conflict(api_keys::key_id)
                    .do_nothing();
                async move {
                    if insert.execute(connection).await? == 1 {
                        return Ok(true);
                    }
                    if again.is_none() {
                        return Ok(false);
                    }
                    // Ours, from the time when the answer was lost, where it is the same random secret's.
                    let stored = api_keys::table.find(id).select(api_keys::secret_mac);
                    let stored: Option<Vec<u8>> = stored.first(connection).await.optional()?;
                    Ok(stored.is_some_and(|stored| stored == secret_mac))
                }
                .boxed()
            });
        created.await
    }

    /// The API key with this id, revoked or not, genuine or not.
    pub async fn api_key(&self, key_id: &str) -> Result<Option<ApiKey>, StoreError> {
        let read = self.inner.reader.read("read API key", |connection| {
            let query = api_keys::table
                .find(key_id.to_owned())
                .select(ApiKeyRow::as_select());
            async move { query.first(connection).await.optional() }.boxed()
        });
        let Some(row) = read.await? else {
            return Ok(None);
        };
        let key = row.into_key(&self.inner.keys)?;
        // One that is revoked lets nobody in, whatever its row says.
        if !key.genuine && key.revoked_at.is_none() {
            self.inner.observer.verification_failed("api_key", 1);
            if let Some(count) = FORGED.due() {
                tracing::error!(
                    count,
                    "rows of API keys are not as this service wrote them: the keys are refused"
                );
            }
        }
        Ok(Some(key))
    }

    /// Lists API keys by id, of one tenant or of all; those after `after` (exclusive).
    pub async fn api_keys(
        &self,
        tenant: Option<&TenantId>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ApiKey>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self.inner.reader.read("list API keys", |connection| {
            let mut query = api_keys::table
                .select(ApiKeyRow::as_select())
                .into_boxed::<diesel::pg::Pg>()
                .order(api_keys::key_id)
                .limit(limit);
            if let Some(tenant) = tenant {
                query = query.filter(api_keys::tenant_id.eq(tenant.as_str().to_owned()));
            }
            if let Some(after) = after {
                query = query.filter(api_keys::key_id.gt(after.to_owned()));
            }
            async move { query.load(connection).await }.boxed()
        });
        let keys = read.await?.into_iter();
        keys.map(|row: ApiKeyRow| row.into_key(&self.inner.keys))
            .collect()
    }

    /// Revokes an API key; false where there is none with this id, or it was revoked before.
    pub async fn revoke_api_key(&self, key_id: &str) -> Result<bool, StoreError> {
        let revoked = self
            .inner
            .reader
            .write("revoke API key", |connection, again| {
                let id = key_id.to_owned();
                let key = api_keys::table
                    .filter(api_keys::key_id.eq(key_id.to_owned()))
                    .filter(api_keys::revoked_at.is_null());
                let update = diesel::update(key).set(api_keys::revoked_at.eq(diesel::dsl::now));
                async move {
                    if update.execute(connection).await? == 1 {
                        return Ok(true);
                    }
                    let Some(ago) = again else { return Ok(false) };
                    // Perhaps by us, at the time when the answer was lost.
                    let times = api_keys::table
                        .find(id)
                        .select((api_keys::revoked_at, clock_timestamp()));
                    let times: Option<(Option<DateTime<Utc>>, DateTime<Utc>)> =
                        times.first(connection).await.optional()?;
                    Ok(times.is_some_and(|(revoked, now)| {
                        revoked.is_some_and(|revoked| written_since(revoked, now, ago))
                    }))
                }
                .boxed()
            });
        revoked.await
    }
}
