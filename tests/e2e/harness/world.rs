//! A site with a server in this process, and a caller that may do everything within its tenant.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::OnceLock;

use quittance_server::auth::Role;
use quittance_server::server::{RunningServer, Server};
use quittance_telemetry::{Telemetry, TelemetryConfig};

use super::site::{SANDBOX_KEY, Setting, TENANT, TENANT_ROLES};
use super::{Client, Site, SiteOptions};

/// A whole small world of its own.
pub struct World {
    site: Site,
    pub server: RunningServer,
    pub client: Client,
}

impl Deref for World {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

/// Another server on the same database.
pub struct Replica {
    pub server: RunningServer,
    pub client: Client,
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(SiteOptions::default()).await
    }

    pub async fn start_with(options: SiteOptions) -> Self {
        Self::on(Site::new(options).await, Vec::new()).await
    }

    /// A server on a site, with settings of its own.
    pub async fn on(site: Site, settings: Vec<Setting>) -> Self {
        install_telemetry();
        let server = Server::start(site.config_with(settings))
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let client = site.caller(server.grpc_addr(), TENANT, &TENANT_ROLES).await;
        Self {
            site,
            server,
            client,
        }
    }

    /// Has the sandbox misbehave at the next requests of a kind: with this status, so many times.
    pub async fn arm(&self, kind: &str, status: u16, times: u32) {
        let body = format!(
            r#"{{"match": {{"kind": "{kind}"}}, "fault": {{"status": {status}}}, "times": {times}}}"#
        );
        self.control_faults(reqwest::Method::POST, body).await;
    }

    /// Has it behave again.
    pub async fn disarm(&self) {
        let nothing = String::new();
        self.control_faults(reqwest::Method::DELETE, nothing).await;
    }

    async fn control_faults(&self, method: reqwest::Method, body: String) {
        let url = format!("{}/control/faults", self.sandbox.base_url());
        let request = reqwest::Client::new()
            .request(method, url)
            .bearer_auth(SANDBOX_KEY)
            .header("content-type", "application/json")
            .body(body);
        let status = request.send().await.unwrap().status();
        assert!(status.is_success(), "{status}");
    }

    pub fn address(&self) -> SocketAddr {
        self.server.grpc_addr()
    }

    /// Another server on the same database, called with the same key.
    pub async fn replica(&self) -> Replica {
        self.replica_with(Vec::new()).await
    }

    /// The same, with settings of its own.
    pub async fn replica_with(&self, settings: Vec<Setting>) -> Replica {
        let server = Server::start(self.config_with(settings)).await.unwrap();
        let client = self
            .site
            .caller(server.grpc_addr(), TENANT, &TENANT_ROLES)
            .await;
        Replica { server, client }
    }

    /// A caller with exactly these roles.
    pub async fn as_role(&self, tenant: &str, roles: &[Role]) -> Client {
        self.caller(self.address(), tenant, roles).await
    }

    /// A caller of another tenant that may do everything there.
    pub async fn other_tenant(&self) -> Client {
        self.as_role("globex", &TENANT_ROLES).await
    }

    /// The value of a series of `/metrics`: the first whose line begins so.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.server.prometheus().unwrap().render();
        let line = text.lines().find(|line| line.starts_with(series))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// What is left when the server has ended.
    pub async fn shut_down(self) -> (Site, bool) {
        let in_time = self.server.shutdown().await;
        (self.site, in_time)
    }
}

/// Spans need a subscriber to have ids; there is one for the whole process. `E2E_LOG=debug` shows the
/// servers' logs.
fn install_telemetry() {
    static TELEMETRY: OnceLock<Telemetry> = OnceLock::new();
    TELEMETRY.get_or_init(|| {
        let log_filter = std::env::var("E2E_LOG").unwrap_or_else(|_| "off".to_owned());
        let config = TelemetryConfig {
            log_filter,
            ..TelemetryConfig::default()
        };
        quittance_telemetry::init(&config).unwrap()
    });
}
