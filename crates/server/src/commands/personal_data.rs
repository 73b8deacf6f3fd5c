//! `quittance personal-data`: erasing what is stored about a customer, as a client of a running server.

use std::time::Duration;

use clap::{Args, Subcommand};
use quittance_proto::v1;

use super::payments::Connection;
use super::payments::client::Client;
use crate::output;

/// How often the server is asked whether an erasure is done.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// What every exit code means, and where the API key comes from.
const AFTER_HELP: &str = "\
The API key is read from --api-key-file, or else from the variable QUITTANCE_API_KEY; it is never an argument, because
other users can see those. It needs the role `admin` (across tenants `platform.admin`). See docs/personal-data.md.

Exit codes: 0 done · 1 not tried, such as a file that cannot be read · 2 wrong arguments · 3 refused by the server
· 4 out of reach or refused for now: try again later.";

/// What is done about personal data.
#[derive(Debug, Subcommand)]
#[command(after_help = AFTER_HELP)]
pub enum PersonalDataCommand {
    /// Erase what is stored about a customer, for good. Payments, amounts and the audit log stay, and every proof stays
    /// valid. Asked again, it tells how far the erasure is.
    #[command(after_help = AFTER_HELP)]
    Erase(EraseArgs),
    /// Tell how far an erasure is.
    #[command(after_help = AFTER_HELP)]
    Status(StatusArgs),
}

/// Whose data is erased.
#[derive(Debug, Args)]
pub struct EraseArgs {
    #[command(flatten)]
    connection: Connection,
    /// Your reference of the customer, as given with their payments.
    customer: String,
    /// Why; at most 500 characters. It is in the audit log for good: it must name nobody.
    #[arg(long)]
    reason: String,
    /// The customer's tenant, if it is not your own (needs the role platform.admin).
    #[arg(long)]
    tenant: Option<String>,
    /// Wait until it is done: some minutes, and longer where the outcome of a payment is not known.
    #[arg(long)]
    wait: bool,
}

/// Which erasure is shown.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    connection: Connection,
    /// The erasure's id, as `erase` tells it.
    erasure: String,
    /// The customer's tenant, if it is not your own (needs the role platform.admin).
    #[arg(long)]
    tenant: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CallFailed`](super::payments::CallFailed) where the server was asked, with what to do; else what kept it from being
/// asked.
pub async fn run(command: PersonalDataCommand) -> anyhow::Result<()> {
    match command {
        PersonalDataCommand::Erase(wanted) => erase(wanted).await,
        PersonalDataCommand::Status(wanted) => status(wanted).await,
    }
}

async fn erase(wanted: EraseArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let tenant = wanted.tenant.unwrap_or_default();
    let request = v1::ErasePersonalDataRequest {
        customer_reference: wanted.customer,
        reason: wanted.reason,
        tenant_id: tenant.clone(),
    };
    let mut erasure = client.erase_personal_data(request).await?;
    while wanted.wait && erasure.finish_time.is_none() {
        tokio::time::sleep(ASK_EVERY).await;
        let id = erasure.erasure_id;
        erasure = client.get_erasure(id, tenant.clone()).await?;
    }
    output::line(told(&erasure));
    Ok(())
}

async fn status(wanted: StatusArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let tenant = wanted.tenant.unwrap_or_default();
    let erasure = client.get_erasure(wanted.erasure, tenant).await?;
    output::line(told(&erasure));
    Ok(())
}

/// The erasure in a sentence or two.
fn told(erasure: &v1::Erasure) -> String {
    let id = &erasure.erasure_id;
    if let Some(time) = &erasure.finish_time {
        let count = erasure.payments;
        return format!("Erased at {time}, with {count} payments on record.\nErasure: {id}");
    }
    let why = match erasure.open_payments {
        0 => "It ends within minutes.".to_owned(),
        1 => "It waits for a payment whose outcome is not known, or a webhook about it.".to_owned(),
        open => {
            format!(
                "It waits for {open} payments whose outcome is not known, or webhooks about them."
            )
        }
    };
    format!(
        "Under way: nothing more is stored under the customer's key. {why}\n\
         Erasure: {id} (quittance personal-data status {id})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_erasure_is_told_in_words() {
        let mut erasure = v1::Erasure {
            erasure_id: "e".to_owned(),
            ..v1::Erasure::default()
        };
        assert!(told(&erasure).contains("ends within minutes"));
        erasure.open_payments = 2;
        assert!(told(&erasure).contains("waits for 2 payments"));
        erasure.open_payments = 0;
        erasure.payments = 3;
        erasure.finish_time = Some(prost_types::Timestamp::default());
        assert!(told(&erasure).starts_with("Erased at 1970-01-01T00:00:00Z, with 3 payments"));
    }
}
