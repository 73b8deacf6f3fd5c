//! One order, two accounts: the second is asked only where the first certainly was not.

use quittance_proto::v1::{CreatePaymentRequest, Payment, PaymentState};
use quittance_sandbox::{Sandbox, SandboxConfig};
use quittance_test_support::{Cut, Direction, Plan};
use toml::Value;
use tonic::Code;

use crate::harness::adyen::{ADYEN, PlayedAdyen, adyen_purchase};
use crate::harness::site::{ACCOUNT, PROVIDER_TIMEOUT_MS, SANDBOX_KEY, account};
use crate::harness::{
    Keyed as _, Links, Site, SiteOptions, World, eventually, purchase, until_resolved,
};

use Direction::ToServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_after_a_timeout_a_send_that_is_refused_at_the_connection_proves_nothing() {
    let options = SiteOptions::impatient().recovering();
    let site = Site::new(options).await;
    let other = Sandbox::start(SandboxConfig::new(SANDBOX_KEY)).await;
    let other = other.unwrap();
    let links = Links::of(&site).await;
    let first = format!("http://{}", links.provider.address());
    let both = [(ACCOUNT, first), ("other", other.base_url())];
    let both = both.map(|(name, url)| Value::from(account(name, &url, 3_000)));
    let mut settings = links.settings();
    settings.push(("providers.accounts", Value::from(both.to_vec())));
    let world = World::on(site, settings).await;

    let second_attempt = Plan::hold_at("payment.attempt_started");
    links.database.set(ToServer, second_attempt);
    let request = purchase("tok_timeout_before_charge", 500);
    let pending = world.client.create(request).await;
    assert_eq!(pending.state(), PaymentState::Pending);
    assert_eq!(pending.provider_account, ACCOUNT);
    // The provider does not hold it, so it is to be sent again; by now nobody can connect any more.
    eventually("attempt 2 is held", async || {
        world.let_unanswered_leases_run_out().await;
        (links.database.held(ToServer) > 0).then_some(())
    })
    .await;
    links.provider.refuse_connections().await;
    links.provider.cut_all(Cut::Close).await;
    links.database.release_then(ToServer, Plan::pass());
    let refused = "select count(*) from attempts \
                   where number = 2 and outcome = 'NOT_SENT' and cause = 'CONNECTION_REFUSED'";
    eventually("attempt 2 is refused at the connection", async || {
        (world.db.number(refused).await == 1).then_some(())
    })
    .await;
    let stuck = world.client.payment(&pending.payment_id).await;
    assert_eq!(stuck.state(), PaymentState::Pending);
    assert_eq!(stuck.provider_account, ACCOUNT, "no failover");

    links.pass().await;
    let paid = until_resolved(&world.client, &pending.payment_id).await;
    assert_eq!(paid.state(), PaymentState::Captured);
    assert_eq!(paid.provider_account, ACCOUNT);
    assert_eq!(other.books().counts.operations, 0, "never asked");
    world.everything_agrees().await;
    other.shutdown().await;
}

/// An outage of any length uses none of the sends up that a request of unknown outcome has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_refused_connections_use_up_no_send() {
    let options = SiteOptions::impatient()
        .with("payments.retries.max_sends.purchase", 2)
        .recovering();
    let world = World::start_with(options).await;
    world.sandbox.pause_accepting().await;
    let request = purchase("tok_timeout_before_charge", 500);
    let pending = world.client.create(request).await;
    let tried = eventually("it is refused again and again", async || {
        let payment = world.client.payment(&pending.payment_id).await;
        let attempts = payment.transactions[0].attempts;
        (attempts >= 5).then_some(attempts)
    })
    .await;
    world.sandbox.resume().await.unwrap();
    // The first request that gets there hangs, and is not processed; the second is.
    let paid = eventually("it is resolved", async || {
        world.let_unanswered_leases_run_out().await;
        let payment = world.client.payment(&pending.payment_id).await;
        (payment.state() != PaymentState::Pending).then_some(payment)
    })
    .await;
    assert_eq!(paid.state(), PaymentState::Captured);
    assert!(paid.transactions[0].attempts >= tried + 2);
    let doubtful = "select count(*) from attempts where outcome <> 'NOT_SENT'";
    assert_eq!(world.db.number(doubtful).await, 2);
    world.everything_agrees().await;
}

/// An account whose circuit opens at once, and tries again after so long.
fn fragile(name: &str, base_url: &str, open_ms: i64) -> Value {
    let mut account = account(name, base_url, PROVIDER_TIMEOUT_MS);
    // One slow call of a busy machine would open it, too.
    let circuit = format!(
        "window_calls = 1\nmin_calls = 1\nslow_call_ms = 120000\nopen_ms = {open_ms}\nmax_open_ms = {open_ms}\n\
         half_open_probes = 1"
    );
    account.insert("circuit".to_owned(), Value::Table(circuit.parse().unwrap()));
    Value::from(account)
}

/// Longer than any test.
const AGES_MS: i64 = 600_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_what_waits_at_an_account_that_stays_away_goes_to_one_that_is_back() {
    let site = Site::new(SiteOptions::default().recovering()).await;
    let other = Sandbox::start(SandboxConfig::new(SANDBOX_KEY))
        .await
        .unwrap();
    let accounts = vec![
        fragile(ACCOUNT, &site.sandbox.base_url(), AGES_MS),
        fragile("other", &other.base_url(), 1_500),
    ];
    let world = World::on(site, vec![("providers.accounts", Value::from(accounts))]).await;
    world.sandbox.pause_accepting().await;
    other.pause_accepting().await;
    let mut pending = Vec::new();
    let waits_there = "select count(*) from transactions \
                       where state = 'PENDING' and provider_account = 'sandbox'";
    let mut waited = 0;
    for _ in 0..4 {
        pending.push(world.client.create(purchase("tok_approve", 100)).await);
        // They go over to the other one as soon as that is tried again.
        waited = waited.max(world.db.number(waits_there).await);
    }
    assert!(waited > 0);
    other.resume().await.unwrap();
    // The first has gone over to the other account at once, and waits there.
    until_resolved(&world.client, &pending[0].payment_id).await;
    // As when the pause of the one circuit is not as long as this, but that account does not come back.
    let due = "update transactions set next_step_at = now() where state = 'PENDING'";
    world.db.execute(due, &[]).await;
    for payment in &pending {
        let paid = until_resolved(&world.client, &payment.payment_id).await;
        assert_eq!(paid.state(), PaymentState::Captured);
        assert_eq!(paid.provider_account, "other");
    }
    assert_eq!(other.books().counts.purchases, 4);
    other.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_what_is_too_late_ends_though_the_circuit_of_its_account_is_open() {
    let site = Site::new(SiteOptions::default().recovering()).await;
    let only = fragile(ACCOUNT, &site.sandbox.base_url(), AGES_MS);
    let world = World::on(site, vec![("providers.accounts", Value::from(vec![only]))]).await;
    world.sandbox.pause_accepting().await;
    // The first opens the circuit, and the second is not even tried.
    for _ in 0..2 {
        let pending = world.client.create(purchase("tok_approve", 100)).await;
        assert_eq!(pending.state(), PaymentState::Pending);
    }
    let passed = "update transactions set execute_before = now(), next_step_at = now()";
    world.db.execute(passed, &[]).await;
    eventually("both have ended", async || {
        let ended = "select count(*) from transactions \
                     where state = 'FAILED' and failure_cause = 'NOT_SENT_IN_TIME'";
        (world.db.number(ended).await == 2).then_some(())
    })
    .await;
}

/// An account at Adyen, which cannot take a payment of a customer without a reference.
fn picky(adyen: &PlayedAdyen) -> Value {
    Value::from(adyen.account())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_what_the_first_account_cannot_take_goes_to_one_of_its_route_that_can() {
    let site = Site::new(SiteOptions::default()).await;
    let adyen = PlayedAdyen::start().await;
    let sandbox = fragile(ACCOUNT, &site.sandbox.base_url(), AGES_MS);
    let accounts = vec![picky(&adyen), sandbox];
    let world = World::on(site, vec![("providers.accounts", Value::from(accounts))]).await;
    let paid = world.client.create(purchase("tok_approve", 100)).await;
    let taken = (paid.state(), paid.provider_account.as_str());
    assert_eq!(taken, (PaymentState::Captured, ACCOUNT));

    // The only one that can take it is away, and then its circuit is open: so it waits there.
    world.sandbox.pause_accepting().await;
    for _ in 0..2 {
        let pending = world.client.create(purchase("tok_approve", 100)).await;
        let taken = (pending.state(), pending.provider_account.as_str());
        assert_eq!(taken, (PaymentState::Pending, ACCOUNT));
    }
    let not_asked = "select count(*) from attempts where cause = 'CIRCUIT_OPEN'";
    assert_eq!(world.db.number(not_asked).await, 1);
    assert!(adyen.processed("/payments").is_empty());
    world.sandbox.resume().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_what_no_account_of_the_route_can_take_is_refused_and_nothing_is_denied() {
    let site = Site::new(SiteOptions::default()).await;
    let adyen = PlayedAdyen::start().await;
    let settings = vec![("providers.accounts", Value::from(vec![picky(&adyen)]))];
    let world = World::on(site, settings).await;
    let before = world.db.volume().await;
    let routed = purchase("tok_approve", 100).key("k");
    let failure = world.client.refused(routed.clone()).await;
    failure.is(Code::InvalidArgument, "INVALID_FIELD");
    failure.names(&["customer.customer_reference"]);
    // Another route may have taken it, under the same key.
    assert!(failure.money_may_have_moved() && !failure.retryable());
    let named = CreatePaymentRequest {
        provider_account: ADYEN.to_owned(),
        ..routed
    };
    let failure = world.client.refused(named).await;
    failure.is(Code::InvalidArgument, "INVALID_FIELD");
    assert!(!failure.money_may_have_moved());
    assert_eq!(world.db.volume().await, before);
    // The key is still unused.
    let paid = world
        .client
        .create(adyen_purchase("tok_approve", 100).key("k"));
    assert_eq!(paid.await.provider_account, ADYEN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_failover_passes_over_an_account_that_cannot_take_the_payment() {
    let site = Site::new(SiteOptions::default()).await;
    let other = Sandbox::start(SandboxConfig::new(SANDBOX_KEY))
        .await
        .unwrap();
    let adyen = PlayedAdyen::start().await;
    let accounts = vec![
        fragile(ACCOUNT, &site.sandbox.base_url(), AGES_MS),
        picky(&adyen),
        fragile("other", &other.base_url(), AGES_MS),
    ];
    let world = World::on(site, vec![("providers.accounts", Value::from(accounts))]).await;
    world.sandbox.pause_accepting().await;
    let paid = world.client.create(purchase("tok_approve", 100)).await;
    let taken = (paid.state(), paid.provider_account.as_str());
    assert_eq!(taken, (PaymentState::Captured, "other"));
    assert_eq!(paid.transactions[0].attempts, 2);
    assert!(adyen.processed("/payments").is_empty());
    world.sandbox.resume().await.unwrap();
    other.shutdown().await;
}

/// The configuration of today need not be that of yesterday.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_payment_never_fails_over_to_an_account_where_real_money_moves() {
    let site = Site::new(SiteOptions::default()).await;
    let adyen = PlayedAdyen::start().await;
    let only = fragile(ACCOUNT, &site.sandbox.base_url(), AGES_MS);
    let settings = vec![("providers.accounts", Value::from(vec![only.clone()]))];
    let world = World::on(site, settings).await;
    world.sandbox.pause_accepting().await;
    let request = adyen_purchase("tok_approve", 100);
    let pending = world.client.create(request.clone()).await;
    assert_eq!(pending.state(), PaymentState::Pending);

    let mut live = adyen.account();
    live.insert("livemode".to_owned(), Value::from(true));
    let accounts = Value::from(vec![Value::from(live), only]);
    let mut settings = SiteOptions::default().recovering().settings;
    settings.push(("providers.accounts", accounts));
    let replica = world.replica_with(settings).await;
    let again = async |what: &str, done: fn(&Payment, u64) -> bool, than: u64| {
        let due = "update transactions set next_step_at = now() where state = 'PENDING'";
        eventually(what, async || {
            world.db.execute(due, &[]).await;
            let payment = world.client.payment(&pending.payment_id).await;
            done(&payment, than).then_some(payment.version)
        })
        .await
    };
    let sent = |payment: &Payment, _| payment.transactions[0].attempts == 2;
    let version = again("it is sent once more, in vain", sent, 0).await;
    // What is behind that send's own outcome comes of the open circuit: nothing is sent, and another account is looked for.
    let looked = |payment: &Payment, version| payment.version > version + 1;
    again("another account is looked for", looked, version).await;
    assert!(adyen.processed("/payments").is_empty());
    // A new one is routed by the configuration of today.
    let new = replica.client.create(adyen_purchase("tok_approve", 100));
    let new = new.await;
    assert_eq!((new.livemode, new.provider_account.as_str()), (true, ADYEN));
    world.sandbox.resume().await.unwrap();
}

/// An account that answers every time, only too slowly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s70_an_account_that_is_slow_is_left_alone_and_new_payments_go_to_the_next() {
    let site = Site::new(SiteOptions::default()).await;
    let other = Sandbox::start(SandboxConfig::new(SANDBOX_KEY))
        .await
        .unwrap();
    let mut slow = account(ACCOUNT, &site.sandbox.base_url(), PROVIDER_TIMEOUT_MS);
    let circuit = format!(
        "window_calls = 4\nmin_calls = 4\nslow_call_ms = 100\nslow_rate_percent = 50\n\
         open_ms = {AGES_MS}\nmax_open_ms = {AGES_MS}"
    );
    slow.insert("circuit".to_owned(), Value::Table(circuit.parse().unwrap()));
    let next = account("other", &other.base_url(), PROVIDER_TIMEOUT_MS);
    let accounts = vec![Value::from(slow), Value::from(next)];
    let world = World::on(site, vec![("providers.accounts", Value::from(accounts))]).await;
    let mut served_by = Vec::new();
    for _ in 0..6 {
        let paid = world
            .client
            .create(purchase("tok_approve?latency_ms=150", 100));
        let paid = paid.await;
        assert_eq!(paid.state(), PaymentState::Captured, "slow, and no failure");
        served_by.push(paid.provider_account);
    }
    let expected = [ACCOUNT, ACCOUNT, ACCOUNT, ACCOUNT, "other", "other"];
    assert_eq!(served_by, expected);
    let (slow, next) = (world.books().counts, other.books().counts);
    assert_eq!((slow.purchases, next.purchases), (4, 2));
    other.shutdown().await;
}
