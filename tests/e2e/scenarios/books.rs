//! Many callers at once: our tables, our journal and the provider's books agree to the unit.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::join_all;
use quittance_evidence::Leaf;
use quittance_proto::v1::PaymentState;

use crate::harness::{
    Amounts as _, Client, CreateRequest as _, World, authorization, capture, purchase, refund, void,
};

const CLIENTS: u64 = 50;
/// Payments of an ordinary run. `QUITTANCE_LOAD_PAYMENTS=20000` is the full number.
const PAYMENTS: u64 = 2_000;
const CURRENCIES: [&str; 3] = ["EUR", "USD", "JPY"];

fn payments() -> u64 {
    let wanted = std::env::var("QUITTANCE_LOAD_PAYMENTS").ok();
    wanted.map_or(PAYMENTS, |text| {
        text.parse().expect("QUITTANCE_LOAD_PAYMENTS is a number")
    })
}

/// One payment's life, which depends on its number only.
async fn live(client: &Client, number: u64) {
    let amount = 100 + i64::try_from(number % 900).unwrap();
    let currency = CURRENCIES[usize::try_from(number % 3).unwrap()];
    match number % 6 {
        0 | 1 => {
            let paid = client
                .create(purchase("tok_approve", amount).currency(currency))
                .await;
            assert_eq!(
                (paid.state(), paid.captured()),
                (PaymentState::Captured, amount)
            );
        }
        2 => {
            let payment = client
                .create(purchase("tok_approve", amount).currency(currency))
                .await;
            client.ok(refund(&payment, amount / 2)).await;
            client.ok(refund(&payment, 1)).await;
        }
        3 => {
            let held = client
                .create(authorization("tok_approve", amount).currency(currency))
                .await;
            client.ok(capture(&held, amount / 3)).await;
            let mut last = capture(&held, amount / 3);
            last.final_capture = true;
            client.ok(last).await;
        }
        4 => {
            let held = client
                .create(authorization("tok_approve", amount).currency(currency))
                .await;
            client.ok(capture(&held, 40)).await;
            client.ok(void(&held)).await;
            let done = client.ok(refund(&held, 40)).await.message.payment.unwrap();
            assert_eq!((done.voided(), done.refunded()), (amount - 40, 40));
        }
        _ => {
            let declined = client
                .create(purchase("tok_fraud", amount).currency(currency))
                .await;
            assert_eq!(declined.state(), PaymentState::Declined);
        }
    }
}

/// Authorized, captured, voided, refunded.
type Sums = [i128; 4];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_clients_at_once_and_all_three_books_agree_to_the_unit() {
    let world = World::start().await;
    let (next, total) = (AtomicU64::new(0), payments());
    join_all((0..CLIENTS).map(|_| async {
        let client = world.client.reconnected();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= total {
                return;
            }
            live(&client, number).await;
        }
    }))
    .await;

    let total = i64::try_from(total).unwrap();
    assert_eq!(
        world.db.number("select count(*) from payments").await,
        total
    );
    let unfinished = "select count(*) from transactions where state not in ('SUCCEEDED', 'DECLINED') \
                      or request is not null or lease_until is not null";
    assert_eq!(world.db.number(unfinished).await, 0);
    let entries = "select count(*) - (select sum(version)::bigint from payments) from journal \
                   where payment_id is not null";
    assert_eq!(world.db.number(entries).await, 0, "one entry per change");
    let books = world.books();
    assert_eq!(books.counts.replays, 0);
    let mut money = 0;
    for currency in CURRENCIES {
        let theirs = books.currencies[currency];
        let theirs = [
            theirs.authorized,
            theirs.captured,
            theirs.voided,
            theirs.refunded,
        ];
        assert_eq!(
            table_sums(&world, currency).await,
            theirs,
            "{currency}: the payments table"
        );
        assert_eq!(
            journal_sums(&world, currency).await,
            theirs,
            "{currency}: the journal"
        );
        money += theirs[1];
    }
    assert!(money > 0);
}

async fn table_sums(world: &World, currency: &str) -> Sums {
    let sql = "select sum(authorized)::text, sum(captured)::text, sum(voided)::text, \
               sum(refunded)::text from payments where currency = $1";
    let row = world.db.row(sql, &[&currency]).await;
    std::array::from_fn(|column| row.get::<_, String>(column).parse().unwrap())
}

/// The amounts after each payment's newest entry, from the bytes that are the evidence.
async fn journal_sums(world: &World, currency: &str) -> Sums {
    let sql = "select distinct on (j.stream_id) j.leaf from journal j join payments p \
               on p.payment_id = j.stream_id and p.currency = $1 \
               order by j.stream_id, j.entity_seq desc";
    let mut sums = [0; 4];
    for row in world.db.rows(sql, &[&currency]).await {
        let amounts = Leaf::decode(row.get(0)).unwrap().amounts.unwrap();
        let of = [
            amounts.authorized,
            amounts.captured,
            amounts.voided,
            amounts.refunded,
        ];
        for (sum, amount) in sums.iter_mut().zip(of) {
            *sum += i128::from(amount);
        }
    }
    sums
}
