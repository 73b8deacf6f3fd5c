//! The result, as JSON (every field is documented in `bench/README.md`) and as tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{Cell, CellAlignment, Table};
use serde::Serialize;

use crate::latency::Quantiles;
use crate::number::median;

/// Version of the JSON's fields.
pub const FORMAT: u32 = 2;

/// Everything that a run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// Where.
    pub machine: Machine,
    /// With which settings.
    pub settings: Settings,
    /// Payments per second of the baseline by number of clients, before the first round.
    pub baseline_sweep: BTreeMap<u16, f64>,
    /// The rounds.
    pub rounds: Vec<Round>,
    /// Medians over the rounds.
    pub summary: Summary,
}

/// The machine.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Processors that this process may use.
    pub processors: usize,
    /// PostgreSQL's version.
    pub postgres: String,
}

/// The settings.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// Length of a measurement.
    pub seconds: u64,
    /// Payments under way at once in the closed loop.
    pub clients: u16,
    /// Connections that they share.
    pub connections: u16,
    /// pgbench clients.
    pub baseline_clients: u16,
}

/// One round.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// As many payments as the service takes.
    pub closed_loop: ServiceLoad,
    /// Payments at a fixed rate.
    pub open_loop: ServiceLoad,
    /// The closed loop of a server that does not sign its log; of `--audit-cost` only.
    pub unsigned: Option<ServiceLoad>,
    /// pgbench.
    pub baseline: BaselineLoad,
    /// Payments per second of the closed loop, divided by those of the baseline.
    pub ratio: f64,
    /// Payments per second of the closed loop, divided by those without signing.
    pub audit_ratio: Option<f64>,
}

/// What the service did under a load.
#[derive(Debug, Clone, Serialize)]
pub struct ServiceLoad {
    /// Payments that were due per second; of the open loop only.
    pub rate: Option<f64>,
    /// Payments captured.
    pub payments: u64,
    /// What came instead of a capture, and how often.
    pub failures: BTreeMap<String, u64>,
    /// Captured payments per second.
    pub payments_per_second: f64,
    /// From request to answer (closed loop), or from when it was due to the answer (open loop).
    pub latency_ms: Quantiles,
    /// CPU time.
    pub cpu_ms_per_payment: ServiceCpu,
    /// Most memory of the server that was resident during it, in MiB.
    pub server_resident_mib: Option<f64>,
    /// Changes that one database commit wrote, on average.
    pub changes_per_commit: Option<f64>,
    /// The most that an entry of the log was old while no checkpoint covered it, in milliseconds (looked at five
    /// times a second, by the database's clock); `None` where nothing is signed.
    pub uncovered_ms: Option<f64>,
}

/// CPU time in milliseconds per payment; `None` where the system does not tell.
#[derive(Debug, Clone, Serialize)]
pub struct ServiceCpu {
    /// The server.
    pub server: Option<f64>,
    /// PostgreSQL, all its processes.
    pub postgres: Option<f64>,
    /// The sandbox provider.
    pub sandbox: Option<f64>,
    /// The load generator.
    pub generator: Option<f64>,
}

/// What pgbench did.
#[derive(Debug, Clone, Serialize)]
pub struct BaselineLoad {
    /// Payments written.
    pub payments: u64,
    /// Payments that failed.
    pub failed: u64,
    /// Payments per second.
    pub payments_per_second: f64,
    /// Mean time of a payment.
    pub mean_latency_ms: f64,
    /// CPU time of PostgreSQL, in milliseconds per payment.
    pub postgres_cpu_ms_per_payment: Option<f64>,
    /// CPU time of pgbench, in milliseconds per payment.
    pub pgbench_cpu_ms_per_payment: Option<f64>,
}

/// Medians over the rounds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Summary {
    /// Of the closed loop.
    pub payments_per_second: f64,
    /// Of the baseline.
    pub baseline_payments_per_second: f64,
    /// Median of the rounds' ratios.
    pub ratio: f64,
    /// Median of the rounds' ratios with signing to without.
    pub audit_ratio: Option<f64>,
    /// Most memory of the server that ever was resident (`VmHWM`), in MiB.
    pub server_peak_mib: Option<f64>,
    /// Payments stored in the run, less those that were answered as captured: 0 where nothing failed.
    pub unaccounted_payments: i64,
}

impl Summary {
    /// Over these rounds; memory and accounts are added by the run.
    pub fn of(rounds: &[Round]) -> Self {
        let over = |value: fn(&Round) -> f64| median(rounds.iter().map(value));
        let audit_ratios: Option<Vec<_>> = rounds.iter().map(|round| round.audit_ratio).collect();
        Self {
            payments_per_second: over(|round| round.closed_loop.payments_per_second),
            baseline_payments_per_second: over(|round| round.baseline.payments_per_second),
            ratio: over(|round| round.ratio),
            audit_ratio: audit_ratios.map(median),
            ..Self::default()
        }
    }
}

impl Round {
    /// What the service was put under, by name.
    fn loads(&self) -> impl Iterator<Item = (&'static str, &ServiceLoad)> {
        [("closed", &self.closed_loop), ("open", &self.open_loop)]
            .into_iter()
            .chain(self.unsigned.iter().map(|load| ("unsigned", load)))
    }
}

impl Report {
    /// The result for people.
    pub fn text(&self) -> String {
        let mut parts = vec![self.throughput(), self.latency(), self.cpu()];
        for (number, round) in (1..).zip(&self.rounds) {
            for (name, load) in round.loads() {
                for (failure, count) in &load.failures {
                    parts.push(format!("Round {number}, {name} loop: {count} × {failure}"));
                }
            }
        }
        parts.push(self.conclusion());
        parts.join("\n")
    }

    fn throughput(&self) -> String {
        let mut table = table(&[
            "round",
            "service /s",
            "baseline /s",
            "ratio",
            "changes per commit",
        ]);
        for (number, round) in (1..).zip(&self.rounds) {
            add(
                &mut table,
                number.to_string(),
                &[
                    Some(round.closed_loop.payments_per_second),
                    Some(round.baseline.payments_per_second),
                    Some(round.ratio),
                    round.closed_loop.changes_per_commit,
                ],
            );
        }
        format!("Payments per second\n{table}")
    }

    fn latency(&self) -> String {
        let mut table = table(&["round", "loop", "payments /s", "p50", "p99", "p99.9", "max"]);
        for (number, round) in (1..).zip(&self.rounds) {
            for (name, load) in round.loads() {
                let latency = load.latency_ms;
                let mut cells = vec![Cell::new(number), Cell::new(name)];
                let values = [
                    load.payments_per_second,
                    latency.p50,
                    latency.p99,
                    latency.p999,
                    latency.max,
                ];
                cells.extend(values.map(|value| number_cell(Some(value))));
                table.add_row(cells);
            }
        }
        format!("Latency, milliseconds (open loop: from when the payment was due)\n{table}")
    }

    fn cpu(&self) -> String {
        let heads = [
            "",
            "server",
            "postgres",
            "sandbox",
            "generator",
            "server MiB",
            "uncovered ms",
        ];
        let mut table = table(&heads);
        for (number, round) in (1..).zip(&self.rounds) {
            for (name, load) in round.loads() {
                let cpu = &load.cpu_ms_per_payment;
                let values = [
                    cpu.server,
                    cpu.postgres,
                    cpu.sandbox,
                    cpu.generator,
                    load.server_resident_mib,
                    load.uncovered_ms,
                ];
                add(&mut table, format!("{number} {name}"), &values);
            }
            let baseline = &round.baseline;
            let values = [
                None,
                baseline.postgres_cpu_ms_per_payment,
                None,
                baseline.pgbench_cpu_ms_per_payment,
                None,
            ];
            add(&mut table, format!("{number} baseline"), &values);
        }
        format!("CPU milliseconds per payment\n{table}")
    }

    fn conclusion(&self) -> String {
        let summary = &self.summary;
        // Writing to a string does not fail.
        let mut text = format!(
            "Medians: {:.0} payments/s through the service, {:.0} in the baseline ({} clients): \
             ratio {:.2}.",
            summary.payments_per_second,
            summary.baseline_payments_per_second,
            self.settings.baseline_clients,
            summary.ratio
        );
        if let Some(ratio) = summary.audit_ratio {
            let _ = write!(text, " With its log signed, against without: {ratio:.2}.");
        }
        if let Some(peak) = summary.server_peak_mib {
            let _ = write!(text, " Server memory at its peak: {peak:.0} MiB.");
        }
        let unaccounted = summary.unaccounted_payments;
        if unaccounted != 0 {
            let _ = write!(
                text,
                "\n{unaccounted} more payments are stored than were answered."
            );
        }
        text
    }
}

fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(UTF8_BORDERS_ONLY)
        .set_header(heads.iter().copied());
    table
}

fn add(table: &mut Table, name: String, values: &[Option<f64>]) {
    let mut cells = vec![Cell::new(name)];
    cells.extend(values.iter().copied().map(number_cell));
    table.add_row(cells);
}

/// Few digits where the number is large.
fn number_cell(value: Option<f64>) -> Cell {
    let text = match value {
        None => "–".to_owned(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    };
    Cell::new(text).set_alignment(CellAlignment::Right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(per_second: f64) -> ServiceLoad {
        let cpu = ServiceCpu {
            server: Some(0.1),
            postgres: Some(0.2),
            sandbox: None,
            generator: Some(0.05),
        };
        ServiceLoad {
            rate: None,
            payments: 10,
            failures: BTreeMap::from([("Unavailable: x".to_owned(), 2)]),
            payments_per_second: per_second,
            latency_ms: Quantiles {
                p50: 1.0,
                p99: 2.0,
                p999: 3.0,
                max: 4.0,
            },
            cpu_ms_per_payment: cpu,
            server_resident_mib: Some(80.0),
            changes_per_commit: Some(12.5),
            uncovered_ms: Some(700.0),
        }
    }

    fn round(service: f64, baseline: f64) -> Round {
        Round {
            closed_loop: load(service),
            open_loop: load(service),
            unsigned: Some(load(service / 0.9)),
            baseline: BaselineLoad {
                payments: 10,
                failed: 0,
                payments_per_second: baseline,
                mean_latency_ms: 2.0,
                postgres_cpu_ms_per_payment: None,
                pgbench_cpu_ms_per_payment: None,
            },
            ratio: service / baseline,
            audit_ratio: Some(0.9),
        }
    }

    #[test]
    fn shows_medians_and_failures() {
        let rounds = vec![
            round(300.0, 100.0),
            round(200.0, 100.0),
            round(500.0, 200.0),
        ];
        let report = Report {
            format: FORMAT,
            started_at: String::new(),
            machine: Machine {
                processors: 2,
                postgres: "15".to_owned(),
            },
            settings: Settings {
                seconds: 1,
                clients: 2,
                connections: 1,
                baseline_clients: 8,
            },
            baseline_sweep: BTreeMap::from([(8, 100.0)]),
            summary: Summary::of(&rounds),
            rounds,
        };
        let text = report.text();
        assert!(
            text.contains(
                "300 payments/s through the service, 100 in the baseline (8 clients): ratio 2.50"
            ),
            "{text}"
        );
        assert!(text.contains("against without: 0.90."), "{text}");
        assert!(
            text.contains("Round 1, open loop: 2 × Unavailable: x"),
            "{text}"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["rounds"][0]["closed_loop"]["latency_ms"]["p999"], 3.0);
    }
}
