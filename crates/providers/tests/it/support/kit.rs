//! The conformance kit: the cases that every adapter must classify alike, over real sockets.
//!
//! An adapter joins by implementing [`Subject`] and calling [`conforms`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use quittance_domain::decline::Cause;
use quittance_domain::ids::ProviderAccount;
use quittance_domain::ports::{LookupQuery, Operation, Provider, Unpreparable, VoidBefore};
use quittance_domain::transaction::{
    FactKind, LookupOutcome, MAX_STORED_RESPONSE, OperationKind, PreparedRequest, SendOutcome,
    SendReport, Transaction,
};
use quittance_providers::guard::{CircuitConfig, GuardSettings, Guarded, monotonic};

use super::builders::{self, eur};
use super::server::{Act, Received, Scripted, response};
use super::signatures::{Signs, signatures};

/// How a provider answers, for [`Subject::answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Approved,
    /// Approved, for one minor unit more than was asked.
    WrongAmount,
    /// Approved, in another currency than was asked.
    WrongCurrency,
    Declined,
    Pending,
    /// The customer has to act.
    RequiresAction,
}

/// One adapter under test.
pub trait Subject: Signs {
    /// An account at this base URL with these timeouts.
    fn account(&self, base_url: &str, connect: Duration, total: Duration) -> Arc<dyn Provider>;
    /// A token that the adapter takes.
    fn token(&self) -> &'static str;
    /// The provider's reference of a payment.
    fn payment_reference(&self) -> &'static str;
    /// The whole HTTP response to an operation.
    fn answer(&self, reply: Reply, operation: OperationKind, transaction: &Transaction) -> Vec<u8>;
    /// The answers that the provider has for an operation, the usual one first: one that tells the outcome later has
    /// [`Reply::Pending`] alone.
    fn replies(&self, operation: OperationKind) -> Vec<Reply> {
        Reply::to(operation)
    }
    /// The whole HTTP response to this void of a payment that the provider has given no name; for adapters that can void
    /// by our name of it.
    fn voided_by_our_name(&self, _void: &Operation<'_>) -> Option<Vec<u8>> {
        None
    }
    /// Whether an operation only asks, so that it needs no idempotency key.
    fn only_asks(&self, _operation: OperationKind) -> bool {
        false
    }
    /// The whole HTTP response to a lookup of an approved purchase; `None` where the provider cannot be asked by our
    /// id: the adapter then sends nothing, and says that it did not find it, which proves nothing.
    fn found(&self, transaction: &Transaction) -> Option<Vec<u8>> {
        Some(self.answer(Reply::Approved, OperationKind::Purchase, transaction))
    }
    /// The whole HTTP response "not found" to a lookup, where it proves something.
    fn not_found(&self) -> Option<Vec<u8>>;
    /// The secret that goes with every request, and the header it is in.
    fn credential(&self) -> (&'static str, &'static str);
    /// The header that carries the idempotency key.
    fn idempotency_header(&self) -> &'static str;
}

impl Reply {
    /// All that an operation can be answered.
    pub fn to(operation: OperationKind) -> Vec<Self> {
        let mut replies = vec![
            Self::Approved,
            Self::WrongAmount,
            Self::WrongCurrency,
            Self::Declined,
            Self::Pending,
        ];
        match operation {
            OperationKind::Purchase | OperationKind::Authorize | OperationKind::Confirm => {
                replies.push(Self::RequiresAction);
            }
            OperationKind::Capture | OperationKind::Void | OperationKind::Refund => {}
        }
        replies
    }
}

/// The usual answer to an operation.
fn usual(subject: &dyn Subject, operation: OperationKind, transaction: &Transaction) -> Vec<u8> {
    let reply = subject.replies(operation)[0];
    subject.answer(reply, operation, transaction)
}

/// The status of a whole HTTP response.
fn status_of(response: &[u8]) -> u16 {
    let head = String::from_utf8_lossy(response);
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

const AMOUNT: i64 = 1000;
const CONNECT: Duration = Duration::from_secs(50);
const TOTAL: Duration = Duration::from_secs(100);
/// How often a connection is tried to be used again.
const MAX_TRIES_TO_REUSE: usize = 50;
/// For cases that must time out: time enough that a busy machine makes the connection and sends the request.
const SHORT_TOTAL: Duration = Duration::from_secs(6);

struct Case {
    operation: OperationKind,
    transaction: Transaction,
    request: PreparedRequest,
    account: Arc<dyn Provider>,
    server: Scripted,
}

impl Case {
    async fn new(
        subject: &dyn Subject,
        operation: OperationKind,
        total: Duration,
        script: impl FnOnce(&Transaction) -> Vec<Act>,
    ) -> Self {
        let payment = builders::payment(subject.token(), Some(subject.payment_reference()));
        let transaction = builders::transaction(&payment, operation, AMOUNT);
        let server = Scripted::start(script(&transaction)).await;
        let connect = CONNECT.min(total * 4 / 5);
        let account = guarded(subject.account(&server.base_url(), connect, total));
        let parameters = [("challenge".to_owned(), "passed".to_owned())];
        let asked = builders::operation(operation, &payment, &transaction, &parameters);
        let request = account.prepare(&asked).unwrap();
        assert_eq!(
            request,
            account.prepare(&asked).unwrap(),
            "{operation}: not the same bytes"
        );
        Self {
            operation,
            transaction,
            request,
            account,
            server,
        }
    }

    async fn send(&self) -> SendReport {
        self.account.send(&self.request, 1).await
    }

    async fn lookup(&self) -> LookupOutcome {
        let query = LookupQuery {
            transaction: self.transaction.id,
            kind: self.transaction.kind,
            origin: self.transaction.origin,
            provider_reference: None,
            payment_reference: None,
        };
        self.account.lookup(&query).await
    }

    /// Each exchange was one request: nothing was retried behind our back.
    fn received(&self, count: usize) -> Vec<Received> {
        let received = self.server.received();
        assert_eq!(received.len(), count, "{}", self.operation);
        received
    }
}

/// As the registry has it: the guard changes nothing about what an adapter says.
fn guarded(account: Arc<dyn Provider>) -> Arc<dyn Provider> {
    let name = ProviderAccount::parse("conformance").unwrap();
    let settings = GuardSettings::new(1, 1, &CircuitConfig::default()).unwrap();
    Arc::new(Guarded::new(name, account, settings, monotonic()))
}

/// Runs every case for every operation.
pub async fn conforms(subject: &dyn Subject) {
    for operation in OperationKind::ALL.iter().copied() {
        answers(subject, operation).await;
        identical_resends(subject, operation).await;
        statuses(subject, operation).await;
        broken_answers(subject, operation).await;
    }
    join_all(
        OperationKind::ALL
            .iter()
            .map(|operation| hangs(subject, *operation)),
    )
    .await;
    signatures(subject);
    without_a_name(subject).await;
    refused_connection(subject).await;
    reused_connection_that_dies(subject).await;
    lookups(subject).await;
}

async fn answers(subject: &dyn Subject, operation: OperationKind) {
    for reply in subject.replies(operation) {
        let mut status = 0;
        let case = Case::new(subject, operation, TOTAL, |transaction| {
            let answer = subject.answer(reply, operation, transaction);
            status = status_of(&answer);
            vec![Act::Answer(answer)]
        })
        .await;
        let report = case.send().await;
        let SendOutcome::Answered(fact) = &report.outcome else {
            panic!("{operation} {reply:?}: {:?}", report.outcome);
        };
        match (reply, &fact.kind) {
            (Reply::Approved, FactKind::Approved { amount, .. }) => {
                assert_eq!(*amount, Some(eur(AMOUNT)));
            }
            (Reply::WrongAmount, FactKind::Approved { amount, .. }) => {
                assert_eq!(*amount, Some(eur(AMOUNT + 1)));
            }
            (Reply::WrongCurrency, FactKind::Approved { amount, .. }) => {
                assert_ne!(amount.unwrap().currency(), eur(AMOUNT).currency());
            }
            (Reply::Declined, FactKind::Declined(decline)) => {
                assert!(decline.provider_code.non_empty().is_some());
            }
            (Reply::Pending, FactKind::Pending) => {}
            (Reply::RequiresAction, FactKind::RequiresAction(action)) => {
                assert!(action.redirect_url.expose().starts_with("https://"));
            }
            (reply, kind) => panic!("{operation} {reply:?}: {kind:?}"),
        }
        // What was refused may never have got a name, and what waits for its customer may get another.
        let nameless = [Reply::Declined, Reply::RequiresAction].contains(&reply);
        let named = fact.provider_reference.is_some() || nameless;
        assert!(named, "{operation} {reply:?}");
        assert_eq!(report.http_status, Some(status));
        assert!(
            report
                .response
                .is_some_and(|body| body.expose().len() <= MAX_STORED_RESPONSE)
        );
        case.received(1);
    }
}

/// What the provider has given no name can be neither captured nor refunded; voided, where the adapter says so.
async fn without_a_name(subject: &dyn Subject) {
    let payment = builders::payment(subject.token(), None);
    let opening = builders::transaction(&payment, OperationKind::Authorize, AMOUNT);
    for kind in [
        OperationKind::Capture,
        OperationKind::Void,
        OperationKind::Refund,
    ] {
        let transaction = builders::transaction(&payment, kind, AMOUNT);
        let asked = Operation {
            opening: &opening,
            ..builders::operation(kind, &payment, &transaction, &[])
        };
        let answer = subject.voided_by_our_name(&asked);
        let server = Scripted::start(answer.into_iter().map(Act::Answer).collect()).await;
        let account = guarded(subject.account(&server.base_url(), CONNECT, TOTAL));
        let able = account.capabilities().void_before_authorization == VoidBefore::Ours;
        if kind != OperationKind::Void || !able {
            let refused = account.prepare(&asked).map(drop);
            assert_eq!(refused, Err(Unpreparable::NoReference), "{kind}");
            continue;
        }
        let request = account.prepare(&asked).unwrap();
        assert_eq!(request, account.prepare(&asked).unwrap(), "{kind}");
        let report = account.send(&request, 1).await;
        let SendOutcome::Answered(fact) = &report.outcome else {
            panic!("{kind}: {:?}", report.outcome);
        };
        assert!(fact.provider_reference.is_some(), "{kind}");
        let received = server.received();
        let body = String::from_utf8_lossy(&received[0].body);
        let name = opening.id.0.simple().to_string();
        assert!(body.replace('-', "").contains(&name), "{kind}: {body}");
    }
}

/// I2, and that secrets travel in their header only.
async fn identical_resends(subject: &dyn Subject, operation: OperationKind) {
    let case = Case::new(subject, operation, TOTAL, |transaction| {
        let answer = usual(subject, operation, transaction);
        vec![Act::Answer(response(503, "", "")), Act::Answer(answer)]
    })
    .await;
    for send in 1..=2 {
        case.account.send(&case.request, send).await;
    }
    let received = case.received(2);
    let (first, second) = (&received[0], &received[1]);
    let key = first.header(subject.idempotency_header());
    let asks = subject.only_asks(operation);
    assert!(
        asks || key.is_some_and(|key| key.contains(&case.transaction.id.to_string())),
        "{operation}: {key:?}"
    );
    assert_eq!(asks, first.head.starts_with("GET "), "{operation}");
    assert_eq!(
        key,
        second.header(subject.idempotency_header()),
        "{operation}"
    );
    assert_eq!(first.body, second.body, "{operation}");
    assert_eq!(
        first.head.lines().next(),
        second.head.lines().next(),
        "{operation}"
    );
    let (header, secret) = subject.credential();
    assert!(
        first.header(header).unwrap().ends_with(secret),
        "{operation}"
    );
    assert_eq!(first.head.matches(secret).count(), 1, "{operation}");
    assert!(
        !String::from_utf8_lossy(&first.body).contains(secret),
        "{operation}"
    );
    assert!(
        first.header("traceparent").is_some(),
        "{operation}: no trace context"
    );
}

async fn statuses(subject: &dyn Subject, operation: OperationKind) {
    let not_sent = SendOutcome::NotSent;
    let unknown = SendOutcome::Unknown;
    for (status, headers, expected) in [
        (
            302,
            "location: /elsewhere\r\n",
            unknown(Cause::UnreadableResponse),
        ),
        (
            307,
            "location: /elsewhere\r\n",
            unknown(Cause::UnreadableResponse),
        ),
        (400, "", not_sent(Cause::RequestRefused)),
        (401, "", not_sent(Cause::CredentialsRefused)),
        (403, "", not_sent(Cause::CredentialsRefused)),
        (404, "", not_sent(Cause::RequestRefused)),
        (408, "", unknown(Cause::ResponseTimeout)),
        (409, "", unknown(Cause::RequestInProgress)),
        (418, "", unknown(Cause::UnreadableResponse)),
        (422, "", not_sent(Cause::RequestRefused)),
        (429, "retry-after: 7\r\n", not_sent(Cause::RateLimited)),
        (500, "", unknown(Cause::ProviderError)),
        (502, "", unknown(Cause::ProviderError)),
        (503, "retry-after: 7\r\n", unknown(Cause::ProviderError)),
    ] {
        let act = Act::Answer(response(status, headers, "{}"));
        let case = Case::new(subject, operation, TOTAL, |_| vec![act]).await;
        let report = case.send().await;
        assert_eq!(report.outcome, expected, "{operation} {status}");
        assert_eq!(report.http_status, Some(status), "{operation}");
        let asked_to_wait = (!headers.is_empty() && status > 400).then(|| Duration::from_secs(7));
        assert_eq!(report.retry_after, asked_to_wait, "{operation} {status}");
        case.received(1);
    }
}

async fn broken_answers(subject: &dyn Subject, operation: OperationKind) {
    let json = |status, body: &str| Act::Answer(response(status, "", body));
    let huge = "x".repeat(quittance_providers::http::MAX_RESPONSE_BYTES + 1);
    let announced = response(200, "", &huge);
    let unannounced = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{huge}").into_bytes();
    let half = || b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"id\":".to_vec();
    let no_http = b"220 smtp\r\n\r\n".to_vec();
    let (lost, unreadable) = (Cause::ConnectionLost, Cause::UnreadableResponse);
    let large = Cause::ResponseTooLarge;
    for (name, act, cause) in [
        ("malformed", json(200, "{\"id\":"), unreadable),
        ("not JSON", json(200, "<html>"), unreadable),
        ("another shape", json(200, "{}"), unreadable),
        ("no body", json(204, ""), unreadable),
        ("oversized", Act::AnswerAndClose(announced), large),
        (
            "oversized, unannounced",
            Act::AnswerAndClose(unannounced),
            large,
        ),
        ("not HTTP", Act::AnswerAndClose(no_http), lost),
        ("closed at once", Act::AnswerAndClose(Vec::new()), lost),
        ("reset at once", Act::AnswerAndReset(Vec::new()), lost),
        ("closed mid-response", Act::AnswerAndClose(half()), lost),
        ("reset mid-response", Act::AnswerAndReset(half()), lost),
    ] {
        let case = Case::new(subject, operation, TOTAL, |_| vec![act]).await;
        let report = case.send().await;
        assert_eq!(
            report.outcome,
            SendOutcome::Unknown(cause),
            "{operation}: {name}"
        );
        case.received(1);
    }
}

async fn hangs(subject: &dyn Subject, operation: OperationKind) {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"id\":".to_vec();
    let cases = [
        ("before the body was read", Act::AcceptAndHang, 0),
        ("after the body was read", Act::AnswerAndHang(Vec::new()), 1),
        ("mid-response", Act::AnswerAndHang(half), 1),
    ];
    join_all(cases.map(async |(name, act, received)| {
        let case = Case::new(subject, operation, SHORT_TOTAL, |_| vec![act]).await;
        let report = case.send().await;
        let expected = SendOutcome::Unknown(Cause::ResponseTimeout);
        assert_eq!(report.outcome, expected, "{operation}: timeout {name}");
        assert!(
            report.latency_micros >= 5_900_000,
            "{operation}: timeout {name}"
        );
        assert_eq!(case.account.send_timeout(), SHORT_TOTAL);
        case.received(received);
    }))
    .await;
}

async fn refused_connection(subject: &dyn Subject) {
    let case = Case::new(subject, OperationKind::Purchase, TOTAL, |_| Vec::new()).await;
    let Case {
        server,
        account,
        request,
        ..
    } = case;
    let port = server.port();
    // Keeps the port for itself, without listening on it.
    drop(server);
    let reserved = reserve(port).await;
    let report = account.send(&request, 1).await;
    assert_eq!(
        report.outcome,
        SendOutcome::NotSent(Cause::ConnectionRefused)
    );
    assert_eq!((report.http_status, report.response), (None, None));
    drop(reserved);
}

async fn reserve(port: u16) -> socket2::Socket {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port)).into();
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        if socket.bind(&address).is_ok() {
            return socket;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the port is still in use");
}

/// The provider may have processed the request whose connection it then closed. A connection is at hand again a moment
/// after its answer was read, so it is not reused every time.
async fn reused_connection_that_dies(subject: &dyn Subject) {
    let operation = OperationKind::Purchase;
    for _ in 0..MAX_TRIES_TO_REUSE {
        let case = Case::new(subject, operation, TOTAL, |transaction| {
            let answer = usual(subject, operation, transaction);
            vec![Act::Answer(answer), Act::AnswerAndClose(Vec::new())]
        })
        .await;
        assert!(matches!(
            case.send().await.outcome,
            SendOutcome::Answered(_)
        ));
        assert_eq!(
            case.send().await.outcome,
            SendOutcome::Unknown(Cause::ConnectionLost)
        );
        case.received(2);
        if case.server.connections() == 1 {
            return;
        }
    }
    panic!("no connection was reused");
}

async fn lookups(subject: &dyn Subject) {
    let operation = OperationKind::Purchase;
    let mut askable = true;
    let case = Case::new(subject, operation, TOTAL, |transaction| {
        let found = subject.found(transaction).map(Act::Answer);
        askable = found.is_some();
        found.into_iter().collect()
    })
    .await;
    let capabilities = case.account.capabilities().clone();
    if !askable {
        let authoritative = false;
        assert_eq!(
            case.lookup().await,
            LookupOutcome::NotFound { authoritative }
        );
        case.received(0);
        assert!(!capabilities.authoritative_lookup);
        return;
    }
    assert!(matches!(case.lookup().await, LookupOutcome::Found(_)));
    if let Some(not_found) = subject.not_found() {
        let case = Case::new(subject, operation, TOTAL, |_| vec![Act::Answer(not_found)]).await;
        let authoritative = capabilities.authoritative_lookup;
        assert_eq!(
            case.lookup().await,
            LookupOutcome::NotFound { authoritative }
        );
    }
    let wait = "retry-after: 7\r\n";
    for (status, headers, body, cause) in [
        (200, "", "{}", Cause::UnreadableResponse),
        (302, "", "", Cause::UnreadableResponse),
        (401, "", "", Cause::CredentialsRefused),
        // Not the provider's own "not found": it proves nothing.
        (404, "", "<html>not found</html>", Cause::UnreadableResponse),
        (429, wait, "", Cause::RateLimited),
        (500, "", "", Cause::ProviderError),
        (503, wait, "", Cause::ProviderError),
    ] {
        let act = Act::Answer(response(status, headers, body));
        let case = Case::new(subject, operation, TOTAL, |_| vec![act]).await;
        let retry_after = (!headers.is_empty()).then(|| Duration::from_secs(7));
        let expected = LookupOutcome::Unavailable { cause, retry_after };
        assert_eq!(case.lookup().await, expected, "{status}");
        case.received(1);
    }
}
