//! The services over an in-memory log: what is decided here rather than in the flows.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use chrono::Utc;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Full};
use prost::Message;
use quittance_domain::ports::Authenticity;
use quittance_evidence::StreamId;
use quittance_proto::v1;
use quittance_proto::v1::audit_service_server::AuditService as _;
use quittance_proto::v1::payment_service_server::PaymentService as _;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use tower::{Service as _, ServiceExt as _};
use uuid::Uuid;

use self::world::{MAX_REQUEST, World, asked, authenticated, context, leaf, past_id};
use super::*;
use crate::auth::Role;
use crate::layers::CallContext;

#[path = "admin_tests.rs"]
mod admin_rpcs;
#[path = "test_world.rs"]
mod world;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

fn of<T>(tenant: &str, message: T) -> Request<T> {
    asked(tenant, Role::AuditRead, message)
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

fn moved(status: &Status) -> String {
    status.get_details_error_info().unwrap().metadata["money_may_have_moved"].clone()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap()
}

async fn watch(
    world: &World,
    request: v1::WatchPaymentsRequest,
) -> Result<payments::EventStream, Status> {
    let answer = world.payments().watch_payments(of("acme", request)).await;
    answer.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_stream_goes_on_from_its_token_without_loss_or_repetition() {
    let world = World::new();
    let payments: Vec<_> = (0..300)
        .map(|_| {
            world.log.accept("other");
            world.log.accept("acme")
        })
        .collect();
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let request = v1::WatchPaymentsRequest {
            resume_token: token.clone(),
            ..Default::default()
        };
        let part: Vec<_> = watch(&world, request)
            .await
            .unwrap()
            .take(37)
            .collect()
            .await;
        if part.is_empty() {
            break;
        }
        for message in part {
            let message = message.unwrap();
            token = message.resume_token;
            seen.push(message.event.unwrap());
        }
    }
    let ids: Vec<_> = seen.iter().map(|event| event.payment_id.clone()).collect();
    let expected: Vec<_> = payments.iter().map(Uuid::to_string).collect();
    assert_eq!(ids, expected);
    let event = &seen[0];
    assert_eq!(event.event_type, "payment.accepted");
    assert_eq!(event.state(), v1::PaymentState::Pending);
    assert_eq!(event.previous_state(), v1::PaymentState::Unspecified);
    assert_eq!(event.amount.as_ref().unwrap().minor_units, 1234);
    assert_eq!(event.trace_id, "03".repeat(16));
}

#[tokio::test]
async fn a_following_stream_gets_what_comes_and_leaves_out_what_concerns_no_payment() {
    let world = World::new();
    world.log.accept("acme");
    let request = v1::WatchPaymentsRequest {
        follow: true,
        from_now: true,
        ..Default::default()
    };
    let mut stream = watch(&world, request).await.unwrap();
    let next = tokio::spawn(async move { stream.next().await });
    world
        .audit()
        .list_entries(of("acme", v1::ListEntriesRequest::default()))
        .await
        .unwrap();
    world.log.accept("other");
    let payment = world.log.accept("acme");
    let message = soon(next).await.unwrap().unwrap().unwrap();
    assert_eq!(message.event.unwrap().payment_id, payment.to_string());
}

#[tokio::test]
async fn a_stream_ends_when_its_key_is_revoked() {
    for tails in [false, true] {
        let mut world = World::new();
        world.services.stream_recheck = Duration::from_millis(5);
        world.directory.add(&authenticated("acme", Role::AuditRead));
        let payment = world.log.accept("acme");
        let mut stream = if tails {
            let request = of("acme", v1::TailEntriesRequest::default());
            let stream = world.audit().tail_entries(request).await.unwrap();
            let ids = |answer: Result<v1::TailEntriesResponse, Status>| {
                answer.map(|answer| answer.entry.unwrap().payment_id)
            };
            stream.into_inner().map(ids).boxed()
        } else {
            let request = v1::WatchPaymentsRequest {
                follow: true,
                ..Default::default()
            };
            let ids = |answer: Result<v1::WatchPaymentsResponse, Status>| {
                answer.map(|answer| answer.event.unwrap().payment_id)
            };
            watch(&world, request).await.unwrap().map(ids).boxed()
        };
        let first = soon(stream.next()).await.unwrap().unwrap();
        assert_eq!(first, payment.to_string());
        // It goes on for as long as the key is valid, looked at many times meanwhile.
        let later = tokio::spawn(async move {
            loop {
                match stream.next().await.unwrap().unwrap() {
                    // The reading of the log, which is in the log.
                    id if id.is_empty() => {}
                    id => return (id, stream),
                }
            }
        });
        soon(world.directory.asked(5)).await;
        let payment = world.log.accept("acme");
        let (second, mut stream) = soon(later).await.unwrap();
        assert_eq!(second, payment.to_string());
        world.directory.0.lock().take();
        let ended = loop {
            match soon(stream.next()).await.unwrap() {
                Ok(_) => {}
                Err(status) => break status,
            }
        };
        assert_eq!(ended.code(), Code::Unauthenticated);
        assert_eq!(reason(&ended), "INVALID_CREDENTIALS");
        assert!(soon(stream.next()).await.is_none());
    }
}

#[tokio::test]
async fn a_stream_outlives_a_lost_database_by_its_token_only() {
    let mut world = World::new();
    world.services.stream_recheck = Duration::from_millis(5);
    world.directory.add(&authenticated("acme", Role::AuditRead));
    *world.directory.1.lock() = true;
    let request = v1::WatchPaymentsRequest {
        follow: true,
        ..Default::default()
    };
    let mut stream = watch(&world, request).await.unwrap();
    let ended = soon(stream.next()).await.unwrap().unwrap_err();
    assert_eq!(reason(&ended), "DATABASE_UNAVAILABLE");
    assert_eq!(ended.code(), Code::Unavailable);
}

#[tokio::test]
async fn i11_a_resume_token_is_good_for_its_tenant_and_stream_only() {
    let world = World::new();
    world.log.accept("acme");
    let mut stream = watch(&world, v1::WatchPaymentsRequest::default())
        .await
        .unwrap();
    let resume_token = stream.next().await.unwrap().unwrap().resume_token;
    let request = v1::WatchPaymentsRequest {
        resume_token: resume_token.clone(),
        ..Default::default()
    };
    let refused = world
        .payments()
        .watch_payments(of("other", request))
        .await
        .err()
        .unwrap();
    assert_eq!(reason(&refused), "INVALID_RESUME_TOKEN");
    let request = v1::TailEntriesRequest {
        resume_token,
        ..Default::default()
    };
    let refused = world
        .audit()
        .tail_entries(of("acme", request))
        .await
        .err()
        .unwrap();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::InvalidArgument, "INVALID_RESUME_TOKEN")
    );
}

/// The head of the sequencer is a row that nothing vouches for.
#[tokio::test]
async fn s75_a_head_that_was_raised_for_a_moment_silences_no_stream() {
    let world = World::new();
    let first = world.log.accept("acme");
    let follow = v1::WatchPaymentsRequest {
        follow: true,
        ..Default::default()
    };
    let mut stream = watch(&world, follow).await.unwrap();
    let event = stream.next().await.unwrap().unwrap().event.unwrap();
    assert_eq!(event.payment_id, first.to_string());
    *world.log.head_ahead.lock() = 1_000_000;
    let next = tokio::spawn(async move { stream.next().await.unwrap().unwrap().event.unwrap() });
    // It reads on while it is raised, and finds nothing.
    let before = *world.log.heads_read.lock();
    let woken_until = async |done: &dyn Fn() -> bool| {
        while !done() {
            world.log.grown.notify_waiters();
            tokio::task::yield_now().await;
        }
    };
    soon(woken_until(&|| *world.log.heads_read.lock() > before + 2)).await;
    *world.log.head_ahead.lock() = 0;
    let second = world.log.accept("acme");
    soon(woken_until(&|| next.is_finished())).await;
    assert_eq!(next.await.unwrap().payment_id, second.to_string());
}

/// Between two looks of a stream to which the commits of others bring nothing there is a pause, of which the number of looks in a
/// span of time is a consequence, however busy the machine is.
#[tokio::test]
async fn i12_a_quiet_stream_does_not_look_with_each_commit_of_a_busy_tenant() {
    const PAUSE: Duration = Duration::from_millis(25);
    let world = World::new();
    let follow = v1::WatchPaymentsRequest {
        follow: true,
        ..Default::default()
    };
    let mut stream = watch(&world, follow).await.unwrap();
    let next = tokio::spawn(async move { stream.next().await.is_some() });
    let (began, before) = (std::time::Instant::now(), *world.log.heads_read.lock());
    for _ in 0..1_000 {
        world.log.accept("other");
        tokio::task::yield_now().await;
    }
    let looks = *world.log.heads_read.lock() - before;
    let pauses = usize::try_from(began.elapsed().as_millis() / PAUSE.as_millis()).unwrap();
    assert!(looks <= 4 + 2 * (pauses + 1), "{looks} looks, {pauses}");
    next.abort();
}

/// Any holder of the application's role can give an entry a second position, however large.
#[tokio::test]
async fn s75_a_position_behind_the_head_is_not_told_and_silences_no_stream() {
    let world = World::new();
    world.log.accept("acme");
    {
        let mut entries = world.log.entries.lock();
        let (tenant, mut entry) = entries[0].clone();
        entry.position = Some(1_000_000_000_000);
        entries.push((tenant, entry));
    }
    let follow = v1::WatchPaymentsRequest {
        follow: true,
        ..Default::default()
    };
    let mut stream = watch(&world, follow).await.unwrap();
    let mut next = async || soon(stream.next()).await.unwrap().unwrap().event.unwrap();
    next().await;
    for _ in 0..2 {
        let payment = world.log.accept("acme");
        assert_eq!(next().await.payment_id, payment.to_string());
    }
}

/// Nobody is told of what this service did not write, and what comes after it is told; what cannot be judged here ends the stream.
#[tokio::test]
async fn s75_a_watcher_is_not_told_of_entries_that_are_not_ours() {
    let world = World::new();
    let forge = |authenticity, readable: bool| {
        let payment = past_id();
        let leaf = leaf("acme", StreamId::Payment(payment), "payment.captured");
        let bytes = leaf.encode().unwrap().into_bytes();
        let bytes = if readable { bytes } else { b"x".to_vec() };
        let ids = (leaf.entry_id, payment);
        world.log.push_judged("acme", ids, bytes, authenticity);
    };
    forge(Authenticity::Forged, true);
    forge(Authenticity::Forged, false);
    let genuine = world.log.accept("acme");
    forge(Authenticity::KeyUnknown, true);
    world.log.accept("acme");
    let mut stream = watch(&world, v1::WatchPaymentsRequest::default())
        .await
        .unwrap();
    let event = stream.next().await.unwrap().unwrap().event.unwrap();
    assert_eq!(event.payment_id, genuine.to_string());
    let ended = stream.next().await.unwrap().unwrap_err();
    assert_eq!(
        (ended.code(), reason(&ended).as_str()),
        (Code::Internal, "INTERNAL")
    );
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn i12_a_tenant_has_so_many_streams_and_a_closed_one_counts_no_more() {
    let world = World::new();
    let request = || v1::WatchPaymentsRequest {
        follow: true,
        ..Default::default()
    };
    let first = watch(&world, request()).await.unwrap();
    let _second = watch(&world, request()).await.unwrap();
    let refused = watch(&world, request()).await.err().unwrap();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "TOO_MANY_STREAMS")
    );
    assert!(
        world
            .payments()
            .watch_payments(of("other", request()))
            .await
            .is_ok()
    );
    drop(first);
    assert!(watch(&world, request()).await.is_ok());
}

#[tokio::test]
async fn an_open_stream_ends_with_the_server_or_with_its_deadline() {
    let world = World::new();
    let request = v1::WatchPaymentsRequest {
        follow: true,
        ..Default::default()
    };
    let mut short = of("acme", request.clone());
    short
        .extensions_mut()
        .get_mut::<CallContext>()
        .unwrap()
        .deadline = Some(Utc::now() + chrono::TimeDelta::milliseconds(50));
    let mut short = world
        .payments()
        .watch_payments(short)
        .await
        .unwrap()
        .into_inner();
    let ended = soon(short.next()).await.unwrap().unwrap_err();
    assert_eq!(
        (ended.code(), moved(&ended).as_str()),
        (Code::DeadlineExceeded, "false")
    );

    let mut stream = watch(&world, request).await.unwrap();
    let next = tokio::spawn(async move { (stream.next().await, stream.next().await) });
    world.services.stop.cancel();
    let (ended, after) = soon(next).await.unwrap();
    let ended = ended.unwrap().unwrap_err();
    assert_eq!(
        (ended.code(), reason(&ended).as_str()),
        (Code::Unavailable, "SHUTTING_DOWN")
    );
    assert!(after.is_none());
}

#[tokio::test]
async fn r18_reading_the_log_is_logged_and_what_cannot_be_logged_is_not_read() {
    let world = World::new();
    let audit = world.audit();
    world.log.accept("acme");
    let page = audit
        .list_entries(of("acme", v1::ListEntriesRequest::default()))
        .await
        .unwrap();
    let entry_id = page.into_inner().entries[0].entry_id.clone();
    let asked = || v1::GetEntryRequest {
        entry_id: entry_id.clone(),
    };
    let entry = audit
        .get_entry(of("acme", asked()))
        .await
        .unwrap()
        .into_inner()
        .entry
        .unwrap();
    assert_eq!(entry.event_type, "payment.accepted");
    assert!(!entry.leaf_data.is_empty());
    assert_eq!(
        entry.leaf_index, None,
        "positions are for the platform's auditors"
    );
    audit
        .summarize_failures(of("acme", v1::SummarizeFailuresRequest::default()))
        .await
        .unwrap();
    let mut tail = audit
        .tail_entries(of("acme", v1::TailEntriesRequest::default()))
        .await
        .unwrap()
        .into_inner();
    assert!(soon(tail.next()).await.unwrap().is_ok());
    assert_eq!(
        world.log.types("acme"),
        [
            "payment.accepted",
            "audit.entries_listed",
            "audit.entry_read",
            "audit.failures_summarized",
            "audit.entries_tailed",
        ]
    );
    *world.log.down.lock() = true;
    let refused = audit.get_entry(of("acme", asked())).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unavailable, "DATABASE_UNAVAILABLE")
    );
    assert_eq!(moved(&refused), "false");
}

#[tokio::test]
async fn pages_of_entries_hold_each_entry_once() {
    let world = World::new();
    let audit = world.audit();
    let payments: Vec<_> = (0..7)
        .map(|_| world.log.accept("acme").to_string())
        .collect();
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let request = v1::ListEntriesRequest {
            page_size: 3,
            page_token: token.clone(),
            event_type: "payment.accepted".to_owned(),
            ..Default::default()
        };
        let page = audit
            .list_entries(of("acme", request))
            .await
            .unwrap()
            .into_inner();
        let of_payments = page
            .entries
            .into_iter()
            .filter(|entry| !entry.payment_id.is_empty());
        seen.extend(of_payments.map(|entry| entry.payment_id));
        if seen.len() >= payments.len() {
            break;
        }
        token = page.next_page_token;
        assert!(!token.is_empty());
    }
    assert_eq!(seen, payments);
    let other_filter = v1::ListEntriesRequest {
        page_token: token,
        ..Default::default()
    };
    let refused = audit
        .list_entries(of("acme", other_filter))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "INVALID_PAGE_TOKEN");
}

#[tokio::test]
async fn i11_only_the_platforms_auditors_read_across_tenants() {
    let world = World::new();
    let audit = world.audit();
    let id = world.log.accept("acme");
    let list = |tenant_id: &str| v1::ListEntriesRequest {
        tenant_id: tenant_id.to_owned(),
        ..Default::default()
    };
    let refused = audit
        .list_entries(of("other", list("acme")))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::PermissionDenied, "ROLE_REQUIRED")
    );
    let own = audit
        .list_entries(of("other", list("other")))
        .await
        .unwrap()
        .into_inner();
    assert!(own.entries.iter().all(|entry| entry.tenant_id == "other"));
    for tenant in ["", "acme"] {
        let request = asked("ops", Role::PlatformAudit, list(tenant));
        let page = audit.list_entries(request).await.unwrap().into_inner();
        let entry = page
            .entries
            .iter()
            .find(|entry| entry.payment_id == id.to_string())
            .unwrap();
        assert_eq!(entry.leaf_index, Some(0));
    }
    let own = world.log.types("ops");
    assert_eq!(
        own, ["audit.entries_listed"; 2],
        "the reader's tenant has the record"
    );
}

#[tokio::test]
async fn an_entry_of_another_tenant_is_not_shown_whatever_the_index_says() {
    let world = World::new();
    let stray = leaf("other", StreamId::Payment(past_id()), "payment.accepted");
    let bytes = stray.encode().unwrap().into_bytes();
    world.log.push("acme", stray.entry_id, past_id(), bytes);
    let audit = world.audit();
    let listed = audit
        .list_entries(of("acme", v1::ListEntriesRequest::default()))
        .await;
    assert_eq!(listed.unwrap_err().code(), Code::Internal);
    let entry_id = stray.entry_id.to_string();
    let read = audit
        .get_entry(of("acme", v1::GetEntryRequest { entry_id }))
        .await;
    assert_eq!(read.unwrap_err().code(), Code::Internal);
    let tail = audit
        .tail_entries(of("acme", v1::TailEntriesRequest::default()))
        .await;
    let first = soon(tail.unwrap().into_inner().next()).await.unwrap();
    assert_eq!(first.unwrap_err().code(), Code::Internal);
}

#[tokio::test]
async fn what_is_not_signed_is_not_exported() {
    let world = World::new();
    let request = v1::ExportEvidenceRequest::default();
    let request = asked("acme", Role::AuditRead, request);
    let refused = world.audit().export_evidence(request).await;
    let refused = refused.err().unwrap();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unimplemented, "NOT_IMPLEMENTED")
    );
}

#[tokio::test]
async fn a_verification_is_recorded_and_ends_with_a_summary() {
    use v1::verify_log_response::Event;
    let world = World::new();
    world.log.accept("acme");
    let request = asked("acme", Role::PlatformAudit, v1::VerifyLogRequest::default());
    let told = world.audit().verify_log(request).await.unwrap();
    let told: Vec<_> = told.into_inner().collect().await;
    let mut told = told.into_iter().map(|message| message.unwrap().event);
    let Some(Some(Event::Progress(progress))) = told.next() else {
        panic!("no progress");
    };
    assert!(!progress.resume_token.is_empty());
    let Some(Some(Event::Summary(summary))) = told.next() else {
        panic!("no summary");
    };
    assert_eq!((summary.entries_checked, summary.mismatches), (2, 0));
    assert!(told.next().is_none());
    assert!(
        world
            .log
            .types("acme")
            .contains(&"audit.log_verification_started".to_owned())
    );

    let message = v1::VerifyLogRequest {
        resume_token: "x".into(),
    };
    let refused = world
        .audit()
        .verify_log(asked("acme", Role::PlatformAudit, message))
        .await;
    assert_eq!(reason(&refused.err().unwrap()), "INVALID_RESUME_TOKEN");

    *world.log.down.lock() = true;
    let refused = world
        .audit()
        .verify_log(asked(
            "acme",
            Role::PlatformAudit,
            v1::VerifyLogRequest::default(),
        ))
        .await;
    assert_eq!(reason(&refused.err().unwrap()), "DATABASE_UNAVAILABLE");
}

#[tokio::test]
async fn bad_requests_and_lost_databases_answer_in_our_form() {
    let world = World::new();
    let payments = world.payments();
    let empty = of("acme", v1::CreatePaymentRequest::default());
    let refused = payments.create_payment(empty).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::InvalidArgument, "INVALID_FIELD")
    );
    let fields = refused.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<_> = fields
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    assert_eq!(fields, ["idempotency_key", "amount", "payment_method"]);

    let lookup = v1::get_payment_request::Lookup::PaymentId(past_id().to_string());
    let get = || {
        of(
            "acme",
            v1::GetPaymentRequest {
                lookup: Some(lookup.clone()),
            },
        )
    };
    assert_eq!(
        reason(&payments.get_payment(get()).await.unwrap_err()),
        "PAYMENT_NOT_FOUND"
    );
    *world.log.down.lock() = true;
    let refused = payments.get_payment(get()).await.unwrap_err();
    assert_eq!(reason(&refused), "DATABASE_UNAVAILABLE");
    assert!(refused.get_details_retry_info().is_some());
    assert_eq!(moved(&refused), "false");
    let lookup = v1::get_payment_request::Lookup::IdempotencyKey("answer-lost".to_owned());
    let lookup = Some(lookup);
    let by_key = of("acme", v1::GetPaymentRequest { lookup });
    let refused = payments.get_payment(by_key).await.unwrap_err();
    assert_eq!(reason(&refused), "DATABASE_UNAVAILABLE");
    assert_eq!(moved(&refused), "true", "I13: by an earlier call");

    let bare = Request::new(v1::ListPaymentsRequest::default());
    assert_eq!(
        payments.list_payments(bare).await.unwrap_err().code(),
        Code::Internal
    );
}

/// A request as it comes over the wire.
async fn send(world: &World, path: &str, body: Bytes, encoding: Option<&str>) -> Status {
    let mut routes = routes(world.services.clone()).unwrap();
    let mut request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(encoding) = encoding {
        request = request.header("grpc-encoding", encoding);
    }
    let mut request = request
        .body(tonic::body::Body::new(Full::new(body)))
        .unwrap();
    request
        .extensions_mut()
        .insert(authenticated("acme", Role::PaymentsWrite));
    request.extensions_mut().insert(context());
    let response = routes.ready().await.unwrap().call(request).await.unwrap();
    let headers = response.headers().clone();
    let body = response.into_body().collect().await.unwrap();
    Status::from_header_map(&headers)
        .or_else(|| Status::from_header_map(body.trailers()?))
        .unwrap()
}

fn frame(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(flag);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    frame.freeze()
}

/// Holds the framework's statuses to what `normalize_framework_status` knows of them.
#[tokio::test]
#[allow(clippy::too_many_lines, reason = "a table")]
async fn what_the_framework_refuses_has_our_form() {
    const CREATE: &str = "/quittance.v1.PaymentService/CreatePayment";
    let world = World::new();
    let not_text = [0x0a, 2, 0xff, 0xfe];
    for (path, body, encoding, code, expected) in [
        (
            CREATE,
            frame(0, &[0xff; 9]),
            None,
            Code::InvalidArgument,
            "UNDECODABLE_REQUEST",
        ),
        (
            CREATE,
            frame(0, &not_text),
            None,
            Code::InvalidArgument,
            "UNDECODABLE_REQUEST",
        ),
        (
            CREATE,
            frame(7, &[]),
            None,
            Code::InvalidArgument,
            "UNDECODABLE_REQUEST",
        ),
        (
            CREATE,
            frame(1, &[]),
            None,
            Code::InvalidArgument,
            "UNDECODABLE_REQUEST",
        ),
        (
            CREATE,
            Bytes::new(),
            None,
            Code::InvalidArgument,
            "UNDECODABLE_REQUEST",
        ),
        (
            CREATE,
            frame(0, &[1; 50]).slice(..20),
            None,
            Code::InvalidArgument,
            "UNDECODABLE_REQUEST",
        ),
        (
            CREATE,
            frame(0, &[1; MAX_REQUEST + 1]),
            None,
            Code::ResourceExhausted,
            "MESSAGE_TOO_LARGE",
        ),
        (
            CREATE,
            frame(1, &[]),
            Some("gzip"),
            Code::Unimplemented,
            "UNSUPPORTED_COMPRESSION",
        ),
        (
            "/quittance.v1.PaymentService/Nothing",
            frame(0, &[]),
            None,
            Code::Unimplemented,
            "UNKNOWN_METHOD",
        ),
        (
            "/nothing.At/All",
            frame(0, &[]),
            None,
            Code::Unimplemented,
            "UNKNOWN_METHOD",
        ),
        (
            CREATE,
            frame(0, &[]),
            None,
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
    ] {
        let status = send(&world, path, body, encoding).await;
        assert_eq!(status.code(), code, "{expected}: {status:?}");
        assert_eq!(reason(&status), expected);
        assert_eq!(moved(&status), "false", "{expected}");
    }
}

#[tokio::test]
async fn health_knows_each_service_until_the_server_stops() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
    let world = World::new();
    let mut routes = routes(world.services.clone()).unwrap();
    let mut check = async |service: &str| {
        let message = HealthCheckRequest {
            service: service.to_owned(),
        };
        let body = Full::new(frame(0, &message.encode_to_vec()));
        let request = http::Request::post("/grpc.health.v1.Health/Check")
            .header("content-type", "application/grpc")
            .body(tonic::body::Body::new(body))
            .unwrap();
        let response = routes.ready().await.unwrap().call(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        HealthCheckResponse::decode(body.slice(5..))
            .unwrap()
            .status()
    };
    for service in [
        "",
        "quittance.v1.PaymentService",
        "quittance.v1.AuditService",
        "quittance.v1.AdminService",
    ] {
        assert_eq!(check(service).await, ServingStatus::Serving, "{service}");
    }
    world.services.stop.cancel();
    let until = tokio::time::Instant::now() + PATIENCE;
    while check("").await == ServingStatus::Serving {
        assert!(tokio::time::Instant::now() < until);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_repeated_answer_is_marked() {
    let marked = call::answer((), true);
    assert_eq!(marked.metadata().get(REPLAYED_HEADER).unwrap(), "true");
    assert!(
        call::answer((), false)
            .metadata()
            .get(REPLAYED_HEADER)
            .is_none()
    );
}
