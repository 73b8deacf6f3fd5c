//! The edge around an RPC that does what a test tells it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use quittance_domain::ports::StoreError;
use quittance_telemetry::{PrometheusText, Telemetry, TelemetryConfig};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Service, ServiceExt as _};

use super::*;
use crate::adapters::{OsRandomness, SystemClock};
use crate::auth::{ApiKey, Authenticated, Authenticator, KeyDirectory, KeyId, Role, StoredKey};
use crate::config::{AuthConfig, ReflectionAccess};
use quittance_store::KeyRing;

const GET: &str = "/quittance.v1.PaymentService/GetPayment";
const REFUND: &str = "/quittance.v1.PaymentService/RefundPayment";
const WATCH: &str = "/quittance.v1.PaymentService/WatchPayments";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const REFLECT: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

struct OneKey(KeyId, StoredKey);

#[async_trait]
impl KeyDirectory for OneKey {
    async fn find(&self, id: &KeyId) -> Result<Option<StoredKey>, StoreError> {
        Ok((*id == self.0).then(|| self.1.clone()))
    }
}

/// What the RPC behind the edge does.
#[derive(Clone)]
enum Rpc {
    Answers,
    Refuses,
    Waits(Arc<Semaphore>),
    Panics,
}

impl Service<Request<Body>> for Rpc {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let rpc = self.clone();
        Box::pin(async move {
            match rpc {
                Self::Answers => {}
                Self::Refuses => return Ok(Status::permission_denied("").into_http()),
                Self::Waits(go) => drop(go.acquire().await),
                Self::Panics => panic!("a defect"),
            }
            let mut response = Status::ok("").into_http();
            *response.extensions_mut() = request.extensions().clone();
            let secret = request.headers().contains_key(AUTHORIZATION);
            response
                .headers_mut()
                .insert("saw-secret", secret.to_string().parse().unwrap());
            Ok(response)
        })
    }
}

struct Fixture {
    edge: Edge<Rpc>,
    key: ApiKey,
    refusals: Refusals,
    metrics: PrometheusText,
    kill: CancellationToken,
    _telemetry: Telemetry,
}

/// A server's own limit that no test of something else comes to.
const LONG: Duration = Duration::from_secs(60);

fn fixture(rpc: Rpc, max_in_flight: usize) -> Fixture {
    fixture_with(rpc, max_in_flight, LONG)
}

fn fixture_with(rpc: Rpc, max_in_flight: usize, request_timeout: Duration) -> Fixture {
    let (telemetry, _) = Telemetry::new(&TelemetryConfig::default()).unwrap();
    let keys = KeyRing::new([("k1".to_owned(), [7; 32])]).unwrap();
    let key = ApiKey::generate().unwrap();
    let stored = StoredKey {
        tenant: quittance_domain::ids::TenantId::parse("shop").unwrap(),
        name: "till".to_owned(),
        roles: [Role::PaymentsRead].into_iter().collect(),
        hash: key.hash(&keys),
    };
    let directory = Arc::new(OneKey(key.id().clone(), stored));
    let config = AuthConfig {
        cache_ttl: Duration::from_secs(5),
        cache_entries: 10,
        stream_recheck: Duration::from_secs(10),
    };
    let refusals = Refusals::default();
    let kill = CancellationToken::new();
    let settings = EdgeSettings {
        methods: Methods::new(ReflectionAccess::Authenticated),
        authenticator: Arc::new(Authenticator::new(directory, keys, &config)),
        refusals: refusals.clone(),
        metrics: telemetry.metrics(),
        clock: Arc::new(SystemClock),
        random: Arc::new(OsRandomness::default()),
        max_in_flight,
        tenant_rates: TenantRates::new(NonZeroU32::new(1), NonZeroU32::new(20).unwrap()),
        request_timeout,
        kill: kill.clone(),
        status: |refusal, _| match refusal {
            Refusal::MissingCredentials | Refusal::InvalidCredentials => {
                Status::unauthenticated("")
            }
            Refusal::RoleRequired(role) => Status::permission_denied(role.name()),
            Refusal::UnknownMethod => Status::unimplemented(""),
            Refusal::Overloaded => Status::resource_exhausted(""),
            Refusal::RateLimited { .. } => Status::resource_exhausted("rate"),
            Refusal::Interrupted => Status::unavailable("interrupted"),
            Refusal::DatabaseUnavailable => Status::unavailable(""),
            Refusal::DeadlineExceeded => Status::deadline_exceeded(""),
            Refusal::Defect => Status::internal(""),
        },
    };
    let metrics = telemetry.prometheus();
    Fixture {
        edge: Edge::new(rpc, settings),
        key,
        refusals,
        metrics,
        kill,
        _telemetry: telemetry,
    }
}

impl Fixture {
    async fn call(&self, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request
            .extensions_mut()
            .insert(SocketAddr::from(([127, 0, 0, 1], 5)));
        let key = self.key.reveal();
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            let value = format!("Bearer {}", key.as_str());
            request
                .headers_mut()
                .insert(AUTHORIZATION, value.parse().unwrap());
        }
        self.edge.clone().oneshot(request).await.unwrap()
    }

    async fn code(&self, path: &str, headers: &[(&str, &str)]) -> Code {
        code(&self.call(path, headers).await)
    }
}

fn code(response: &Response<Body>) -> Code {
    Status::from_header_map(response.headers()).unwrap().code()
}

#[tokio::test]
async fn a_known_caller_reaches_the_rpc_without_its_secret() {
    let f = fixture(Rpc::Answers, 10);
    let headers = [
        ("x-request-id", "order-7"),
        ("traceparent", PARENT),
        ("grpc-timeout", "5S"),
    ];
    let before = chrono::Utc::now();
    let response = f.call(GET, &headers).await;
    assert_eq!(code(&response), Code::Ok);
    assert_eq!(response.headers()["saw-secret"], "false");
    assert_eq!(response.headers()["x-request-id"], "order-7");
    let who = response.extensions().get::<Authenticated>().unwrap();
    let call = response.extensions().get::<CallContext>().unwrap();
    let caller = call.caller(who);
    assert_eq!(caller.tenant.as_str(), "shop");
    assert_eq!(caller.actor.id, f.key.id().as_str());
    assert_eq!(caller.origin.peer, "127.0.0.1");
    assert_eq!(caller.origin.rpc_method, &GET[1..]);
    assert_eq!(hex::encode(caller.remote.unwrap().trace_id), &PARENT[3..35]);
    let left = caller.deadline.unwrap() - before;
    assert!(left > chrono::TimeDelta::seconds(4), "{left}");
}

#[tokio::test]
async fn who_is_unknown_or_lacks_the_role_is_refused_before_the_rpc() {
    let f = fixture(Rpc::Panics, 10);
    assert_eq!(
        f.code(GET, &[("authorization", "")]).await,
        Code::Unauthenticated
    );
    assert_eq!(
        f.code(GET, &[("authorization", "Bearer qk_x_y")]).await,
        Code::Unauthenticated
    );
    let refused = f.call(REFUND, &[]).await;
    let status = Status::from_header_map(refused.headers()).unwrap();
    assert_eq!(
        (status.code(), status.message()),
        (Code::PermissionDenied, "payments.refund")
    );
    assert!(refused.headers().contains_key(TRACE_ID_HEADER));
}

#[tokio::test]
async fn only_health_is_open_and_what_has_no_row_does_not_exist() {
    let f = fixture(Rpc::Answers, 10);
    let nobody = [("authorization", "Basic x")];
    assert_eq!(f.code(HEALTH, &nobody).await, Code::Ok);
    assert_eq!(f.code(REFLECT, &nobody).await, Code::Unauthenticated);
    assert_eq!(f.code(REFLECT, &[]).await, Code::Ok);
    for path in [
        "/quittance.v1.AdminService/StealPayment",
        "/",
        "/quittance.v1.PaymentService/",
    ] {
        assert_eq!(f.code(path, &[]).await, Code::Unimplemented, "{path}");
    }
    assert!(Methods::new(ReflectionAccess::Off).find(REFLECT).is_none());
}

#[tokio::test]
async fn unary_calls_above_the_limit_are_refused_and_streams_are_not_counted() {
    let go = Arc::new(Semaphore::new(0));
    let f = fixture(Rpc::Waits(Arc::clone(&go)), 1);
    let first = f.call(GET, &[]);
    let second = async {
        let refused = f.code(GET, &[]).await;
        go.add_permits(10);
        refused
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(second, Code::ResourceExhausted);
    assert_eq!(code(&first), Code::Ok);
    assert_eq!(f.code(GET, &[]).await, Code::Ok, "the place is free again");

    let f = fixture(Rpc::Answers, 1);
    let _held = Arc::clone(&f.edge.shared_in_flight())
        .try_acquire_owned()
        .unwrap();
    assert_eq!(f.code(WATCH, &[]).await, Code::Ok);
}

#[tokio::test]
async fn s69_a_tenant_that_calls_too_often_is_refused_before_the_rpc_and_health_is_not() {
    let f = fixture(Rpc::Answers, 10);
    let begun = std::time::Instant::now();
    let burst: Vec<_> = futures::future::join_all((0..1_000).map(|_| f.code(GET, &[]))).await;
    let let_in = burst.iter().filter(|code| **code == Code::Ok).count();
    // Each second that the test's machine takes gives one more.
    let most = 21 + usize::try_from(begun.elapsed().as_secs()).unwrap();
    assert!((20..=most).contains(&let_in), "{let_in} of {most}");
    assert!(burst.contains(&Code::ResourceExhausted));
    assert_eq!(f.code(HEALTH, &[("authorization", "")]).await, Code::Ok);
    assert_eq!(f.code(REFLECT, &[]).await, Code::Ok);
}

#[tokio::test]
async fn s73_a_call_that_does_not_end_in_time_is_answered_when_the_server_stops() {
    let f = fixture(Rpc::Waits(Arc::new(Semaphore::new(0))), 10);
    let stopping = async {
        tokio::task::yield_now().await;
        f.kill.cancel();
    };
    let (response, ()) = tokio::join!(f.call(GET, &[]), stopping);
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "interrupted")
    );
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_or_at_the_servers_own() {
    let waits = Rpc::Waits(Arc::new(Semaphore::new(0)));
    let f = fixture_with(waits, 10, Duration::from_millis(200));
    for timeout in ["1m", "60S"] {
        assert_eq!(
            f.code(GET, &[("grpc-timeout", timeout)]).await,
            Code::DeadlineExceeded
        );
    }
    assert_eq!(f.code(GET, &[]).await, Code::DeadlineExceeded);
}

#[tokio::test]
async fn i13_a_command_knows_when_the_server_cuts_it_off() {
    let f = fixture_with(Rpc::Answers, 10, Duration::from_millis(200));
    let left = async |path: &str, timeout: &str| {
        let before = chrono::Utc::now();
        let response = f.call(path, &[("grpc-timeout", timeout)]).await;
        let context = response.extensions().get::<CallContext>().unwrap();
        context.deadline.unwrap() - before
    };
    let own = chrono::TimeDelta::milliseconds(200);
    let slack = chrono::TimeDelta::seconds(10);
    assert!(left(GET, "60S").await < own + slack);
    assert!(left(GET, "50m").await < own + slack);
    assert!(left(WATCH, "60S").await > chrono::TimeDelta::seconds(59));
    // Who sets no deadline is made to wait as the flows' own setting says.
    let response = f.call(GET, &[]).await;
    let context = response.extensions().get::<CallContext>().unwrap();
    assert_eq!(context.deadline, None);
}

#[tokio::test]
async fn refused_calls_are_counted_by_caller_and_cause() {
    let f = fixture(Rpc::Refuses, 10);
    for _ in 0..3 {
        f.code(GET, &[("authorization", "Bearer qk_x_y")]).await;
    }
    f.code(REFUND, &[]).await;
    f.code(GET, &[]).await;
    f.code("/no.Such/Method", &[]).await;
    let mut counted: Vec<_> = f
        .refusals
        .take()
        .into_iter()
        .map(|(who, calls)| {
            assert_eq!(who.peer.unwrap().to_string(), "127.0.0.1");
            let key = who.caller.map(|caller| caller.key_id.to_string());
            (who.cause, key, calls.count, calls.rpc)
        })
        .collect();
    counted.sort();
    let key = Some(f.key.id().as_str().to_owned());
    // The edge refuses the refund, the RPC the other call.
    let expected = [
        ("INVALID_CREDENTIALS", None, 3, &GET[1..]),
        ("ROLE_REQUIRED", key, 2, &GET[1..]),
    ];
    assert_eq!(counted, expected);
}

#[test]
fn what_is_counted_is_named_as_callers_know_it() {
    use tonic_types::StatusExt as _;
    for refusal in [
        Refusal::MissingCredentials,
        Refusal::InvalidCredentials,
        Refusal::RoleRequired(Role::Admin),
    ] {
        let info = crate::grpc::refusal(&refusal, true).get_details_error_info();
        assert_eq!(Some(info.unwrap().reason.as_str()), refusal.audited());
    }
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    let f = fixture(Rpc::Panics, 1);
    assert_eq!(f.code(GET, &[]).await, Code::Internal);
    assert_eq!(
        f.code(GET, &[]).await,
        Code::Internal,
        "its place was freed"
    );
}

#[tokio::test]
async fn every_call_is_counted_once_under_a_known_name() {
    let f = fixture(Rpc::Answers, 10);
    f.call(GET, &[]).await.into_body().collect().await.unwrap();
    f.call("/made.Up/Name", &[])
        .await
        .into_body()
        .collect()
        .await
        .unwrap();
    let text = f.metrics.render();
    let count = |labels: &[&str]| {
        let wanted = |line: &&str| {
            line.starts_with("rpc_server_call_duration_seconds_count")
                && labels.iter().all(|label| line.contains(label))
        };
        text.lines()
            .find(wanted)
            .and_then(|line| line.rsplit(' ').next())
            .map(str::to_owned)
    };
    let get = [
        "rpc_method=\"quittance.v1.PaymentService/GetPayment\"",
        "rpc_status_code=\"OK\"",
    ];
    assert_eq!(count(&get).as_deref(), Some("1"), "{text}");
    let other = ["rpc_method=\"_OTHER\"", "rpc_status_code=\"UNIMPLEMENTED\""];
    assert_eq!(count(&other).as_deref(), Some("1"), "{text}");
    assert!(!text.contains("made.Up"));
}
