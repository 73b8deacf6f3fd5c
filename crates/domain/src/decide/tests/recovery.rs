//! What recovery and operators decide.

use super::*;
use crate::cases::OpenCases;
use crate::change::{OperatorAction, OperatorActionKind};
use crate::command::{Resolution, Resolve, Retry};
use crate::decide::{self, DecideError, KeyAlive};
use crate::decline::Cause;
use crate::error::Rejection;
use crate::payment::PaymentState;
use crate::retry::{MaxSends, WaitFor};

use OperatorActionKind::{AmountMismatch, ContradictingFact, ExcessAmount, RecoveryExhausted};

pub(super) const TIMED_OUT: SendOutcome = SendOutcome::Unknown(Cause::ResponseTimeout);
pub(super) const REFUSED: SendOutcome = SendOutcome::NotSent(Cause::ConnectionRefused);

impl World {
    pub(super) fn pass(&mut self, seconds: u32) {
        self.ticks += seconds;
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        start() + TimeDelta::seconds(i64::from(self.ticks + 1))
    }

    pub(super) fn held(&self) -> &Transaction {
        self.record.transactions.last().unwrap()
    }

    pub(super) fn fail_over(&mut self) -> Result<(), ()> {
        let second = ProviderAccount::parse("second").unwrap();
        let id = self.held().id;
        let proof = ProvedUnsent::by_sends(self.held()).ok_or(())?;
        self.decide(|record, rules, stamp| {
            let change = decide::fail_over(record, id, proof, &second, rules, stamp);
            change.unwrap().ok_or(())
        })
    }

    pub(super) fn unresolved(&mut self) -> Result<(), ()> {
        let id = self.held().id;
        self.no_news_of(id)
    }

    pub(super) fn no_news_of(&mut self, id: TransactionId) -> Result<(), ()> {
        let news = (WaitFor::Outcome, Some(Cause::ConnectionRefused), None);
        self.decide(|record, _, stamp| {
            decide::unresolved(record, id, news, stamp)
                .unwrap()
                .ok_or(())
        })
    }

    /// The provider was asked, and had nothing new to say.
    pub(super) fn looked_at(&mut self, id: TransactionId) {
        let news = (WaitFor::Decision, None, None);
        let decide = |record: &PaymentRecord, _: &Rules, stamp: &Stamp<'_>| {
            decide::unresolved(record, id, news, stamp)
                .unwrap()
                .ok_or(())
        };
        self.decide(decide).unwrap();
    }

    pub(super) fn resolve(&mut self, resolution: Resolution) -> Result<(), DecideError> {
        self.resolve_of(self.held().id, resolution, None)
    }

    /// Resolves what was looked at just before.
    pub(super) fn resolve_seen(
        &mut self,
        transaction: TransactionId,
        resolution: Resolution,
    ) -> Result<(), DecideError> {
        let version = self.record.payment.version;
        self.resolve_of(transaction, resolution, Some(version))
    }

    pub(super) fn resolve_of(
        &mut self,
        transaction: TransactionId,
        resolution: Resolution,
        seen_version: Option<u64>,
    ) -> Result<(), DecideError> {
        let command = Resolve {
            payment: self.record.payment.id,
            transaction,
            resolution,
            reason: Text::parse("the provider wrote so").unwrap(),
            evidence: Text::parse("ticket 7").unwrap(),
            seen_version,
        };
        self.decide(|record, _, stamp| decide::resolve(record, &command, stamp))
    }

    pub(super) fn change(&self) -> &Change {
        self.changes.last().unwrap()
    }

    /// The transactions whose cases the last change closed.
    pub(super) fn closed(&self) -> Vec<TransactionId> {
        let closed = self.change().closes_cases.iter();
        closed.map(|case| case.transaction).collect()
    }

    pub(super) fn opened(&self) -> Option<OperatorActionKind> {
        self.change().operator_action.map(|action| action.kind)
    }
}

/// What a change closes: the cases of a kind about a transaction.
pub(super) fn case(kind: OperatorActionKind, transaction: TransactionId) -> [OperatorAction; 1] {
    [OperatorAction { kind, transaction }]
}

pub(super) fn acknowledged(kind: OperatorActionKind) -> Resolution {
    Resolution::Acknowledged(kind)
}

pub(super) fn succeeded() -> Resolution {
    Resolution::Succeeded {
        provider_reference: None,
        amount: None,
    }
}

#[test]
fn i4_after_a_time_out_a_refused_connection_neither_fails_nor_fails_over() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(TIMED_OUT);
    let id = world.held().id;
    let alive = KeyAlive::judge(world.held(), &world.rules.0, world.now()).unwrap();
    world
        .decide(|record, rules, stamp| {
            let allowed = (MaySend::SameKey(alive), 1);
            decide::start_attempt(record, id, allowed, rules, stamp)
                .unwrap()
                .ok_or(())
        })
        .unwrap();
    world.report(REFUSED);
    assert_eq!(world.record.payment.state, PaymentState::Pending);
    assert!(world.held().ever_unknown);
    assert!(world.held().next_step_at.is_some());
    assert_eq!(ProvedUnsent::by_sends(world.held()), None);
    assert_eq!(world.fail_over(), Err(()));
}

#[test]
fn i4_what_was_never_sent_goes_to_the_next_account_under_the_same_key() {
    let mut world = World::accepted(100, CaptureMethod::Manual);
    world.report(REFUSED);
    let id = world.held().id;
    world.fail_over().unwrap();
    let attempt = world.attempt();
    assert_eq!((attempt.transaction, attempt.number), (id, 2));
    assert_eq!(attempt.provider_account.as_str(), "second");
    assert_eq!(world.record.payment.provider_account.as_str(), "second");
    assert_eq!(world.held().provider_account.as_str(), "second");
    assert_eq!(world.change().entry.event_type, "payment.failed_over");
    // Its sender may be alive now.
    assert_eq!(world.fail_over(), Err(()));
    world.report(TIMED_OUT);
    assert_eq!(world.fail_over(), Err(()));
}

#[test]
fn an_account_that_the_caller_chose_is_kept() {
    let mut world = World::accepted(100, CaptureMethod::Manual);
    world.tampered = true;
    world.record.payment.routed = false;
    world.report(REFUSED);
    assert_eq!(world.fail_over(), Err(()));
}

#[test]
fn i2_what_allowed_a_send_is_void_after_another_send() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(REFUSED);
    let id = world.held().id;
    let stale = ProvedUnsent::by_sends(world.held()).unwrap();
    world
        .decide(|record, rules, stamp| try_start(record, id, rules, stamp).ok_or(()))
        .unwrap();
    world.report(REFUSED);
    let again = world.decide(|record, rules, stamp| {
        let allowed = (MaySend::Unsent(stale), 0);
        decide::start_attempt(record, id, allowed, rules, stamp)
            .unwrap()
            .ok_or(())
    });
    assert_eq!(again, Err(()));
    let ended = world.decide(|record, _, stamp| {
        decide::give_up_unsent(record, id, stale, stamp)
            .unwrap()
            .ok_or(())
    });
    assert_eq!(ended, Err(()));
}

#[test]
fn a_key_is_relied_upon_until_an_hour_before_the_provider_forgets_it() {
    let world = World::accepted(100, CaptureMethod::Automatic);
    let rules = Rules::with(|able| able.idempotency_key_lifetime = Duration::from_secs(7_200));
    let accepted = world.held().created_at;
    let judged = |seconds| {
        let now = accepted + TimeDelta::seconds(seconds);
        KeyAlive::judge(world.held(), rules.capabilities(), now)
    };
    assert!(judged(3_599).is_some());
    assert!(judged(3_600).is_none());
}

#[test]
fn i3_a_key_that_has_expired_is_a_matter_for_a_person_and_nothing_ends() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(TIMED_OUT);
    world.pass(60);
    let id = world.held().id;
    world
        .decide(|record, _, stamp| decide::key_expired(record, id, stamp).unwrap().ok_or(()))
        .unwrap();
    assert_eq!(world.record.payment.state, PaymentState::Pending);
    assert_eq!(world.held().next_step_at, None);
    assert_eq!(world.opened(), Some(RecoveryExhausted));
    assert_eq!(
        world.change().entry.event_type,
        "payment.recovery_exhausted"
    );
}

#[test]
fn s24_recovery_that_gives_up_leaves_the_payment_pending_with_a_case() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(TIMED_OUT);
    let mut steps = 0;
    while world.held().open_cases.is_empty() {
        world.pass(1_000);
        world.unresolved().unwrap();
        steps += 1;
    }
    assert!(steps <= POLICY.outcome.steps, "{steps}");
    assert_eq!(world.record.payment.state, PaymentState::Pending);
    assert_eq!(world.opened(), Some(RecoveryExhausted));
    world.pass(100_000);
    assert_eq!(world.unresolved(), Err(()), "it is not taken up by itself");
    // The provider speaks after all: the case is closed by what it proves.
    let id = world.held().id;
    assert!(world.learn(id, &told(approved(100))));
    assert_eq!(world.closed(), [world.held().id]);
    assert!(world.held().open_cases.is_empty());
    assert_eq!(world.record.payment.state, PaymentState::Captured);
}

#[test]
fn s24_what_was_certainly_never_sent_needs_no_person() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(REFUSED);
    let execute_before = world.held().execute_before;
    for _ in 0..2_000 {
        if world.now() >= execute_before {
            break;
        }
        let due = world.held().next_step_at.unwrap();
        assert!(due <= execute_before);
        let wait = (due - world.now()).num_seconds().max(1);
        world.pass(u32::try_from(wait).unwrap());
        // On a conflict of its own making (not due yet) time passes.
        let _ = world.unresolved();
    }
    assert!(world.held().open_cases.is_empty());
    let id = world.held().id;
    world
        .decide(|record, _, stamp| try_give_up(record, id, stamp).ok_or(()))
        .unwrap();
    let failure = world.record.payment.failure.unwrap();
    assert_eq!(failure.cause, Cause::NotSentInTime);
}

#[test]
fn a_lost_sender_is_put_on_record_and_leaves_the_outcome_unknown() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let attempt = world.attempt();
    world.pass(60);
    world
        .decide(|record, _, stamp| {
            decide::sender_lost(record, &attempt, stamp)
                .unwrap()
                .ok_or(())
        })
        .unwrap();
    assert!(world.held().ever_unknown);
    assert!(!world.held().sender_is_lost(world.now()));
    assert_eq!(world.change().entry.cause.as_deref(), Some("SENDER_LOST"));
    let Some(Write::Update(row)) = &world.change().attempt else {
        panic!("the attempt ends");
    };
    assert_eq!(row.ended.as_ref().unwrap().cause, Some(Cause::SenderLost));
    let again = decide::sender_lost(
        &world.record,
        &attempt,
        &stamp(&world.caller, &world.instance, 900),
    );
    assert_eq!(again, Ok(None));
}

#[test]
fn s18_a_provider_that_asks_for_time_gets_it() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let attempt = world.attempt();
    let report = SendReport {
        outcome: SendOutcome::NotSent(Cause::RateLimited),
        latency_micros: 1,
        http_status: Some(429),
        response: None,
        retry_after: Some(Duration::from_secs(120)),
    };
    world
        .decide(|record, _, stamp| decide::outcome(record, &attempt, &report, stamp))
        .unwrap();
    let due = world.held().next_step_at.unwrap();
    assert!(due >= world.held().updated_at + TimeDelta::seconds(120));
}

#[test]
fn i12_a_transaction_that_may_have_been_processed_is_sent_a_bounded_number_of_times() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let id = world.held().id;
    let mut sends = 1;
    while sends <= POLICY.max_sends.purchase {
        world.report(TIMED_OUT);
        let again =
            world.decide(|record, rules, stamp| try_start(record, id, rules, stamp).ok_or(()));
        if again.is_err() {
            break;
        }
        sends += 1;
    }
    assert_eq!(sends, POLICY.max_sends.purchase);
}

#[test]
fn i12_each_operation_is_sent_as_often_as_its_own_limit_says() {
    let policy = RetryPolicy {
        max_sends: MaxSends {
            purchase: 2,
            authorize: 3,
            confirm: 4,
            capture: 5,
            void: 6,
            refund: 7,
        },
        ..*POLICY
    };
    let confirmed = || {
        let mut world = World::accepted(100, CaptureMethod::Automatic);
        world.answer(facts::action());
        world.confirm().unwrap();
        world
    };
    let after = |mut world: World, command: fn(&mut World) -> Result<(), DecideError>| {
        command(&mut world).unwrap();
        world
    };
    let worlds = [
        (2, World::accepted(100, CaptureMethod::Automatic)),
        (3, World::accepted(100, CaptureMethod::Manual)),
        (4, confirmed()),
        (
            5,
            after(World::authorized(100), |it| it.capture(None, false)),
        ),
        (6, after(World::authorized(100), World::void)),
        (7, after(World::captured(100), |it| it.refund(None))),
    ];
    for (limit, mut world) in worlds {
        world.report(TIMED_OUT);
        let mut stamp = stamp(&world.caller, &world.instance, world.next_n());
        stamp.retries = &policy;
        let held = world.held();
        let alive = KeyAlive::judge(held, world.rules.capabilities(), stamp.now).unwrap();
        let sent = |in_doubt| {
            let allowed = (MaySend::SameKey(alive), in_doubt);
            decide::start_attempt(&world.record, held.id, allowed, &world.rules, &stamp)
                .unwrap()
                .is_some()
        };
        assert!(sent(limit - 1) && !sent(limit), "{}", held.kind);
    }
}

#[test]
fn s13_an_outage_of_any_length_uses_no_send_up() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let id = world.held().id;
    world.tampered = true;
    world.record.transactions[0].execute_before = world.now() + TimeDelta::hours(2);
    let tried = 3 * POLICY.max_sends.purchase;
    for _ in 0..tried {
        world.report(REFUSED);
        world.pass(10);
        world
            .decide(|record, rules, stamp| try_start(record, id, rules, stamp).ok_or(()))
            .unwrap();
    }
    assert_eq!(world.held().attempts, tried + 1);
    // The provider is back, and the first request that reaches it is the first that counts.
    world.report(TIMED_OUT);
    world.pass(60);
    let proof = proof(&world.record, world.held(), world.now()).unwrap();
    for (in_doubt, sent) in [(POLICY.max_sends.purchase, Err(())), (1, Ok(()))] {
        let again = world.decide(|record, rules, stamp| {
            let allowed = (MaySend::Unsent(proof), in_doubt);
            decide::start_attempt(record, id, allowed, rules, stamp)
                .unwrap()
                .ok_or(())
        });
        assert_eq!(again, sent, "{in_doubt}");
    }
}

#[test]
fn s13_an_outage_that_lasts_too_long_ends_as_not_sent_in_time() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let id = world.held().id;
    for _ in 0..12 {
        world.report(REFUSED);
        world.pass(60);
        let again =
            world.decide(|record, rules, stamp| try_start(record, id, rules, stamp).ok_or(()));
        assert_eq!(again, Ok(()));
    }
    world.pass(300);
    world.report(REFUSED);
    assert_eq!(world.record.payment.state, PaymentState::Failed);
    let failure = world.record.payment.failure.unwrap();
    assert_eq!(failure.cause, Cause::NotSentInTime);
    assert_eq!(world.opened(), None, "nobody is asked");
}

#[test]
fn a_send_that_never_began_is_proved_not_sent_and_goes_on() {
    let overdue = SendOutcome::NotSent(Cause::SendOverdue);
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let id = world.held().id;
    world.report(overdue.clone());
    assert_eq!(world.record.payment.state, PaymentState::Pending);
    assert!(world.held().certainly_unprocessed());
    assert!(world.held().next_step_at.is_some());
    assert_eq!(world.change().entry.event_type, "payment.not_sent");
    assert_eq!(world.change().entry.cause.as_deref(), Some("SEND_OVERDUE"));
    world.pass(2);
    world
        .decide(|record, rules, stamp| try_start(record, id, rules, stamp).ok_or(()))
        .unwrap();
    // Too late for a first send: it ends.
    world.pass(1_000);
    world.report(overdue);
    let failure = world.record.payment.failure.unwrap();
    assert_eq!(failure.cause, Cause::NotSentInTime);
}

#[test]
fn an_operator_decides_on_record_and_what_the_provider_proves_later_still_counts() {
    for (resolution, state, fact, after) in [
        (
            Resolution::NotProcessed,
            PaymentState::Failed,
            approved(100),
            PaymentState::Captured,
        ),
        (
            succeeded(),
            PaymentState::Captured,
            declined(),
            PaymentState::Declined,
        ),
        (
            succeeded(),
            PaymentState::Captured,
            FactKind::Failed(Cause::NotProcessed),
            PaymentState::Failed,
        ),
    ] {
        let mut world = World::accepted(100, CaptureMethod::Automatic);
        world.report(TIMED_OUT);
        world.pass(60);
        world.resolve(resolution).unwrap();
        assert_eq!(world.record.payment.state, state);
        assert_eq!(world.closed(), [], "nothing was open");
        let leaf = quittance_evidence::Leaf::decode(world.change().entry.leaf.as_bytes()).unwrap();
        assert_eq!(leaf.details["reason"], "the provider wrote so");
        assert_eq!(leaf.details["evidence"], "ticket 7");
        assert_eq!(leaf.actor.id, "shop");
        let id = world.held().id;
        assert!(world.learn(id, &told(fact)));
        assert_eq!(world.record.payment.state, after);
        assert_eq!(world.opened(), Some(ContradictingFact));
        assert!(world.record.payment.amounts.holds_limits());
        let moved = if after == PaymentState::Captured {
            100
        } else {
            0
        };
        assert_eq!(world.record.payment.amounts.captured, moved);
    }
}

#[test]
fn a_resolution_that_others_built_upon_is_contradicted_without_losing_money() {
    let mut world = World::accepted(100, CaptureMethod::Manual);
    world.report(TIMED_OUT);
    world.pass(60);
    let id = world.held().id;
    world.resolve(succeeded()).unwrap();
    world.capture(Some(40), false).unwrap();
    world.answer(approved(40));
    assert!(world.learn(id, &told(declined())));
    assert_eq!(world.opened(), Some(ContradictingFact));
    assert_eq!(world.record.payment.amounts.captured, 40);
}

#[test]
fn an_operator_cannot_decide_what_a_request_under_way_may_decide() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.tampered = true;
    let id = world.held().id;
    let now = world.now();
    let lease = |world: &mut World, until| {
        world.record.transactions[0].lease_until = until;
        world.record.transactions[0].next_step_at = until;
    };
    lease(&mut world, Some(now + TimeDelta::seconds(100)));
    let sent = Err(DecideError::Rejected(Rejection::BeingSent));
    assert_eq!(world.resolve(succeeded()), sent);
    lease(&mut world, None);
    world.answer(approved(100));
    let state = TransactionState::Succeeded;
    let ended = Err(DecideError::Rejected(Rejection::TransactionEnded { state }));
    assert_eq!(world.resolve(Resolution::NotProcessed), ended);
    let nothing = Err(DecideError::Rejected(Rejection::NothingOpen));
    assert_eq!(world.resolve(acknowledged(ContradictingFact)), nothing);
    // A contradiction opens a case; acknowledging closes it, and changes nothing else.
    assert!(world.learn(id, &told(FactKind::Failed(Cause::ProviderReportedFailure))));
    let before = world.record.payment.amounts;
    assert_eq!(world.resolve(acknowledged(ExcessAmount)), nothing);
    world.resolve(acknowledged(ContradictingFact)).unwrap();
    assert_eq!(world.closed(), [world.held().id]);
    assert_eq!(world.record.payment.amounts, before);
    assert!(!world.held().resolved_by_operator);
}

#[test]
fn what_nobody_knows_is_not_acknowledged_away() {
    let unknown = Err(DecideError::Rejected(Rejection::OutcomeUnknown));
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(TIMED_OUT);
    while world.held().open_cases.is_empty() {
        world.pass(1_000);
        world.unresolved().unwrap();
    }
    assert_eq!(world.resolve(acknowledged(RecoveryExhausted)), unknown);
    // Nor is another one while nobody else is asked for it.
    world.tampered = true;
    world.record.transactions[0].open_cases = OpenCases::NONE.with(ContradictingFact);
    assert_eq!(world.resolve(acknowledged(ContradictingFact)), unknown);
    let both = OpenCases::NONE
        .with(ContradictingFact)
        .with(RecoveryExhausted);
    world.record.transactions[0].open_cases = both;
    assert_eq!(world.resolve(acknowledged(RecoveryExhausted)), unknown);
    world.resolve(acknowledged(ContradictingFact)).unwrap();
    let left = OpenCases::NONE.with(RecoveryExhausted);
    assert_eq!(world.held().open_cases, left);
    world.resolve(Resolution::NotProcessed).unwrap();

    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.answer(approved(90));
    assert_eq!(world.opened(), Some(AmountMismatch));
    assert_eq!(world.resolve(acknowledged(AmountMismatch)), unknown);
    world.resolve(succeeded()).unwrap();
}

#[test]
fn a_retry_that_an_operator_asks_for_is_due_at_once() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(TIMED_OUT);
    while world.held().open_cases.is_empty() {
        world.pass(1_000);
        world.unresolved().unwrap();
    }
    let command = Retry {
        payment: world.record.payment.id,
        transaction: world.held().id,
        reason: Text::parse("the provider is back").unwrap(),
    };
    world
        .decide(|record, _, stamp| decide::retry(record, &command, stamp))
        .unwrap();
    assert_eq!(world.held().retries, 0);
    assert!(world.held().open_cases.is_empty());
    assert_eq!(world.held().next_step_at, Some(world.held().updated_at));
}

/// After a retry, as after a confirmation: it is asked about for longer than once.
#[test]
fn s24_what_is_taken_up_again_late_is_not_given_up_at_its_next_step() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(TIMED_OUT);
    while world.held().open_cases.is_empty() {
        world.pass(10_000);
        world.unresolved().unwrap();
    }
    let command = Retry {
        payment: world.record.payment.id,
        transaction: world.held().id,
        reason: Text::parse("the provider is back").unwrap(),
    };
    world
        .decide(|record, _, stamp| decide::retry(record, &command, stamp))
        .unwrap();
    for step in 0..POLICY.outcome.late_steps() {
        world.pass(100);
        world.unresolved().unwrap();
        assert!(world.held().open_cases.is_empty(), "step {step}");
    }
    world.pass(1_000);
    world.unresolved().unwrap();
    assert_eq!(world.opened(), Some(RecoveryExhausted));

    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.answer(action());
    world.pass(3 * 86_400);
    world.confirm().unwrap();
    world.report(REFUSED);
    assert!(world.held().open_cases.is_empty());
    assert!(world.held().next_step_at.is_some());
}

/// Where many wait for an account that is away, each has its turn seldom.
#[test]
fn s24_what_is_seldom_taken_up_is_shown_to_a_person_after_its_time_all_the_same() {
    for (steps_before, more) in [(20, 1), (0, 8)] {
        let mut world = World::accepted(100, CaptureMethod::Automatic);
        world.report(TIMED_OUT);
        for _ in 0..steps_before {
            world.pass(3_600);
            world.unresolved().unwrap();
        }
        world.pass(3 * 86_400);
        for _ in 0..more {
            // Not at its next step, where it was not taken up at all.
            assert!(world.held().open_cases.is_empty());
            assert!(world.held().retries < POLICY.outcome.late_steps());
            world.pass(60);
            world.unresolved().unwrap();
        }
        assert_eq!(world.opened(), Some(RecoveryExhausted), "{steps_before}");
        // What a person has asked about is taken up as if it were young.
        world.retry(world.held().id);
        for _ in 0..20 {
            world.pass(60);
            world.unresolved().unwrap();
        }
        assert!(world.held().open_cases.is_empty());
    }
}

/// What may be a second payment is not dealt with by asking the provider of the first again.
#[test]
fn s24_a_retry_closes_only_that_recovery_gave_up() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(REFUSED);
    world.fail_over().unwrap();
    world.answer(FactKind::Pending);
    let id = world.held().id;
    let former = ProviderAccount::parse("sandbox").unwrap();
    world
        .decide(|record, _, stamp| {
            let fact = told(approved(100));
            let told = decide::told_by_former_account(record, id, &former, &fact, stamp);
            told.unwrap().ok_or(())
        })
        .unwrap();
    let contradicting = Some(ContradictingFact);
    assert_eq!(world.opened(), contradicting);
    while world.held().next_step_at.is_some() {
        world.pass(10_000);
        world.unresolved().unwrap();
    }
    assert_eq!(world.opened(), Some(RecoveryExhausted));
    let command = Retry {
        payment: world.record.payment.id,
        transaction: id,
        reason: Text::parse("the provider is back").unwrap(),
    };
    world
        .decide(|record, _, stamp| decide::retry(record, &command, stamp))
        .unwrap();
    assert_eq!(world.change().closes_cases, case(RecoveryExhausted, id));
    // So that verification does not miss the closing of the other.
    let leaf = quittance_evidence::Leaf::decode(world.change().entry.leaf.as_bytes()).unwrap();
    let told = &leaf.details[&format!("case_closed.{id}")];
    assert_eq!(told, "RECOVERY_EXHAUSTED");
    let left = OpenCases::NONE.with(ContradictingFact);
    assert_eq!(world.held().open_cases, left);
}

/// Truth that arrives late, after each end state.
#[test]
fn i3_a_late_success_after_each_end_state_is_applied_and_reported() {
    type Ending = fn(&mut World);
    let failed: Ending = |world| world.answer(FactKind::Failed(Cause::ProviderReportedFailure));
    let expired: Ending = |world| world.answer(FactKind::Expired);
    let refused: Ending = |world| world.answer(declined());
    let voided: Ending = |world| {
        world.report(REFUSED);
        world.void().unwrap();
        let id = world.record.transactions[0].id;
        world
            .decide(|record, _, stamp| try_give_up(record, id, stamp).ok_or(()))
            .unwrap();
    };
    // That what ran out had been authorized before is no contradiction; that it was captured is one.
    for (end, state, capture_method) in [
        (failed, PaymentState::Failed, CaptureMethod::Manual),
        (expired, PaymentState::Expired, CaptureMethod::Automatic),
        (refused, PaymentState::Declined, CaptureMethod::Manual),
        (voided, PaymentState::Voided, CaptureMethod::Manual),
    ] {
        let mut world = World::accepted(100, capture_method);
        let id = world.held().id;
        end(&mut world);
        assert_eq!(world.record.payment.state, state);
        assert!(world.learn(id, &told(approved(100))), "{state}");
        assert_eq!(world.opened(), Some(ContradictingFact));
        assert_eq!(world.record.payment.amounts.authorized, 100);
        assert_eq!(world.state_of(id), TransactionState::Succeeded);
    }
}

#[test]
fn i4_what_the_provider_has_taken_without_a_name_is_not_unsent() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let nameless = Fact {
        kind: FactKind::Pending,
        provider_reference: None,
        payment_reference: None,
    };
    world.report(SendOutcome::Answered(nameless));
    assert_eq!(ProvedUnsent::by_sends(world.held()), None);
    assert_eq!(world.fail_over(), Err(()));
}

/// Such a lookup is not authoritative, and the key may be forgotten by now.
#[test]
fn i4_what_the_provider_has_named_is_not_proved_unsent_by_a_lookup_that_misses_it() {
    let missed = |world: &World| {
        let held = world.held();
        let quiet = Quiet::judge(held, Duration::ZERO, world.now()).unwrap();
        ProvedUnsent::by_lookup(quiet, &world.record, held)
    };
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(TIMED_OUT);
    assert!(missed(&world).is_some());
    world.answer(FactKind::Pending);
    world.pass(25 * 3_600);
    assert_eq!(missed(&world), None);
    // What waits for its customer is there as well, whether it has a name or not.
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let nameless = Fact {
        kind: action(),
        provider_reference: None,
        payment_reference: None,
    };
    world.report(SendOutcome::Answered(nameless));
    world.confirm().unwrap();
    world.report(TIMED_OUT);
    assert_eq!(missed(&world), None);
    let mut world = World::captured(100);
    world.refund(Some(10)).unwrap();
    world.answer(FactKind::Pending);
    assert_eq!(missed(&world), None);
}

fn action() -> FactKind {
    FactKind::RequiresAction(crate::payment::NextAction {
        redirect_url: Sensitive::new("https://issuer.example/3ds".to_owned()),
        data: Sensitive::default(),
        may_take_days: false,
    })
}

/// An older "the customer has to act" tells nothing about a confirmation that is under way or of unknown outcome.
#[test]
fn i9_an_older_challenge_does_not_replace_a_confirmation() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.answer(action());
    world.confirm().unwrap();
    let id = world.held().id;
    assert!(!world.learn(id, &told(action())));
    world.report(TIMED_OUT);
    assert!(!world.learn(id, &told(action())));
    assert_eq!(world.state_of(id), TransactionState::Pending);
    assert!(world.held().next_step_at.is_some());
    assert!(world.learn(id, &told(approved(100))));
    assert_eq!(world.record.payment.state, PaymentState::Captured);
}

/// What was proved beside a reservation has room once the reservation is gone.
#[test]
fn i5_a_refund_that_had_no_room_is_booked_when_another_is_declined() {
    let mut world = World::captured(100);
    world.refund(None).unwrap();
    world.report(TIMED_OUT);
    world.pass(60);
    let first = world.held().id;
    world.resolve(Resolution::NotProcessed).unwrap();
    world.refund(None).unwrap();
    let second = world.held().id;
    assert!(world.learn(first, &told(approved(100))));
    assert_eq!(world.record.payment.amounts.excess, 100);
    assert!(world.learn(second, &told(declined())));
    let amounts = &world.record.payment.amounts;
    assert_eq!((amounts.refunded, amounts.excess), (100, 0));
    assert_eq!(world.record.payment.state, PaymentState::Refunded);
}

#[test]
fn i9_a_success_at_the_account_that_was_left_opens_a_case() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(REFUSED);
    world.fail_over().unwrap();
    world.answer(approved(100));
    let id = world.held().id;
    let left = ProviderAccount::parse("sandbox").unwrap();
    world
        .decide(|record, _, stamp| {
            decide::told_by_former_account(record, id, &left, &told(approved(100)), stamp)
                .unwrap()
                .ok_or(())
        })
        .unwrap();
    assert_eq!(world.opened(), Some(ContradictingFact));
    assert_eq!(world.record.payment.amounts.captured, 100);
}

#[test]
fn a_void_that_waits_is_due_once_the_customer_is_asked() {
    let mut world = World::accepted(100, CaptureMethod::Manual);
    world.void().unwrap();
    world.answer(action());
    let void = world.record.transactions.last().unwrap();
    assert!(void.next_step_at.is_some());
    assert!(decide::can_be_sent(
        &world.record,
        void,
        &world.rules,
        start()
    ));
}

#[test]
fn a_name_that_comes_after_a_time_out_is_kept() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(TIMED_OUT);
    let id = world.held().id;
    assert!(world.learn(id, &told(FactKind::Pending)));
    assert!(world.held().provider_reference.is_some());
    assert!(
        !world.learn(id, &told(FactKind::Pending)),
        "nothing new any more"
    );
}

#[test]
fn i9_an_older_answer_does_not_replace_a_confirmation_under_way() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let first = world.attempt();
    let id = world.held().id;
    assert!(world.learn(id, &told(action())));
    world.confirm().unwrap();
    let report = SendReport {
        outcome: SendOutcome::Answered(told(action())),
        latency_micros: 1_000,
        http_status: None,
        response: None,
        retry_after: None,
    };
    world
        .decide(|record, _, stamp| decide::outcome(record, &first, &report, stamp))
        .unwrap();
    assert_eq!(world.state_of(id), TransactionState::Pending);
    assert!(world.held().lease_until.is_some());
}

#[test]
fn a_void_is_never_too_late() {
    let mut world = World::authorized(100);
    world.void().unwrap();
    world.pass(2_000);
    world.report(REFUSED);
    let id = world.held().id;
    assert_eq!(world.state_of(id), TransactionState::Pending);
}

#[test]
fn s06_what_waits_for_the_customer_is_looked_at_on_a_schedule_of_its_own() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let id = world.newest();
    world.answer(action());
    // `jitter` is 0: due at once; without news it is deferred, whatever the step had waited for.
    for looks in 1..=200 {
        let held = world.held();
        assert_eq!(
            (held.state, held.retries),
            (TransactionState::RequiresAction, looks)
        );
        assert!(held.next_step_at.is_some());
        world.unresolved().unwrap();
    }
    // It is looked at once more when it is abandoned.
    let abandoned_at = world.held().updated_at + TimeDelta::days(1);
    assert_eq!(world.held().next_step_at, Some(abandoned_at));
    assert_eq!(world.unresolved(), Err(()), "not before");
    world.pass(86_400);
    world.looked_at(id);
    // Most such payments were simply left: nobody is asked, and nothing is proved.
    let held = world.held();
    assert_eq!(
        (held.state, held.next_step_at),
        (TransactionState::RequiresAction, None)
    );
    assert!(held.open_cases.is_empty());
    assert_eq!(world.unresolved(), Err(()));
    assert_eq!(world.record.payment.state, PaymentState::RequiresAction);
    // What is proved later still counts.
    assert!(world.learn(id, &told(approved(100))));
    assert_eq!(world.record.payment.state, PaymentState::Captured);
}

#[test]
fn s06_the_same_challenge_again_does_not_begin_the_schedule_anew() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let id = world.newest();
    world.answer(action());
    world.unresolved().unwrap();
    let (retries, due) = (world.held().retries, world.held().next_step_at);
    assert!(!world.learn(id, &told(action())));
    assert_eq!(
        (world.held().retries, world.held().next_step_at),
        (retries, due)
    );
    // A confirmation has a schedule of its own.
    world.confirm().unwrap();
    assert_eq!(world.held().retries, 0);
    world.report(REFUSED);
    assert_eq!(world.held().state, TransactionState::Pending);
}

pub(super) fn moved(amount: i64) -> Resolution {
    Resolution::Succeeded {
        provider_reference: None,
        amount: Some(eur(amount)),
    }
}

#[test]
fn s60_an_operator_says_what_was_really_moved_and_that_is_booked() {
    // More than was asked for, less than was asked for.
    for amount in [101, 80] {
        let mut world = World::accepted(100, CaptureMethod::Automatic);
        world.answer(approved(amount));
        assert_eq!(world.opened(), Some(AmountMismatch));
        world.resolve(moved(amount)).unwrap();
        let amounts = world.record.payment.amounts;
        assert_eq!((amounts.authorized, amounts.captured), (amount, amount));
        assert_eq!(world.record.payment.state, PaymentState::Captured);
        assert_eq!(
            (world.held().amount, world.held().open_cases),
            (amount, OpenCases::NONE)
        );
        assert_eq!(world.closed(), [world.held().id]);
    }
    let mut world = World::accepted(100, CaptureMethod::Manual);
    world.answer(approved(80));
    world.resolve(moved(80)).unwrap();
    assert_eq!(
        world.record.payment.amounts.capturable(),
        80,
        "partly authorized"
    );
}

#[test]
fn s60_what_was_held_back_for_another_amount_is_held_back_no_more() {
    for amount in [30, 70] {
        let mut world = World::authorized(100);
        world.capture(Some(60), false).unwrap();
        world.answer(approved(amount));
        world.resolve(moved(amount)).unwrap();
        let amounts = world.record.payment.amounts;
        assert_eq!((amounts.captured, amounts.capture_pending), (amount, 0));
        assert_eq!(amounts.capturable(), 100 - amount);
        world.refund(Some(amount)).unwrap();
        world.answer(approved(5));
        world.resolve(moved(5)).unwrap();
        let amounts = world.record.payment.amounts;
        assert_eq!((amounts.refunded, amounts.refund_pending), (5, 0));
    }
}

#[test]
fn s60_another_currency_than_the_payment_s_is_not_booked() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.answer(approved(101));
    let dollars = Money::new(101, Currency::parse("USD").unwrap()).unwrap();
    let refused = world.resolve(Resolution::Succeeded {
        provider_reference: None,
        amount: Some(dollars),
    });
    assert_eq!(
        refused,
        Err(DecideError::Rejected(Rejection::CurrencyDiffers))
    );
}

#[test]
fn s22_a_person_books_what_succeeded_after_its_end_where_nobody_was_told() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.answer(declined());
    // Whoever has not looked at it may mean what another one has decided meanwhile.
    let id = world.held().id;
    let state = TransactionState::Declined;
    let ended = Err(DecideError::Rejected(Rejection::TransactionEnded { state }));
    assert_eq!(world.resolve(succeeded()), ended);
    world.resolve_seen(id, succeeded()).unwrap();
    assert_eq!(world.record.payment.state, PaymentState::Captured);
    assert_eq!(world.record.payment.amounts.captured, 100);
    // Whoever was told otherwise is to be told.
    assert_eq!(world.opened(), Some(ContradictingFact));
    // What was never sent cannot have succeeded.
    let mut world = World::accepted(100, CaptureMethod::Manual);
    world.report(TIMED_OUT);
    let opening = world.held().id;
    world.void().unwrap();
    assert!(world.learn(opening, &told(declined())));
    let void = world.record.transactions.last().unwrap();
    let (id, state) = (void.id, void.state);
    assert_eq!((state, void.attempts), (TransactionState::Failed, 0));
    let ended = Err(DecideError::Rejected(Rejection::TransactionEnded { state }));
    assert_eq!(world.resolve_seen(id, succeeded()), ended);
}

#[test]
fn s60_what_was_really_moved_is_booked_though_the_transaction_had_ended() {
    let failed = || FactKind::Failed(Cause::ProviderReportedFailure);
    for end in [declined(), failed()] {
        let mut world = World::accepted(100, CaptureMethod::Automatic);
        world.answer(end);
        let state = world.held().state;
        let id = world.held().id;
        assert!(world.learn(id, &told(approved(80))));
        assert_eq!(world.opened(), Some(AmountMismatch));
        // It was moved, so nobody can say that it was not.
        let ended = Err(DecideError::Rejected(Rejection::TransactionEnded { state }));
        assert_eq!(world.resolve(Resolution::NotProcessed), ended);
        world.resolve(moved(80)).unwrap();
        assert_eq!(world.record.payment.state, PaymentState::Captured);
        assert_eq!(world.record.payment.amounts.captured, 80);
        assert_eq!(
            (world.held().amount, world.held().state),
            (80, TransactionState::Succeeded)
        );
        // Whoever was told otherwise is to be told.
        assert_eq!(world.closed(), [id]);
        assert_eq!(world.opened(), Some(ContradictingFact));
        let state = TransactionState::Succeeded;
        let ended = Err(DecideError::Rejected(Rejection::TransactionEnded { state }));
        assert_eq!(world.resolve(moved(70)), ended);
    }
    let mut world = World::authorized(100);
    world.capture(Some(60), false).unwrap();
    world.answer(failed());
    let id = world.held().id;
    assert!(world.learn(id, &told(approved(40))));
    world.resolve(moved(40)).unwrap();
    let amounts = world.record.payment.amounts;
    assert_eq!((amounts.captured, amounts.capture_pending), (40, 0));
    assert_eq!(amounts.capturable(), 60);
}
