//! Tells who a caller is from the `authorization` header.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use quittance_domain::ids::TenantId;
use quittance_domain::ports::StoreError;
use quittance_store::KeyRing;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::api_key::{ApiKey, KeyHash, KeyId};
use super::cache::{Cache, Fingerprint};
use super::role::Roles;
use super::{AUTH_METHOD_API_KEY, Authenticated};
use crate::config::AuthConfig;

/// API keys looked up in the database at once: callers without a valid key must not be able to take
/// every connection from those with one.
const LOOKUPS_AT_ONCE: usize = 8;
/// Look-ups that may wait for their turn; further ones are refused.
const LOOKUPS_WAITING: usize = 256;

/// An API key as the database knows it.
#[derive(Clone, Debug)]
pub struct StoredKey {
    /// For which tenant.
    pub tenant: TenantId,
    /// The name that an operator gave it.
    pub name: String,
    /// What it may do.
    pub roles: Roles,
    /// The keyed hash of the key.
    pub hash: KeyHash,
}

/// Where API keys are kept.
#[async_trait]
pub trait KeyDirectory: Send + Sync + 'static {
    /// The key with this id; `None` where there is none, or it is revoked.
    async fn find(&self, id: &KeyId) -> Result<Option<StoredKey>, StoreError>;
}

/// Why a caller is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthFailure {
    /// There is no `authorization` header.
    Missing,
    /// There is one, but it names no valid key.
    Invalid,
    /// Too many unknown keys are being looked up.
    Overloaded,
    /// The database cannot be asked.
    Unavailable,
}

/// Tells who calls.
pub struct Authenticator {
    directory: Arc<dyn KeyDirectory>,
    keys: KeyRing,
    /// Two caches, so that a flood of invalid keys cannot push out the valid ones.
    known: Cache<Authenticated>,
    unknown: Cache<()>,
    /// What keys of open streams allow now, by the digest of their ids; `None`: nothing any more.
    current: Cache<Option<(TenantId, Roles)>>,
    lookups: Semaphore,
    waiting: Semaphore,
    /// Apart from the look-ups of new callers, so that a flood of those does not end open streams.
    rechecks: Semaphore,
}

impl Authenticator {
    /// An authenticator that asks `directory`.
    pub fn new(directory: Arc<dyn KeyDirectory>, keys: KeyRing, config: &AuthConfig) -> Self {
        Self {
            directory,
            keys,
            known: Cache::new(config.cache_ttl, config.cache_entries),
            unknown: Cache::new(config.cache_ttl, config.cache_entries),
            current: Cache::new(config.cache_ttl, config.cache_entries),
            lookups: Semaphore::new(LOOKUPS_AT_ONCE),
            waiting: Semaphore::new(LOOKUPS_WAITING),
            rechecks: Semaphore::new(LOOKUPS_AT_ONCE),
        }
    }

    /// Who sent these headers.
    ///
    /// # Errors
    /// [`AuthFailure`] says why that is not known.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Authenticated, AuthFailure> {
        let presented = bearer(headers)?;
        let fingerprint: Fingerprint = Sha256::digest(presented.as_bytes()).into();
        let now = Instant::now();
        if let Some(caller) = self.known.get(&fingerprint, now) {
            return Ok(caller);
        }
        if self.unknown.get(&fingerprint, now).is_some() {
            return Err(AuthFailure::Invalid);
        }
        let key = ApiKey::parse(presented).ok_or(AuthFailure::Invalid)?;
        let Some(caller) = self.look_up(&key).await? else {
            self.unknown.insert(fingerprint, (), now);
            return Err(AuthFailure::Invalid);
        };
        self.known.insert(fingerprint, caller.clone(), now);
        Ok(caller)
    }

    /// Whether a caller who was let in still would be: its key is not revoked, and is good for the same tenant and
    /// for every role that it had then.
    ///
    /// # Errors
    /// [`AuthFailure::Invalid`] where it is not; [`AuthFailure::Unavailable`] or [`AuthFailure::Overloaded`] where
    /// the database cannot be asked.
    pub async fn still_valid(&self, caller: &Authenticated) -> Result<(), AuthFailure> {
        let digest: Fingerprint = Sha256::digest(caller.key_id.as_bytes()).into();
        let current = match self.current.get(&digest, Instant::now()) {
            Some(current) => current,
            None => self.look_again(caller, digest).await?,
        };
        let same = current.is_some_and(|(tenant, roles)| {
            tenant == caller.tenant && roles.contains_all(caller.roles)
        });
        if same {
            Ok(())
        } else {
            Err(AuthFailure::Invalid)
        }
    }

    async fn look_again(
        &self,
        caller: &Authenticated,
        digest: Fingerprint,
    ) -> Result<Option<(TenantId, Roles)>, AuthFailure> {
        let id = KeyId::parse(&caller.key_id).ok_or(AuthFailure::Invalid)?;
        // Never closed, so this only waits; no more wait than streams are open.
        let turn = self.rechecks.acquire().await;
        let _turn = turn.map_err(|_| AuthFailure::Unavailable)?;
        // Before it is read: it may be revoked while the answer is on its way.
        let asked = Instant::now();
        let stored = self.directory.find(&id).await.map_err(not_asked)?;
        let current = stored.map(|stored| (stored.tenant, stored.roles));
        self.current.insert(digest, current.clone(), asked);
        Ok(current)
    }

    async fn look_up(&self, key: &ApiKey) -> Result<Option<Authenticated>, AuthFailure> {
        let _waiting = self
            .waiting
            .try_acquire()
            .map_err(|_| AuthFailure::Overloaded)?;
        // Never closed, so this only waits.
        let _turn = self
            .lookups
            .acquire()
            .await
            .map_err(|_| AuthFailure::Unavailable)?;
        let stored = self.directory.find(key.id()).await.map_err(not_asked)?;
        let valid = stored.filter(|stored| key.matches(&stored.hash, &self.keys));
        Ok(valid.map(|stored| Authenticated {
            tenant: stored.tenant,
            key_id: key.id().as_str().into(),
            name: stored.name.into(),
            roles: stored.roles,
            auth_method: AUTH_METHOD_API_KEY,
        }))
    }
}

#[allow(clippy::needless_pass_by_value)] // fits `map_err`
fn not_asked(error: StoreError) -> AuthFailure {
    tracing::warn!(error.message = %error, "an API key could not be looked up");
    match error {
        StoreError::Overloaded => AuthFailure::Overloaded,
        StoreError::Unavailable
        | StoreError::CommitUnknown
        | StoreError::Refused(_)
        | StoreError::Corrupt(_) => AuthFailure::Unavailable,
    }
}

/// The token of `authorization: Bearer <token>`.
fn bearer(headers: &HeaderMap) -> Result<&str, AuthFailure> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthFailure::Missing)?;
    if values.next().is_some() {
        return Err(AuthFailure::Invalid);
    }
    let text = value.to_str().map_err(|_| AuthFailure::Invalid)?;
    let (scheme, token) = text.split_once(' ').ok_or(AuthFailure::Invalid)?;
    // RFC 9110, section 11.1: the scheme's name is case-insensitive.
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(token.trim())
    } else {
        Err(AuthFailure::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use http::HeaderValue;
    use parking_lot::Mutex;

    use super::*;
    use crate::auth::Role;

    struct Directory {
        keys: Mutex<Vec<(KeyId, StoredKey)>>,
        asked: AtomicUsize,
        down: AtomicBool,
    }

    #[async_trait]
    impl KeyDirectory for Directory {
        async fn find(&self, id: &KeyId) -> Result<Option<StoredKey>, StoreError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if self.down.load(Ordering::Relaxed) {
                return Err(StoreError::Unavailable);
            }
            let keys = self.keys.lock();
            let found = keys.iter().find(|(known, _)| known == id);
            Ok(found.map(|(_, stored)| stored.clone()))
        }
    }

    struct Fixture {
        key: ApiKey,
        directory: Arc<Directory>,
        authenticator: Authenticator,
    }

    fn fixture(ttl: Duration) -> Fixture {
        let keys = KeyRing::new([("k1".to_owned(), [7; 32])]).unwrap();
        let key = ApiKey::generate().unwrap();
        let stored = StoredKey {
            tenant: TenantId::parse("shop").unwrap(),
            name: "till 1".to_owned(),
            roles: [Role::PaymentsRead].into_iter().collect(),
            hash: key.hash(&keys),
        };
        let directory = Arc::new(Directory {
            keys: Mutex::new(vec![(key.id().clone(), stored)]),
            asked: AtomicUsize::new(0),
            down: AtomicBool::new(false),
        });
        let config = AuthConfig {
            cache_ttl: ttl,
            cache_entries: 10,
            stream_recheck: Duration::from_secs(10),
        };
        let authenticator = Authenticator::new(directory.clone(), keys, &config);
        Fixture {
            key,
            directory,
            authenticator,
        }
    }

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[tokio::test]
    async fn a_valid_key_is_looked_up_once_within_the_ttl() {
        let f = fixture(Duration::from_secs(60));
        let headers = headers(&format!("bearer {}", f.key.reveal().as_str()));
        for _ in 0..3 {
            let caller = f.authenticator.authenticate(&headers).await.unwrap();
            assert_eq!(caller.tenant.as_str(), "shop");
            assert_eq!(&*caller.key_id, f.key.id().as_str());
            assert!(caller.roles.contains(Role::PaymentsRead));
        }
        assert_eq!(f.directory.asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_wrong_secret_under_a_known_id_is_invalid_and_remembered() {
        let f = fixture(Duration::from_secs(60));
        let other = ApiKey::generate().unwrap().reveal();
        let own = f.key.reveal();
        let forged = format!("Bearer {}{}", &own[..20], &other[20..]);
        for _ in 0..3 {
            let refused = f.authenticator.authenticate(&headers(&forged)).await;
            assert_eq!(refused, Err(AuthFailure::Invalid));
        }
        assert_eq!(f.directory.asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn what_is_no_bearer_token_is_refused_unasked() {
        let f = fixture(Duration::ZERO);
        let empty = f.authenticator.authenticate(&HeaderMap::new()).await;
        assert_eq!(empty, Err(AuthFailure::Missing));
        for value in ["", "Bearer", "Bearer x", "Basic dTpw"] {
            let refused = f.authenticator.authenticate(&headers(value)).await;
            assert_eq!(refused, Err(AuthFailure::Invalid), "{value}");
        }
        let valid = format!("Bearer {}", f.key.reveal().as_str());
        let mut twice = headers(&valid);
        twice.append(AUTHORIZATION, HeaderValue::from_str(&valid).unwrap());
        assert_eq!(
            f.authenticator.authenticate(&twice).await,
            Err(AuthFailure::Invalid)
        );
        assert_eq!(f.directory.asked.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn who_was_let_in_is_valid_until_the_key_is_revoked_or_means_less() {
        let f = fixture(Duration::ZERO);
        let value = format!("Bearer {}", f.key.reveal().as_str());
        let caller = f.authenticator.authenticate(&headers(&value)).await;
        let caller = caller.unwrap();
        assert_eq!(f.authenticator.still_valid(&caller).await, Ok(()));
        let change = |change: &dyn Fn(&mut StoredKey)| {
            change(&mut f.directory.keys.lock()[0].1);
        };
        let invalid = Err(AuthFailure::Invalid);
        change(&|key| key.roles = [Role::AuditRead].into_iter().collect());
        assert_eq!(f.authenticator.still_valid(&caller).await, invalid);
        change(&|key| key.roles = Role::ALL.into_iter().collect());
        assert_eq!(f.authenticator.still_valid(&caller).await, Ok(()));
        change(&|key| key.tenant = TenantId::parse("other").unwrap());
        assert_eq!(f.authenticator.still_valid(&caller).await, invalid);
        f.directory.keys.lock().clear();
        assert_eq!(f.authenticator.still_valid(&caller).await, invalid);
        f.directory.down.store(true, Ordering::Relaxed);
        let unavailable = Err(AuthFailure::Unavailable);
        assert_eq!(f.authenticator.still_valid(&caller).await, unavailable);
    }

    #[tokio::test]
    async fn streams_of_one_key_ask_the_database_once_within_the_ttl() {
        let f = fixture(Duration::from_secs(60));
        let value = format!("Bearer {}", f.key.reveal().as_str());
        let caller = f.authenticator.authenticate(&headers(&value)).await;
        let caller = caller.unwrap();
        for _ in 0..3 {
            assert_eq!(f.authenticator.still_valid(&caller).await, Ok(()));
        }
        assert_eq!(f.directory.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_lost_database_makes_no_key_invalid() {
        let f = fixture(Duration::from_secs(60));
        let headers = headers(&format!("Bearer {}", f.key.reveal().as_str()));
        f.directory.down.store(true, Ordering::Relaxed);
        let refused = f.authenticator.authenticate(&headers).await;
        assert_eq!(refused, Err(AuthFailure::Unavailable));
        f.directory.down.store(false, Ordering::Relaxed);
        assert!(f.authenticator.authenticate(&headers).await.is_ok());
    }
}
