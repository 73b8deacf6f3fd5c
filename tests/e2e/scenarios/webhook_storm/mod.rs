//! Webhooks shuffled, repeated, from four senders to two replicas that are killed meanwhile: in the end every payment
//! stands where the same events, each delivered once and in order, bring it. They are the sandbox's, Adyen's and Stripe's,
//! signed as each of them does.
//!
//! `QUITTANCE_WEBHOOKS=10000 QUITTANCE_WEBHOOK_KILLS=20` is the long run. The seed is printed; `QUITTANCE_WEBHOOKS_SEED`
//! repeats the choices of a run, though not its timing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _};
use quittance_proto::v1::{
    Decline, Failure, OperatorActionKind, ResolveTransactionRequest, TransactionResolution,
};
use quittance_sandbox::Event;
use quittance_server::auth::Role;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value as Json;
use toml::Value;

use super::kills_under_load::{Chance, number};
use crate::harness::adyen::{PlayedAdyen, batch, signed};
use crate::harness::played_stripe::{PlayedStripe, delivery};
use crate::harness::process::ServerProcess;
use crate::harness::requests::{CURRENCY, Cases as _, minor, money};
use crate::harness::site::{ACCOUNT, TENANT, TENANT_ROLES, account};
use crate::harness::webhooks::{Post, SECRET, client};
use crate::harness::{Amounts as _, Client, PATIENCE, Site, SiteOptions};

mod at_adyen;
mod at_stripe;
mod lives;

use lives::{Life, lives, make};

/// Webhooks of an ordinary run.
const WEBHOOKS: u64 = 150;
/// Kills of an ordinary run.
const KILLS: u64 = 2;
const SENDERS: usize = 4;
/// Most deliveries of one event.
const MOST_COPIES: u64 = 5;

/// Something that a provider has to tell.
enum Told {
    Sandbox(Box<Event>),
    Adyen(Json),
    Stripe(Json),
}

impl Told {
    /// Its delivery: what is signed with a time is signed anew each time.
    fn request_by(&self, http: &reqwest::Client, server: std::net::SocketAddr) -> RequestBuilder {
        match self {
            Self::Sandbox(event) => Post::of(event).request_by(http, server),
            Self::Adyen(item) => batch("false", &[signed(item.clone())]).request_by(http, server),
            Self::Stripe(event) => delivery(event, http, server),
        }
    }
}

/// The site, and the providers that are played beside its sandbox.
struct Stage {
    site: Site,
    adyen: PlayedAdyen,
    stripe: PlayedStripe,
}

impl std::ops::Deref for Stage {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

/// What the sandbox has to tell, by payment, oldest first.
fn events(site: &Site) -> HashMap<String, Vec<Told>> {
    let mut told: HashMap<String, Vec<Told>> = HashMap::new();
    let mut after = 0;
    loop {
        let page = site.sandbox.events(after, 1_000);
        for event in page.events {
            let payment = event.payment_reference.clone().unwrap();
            told.entry(payment)
                .or_default()
                .push(Told::Sandbox(Box::new(event)));
        }
        match page.next {
            Some(next) => after = next,
            None => return told,
        }
    }
}

/// Nothing waits in the inbox any more. As long as it gets on, it is waited for.
async fn until_done(site: &Site) {
    let open = "select count(*) from webhook_inbox where next_step_at is not null";
    let (mut least, mut since) = (i64::MAX, Instant::now());
    loop {
        let left = site.db.number(open).await;
        if left == 0 {
            return;
        }
        if left < least {
            (least, since) = (left, Instant::now());
        }
        assert!(since.elapsed() < PATIENCE, "{left} webhooks wait for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every event once, each after the one before it was done with.
async fn in_order(site: &Site, server: &ServerProcess, told: Vec<&Vec<Told>>) {
    let http = client();
    let most = told.iter().map(|events| events.len()).max().unwrap_or(0);
    for round in 0..most {
        let posts = told.iter().filter_map(|events| events.get(round));
        let sending = posts.map(|event| {
            let post = event.request_by(&http, server.http_address());
            async move { post.send().await.unwrap().status() }
        });
        let statuses: Vec<_> = stream::iter(sending)
            .buffer_unordered(SENDERS)
            .collect()
            .await;
        assert!(statuses.iter().all(|status| *status == StatusCode::OK));
        until_done(site).await;
    }
}

/// Delivers as a provider does: until it is acknowledged, at whichever replica is there.
async fn sender(
    deliveries: Vec<&Told>,
    servers: [std::net::SocketAddr; 2],
    mut chance: Chance,
    acknowledged: &AtomicU64,
) -> u64 {
    let http = client();
    let mut refused = 0;
    for event in deliveries {
        let mut replica = usize::from(chance.below(2) == 1);
        let begun = Instant::now();
        loop {
            let post = event.request_by(&http, servers[replica]);
            match post.send().await.map(|answer| answer.status()) {
                Ok(StatusCode::OK) => break,
                Ok(StatusCode::SERVICE_UNAVAILABLE) | Err(_) => {}
                Ok(status) => panic!("{status}"),
            }
            assert!(begun.elapsed() < 3 * PATIENCE, "not acknowledged");
            refused += 1;
            replica = 1 - replica;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    refused
}

/// Kills a replica by SIGKILL and starts it again, evenly over all deliveries.
async fn kill(
    replicas: &mut [ServerProcess; 2],
    kills: u64,
    deliveries: u64,
    acknowledged: &AtomicU64,
    mut chance: Chance,
) {
    for number in 1..=kills {
        let at = deliveries * number / (kills + 1);
        while acknowledged.load(Ordering::Relaxed) < at {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let victim = usize::from(chance.below(2) == 1);
        replicas[victim].kill();
        replicas[victim].start_again().await;
    }
}

/// Why something was not done.
fn why(decline: Option<&Decline>, failure: Option<&Failure>) -> String {
    let decline = decline.map(|why| (why.code(), why.provider_code.clone()));
    format!("{decline:?} {:?}", failure.map(|why| &why.cause))
}

/// Where a payment stands, without what names it, nor in which order it was heard of.
async fn stand(client: &Client, payment_id: &str) -> String {
    let payment = client.payment(payment_id).await;
    let mut transactions: Vec<_> = payment
        .transactions
        .iter()
        .map(|one| {
            let cases: Vec<_> = one.open_operator_actions().collect();
            let named = !one.provider_reference.is_empty();
            let (kind, state) = (one.kind(), one.state());
            let (origin, amount) = (one.origin(), minor(one.amount.as_ref()));
            let why = why(one.decline.as_ref(), one.failure.as_ref());
            let (whole, retried) = (one.final_capture, one.next_retry_time.is_some());
            let dispute = &one.dispute;
            format!(
                "{kind:?} {origin:?} {state:?} {amount} {named} {cases:?} {why} {whole} {retried} {dispute:?}"
            )
        })
        .collect();
    transactions.sort_unstable();
    let booked = [
        &payment.amount_authorized,
        &payment.amount_captured,
        &payment.amount_voided,
        &payment.amount_refunded,
        &payment.amount_charged_back,
        &payment.amount_excess,
    ];
    format!(
        "{:?} {:?} {:?} {} {} {} {} {transactions:?}",
        payment.state(),
        booked.map(|amount| minor(amount.as_ref())),
        payment.pending(),
        payment.disputed,
        !payment.provider_reference.is_empty(),
        payment.next_action.is_some(),
        why(payment.decline.as_ref(), payment.failure.as_ref()),
    )
}

/// Each event one to five times, in any order, dealt out to the senders.
fn shuffled<'a>(told: &[&'a Vec<Told>], chance: &mut Chance) -> Vec<Vec<&'a Told>> {
    let mut deliveries = Vec::new();
    for event in told.iter().flat_map(|events| events.iter()) {
        for _ in 0..=chance.below(MOST_COPIES) {
            deliveries.push(event);
        }
    }
    for last in (1..deliveries.len()).rev() {
        let other = chance.below(u64::try_from(last).unwrap() + 1);
        deliveries.swap(last, usize::try_from(other).unwrap());
    }
    let mut dealt = vec![Vec::new(); SENDERS];
    for (number, event) in deliveries.into_iter().enumerate() {
        dealt[number % SENDERS].push(event);
    }
    dealt
}

/// A person books what was moved, where another amount was told than was asked for.
async fn book_what_was_told(client: &Client, payments: &[String], lives: &[Life]) {
    for (payment, life) in payments.iter().zip(lives) {
        let Some(told) = life.waits_with() else {
            continue;
        };
        let payment = client.payment(payment).await;
        let waits = payment.transactions.last().unwrap();
        let asked = waits.open_operator_action();
        assert_eq!(asked, OperatorActionKind::AmountMismatch, "{life:?}");
        let request = ResolveTransactionRequest {
            payment_id: payment.payment_id.clone(),
            transaction_id: waits.transaction_id.clone(),
            resolution: TransactionResolution::Succeeded.into(),
            amount: Some(money(told, CURRENCY)),
            reason: "asked the provider's support".to_owned(),
            evidence: "ticket 4711".to_owned(),
            ..ResolveTransactionRequest::default()
        };
        client.ok(request).await;
    }
}

async fn replica(site: &Stage) -> ServerProcess {
    let mut sandbox = account(ACCOUNT, &site.sandbox.base_url(), 20_000);
    sandbox.insert("webhook_secrets".to_owned(), Value::from(vec![SECRET]));
    let mut accounts = vec![sandbox, site.adyen.account(), site.stripe.account()];
    for account in &mut accounts {
        account.insert("total_timeout_ms".to_owned(), Value::from(5_000));
        account.insert("connect_timeout_ms".to_owned(), Value::from(2_500));
    }
    let accounts: Vec<_> = accounts.into_iter().map(Value::from).collect();
    let settings = vec![
        ("providers.accounts", Value::from(accounts)),
        ("webhooks.claim_seconds", Value::from(60)),
        ("webhooks.poll_interval_ms", Value::from(50)),
        ("webhooks.retry_first_ms", Value::from(20)),
        ("webhooks.retry_max_ms", Value::from(200)),
    ];
    ServerProcess::start(site, settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s52_a_storm_of_webhooks_over_killed_replicas_ends_where_in_order_delivery_does() {
    let webhooks = number("QUITTANCE_WEBHOOKS").unwrap_or(WEBHOOKS);
    let kills = number("QUITTANCE_WEBHOOK_KILLS").unwrap_or(KILLS);
    let random = uuid::Uuid::new_v4().as_u64_pair().0;
    let seed = number("QUITTANCE_WEBHOOKS_SEED").unwrap_or(random);
    println!("{webhooks} webhooks, {kills} kills; QUITTANCE_WEBHOOKS_SEED={seed}");
    let mut chance = Chance(seed);
    let site = Stage {
        site: Site::new(SiteOptions::default()).await,
        adyen: PlayedAdyen::start().await,
        stripe: PlayedStripe::start().await,
    };
    let mut replicas = [replica(&site).await, replica(&site).await];

    // Two of each: one for the storm, and one that hears everything once and in order.
    let lives = lives(webhooks, &mut chance);
    let calm = make(&site, &replicas[0].client, &lives, "calm").await;
    let stormy = make(&site, &replicas[1].client, &lives, "storm").await;
    let mut told = events(&site);
    let [calm, stormy] = [calm, stormy].map(|made| {
        let put = |(payment, theirs): (String, Vec<Told>)| {
            told.entry(payment.clone()).or_default().extend(theirs);
            payment
        };
        made.into_iter().map(put).collect::<Vec<_>>()
    });
    for (payments, what) in [(&calm, "calm"), (&stormy, "storm")] {
        for (payment, life) in payments.iter().zip(&lives) {
            let heard = u64::try_from(told.entry(payment.clone()).or_default().len());
            assert_eq!(heard.unwrap(), life.events(), "{what} {payment}");
        }
    }
    let of = |payments: &[String]| -> Vec<&Vec<Told>> {
        payments.iter().map(|payment| &told[payment]).collect()
    };
    in_order(&site, &replicas[0], of(&calm)).await;

    let dealt = shuffled(&of(&stormy), &mut chance);
    let deliveries = u64::try_from(dealt.iter().map(Vec::len).sum::<usize>()).unwrap();
    let servers = replicas.each_ref().map(ServerProcess::http_address);
    let (acknowledged, begun) = (AtomicU64::new(0), Instant::now());
    let senders = dealt.into_iter().enumerate().map(|(sender_number, own)| {
        let chance = Chance(seed ^ u64::try_from(sender_number + 1).unwrap());
        sender(own, servers, chance, &acknowledged)
    });
    let killing = kill(&mut replicas, kills, deliveries, &acknowledged, chance);
    let (refused, ()) = tokio::join!(futures::future::join_all(senders), killing);
    // What the dead had claimed is taken over.
    let free = "update webhook_inbox set claimed_until = null where next_step_at is not null";
    site.db.execute(free, &[]).await;
    until_done(&site).await;
    let repeated: u64 = refused.iter().sum();
    println!(
        "{} payments, {deliveries} deliveries, {repeated} of them repeated for want of an answer, in {:?}",
        lives.len(),
        begun.elapsed()
    );

    let client = &replicas[0].client;
    let mut elsewhere = Vec::new();
    for ((calm, stormy), life) in calm.iter().zip(&stormy).zip(&lives) {
        let (expected, found) = (stand(client, calm).await, stand(client, stormy).await);
        if found != expected {
            elsewhere.push(format!(
                "{life:?} {stormy} stands at\n{found}\nand {calm} at\n{expected}"
            ));
        }
    }
    assert!(elsewhere.is_empty(), "{}", elsewhere.join("\n"));
    // Every event was stored once, and nothing was given up.
    let stored = site.db.number("select count(*) from webhook_inbox").await;
    let events: usize = told.values().map(Vec::len).sum();
    assert_eq!(stored, i64::try_from(events).unwrap());
    let dead = "select count(*) from webhook_inbox where state = 'DEAD'";
    assert_eq!(site.db.number(dead).await, 0);
    let roles = [&TENANT_ROLES[..], &[Role::Admin]].concat();
    let operator = site.caller(replicas[0].address, TENANT, &roles).await;
    for payments in [&calm, &stormy] {
        book_what_was_told(&operator, payments, &lives).await;
    }
    site.everything_agrees().await;
}
