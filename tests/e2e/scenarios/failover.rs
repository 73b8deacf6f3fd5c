//! One order, two accounts: the second is asked only where the first certainly was not.

use quittance_proto::v1::PaymentState;
use quittance_sandbox::{Sandbox, SandboxConfig};
use quittance_test_support::{Cut, Direction, Plan};
use toml::Value;

use crate::harness::site::{ACCOUNT, SANDBOX_KEY, account};
use crate::harness::{Links, Site, SiteOptions, World, eventually, purchase, until_resolved};

use Direction::ToServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_after_a_timeout_a_send_that_is_refused_at_the_connection_proves_nothing() {
    let options = SiteOptions::impatient()
        .with("payments.lease_margin_ms", 1_000)
        .recovering();
    let site = Site::new(options).await;
    let other = Sandbox::start(SandboxConfig::new(SANDBOX_KEY)).await;
    let other = other.unwrap();
    let links = Links::of(&site).await;
    let first = format!("http://{}", links.provider.address());
    let both = [(ACCOUNT, first), ("other", other.base_url())];
    let both = both.map(|(name, url)| Value::from(account(name, &url, 400)));
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
    links.database.wait_until_held(ToServer).await;
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
        .with("payments.lease_margin_ms", 1_000)
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
    let paid = until_resolved(&world.client, &pending.payment_id).await;
    assert_eq!(paid.state(), PaymentState::Captured);
    assert!(paid.transactions[0].attempts >= tried + 2);
    let doubtful = "select count(*) from attempts where outcome <> 'NOT_SENT'";
    assert_eq!(world.db.number(doubtful).await, 2);
    world.everything_agrees().await;
}
