//! `quittance audit export`: writes a payment's evidence bundle to a file, and the page that shows it to another.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use quittance_evidence::bundle::Bundle;
use quittance_proto::v1;
use uuid::Uuid;

use crate::commands::payments::Connection;
use crate::commands::payments::client::Client;
use crate::commands::payments::plain;
use crate::output;

/// Which payment's evidence is exported, and where to.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    connection: Connection,
    /// The payment's id.
    payment: Uuid,
    /// Write the bundle to this file. Without it: evidence-<PAYMENT>.json in the current directory.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also write it as one printable HTML page, made from the same bytes, to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Leave personal data out, also where you may see it.
    #[arg(long)]
    without_personal_data: bool,
}

pub(super) async fn run(wanted: &ExportArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let form = match wanted.html {
        Some(_) => v1::EvidenceForm::Html,
        None => v1::EvidenceForm::Json,
    };
    let exported = client
        .export_evidence(v1::ExportEvidenceRequest {
            payment_id: wanted.payment.to_string(),
            form: form.into(),
            omit_disclosures: wanted.without_personal_data,
        })
        .await?;
    let (bundle, page) = match wanted.html {
        Some(_) => (&exported.source_bundle, Some(&exported.bundle)),
        None => (&exported.bundle, None),
    };
    let decoded = Bundle::decode(bundle).context("the server's answer is no evidence bundle")?;
    anyhow::ensure!(
        decoded.payment_id == wanted.payment,
        "the server's answer is about another payment"
    );
    // Never the name that the server gives.
    let default = PathBuf::from(format!("evidence-{}.json", wanted.payment));
    let file = wanted.out.as_ref().unwrap_or(&default);
    write(file, bundle)?;
    if let (Some(html), Some(page)) = (&wanted.html, page) {
        write(html, page)?;
    }
    tell(&exported, &decoded, file, wanted.html.as_deref());
    Ok(())
}

fn write(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}

fn tell(exported: &v1::ExportEvidenceResponse, bundle: &Bundle, file: &Path, page: Option<&Path>) {
    let file = file.display();
    let entries = bundle.entries.len();
    output::line(format!(
        "Evidence of payment {} written to {file}.",
        bundle.payment_id
    ));
    if let Some(page) = page {
        output::line(format!("Written as a page to {}.", page.display()));
    }
    let checkpoint = exported.checkpoint.as_ref();
    let log = checkpoint.map_or_else(String::new, |checkpoint| {
        let (origin, size) = (plain(&checkpoint.origin), checkpoint.tree_size);
        format!(", in the log {origin} of {size} entries")
    });
    let personal = match bundle.disclosures.len() {
        0 => "It discloses no personal data.".to_owned(),
        some => {
            format!("It discloses personal data: {some} values. Give it to whom they may be known.")
        }
    };
    output::line(format!("  {entries} entries, all that there are{log}"));
    output::line(format!("  {personal}"));
    output::line(format!(
        "Nothing is proved until it is checked with the log's published keys:\n  quittance evidence verify {file} --key …"
    ));
}
