//! Making connections: TLS, the application role, and what each use sets for its session.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use diesel::ConnectionError;
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection as _};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio_postgres::NoTls;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{DatabaseTls, StoreConfig, StoreStartError};

/// How much later than the server's own timeout a statement is given up by us.
const CLIENT_TIMEOUT_MARGIN: Duration = Duration::from_millis(500);
/// How often an idle connection is probed, so that one that died silently is noticed.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// How soon the server notices that we have given a statement up, and gives it up as well: otherwise
/// one would run on, or wait for a lock, for nobody. Not every platform of a server can tell.
const CHECK_CLIENT: &str = "do $$ begin \
     perform set_config('client_connection_check_interval', '500ms', false); \
     exception when others then null; end $$; ";

/// What a connection is for; also the last part of its `application_name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// The pool.
    Read,
    /// A committer.
    Commit,
    /// The sequencer.
    Sequence,
    /// A verification of the log.
    Verify,
    /// The owner, who migrates.
    Migrate,
}

impl Use {
    const fn application_name(self) -> &'static str {
        match self {
            Self::Read => "quittance read",
            Self::Commit => "quittance commit",
            Self::Sequence => "quittance sequence",
            Self::Verify => "quittance verify",
            Self::Migrate => "quittance migrate",
        }
    }

    /// Settings of the session beside the timeouts.
    const fn settings(self) -> &'static str {
        match self {
            Self::Read | Self::Migrate => "",
            // One plan for every batch. Fresh tables have no statistics yet, and the plan made then
            // would scan them from end to end for as long as the connection lives; every access of
            // these statements has an index.
            Self::Commit | Self::Sequence => {
                "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; "
            }
            // It reads in batches, each by an index; a plan for many rows would read a table for every batch.
            Self::Verify => {
                "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; \
                 set enable_hashjoin = off; set enable_mergejoin = off; "
            }
        }
    }
}

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Connector {
    config: tokio_postgres::Config,
    tls: Option<MakeRustlsConnect>,
    role: Option<String>,
    statement_timeout: Duration,
    connect_timeout: Duration,
}

impl Connector {
    pub(crate) fn new(config: &StoreConfig) -> Result<Self, StoreStartError> {
        Self::of_url(
            &config.url,
            &config.tls,
            config.application_role.clone(),
            config.statement_timeout,
            config.connect_timeout,
        )
    }

    pub(crate) fn of_url(
        url: &str,
        tls: &DatabaseTls,
        role: Option<String>,
        statement_timeout: Duration,
        connect_timeout: Duration,
    ) -> Result<Self, StoreStartError> {
        let mut config: tokio_postgres::Config = url
            .parse()
            // The parser's own messages may quote the URL, and so the password.
            .map_err(|_| {
                StoreStartError::Url("expected postgres://user:password@host/database".into())
            })?;
        if !url.contains("sslmode=") {
            let local = is_local(&config);
            config.ssl_mode(if local {
                SslMode::Disable
            } else {
                SslMode::Require
            });
        }
        config.connect_timeout(connect_timeout);
        config.keepalives_idle(KEEPALIVE_IDLE);
        // A peer that is gone without a word acknowledges nothing; one that is only slow does.
        config.tcp_user_timeout(statement_timeout + CLIENT_TIMEOUT_MARGIN);
        let tls = match config.get_ssl_mode() {
            SslMode::Disable => None,
            _ => Some(MakeRustlsConnect::new(tls_config(tls)?)),
        };
        Ok(Self {
            config,
            tls,
            role,
            statement_timeout,
            connect_timeout,
        })
    }

    /// How long we wait for a statement at most: a little longer than the server.
    pub(crate) fn client_timeout(&self) -> Duration {
        self.statement_timeout + CLIENT_TIMEOUT_MARGIN
    }

    pub(crate) fn role(&self) -> Option<&str> {
        self.role.as_deref()
    }

    /// Connects and sets the session up, within the connect timeout.
    pub(crate) async fn connect(&self, purpose: Use) -> Result<AsyncPgConnection, ConnectionError> {
        let connecting = async {
            let mut connection = self.open(purpose).await?;
            connection
                .batch_execute(&self.session_settings(purpose))
                .await
                .map_err(ConnectionError::CouldntSetupConfiguration)?;
            Ok(connection)
        };
        tokio::time::timeout(self.connect_timeout, connecting)
            .await
            .unwrap_or_else(|_| {
                Err(ConnectionError::BadConnection(
                    "connecting took too long".into(),
                ))
            })
    }

    async fn open(&self, purpose: Use) -> Result<AsyncPgConnection, ConnectionError> {
        let mut config = self.config.clone();
        config.application_name(purpose.application_name());
        // Errors of the driver name hosts and causes, never passwords.
        let bad = |error: tokio_postgres::Error| ConnectionError::BadConnection(describe(&error));
        match &self.tls {
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(bad)?;
                AsyncPgConnection::try_from_client_and_connection(client, connection).await
            }
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await.map_err(bad)?;
                AsyncPgConnection::try_from_client_and_connection(client, connection).await
            }
        }
    }

    fn session_settings(&self, purpose: Use) -> String {
        // Dates and months are reckoned in UTC, whatever the database's default is.
        const UTC: &str = "set timezone = 'UTC'; ";
        if purpose == Use::Migrate {
            return UTC.to_owned();
        }
        let timeout = self.statement_timeout.as_millis();
        let role = self.role.as_ref().map_or_else(String::new, |role| {
            format!("set role \"{}\"; ", role.replace('"', "\"\""))
        });
        format!(
            "{UTC}{CHECK_CLIENT}{}set statement_timeout = {timeout}; \
             set idle_in_transaction_session_timeout = {timeout}; {role}",
            purpose.settings(),
        )
    }
}

fn describe(error: &tokio_postgres::Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// Whether every host is a Unix socket or on loopback.
fn is_local(config: &tokio_postgres::Config) -> bool {
    let loopback = |ip: &IpAddr| ip.is_loopback();
    if !config.get_hostaddrs().is_empty() {
        return config.get_hostaddrs().iter().all(loopback);
    }
    config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| loopback(&ip))
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    })
}

fn tls_config(tls: &DatabaseTls) -> Result<ClientConfig, StoreStartError> {
    let refused = |error: String| StoreStartError::Authorities(error);
    let mut roots = RootCertStore::empty();
    match &tls.ca_file {
        Some(path) => {
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| refused(format!("{}: {error}", path.display())))?;
            if certificates.is_empty() {
                return Err(refused(format!("{} holds no certificate", path.display())));
            }
            for certificate in certificates {
                roots
                    .add(certificate)
                    .map_err(|error| refused(error.to_string()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> SslMode {
        let timeout = Duration::from_secs(1);
        let tls = DatabaseTls::default();
        let connector = Connector::of_url(url, &tls, None, timeout, timeout).unwrap();
        assert_eq!(
            connector.tls.is_some(),
            connector.config.get_ssl_mode() != SslMode::Disable
        );
        connector.config.get_ssl_mode()
    }

    #[test]
    fn tls_is_required_off_this_machine_unless_the_url_says_otherwise() {
        assert_eq!(mode("postgres://u@db.example.com/q"), SslMode::Require);
        assert_eq!(mode("postgres://u@10.0.0.1/q"), SslMode::Require);
        assert_eq!(
            mode("postgres://u@db.example.com/q?sslmode=disable"),
            SslMode::Disable
        );
        for local in ["localhost", "127.0.0.1", "%2Ftmp%2Fx"] {
            assert_eq!(
                mode(&format!("postgres://u@{local}/q")),
                SslMode::Disable,
                "{local}"
            );
        }
        assert_eq!(
            mode("postgres://u@localhost/q?sslmode=require"),
            SslMode::Require
        );
    }

    #[test]
    fn every_session_reckons_in_utc() {
        let (timeout, tls) = (Duration::from_secs(1), DatabaseTls::default());
        let connector = Connector::of_url("postgres://u@localhost/q", &tls, None, timeout, timeout);
        let connector = connector.unwrap();
        for purpose in [
            Use::Read,
            Use::Commit,
            Use::Sequence,
            Use::Verify,
            Use::Migrate,
        ] {
            let settings = connector.session_settings(purpose);
            assert!(settings.starts_with("set timezone = 'UTC';"), "{purpose:?}");
        }
    }

    #[test]
    fn a_bad_url_is_refused_without_quoting_it() {
        let timeout = Duration::from_secs(1);
        let url = "postgres://u:hunter2@h/q?port=x";
        let error = Connector::of_url(url, &DatabaseTls::default(), None, timeout, timeout);
        assert!(!error.err().unwrap().to_string().contains("hunter2"));
    }
}
