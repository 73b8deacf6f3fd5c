//! What does not arrive: receivers that are gone or ask for time, dead letters and their replay, what is kept how long.

use std::collections::BTreeSet;

use quittance_proto::v1::{
    GetNotificationRequest, ListNotificationEndpointsRequest, NotificationEndpointState,
    NotificationState, ReplayNotificationsRequest, UpdateNotificationEndpointRequest,
};
use tonic::Code;

use crate::harness::database::Database;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::site::TENANT;
use crate::harness::{Client, World, eventually, purchase};

use super::{
    administrator, counted, endpoint, id_of, lifecycle, notifications, on_record, options,
    schedule, until_all_ended,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_gone_is_switched_off_on_record_and_its_dead_letters_can_be_replayed() {
    let world = World::start_with(options()).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    let id = id_of(&endpoint(&admin, &receiver, &[]).await);
    receiver.answers(Answer::status(410));
    let (_, events) = lifecycle(&world.client).await;
    eventually("all are dead letters", async || {
        let dead = notifications(&admin, NotificationState::Dead).await;
        (dead.len() as u64 == events).then_some(())
    })
    .await;
    assert_eq!(receiver.got().len(), 1, "it is not asked again");
    let list = ListNotificationEndpointsRequest::default();
    let listed = admin.ok(list).await.message.endpoints;
    assert_eq!(listed[0].state(), NotificationEndpointState::Gone);
    let entries = on_record(&world.client, "endpoint.gone").await;
    assert_eq!(entries[0].details["endpoint_id"], id);
    assert_eq!(entries[0].actor.as_ref().unwrap().r#type, "system");
    let causes: BTreeSet<_> = notifications(&admin, NotificationState::Dead)
        .await
        .into_iter()
        .map(|one| one.cause)
        .collect();
    let expected = ["ENDPOINT_CLOSED", "GONE"].map(str::to_owned);
    assert_eq!(causes, expected.into());
    // Nothing is replayed while it is off.
    let all = ReplayNotificationsRequest {
        endpoint_id: id.clone(),
        ..ReplayNotificationsRequest::default()
    };
    let refused = admin.refused(all.clone()).await;
    refused.is(Code::FailedPrecondition, "ENDPOINT_NOT_ENABLED");
    receiver.answers(Answer::status(200));
    let on = UpdateNotificationEndpointRequest {
        endpoint_id: id,
        enabled: Some(true),
        ..UpdateNotificationEndpointRequest::default()
    };
    admin.ok(on).await;
    assert_eq!(u64::from(admin.ok(all).await.message.replayed), events);
    until_all_ended(&world).await;
    assert_eq!(receiver.different() as u64, events);
    assert_eq!(receiver.in_order().len(), 1);
    let first = receiver.got()[0].id.clone();
    assert!(receiver.taken().iter().any(|one| one.id == first));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_old_url_calls_gone_goes_to_the_new_one() {
    let world = World::start_with(options()).await;
    let admin = administrator(&world, TENANT).await;
    let old = Receiver::start().await;
    old.answers(Answer::Withheld(410));
    let id = id_of(&endpoint(&admin, &old, &["payment.captured"]).await);
    world.client.create(purchase("tok_approve", 700)).await;
    eventually("it is under way", async || {
        (old.at_once() == 1).then_some(())
    })
    .await;
    let new = Receiver::start().await;
    let moves = UpdateNotificationEndpointRequest {
        endpoint_id: id,
        url: Some(new.url()),
        ..UpdateNotificationEndpointRequest::default()
    };
    admin.ok(moves).await;
    old.lets_go();
    until_all_ended(&world).await;
    assert_eq!((old.got().len(), new.different()), (1, 1));
    let dead = notifications(&admin, NotificationState::Dead).await;
    assert!(dead.is_empty(), "{dead:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_for_too_long_is_a_dead_letter_whose_replay_has_its_id() {
    let options = options().with("notifications.retry_schedule_ms", schedule(20, 2));
    let world = World::start_with(options).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    endpoint(&admin, &receiver, &["payment.captured"]).await;
    receiver.answers(Answer::Status(
        302,
        format!("location: {}\r\n", receiver.url()),
    ));
    world.client.create(purchase("tok_approve", 700)).await;
    let dead = eventually("it is given up", async || {
        notifications(&admin, NotificationState::Dead).await.pop()
    })
    .await;
    assert_eq!((dead.attempts, dead.cause.as_str()), (3, "REDIRECT"));
    assert_eq!(receiver.got().len(), 3, "a redirect is not followed");
    let get = GetNotificationRequest {
        notification_id: dead.notification_id.clone(),
        tenant_id: String::new(),
    };
    let shown = admin.ok(get.clone()).await.message;
    let log: Vec<_> = shown
        .attempts
        .iter()
        .map(|one| (one.number, one.http_status))
        .collect();
    assert_eq!(log, [(1, 302), (2, 302), (3, 302)]);
    eventually("the metric knows", async || {
        (counted(&world, "payment_notification_dead")? == 1).then_some(())
    })
    .await;
    receiver.answers(Answer::status(200));
    let replay = ReplayNotificationsRequest {
        notification_id: dead.notification_id.clone(),
        ..ReplayNotificationsRequest::default()
    };
    // Another tenant's administrator cannot see it, let alone replay it.
    let theirs = administrator(&world, "globex").await;
    let refused = theirs.refused(replay.clone()).await;
    refused.is(Code::NotFound, "NOTIFICATION_NOT_FOUND");
    theirs
        .refused(get)
        .await
        .is(Code::NotFound, "NOTIFICATION_NOT_FOUND");
    assert_eq!(admin.ok(replay.clone()).await.message.replayed, 1);
    until_all_ended(&world).await;
    let got = receiver.got();
    assert_eq!(got.len(), 4);
    assert!(got.iter().all(|one| one.id == dead.notification_id));
    assert!(got.iter().all(|one| one.body == got[0].body));
    let again = admin.refused(replay).await;
    again.is(Code::FailedPrecondition, "NOTIFICATION_NOT_DEAD");
    let entries = on_record(&world.client, "endpoint.replayed").await;
    assert_eq!(entries[0].details["notification_id"], dead.notification_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_asks_for_time_gets_it() {
    let world = World::start_with(options()).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    endpoint(&admin, &receiver, &["payment.captured"]).await;
    receiver.answers(Answer::Status(429, "retry-after: 600\r\n".to_owned()));
    world.client.create(purchase("tok_approve", 700)).await;
    let waiting = eventually("it was answered", async || {
        let pending = notifications(&admin, NotificationState::Pending)
            .await
            .pop();
        pending.filter(|one| one.http_status == 429)
    })
    .await;
    let next = waiting.next_attempt_time.unwrap().seconds;
    let made = waiting.create_time.unwrap().seconds;
    assert!((590..=660).contains(&(next - made)), "{}", next - made);
    assert_eq!(receiver.got().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_everything_that_was_delivered_long_ago_is_removed_however_much_it_is() {
    const LEFT: &str = "select count(*) from notification_deliveries";
    let world = World::start_with(options()).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    let id = id_of(&endpoint(&admin, &receiver, &[]).await);
    // As a server leaves them that was away for long.
    let old = format!(
        "insert into notification_deliveries (endpoint_id, tenant_id, position, entry_id, payment_id, entity_seq, \
             event_type, state, next_attempt_at, ended_at) \
         select '{id}', '{TENANT}', n, gen_random_uuid(), gen_random_uuid(), 1, 'payment.captured', 'DELIVERED', null, \
             now() - case when n <= 2200 then interval '31 days' else interval '29 days' end \
         from generate_series(1, 2500) n"
    );
    world.db.execute(&old, &[]).await;
    let replica = world.replica().await;
    eventually("what is too old goes", async || {
        (world.db.number(LEFT).await == 300).then_some(())
    })
    .await;
    assert!(replica.server.shutdown().await);
}

/// One capture that the receiver did not take, and that is not tried again for an hour.
async fn one_that_waits(world: &World, admin: &Client, receiver: &Receiver) -> String {
    endpoint(admin, receiver, &["payment.captured"]).await;
    receiver.answers(Answer::status(503));
    world.client.create(purchase("tok_approve", 700)).await;
    let found = eventually("it was tried once", async || {
        let mut found = notifications(admin, NotificationState::Pending).await;
        found.retain(|one| one.http_status == 503);
        found.pop()
    });
    found.await.notification_id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s77_a_notification_that_those_who_send_it_die_of_is_given_up_and_can_be_replayed() {
    let options = options().with("notifications.retry_schedule_ms", schedule(3_600_000, 2));
    let world = World::start_with(options).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    let id = one_that_waits(&world, &admin, &receiver).await;
    receiver.answers(Answer::status(200));
    // As servers leave it that died five times over it: it was begun six times.
    let died = "update notification_deliveries set attempts = 6, next_attempt_at = now()";
    world.db.execute(died, &[]).await;
    let dead = eventually("it is given up", async || {
        notifications(&admin, NotificationState::Dead).await.pop()
    })
    .await;
    assert_eq!(dead.notification_id, id);
    let get = GetNotificationRequest {
        notification_id: id.clone(),
        tenant_id: String::new(),
    };
    let attempts = admin.ok(get).await.message.attempts;
    let causes: Vec<_> = attempts.iter().map(|one| one.cause.as_str()).collect();
    assert_eq!(causes, ["HTTP_STATUS", "ABANDONED"]);
    assert_eq!(receiver.taken().len(), 0, "it was not sent");
    let replay = ReplayNotificationsRequest {
        notification_id: id.clone(),
        ..ReplayNotificationsRequest::default()
    };
    admin.ok(replay).await;
    eventually("it arrives", async || {
        (receiver.taken().pop()?.id == id).then_some(())
    })
    .await;
}

/// A receiver acts upon what it is told under our signature.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_nobody_is_notified_of_what_somebody_wrote_into_an_entry() {
    const TURNED: [&str; 2] = ["payment.captured", "payment.capturad"];
    let options = options().with("notifications.retry_schedule_ms", schedule(3_600_000, 9));
    let world = World::start_with(options).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    let id = one_that_waits(&world, &admin, &receiver).await;
    receiver.answers(Answer::status(200));
    let turn = async |[from, to]: [&str; 2]| {
        let turn = "update journal set leaf = convert_to(replace(convert_from(leaf, 'UTF8'), $1, $2), 'UTF8') \
                    where event_type = 'payment.captured'";
        world.db.execute(turn, &[&from, &to]).await;
        let due =
            "update notification_deliveries set next_attempt_at = now(), claimed_until = null";
        world.db.execute(due, &[]).await;
    };
    turn(TURNED).await;
    let get = GetNotificationRequest {
        notification_id: id.clone(),
        tenant_id: String::new(),
    };
    eventually("it is not made", async || {
        let attempts = admin.ok(get.clone()).await.message.attempts;
        (attempts.last()?.cause == "NOT_PREPARED").then_some(())
    })
    .await;
    assert_eq!(receiver.taken().len(), 0);
    turn([TURNED[1], TURNED[0]]).await;
    eventually("what we wrote arrives", async || {
        (receiver.taken().pop()?.id == id).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_database_that_fails_uses_up_nothing_of_a_receivers_schedule() {
    const POSTPONED: &str = "select count(*) from notification_deliveries \
                             where state = 'PENDING' and attempts > 1 and attempts_before > 0";
    let options = options()
        .with("notifications.retry_schedule_ms", schedule(3_600_000, 1))
        .with("database.statement_timeout_ms", 3_000);
    let world = World::start_with(options).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    let id = one_that_waits(&world, &admin, &receiver).await;
    receiver.answers(Answer::status(200));
    // Nobody can read the journal, while everything else goes on.
    let holder = Database::connect(world.database_url()).await;
    holder.execute("begin", &[]).await;
    let lock = "lock table journal in access exclusive mode";
    holder.execute(lock, &[]).await;
    let due = "update notification_deliveries set next_attempt_at = now()";
    world.db.execute(due, &[]).await;
    eventually("it is left alone", async || {
        (world.db.number(POSTPONED).await == 1).then_some(())
    })
    .await;
    holder.execute("rollback", &[]).await;
    let again = "update notification_deliveries set claimed_until = now() where state = 'PENDING'";
    world.db.execute(again, &[]).await;
    eventually("it arrives", async || {
        (receiver.taken().pop()?.id == id).then_some(())
    })
    .await;
    until_all_ended(&world).await;
    let failures = "select failures::bigint from notification_deliveries";
    assert_eq!(world.db.number(failures).await, 1);
}
