//! A whole run: everything started, warmed up, measured in interleaved rounds, and reported.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use chrono::{SecondsFormat, Utc};
use quittance_embedded_postgres::EmbeddedPostgres;
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::load::{Clients, Load, Until};
use crate::number::per;
use crate::options::Options;
use crate::pgbench::{self, Length};
use crate::process;
use crate::report::{
    BaselineLoad, FORMAT, Machine, Report, Round, ServiceCpu, ServiceLoad, Settings, Summary,
};
use crate::sample::Sample;
use crate::script;
use crate::service::{
    self, BASELINE_DATABASE, Quittance, SERVICE_DATABASE, SandboxProcess, ServerProcess,
    UNSIGNED_DATABASE,
};
use crate::setup::Works;
use crate::watched::watched;

/// The open loop's share of what the closed loop reached, unless a rate is given.
const OPEN_LOOP_SHARE: f64 = 0.6;
/// pgbench clients that are tried.
const SWEEP: [u16; 5] = [4, 8, 16, 32, 64];
/// Warm-up and each step of the sweep take this part of a measurement,
const WARM_UP_PART: u64 = 4;
/// and at most this many seconds.
const MAX_WARM_UP_SECONDS: u64 = 5;
/// How long the sequencer may take to come to rest between measurements,
const REST_PATIENCE: Duration = Duration::from_secs(60);
/// and how long it gives out no position when it is at rest.
const REST: Duration = Duration::from_millis(300);
/// The failure exit code of `--require-ratio`.
const RATIO_MISSED: u8 = 2;

/// Runs everything, prints the result, and says how to exit.
///
/// # Errors
/// Where a part cannot be started, or fails.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let started_at = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
    let kept = options.data_dir.as_deref().map(throw_away_in).transpose()?;
    let postgres =
        service::start_postgres(kept.as_ref().map(|it| it.path().join("postgres"))).await?;
    let bench = Bench::start(options, postgres).await?;
    let report = bench.measure(started_at).await;
    let stopped = bench.stop().await;
    // What went wrong first explains the rest.
    let (report, options) = (report?, stopped?);
    say(&report.text())?;
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, json + "\n").context(path.display().to_string())?;
    }
    match options.require_ratio {
        Some(required) if report.summary.ratio < required => {
            say(&format!("The ratio is below the required {required}."))?;
            Ok(ExitCode::from(RATIO_MISSED))
        }
        Some(_) | None => Ok(ExitCode::SUCCESS),
    }
}

/// A new directory that any user may pass through, since PostgreSQL runs as another one under root; the
/// database itself lies below, in a directory for its user only.
pub(crate) fn throw_away_in(parent: &Path) -> anyhow::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder
        .prefix("quittance-bench-")
        .permissions(Permissions::from_mode(0o711));
    builder
        .tempdir_in(parent)
        .with_context(|| parent.display().to_string())
}

pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Progress goes to standard error, so that the result can be redirected.
pub(crate) fn progress(text: &str) {
    // Whoever closed it does not want to read it.
    let _ = writeln!(std::io::stderr(), "bench: {text}");
}

/// Everything that runs.
struct Bench {
    options: Options,
    service: Service,
    /// The same without a signed log, of `--audit-cost` only.
    unsigned: Option<Service>,
    sandbox: SandboxProcess,
    script: PathBuf,
    // Last: everything else uses it.
    postgres: EmbeddedPostgres,
}

/// A server on a database of its own, and those who use it.
struct Service {
    signed: bool,
    clients: Clients,
    server: ServerProcess,
    database: Client,
    // Last: it removes what the server reads.
    quittance: Quittance,
}

impl Service {
    async fn start(
        options: &Options,
        url: &str,
        sandbox: &SandboxProcess,
        works: Works,
    ) -> anyhow::Result<Self> {
        let quittance = Quittance::prepare(options, url, sandbox, works)?;
        quittance.migrate(url).await?;
        let log = if works == Works::Signed {
            quittance.prepare_log().await?;
            options.server_log.as_deref()
        } else {
            None
        };
        let api_key = quittance.create_key("payments.write").await?;
        let server = quittance.serve(api_key, log).await?;
        Ok(Self {
            signed: works == Works::Signed,
            clients: Clients::connect(&server.target, options.connections).await?,
            server,
            database: service::connect(url).await?,
            quittance,
        })
    }

    async fn stop(self) -> anyhow::Result<()> {
        drop(self.clients);
        self.server.stop().await
    }

    async fn stored(&self) -> anyhow::Result<i64> {
        let query = "select count(*) from payments";
        Ok(self.database.query_one(query, &[]).await?.try_get(0)?)
    }

    /// Lets neither side pay for what the other left behind: waits until the sequencer has caught up,
    /// and writes dirty pages out.
    async fn rest(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + REST_PATIENCE;
        let mut last = self.positions().await?;
        loop {
            tokio::time::sleep(REST).await;
            let now = self.positions().await?;
            if now == last {
                break;
            }
            ensure!(Instant::now() < deadline, "the sequencer does not catch up");
            last = now;
        }
        Ok(self.database.batch_execute("checkpoint").await?)
    }

    async fn positions(&self) -> anyhow::Result<i64> {
        let query = "select next_position from sequencer_head";
        Ok(self.database.query_one(query, &[]).await?.try_get(0)?)
    }
}

impl Bench {
    async fn start(options: Options, postgres: EmbeddedPostgres) -> anyhow::Result<Self> {
        progress("starting PostgreSQL, the sandbox and the server");
        let sandbox = SandboxProcess::start().await?;
        let url = postgres.url(SERVICE_DATABASE);
        let mut service = Service::start(&options, &url, &sandbox, Works::Signed).await?;
        let unsigned = if options.audit_cost {
            let url = postgres.url(UNSIGNED_DATABASE);
            Some(Service::start(&options, &url, &sandbox, Works::Unsigned).await?)
        } else {
            None
        };
        let baseline = postgres.url(BASELINE_DATABASE);
        service.quittance.migrate(&baseline).await?;
        let sample = Sample::take(&service.clients, &mut service.database).await?;
        let script = service.quittance.setup.file("baseline.sql");
        std::fs::write(&script, script::render(&sample)?)?;
        Ok(Self {
            options,
            service,
            unsigned,
            sandbox,
            script,
            postgres,
        })
    }

    async fn stop(self) -> anyhow::Result<Options> {
        self.service.stop().await?;
        if let Some(unsigned) = self.unsigned {
            unsigned.stop().await?;
        }
        self.postgres.stop()?;
        Ok(self.options)
    }

    async fn measure(&self, started_at: String) -> anyhow::Result<Report> {
        let stored_before = self.service.stored().await?;
        let warm_up = (self.options.seconds / WARM_UP_PART).clamp(1, MAX_WARM_UP_SECONDS);
        progress("warming up");
        let mut answered = self.warm_up(&self.service, warm_up).await?;
        if let Some(unsigned) = &self.unsigned {
            self.warm_up(unsigned, warm_up).await?;
        }
        let (baseline_clients, baseline_sweep) = self.sweep(warm_up).await?;
        let mut rounds = Vec::new();
        for number in 1..=self.options.rounds {
            progress(&format!("round {number} of {}", self.options.rounds));
            let round = self.round(number, baseline_clients).await?;
            answered += round.closed_loop.payments + round.open_loop.payments;
            rounds.push(round);
        }
        let stored = self.service.stored().await? - stored_before;
        let memory = self.service.server.pid().and_then(process::memory);
        let summary = Summary {
            server_peak_mib: memory.map(|memory| memory.peak),
            unaccounted_payments: stored - i64::try_from(answered)?,
            ..Summary::of(&rounds)
        };
        Ok(Report {
            format: FORMAT,
            started_at,
            machine: Machine {
                processors: std::thread::available_parallelism()?.get(),
                postgres: self.postgres.version().to_string(),
            },
            settings: Settings {
                seconds: self.options.seconds,
                clients: self.options.clients,
                connections: self.options.connections,
                baseline_clients,
            },
            baseline_sweep,
            rounds,
            summary,
        })
    }

    /// Payments that it took.
    async fn warm_up(&self, service: &Service, seconds: u64) -> anyhow::Result<u64> {
        let until = Until::Elapsed(Duration::from_secs(seconds));
        let load = service.clients.closed_loop(self.options.clients, until);
        let load = load.await?;
        let count = load.latencies.count();
        ensure!(count > 0, "no payment succeeded: {:?}", load.failures);
        Ok(count)
    }

    /// Finds the number of clients with which pgbench is fastest.
    async fn sweep(&self, seconds: u64) -> anyhow::Result<(u16, BTreeMap<u16, f64>)> {
        let wanted = self.options.baseline_clients;
        let tried = wanted.map_or_else(|| SWEEP.to_vec(), |clients| vec![clients]);
        progress(&format!(
            "looking for the baseline's best number of clients among {tried:?}"
        ));
        let mut found = BTreeMap::new();
        for clients in tried {
            self.service.rest().await?;
            let baseline = self.pgbench(clients, seconds).await?;
            found.insert(clients, baseline.per_second);
        }
        let best = found.iter().max_by(|one, other| one.1.total_cmp(other.1));
        let (&clients, _) = best.context("nothing was tried")?;
        Ok((clients, found))
    }

    async fn pgbench(&self, clients: u16, seconds: u64) -> anyhow::Result<pgbench::Baseline> {
        let length = Length::Seconds(seconds);
        pgbench::run(
            &self.postgres,
            BASELINE_DATABASE,
            &self.script,
            clients,
            length,
        )
        .await
    }

    async fn round(&self, number: u16, baseline_clients: u16) -> anyhow::Result<Round> {
        let length = Duration::from_secs(self.options.seconds);
        // By turns: whoever is first finds another machine than whoever is second.
        let (closed_loop, unsigned) = match &self.unsigned {
            Some(unsigned) if number.is_multiple_of(2) => {
                let unsigned = self.closed_loop(unsigned).await?;
                (self.closed_loop(&self.service).await?, Some(unsigned))
            }
            Some(unsigned) => {
                let signed = self.closed_loop(&self.service).await?;
                (signed, Some(self.closed_loop(unsigned).await?))
            }
            None => (self.closed_loop(&self.service).await?, None),
        };
        self.service.rest().await?;
        let rate = match self.options.open_loop {
            Some(rate) => f64::from(rate),
            None => closed_loop.payments_per_second * OPEN_LOOP_SHARE,
        };
        let load = self.service.clients.open_loop(rate, length);
        let open_loop = self.observe(&self.service, load).await?;
        self.service.rest().await?;
        let baseline = self.baseline(baseline_clients).await?;
        let ratio = closed_loop.payments_per_second / baseline.payments_per_second;
        let signed = closed_loop.payments_per_second;
        let audit_ratio = unsigned.as_ref().map(|it| signed / it.payments_per_second);
        Ok(Round {
            closed_loop,
            open_loop: ServiceLoad {
                rate: Some(rate),
                ..open_loop
            },
            unsigned,
            baseline,
            ratio,
            audit_ratio,
        })
    }

    async fn closed_loop(&self, service: &Service) -> anyhow::Result<ServiceLoad> {
        service.rest().await?;
        let until = Until::Elapsed(Duration::from_secs(self.options.seconds));
        let load = service.clients.closed_loop(self.options.clients, until);
        self.observe(service, load).await
    }

    /// Runs a load and looks at everything that it uses.
    async fn observe(
        &self,
        service: &Service,
        load: impl Future<Output = anyhow::Result<Load>>,
    ) -> anyhow::Result<ServiceLoad> {
        let batches = service.server.http.batches().await?;
        let before = self.cpu(service);
        let log = service.signed.then_some(&service.database);
        let (load, seen) = watched(service.server.pid(), log, load).await?;
        let load = load?;
        let after = self.cpu(service);
        let batches = service.server.http.batches().await?.average_since(batches);
        let payments = load.latencies.count();
        let used = |of: fn(&Cpu) -> Option<Duration>| spent(of(&before), of(&after), payments);
        Ok(ServiceLoad {
            rate: None,
            payments,
            payments_per_second: load.per_second(),
            latency_ms: load.latencies.quantiles(),
            failures: load.failures,
            cpu_ms_per_payment: ServiceCpu {
                server: used(|cpu| cpu.server),
                postgres: used(|cpu| cpu.postgres),
                sandbox: used(|cpu| cpu.sandbox),
                generator: used(|cpu| cpu.generator),
            },
            server_resident_mib: seen.resident,
            changes_per_commit: batches,
            uncovered_ms: seen.most_uncovered(),
        })
    }

    async fn baseline(&self, clients: u16) -> anyhow::Result<BaselineLoad> {
        let before = self.cpu(&self.service);
        let baseline = self.pgbench(clients, self.options.seconds).await?;
        let after = self.cpu(&self.service);
        let used =
            |of: fn(&Cpu) -> Option<Duration>| spent(of(&before), of(&after), baseline.payments);
        Ok(BaselineLoad {
            payments: baseline.payments,
            failed: baseline.failed,
            payments_per_second: baseline.per_second,
            mean_latency_ms: baseline.mean_latency,
            postgres_cpu_ms_per_payment: used(|cpu| cpu.postgres),
            pgbench_cpu_ms_per_payment: used(|cpu| cpu.ended_children),
        })
    }

    fn cpu(&self, service: &Service) -> Cpu {
        let this = std::process::id();
        Cpu {
            server: service.server.pid().and_then(process::cpu),
            postgres: self.postgres.process_id().and_then(process::tree_cpu),
            sandbox: self.sandbox.pid().and_then(process::cpu),
            generator: process::cpu(this),
            ended_children: process::ended_children_cpu(this),
        }
    }
}

/// CPU time so far.
struct Cpu {
    server: Option<Duration>,
    postgres: Option<Duration>,
    sandbox: Option<Duration>,
    generator: Option<Duration>,
    ended_children: Option<Duration>,
}

/// Milliseconds per payment.
fn spent(before: Option<Duration>, after: Option<Duration>, payments: u64) -> Option<f64> {
    let spent = after?.saturating_sub(before?);
    Some(per(spent.as_secs_f64() * 1e3, payments))
}
