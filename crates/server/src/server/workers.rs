//! Starts what the server does without being called.

use std::sync::Arc;

use quittance_domain::webhook::Inbox;
use quittance_store::PgStore;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use super::parts::Wired;
use super::running::Stop;
use crate::config::{AuditConfig, Config};
use crate::database;
use crate::http::webhooks::WebhookParts;
use crate::signing::{Cosigning, Signer};
use crate::trail::Trail;
use crate::workers::{
    self, ErasureWorker, Gauges, NotificationParts, NotificationRetention, Notifier, Recovery,
    RecoveryParts, Retention, Verification, WebhookWorker, WebhookWorkerParts,
};

/// Who signs the log, and who has it cosigned.
pub(super) struct Signing {
    pub(super) signer: Signer,
    pub(super) cosigning: Vec<Cosigning>,
}

/// Who signs the log, who erases what is to be erased, and who tells tenants of their events.
pub(super) fn start_keepers(
    config: &Config,
    wired: &Wired,
    signing: Option<Signing>,
    trail: &Trail,
    tasks: &TaskTracker,
) {
    let accepting = &wired.stop.accepting;
    if let Some(Signing { signer, cosigning }) = signing {
        for witness in cosigning {
            drop(tasks.spawn(witness.run(accepting.clone())));
        }
        drop(tasks.spawn(signer.run(accepting.clone())));
    }
    start_erasing(config, wired, trail, tasks);
    start_notifications(config, wired, trail, tasks);
}

/// What the server does without being called. At the end workers have the same grace as calls. Gives what
/// webhooks are received with, which wakes their worker.
pub(super) fn start_workers(
    config: &Config,
    wired: &Wired,
    log: &Arc<PgStore>,
    trail: &Trail,
    tasks: &TaskTracker,
) -> WebhookParts {
    let inbox: Arc<dyn Inbox> = Arc::<PgStore>::clone(log);
    let Stop {
        accepting, serving, ..
    } = wired.stop.clone();
    let (store, providers) = (&wired.ports.store, &wired.ports.providers);
    let gauges = Gauges {
        store: Arc::clone(store),
        inbox: Arc::clone(&inbox),
        outbox: Arc::clone(&wired.outbox),
        log: Arc::clone(log),
        keys: wired
            .evidence
            .as_ref()
            .map(|evidence| Arc::clone(&evidence.keys)),
        providers: Arc::clone(providers),
        metrics: wired.metrics.clone(),
        every: config.gauges_every,
    };
    drop(tasks.spawn(gauges.run(accepting.clone())));
    if config.recovery.enabled {
        let recovery = Recovery::new(RecoveryParts {
            flows: wired.flows.clone(),
            store: Arc::clone(store),
            providers: Arc::clone(providers),
            metrics: wired.metrics.clone(),
            settings: config.recovery.clone(),
        });
        drop(tasks.spawn(recovery.run(accepting.clone(), serving.clone())));
    }
    let wake = Arc::<Notify>::default();
    let worker = WebhookWorker::new(WebhookWorkerParts {
        trail: trail.clone(),
        inbox: Arc::clone(&inbox),
        flows: wired.flows.clone(),
        store: Arc::clone(store),
        providers: Arc::clone(providers),
        metrics: wired.metrics.clone(),
        settings: config.webhooks.clone(),
        wake: Arc::clone(&wake),
    });
    drop(tasks.spawn(worker.run(accepting.clone(), serving)));
    let retention = Retention {
        inbox: Arc::clone(&inbox),
        metrics: wired.metrics.clone(),
        settings: config.webhooks.retention,
    };
    drop(tasks.spawn(retention.run(accepting.clone())));
    WebhookParts {
        inbox,
        providers: Arc::clone(providers),
        clock: Arc::clone(&wired.ports.clock),
        random: Arc::clone(&wired.ports.random),
        metrics: wired.metrics.clone(),
        refusals: wired.refusals.clone(),
        settings: config.webhooks.clone(),
        wake,
        stop: accepting,
    }
}

/// Erases personal data, as it was asked for.
fn start_erasing(config: &Config, wired: &Wired, trail: &Trail, tasks: &TaskTracker) {
    let erasing = ErasureWorker {
        erasures: Arc::clone(&wired.erasures),
        trail: trail.clone(),
        poll: config.database.customer_keys_remembered / 2,
    };
    drop(tasks.spawn(erasing.run(wired.stop.accepting.clone())));
}

/// Makes notifications and sends them, where this server shall.
fn start_notifications(config: &Config, wired: &Wired, trail: &Trail, tasks: &TaskTracker) {
    if !config.notifications.enabled {
        return;
    }
    let Stop {
        accepting, serving, ..
    } = wired.stop.clone();
    let parts = NotificationParts {
        outbox: Arc::clone(&wired.outbox),
        store: Arc::clone(&wired.ports.store),
        clock: Arc::clone(&wired.ports.clock),
        trail: trail.clone(),
        sender: wired.sender.clone(),
        metrics: wired.metrics.clone(),
        settings: config.notifications.clone(),
        wake: Arc::default(),
    };
    drop(tasks.spawn(workers::plan(parts.clone(), accepting.clone())));
    let retention = NotificationRetention {
        outbox: Arc::clone(&parts.outbox),
        keep_delivered: parts.settings.keep_delivered,
        keep_dead: parts.settings.keep_dead,
    };
    drop(tasks.spawn(retention.run(accepting.clone())));
    drop(tasks.spawn(Notifier::new(parts).run(accepting, serving)));
}

/// Verifies the log from time to time, where that is wished.
pub(super) fn start_verification(
    config: &AuditConfig,
    wired: &Wired,
    store: &Arc<PgStore>,
    trail: &Trail,
    tasks: &TaskTracker,
) {
    let Some(every) = config.verify_every else {
        return;
    };
    let verification = Verification {
        schedule: Arc::new(database::Verifier::new(Arc::clone(store), config, None)),
        verifier: Arc::clone(&wired.verifier),
        trail: trail.clone(),
        metrics: wired.metrics.clone(),
        every,
    };
    drop(tasks.spawn(verification.run(wired.stop.accepting.clone())));
}
