//! `quittance audit verify`: asks the server to check the log, and shows how far it is.

use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat};
use clap::Args;
use quittance_proto::v1;
use quittance_proto::v1::ErrorReason;
use quittance_proto::v1::verify_log_response::Event;

use crate::commands::payments::client::Client;
use crate::commands::payments::{CallFailed, Connection, plain};
use crate::output;

/// The process's exit code where the log does not verify.
const DIFFERS: u8 = 5;
/// How often a check that was cut short is gone on with, before it is given up.
const MAX_RESUMES: u32 = 10;
/// Pause before each of them.
const PAUSE: Duration = Duration::from_secs(2);
/// Width of the bar, in characters.
const BAR: u64 = 30;
/// How often progress is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);
/// Most bytes of a resume token.
const MAX_TOKEN: u64 = 1_024;

/// How the log is verified.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    connection: Connection,
    /// Where to keep how far the check is: one that was interrupted goes on from there, within 24 hours. What it had
    /// checked is then not read again, but for the hashes of the entries and the tree over them: a payment, or the bytes of
    /// an entry, that were changed since show in the next whole check. Removed at the end.
    #[arg(long, value_name = "FILE")]
    resume_file: Option<PathBuf>,
}

/// The log does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogDiffers {
    /// How many mismatches were found.
    mismatches: u64,
}

impl LogDiffers {
    /// The exit code of the process that found it.
    pub const EXIT_CODE: u8 = DIFFERS;
}

impl fmt::Display for LogDiffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mismatches = self.mismatches;
        write!(
            f,
            "the log does not verify: {mismatches} mismatches, each of them reason for an alert. Keep the database as it \
             is, and compare it with a backup"
        )
    }
}

impl std::error::Error for LogDiffers {}

/// Asks until the check has come to its end.
pub(super) async fn run(wanted: &VerifyArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let file = wanted.resume_file.as_deref();
    let mut check = Check {
        token: file.map(read_token).transpose()?.unwrap_or_default(),
        file,
        shown: Shown::new(),
    };
    let mut resumes = 0;
    let summary = loop {
        match check.listen(&mut client).await {
            Ok(summary) => break summary,
            Err(failed) if failed.may_be_tried_again() && resumes < MAX_RESUMES => {
                resumes += 1;
                check.shown.clear();
                let _ = writeln!(std::io::stderr(), "interrupted, goes on: {failed}");
                tokio::time::sleep(PAUSE).await;
            }
            Err(failed) => {
                check.shown.clear();
                let foreign = file.filter(|_| failed.is(ErrorReason::InvalidResumeToken));
                return Err(match foreign {
                    None => failed.into(),
                    Some(file) => anyhow::Error::new(failed).context(format!(
                        "--resume-file: the check cannot go on from {}; remove the file to begin anew",
                        file.display()
                    )),
                });
            }
        }
    };
    check.shown.clear();
    if let Some(file) = file {
        let _ = std::fs::remove_file(file);
    }
    output::line(ended(&summary));
    match summary.mismatches {
        0 => Ok(()),
        mismatches => Err(LogDiffers { mismatches }.into()),
    }
}

/// What was checked, since when, and what came out.
fn ended(summary: &v1::VerificationSummary) -> String {
    let begun = summary.begun_at.as_ref();
    let begun = begun.and_then(|at| DateTime::from_timestamp(at.seconds, 0));
    let since = begun.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
    format!(
        "{} entries and {} payments checked since {}: {}",
        grouped(summary.entries_checked),
        grouped(summary.payments_checked),
        since.unwrap_or_else(|| "an unknown time".to_owned()),
        match summary.mismatches {
            0 => "the log is intact.".to_owned(),
            mismatches => format!("{} mismatches.", grouped(mismatches)),
        }
    )
}

struct Check<'a> {
    token: String,
    file: Option<&'a Path>,
    shown: Shown,
}

impl Check<'_> {
    /// One stream, to its end.
    async fn listen(&mut self, client: &mut Client) -> Result<v1::VerificationSummary, CallFailed> {
        let mut told = client.verify_log(self.token.clone()).await?;
        while let Some(message) = told.message().await? {
            match message.event {
                Some(Event::Progress(progress)) => self.progress(&progress),
                Some(Event::Mismatch(found)) => {
                    self.shown.clear();
                    output::line(mismatch(&found));
                }
                Some(Event::Summary(summary)) => return Ok(summary),
                None => {}
            }
        }
        Err(tonic::Status::unavailable("the check ended without a summary").into())
    }

    fn progress(&mut self, progress: &v1::VerificationProgress) {
        self.token.clone_from(&progress.resume_token);
        if let Some(file) = self.file {
            // Where this fails, an interrupted check begins at the beginning.
            let _ = std::fs::write(file, &self.token);
        }
        self.shown.progress(progress);
    }
}

fn read_token(file: &Path) -> anyhow::Result<String> {
    let about = || format!("--resume-file: cannot read {}", file.display());
    match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error).with_context(about),
        Ok(metadata) if metadata.len() > MAX_TOKEN => {
            anyhow::bail!("--resume-file: {} is no resume token", file.display())
        }
        Ok(_) => {}
    }
    let token = std::fs::read_to_string(file).with_context(about)?;
    Ok(token.trim().to_owned())
}

/// A mismatch in two lines.
fn mismatch(found: &v1::LogMismatch) -> String {
    let mut places = Vec::new();
    for (name, id) in [("entry", &found.entry_id), ("payment", &found.payment_id)] {
        if !id.is_empty() {
            places.push(format!("{name} {}", plain(id)));
        }
    }
    places.extend(found.leaf_index.map(|index| format!("position {index}")));
    let places = if places.is_empty() {
        "the log".to_owned()
    } else {
        places.join(", ")
    };
    format!(
        "{}  {places}\n  {}",
        plain(&found.code),
        plain(&found.detail)
    )
}

/// What the terminal shows of the progress.
struct Shown {
    terminal: bool,
    since: Instant,
    /// Entries that were checked when this run began to count.
    from: Option<u64>,
    printed: Option<Instant>,
}

impl Shown {
    fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            since: Instant::now(),
            from: None,
            printed: None,
        }
    }

    fn progress(&mut self, progress: &v1::VerificationProgress) {
        let from = *self.from.get_or_insert(progress.checked);
        let seconds = self.since.elapsed().as_secs().max(1);
        let rate = progress.checked.saturating_sub(from) / seconds;
        let line = line(progress, rate);
        let mut out = std::io::stderr().lock();
        if self.terminal {
            let _ = write!(out, "\r\u{1b}[2K{line}");
            let _ = out.flush();
            self.printed = Some(Instant::now());
        } else if self.printed.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
            let _ = writeln!(out, "{line}");
            self.printed = Some(Instant::now());
        }
    }

    /// Makes room for a line of its own.
    fn clear(&self) {
        if self.terminal && self.printed.is_some() {
            let _ = write!(std::io::stderr().lock(), "\r\u{1b}[2K");
        }
    }
}

/// A bar, how much is done, and how fast.
fn line(progress: &v1::VerificationProgress, rate: u64) -> String {
    let total = progress.total.max(1);
    let done = progress.checked.min(total);
    let filled = done.saturating_mul(BAR) / total;
    let bar: String = (0..BAR)
        .map(|at| if at < filled { '█' } else { '░' })
        .collect();
    let percent = done.saturating_mul(100) / total;
    let (what, of) = match progress.stage() {
        v1::VerificationStage::Payments => ("payments", "against the log"),
        v1::VerificationStage::Chains => ("positions", "in a row"),
        v1::VerificationStage::Tree => ("entries", "in the tree"),
        v1::VerificationStage::Leaves | v1::VerificationStage::Unspecified => {
            ("entries", "with their chains and payments")
        }
    };
    let mut line = format!(
        "{bar} {percent:>3} %  {} of {} {what} {of}",
        grouped(progress.checked),
        grouped(progress.total),
    );
    if rate > 0 {
        line = format!("{line}, {} a second", grouped(rate));
    }
    if progress.mismatches > 0 {
        line = format!("{line}, {} MISMATCHES", grouped(progress.mismatches));
    }
    line
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn the_end_says_since_when() {
        let summary = v1::VerificationSummary {
            entries_checked: 1_000,
            payments_checked: 7,
            begun_at: Some(prost_types::Timestamp {
                seconds: 1_800_000_000,
                nanos: 5,
            }),
            ..Default::default()
        };
        assert_eq!(
            ended(&summary),
            "1,000 entries and 7 payments checked since 2027-01-15T08:00:00Z: the log is intact."
        );
    }

    #[test]
    fn progress_is_a_line() {
        let mut progress = v1::VerificationProgress {
            stage: v1::VerificationStage::Leaves.into(),
            checked: 500_000,
            total: 1_000_000,
            ..Default::default()
        };
        let text = line(&progress, 120_000);
        assert!(
            text.starts_with(&"█".repeat(15)) && text.contains(" 50 %"),
            "{text}"
        );
        assert!(
            text.contains("120,000 a second") && !text.contains("MISMATCHES"),
            "{text}"
        );
        progress.mismatches = 2;
        progress.total = 0;
        assert!(line(&progress, 0).ends_with(", 2 MISMATCHES"));
    }

    #[test]
    fn a_mismatch_says_where_and_cannot_steer_the_terminal() {
        let found = v1::LogMismatch {
            code: "MAC_WRONG".into(),
            entry_id: "e1".into(),
            leaf_index: Some(7),
            detail: "bad\u{1b}[2J".into(),
            ..Default::default()
        };
        let text = mismatch(&found);
        assert!(
            text.starts_with("MAC_WRONG  entry e1, position 7\n  bad"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
        assert!(mismatch(&v1::LogMismatch::default()).contains("the log"));
    }

    #[test]
    fn a_check_goes_on_from_its_file() {
        let directory = tempfile::TempDir::new().unwrap();
        let file = directory.path().join("resume");
        assert_eq!(read_token(&file).unwrap(), "");
        std::fs::write(&file, "token\n").unwrap();
        assert_eq!(read_token(&file).unwrap(), "token");
        std::fs::write(&file, "x".repeat(2_000)).unwrap();
        assert!(read_token(&file).is_err());
    }
}
