//! Migrating while others migrate, and while payments run.

use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use quittance_proto::v1::PaymentState;
use quittance_test_support::TestDb;

use crate::harness::{SiteOptions, World, process, purchase};

/// `quittance migrate`, as an operator runs it.
pub async fn migrate(database_url: &str) -> Output {
    let mut command = process::command(&["migrate"]);
    command.env("DATABASE_URL", database_url);
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn succeeded(output: &Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}", output.status);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s80_migrating_twice_at_once_under_load_disturbs_no_payment() {
    let world = World::start().await;
    let done = AtomicBool::new(false);
    let load = async {
        let mut paid = 0;
        while !done.load(Ordering::Relaxed) || paid < 20 {
            let payment = world.client.create(purchase("tok_approve", 10)).await;
            assert_eq!(payment.state(), PaymentState::Captured);
            paid += 1;
        }
        paid
    };
    let migrations = async {
        let url = world.database_url();
        let (one, other) = tokio::join!(migrate(url), migrate(url));
        done.store(true, Ordering::Relaxed);
        succeeded(&one);
        succeeded(&other);
    };
    let (paid, ()) = tokio::join!(load, migrations);
    assert_eq!(world.db.number("select count(*) from payments").await, paid);
    assert_eq!(i64::try_from(world.books().counts.purchases).unwrap(), paid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s80_an_empty_database_migrated_twice_at_once_serves() {
    let empty = TestDb::unmigrated().await;
    let (one, other) = tokio::join!(migrate(empty.url()), migrate(empty.url()));
    succeeded(&one);
    succeeded(&other);
    let database_url = Some(empty.url().to_owned());
    let options = SiteOptions {
        database_url,
        ..SiteOptions::default()
    };
    let world = World::start_with(options).await;
    let payment = world.client.create(purchase("tok_approve", 10)).await;
    assert_eq!(payment.state(), PaymentState::Captured);
    // What the server may do is less than what its login may.
    let rights = "select has_table_privilege('quittance_app', 'journal', 'update') \
                  or has_table_privilege('quittance_app', 'journal', 'delete') \
                  or has_table_privilege('quittance_app', 'journal', 'truncate')";
    assert!(!world.db.row(rights, &[]).await.get::<_, bool>(0));
    world.shut_down().await;
}
