use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use quittance_domain::ids::TransactionId;
use quittance_domain::ports::VoidBefore;
use quittance_domain::text::Sensitive;
use quittance_domain::transaction::{Fact, FactKind, TransactionKind, TransactionOrigin};
use tokio::sync::Notify;
use uuid::Uuid;

use super::*;

/// An account that answers what it is told to, and counts how often it was asked.
struct Scripted {
    outcomes: Mutex<VecDeque<SendOutcome>>,
    asked: AtomicUsize,
    asked_now: AtomicUsize,
    most_at_once: AtomicUsize,
    /// Lets one call end; there is one permit for each end that was allowed.
    release: Option<Semaphore>,
    begun: Notify,
    timeout: Duration,
    lookup_asks: bool,
    capabilities: Capabilities,
}

struct CountedOut<'a>(&'a Scripted);

impl Drop for CountedOut<'_> {
    fn drop(&mut self) {
        self.0.asked_now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Scripted {
    fn new(held: bool) -> Self {
        Self {
            outcomes: Mutex::default(),
            asked: AtomicUsize::new(0),
            asked_now: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            release: held.then(|| Semaphore::new(0)),
            begun: Notify::new(),
            timeout: Duration::from_secs(60),
            lookup_asks: true,
            capabilities: Capabilities {
                partial_capture: true,
                several_captures: true,
                void_before_authorization: VoidBefore::Named,
                authoritative_lookup: true,
                current_lookup: true,
                consistency_window: Duration::ZERO,
                idempotency_key_lifetime: Duration::from_secs(86_400),
            },
        }
    }

    /// The next outcome; an approval where none was scripted.
    async fn next(&self) -> SendOutcome {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let now = self.asked_now.fetch_add(1, Ordering::SeqCst) + 1;
        let _out = CountedOut(self);
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        self.begun.notify_one();
        if let Some(release) = &self.release {
            release.acquire().await.unwrap().forget();
        }
        let scripted = self.outcomes.lock().unwrap().pop_front();
        scripted.unwrap_or(SendOutcome::Answered(Fact {
            kind: FactKind::Pending,
            provider_reference: None,
            payment_reference: None,
        }))
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl ProviderRules for Scripted {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prepare(&self, _: &Operation<'_>) -> Result<PreparedRequest, Unpreparable> {
        Ok(request())
    }
}

impl ProviderWebhooks for Scripted {
    fn verify(&self, _: &Delivery<'_>) -> Result<Vec<VerifiedEvent>, Unverified> {
        Err(Unverified::NoSecret)
    }

    fn webhook(&self, _: &[u8]) -> Result<Vec<WebhookFact>, Unreadable> {
        Err(Unreadable::Unexpected)
    }
}

#[async_trait]
impl Provider for Scripted {
    async fn send(&self, _: &PreparedRequest, _: u32) -> SendReport {
        SendReport {
            outcome: self.next().await,
            ..not_sent(None)
        }
    }

    async fn lookup(&self, _: &LookupQuery) -> LookupOutcome {
        match self.next().await {
            SendOutcome::Answered(fact) => LookupOutcome::Found(fact),
            SendOutcome::NotSent(cause) | SendOutcome::Unknown(cause) => unavailable(cause, None),
        }
    }

    fn lookup_asks(&self) -> bool {
        self.lookup_asks
    }

    fn send_timeout(&self) -> Duration {
        self.timeout
    }

    fn livemode(&self) -> bool {
        true
    }
}

/// A guarded account under a clock that the test moves.
struct World {
    inner: Arc<Scripted>,
    guarded: Arc<Guarded>,
    millis: Arc<AtomicU64>,
}

const PAUSE: Duration = Duration::from_secs(1);

impl World {
    fn of(inner: Scripted, calls: u32, lookups: u32) -> Self {
        let circuit = CircuitConfig {
            window_calls: 4,
            min_calls: 2,
            open_ms: 1_000,
            max_open_ms: 8_000,
            jitter_percent: 0,
            half_open_probes: 2,
            ..CircuitConfig::default()
        };
        let (inner, millis) = (Arc::new(inner), Arc::new(AtomicU64::new(0)));
        let read = Arc::clone(&millis);
        let guarded = Guarded::new(
            ProviderAccount::parse("acme").unwrap(),
            Arc::<Scripted>::clone(&inner),
            GuardSettings::new(calls, lookups, &circuit).unwrap(),
            Arc::new(move || Duration::from_millis(read.load(Ordering::SeqCst))),
        );
        Self {
            inner,
            guarded: Arc::new(guarded),
            millis,
        }
    }

    fn new() -> Self {
        Self::of(Scripted::new(false), 8, 8)
    }

    fn pass(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap();
        self.millis.fetch_add(millis, Ordering::SeqCst);
    }

    fn script(&self, outcomes: impl IntoIterator<Item = SendOutcome>) {
        self.inner.outcomes.lock().unwrap().extend(outcomes);
    }

    async fn send(&self) -> SendReport {
        self.guarded.send(&request(), 1).await
    }

    async fn lookup(&self) -> LookupOutcome {
        self.guarded.lookup(&query()).await
    }

    /// Opens the circuit by two calls that fail.
    async fn open(&self) {
        self.script([SendOutcome::Unknown(Cause::ProviderError), refused()]);
        self.send().await;
        self.lookup().await;
        assert_eq!(self.guarded.circuit(), Circuit::Open);
    }
}

fn refused() -> SendOutcome {
    SendOutcome::NotSent(Cause::ConnectionRefused)
}

fn request() -> PreparedRequest {
    PreparedRequest {
        bytes: Sensitive::new(Vec::new()),
    }
}

fn query() -> LookupQuery {
    LookupQuery {
        transaction: TransactionId(Uuid::nil()),
        kind: TransactionKind::Purchase,
        origin: TransactionOrigin::Caller,
        provider_reference: None,
        payment_reference: None,
    }
}

#[tokio::test]
async fn s70_while_open_nobody_is_asked_and_callers_learn_how_long_to_wait() {
    let world = World::new();
    world.open().await;
    let asked = world.inner.asked();
    world.pass(PAUSE / 4);
    assert_eq!(world.send().await, not_sent(Some(PAUSE * 3 / 4)));
    assert_eq!(
        world.lookup().await,
        unavailable(Cause::CircuitOpen, Some(PAUSE * 3 / 4))
    );
    let shut = Unconfirmed {
        cause: Cause::CircuitOpen,
        retry_after: Some(PAUSE * 3 / 4),
    };
    let reference = ProviderReference::parse("pay_1").unwrap();
    let refunds = world
        .guarded
        .operations(TransactionKind::Refund, &reference);
    assert_eq!(refunds.await, Err(shut));
    let named = world.guarded.payment_named(&reference).await;
    assert_eq!(named, Err(shut));
    assert_eq!(world.guarded.dispute(&query()).await, Err(shut));
    assert_eq!(world.inner.asked(), asked);
    assert!(!world.guarded.admits());

    world.pass(PAUSE);
    assert_eq!(world.guarded.circuit(), Circuit::HalfOpen);
    assert!(world.guarded.admits());
    world.send().await;
    assert_eq!(world.guarded.circuit(), Circuit::HalfOpen);
    world.lookup().await;
    assert_eq!(world.guarded.circuit(), Circuit::Closed);
}

/// Of a provider that has no lookup: it answers whether the provider works or not.
#[tokio::test]
async fn s70_a_lookup_that_asks_nobody_neither_hides_failures_nor_ends_them() {
    let silent = Scripted {
        lookup_asks: false,
        ..Scripted::new(false)
    };
    let world = World::of(silent, 8, 8);
    let look = async || {
        let found = world.lookup().await;
        assert!(matches!(found, LookupOutcome::Found(_)), "{found:?}");
    };
    world.script([refused()]);
    world.send().await;
    for _ in 0..3 {
        look().await;
    }
    world.script([refused()]);
    world.send().await;
    assert_eq!(world.guarded.circuit(), Circuit::Open);
    // What a lookup would lead to, a resend, waits too.
    let closed = unavailable(Cause::CircuitOpen, Some(PAUSE));
    assert_eq!(world.lookup().await, closed);
    world.pass(PAUSE);
    for _ in 0..3 {
        look().await;
        assert_eq!(world.guarded.circuit(), Circuit::HalfOpen);
    }
    for _ in 0..2 {
        world.send().await;
    }
    assert_eq!(world.guarded.circuit(), Circuit::Closed);
}

#[tokio::test]
async fn s70_a_failed_probe_opens_it_again_for_longer() {
    let world = World::new();
    world.open().await;
    world.pass(PAUSE);
    world.script([refused()]);
    world.send().await;
    assert_eq!(world.guarded.circuit(), Circuit::Open);
    assert_eq!(world.send().await.retry_after, Some(PAUSE * 2));
}

#[tokio::test]
async fn s70_probes_are_few_at_once_and_one_that_is_given_up_makes_room() {
    let world = World::of(Scripted::new(true), 8, 8);
    let release = world.inner.release.as_ref().unwrap();
    release.add_permits(2);
    world.open().await;
    world.pass(PAUSE);
    let probe = || {
        let guarded = Arc::clone(&world.guarded);
        tokio::spawn(async move { guarded.send(&request(), 1).await })
    };
    let first = probe();
    world.inner.begun.notified().await;
    let second = probe();
    while world.inner.asked() < 4 {
        world.inner.begun.notified().await;
    }
    // Both run: a third is not sent, and nobody knows for how long.
    assert!(!world.guarded.admits());
    assert_eq!(world.send().await, not_sent(None));
    assert_eq!(world.inner.asked(), 4);

    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert!(world.guarded.admits());
    release.add_permits(2);
    assert!(matches!(
        world.send().await.outcome,
        SendOutcome::Answered(_)
    ));
    second.await.unwrap();
    assert_eq!(world.guarded.circuit(), Circuit::Closed);
}

#[tokio::test]
async fn slow_calls_open_it() {
    let world = World::of(Scripted::new(true), 8, 8);
    for _ in 0..2 {
        let guarded = Arc::clone(&world.guarded);
        let call = tokio::spawn(async move { guarded.send(&request(), 1).await });
        world.inner.begun.notified().await;
        world.pass(Duration::from_secs(5));
        world.inner.release.as_ref().unwrap().add_permits(1);
        call.await.unwrap();
    }
    assert_eq!(world.guarded.circuit(), Circuit::Open);
}

#[tokio::test]
async fn s18_what_the_provider_answered_or_asked_us_to_wait_for_opens_nothing() {
    let harmless = [
        Cause::RateLimited,
        Cause::RequestRefused,
        Cause::RequestInProgress,
    ];
    let world = World::new();
    for cause in harmless.into_iter().cycle().take(30) {
        world.script([SendOutcome::NotSent(cause), SendOutcome::Unknown(cause)]);
        world.send().await;
        world.lookup().await;
        assert_eq!(world.guarded.circuit(), Circuit::Closed, "{cause}");
    }
}

#[tokio::test]
async fn every_way_of_being_out_of_reach_or_failing_opens_it() {
    for outcome in [
        refused(),
        SendOutcome::NotSent(Cause::ConnectTimeout),
        SendOutcome::NotSent(Cause::NameResolution),
        SendOutcome::NotSent(Cause::TlsHandshake),
        SendOutcome::NotSent(Cause::CredentialsRefused),
        SendOutcome::Unknown(Cause::ResponseTimeout),
        SendOutcome::Unknown(Cause::ConnectionLost),
        SendOutcome::Unknown(Cause::ProviderError),
        SendOutcome::Unknown(Cause::UnreadableResponse),
        SendOutcome::Unknown(Cause::ResponseTooLarge),
    ] {
        for lookup in [false, true] {
            let world = World::new();
            for _ in 0..2 {
                world.script([outcome.clone()]);
                if lookup {
                    world.lookup().await;
                } else {
                    world.send().await;
                }
            }
            assert_eq!(world.guarded.circuit(), Circuit::Open, "{outcome:?}");
        }
    }
}

#[test]
fn s69_places_are_handed_out_up_to_the_limit_and_come_back() {
    let world = World::of(Scripted::new(false), 2, 1);
    let first = world.guarded.reserve().unwrap();
    let _second = world.guarded.reserve().unwrap();
    assert_eq!(world.guarded.reserve().unwrap_err(), Saturated);
    drop(first);
    let _third = world.guarded.reserve().unwrap();
    assert_eq!(world.guarded.reserve().unwrap_err(), Saturated);
}

/// Whoever only tries comes again at once: it must not keep out what is accepted already.
#[tokio::test]
async fn s69_who_waits_for_a_place_is_served_before_those_who_try() {
    let world = World::of(Scripted::new(false), 1, 1);
    let taken = world.guarded.reserve().unwrap();
    let guarded = Arc::clone(&world.guarded);
    let mut waits = Box::pin(async move { guarded.place().await });
    assert!(futures::poll!(&mut waits).is_pending());
    drop(taken);
    assert_eq!(world.guarded.reserve().unwrap_err(), Saturated);
    let place = waits.await.unwrap();
    drop(place);
    assert!(world.guarded.reserve().is_ok());
}

#[tokio::test]
async fn s69_a_place_is_waited_for_as_long_as_a_send_can_take() {
    let scripted = Scripted {
        timeout: Duration::from_millis(1),
        ..Scripted::new(false)
    };
    let world = World::of(scripted, 1, 1);
    let _taken = world.guarded.reserve().unwrap();
    assert_eq!(world.guarded.place().await.unwrap_err(), Saturated);
}

#[tokio::test]
async fn lookups_wait_for_each_other_beyond_their_limit() {
    let world = World::of(Scripted::new(true), 1, 3);
    let lookups: Vec<_> = (0..30)
        .map(|_| {
            let guarded = Arc::clone(&world.guarded);
            tokio::spawn(async move { guarded.lookup(&query()).await })
        })
        .collect();
    while world.inner.asked() < 3 {
        world.inner.begun.notified().await;
    }
    // Sends have places of their own.
    assert!(world.guarded.reserve().is_ok());
    world.inner.release.as_ref().unwrap().add_permits(30);
    for lookup in lookups {
        assert!(matches!(lookup.await.unwrap(), LookupOutcome::Found(_)));
    }
    assert_eq!(world.inner.most_at_once.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_lookup_that_waited_too_long_says_so() {
    let scripted = Scripted {
        timeout: Duration::from_millis(20),
        ..Scripted::new(true)
    };
    let world = World::of(scripted, 1, 1);
    let guarded = Arc::clone(&world.guarded);
    let first = tokio::spawn(async move { guarded.lookup(&query()).await });
    world.inner.begun.notified().await;
    assert_eq!(world.lookup().await, unavailable(Cause::RateLimited, None));
    assert_eq!(world.inner.asked(), 1);
    world.inner.release.as_ref().unwrap().add_permits(1);
    assert!(matches!(first.await.unwrap(), LookupOutcome::Found(_)));
}

#[tokio::test]
async fn lookups_that_waited_are_refused_when_the_circuit_has_opened_meanwhile() {
    let world = World::of(Scripted::new(true), 1, 1);
    world.script([refused(), refused()]);
    let lookups: Vec<_> = (0..20)
        .map(|_| {
            let guarded = Arc::clone(&world.guarded);
            tokio::spawn(async move { guarded.lookup(&query()).await })
        })
        .collect();
    world.inner.begun.notified().await;
    world.inner.release.as_ref().unwrap().add_permits(2);
    let mut open = 0;
    for lookup in lookups {
        open += usize::from(lookup.await.unwrap() == unavailable(Cause::CircuitOpen, Some(PAUSE)));
    }
    assert_eq!((world.inner.asked(), open), (2, 18));
}

#[tokio::test]
async fn everything_else_is_the_accounts_own() {
    let world = World::new();
    assert_eq!(world.guarded.account().as_str(), "acme");
    assert_eq!(world.guarded.capabilities(), world.inner.capabilities());
    assert_eq!(world.guarded.send_timeout(), world.inner.send_timeout());
    assert!(world.guarded.livemode());
    let shown = format!("{:?}", world.guarded);
    assert!(
        shown.contains("acme") && shown.contains("Closed"),
        "{shown}"
    );
}
