//! What troubles a world: a database and a provider that fail, crashes and stops, and what the provider does by itself.

use std::sync::Arc;

use crate::executor::WORLD;
use crate::provider::ProviderChaos;
use crate::store::StoreChaos;

use super::{REPLICAS, TROUBLE, World};

impl World {
    pub(super) fn trouble(&self) {
        let up_to = |limit| self.executor.pick(0..limit);
        self.store.set_chaos(StoreChaos {
            unavailable: up_to(80),
            lost: up_to(60),
            written_unheard: up_to(80),
        });
        for provider in &self.site.providers.0 {
            let away = self.executor.chance(200);
            let moves_less = self.executor.chance(200);
            let holds_off = self.executor.chance(300);
            provider.set_chaos(ProviderChaos {
                webhooks: up_to(1_000),
                busy: up_to(50),
                circuit_open: up_to(100),
                not_sent: if away { 1_000 } else { up_to(150) },
                lost_request: up_to(100),
                lost_answer: up_to(200),
                lookup_fails: up_to(200),
                declines: up_to(150),
                challenges: up_to(200),
                pends: up_to(200),
                holds_off: if holds_off { up_to(300) } else { 0 },
                moves_less: if moves_less { up_to(300) } else { 0 },
            });
        }
        for process in 0..REPLICAS {
            self.site.start_worker(process);
        }
        let site = self.site.clone();
        self.provider
            .listen(Arc::new(move |account, told| site.hear(account, told)));
        if self.executor.chance(700) {
            self.start_crashes();
        }
        if self.executor.chance(300) {
            self.start_dashboard();
        }
        if self.executor.chance(300) {
            self.start_stops();
        }
        if self.executor.chance(300) {
            self.start_taking_back();
        }
        if self.executor.chance(200) {
            self.start_running_out();
        }
    }

    /// Somebody works in the provider's dashboard, and banks charge back.
    fn start_dashboard(&self) {
        let (executor, provider) = (self.executor.clone(), self.provider.clone());
        self.executor.spawn(WORLD, async move {
            for _ in 0..executor.pick(1..4) {
                executor.wait_up_to(TROUBLE / 2).await;
                provider.act_by_itself();
            }
        });
    }

    /// Card schemes reject what the provider had called done.
    fn start_taking_back(&self) {
        let (executor, provider) = (self.executor.clone(), self.provider.clone());
        self.executor.spawn(WORLD, async move {
            for _ in 0..executor.pick(1..4) {
                executor.wait_up_to(TROUBLE / 2).await;
                provider.take_back();
            }
        });
    }

    /// Authorizations run out.
    fn start_running_out(&self) {
        let (executor, provider) = (self.executor.clone(), self.provider.clone());
        self.executor.spawn(WORLD, async move {
            for _ in 0..executor.pick(1..5) {
                executor.wait_up_to(TROUBLE / 3).await;
                provider.let_run_out();
            }
        });
    }

    /// Crashes a replica now and then; it is back at once, with nothing in memory.
    fn start_crashes(&self) {
        let site = self.site.clone();
        self.executor.spawn(WORLD, async move {
            let executor = site.executor.clone();
            for _ in 0..executor.pick(1..6) {
                executor.wait_up_to(TROUBLE / 4).await;
                let victim = usize::try_from(executor.pick(0..2)).unwrap_or(0);
                executor.crash(victim);
                site.start_worker(victim);
            }
        });
    }

    /// Stops a replica now and then, as SIGSTOP does, and lets it go on after its leases have run out, or before.
    fn start_stops(&self) {
        let executor = self.executor.clone();
        self.executor.spawn(WORLD, async move {
            for _ in 0..executor.pick(1..4) {
                executor.wait_up_to(TROUBLE / 4).await;
                let stopped = usize::try_from(executor.pick(0..2)).unwrap_or(0);
                executor.stop(stopped);
                executor.wait_up_to(TROUBLE).await;
                executor.go_on(stopped);
            }
        });
    }
}
