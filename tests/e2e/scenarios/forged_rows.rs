//! Rows that somebody puts into the database beside the service, and what an export makes of them.

use quittance_proto::v1::Payment;
use tonic::Code;

use super::evidence::{evidence_of, exported};
use crate::harness::{Keyed as _, World, authorization, capture, eventually, get_by_key, refund};

fn alarms(world: &World, check: &str) -> f64 {
    let series = format!("audit_verify_failures_total{{check=\"{check}\"");
    world.metric(&series).unwrap_or(0.0)
}

/// A payment with two captures, in the tree.
async fn captured(world: &World) -> Payment {
    let payment = world
        .client
        .create(authorization("tok_approve", 1_000))
        .await;
    world.client.ok(capture(&payment, 300)).await;
    let answer = world.client.ok(capture(&payment, 200)).await;
    let payment = answer.message.payment.unwrap();
    exported(world, &world.client, evidence_of(&payment.payment_id)).await;
    payment
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_an_export_passes_forged_positions_over_and_raises_an_alarm() {
    let world = World::start().await;
    let payment = captured(&world).await;
    let id = payment.payment_id.as_str();
    let (_, before, _) = exported(&world, &world.client, evidence_of(id)).await;
    assert!(alarms(&world, "position") < 1.0);
    // The last entry is said to be on its way for ever, the first to be elsewhere, one to have no place.
    for forgery in [
        "update journal_positions set position = 9000000000000000 where stream_id::text = $1 and entity_seq = 4",
        "update journal_positions set position = 8000000000000000 where stream_id::text = $1 and entity_seq = 1",
        "delete from journal_positions where stream_id::text = $1 and entity_seq = 2",
    ] {
        world.db.execute(forgery, &[&id]).await;
    }
    let (_, after, _) = exported(&world, &world.client, evidence_of(id)).await;
    let places = |bundle: &quittance_evidence::bundle::Bundle| -> Vec<u64> {
        bundle.entries.iter().map(|it| it.leaf_index).collect()
    };
    assert_eq!(places(&after), places(&before));
    assert!(alarms(&world, "position") > 2.0);
    assert!(alarms(&world, "proof") < 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_no_bundle_is_made_without_an_entry_that_the_payment_had() {
    let world = World::start().await;
    let payment = captured(&world).await;
    let id = payment.payment_id.as_str();
    // The end of the payment is taken away from the journal: what is left is whole in itself.
    for change in [
        "delete from journal_positions where stream_id::text = $1 and entity_seq > 3",
        "delete from journal where stream_id::text = $1 and entity_seq > 3",
    ] {
        world.db.execute(change, &[&id]).await;
    }
    let refused = world.client.refused(evidence_of(id)).await;
    refused.is(Code::Internal, "INTERNAL");
    assert!(!refused.money_may_have_moved());
    eventually("an alert is raised", async || {
        (alarms(&world, "proof") > 0.0).then_some(())
    })
    .await;
}

/// A refund that succeeded lends its record to a key that was never used: the merchant's second refund would be answered
/// with the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_a_command_is_not_answered_from_a_record_that_no_entry_speaks_of() {
    let world = World::start().await;
    let payment = captured(&world).await;
    let first = refund(&payment, 100).key("refund 1");
    let receipt = world.client.ok(first.clone()).await.message.receipt;
    let invented = "insert into idempotency_records \
                    select tenant_id, 'refund 2', command, fingerprint, payment_id, transaction_id, created_at \
                    from idempotency_records where idempotency_key = 'refund 1'";
    world.db.execute(invented, &[]).await;
    assert!(alarms(&world, "idempotency") < 1.0);
    let entries = "select count(*) from journal where stream_id = payment_id";
    let before = world.db.number(entries).await;
    let second = refund(&payment, 100).key("refund 2");
    let refused = world.client.refused(second.clone()).await;
    refused.is(Code::Internal, "INTERNAL");
    // For all that is known the entry was taken away, and not the record put in.
    assert!(refused.money_may_have_moved());
    let unread = world.client.refused(get_by_key("refund 2")).await;
    unread.is(Code::Internal, "INTERNAL");
    assert_eq!(world.db.number(entries).await, before, "nothing was sent");
    assert!(alarms(&world, "idempotency") > 1.0);
    // What was accepted is answered as ever, also by a server that did not accept it.
    let replica = world.replica().await;
    let again = replica.client.ok(first).await.message;
    assert_eq!(again.receipt, receipt);
    // Once the row is gone, the key is one that was never used.
    let deleted = "delete from idempotency_records where idempotency_key = 'refund 2'";
    world.db.execute(deleted, &[]).await;
    let answer = world.client.ok(second).await.message;
    let refunded = answer.payment.unwrap().amount_refunded.unwrap();
    assert_eq!(refunded.minor_units, 200);
}

/// The record of a create that was never accepted: its commit finds the key taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_a_new_payment_is_not_answered_from_a_record_that_no_entry_speaks_of() {
    let world = World::start().await;
    let create = authorization("tok_approve", 1_000);
    world.client.ok(create.clone().key("order 1")).await;
    let invented = "insert into idempotency_records \
                    select tenant_id, 'order 2', command, fingerprint, payment_id, transaction_id, created_at \
                    from idempotency_records where idempotency_key = 'order 1'";
    world.db.execute(invented, &[]).await;
    let refused = world.client.refused(create.key("order 2")).await;
    refused.is(Code::Internal, "INTERNAL");
    assert!(refused.money_may_have_moved());
    assert!(alarms(&world, "idempotency") > 0.0);
    assert_eq!(world.db.number("select count(*) from payments").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_no_false_last_entry_is_stated_of_a_payment_that_was_set_back() {
    let world = World::start().await;
    let payment = captured(&world).await;
    let id = payment.payment_id.as_str();
    let (_, whole, _) = exported(&world, &world.client, evidence_of(id)).await;
    assert!(whole.entries.len() > 3);
    // Entries 1 to 3 are under every checkpoint since, and the payment's row names no later one.
    for change in [
        "delete from journal where stream_id::text = $1 and entity_seq > 3",
        "update payments set version = 3 where payment_id::text = $1",
    ] {
        world.db.execute(change, &[&id]).await;
    }
    let refused = world.client.refused(evidence_of(id)).await;
    refused.is(Code::Internal, "INTERNAL");
    eventually("an alert is raised", async || {
        (alarms(&world, "proof") > 0.0).then_some(())
    })
    .await;
}
