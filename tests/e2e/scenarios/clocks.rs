//! Clocks that differ, and time zones that are switched to and from summer time.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use quittance_proto::v1::PaymentState;
use quittance_server::server::Server;
use quittance_test_support::{Direction, Plan};

use crate::harness::process::ServerProcess;
use crate::harness::{
    Keyed as _, Links, Site, SiteOptions, World, purchase, until_resolved, until_resolved_by_key,
};

/// Sets the database's clock forward, or back, by so many seconds: what sessions ask for the time, from now on.
async fn set_the_databases_clock(site: &Site, forward: f64) {
    let run = async |sql: &str| site.db.execute(sql, &[]).await;
    run("create schema if not exists skewed").await;
    run("grant usage on schema skewed to public").await;
    for (function, volatile) in [("clock_timestamp", "volatile"), ("now", "stable")] {
        let sql = format!(
            "create or replace function skewed.{function}() returns timestamptz language sql {volatile} \
             return pg_catalog.{function}() + make_interval(secs => {forward})"
        );
        run(&sql).await;
    }
    set_default(site, "search_path = skewed, pg_catalog, public").await;
}

async fn set_default(site: &Site, default: &str) {
    let name = site.db.row("select current_database()::text", &[]).await;
    let name: String = name.get(0);
    let sql = format!("alter database \"{name}\" set {default}");
    site.db.execute(&sql, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s74_a_server_whose_clock_is_more_than_five_seconds_off_refuses_to_start() {
    let site = Site::new(SiteOptions::default()).await;
    for forward in [60.0, -60.0, 3_600.0] {
        set_the_databases_clock(&site, forward).await;
        let refused = Server::start(site.config()).await.err().unwrap();
        let told = refused.to_string();
        let said = format!("differs from this machine's by {:.1} s", f64::abs(forward));
        // The two looks are a moment apart.
        let nearly =
            told.contains("the clock of the database differs") && told.contains("at most 5 s");
        assert!(told.contains(&said) || nearly, "{told}");
    }
    for forward in [2.0, -2.0] {
        set_the_databases_clock(&site, forward).await;
        let server = Server::start(site.config()).await.unwrap();
        assert!(server.shutdown().await);
    }
}

/// How long a sender is taken to be alive: the time of the provider, and the margin. Seconds.
const LEASE: f64 = 28.0 + 600.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s74_servers_whose_clocks_are_off_take_over_by_the_databases() {
    for forward in [3.0, -3.0] {
        let site = Site::new(SiteOptions::default().recovering()).await;
        set_the_databases_clock(&site, forward).await;
        let world = World::on(site, Vec::new()).await;
        let links = Links::of(&world).await;
        let mut victim = ServerProcess::start(&world, links.settings()).await;
        links
            .provider
            .set(Direction::ToServer, Plan::hold_at("POST /"));
        let client = victim.client.clone();
        let call = tokio::spawn(async move {
            client
                .send(purchase("tok_approve", 300).key("skewed"))
                .await
        });
        links.provider.wait_until_held(Direction::ToServer).await;
        // Its lease is told by the clock that both follow, so nobody takes over while it may still send.
        let lease =
            "select extract(epoch from lease_until - pg_catalog.now())::float8 from transactions";
        let left: f64 = world.db.row(lease, &[]).await.get(0);
        let over = left - forward - LEASE;
        // Told by the server's own clock it would be longer by as much as that is off, where that is ahead.
        assert!(
            (-120.0..1.5).contains(&over),
            "{left} s are left of {LEASE} s, {forward} s ahead"
        );
        victim.kill();
        world.all_senders_are_gone().await;
        assert!(call.await.unwrap().is_err());
        let paid = until_resolved_by_key(&world.client, "skewed").await;
        assert_eq!(paid.state(), PaymentState::Captured);
        assert_eq!(paid.transactions[0].attempts, 2);
        world.everything_agrees().await;
    }
}

#[allow(clippy::disallowed_methods, reason = "a caller reads its own clock")]
fn of_the_caller() -> SystemTime {
    SystemTime::now()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

/// The machines of two servers and the database are in three time zones, each with a summer time of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s74_time_zones_and_the_hour_that_comes_twice_change_nothing() {
    let options = SiteOptions::default().recovering();
    let site = Site::new(options).await;
    set_default(&site, "timezone = 'Europe/Berlin'").await;
    let mut first = ServerProcess::start_in("Australia/Lord_Howe", &site, Vec::new()).await;
    let second = ServerProcess::start_in("America/St_Johns", &site, Vec::new()).await;

    let begun = of_the_caller() - Duration::from_secs(5);
    let lost = first
        .client
        .create(purchase("tok_approve?drop=after", 300))
        .await;
    first.kill();
    site.all_senders_are_gone().await;
    let paid = until_resolved(&second.client, &lost.payment_id).await;
    assert_eq!(paid.state(), PaymentState::Captured);
    let accepted = SystemTime::try_from(paid.create_time.unwrap()).unwrap();
    let done = SystemTime::try_from(paid.update_time.unwrap()).unwrap();
    assert!(
        begun <= accepted && accepted <= done,
        "{accepted:?} {done:?}"
    );
    assert!(done <= of_the_caller() + Duration::from_secs(5), "{done:?}");
    site.everything_agrees().await;

    // In Berlin both were half past two, on the last Sunday of October.
    let (summer, winter) = (1_792_888_200, 1_792_891_800);
    for seconds in [summer, winter] {
        let sql = "update transactions set execute_before = to_timestamp($1::bigint)";
        site.db.execute(sql, &[&seconds]).await;
        let local = "select to_char(execute_before at time zone 'Europe/Berlin', 'YYYY-MM-DD HH24:MI') \
                     from transactions";
        let local: String = site.db.row(local, &[]).await.get(0);
        assert_eq!(local, "2026-10-25 02:30");
        let read = second.client.payment(&paid.payment_id).await;
        assert_eq!(read.transactions[0].execute_before, Some(at(seconds)));
    }
    let naive = "select table_name || '.' || column_name from information_schema.columns \
                 where table_schema = 'public' and table_name not like '\\_\\_diesel%' and data_type = 'timestamp without time zone'";
    let naive = site.db.rows(naive, &[]).await;
    let naive: Vec<String> = naive.iter().map(|row| row.get(0)).collect();
    assert_eq!(naive, Vec::<String>::new(), "times without a place");
}
