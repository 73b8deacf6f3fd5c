//! `quittance audit`: the audit log, verified and shown, as a client of a running server; and its keys and signer, where
//! the service is configured.

mod export;
pub mod site;
mod timeline;
mod verify;

use clap::{Args, Subcommand};
use quittance_proto::v1;

use super::pages;
use super::payments::Connection;
use super::payments::client::Client;
use crate::output;

pub use self::export::ExportArgs;
pub use self::verify::{LogDiffers, VerifyArgs};

/// What every exit code means, and where the API key comes from.
const AFTER_HELP: &str = "\
The API key is read from --api-key-file, or else from the variable QUITTANCE_API_KEY; it is never an argument, because
other users can see those. `verify` needs the role `platform.audit`, `show` and `export` need `audit.read`; `export` discloses
personal data to whoever also has `payments.read`. See docs/roles.md.

Exit codes: 0 done · 1 not tried, such as a file that cannot be read · 2 wrong arguments · 3 refused by the server
· 4 out of reach or refused for now: try again later · 5 the log does not verify.";

/// What is asked of the audit log.
#[derive(Debug, Subcommand)]
#[command(after_help = AFTER_HELP)]
pub enum AuditCommand {
    /// Check the whole log: hashes, MACs, chains, positions, and the payments against a replay. The server does it, and
    /// may take payments meanwhile.
    #[command(after_help = AFTER_HELP)]
    Verify(VerifyArgs),
    /// Show what happened to a payment, step by step.
    #[command(after_help = AFTER_HELP)]
    Show(ShowArgs),
    /// Export the evidence of a payment: one file that anybody can check offline, with `quittance evidence verify`.
    #[command(after_help = AFTER_HELP)]
    Export(ExportArgs),
    #[command(flatten)]
    Site(site::AuditSiteCommand),
}

/// Which payment's entries are shown.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    connection: Connection,
    /// The payment's id.
    payment: String,
    /// Also who read its entries.
    #[arg(long)]
    reads: bool,
}

/// `quittance audit verify`.
///
/// # Errors
/// [`LogDiffers`] where the log does not verify; [`CallFailed`](super::payments::CallFailed) where the server was asked,
/// with what to do; else what kept it from being asked.
pub async fn verify(wanted: &VerifyArgs) -> anyhow::Result<()> {
    verify::run(wanted).await
}

/// `quittance audit export`.
///
/// # Errors
/// [`CallFailed`](super::payments::CallFailed) where the server was asked, with what to do; else what kept it from being
/// asked, or the file from being written.
pub async fn export(wanted: &ExportArgs) -> anyhow::Result<()> {
    export::run(wanted).await
}

/// `quittance audit show`.
///
/// # Errors
/// [`CallFailed`](super::payments::CallFailed) where the server was asked, with what to do; else what kept it from being
/// asked.
pub async fn show(wanted: &ShowArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let page = async |page_size, page_token| {
        let page = client.list_entries(v1::ListEntriesRequest {
            payment_id: wanted.payment.clone(),
            page_size,
            page_token,
            ..v1::ListEntriesRequest::default()
        });
        let page = page.await?;
        Ok((page.entries, page.next_page_token))
    };
    let entries = pages::all(page).await?;
    output::line(timeline::of(&wanted.payment, &entries, wanted.reads));
    Ok(())
}
