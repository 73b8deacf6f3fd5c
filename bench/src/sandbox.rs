//! The sandbox provider as a process of its own, so that its CPU time can be told apart.

use std::io::Write as _;

use anyhow::Context as _;
use quittance_sandbox::{Sandbox, SandboxConfig};
use tokio::io::AsyncReadExt as _;

/// Serves until standard input closes, which it does when the benchmark ends, however it ends.
/// The first line of standard output is the sandbox's URL.
///
/// # Errors
/// Where the variable is not set, or no port can be listened on.
pub async fn serve(api_key_variable: &str) -> anyhow::Result<()> {
    let api_key = std::env::var(api_key_variable).context(api_key_variable.to_owned())?;
    let sandbox = Sandbox::start(SandboxConfig::new(api_key)).await?;
    writeln!(std::io::stdout(), "{}", sandbox.base_url())?;
    let mut rest = Vec::new();
    tokio::io::stdin().read_to_end(&mut rest).await?;
    sandbox.shutdown().await;
    Ok(())
}
