//! The commands of the command line; `demo` has a module of its own.

pub mod audit;
pub mod endpoints;
pub mod evidence;
pub mod keys;
pub mod notifications;
mod pages;
pub mod payments;
pub mod personal_data;
pub mod reconcile;
pub mod webhooks;
pub mod witness;

use quittance_telemetry::Telemetry;

use crate::config::{Config, DatabaseConfig, Settings};
use crate::database;
use crate::dev::{DevOptions, DevServer};
use crate::output;
use crate::server::Server;
use crate::signals;

/// `quittance serve`: serves until SIGTERM or Ctrl-C.
///
/// # Errors
/// What is wrong with the configuration, or keeps the server from starting.
pub async fn serve(settings: &Settings, telemetry: &Telemetry) -> anyhow::Result<()> {
    let config = Config::parse(settings)?;
    let stop = signals::stop()?;
    let server = tokio::select! {
        server = Server::start_with(config, telemetry) => server?,
        () = stop.cancelled() => return Ok(()),
    };
    tracing::info!(
        address = %server.grpc_addr(),
        service.version = env!("CARGO_PKG_VERSION"),
        "serving gRPC",
    );
    tracing::info!(address = %server.http_addr(), "serving HTTP");
    stop.cancelled().await;
    tracing::info!("stopping");
    server.shutdown().await;
    tracing::info!("stopped");
    Ok(())
}

/// `quittance dev`: serves for development until SIGTERM or Ctrl-C.
///
/// # Errors
/// What keeps the server from starting, with what to do about it.
pub async fn dev(options: DevOptions, telemetry: &Telemetry) -> anyhow::Result<()> {
    let stop = signals::stop()?;
    let server = tokio::select! {
        server = DevServer::start(options, telemetry) => server?,
        () = stop.cancelled() => return Ok(()),
    };
    output::line(server.banner());
    stop.cancelled().await;
    output::line("\nStopping …");
    server.shutdown().await;
    Ok(())
}

/// `quittance migrate`.
///
/// # Errors
/// What is wrong with the configuration or the database.
pub async fn migrate(settings: &Settings) -> anyhow::Result<()> {
    let config = DatabaseConfig::parse(settings)?;
    database::migrate(&config).await?;
    output::line("The schema is up to date.");
    Ok(())
}
