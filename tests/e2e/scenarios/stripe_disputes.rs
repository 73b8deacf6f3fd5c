//! Disputes at Stripe, told by signed events: what was taken back, returned, or only asked about.

use quittance_proto::v1::{
    OperatorActionKind, Payment, PaymentState, Transaction, TransactionKind, TransactionOrigin,
    TransactionState,
};
use serde_json::{Value, json};

use crate::harness::played_stripe::PlayedStripeWorld;
use crate::harness::{Amounts as _, Cases as _, purchase, refund};

/// A dispute of a payment, as its events show it.
struct Dispute {
    id: &'static str,
    intent: String,
    amount: i64,
    currency: &'static str,
}

impl Dispute {
    fn of(payment: &Payment, id: &'static str) -> Self {
        Self {
            id,
            intent: payment.provider_reference.clone(),
            amount: 900,
            currency: "eur",
        }
    }

    fn object(&self, status: &str) -> Value {
        json!({
            "id": self.id, "object": "dispute", "status": status, "amount": self.amount, "currency": self.currency,
            "charge": "ch_disputed", "payment_intent": self.intent, "reason": "fraudulent",
            "evidence_details": {"due_by": 1_900_000_000},
        })
    }

    /// From now on it stands so: an event about that. What there is to it is applied.
    async fn tell(&self, world: &PlayedStripeWorld, event: &str, kind: &str, status: &str) {
        let object = self.object(status);
        self.tell_so(world, event, kind, &object).await;
    }

    async fn tell_so(&self, world: &PlayedStripeWorld, event: &str, kind: &str, object: &Value) {
        world.stripe.disputed(object);
        self.tell_late(world, event, kind, object).await;
    }

    /// An event about how it stood once.
    async fn tell_late(&self, world: &PlayedStripeWorld, event: &str, kind: &str, object: &Value) {
        let (kind, status) = (format!("charge.dispute.{kind}"), &object["status"]);
        let state = world.tell(event, &kind, object).await;
        assert!(
            ["APPLIED", "IGNORED"].contains(&state.as_str()),
            "{kind} {status}: {state}"
        );
    }
}

async fn paid(world: &PlayedStripeWorld) -> Payment {
    let payment = world.client.create(purchase("pm_card_visa", 900)).await;
    assert_eq!(payment.state(), PaymentState::Captured);
    payment
}

async fn now(world: &PlayedStripeWorld, payment: &Payment) -> Payment {
    world.client.payment(&payment.payment_id).await
}

/// What the network did: kind and state of each.
fn unasked(payment: &Payment) -> Vec<(TransactionKind, TransactionState)> {
    let rows = payment.transactions.iter().filter(|row| by_provider(row));
    rows.map(|row| (row.kind(), row.state())).collect()
}

fn by_provider(row: &Transaction) -> bool {
    row.origin() == TransactionOrigin::Provider
}

fn charged_back(payment: &Payment) -> i64 {
    payment.amount_charged_back.as_ref().unwrap().minor_units
}

const TAKEN: (TransactionKind, TransactionState) =
    (TransactionKind::Chargeback, TransactionState::Succeeded);
const RETURNED: (TransactionKind, TransactionState) = (
    TransactionKind::ChargebackReversal,
    TransactionState::Succeeded,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s44_a_dispute_at_stripe_takes_the_money_back_and_is_won_or_lost() {
    let world = PlayedStripeWorld::start().await;
    for (id, events, status) in [
        ("dp_won", ["evt_w1", "evt_w2", "evt_w3", "evt_w4"], "won"),
        ("dp_lost", ["evt_l1", "evt_l2", "evt_l3", "evt_l4"], "lost"),
    ] {
        let payment = paid(&world).await;
        let dispute = Dispute::of(&payment, id);
        dispute
            .tell(&world, events[0], "created", "needs_response")
            .await;
        dispute
            .tell(&world, events[1], "funds_withdrawn", "needs_response")
            .await;
        let taken = now(&world, &payment).await;
        assert_eq!(
            (taken.disputed, charged_back(&taken), unasked(&taken)),
            (true, 900, vec![TAKEN])
        );
        let about = taken
            .transactions
            .iter()
            .find(|row| by_provider(row))
            .unwrap();
        assert_eq!(about.provider_reference, id);
        let about = about.dispute.as_ref().unwrap();
        assert_eq!(about.reason, "fraudulent");
        dispute
            .tell(&world, events[2], "updated", "under_review")
            .await;
        dispute.tell(&world, events[3], "closed", status).await;
        let closed = now(&world, &payment).await;
        let won = status == "won";
        assert_eq!(closed.disputed, !won);
        assert_eq!(charged_back(&closed), if won { 0 } else { 900 });
        let expected = if won {
            vec![TAKEN, RETURNED]
        } else {
            vec![TAKEN]
        };
        assert_eq!(unasked(&closed), expected);
        assert_eq!(closed.captured(), 900);
    }
}

/// The Dashboard calls it "partially won": the status is `lost`, and what had been refunded comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s44_a_lost_dispute_at_stripe_returns_what_had_been_refunded_before_it() {
    let world = PlayedStripeWorld::start().await;
    for (id, events, amount, currency) in [
        ("dp_part", ["evt_p1", "evt_p2", "evt_p3"], 300, "eur"),
        ("dp_settled", ["evt_s1", "evt_s2", "evt_s3"], 330, "usd"),
    ] {
        let payment = paid(&world).await;
        world.client.ok(refund(&payment, 300)).await;
        let dispute = Dispute::of(&payment, id);
        dispute
            .tell(&world, events[0], "funds_withdrawn", "needs_response")
            .await;
        let mut object = dispute.object("lost");
        object["balance_transactions"] = json!([
            {"amount": -900, "currency": currency}, {"amount": amount, "currency": currency},
        ]);
        for (event, kind) in [(events[1], "funds_reinstated"), (events[2], "closed")] {
            dispute.tell_so(&world, event, kind, &object).await;
        }
        let closed = now(&world, &payment).await;
        assert_eq!((closed.refunded(), closed.disputed), (300, true));
        let row = closed.transactions.last().unwrap();
        assert_eq!(row.kind(), TransactionKind::ChargebackReversal);
        if currency == "eur" {
            assert_eq!((charged_back(&closed), row.state()), (600, RETURNED.1));
        } else {
            // What was returned is not said in the payment's currency.
            let case = OperatorActionKind::AmountMismatch;
            assert_eq!(
                (charged_back(&closed), row.open_operator_action()),
                (900, case)
            );
        }
    }
}

/// The issuer takes a dispute up again that was won, and wins it: what was returned is gone, in whatever order both are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s44_a_dispute_at_stripe_that_is_won_and_then_lost_is_charged_back_in_any_order() {
    let world = PlayedStripeWorld::start().await;
    let moved = |amounts: &[i64]| -> Value {
        let all = amounts.iter();
        all.map(|amount| json!({"amount": amount, "currency": "eur"}))
            .collect()
    };
    let stages = [
        ("created", "needs_response", moved(&[-900])),
        ("closed", "won", moved(&[-900, 900])),
        ("updated", "appeal_under_review", moved(&[-900, 900, -900])),
        ("closed", "lost", moved(&[-900, 900, -900])),
    ];
    for (number, order) in [[0, 1, 2, 3], [3, 2, 1, 0], [0, 3, 1, 2], [1, 3, 0, 2]]
        .into_iter()
        .enumerate()
    {
        let payment = paid(&world).await;
        let id = ["dp_0", "dp_1", "dp_2", "dp_3"][number];
        let dispute = Dispute::of(&payment, id);
        let object = |stage: usize| {
            let (_, status, moved) = &stages[stage];
            let mut object = dispute.object(status);
            object["balance_transactions"] = moved.clone();
            object
        };
        let in_order = number == 0;
        world.stripe.disputed(&object(3));
        for stage in order {
            if in_order {
                world.stripe.disputed(&object(stage));
            }
            let (event, kind) = (format!("evt_{number}_{stage}"), stages[stage].0);
            dispute
                .tell_late(&world, &event, kind, &object(stage))
                .await;
            if in_order && stage == 1 {
                let won = now(&world, &payment).await;
                assert_eq!((won.disputed, charged_back(&won)), (false, 0));
                assert_eq!(unasked(&won), [TAKEN, RETURNED]);
            }
        }
        let lost = now(&world, &payment).await;
        assert_eq!((lost.disputed, charged_back(&lost)), (true, 900), "{id}");
        if in_order {
            let row = lost.transactions.last().unwrap();
            let told_otherwise = OperatorActionKind::ContradictingFact;
            assert_eq!(
                (row.state(), row.open_operator_action()),
                (TransactionState::Reversed, told_otherwise)
            );
        } else {
            assert_eq!(unasked(&lost), [TAKEN], "{id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s44_an_inquiry_at_stripe_disputes_a_payment_until_it_is_closed_or_becomes_a_chargeback() {
    let world = PlayedStripeWorld::start().await;
    let payment = paid(&world).await;
    let inquiry = Dispute::of(&payment, "dp_asked");
    inquiry
        .tell(&world, "evt_a1", "created", "warning_needs_response")
        .await;
    inquiry
        .tell(&world, "evt_a2", "updated", "warning_under_review")
        .await;
    let asked = now(&world, &payment).await;
    assert_eq!((asked.disputed, charged_back(&asked)), (true, 0));
    assert_eq!(
        unasked(&asked),
        [(TransactionKind::Chargeback, TransactionState::Pending)]
    );
    inquiry
        .tell(&world, "evt_a3", "closed", "warning_closed")
        .await;
    let closed = now(&world, &payment).await;
    assert_eq!((closed.disputed, charged_back(&closed)), (false, 0));
    assert_eq!(
        unasked(&closed),
        [(TransactionKind::Chargeback, TransactionState::Failed)]
    );

    let payment = paid(&world).await;
    let inquiry = Dispute::of(&payment, "dp_escalated");
    inquiry
        .tell(&world, "evt_e1", "created", "warning_needs_response")
        .await;
    inquiry
        .tell(&world, "evt_e2", "funds_withdrawn", "needs_response")
        .await;
    let taken = now(&world, &payment).await;
    assert_eq!(
        (taken.disputed, charged_back(&taken), unasked(&taken)),
        (true, 900, vec![TAKEN])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s45_a_dispute_at_stripe_in_another_currency_waits_for_a_person() {
    let world = PlayedStripeWorld::start().await;
    let payment = paid(&world).await;
    let dollars = Dispute {
        amount: 1_000,
        currency: "usd",
        ..Dispute::of(&payment, "dp_dollars")
    };
    dollars
        .tell(&world, "evt_d1", "created", "needs_response")
        .await;
    dollars
        .tell(&world, "evt_d2", "funds_withdrawn", "needs_response")
        .await;
    let after = now(&world, &payment).await;
    assert_eq!((after.disputed, charged_back(&after)), (true, 0));
    let row = after
        .transactions
        .iter()
        .find(|row| by_provider(row))
        .unwrap();
    assert_eq!(
        (row.state(), row.open_operator_action()),
        (
            TransactionState::Pending,
            OperatorActionKind::AmountMismatch
        )
    );
    let about = row.dispute.as_ref().unwrap().amount.as_ref().unwrap();
    assert_eq!(
        (about.minor_units, about.currency_code.as_str()),
        (1_000, "USD")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s52_events_of_a_dispute_at_stripe_in_any_order_and_repeated_end_the_same() {
    let world = PlayedStripeWorld::start().await;
    let told = [
        ("created", "needs_response"),
        ("funds_withdrawn", "needs_response"),
        ("closed", "won"),
        ("funds_reinstated", "won"),
    ];
    for (id, order, names) in [
        (
            "dp_reversed",
            [3, 2, 1, 0],
            ["evt_r0", "evt_r1", "evt_r2", "evt_r3"],
        ),
        (
            "dp_mixed",
            [2, 0, 3, 1],
            ["evt_m0", "evt_m1", "evt_m2", "evt_m3"],
        ),
    ] {
        let payment = paid(&world).await;
        let dispute = Dispute::of(&payment, id);
        world.stripe.disputed(&dispute.object("won"));
        for at in order {
            let (kind, status) = told[at];
            let object = dispute.object(status);
            // The same again is known.
            for _ in 0..2 {
                dispute.tell_late(&world, names[at], kind, &object).await;
            }
        }
        let after = now(&world, &payment).await;
        assert_eq!((after.disputed, charged_back(&after)), (false, 0), "{id}");
        let mut rows = unasked(&after);
        rows.sort_unstable_by_key(|(kind, _)| i32::from(*kind));
        assert_eq!(rows, [TAKEN, RETURNED], "{id}");
    }
    let cases = "select count(*) from operator_actions";
    assert_eq!(world.db.number(cases).await, 0);
}
