//! `quittance keys`: makes, lists and revokes API keys, straight in the database, and puts that on record.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::SecondsFormat;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use quittance_domain::flows::audit::AuditLog;
use quittance_domain::ids::TenantId;
use quittance_domain::ports::Ports;
use quittance_store::{KeyRing, PgStore, Unobserved};
use quittance_telemetry::Telemetry;
use tokio_util::task::TaskTracker;

use crate::adapters::{NoProviders, OsRandomness, SystemClock, TelemetryObserver, TrackedSpawn};
use crate::auth::{ApiKey, KeyId, Roles};
use crate::cli::CreateKey;
use crate::config::{DatabaseConfig, SecretsConfig, Settings};
use crate::database::{self, Keys};
use crate::operator;
use crate::output;
use crate::server::instance;
use crate::trail::{AuditedKey, KeyEvent, Operator, Trail};

/// How long the connections may take to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

struct Opened {
    store: Arc<PgStore>,
    keys: Keys,
    ring: KeyRing,
    trail: Trail,
}

impl Opened {
    async fn open(settings: &Settings, telemetry: &Telemetry) -> anyhow::Result<Self> {
        let config = DatabaseConfig::parse(settings)?;
        let ring = database::key_ring(&SecretsConfig::parse(settings)?)?;
        let store = database::connect(&config, ring.clone(), Arc::new(Unobserved)).await?;
        let ports = Ports {
            store: store.clone(),
            providers: Arc::new(NoProviders),
            clock: Arc::new(SystemClock),
            // Writing entries starts no task.
            spawn: Arc::new(TrackedSpawn::new(TaskTracker::new(), 0)),
            random: Arc::new(OsRandomness::default()),
            observer: Arc::new(TelemetryObserver::new(telemetry.metrics())),
        };
        let instance = instance();
        Ok(Self {
            keys: Keys::new(Arc::clone(&store)),
            store,
            ring,
            trail: Trail::new(AuditLog::new(ports, instance.clone()), instance),
        })
    }

    /// Makes a key. One that cannot be put on record is revoked before anybody has seen it.
    async fn create(&self, wanted: &CreateKey, operator: &Operator) -> anyhow::Result<ApiKey> {
        let tenant = TenantId::parse(&*wanted.tenant).map_err(|_| database::KeysError::Tenant)?;
        let roles: Roles = wanted.roles.iter().copied().collect();
        let key = self
            .keys
            .create(&wanted.tenant, &wanted.name, roles, &self.ring)
            .await?;
        let made = AuditedKey {
            id: key.id(),
            tenant: &tenant,
            roles,
        };
        let recorded = self
            .trail
            .key_changed(KeyEvent::Created, made, operator)
            .await;
        if let Err(error) = recorded {
            // Its secret is known to nobody, so that this is only tidiness.
            let _ = self.keys.revoke(key.id().as_str()).await;
            return Err(error).context("the key was not made: that could not be put on record");
        }
        Ok(key)
    }

    /// Revokes a key: at once, and on record after that, because a leaked key must not wait for its entry.
    async fn revoke(&self, key_id: &str, operator: &Operator) -> anyhow::Result<()> {
        let unknown = "there is no valid API key with this id";
        let id = KeyId::parse(key_id).context(unknown)?;
        let stored = self.keys.stored(&id).await?.context(unknown)?;
        if !self.keys.revoke(key_id).await? {
            bail!(unknown);
        }
        let revoked = AuditedKey {
            id: &id,
            tenant: &stored.tenant,
            roles: stored.roles,
        };
        let recorded = self
            .trail
            .key_changed(KeyEvent::Revoked, revoked, operator)
            .await;
        recorded.context("the key is revoked, but that could not be put on record")
    }

    async fn close(self) {
        self.store.shutdown(CLOSE_LIMIT).await;
    }
}

/// Makes a key and prints it, for the only time.
///
/// # Errors
/// What is wrong with the configuration, the arguments or the database.
pub async fn create(
    settings: &Settings,
    telemetry: &Telemetry,
    wanted: &CreateKey,
) -> anyhow::Result<()> {
    let opened = Opened::open(settings, telemetry).await?;
    let made = opened.create(wanted, &operator::current()).await;
    opened.close().await;
    // Alone on standard output, so that it can be put into a file or a secret store.
    output::line(made?.reveal().as_str());
    Ok(())
}

/// Prints a table of all keys.
///
/// # Errors
/// What is wrong with the configuration, the arguments or the database.
pub async fn list(
    settings: &Settings,
    telemetry: &Telemetry,
    tenant: Option<&str>,
) -> anyhow::Result<()> {
    let opened = Opened::open(settings, telemetry).await?;
    let listed = opened.keys.list(tenant).await;
    opened.close().await;
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header(["key id", "tenant", "name", "roles", "created", "revoked"]);
    let time = |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    for key in listed? {
        table.add_row([
            key.key_id,
            key.tenant.as_str().to_owned(),
            key.name,
            key.roles.join(", "),
            time(key.created_at),
            key.revoked_at.map(time).unwrap_or_default(),
        ]);
    }
    output::line(table);
    Ok(())
}

/// Revokes a key.
///
/// # Errors
/// What is wrong with the configuration or the database, or that there is no such valid key.
pub async fn revoke(
    settings: &Settings,
    telemetry: &Telemetry,
    key_id: &str,
) -> anyhow::Result<()> {
    let opened = Opened::open(settings, telemetry).await?;
    let revoked = opened.revoke(key_id, &operator::current()).await;
    opened.close().await;
    revoked?;
    output::line("Revoked. It may work on for auth.cache_ttl_ms at most.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use quittance_evidence::Leaf;
    use quittance_telemetry::TelemetryConfig;
    use quittance_test_support::TestDb;
    use toml::Value;

    use super::*;
    use crate::auth::Role;
    use crate::config::Sources;

    async fn opened(db: &TestDb) -> Opened {
        let master = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let forced = vec![
            ("database.url", Value::String(db.url().to_owned())),
            ("database.allow_unsafe_durability", Value::Boolean(true)),
            (
                "secrets.keys",
                Value::Array(vec![Value::String(master.to_owned())]),
            ),
        ];
        let settings = Settings::gather(&Sources {
            forced,
            ..Sources::default()
        });
        let (telemetry, _) = Telemetry::new(&TelemetryConfig::default()).unwrap();
        Opened::open(&settings.unwrap(), &telemetry).await.unwrap()
    }

    async fn entries(db: &TestDb) -> Vec<Leaf> {
        let sql = "select leaf from journal where tenant_id = 'acme' order by entity_seq";
        let rows = db.client().await.query(sql, &[]).await.unwrap();
        let leaf = |row: &tokio_postgres::Row| Leaf::decode(row.get(0)).unwrap();
        rows.iter().map(leaf).collect()
    }

    fn wanted() -> CreateKey {
        CreateKey {
            tenant: "acme".to_owned(),
            name: "till 1".to_owned(),
            roles: vec![Role::PaymentsRead, Role::AuditRead],
        }
    }

    fn operator() -> Operator {
        Operator {
            name: "ann".to_owned(),
            sudo_user: None,
        }
    }

    #[tokio::test]
    async fn making_and_revoking_a_key_is_on_record_without_its_secret() {
        let db = TestDb::new().await;
        let opened = opened(&db).await;
        let key = opened.create(&wanted(), &operator()).await.unwrap();
        opened.revoke(key.id().as_str(), &operator()).await.unwrap();
        let again = opened.revoke(key.id().as_str(), &operator()).await;
        assert!(again.unwrap_err().to_string().contains("no valid API key"));
        opened.close().await;
        let entries = entries(&db).await;
        let types: Vec<_> = entries.iter().map(|leaf| &*leaf.event_type).collect();
        assert_eq!(types, ["api_key.created", "api_key.revoked"]);
        let secret = key.reveal()[20..].to_owned();
        for leaf in &entries {
            assert_eq!((&*leaf.actor.kind, &*leaf.actor.id), ("operator", "ann"));
            assert_eq!(leaf.details["key_id"], key.id().as_str());
            assert_eq!(leaf.details["roles"], "payments.read audit.read");
            assert!(!format!("{leaf:?}").contains(&secret));
        }
    }

    #[tokio::test]
    async fn a_key_that_cannot_be_put_on_record_does_not_work() {
        let db = TestDb::new().await;
        let opened = opened(&db).await;
        let owner = db.client().await;
        owner
            .batch_execute("alter table journal add constraint no_keys check (event_type <> 'api_key.created')")
            .await
            .unwrap();
        let refused = opened.create(&wanted(), &operator()).await.unwrap_err();
        assert!(refused.to_string().contains("put on record"), "{refused:#}");
        let listed = opened.keys.list(None).await.unwrap();
        assert!(listed.iter().all(|key| key.revoked_at.is_some()));
        opened.close().await;
        assert!(entries(&db).await.is_empty());
    }
}
