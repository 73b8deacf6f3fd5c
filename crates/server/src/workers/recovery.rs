//! Takes up transactions whose next step is due: those without an outcome, those that nothing was sent of yet, and
//! those whose server died.
//!
//! One worker per process. What to do is known to the database alone: nothing is queued here, and a claim is never
//! larger than what can be started at once. Bounded places per provider account make the pace steady when a provider
//! returns, however much waited for it.

use std::sync::Arc;
use std::time::Duration;

use quittance_domain::error::FlowError;
use quittance_domain::flows::{Flows, Recovered};
use quittance_domain::ids::ProviderAccount;
use quittance_domain::ports::{Circuit, Due, Providers, Store, StoreError};
use quittance_telemetry::{self as telemetry, Metrics};
use rand::Rng as _;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::links::accepted_in;
use super::pace::{LONGEST_PAUSE, doubled};
use super::places::{Places, Room};
use super::shares::task_of;
use crate::config::RecoveryConfig;
use crate::warnings::Warnings;

/// Claims in a row, before what has ended is looked at: a claim is a query each.
const CLAIMS_IN_A_ROW: usize = 16;
/// First pause after the database could not be asked; doubles up to [`LONGEST_PAUSE`], each drawn at random.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The outcome of a run that could not do its work, and can at the next try.
const FAILED: &str = "failed";
/// The outcome of a run that cannot do its work until somebody mends what is wrong.
const STUCK: &str = "stuck";

/// How metrics and spans name the ends of a run.
pub const RECOVERIES: [&str; 6] = ["settled", "waiting", "not_due", "busy", FAILED, STUCK];

/// What recovery works with.
pub struct RecoveryParts {
    /// They know what to do.
    pub flows: Flows,
    /// The database.
    pub store: Arc<dyn Store>,
    /// The provider accounts.
    pub providers: Arc<dyn Providers>,
    /// Where runs are counted.
    pub metrics: Metrics,
    /// How much at once, and how often.
    pub settings: RecoveryConfig,
}

/// The worker.
pub struct Recovery {
    parts: RecoveryParts,
    places: Places,
    running: JoinSet<Result<Recovered, FlowError>>,
    /// Whether more is due than could be claimed.
    more: bool,
    failures: u32,
    warnings: Warnings,
}

impl Recovery {
    /// A worker that has not begun.
    pub fn new(parts: RecoveryParts) -> Self {
        Self {
            places: Places::new(parts.settings.clone()),
            parts,
            running: JoinSet::new(),
            more: false,
            failures: 0,
            warnings: Warnings::default(),
        }
    }

    /// Recovers until `stop`, when nothing more is claimed; returns when what runs has ended, or at `kill`.
    /// What is left then is claimed by others once the claim has run out.
    pub async fn run(mut self, stop: CancellationToken, kill: CancellationToken) {
        // Servers that start together do not claim together.
        let mut next_look = Instant::now() + at_random(self.parts.settings.poll_interval);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = self.running.join_next_with_id() => {
                    self.ended(ended);
                    if !self.more || self.room().is_none() {
                        continue;
                    }
                }
                () = tokio::time::sleep_until(next_look) => {}
            }
            next_look = Instant::now() + self.look(&stop).await;
        }
        loop {
            tokio::select! {
                ended = self.running.join_next_with_id() => match ended {
                    Some(ended) => self.ended(ended),
                    None => return,
                },
                // Dropped, they are aborted.
                () = kill.cancelled() => return,
            }
        }
    }

    /// Claims and starts what can be; returns when to look again.
    async fn look(&mut self, stop: &CancellationToken) -> Duration {
        match self.claim_and_start(stop).await {
            Ok(more) => {
                self.more = more;
                self.failures = 0;
                let poll = self.parts.settings.poll_interval;
                poll / 2 + at_random(poll)
            }
            Err(error) => {
                self.more = false;
                self.failures = self.failures.saturating_add(1);
                if let Some(count) = self.warnings.due() {
                    tracing::warn!(error.message = %error, count, "recovery cannot claim what is due");
                }
                let limit = doubled(FIRST_PAUSE, self.failures, LONGEST_PAUSE);
                limit / 4 + at_random(limit)
            }
        }
    }

    /// Whether more is due than was claimed.
    async fn claim_and_start(&mut self, stop: &CancellationToken) -> Result<bool, StoreError> {
        let circuits = self.circuits();
        for (account, circuit) in &circuits {
            if *circuit == Circuit::Closed {
                continue;
            }
            if let Some(room) = self.places.of_too_late(account) {
                self.start(&room).await?;
            }
            let room = match circuit {
                Circuit::Closed => None,
                Circuit::HalfOpen => self.places.of_half_open(account),
                Circuit::Open => self.places.of_unsent(account, &circuits),
            };
            if let Some(room) = room {
                self.start(&room).await?;
            }
        }
        for _ in 0..CLAIMS_IN_A_ROW {
            let Some(room) = self.places.of_closed(&circuits) else {
                return Ok(true);
            };
            if stop.is_cancelled() {
                return Ok(false);
            }
            let started = self.start(&room).await?;
            if started < room.claim.limit {
                // Nothing else is due: these can wait.
                if let Some(room) = self.places.of_ran_out(&circuits) {
                    self.start(&room).await?;
                }
                return Ok(room.crowded);
            }
        }
        Ok(true)
    }

    /// Claims, and starts all of it. Returns how many.
    async fn start(&mut self, room: &Room) -> Result<usize, StoreError> {
        let claimed = self.parts.store.claim_due(&room.claim).await?;
        let count = claimed.len();
        for due in claimed {
            let account = due.provider_account.clone();
            let run = recover(
                self.parts.flows.clone(),
                Arc::clone(&self.parts.store),
                self.parts.metrics.clone(),
                due,
            );
            self.places.take(self.running.spawn(run).id(), account);
        }
        Ok(count)
    }

    fn ended(&mut self, ended: Result<(Id, Result<Recovered, FlowError>), JoinError>) {
        let account = self.places.give_back(task_of(&ended));
        let message = match ended {
            Ok((_, Ok(_))) => return,
            Ok((_, Err(error))) => error.to_string(),
            Err(_) => "the run panicked".to_owned(),
        };
        if let Some(account) = account
            && let Some(count) = self.warnings.due()
        {
            tracing::warn!(
                provider.account = %account,
                error.message = message,
                count,
                "a transaction could not be recovered; it is taken up again"
            );
        }
    }

    fn room(&self) -> Option<Room> {
        self.places.of_closed(&self.circuits())
    }

    fn circuits(&self) -> Vec<(ProviderAccount, Circuit)> {
        let providers = &self.parts.providers;
        let names = providers.names().into_iter();
        let with_circuit = names.filter_map(|name| {
            let circuit = providers.account(&name)?.circuit();
            Some((name, circuit))
        });
        with_circuit.collect()
    }
}

/// One run, in a trace of its own.
async fn recover(
    flows: Flows,
    store: Arc<dyn Store>,
    metrics: Metrics,
    due: Due,
) -> Result<Recovered, FlowError> {
    let span = tracing::info_span!(
        parent: None,
        "recovery",
        otel.kind = "internal",
        otel.status_code = Empty,
        payment.id = %due.payment,
        transaction.id = %due.transaction,
        provider.account = %due.provider_account,
        outcome = Empty,
        error.message = Empty,
    );
    let counted = Counted {
        metrics,
        account: due.provider_account.clone(),
        span: span.clone(),
        outcome: FAILED,
    };
    let run = async move {
        let mut counted = counted;
        if let Some(accepted) = accepted_in(store.as_ref(), due.payment, due.transaction).await {
            telemetry::add_link(&counted.span, accepted);
        }
        let result = flows.recover(&due).await;
        match &result {
            Ok(recovered) => counted.outcome = outcome_name(*recovered),
            Err(error) => {
                if !error.is_transient() {
                    counted.outcome = STUCK;
                    // Each of them is named, each time: no case can be opened about what cannot be read.
                    tracing::error!(
                        payment.id = %due.payment,
                        transaction.id = %due.transaction,
                        provider.account = %due.provider_account,
                        error.message = %error,
                        "recovery cannot read or write a payment: a person has to mend what is wrong"
                    );
                }
                counted.span.record("error.message", error.to_string());
            }
        }
        result
    };
    run.instrument(span).await
}

/// Counts a run when it is over, however that comes.
struct Counted {
    metrics: Metrics,
    account: ProviderAccount,
    span: Span,
    outcome: &'static str,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.span.record("outcome", self.outcome);
        if self.outcome == FAILED || self.outcome == STUCK {
            self.span.record("otel.status_code", "ERROR");
        }
        self.metrics.recovered(self.account.as_str(), self.outcome);
    }
}

const fn outcome_name(recovered: Recovered) -> &'static str {
    match recovered {
        Recovered::Settled => "settled",
        Recovered::Waiting => "waiting",
        Recovered::NotDue => "not_due",
        Recovered::Busy => "busy",
    }
}

/// Anything from none to `limit`.
fn at_random(limit: Duration) -> Duration {
    limit.mul_f64(rand::rng().random())
}
