//! `quittance-bench`: see `bench/README.md`.

use std::process::ExitCode;

use clap::Parser as _;
use quittance_bench::options::{Cli, Part};
use quittance_bench::{checkpoint_lag, run, sandbox, verify_log};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    match cli.part {
        Some(Part::Sandbox { api_key_variable }) => {
            sandbox::serve(&api_key_variable).await?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Part::VerifyLog { entries }) => tokio::select! {
            result = verify_log::run(cli.options, entries) => result,
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
        },
        Some(Part::CheckpointLag { rate }) => tokio::select! {
            result = checkpoint_lag::run(cli.options, rate) => result,
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
        },
        None => tokio::select! {
            result = run::run(cli.options) => result,
            // Returning from here stops every process that was started.
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
        },
    }
}
