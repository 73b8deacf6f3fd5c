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
use crate::database::{self, KeyRow, Keys};
use crate::operator;
use crate::output;
use crate::server::instance;
use crate::trail::{AuditedKey, KeyEvent, Operator, Trail, platform};

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

    /// Revokes a key: at once, and on record after that, because a leaked key must not wait for its entry. One whose row was
    /// changed past the service does not work, and might be changed back: it is revoked as well. Whose it is cannot be told
    /// from its row, so that is on record for the platform.
    async fn revoke(&self, key_id: &str, operator: &Operator) -> anyhow::Result<()> {
        let unknown = "there is no valid API key with this id";
        let id = KeyId::parse(key_id).context(unknown)?;
        let stored = self.keys.stored(&id).await?.context(unknown)?;
        if !self.keys.revoke(key_id).await? {
            bail!(unknown);
        }
        let (tenant, roles) = match stored {
            KeyRow::Genuine(stored) => (stored.tenant, stored.roles),
            KeyRow::Forged => (platform()?, Roles::default()),
        };
        let revoked = AuditedKey {
            id: &id,
            tenant: &tenant,
            roles,
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
            match key.revoked_at {
                Some(at) => time(at),
                None if key.genuine => String::new(),
                None => "refused: its row was changed".to_owned(),
            },
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
    use quittance_domain::verification::Trusted;
    use quittance_evidence::Leaf;
    use quittance_store::{
        SIGNER_WITHIN, VERIFY_PATIENCE, VerifyEvent, VerifyProgress, VerifySettings,
    };
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
            // No limit is the subject here, and no busy machine comes to these.
            ("database.connect_timeout_ms", Value::Integer(60_000)),
            ("database.statement_timeout_ms", Value::Integer(60_000)),
            ("database.unavailable_after_ms", Value::Integer(60_000)),
            (
                "database.commit_resolution_timeout_ms",
                Value::Integer(60_000),
            ),
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

    /// The codes of what a verification of the log finds.
    async fn verified(opened: &Opened) -> Vec<&'static str> {
        let (sender, mut events) = tokio::sync::mpsc::channel(16);
        let settings = VerifySettings {
            lanes: 1,
            resume: VerifyProgress::default(),
            trusted: Trusted::default(),
            patience: VERIFY_PATIENCE,
            signer_within: SIGNER_WITHIN,
        };
        let listening = async {
            let mut codes = Vec::new();
            while let Some(event) = events.recv().await {
                if let VerifyEvent::Mismatch(mismatch) = event {
                    codes.push(mismatch.fault.code());
                }
            }
            codes
        };
        let (ended, codes) = tokio::join!(opened.store.verify_log(settings, sender), listening);
        ended.unwrap();
        codes
    }

    #[tokio::test]
    async fn s75_a_key_whose_row_was_changed_lets_nobody_in_and_verification_names_it() {
        let db = TestDb::new().await;
        let opened = opened(&db).await;
        let key = opened.create(&wanted(), &operator()).await.unwrap();
        let other = opened.create(&wanted(), &operator()).await.unwrap();
        let works = async || opened.keys.is_valid(&key, &opened.ring).await.unwrap();
        assert!(works().await);
        assert_eq!(verified(&opened).await, [""; 0]);
        let superuser = db.client().await;
        superuser
            .batch_execute("insert into tenants values ('victim')")
            .await
            .unwrap();
        let id = key.id().as_str();
        let forged = "API_KEY_ROW_FORGED";
        for (change, codes) in [
            ("tenant_id = 'victim'", &["API_KEY_DIFFERS", forged][..]),
            ("roles = roles || '{admin}'", &["API_KEY_DIFFERS", forged]),
            ("name = 'till 2'", &[forged]),
            ("created_at = created_at + interval '1 day'", &[forged]),
            ("created_at = 'infinity'", &[forged]),
            ("secret_mac = sha256(secret_mac)", &[forged]),
            ("row_mac = null", &[forged]),
            ("mac_key_id = 'k9'", &[forged]),
            ("key_id = '0011223344556677'", &["API_KEY_MISSING", forged]),
        ] {
            let tamper = format!(
                "create table kept as select * from api_keys; \
                 update api_keys set {change} where key_id = '{id}'"
            );
            superuser.batch_execute(&tamper).await.unwrap();
            assert_eq!(verified(&opened).await, codes, "{change}");
            if !change.contains("infinity") {
                assert!(!works().await, "{change}");
            }
            let put_back =
                "delete from api_keys; insert into api_keys select * from kept; drop table kept";
            superuser.batch_execute(put_back).await.unwrap();
        }
        assert!(works().await);

        // What another key's row says is bound to that key.
        let moved = format!(
            "update api_keys a set row_mac = b.row_mac, secret_mac = b.secret_mac from api_keys b \
             where a.key_id = '{id}' and b.key_id = '{}'",
            other.id()
        );
        superuser.batch_execute(&moved).await.unwrap();
        assert_eq!(verified(&opened).await, [forged]);
        assert!(!works().await);
        // A key that was tampered with can still be revoked, so that changing it back helps nobody.
        opened.revoke(id, &operator()).await.unwrap();
        opened.close().await;
    }

    #[tokio::test]
    async fn s75_a_revocation_is_for_good_and_one_that_was_taken_back_is_named() {
        let db = TestDb::new().await;
        let opened = opened(&db).await;
        let key = opened.create(&wanted(), &operator()).await.unwrap();
        opened.revoke(key.id().as_str(), &operator()).await.unwrap();
        assert_eq!(verified(&opened).await, [""; 0]);
        let client = db.client().await;
        for change in ["null", "now() + interval '1 day'"] {
            let undo = format!("set role quittance_app; update api_keys set revoked_at = {change}");
            let refused = client.batch_execute(&undo).await.unwrap_err();
            assert_eq!(refused.code().unwrap().code(), "23000");
        }
        let undo = "reset role; alter table api_keys disable trigger all; \
                    update api_keys set revoked_at = null";
        client.batch_execute(undo).await.unwrap();
        assert_eq!(verified(&opened).await, ["API_KEY_NOT_REVOKED"]);
        opened.close().await;
    }
}
