//! `quittance keys`: makes, lists and revokes API keys, straight in the database.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use chrono::SecondsFormat;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use quittance_store::{KeyRing, PgStore, Unobserved};

use crate::cli::CreateKey;
use crate::config::{DatabaseConfig, SecretsConfig, Settings};
use crate::database::{self, Keys};
use crate::output;

/// How long the connections may take to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

struct Opened {
    store: Arc<PgStore>,
    keys: Keys,
    ring: KeyRing,
}

impl Opened {
    async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let config = DatabaseConfig::parse(settings)?;
        let ring = database::key_ring(&SecretsConfig::parse(settings)?)?;
        let store = database::connect(&config, ring.clone(), Arc::new(Unobserved)).await?;
        Ok(Self {
            keys: Keys::new(Arc::clone(&store)),
            store,
            ring,
        })
    }

    async fn close(self) {
        self.store.shutdown(CLOSE_LIMIT).await;
    }
}

/// Makes a key and prints it, for the only time.
///
/// # Errors
/// What is wrong with the configuration, the arguments or the database.
pub async fn create(settings: &Settings, wanted: &CreateKey) -> anyhow::Result<()> {
    let opened = Opened::open(settings).await?;
    let roles = wanted.roles.iter().copied().collect();
    let made = opened
        .keys
        .create(&wanted.tenant, &wanted.name, roles, &opened.ring)
        .await;
    opened.close().await;
    // Alone on standard output, so that it can be put into a file or a secret store.
    output::line(made?.reveal().as_str());
    Ok(())
}

/// Prints a table of all keys.
///
/// # Errors
/// What is wrong with the configuration, the arguments or the database.
pub async fn list(settings: &Settings, tenant: Option<&str>) -> anyhow::Result<()> {
    let opened = Opened::open(settings).await?;
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
pub async fn revoke(settings: &Settings, key_id: &str) -> anyhow::Result<()> {
    let opened = Opened::open(settings).await?;
    let revoked = opened.keys.revoke(key_id).await;
    opened.close().await;
    if !revoked? {
        bail!("there is no valid API key with this id");
    }
    output::line("Revoked. It may work on for auth.cache_ttl_ms at most.");
    Ok(())
}
