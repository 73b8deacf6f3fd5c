//! Endpoints, as tenants make, change, test and delete them, over the contract and the command line.

use std::collections::BTreeSet;

use quittance_proto::v1::{
    CreateNotificationEndpointRequest, DeleteNotificationEndpointRequest,
    ListNotificationEndpointsRequest, NotificationEventTypes, NotificationState,
    RotateNotificationEndpointSecretRequest, TestNotificationEndpointRequest,
    UpdateNotificationEndpointRequest,
};
use quittance_server::auth::Role;
use tonic::Code;

use crate::harness::command_line::CommandLine;
use crate::harness::receiver::{Answer, Got, Receiver};
use crate::harness::site::TENANT;
use crate::harness::{World, eventually, purchase};

use super::{
    administrator, endpoint, id_of, lifecycle, notifications, on_record, options, schedule,
    until_all_ended,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_an_endpoint_gets_the_events_of_its_tenant_alone() {
    let world = World::start_with(options()).await;
    let (ours, theirs) = (Receiver::start().await, Receiver::start().await);
    let ours_admin = administrator(&world, TENANT).await;
    let theirs_admin = administrator(&world, "globex").await;
    let made = endpoint(&ours_admin, &ours, &[]).await;
    endpoint(&theirs_admin, &theirs, &[]).await;
    let (our_payment, our_events) = lifecycle(&ours_admin).await;
    let (their_payment, their_events) = lifecycle(&theirs_admin).await;
    until_all_ended(&world).await;
    for (receiver, tenant, payment, events) in [
        (&ours, TENANT, our_payment, our_events),
        (&theirs, "globex", their_payment, their_events),
    ] {
        let taken = receiver.taken();
        assert_eq!(taken.len() as u64, events);
        for one in taken {
            assert_eq!(one.payment(), payment);
            assert_eq!(one.json()["data"]["tenant_id"], tenant);
        }
    }
    // Nor is it seen or touched by another tenant's administrator.
    let id = id_of(&made);
    let list = ListNotificationEndpointsRequest::default();
    let listed = theirs_admin.ok(list.clone()).await.message.endpoints;
    assert!(listed.iter().all(|one| one.endpoint_id != id));
    let named = ListNotificationEndpointsRequest {
        tenant_id: TENANT.to_owned(),
        ..list.clone()
    };
    let refused = theirs_admin.refused(named.clone()).await;
    refused.is(Code::PermissionDenied, "ROLE_REQUIRED");
    let delete = DeleteNotificationEndpointRequest {
        endpoint_id: id.clone(),
        tenant_id: String::new(),
    };
    let refused = theirs_admin.refused(delete.clone()).await;
    refused.is(Code::NotFound, "ENDPOINT_NOT_FOUND");
    let test = TestNotificationEndpointRequest {
        endpoint_id: id.clone(),
        tenant_id: String::new(),
    };
    theirs_admin
        .refused(test)
        .await
        .is(Code::NotFound, "ENDPOINT_NOT_FOUND");
    // The platform's administrators act for all.
    let platform = world.as_role("ops", &[Role::PlatformAdmin]).await;
    assert_eq!(platform.ok(list).await.message.endpoints.len(), 2);
    assert_eq!(platform.ok(named).await.message.endpoints.len(), 1);
    let delete = DeleteNotificationEndpointRequest {
        tenant_id: TENANT.to_owned(),
        ..delete
    };
    platform.ok(delete).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_secret_is_changed_both_are_live_and_then_one() {
    let world = World::start_with(options()).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    let made = endpoint(&admin, &receiver, &["payment.captured"]).await;
    let rotate = |keep| RotateNotificationEndpointSecretRequest {
        endpoint_id: id_of(&made),
        keep_previous_seconds: keep,
        tenant_id: String::new(),
    };
    let signed_by = async |secrets: &[&str]| {
        let before = receiver.taken().len();
        world.client.create(purchase("tok_approve", 700)).await;
        eventually("it arrives", async || {
            (receiver.taken().len() > before).then_some(())
        })
        .await;
        let one = receiver.taken().pop().unwrap();
        secrets
            .iter()
            .map(|secret| one.is_signed_by(secret))
            .collect::<Vec<_>>()
    };
    let second = admin.ok(rotate(None)).await.message;
    let until = second.endpoint.unwrap().previous_secret_expire_time;
    assert!(until.is_some());
    let both = [made.secret.as_str(), second.secret.as_str()];
    assert_eq!(signed_by(&both).await, [true, true]);
    // Whoever asks again, because the answer was lost, cuts nobody off.
    let third = admin.ok(rotate(Some(3_600))).await.message.secret;
    let all = [both[0], both[1], third.as_str()];
    assert_eq!(signed_by(&all).await, [true, true, true]);
    // At most three: a fourth drops the first.
    let fourth = admin.ok(rotate(Some(3_600))).await.message.secret;
    let all = [both[0], both[1], third.as_str(), fourth.as_str()];
    assert_eq!(signed_by(&all).await, [false, true, true, true]);
    // It became known: only the new one counts from now on.
    let fifth = admin.ok(rotate(Some(0))).await.message.secret;
    let all = [third.as_str(), fourth.as_str(), fifth.as_str()];
    assert_eq!(signed_by(&all).await, [false, false, true]);
    let refused = admin.refused(rotate(Some(2_592_001))).await;
    refused.is(Code::InvalidArgument, "INVALID_FIELD");
    refused.names(&["keep_previous_seconds"]);
    let entries = on_record(&world.client, "endpoint.secret_rotated").await;
    assert_eq!(entries.len(), 4);
    let text = format!("{entries:?}");
    assert!(!text.contains("whsec_"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_are_made_changed_and_deleted_on_record_and_bad_fields_are_named() {
    let options = options().with("notifications.max_endpoints_per_tenant", 2);
    let world = World::start_with(options).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    let bad = CreateNotificationEndpointRequest {
        url: "http://169.254.169.254/latest/meta-data".to_owned(),
        description: "x".repeat(501),
        event_types: vec![
            "payment.captured".to_owned(),
            "*".to_owned(),
            "Refund".to_owned(),
        ],
        tenant_id: "a b".to_owned(),
    };
    let refused = admin.refused(bad).await;
    refused.is(Code::InvalidArgument, "INVALID_FIELD");
    refused.names(&[
        "url",
        "description",
        "event_types[1]",
        "event_types[2]",
        "tenant_id",
    ]);
    for url in [
        "https://10.0.0.1/",
        "https://127.0.0.2:8443/",
        "https://[::1]:8443/",
        "https://[fd00::1]/",
        "https://user:pass@receiver.example/",
        "http://receiver.example/",
    ] {
        let request = CreateNotificationEndpointRequest {
            url: url.to_owned(),
            ..CreateNotificationEndpointRequest::default()
        };
        let refused = admin.refused(request).await;
        refused.is(Code::InvalidArgument, "INVALID_FIELD");
        refused.names(&["url"]);
        assert!(!refused.message.contains("pass"), "{refused:?}");
    }
    let made = endpoint(&admin, &receiver, &[]).await;
    let id = id_of(&made);
    let update = UpdateNotificationEndpointRequest {
        endpoint_id: id.clone(),
        description: Some("ledger".to_owned()),
        event_types: Some(NotificationEventTypes {
            event_types: vec!["refund.*".to_owned()],
        }),
        ..UpdateNotificationEndpointRequest::default()
    };
    let changed = admin.ok(update).await.message.endpoint.unwrap();
    assert_eq!(changed.description, "ledger");
    assert_eq!(changed.event_types, ["refund.*"]);
    assert_eq!(changed.url, receiver.url());
    lifecycle(&world.client).await;
    until_all_ended(&world).await;
    let kinds: BTreeSet<_> = receiver.taken().iter().map(Got::event_type).collect();
    assert!(
        kinds.iter().all(|kind| kind.starts_with("refund.")),
        "{kinds:?}"
    );
    assert!(!kinds.is_empty());

    let tested = admin
        .ok(TestNotificationEndpointRequest {
            endpoint_id: id.clone(),
            tenant_id: String::new(),
        })
        .await
        .message;
    assert!(tested.delivered);
    let got = receiver.got().pop().unwrap();
    assert_eq!(
        (got.id.as_str(), got.event_type().as_str()),
        (tested.notification_id.as_str(), "endpoint.test")
    );
    assert!(got.is_signed_by(&made.secret));

    endpoint(&admin, &receiver, &[]).await;
    let third = CreateNotificationEndpointRequest {
        url: receiver.url(),
        ..CreateNotificationEndpointRequest::default()
    };
    let refused = admin.refused(third).await;
    refused.is(Code::FailedPrecondition, "TOO_MANY_ENDPOINTS");
    let delete = DeleteNotificationEndpointRequest {
        endpoint_id: id.clone(),
        tenant_id: String::new(),
    };
    admin.ok(delete.clone()).await;
    let refused = admin.refused(delete).await;
    refused.is(Code::NotFound, "ENDPOINT_NOT_FOUND");
    for (event, count) in [
        ("created", 2),
        ("updated", 1),
        ("tested", 1),
        ("deleted", 1),
    ] {
        let entries = on_record(&world.client, &format!("endpoint.{event}")).await;
        assert_eq!(entries.len(), count, "{event}");
        assert_eq!(entries[0].details["endpoint_id"], id);
        let actor = entries[0].actor.as_ref().unwrap();
        assert_eq!((actor.r#type.as_str(), actor.id.len()), ("service", 16));
        let text = format!("{entries:?}");
        assert!(
            !text.contains("/hooks") && !text.contains("whsec_"),
            "{text}"
        );
    }
}

/// Notifications that a day delivers are more than one statement removes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_an_endpoint_is_tested_once_at_a_time() {
    let world = World::start_with(options()).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    let id = id_of(&endpoint(&admin, &receiver, &[]).await);
    let test = TestNotificationEndpointRequest {
        endpoint_id: id,
        tenant_id: String::new(),
    };
    receiver.answers(Answer::Never);
    let (first, request) = (administrator(&world, TENANT).await, test.clone());
    let first = tokio::spawn(async move { first.ok(request).await });
    eventually("it is under way", async || {
        (receiver.at_once() == 1).then_some(())
    })
    .await;
    let refused = admin.refused(test.clone()).await;
    refused.is(Code::ResourceExhausted, "OVERLOADED");
    assert_eq!(on_record(&world.client, "endpoint.tested").await.len(), 1);
    // Whoever gives up leaves room.
    first.abort();
    eventually("it has ended", async || {
        (receiver.at_once() == 0).then_some(())
    })
    .await;
    receiver.answers(Answer::status(200));
    assert!(admin.ok(test).await.message.delivered);
}
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_manages_endpoints_and_replays_dead_letters() {
    let options = options().with("notifications.retry_schedule_ms", schedule(20, 1));
    let world = World::start_with(options).await;
    let endpoints = CommandLine::new(&world, "endpoints", &[Role::Admin]).await;
    let notified = CommandLine::new(&world, "notifications", &[Role::Admin]).await;
    let receiver = Receiver::start().await;
    let listed = endpoints.prints(&["list"]).await;
    assert_eq!(listed.trim(), "No endpoints.");
    let url = receiver.url();
    let created = ["create", &url, "--event", "payment.captured"];
    let printed = endpoints.prints(&created).await;
    let secret = printed.lines().last().unwrap().to_owned();
    assert!(secret.starts_with("whsec_"), "{printed}");
    let admin = administrator(&world, TENANT).await;
    let list = ListNotificationEndpointsRequest::default();
    let id = admin.ok(list).await.message.endpoints[0]
        .endpoint_id
        .clone();
    let listed = endpoints.prints(&["list"]).await;
    assert!(
        listed.contains(&id) && listed.contains("ENABLED"),
        "{listed}"
    );
    assert!(!listed.contains("whsec_"), "{listed}");
    let tested = endpoints.prints(&["test", &id]).await;
    assert!(tested.contains("HTTP 200"), "{tested}");

    receiver.answers(Answer::status(500));
    let tested = endpoints.fails(1, &["test", &id]).await;
    assert!(tested.contains("HTTP_STATUS, HTTP 500"), "{tested}");
    world.client.create(purchase("tok_approve", 700)).await;
    let dead = eventually("it is given up", async || {
        notifications(&admin, NotificationState::Dead).await.pop()
    })
    .await;
    let dead = dead.notification_id.as_str();
    let listed = notified.prints(&["list", "--state", "dead"]).await;
    assert!(
        listed.contains(dead) && listed.contains("payment.captured"),
        "{listed}"
    );
    let shown = notified.prints(&["show", dead]).await;
    assert_eq!(shown.matches("HTTP_STATUS").count(), 3, "{shown}");
    receiver.answers(Answer::status(200));
    let replayed = notified.prints(&["replay", "--endpoint", &id]).await;
    assert_eq!(replayed.trim(), "Sent again: 1.");
    eventually("it arrives", async || {
        let taken = receiver.taken();
        taken.iter().any(|one| one.id == dead).then_some(())
    })
    .await;
    until_all_ended(&world).await;
    let said = notified.fails(3, &["replay", dead]).await;
    assert!(
        said.contains("NOTIFICATION_NOT_DEAD") && said.contains("What to do"),
        "{said}"
    );
    let off = endpoints.prints(&["update", &id, "--disable"]).await;
    assert!(off.contains("DISABLED"), "{off}");
    let rotated = endpoints.prints(&["rotate-secret", &id]).await;
    let next = rotated.lines().last().unwrap();
    assert!(next.starts_with("whsec_") && next != secret, "{rotated}");
    let deleted = endpoints.prints(&["delete", &id]).await;
    assert_eq!(deleted.trim(), "Deleted.");
    let said = endpoints.fails(3, &["delete", &id]).await;
    assert!(said.contains("ENDPOINT_NOT_FOUND"), "{said}");
    notified.fails(2, &["replay"]).await;
    notified
        .fails(2, &["replay", dead, "--endpoint", &id])
        .await;
}
