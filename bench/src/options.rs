//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Measures payments per second beside a pgbench baseline, on this machine, in one run.
#[derive(Debug, Parser)]
#[command(name = "quittance-bench", version)]
pub struct Cli {
    /// A part of the benchmark that runs as a process of its own.
    #[command(subcommand)]
    pub part: Option<Part>,
    /// What to measure.
    #[command(flatten)]
    pub options: Options,
}

/// Parts that the benchmark starts by itself.
#[derive(Debug, Subcommand)]
pub enum Part {
    /// The sandbox provider: prints its URL, and serves until its standard input closes.
    #[command(hide = true)]
    Sandbox {
        /// Environment variable that holds its API key.
        #[arg(long)]
        api_key_variable: String,
    },
    /// Measure how fast a log is verified, and with how much memory: of so many entries, and of ten times as many.
    /// `--server`, `--server-log` and `--data-dir` go before it.
    VerifyLog {
        /// Entries of the smaller log. The larger one takes about 5 KiB of disk for each of its entries.
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..=100_000_000))]
        entries: u64,
    },
    /// Measure how long an entry waits for a checkpoint that covers it, while the entries of so many payments a second are
    /// written, two for each. `--seconds`, `--server`, `--server-log` and `--data-dir` go before it.
    CheckpointLag {
        /// Payments per second.
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        rate: u32,
    },
}

/// What to measure.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Length of each measurement, in seconds; a round has three.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Payments under way at once in the closed loop.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub clients: u16,
    /// Connections that the clients share.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub connections: u16,
    /// Rounds of closed loop, open loop and baseline.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// Payments that start per second in the open loop; default: 60 % of what the closed loop of the
    /// same round reached.
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub open_loop: Option<u32>,
    /// pgbench clients of the baseline; default: the best of a small sweep.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=150))]
    pub baseline_clients: Option<u16>,
    /// Also write the result as JSON (fields: bench/README.md).
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Fail if the median ratio of service to baseline is below this.
    #[arg(long, value_name = "X")]
    pub require_ratio: Option<f64>,
    /// Also measure a server that does not sign its audit log (audit.enabled = false), beside the other in
    /// each round: what the log's tree, checkpoints and receipts cost.
    #[arg(long)]
    pub audit_cost: bool,
    /// The server binary; default: `quittance` beside this program.
    #[arg(long, value_name = "FILE")]
    pub server: Option<PathBuf>,
    /// Where the server's log goes; default: written and discarded.
    #[arg(long, value_name = "FILE")]
    pub server_log: Option<PathBuf>,
    /// Where the throw-away database lies; default: the temporary directory. Removed at the end.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound_and_has_the_documented_defaults() {
        Cli::command().debug_assert();
        let cli = Cli::parse_from(["quittance-bench"]);
        assert_eq!(
            (cli.options.seconds, cli.options.clients, cli.options.rounds),
            (20, 64, 3)
        );
        assert!(cli.part.is_none());
    }
}
