//! What every replica is made of, and what each does by itself: recovery, and taking webhooks.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use quittance_domain::context::Instance;
use quittance_domain::fingerprint::FingerprintKey;
use quittance_domain::flows::{FlowSettings, Flows, Hearing, Told as Heard};
use quittance_domain::ids::{ProviderAccount, WebhookId};
use quittance_domain::ports::{Accounts, Claim, Due, DueKind, Ports, Store as _};
use quittance_domain::retry::RetryPolicy;
use quittance_domain::webhook::WebhookFact;
use uuid::Uuid;

use crate::executor::{Executor, Process, Spawner};
use crate::provider::SimProviders;
use crate::store::SimStore;

use super::TROUBLE;
use super::ports::{Dice, Nobody, SkewedClock};

/// How long beyond its provider's timeout a sender is taken to be alive.
const LEASE_MARGIN: Duration = Duration::from_secs(15);
/// How long a replica that is gone keeps what it claimed.
const CLAIM: Duration = Duration::from_secs(60);
/// Most that a worker claims at a time.
const CLAIMED_AT_ONCE: usize = 4;
/// How often a replica tries to apply one webhook.
const MAX_HEARINGS: u32 = 5;

/// The settings of a replica: the usual ones.
pub fn settings(replica: String, retries: RetryPolicy, fingerprints: [u8; 32]) -> FlowSettings {
    FlowSettings {
        instance: Instance {
            service: "quittance",
            version: "simulated",
            instance: replica,
        },
        fingerprint_key: FingerprintKey::new(fingerprints),
        answer_margin: Duration::from_millis(100),
        default_wait: Duration::from_secs(30),
        max_decisions: 8,
        outcome_patience: Duration::from_secs(30),
        lease_margin: LEASE_MARGIN,
        retries,
    }
}

/// What every replica is made of.
#[derive(Clone)]
pub(super) struct Site {
    pub executor: Executor,
    pub store: SimStore,
    pub providers: SimProviders,
    /// How far each replica's clock is from the database's.
    pub skews: Vec<TimeDelta>,
    /// When what has no outcome is taken up again.
    pub retries: RetryPolicy,
    /// Under which keys of requests are digested.
    pub fingerprints: [u8; 32],
    /// Whether payments are those of customers.
    pub customers: bool,
}

impl Site {
    pub fn flows(&self, process: Process) -> Flows {
        let ports = Ports {
            store: Arc::new(self.store.clone()),
            providers: Arc::new(self.providers.clone()),
            clock: Arc::new(SkewedClock {
                executor: self.executor.clone(),
                skew: self.skews.get(process).copied().unwrap_or_default(),
            }),
            spawn: Arc::new(Spawner {
                executor: self.executor.clone(),
                process,
            }),
            random: Arc::new(Dice(self.executor.clone())),
            observer: Arc::new(Nobody),
        };
        let replica = format!("replica-{process}");
        Flows::new(ports, settings(replica, self.retries, self.fingerprints))
    }

    /// A replica's recovery: it lives as long as the trouble does, or until its replica crashes.
    pub fn start_worker(&self, process: Process) {
        let site = self.clone();
        self.executor.spawn(process, async move {
            let end = site.executor.start() + TimeDelta::from_std(TROUBLE).unwrap_or_default();
            while site.executor.now() < end {
                site.executor.wait_up_to(Duration::from_secs(4)).await;
                // Now and then as where its circuit is open.
                let kind = match site.executor.pick(0..10) {
                    0 => DueKind::TooLate,
                    1 => DueKind::Unsent,
                    2 => DueKind::RanOut,
                    _ => DueKind::Any,
                };
                for due in site.claim(kind).await {
                    let flows = site.flows(process);
                    // Side by side, as the server's workers do.
                    site.executor.spawn(process, async move {
                        drop(flows.recover(&due).await);
                    });
                }
            }
        });
    }

    pub async fn claim(&self, kind: DueKind) -> Vec<Due> {
        let claim = Claim {
            kind,
            limit: CLAIMED_AT_ONCE,
            lease: CLAIM,
            accounts: Accounts::all(),
        };
        self.store.claim_due(&claim).await.unwrap_or_default()
    }

    /// A replica takes a webhook, and tries until it is applied; a crash leaves it to the other.
    pub fn hear(&self, account: ProviderAccount, told: WebhookFact) {
        let site = self.clone();
        let process = usize::try_from(self.executor.pick(0..2)).unwrap_or(0);
        self.executor.spawn_on_demand(process, async move {
            let flows = site.flows(process);
            let webhook = WebhookId(Uuid::from_u128(site.executor.bits()));
            for hearing in 0..MAX_HEARINGS {
                let again = hearing > 0;
                let hearing = Hearing { webhook, again };
                let asked = match flows.provider_told(&account, hearing, &told).await {
                    Ok(Heard::Applied | Heard::NoNews | Heard::MovedOn) => return,
                    Ok(Heard::NotConfirmed(why)) => why.retry_after,
                    Ok(
                        Heard::UnknownPayment
                        | Heard::NotOurs
                        | Heard::OtherAccount
                        | Heard::Early
                        | Heard::Nameless,
                    )
                    | Err(_) => None,
                };
                let wait = asked.unwrap_or_default() + Duration::from_secs(3);
                site.executor.wait(wait).await;
            }
        });
    }

    /// When the next step of anything pending is due, or the next look at an authorization.
    pub fn next_step(&self) -> Option<DateTime<Utc>> {
        self.store.look(|tables| {
            let rows = tables
                .payments
                .values()
                .flat_map(|record| &record.transactions);
            rows.filter(|row| row.is_taken_up() || row.is_watched())
                .filter_map(|row| row.next_step_at)
                .min()
        })
    }
}
