//! The database goes away and comes back.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use quittance_embedded_postgres::{EmbeddedPostgres, Options};
use quittance_proto::v1::{ListPaymentsRequest, PaymentState};
use tonic::Code;

use super::migration::migrate;
use crate::harness::{
    Failure, Keyed as _, SiteOptions, World, authorization, capture, eventually, purchase,
};

/// The limit is 2 s; a busy machine gets much more before the test fails.
const SOON: Duration = Duration::from_secs(30);

/// A PostgreSQL that a test can stop.
pub struct OwnPostgres {
    directory: PathBuf,
    running: Option<EmbeddedPostgres>,
}

impl OwnPostgres {
    pub async fn start() -> Self {
        // As root, PostgreSQL runs as another user, who must be able to get there.
        let name = format!("quittance-e2e-{}", uuid::Uuid::new_v4().simple());
        let mut own = Self {
            directory: std::env::temp_dir().join(name),
            running: None,
        };
        own.start_again().await;
        own
    }

    pub async fn start_again(&mut self) {
        let data_dir = Some(self.directory.clone());
        let options = Options {
            data_dir,
            ..Options::default()
        };
        self.running = Some(EmbeddedPostgres::start_async(options).await.unwrap());
    }

    async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        tokio::task::spawn_blocking(|| running.stop().unwrap())
            .await
            .unwrap();
    }

    /// Stops it; what is started again takes no writes until it is promoted.
    pub async fn stop_as_standby(&mut self) {
        let data = self.running.as_ref().unwrap().data_dir();
        self.stop().await;
        std::fs::write(data.join("standby.signal"), "").unwrap();
    }

    pub fn url(&self) -> String {
        self.running.as_ref().unwrap().url("postgres")
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        drop(self.running.take());
        // A left-over directory in the temporary directory is no reason to fail.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s72_a_stopped_database_is_unavailable_soon_sends_nothing_and_recovers_by_itself() {
    let mut postgres = OwnPostgres::start().await;
    let migrated = migrate(&postgres.url()).await;
    assert!(migrated.status.success(), "{migrated:?}");
    let options = SiteOptions {
        database_url: Some(postgres.url()),
        ..SiteOptions::default().soon_without_database()
    };
    let world = World::start_with(options).await;
    let payment = world.client.create(authorization("tok_approve", 100)).await;
    let known = purchase("tok_approve", 100).key("answer-lost");
    world.client.create(known.clone()).await;
    let operations = world.books().counts.operations;

    postgres.stop().await;
    let hurried = world.client.within(Duration::from_secs(55));
    // I13: it was accepted, and a caller who believed that it was not would pay in another way.
    is_unavailable(async || hurried.refused(known.clone()).await, true).await;
    let lost = purchase("tok_approve", 100).key("while-away");
    for _ in 0..3 {
        is_unavailable(async || hurried.refused(lost.clone()).await, true).await;
    }
    is_unavailable(async || hurried.refused(capture(&payment, 1)).await, true).await;
    is_unavailable(
        async || hurried.refused(ListPaymentsRequest::default()).await,
        false,
    )
    .await;
    assert_eq!(
        world.books().counts.operations,
        operations,
        "nothing was sent"
    );

    postgres.start_again().await;
    let paid = eventually("the service works again without a restart", async || {
        hurried.call(lost.clone()).await.ok()
    })
    .await;
    let paid = paid.message.payment.unwrap();
    assert_eq!(paid.state(), PaymentState::Captured);
    assert_eq!(
        world.charged(&paid.transactions[0].transaction_id).charges,
        1
    );
    hurried.ok(capture(&payment, 1)).await;
    world.shut_down().await;
}

async fn is_unavailable(call: impl AsyncFn() -> Failure, money_may_have_moved: bool) {
    let begun = Instant::now();
    let failure = call().await;
    let took = begun.elapsed();
    failure.is(Code::Unavailable, "DATABASE_UNAVAILABLE");
    assert!(failure.retryable(), "{failure:?}");
    assert_eq!(failure.money_may_have_moved(), money_may_have_moved);
    assert!(took < SOON, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s72_an_outcome_learned_while_the_database_is_away_is_recorded_when_it_is_back() {
    let mut postgres = OwnPostgres::start().await;
    assert!(migrate(&postgres.url()).await.status.success());
    let options = SiteOptions {
        database_url: Some(postgres.url()),
        ..SiteOptions::default().soon_without_database()
    };
    let world = World::start_with(options).await;
    let client = world.client.reconnected();
    let call = tokio::spawn(async move {
        client
            .create(purchase("tok_approve?latency_ms=1500", 100))
            .await
    });
    eventually("the provider is being asked", async || {
        (world.books().counts.operations == 1).then_some(())
    })
    .await;
    postgres.stop().await;
    postgres.start_again().await;
    let answered = call.await.unwrap();
    let paid = eventually("the outcome is recorded", async || {
        let payment = world
            .client
            .call(crate::harness::get(&answered.payment_id))
            .await
            .ok()?;
        let payment = payment.message.payment.unwrap();
        (payment.state() != PaymentState::Pending).then_some(payment)
    })
    .await;
    assert_eq!(paid.state(), PaymentState::Captured);
    assert_eq!(
        world.charged(&paid.transactions[0].transaction_id).charges,
        1
    );
    world.shut_down().await;
}
