//! The database as the server uses it: connected, migrated, and asked for API keys.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use quittance_domain::ids::TenantId;
use quittance_domain::ports::StoreError;
use quittance_domain::verification::Trusted;
use quittance_store::{
    DatabaseTls, KeyRing, KeyRingError, NewApiKey, PgStore, SIGNER_WITHIN, StoreConfig,
    StoreObserver, StoreStartError, VERIFY_PATIENCE, VerifyError, VerifyEvent, VerifyProgress,
    VerifySettings, VerifySummary,
};
use quittance_telemetry::Metrics;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::auth::{ApiKey, KeyDirectory, KeyHash, KeyId, Role, Roles, StoredKey};
use crate::config::{AuditConfig, DatabaseConfig, SecretsConfig};
use crate::grpc::LogVerifier;
use crate::signing::SignedOutside;
use crate::workers::Schedule;

/// Longest name of an API key, in characters.
const NAME_MAX: usize = 100;
/// API keys read at once when they are listed.
const PAGE: usize = 500;

/// The key ring of the configured master keys.
///
/// # Errors
/// [`KeyRingError`] where there are too many.
pub fn key_ring(config: &SecretsConfig) -> Result<KeyRing, KeyRingError> {
    let keys = std::iter::once(&config.active).chain(&config.older);
    KeyRing::new(keys.map(|key| (key.id.clone(), *key.secret)))
}

fn tls(config: &DatabaseConfig) -> DatabaseTls {
    DatabaseTls {
        ca_file: config.ca_file.clone(),
    }
}

/// Connects, and refuses a database that is not migrated, not durable, or of another time.
///
/// # Errors
/// [`StoreStartError`] says what to do about it.
pub async fn connect(
    config: &DatabaseConfig,
    keys: KeyRing,
    observer: Arc<dyn StoreObserver>,
) -> Result<Arc<PgStore>, StoreStartError> {
    let store = PgStore::connect(
        StoreConfig {
            url: config.url.expose().to_owned(),
            tls: tls(config),
            pool_size: config.pool_size,
            committers: config.committers,
            queue_len: config.commit_queue,
            unavailable_after: config.unavailable_after,
            commit_resolution_timeout: config.commit_resolution_timeout,
            statement_timeout: config.statement_timeout,
            connect_timeout: config.connect_timeout,
            customer_keys_remembered: config.customer_keys_remembered,
            application_role: Some(config.application_role.clone()),
            keys,
        },
        observer,
    )
    .await?;
    store
        .check_durability(config.allow_unsafe_durability)
        .await?;
    Ok(Arc::new(store))
}

/// Brings the schema up to date. Returns the versions that were missing.
///
/// # Errors
/// [`StoreStartError`].
pub async fn migrate(config: &DatabaseConfig) -> Result<Vec<String>, StoreStartError> {
    PgStore::migrate(config.url.expose(), &tls(config)).await
}

/// Takes the store's measurements into our metrics.
#[derive(Debug, Clone)]
pub struct StoreMetrics(pub Metrics);

impl StoreObserver for StoreMetrics {
    fn batch(&self, size: usize) {
        self.0.commit_batch(size);
    }

    fn operation(&self, summary: &'static str, seconds: f64, ok: bool) {
        self.0.db_operation(summary, seconds, ok);
    }

    fn tree_size(&self, size: u64) {
        self.0.tree_size(size);
    }

    fn unverified_entries(&self, count: usize) {
        self.0.unverified_entries(count);
    }

    fn verification_failed(&self, check: &'static str, count: usize) {
        self.0.verification_failed(check, count);
    }
}

/// Why an API key could not be made, listed or revoked.
#[derive(Debug, Error)]
pub enum KeysError {
    /// The tenant's name is not one.
    #[error("a tenant is 1 to 64 printable ASCII characters without spaces")]
    Tenant,
    /// The key's name is empty, too long or has control characters in it.
    #[error("a key's name is 1 to {NAME_MAX} characters, none of them a control character")]
    Name,
    /// The operating system gave no random numbers.
    #[error("no random numbers: {0}")]
    Random(#[from] rand::rand_core::OsError),
    /// Another key has the id.
    #[error("a key with the same id exists already; try again")]
    IdTaken,
    /// The database could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An API key as it is listed.
#[derive(Debug, Clone)]
pub struct ListedKey {
    /// The public part.
    pub key_id: String,
    /// For which tenant.
    pub tenant: TenantId,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub roles: Vec<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<DateTime<Utc>>,
    /// Whether all of the above, but when it was revoked, is as this service wrote it; else it does not work.
    pub genuine: bool,
}

/// The row of an API key that is not revoked.
#[derive(Debug)]
pub enum KeyRow {
    /// As this service wrote it.
    Genuine(StoredKey),
    /// Not so: nothing of it can be believed, and the key does not work.
    Forged,
}

/// Verifies the log in the database.
#[derive(Debug, Clone)]
pub struct Verifier {
    store: Arc<PgStore>,
    lanes: usize,
    signed: Option<SignedOutside>,
}

impl Verifier {
    /// The log of `store`, and what was signed of it, where it is.
    pub fn new(store: Arc<PgStore>, config: &AuditConfig, signed: Option<SignedOutside>) -> Self {
        Self {
            store,
            lanes: config.verify_lanes,
            signed,
        }
    }
}

#[async_trait]
impl LogVerifier for Verifier {
    async fn verify(
        &self,
        resume: VerifyProgress,
        events: mpsc::Sender<VerifyEvent>,
    ) -> Result<VerifySummary, VerifyError> {
        let trusted = match &self.signed {
            // Before anything else is read: the database holds at least what was signed by now.
            Some(signed) => signed.read().await.map_err(|_| StoreError::Unavailable)?,
            None => Trusted::default(),
        };
        let settings = VerifySettings {
            lanes: self.lanes,
            resume,
            trusted,
            patience: VERIFY_PATIENCE,
            signer_within: SIGNER_WITHIN,
        };
        self.store.verify_log(settings, events).await
    }
}

#[async_trait]
impl Schedule for Verifier {
    async fn claim(&self, every: Duration) -> Result<bool, StoreError> {
        self.store.claim_verification(every).await
    }

    async fn finish(&self, mismatches: u64) -> Result<(), StoreError> {
        self.store.finish_verification(mismatches).await
    }
}

/// The API keys in the database.
#[derive(Debug, Clone)]
pub struct Keys(Arc<PgStore>);

impl Keys {
    /// Those of `store`.
    pub fn new(store: Arc<PgStore>) -> Self {
        Self(store)
    }

    /// Makes a key, and the tenant if there is none of this name.
    ///
    /// # Errors
    /// [`KeysError`]; nothing was stored then, but perhaps the tenant.
    pub async fn create(
        &self,
        tenant: &str,
        name: &str,
        roles: Roles,
        ring: &KeyRing,
    ) -> Result<ApiKey, KeysError> {
        let tenant = TenantId::parse(tenant).map_err(|_| KeysError::Tenant)?;
        let length = name.chars().count();
        if !(1..=NAME_MAX).contains(&length) || name.chars().any(char::is_control) {
            return Err(KeysError::Name);
        }
        let key = ApiKey::generate()?;
        let (secret_mac, mac_key_id) = ring.api_key_mac(&key.hashed_text());
        self.0.create_tenant(&tenant).await?;
        let stored = NewApiKey {
            key_id: key.id().as_str().to_owned(),
            tenant,
            name: name.to_owned(),
            roles: roles.iter().map(|role| role.name().to_owned()).collect(),
            secret_mac,
            mac_key_id,
        };
        if self.0.create_api_key(&stored).await? {
            Ok(key)
        } else {
            Err(KeysError::IdTaken)
        }
    }

    /// Whether a key works.
    ///
    /// # Errors
    /// [`KeysError::Store`] where the database cannot be asked.
    pub async fn is_valid(&self, key: &ApiKey, ring: &KeyRing) -> Result<bool, KeysError> {
        let stored = self.find(key.id()).await?;
        Ok(stored.is_some_and(|stored| key.matches(&stored.hash, ring)))
    }

    /// A key that is not revoked.
    ///
    /// # Errors
    /// [`KeysError::Store`] where the database cannot be asked.
    pub async fn stored(&self, id: &KeyId) -> Result<Option<KeyRow>, KeysError> {
        let stored = self.0.api_key(id.as_str()).await?;
        let stored = stored.filter(|key| key.revoked_at.is_none());
        Ok(stored.map(|key| {
            if key.genuine {
                KeyRow::Genuine(stored_key(key))
            } else {
                KeyRow::Forged
            }
        }))
    }

    /// All keys, revoked ones included, by id.
    ///
    /// # Errors
    /// [`KeysError`].
    pub async fn list(&self, tenant: Option<&str>) -> Result<Vec<ListedKey>, KeysError> {
        let tenant = tenant
            .map(|tenant| TenantId::parse(tenant).map_err(|_| KeysError::Tenant))
            .transpose()?;
        let mut all: Vec<ListedKey> = Vec::new();
        loop {
            let after = all.last().map(|key| key.key_id.as_str());
            let page = self.0.api_keys(tenant.as_ref(), after, PAGE).await?;
            let is_last = page.len() < PAGE;
            all.extend(page.into_iter().map(|key| ListedKey {
                key_id: key.key_id,
                tenant: key.tenant,
                name: key.name,
                roles: key.roles,
                created_at: key.created_at,
                revoked_at: key.revoked_at,
                genuine: key.genuine,
            }));
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Revokes a key; `false` where there is none with this id, or it was revoked before.
    ///
    /// # Errors
    /// [`KeysError`].
    pub async fn revoke(&self, key_id: &str) -> Result<bool, KeysError> {
        Ok(self.0.revoke_api_key(key_id).await?)
    }
}

#[async_trait]
impl KeyDirectory for Keys {
    async fn find(&self, id: &KeyId) -> Result<Option<StoredKey>, StoreError> {
        let stored = self.0.api_key(id.as_str()).await?;
        Ok(stored
            .filter(|key| key.revoked_at.is_none() && key.genuine)
            .map(stored_key))
    }
}

fn stored_key(key: quittance_store::ApiKey) -> StoredKey {
    StoredKey {
        tenant: key.tenant,
        name: key.name,
        // A role that this version does not know gives nothing.
        roles: key
            .roles
            .iter()
            .filter_map(|role| role.parse::<Role>().ok())
            .collect(),
        hash: KeyHash {
            mac: key.secret_mac,
            mac_key_id: key.mac_key_id,
        },
    }
}
