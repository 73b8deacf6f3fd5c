//! `quittance demo`: payments through a throw-away server, over TLS, as any client would make them.
//!
//! Every scene checks what it shows: the demo fails where the service does not do what it says.

mod client;
mod notified;
mod proof;
mod scenes;
mod show;

use quittance_telemetry::Telemetry;
use toml::Value;

use crate::config::Sources;
use crate::dev::{DevOptions, DevServer};
use crate::signals;
use client::Client;
use show::Show;

/// A free port: a server of the same machine may have the usual one.
const ANY_PORT: &str = "127.0.0.1:0";

/// Runs the demo.
///
/// # Errors
/// What kept the server from starting, or did not go as the demo says.
pub async fn run(sources: Sources, telemetry: &Telemetry) -> anyhow::Result<()> {
    let stop = signals::stop()?;
    let mut sources = sources;
    for setting in ["server.grpc_listen", "server.http_listen"] {
        sources
            .forced
            .push((setting, Value::String(ANY_PORT.to_owned())));
    }
    let show = Show::for_terminal();
    show.title(
        "Quittance: a payment service, its database and a payment provider, started for you",
    );
    let options = DevOptions {
        data_dir: None,
        sources,
    };
    let server = tokio::select! {
        server = DevServer::start(options, telemetry) => server?,
        () = stop.cancelled() => anyhow::bail!("interrupted"),
    };
    let played = tokio::select! {
        played = play(&server, &show) => played,
        () = stop.cancelled() => Err(anyhow::anyhow!("interrupted")),
    };
    server.shutdown().await;
    played?;
    show::end(
        "Everything above went over gRPC with TLS, through PostgreSQL and a provider over HTTP.",
    );
    show::end("Next: `make run` keeps a server running and prints a first payment to copy.");
    Ok(())
}

async fn play(server: &DevServer, show: &Show) -> anyhow::Result<()> {
    let mut client = Client::connect(server).await?;
    show.note(&format!(
        "gRPC with TLS on {}, an API key of tenant `demo`",
        server.server().grpc_addr()
    ));
    scenes::purchase(&mut client, show).await?;
    let order = scenes::partial_captures(&mut client, show).await?;
    scenes::decline(&mut client, show).await?;
    scenes::repeated_request(&mut client, show).await?;
    scenes::lost_answer(&mut client, show).await?;
    scenes::audit_trail(&mut client, show, &order).await?;
    // Not where keys are configured: these are read from the directory of this server.
    if let Ok(keys) = server.log_keys() {
        proof::of_an_entry(&mut client, show, &order, &keys).await?;
        proof::of_a_payment(&mut client, show, &order, &keys).await?;
    }
    notified::notified(&mut client, show).await
}
