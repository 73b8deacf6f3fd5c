//! Servers killed with SIGKILL at named points, and what is left of the money then: each transaction once.
//!
//! Nothing in the product knows of these points. A proxy holds the bytes that the next step needs, so the
//! server stands still just before it, and is killed there.

use std::time::Duration;

use futures::future::join_all;
use quittance_proto::v1::{CreatePaymentRequest, Payment, PaymentState};
use quittance_test_support::{Cut, Direction, Plan};
use tokio::task::JoinHandle;

use crate::harness::process::ServerProcess;
use crate::harness::{
    Amounts as _, Client, Keyed as _, Links, Site, SiteOptions, World, authorization, capture,
    eventually, purchase, refund, sync, until_resolved, until_resolved_by_key, void,
};

use Direction::{ToClient, ToServer};

/// Where a request to the provider that moves money begins, and where its answer does.
const REQUEST: &str = "POST /";
const ANSWER: &str = "HTTP/1.1 2";
/// What only the commit of that step holds: its entry of the journal.
const ACCEPTED: &str = "payment.accepted";
const OUTCOME: &str = "payment.captured";

/// A server of its own behind proxies, to be killed.
struct Victim {
    site: Site,
    links: Links,
    server: ServerProcess,
}

impl Victim {
    async fn start() -> Self {
        let site = Site::new(SiteOptions::default().recovering().behind_proxies()).await;
        let links = site.links().clone();
        let server = ServerProcess::start(&site, Vec::new()).await;
        Self {
            site,
            links,
            server,
        }
    }

    fn client(&self) -> Client {
        self.server.client.clone()
    }

    /// Killed, and so long ago that another server takes over what it was sending.
    async fn dies(&mut self) {
        self.server.kill();
        self.site.all_senders_are_gone().await;
    }

    /// Killed; what was held never arrives, and the next server finds everything passing again.
    async fn dies_for_good(&mut self) {
        self.dies().await;
        self.links.provider.drop_held(ToServer, Cut::Close);
        self.links.provider.drop_held(ToClient, Cut::Close);
        self.links.database.drop_held(ToServer, Cut::Close);
        self.links.database.drop_held(ToClient, Cut::Close);
        self.links.pass().await;
    }

    async fn is_started_again(&mut self) {
        self.server.start_again().await;
    }

    async fn stored(&self, table: &str) -> i64 {
        let sql = format!("select count(*) from {table}");
        self.site.db.number(&sql).await
    }
}

/// A caller that is waiting for its answer.
fn asks(client: &Client, request: CreatePaymentRequest) -> JoinHandle<bool> {
    let client = client.clone();
    tokio::spawn(async move { client.send(request).await.is_ok() })
}

/// One payment for each of the five operations, made before the trouble begins.
struct Operations {
    held: Payment,
    unwanted: Payment,
    paid: Payment,
}

/// How many operations [`Operations::begin`] begins.
const OPERATIONS: usize = 5;

impl Operations {
    async fn prepare(client: &Client) -> Self {
        Self {
            held: client.create(authorization("tok_approve", 1_000)).await,
            unwanted: client.create(authorization("tok_approve", 2_000)).await,
            paid: client.create(purchase("tok_approve", 3_000)).await,
        }
    }

    /// A purchase, an authorization, a capture, a void and a refund, all under way at once.
    fn begin(&self, client: &Client) -> Vec<JoinHandle<bool>> {
        let (capture, void) = (capture(&self.held, 600), void(&self.unwanted));
        let refund = refund(&self.paid, 1_200);
        let of = || client.clone();
        let (capturing, voiding, refunding) = (of(), of(), of());
        vec![
            asks(client, purchase("tok_approve", 4_000).key("purchase")),
            asks(
                client,
                authorization("tok_approve", 5_000).key("authorization"),
            ),
            tokio::spawn(async move { capturing.send(capture).await.is_ok() }),
            tokio::spawn(async move { voiding.send(void).await.is_ok() }),
            tokio::spawn(async move { refunding.send(refund).await.is_ok() }),
        ]
    }

    /// All five have succeeded; how many attempts each has taken.
    async fn are_carried_out(&self, client: &Client) -> Vec<u32> {
        let (purchase, authorization, captured, voided, refunded) = tokio::join!(
            until_resolved_by_key(client, "purchase"),
            until_resolved_by_key(client, "authorization"),
            until_resolved(client, &self.held.payment_id),
            until_resolved(client, &self.unwanted.payment_id),
            until_resolved(client, &self.paid.payment_id),
        );
        assert_eq!(
            (purchase.state(), purchase.captured()),
            (PaymentState::Captured, 4_000)
        );
        assert_eq!(
            (authorization.state(), authorization.capturable()),
            (PaymentState::Authorized, 5_000)
        );
        assert_eq!((captured.captured(), captured.capturable()), (600, 400));
        assert_eq!(
            (voided.state(), voided.voided()),
            (PaymentState::Voided, 2_000)
        );
        assert_eq!((refunded.refunded(), refunded.refundable()), (1_200, 1_800));
        [purchase, authorization, captured, voided, refunded]
            .iter()
            .map(|payment| payment.transactions.last().unwrap().attempts)
            .collect()
    }
}

async fn nobody_was_answered(calls: Vec<JoinHandle<bool>>) {
    for answered in join_all(calls).await {
        assert!(!answered.unwrap(), "answered by a server that was killed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_killed_after_the_acceptance_and_before_the_provider_saw_the_request() {
    let mut victim = Victim::start().await;
    let operations = Operations::prepare(&victim.client()).await;
    let before = victim.site.books();
    victim.links.provider.set(ToServer, Plan::hold_at(REQUEST));
    let calls = operations.begin(&victim.client());
    eventually("all five are about to be sent", async || {
        (victim.links.provider.held(ToServer) == OPERATIONS).then_some(())
    })
    .await;
    assert_eq!(
        victim.stored("attempts").await,
        8,
        "on record before the call (I1)"
    );
    victim.dies_for_good().await;
    nobody_was_answered(calls).await;
    assert_eq!(victim.site.books(), before, "the provider knows nothing");

    victim.is_started_again().await;
    let attempts = operations.are_carried_out(&victim.client()).await;
    assert_eq!(attempts, [2; OPERATIONS]);
    victim.site.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_requests_that_arrive_after_their_server_was_killed_are_found() {
    let mut victim = Victim::start().await;
    let operations = Operations::prepare(&victim.client()).await;
    victim.links.provider.set(ToServer, Plan::hold_at(REQUEST));
    let calls = operations.begin(&victim.client());
    eventually("all five are about to be sent", async || {
        (victim.links.provider.held(ToServer) == OPERATIONS).then_some(())
    })
    .await;
    victim.dies().await;
    nobody_was_answered(calls).await;
    // They were on their way; that their sender is gone, the provider does not learn.
    victim
        .links
        .provider
        .release_then(ToServer, Plan::swallow());
    eventually("the provider has carried them out", async || {
        (victim.site.books().counts.operations == 8).then_some(())
    })
    .await;
    victim.links.pass().await;

    victim.is_started_again().await;
    let attempts = operations.are_carried_out(&victim.client()).await;
    assert_eq!(attempts, [1; OPERATIONS], "found, not sent again");
    victim.site.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_a_request_that_arrives_after_it_was_sent_again_charges_nothing() {
    let mut victim = Victim::start().await;
    let plan = Plan::hold_at(REQUEST).once();
    victim.links.provider.set(ToServer, plan);
    let call = asks(&victim.client(), purchase("tok_approve", 700).key("late"));
    victim.links.provider.wait_until_held(ToServer).await;
    victim.dies().await;
    nobody_was_answered(vec![call]).await;

    victim.is_started_again().await;
    let paid = until_resolved_by_key(&victim.client(), "late").await;
    assert_eq!(
        (paid.state(), paid.transactions[0].attempts),
        (PaymentState::Captured, 2)
    );
    let replays = victim.site.books().counts.replays;
    victim
        .links
        .provider
        .release_then(ToServer, Plan::swallow());
    eventually("the first request arrives after all", async || {
        (victim.site.books().counts.replays == replays + 1).then_some(())
    })
    .await;
    victim.site.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s21_killed_after_the_provider_answered_and_before_the_outcome_is_committed() {
    let mut victim = Victim::start().await;
    let operations = Operations::prepare(&victim.client()).await;
    victim.links.provider.set(ToClient, Plan::hold_at(ANSWER));
    let calls = operations.begin(&victim.client());
    eventually("all five are answered", async || {
        (victim.links.provider.held(ToClient) == OPERATIONS).then_some(())
    })
    .await;
    let charged = victim.site.books();
    assert_eq!(charged.counts.operations, 8);
    victim.dies_for_good().await;
    nobody_was_answered(calls).await;

    victim.is_started_again().await;
    let attempts = operations.are_carried_out(&victim.client()).await;
    assert_eq!(attempts, [1; OPERATIONS], "found, not sent again");
    assert_eq!(victim.site.books().currencies, charged.currencies);
    victim.site.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s21_killed_while_the_outcome_is_on_its_way_to_the_database() {
    let mut victim = Victim::start().await;
    // Not a byte of it arrives; or a part of it, which the database takes for nothing.
    for skip in [0, 300] {
        let key = format!("outcome-{skip}");
        let plan = Plan::hold_at(OUTCOME).skip(skip);
        victim.links.database.set(ToServer, plan);
        let call = asks(&victim.client(), purchase("tok_approve", 800).key(&key));
        victim.links.database.wait_until_held(ToServer).await;
        victim.dies_for_good().await;
        nobody_was_answered(vec![call]).await;
        victim.is_started_again().await;
        let paid = until_resolved_by_key(&victim.client(), &key).await;
        assert_eq!(paid.state(), PaymentState::Captured);
        assert_eq!(paid.transactions[0].attempts, 1, "found, not sent again");
    }
    victim.site.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s21_killed_after_the_outcome_was_committed_and_before_it_knew() {
    let mut victim = Victim::start().await;
    let plan = Plan::hold_answer_to(OUTCOME);
    victim.links.database.set(ToClient, plan);
    let call = asks(&victim.client(), purchase("tok_approve", 800).key("known"));
    victim.links.database.wait_until_held(ToClient).await;
    victim.dies_for_good().await;
    nobody_was_answered(vec![call]).await;
    // Complete: nobody has to be asked any more.
    victim.site.everything_agrees().await;
    victim.is_started_again().await;
    let request = purchase("tok_approve", 800).key("known");
    let replay = victim.client().ok(request).await;
    assert!(replay.replayed());
    let paid = replay.message.payment.unwrap();
    assert_eq!((paid.state(), paid.version), (PaymentState::Captured, 2));
    victim.site.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s21_an_outcome_that_arrives_after_another_replica_found_it_changes_nothing() {
    let world = World::start_with(SiteOptions::default().recovering()).await;
    let links = Links::of(&world).await;
    let mut victim = ServerProcess::start(&world, links.settings()).await;
    links.database.set(ToServer, Plan::hold_at(OUTCOME));
    let call = asks(&victim.client, purchase("tok_approve", 900).key("twice"));
    links.database.wait_until_held(ToServer).await;
    victim.kill();
    world.all_senders_are_gone().await;
    nobody_was_answered(vec![call]).await;
    // Accepted, its sender found to be lost, and found at the provider.
    let paid = until_resolved_by_key(&world.client, "twice").await;
    assert_eq!((paid.state(), paid.version), (PaymentState::Captured, 3));

    // The dead replica's statement was on its way all the time.
    links.database.set(ToClient, Plan::swallow());
    let before = links.database.swallowed().to_client;
    links.database.release_then(ToServer, Plan::swallow());
    eventually("the database has answered it", async || {
        (links.database.swallowed().to_client > before).then_some(())
    })
    .await;
    assert_eq!(world.client.payment(&paid.payment_id).await, paid);
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_killed_while_the_acceptance_is_on_its_way_nothing_was_accepted() {
    let mut victim = Victim::start().await;
    let request = purchase("tok_approve", 500).key("accept");
    victim.links.database.set(ToServer, Plan::hold_at(ACCEPTED));
    let call = asks(&victim.client(), request.clone());
    victim.links.database.wait_until_held(ToServer).await;
    victim.dies_for_good().await;
    nobody_was_answered(vec![call]).await;
    assert_eq!(victim.stored("payments").await, 0);
    assert_eq!(victim.stored("idempotency_records").await, 0);

    victim.is_started_again().await;
    let answer = victim.client().ok(request).await;
    assert!(!answer.replayed(), "the key was not used");
    assert_eq!(
        answer.message.payment.unwrap().state(),
        PaymentState::Captured
    );
    victim.site.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_killed_after_the_acceptance_was_committed_and_before_it_knew() {
    let mut victim = Victim::start().await;
    let request = purchase("tok_approve", 500).key("accepted");
    let plan = Plan::hold_answer_to(ACCEPTED);
    victim.links.database.set(ToClient, plan);
    let call = asks(&victim.client(), request.clone());
    victim.links.database.wait_until_held(ToClient).await;
    victim.dies_for_good().await;
    nobody_was_answered(vec![call]).await;
    assert_eq!(victim.stored("payments").await, 1);
    assert_eq!(victim.site.books().counts.operations, 0);

    victim.is_started_again().await;
    let paid = until_resolved_by_key(&victim.client(), "accepted").await;
    assert_eq!(paid.state(), PaymentState::Captured);
    assert!(victim.client().ok(request).await.replayed());
    victim.site.everything_agrees().await;
}

/// A caller that keeps asking for the truth about a payment, until it is gone.
struct Impatient(JoinHandle<()>);

impl Impatient {
    fn about(client: &Client, payment: &Payment) -> Self {
        let (client, payment) = (client.clone(), payment.clone());
        Self(tokio::spawn(async move {
            while client.send(sync(&payment)).await.is_ok() {}
        }))
    }
}

impl Drop for Impatient {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_killed_again_and_again_during_recovery() {
    let mut victim = Victim::start().await;
    victim.links.provider.set(ToServer, Plan::hold_at(REQUEST));
    let call = asks(&victim.client(), purchase("tok_approve", 600).key("again"));
    victim.links.provider.wait_until_held(ToServer).await;
    victim.dies_for_good().await;
    nobody_was_answered(vec![call]).await;

    // Before the lookup, after the lookup, before the resend, after the resend.
    for (direction, point) in [
        (ToServer, Plan::hold_at("GET /v1/operations")),
        (ToClient, Plan::hold_answer_to("GET /v1/operations")),
        (ToServer, Plan::hold_at(REQUEST)),
        (ToClient, Plan::hold_answer_to(REQUEST)),
    ] {
        victim.links.provider.set(direction, point);
        victim.is_started_again().await;
        let found = crate::harness::get_by_key("again");
        let pending = victim.client().ok(found).await.message.payment.unwrap();
        assert_eq!(pending.state(), PaymentState::Pending);
        let asking = Impatient::about(&victim.client(), &pending);
        victim.links.provider.wait_until_held(direction).await;
        victim.dies_for_good().await;
        drop(asking);
    }

    victim.is_started_again().await;
    let paid = until_resolved_by_key(&victim.client(), "again").await;
    assert_eq!(paid.state(), PaymentState::Captured);
    assert_eq!(paid.transactions[0].attempts, 3, "the last one was found");
    victim.site.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s34_when_the_first_holder_of_a_key_has_crashed_another_replica_answers_for_it() {
    let options = SiteOptions::default()
        .recovering()
        .with("payments.answer_margin_ms", 3_000);
    let world = World::start_with(options).await;
    let links = Links::of(&world).await;
    let mut victim = ServerProcess::start(&world, links.settings()).await;
    let request = purchase("tok_approve", 450).key("held");
    links.provider.set(ToServer, Plan::hold_at(REQUEST));
    let call = asks(&victim.client, request.clone());
    links.provider.wait_until_held(ToServer).await;
    victim.kill();
    nobody_was_answered(vec![call]).await;

    // Its lease runs: somebody may be sending, so the answer is that nothing is known.
    let hurried = world.client.within(Duration::from_secs(5));
    let early = hurried.ok(request.clone()).await;
    assert!(early.replayed());
    let pending = early.message.payment.unwrap();
    assert_eq!(pending.state(), PaymentState::Pending);
    assert_eq!(
        world.books().counts.operations,
        0,
        "nothing is sent meanwhile"
    );
    world.all_senders_are_gone().await;

    let paid = until_resolved(&world.client, &pending.payment_id).await;
    assert_eq!(paid.state(), PaymentState::Captured);
    let callers = (0..20).map(|_| world.client.ok(request.clone()));
    for answer in join_all(callers).await {
        assert!(answer.replayed());
        assert_eq!(answer.message.payment.unwrap(), paid);
    }
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s82_the_other_replica_finishes_what_the_killed_one_had_begun() {
    let world = World::start_with(SiteOptions::default().recovering()).await;
    let links = Links::of(&world).await;
    let mut victim = ServerProcess::start(&world, links.settings()).await;
    let unsent = Operations::prepare(&victim.client).await;
    links.provider.set(ToServer, Plan::hold_at(REQUEST));
    let calls = unsent.begin(&victim.client);
    eventually("all five are about to be sent", async || {
        (links.provider.held(ToServer) == OPERATIONS).then_some(())
    })
    .await;
    // The survivor is not in the way of the dead, nor the other way round.
    let meanwhile = world.client.create(purchase("tok_approve", 100)).await;
    assert_eq!(meanwhile.state(), PaymentState::Captured);
    victim.kill();
    nobody_was_answered(calls).await;
    world.all_senders_are_gone().await;
    let attempts = unsent.are_carried_out(&world.client).await;
    assert_eq!(attempts, [2; OPERATIONS]);
    world.everything_agrees().await;
}
