//! Two replicas under load, one of them killed at random, again and again; afterwards everybody knows the same.
//!
//! `QUITTANCE_KILLS=200` is the long run. The kills come after a random number of finished operations, so they
//! hit whatever the replicas are doing then. The seed of a run is printed; `QUITTANCE_KILLS_SEED` repeats its
//! choices, though not the timing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use quittance_proto::v1::{Payment, PaymentState};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::client::Call;
use crate::harness::process::ServerProcess;
use crate::harness::{
    Amounts as _, Client, Keyed as _, Site, SiteOptions, authorization, capture, eventually,
    purchase, refund, until_resolved, void,
};

/// Kills of an ordinary run.
const KILLS: u64 = 4;
const CLIENTS: u64 = 8;
/// Between two kills, at most so many operations are finished.
const MOST_BETWEEN_KILLS: u64 = 60;
/// How long one operation of a caller may take, with all its retries.
const PATIENCE: Duration = Duration::from_secs(300);
/// A caller gives up on a call after this, and asks the other replica.
const CALL_LIMIT: Duration = Duration::from_secs(3);

pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}: {text}")),
    )
}

/// Pseudo-random numbers that depend on the seed only (SplitMix64).
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// A caller as it should be: it retries with the same key, at the other replica, until it has an answer.
pub struct Caller<'a> {
    pub replicas: [Client; 2],
    pub chance: Chance,
    pub finished: &'a AtomicU64,
    pub retries: &'a AtomicU64,
}

impl Caller<'_> {
    pub async fn ask<M: Call + Clone>(&mut self, request: M) -> M::Answer {
        let give_up = Instant::now() + PATIENCE;
        let mut replica = usize::from(self.chance.below(2) == 1);
        loop {
            let client = self.replicas[replica].within(CALL_LIMIT);
            match client.send(request.clone()).await {
                Ok(answer) => return answer.message,
                Err(status) => assert!(is_worth_a_retry(&status), "{status:?}"),
            }
            assert!(Instant::now() < give_up, "no answer within {PATIENCE:?}");
            self.retries.fetch_add(1, Ordering::Relaxed);
            replica = 1 - replica;
            // The other one may be starting.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The payment once nothing about it is unknown any more, from whichever replica is there.
    async fn resolved(&mut self, payment: Option<Payment>) -> Payment {
        let payment = payment.unwrap();
        let [first, second] = &self.replicas;
        let resolved = tokio::select! {
            resolved = until_resolved(first, &payment.payment_id) => resolved,
            resolved = until_resolved(second, &payment.payment_id) => resolved,
        };
        self.finished.fetch_add(1, Ordering::Relaxed);
        resolved
    }

    /// One payment's life; everything that was asked for has happened once at its end.
    async fn live(&mut self, key: &str) {
        let amount = 100 + i64::try_from(self.chance.below(900)).unwrap();
        let life = self.chance.below(4);
        let request = if life == 0 {
            purchase("tok_approve", amount)
        } else {
            authorization("tok_approve", amount)
        };
        let created = self.ask(request.key(key)).await.payment;
        let payment = self.resolved(created).await;
        match life {
            0 => self.refund_twice(&payment, key, amount).await,
            1 => {
                let asked = self
                    .ask(capture(&payment, None).key(&format!("{key}-c")))
                    .await;
                let captured = self.resolved(asked.payment).await;
                assert_eq!(captured.captured(), amount);
                self.refund_twice(&captured, key, amount).await;
            }
            2 => {
                for (part, name) in [(30, "c1"), (20, "c2")] {
                    let request = capture(&payment, part).key(&format!("{key}-{name}"));
                    let asked = self.ask(request).await;
                    self.resolved(asked.payment).await;
                }
                let asked = self.ask(void(&payment).key(&format!("{key}-v"))).await;
                let done = self.resolved(asked.payment).await;
                assert_eq!((done.captured(), done.voided()), (50, amount - 50));
            }
            _ => {
                let asked = self.ask(void(&payment).key(&format!("{key}-v"))).await;
                let done = self.resolved(asked.payment).await;
                assert_eq!(
                    (done.state(), done.voided()),
                    (PaymentState::Voided, amount)
                );
            }
        }
    }

    async fn refund_twice(&mut self, payment: &Payment, key: &str, amount: i64) {
        let parts = [amount / 2, 10];
        for (number, part) in parts.into_iter().enumerate() {
            let request = refund(payment, part).key(&format!("{key}-r{number}"));
            let asked = self.ask(request).await;
            let refunded = self.resolved(asked.payment).await;
            let expected: i64 = parts[..=number].iter().sum();
            assert_eq!(refunded.refunded(), expected, "{key}");
        }
    }
}

/// Whether a caller that knows the contract asks again. Errors of a broken connection have no details.
fn is_worth_a_retry(status: &Status) -> bool {
    let Some(info) = status.get_details_error_info() else {
        return matches!(
            status.code(),
            Code::Unavailable
                | Code::Unknown
                | Code::Cancelled
                | Code::Internal
                | Code::DeadlineExceeded
        );
    };
    info.metadata.get("retryable").map(String::as_str) == Some("true")
}

/// Kills one of the replicas after a random number of operations, and starts it again; `kills` times.
async fn kill(
    replicas: &mut [ServerProcess; 2],
    kills: u64,
    finished: &AtomicU64,
    mut chance: Chance,
) {
    for _ in 0..kills {
        let until = finished.load(Ordering::Relaxed) + 1 + chance.below(MOST_BETWEEN_KILLS);
        eventually("the clients get on", async || {
            (finished.load(Ordering::Relaxed) >= until).then_some(())
        })
        .await;
        let victim = usize::from(chance.below(2) == 1);
        replicas[victim].kill();
        replicas[victim].start_again().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s82_kills_under_load_charge_nobody_twice_and_lose_nothing() {
    let kills = number("QUITTANCE_KILLS").unwrap_or(KILLS);
    let random = uuid::Uuid::new_v4().as_u64_pair().0;
    let seed = number("QUITTANCE_KILLS_SEED").unwrap_or(random);
    println!("{kills} kills; QUITTANCE_KILLS_SEED={seed}");
    let site = Site::new(SiteOptions::short_leases().recovering()).await;
    let mut replicas = [
        ServerProcess::start(&site, Vec::new()).await,
        ServerProcess::start(&site, Vec::new()).await,
    ];
    let clients = replicas.each_ref().map(|replica| replica.client.clone());
    let (finished, retries) = (AtomicU64::new(0), AtomicU64::new(0));
    let (payments, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();

    let callers = (0..CLIENTS).map(|number| {
        let mut caller = Caller {
            replicas: clients.each_ref().map(Client::reconnected),
            chance: Chance(seed.wrapping_add(number)),
            finished: &finished,
            retries: &retries,
        };
        let (payments, done) = (&payments, &done);
        async move {
            let mut life = 0;
            while !done.load(Ordering::Relaxed) {
                caller.live(&format!("{number}-{life}")).await;
                payments.fetch_add(1, Ordering::Relaxed);
                life += 1;
            }
        }
    });
    let killing = async {
        let chance = Chance(seed.wrapping_add(CLIENTS));
        kill(&mut replicas, kills, &finished, chance).await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(join_all(callers), killing);

    let payments = i64::try_from(payments.into_inner()).unwrap();
    let resends = "select count(*) from attempts where number > 1";
    println!(
        "{payments} payments, {} operations, {} calls repeated, {} attempts repeated in {:?}",
        finished.into_inner(),
        retries.into_inner(),
        site.db.number(resends).await,
        begun.elapsed()
    );
    // A key is a payment, whatever died in between.
    let stored = site.db.number("select count(*) from payments").await;
    assert_eq!(stored, payments);
    site.everything_agrees().await;
    site.has_one_tree().await;
}
