//! Proxies between a server and what it depends on: they break the connections, and stop the server at
//! named points by holding bytes.

use quittance_test_support::FaultProxy;
use toml::Value;

use super::Site;
use super::site::Setting;

/// The settings that say where a server finds the provider and the database.
const ACCOUNTS: &str = "providers.accounts";
const DATABASE: &str = "database.url";

/// The ways from a server to its provider and its database.
#[derive(Clone)]
pub struct Links {
    /// HTTP, in plain.
    pub provider: FaultProxy,
    /// PostgreSQL's protocol, in plain.
    pub database: FaultProxy,
    settings: Vec<Setting>,
}

impl Links {
    /// New ones, for a server of a site.
    pub async fn of(site: &Site) -> Self {
        Self::between(&site.settings(), site.sandbox.addr()).await
    }

    /// Proxies before the database of these settings and the sandbox at that address.
    pub async fn between(settings: &[Setting], sandbox: std::net::SocketAddr) -> Self {
        let value = |path: &str| {
            let found = settings.iter().rev().find(|(name, _)| *name == path);
            found.map(|(_, value)| value.clone()).unwrap()
        };
        let provider = FaultProxy::start(sandbox).await;
        let url = value(DATABASE);
        let (database, url) = FaultProxy::before_database(url.as_str().unwrap()).await;
        let mut accounts = value(ACCOUNTS);
        for account in accounts.as_array_mut().unwrap() {
            let account = account.as_table_mut().unwrap();
            let through = format!("http://{}", provider.address());
            account.insert("base_url".to_owned(), Value::from(through));
        }
        Self {
            provider,
            database,
            settings: vec![(DATABASE, Value::from(url)), (ACCOUNTS, accounts)],
        }
    }

    /// What makes a server go through these proxies, after all other settings.
    pub fn settings(&self) -> Vec<Setting> {
        self.settings.clone()
    }

    /// Both pass everything again.
    pub async fn pass(&self) {
        self.provider.pass().await;
        self.database.pass().await;
    }
}
