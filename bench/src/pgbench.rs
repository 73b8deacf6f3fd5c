//! Runs `pgbench`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::Utc;
use quittance_embedded_postgres::EmbeddedPostgres;
use tokio::process::Command;

use crate::script::FIRST_ID;

/// The settings of the service's committing connections: the baseline gets them as well, because
/// partitioned tables are slower to plan than to write.
const SESSION: &str = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off";
/// How much longer than its measurement pgbench may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long it runs.
#[derive(Debug, Clone, Copy)]
pub enum Length {
    /// Seconds.
    Seconds(u64),
    /// Payments of each client.
    Payments(u64),
}

/// What it measured. Each of its "transactions" is a payment, which is two database transactions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Baseline {
    /// Payments written.
    pub payments: u64,
    /// Payments that failed.
    pub failed: u64,
    /// Payments per second, without the time it takes to connect.
    pub per_second: f64,
    /// Mean time of a payment, in milliseconds.
    pub mean_latency: f64,
}

/// Runs the script with this many clients in a database of the server.
///
/// # Errors
/// Where pgbench is missing or fails.
pub async fn run(
    server: &EmbeddedPostgres,
    database: &str,
    script: &Path,
    clients: u16,
    length: Length,
) -> anyhow::Result<Baseline> {
    let program = find(server.bin_dir())?;
    let processors = std::thread::available_parallelism()?.get();
    // Milliseconds in the upper 48 bits, as in a UUIDv7.
    let first_id = Utc::now()
        .timestamp_millis()
        .checked_shl(16)
        .context("the clock")?;
    let mut command = Command::new(program);
    command
        .env("PGHOST", server.socket_dir())
        .env("PGPORT", server.port().to_string())
        .env("PGUSER", server.superuser())
        .env("PGPASSWORD", server.password())
        .env("PGOPTIONS", SESSION)
        .args(["--no-vacuum", "--protocol=prepared", "--define=n=0"])
        .arg(format!("--define={FIRST_ID}={first_id}"))
        .arg(format!("--client={clients}"))
        .arg(format!("--jobs={}", usize::from(clients).min(processors)))
        .arg(format!("--file={}", script.display()));
    let patience = match length {
        Length::Seconds(seconds) => {
            command.arg(format!("--time={seconds}"));
            PATIENCE + Duration::from_secs(seconds)
        }
        Length::Payments(payments) => {
            command.arg(format!("--transactions={payments}"));
            PATIENCE
        }
    };
    command
        .arg(database)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(patience, command.output()).await;
    let output = output
        .context("pgbench does not end")?
        .context("start pgbench")?;
    if !output.status.success() {
        bail!(
            "pgbench failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Beside the server that runs; else beside what its name is a link to; else anywhere in PATH, since
/// what pgbench does has not changed between versions.
fn find(bin_dir: &Path) -> anyhow::Result<PathBuf> {
    let linked = fs::canonicalize(bin_dir.join("postgres")).ok();
    let linked = linked
        .as_deref()
        .and_then(Path::parent)
        .map(Path::to_path_buf);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::iter::once(bin_dir.to_path_buf()).chain(linked);
    places
        .chain(std::env::split_paths(&path))
        .map(|place| place.join("pgbench"))
        .find(|program| program.is_file())
        .context("pgbench is missing; it comes with PostgreSQL's server or contrib package")
}

fn parse(text: &str) -> anyhow::Result<Baseline> {
    let number = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name));
        let number = rest
            .and_then(|rest| rest.split([' ', '/']).next())
            .filter(|it| !it.is_empty());
        number.with_context(|| format!("pgbench did not tell its {name:?}"))
    };
    Ok(Baseline {
        payments: number("number of transactions actually processed: ")?.parse()?,
        failed: number("number of failed transactions: ")?.parse()?,
        per_second: number("tps = ")?.parse()?,
        mean_latency: number("latency average = ")?.parse()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_pgbench_prints() {
        let text = "pgbench (15.14 (Debian 15.14-0+deb12u1))\n\
            transaction type: script.sql\n\
            number of clients: 8\n\
            number of transactions actually processed: 200/200\n\
            number of failed transactions: 0 (0.000%)\n\
            latency average = 2.533 ms\n\
            initial connection time = 23.221 ms\n\
            tps = 3158.311 (without initial connection time)\n";
        let expected = Baseline {
            payments: 200,
            failed: 0,
            per_second: 3158.311,
            mean_latency: 2.533,
        };
        assert_eq!(parse(text).unwrap(), expected);
        assert!(parse("").is_err());
    }
}
