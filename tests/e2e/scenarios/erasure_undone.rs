//! Erasures that somebody undid in the database, and what comes into it when they are done.

use quittance_proto::v1::{Erasure, GetErasureRequest};
use quittance_server::auth::Role;
use tonic::Code;

use super::erasure::{
    CUSTOMER, administrator, customer_of, erase, erased, fingerprint, of_customer, options, stands,
};
use super::verification::verified;
use crate::harness::site::TENANT;
use crate::harness::{Client, World, eventually};

/// What verification finds: the payment concerned, and the code.
async fn found(auditor: &Client) -> Vec<(String, String)> {
    let (found, _) = verified(auditor).await;
    let found = found.into_iter().map(|it| (it.payment_id, it.code));
    found.collect()
}

async fn asked(client: &Client, customer: &str) -> Erasure {
    client.ok(erase(customer)).await.message.erasure.unwrap()
}

/// Has the erasures be taken up that wait.
async fn let_be_due(world: &World) {
    let sql = "update erasures set next_step_at = now() where finished_at is null";
    world.db.execute(sql, &[]).await;
}

/// As an erasure is once it was looked at for the last time.
const CLOSE: &str = "\
    update erasures set finished_at = now(), payments = 0, next_step_at = null, claimed_until = null";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_an_erasure_that_somebody_cancelled_is_found_and_not_said_to_be_done() {
    let world = World::start_with(options()).await;
    let admin = administrator(&world).await;
    let auditor = world.as_role(TENANT, &[Role::PlatformAudit]).await;
    of_customer(&admin, CUSTOMER).await;
    let erasure = asked(&admin, CUSTOMER).await;
    assert_eq!(found(&auditor).await, []);
    let set_back = "update customers set erasing_since = null";
    world.db.batch(&format!("{CLOSE}; {set_back}")).await;
    let one = [(String::new(), "ERASURE_WITHOUT_ENTRY".to_owned())];
    assert_eq!(found(&auditor).await, one);
    let told = stands(&admin, &erasure).await;
    assert_eq!((told.finish_time, told.payments), (None, 0));

    let again = asked(&admin, CUSTOMER).await;
    assert_eq!(again.erasure_id, erasure.erasure_id);
    assert_eq!(again.finish_time, None);
    let_be_due(&world).await;
    let done = erased(&admin, &erasure).await;
    assert_eq!((done.payments, done.open_payments), (1, 0));
    let left = "select count(*) from customers";
    assert_eq!(world.db.number(left).await, 0);
    world.db.batch(CLOSE).await;
    assert_eq!(found(&auditor).await, []);
    // What the row says of its end is nothing to anybody.
    assert_eq!(stands(&admin, &erasure).await, done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_whatever_became_of_the_row_of_an_erasure_it_can_be_asked_for_again() {
    const FORGED: &str = "update erasures set erasure_id = gen_random_uuid()";
    let world = World::start_with(options()).await;
    let admin = administrator(&world).await;
    let auditor = world.as_role(TENANT, &[Role::PlatformAudit]).await;
    let set_back = "update customers set erasing_since = null";
    for (number, change) in [
        CLOSE.to_owned(),
        "delete from erasures".to_owned(),
        FORGED.to_owned(),
        format!("{CLOSE}, erasure_id = gen_random_uuid()"),
        format!("{FORGED}; {set_back}; {CLOSE}"),
    ]
    .into_iter()
    .enumerate()
    {
        let customer = format!("customer-{number}");
        let payment = of_customer(&admin, &customer).await;
        let erasure = asked(&admin, &customer).await;
        let id = customer_of(&world, &payment).await;
        for statement in change.split("; ") {
            let sql = format!("{statement} where customer_id = '{id}'");
            world.db.batch(&sql).await;
        }
        let again = asked(&admin, &customer).await;
        let_be_due(&world).await;
        erased(&admin, &again).await;
        let left = format!("select count(*) from customers where customer_id = '{id}'");
        assert_eq!(world.db.number(&left).await, 0, "{change}");
        if again.erasure_id != erasure.erasure_id {
            let request = GetErasureRequest {
                erasure_id: erasure.erasure_id,
                ..GetErasureRequest::default()
            };
            let refused = admin.refused(request).await;
            refused.is(Code::NotFound, "ERASURE_NOT_FOUND");
        }
    }
    assert_eq!(found(&auditor).await, []);
}

/// The token of a payment is wiped with its outcome.
const KEEP_TOKENS: &str = "\
    create table kept_tokens (payment_id uuid, provider_token bytea); \
    grant insert on kept_tokens to public; \
    create function keep_token() returns trigger language plpgsql as \
        'begin insert into public.kept_tokens values (new.payment_id, new.provider_token); return null; end'; \
    create trigger keep_token after insert on payments for each row execute function keep_token()";

/// Its server took the customer's key, and then stood still for longer than anybody waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_after_the_customer_was_erased_is_wiped_too() {
    let world = World::start_with(options()).await;
    let admin = administrator(&world).await;
    of_customer(&admin, CUSTOMER).await;
    world.db.batch(KEEP_TOKENS).await;
    let late = of_customer(&admin, CUSTOMER).await;
    for table in ["payments", "idempotency_records"] {
        let sql = format!(
            "create table late_{table} as select * from {table} where payment_id = '{id}'; \
             delete from {table} where payment_id = '{id}'",
            id = late.payment_id
        );
        world.db.batch(&sql).await;
    }
    // As it was when it was accepted.
    let token = "update late_payments l set provider_token = k.provider_token from kept_tokens k \
                 where k.payment_id = l.payment_id";
    world.db.batch(token).await;
    let erasure = asked(&admin, CUSTOMER).await;
    let_be_due(&world).await;
    assert_eq!(erased(&admin, &erasure).await.payments, 1);
    for table in ["payments", "idempotency_records"] {
        let sql = format!("insert into {table} select * from late_{table}");
        world.db.batch(&sql).await;
    }
    let tokens = "select count(*) from payments where provider_token is not null";
    assert_eq!(world.db.number(tokens).await, 1);
    assert_ne!(fingerprint(&world, &late).await[25..33], [0; 8]);
    let_be_due(&world).await;
    eventually("it is looked at again", async || {
        (world.db.number(tokens).await == 0).then_some(())
    })
    .await;
    assert_eq!(fingerprint(&world, &late).await[25..33], [0; 8]);
    // Asked again, whenever that is, it looks again.
    world.db.batch(CLOSE).await;
    let put_back = "update payments p set provider_token = l.provider_token from late_payments l \
                    where l.payment_id = p.payment_id";
    world.db.batch(put_back).await;
    let auditor = world.as_role(TENANT, &[Role::PlatformAudit]).await;
    let one = [(late.payment_id, "PAYMENT_COLUMN_DIFFERS".to_owned())];
    assert_eq!(found(&auditor).await, one);
    let again = asked(&admin, CUSTOMER).await;
    assert_eq!(again.erasure_id, erasure.erasure_id);
    let_be_due(&world).await;
    eventually("it is looked at again", async || {
        (world.db.number(tokens).await == 0).then_some(())
    })
    .await;
    world.db.batch(CLOSE).await;
    assert_eq!(found(&auditor).await, []);
}

/// A change that was begun with the customer's key may be committed as late as its limits let it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_waits_until_no_commit_can_be_under_way_that_was_begun_before_it() {
    let options = options()
        .with("database.unavailable_after_ms", 20_000)
        .with("database.statement_timeout_ms", 30_000)
        .with("database.commit_resolution_timeout_ms", 60_000);
    let world = World::start_with(options).await;
    let admin = administrator(&world).await;
    of_customer(&admin, CUSTOMER).await;
    asked(&admin, CUSTOMER).await;
    let waits =
        "select (extract(epoch from next_step_at - requested_at) * 1000)::bigint from erasures";
    // The key is remembered for 200 ms; a commit is begun within 20 s and waited for as long, its outcome is sought for
    // 60 s, and the last statement may run for 30 s.
    assert_eq!(world.db.number(waits).await, 130_200);
}
