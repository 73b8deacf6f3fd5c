//! `quittance evidence`: checks an evidence bundle, with nothing but the file and keys.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chrono::DateTime;
use clap::{Args, Subcommand};
use quittance_evidence::bundle::{Bundle, CheckName, MAX_BUNDLE_BYTES, Report, TrustedKeys};
use quittance_evidence::note::VerifierKey;
use quittance_evidence::page;

use crate::output;

/// Where keys come from, and what the exit code means.
const AFTER_HELP: &str = "\
A key is a published verifier key, name+id+base64: of the log, of its receipts, or of a witness. Take it from its
owner, never from the bundle. A witness whose key is given must have cosigned, or the bundle is not proved. Nothing is
connected to. docs/evidence.md says what a bundle proves.

Exit codes: 0 proved · 1 not proved, or no bundle · 2 wrong arguments.";

/// What is done with evidence.
#[derive(Debug, Subcommand)]
pub enum EvidenceCommand {
    /// Check an evidence bundle offline: no server, no database.
    #[command(after_help = AFTER_HELP)]
    Verify(VerifyArgs),
}

/// Which bundle, and whom to believe.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The bundle.
    file: PathBuf,
    /// A verifier key that you trust; several may be given.
    #[arg(long = "key", required = true, value_name = "KEY")]
    keys: Vec<VerifierKey>,
    /// Write the bundle as one printable HTML page to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Where the file cannot be read, is no bundle, or does not prove what it claims.
pub fn run(command: EvidenceCommand) -> anyhow::Result<()> {
    match command {
        EvidenceCommand::Verify(wanted) => verify(wanted),
    }
}

fn verify(wanted: VerifyArgs) -> anyhow::Result<()> {
    let bytes = read(&wanted.file)?;
    let keys = TrustedKeys::new(wanted.keys);
    let report = Bundle::decode(&bytes)?.verify(&keys);
    show(&report);
    if let Some(html) = &wanted.html {
        let page = page::render(&bytes, &keys)?;
        std::fs::write(html, page).with_context(|| format!("cannot write {}", html.display()))?;
        output::line(format!("\nWritten as a page to {}.", html.display()));
    }
    anyhow::ensure!(
        report.is_proved(),
        "the bundle does not prove what it claims"
    );
    Ok(())
}

/// Reads at most one byte more than a bundle can have: whatever is handed in, memory is bounded.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let cannot = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_BUNDLE_BYTES)?.saturating_add(1);
    let file = File::open(path).with_context(cannot)?;
    file.take(limit)
        .read_to_end(&mut bytes)
        .with_context(cannot)?;
    Ok(bytes)
}

fn show(report: &Report) {
    let verdict = if report.is_proved() {
        "PROVED"
    } else {
        "NOT PROVED"
    };
    output::line(format!("Payment {}: {verdict}\n", report.payment_id));
    for check in &report.checks {
        match &check.result {
            // Nobody was relied upon.
            Ok(()) if check.name == CheckName::Witnesses && report.cosigned.is_empty() => {
                output::line(format!(
                    "  -       {} (no key of one was given)",
                    check.name
                ));
            }
            Ok(()) => output::line(format!("  ok      {}", check.name)),
            Err(failure) => {
                let why = anyhow::Error::new(failure.clone());
                output::line(format!(
                    "  FAILED  {}: {}",
                    check.name,
                    crate::cli::with_causes(&why)
                ));
            }
        }
    }
    output::line("");
    if let (Some(origin), Some(size), Some(root)) = (&report.origin, report.tree_size, report.root)
    {
        output::line(format!("Log {origin} at {size} entries, root {root}"));
    }
    if report.cosigned.is_empty() {
        output::line("No witness that you trust cosigned: times are the log's word only.");
    }
    for (witness, seconds) in &report.cosigned {
        let time = i64::try_from(*seconds)
            .ok()
            .and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        let time = time.map_or_else(|| seconds.to_string(), |time| time.to_rfc3339());
        output::line(format!("Cosigned by {witness} at {time}"));
    }
    for entry in &report.entries {
        let leaf = &entry.leaf;
        output::line(format!(
            "{:>5}  {}  {:<8} {}",
            leaf.entity_seq,
            leaf.recorded_at.format("%Y-%m-%dT%H:%M:%S%.6fZ"),
            leaf.result.as_str(),
            leaf.event_type,
        ));
    }
}
