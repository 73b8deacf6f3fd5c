//! `quittance reconcile`: compares what a provider settled with our transactions, as a client of a running server.

mod show;

use std::fmt;
use std::io::Read;
use std::path::PathBuf;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::Args;
use futures::{Stream, StreamExt as _, stream};
use quittance_proto::v1;
use quittance_proto::v1::reconcile_request::Part;
use quittance_proto::v1::reconcile_response::Event;
use tokio::sync::mpsc;

use super::payments::client::Client;
use super::payments::{CallFailed, Connection};
use crate::output;

/// The process's exit code where something was found.
const FOUND: u8 = 6;
/// Bytes of the export that are sent at once.
const CHUNK: usize = 64 * 1_024;
/// Chunks that are read ahead of the server.
const AHEAD: usize = 4;

/// What every exit code means, and where the API key comes from.
const AFTER_HELP: &str = "\
The API key is read from --api-key-file, or else from the variable QUITTANCE_API_KEY; it is never an argument, because
other users can see those. It needs the role `platform.audit`. See docs/reconciliation.md.

Exit codes: 0 all agrees · 1 not tried, such as a file that cannot be read · 2 wrong arguments · 3 refused by the server
· 4 out of reach or refused for now: try again later · 6 something is missing, extra, different or not known.";

/// What is reconciled.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct ReconcileArgs {
    #[command(flatten)]
    connection: Connection,
    /// The provider account, as the configuration names it.
    account: String,
    /// The provider's settlement export; - reads it from standard input. Left out for a provider that is asked itself, such
    /// as the sandbox.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// From when on the export has everything, such as 2026-01-01T00:00:00Z. Without it, its first line.
    #[arg(long, value_name = "TIME")]
    from: Option<DateTime<Utc>>,
    /// Until when. Without it, its last line.
    #[arg(long, value_name = "TIME")]
    to: Option<DateTime<Utc>>,
    /// How near to either end of that our transactions are not called missing, in seconds. Without it, what the provider's
    /// export needs.
    #[arg(long, value_name = "SECONDS")]
    margin: Option<u32>,
    /// Print one JSON object a line: findings, and the summary at last.
    #[arg(long)]
    json: bool,
}

/// The two do not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BooksDiffer {
    findings: u64,
}

impl BooksDiffer {
    /// The exit code of the process that found it.
    pub const EXIT_CODE: u8 = FOUND;
}

impl fmt::Display for BooksDiffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let findings = self.findings;
        write!(
            f,
            "{findings} findings; docs/reconciliation.md says what to do about each"
        )
    }
}

impl std::error::Error for BooksDiffer {}

/// Runs the command.
///
/// # Errors
/// [`BooksDiffer`] where something was found; [`CallFailed`] where the server refused; else what kept it from being asked.
pub async fn run(wanted: ReconcileArgs) -> anyhow::Result<()> {
    let export = wanted.export.as_ref().map(opened).transpose()?;
    let mut client = Client::connect(&wanted.connection).await?;
    let start = v1::ReconciliationStart {
        provider_account: wanted.account,
        from_time: wanted.from.map(crate::convert::payment::timestamp),
        to_time: wanted.to.map(crate::convert::payment::timestamp),
        margin_seconds: wanted.margin,
    };
    let (failed, mut failure) = mpsc::channel(1);
    let messages = messages(start, export, failed);
    let told = async {
        let mut told = client.reconcile(messages).await?;
        while let Some(message) = told.message().await? {
            match message.event {
                Some(Event::Finding(finding)) => output::line(show::finding(&finding, wanted.json)),
                Some(Event::Summary(summary)) => return Ok(summary),
                None => {}
            }
        }
        Err(CallFailed::from(tonic::Status::unavailable(
            "the reconciliation ended without a summary",
        )))
    };
    let summary = tokio::select! {
        biased;
        // What could not be read to its end must not pass for a whole export.
        Some(error) = failure.recv() => return Err(error),
        summary = told => summary?,
    };
    output::line(show::summary(&summary, wanted.json));
    let findings = [
        summary.missing,
        summary.extra,
        summary.differing,
        summary.unknown_lines,
    ];
    match findings.iter().sum() {
        0 => Ok(()),
        findings => Err(BooksDiffer { findings }.into()),
    }
}

type Source = Box<dyn Read + Send>;

fn opened(path: &PathBuf) -> anyhow::Result<Source> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(std::io::stdin()));
    }
    let file = std::fs::File::open(path);
    let file = file.with_context(|| format!("--export: cannot read {}", path.display()))?;
    Ok(Box::new(file))
}

/// The start, and then the export. One that cannot be read on is never ended: the call is given up.
fn messages(
    start: v1::ReconciliationStart,
    export: Option<Source>,
    failed: mpsc::Sender<anyhow::Error>,
) -> impl Stream<Item = v1::ReconcileRequest> + Send + 'static {
    let (sender, chunks) = mpsc::channel(AHEAD);
    if let Some(export) = export {
        std::thread::spawn(move || read(export, &sender, &failed));
    }
    let chunks = stream::unfold(chunks, |mut chunks| async move {
        let part = Part::Chunk(chunks.recv().await?);
        Some((part, chunks))
    });
    let parts = stream::once(async { Part::Start(start) }).chain(chunks);
    parts.map(|part| v1::ReconcileRequest { part: Some(part) })
}

fn read(mut export: Source, chunks: &mpsc::Sender<Vec<u8>>, failed: &mpsc::Sender<anyhow::Error>) {
    loop {
        let mut chunk = vec![0; CHUNK];
        match export.read(&mut chunk) {
            Ok(0) => return,
            Ok(length) => {
                chunk.truncate(length);
                if chunks.blocking_send(chunk).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                let told = failed.blocking_send(anyhow::Error::new(error).context("--export"));
                // The process ends with the error before anything else is sent.
                if told.is_ok() {
                    std::thread::park();
                }
                return;
            }
        }
    }
}
