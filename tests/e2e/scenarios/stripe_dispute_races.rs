//! Two events of one dispute at once: while Stripe is asked about the first, the dispute goes on, and the next one is told.
//! Whatever was asked first, and answered last, the payment ends as the dispute does.

use quittance_proto::v1::{Payment, PaymentState, Transaction, TransactionKind, TransactionState};
use serde_json::{Value, json};

use crate::harness::played_stripe::PlayedStripeWorld;
use crate::harness::purchase;

struct Disputed {
    world: PlayedStripeWorld,
    payment: Payment,
}

impl Disputed {
    /// A payment that its customer disputes: the money is taken back.
    async fn start() -> Self {
        let world = PlayedStripeWorld::start().await;
        let payment = world.client.create(purchase("pm_card_visa", 900)).await;
        assert_eq!(payment.state(), PaymentState::Captured);
        let disputed = Self { world, payment };
        let taken = disputed.stands("needs_response", &[-900]);
        assert_eq!(
            disputed.tell("evt_taken", "created", &taken).await,
            "APPLIED"
        );
        assert_eq!(disputed.charged_back().await, 900);
        disputed
    }

    /// From now on it stands so at Stripe, which withdrew and returned these amounts.
    fn stands(&self, status: &str, moved: &[i64]) -> Value {
        let moved: Value = moved
            .iter()
            .map(|amount| json!({"amount": amount, "currency": "eur"}))
            .collect();
        let dispute = json!({
            "id": "du_1", "object": "dispute", "status": status, "amount": 900, "currency": "eur",
            "charge": "ch_1", "payment_intent": self.payment.provider_reference, "reason": "fraudulent",
            "evidence_details": null, "balance_transactions": moved,
        });
        self.world.stripe.disputed(&dispute);
        dispute
    }

    fn won(&self) -> Value {
        self.stands("won", &[-900, 900])
    }

    /// The issuer took it up again, and lost nothing but time.
    fn lost(&self) -> Value {
        self.stands("lost", &[-900, 900, -900])
    }

    fn won_again(&self) -> Value {
        self.stands("won", &[-900, 900, -900, 900])
    }

    async fn tell(&self, event: &str, kind: &str, dispute: &Value) -> String {
        let kind = format!("charge.dispute.{kind}");
        self.world.tell(event, &kind, dispute).await
    }

    /// An event whose question to Stripe is answered so late that the other ones are dealt with before.
    async fn told_slowly(
        &self,
        event: &str,
        dispute: &Value,
        meanwhile: impl AsyncFnOnce(),
    ) -> String {
        let mut answer = self.world.stripe.hold_dispute();
        self.world
            .deliver(event, "charge.dispute.closed", dispute)
            .await;
        answer.made().await;
        meanwhile().await;
        answer.let_go();
        self.world.ended(event).await
    }

    async fn charged_back(&self) -> i64 {
        let payment = self.world.now(&self.payment).await;
        payment.amount_charged_back.unwrap().minor_units
    }

    /// What became of what was returned; `None` where nothing ever was.
    async fn returned(&self) -> Option<TransactionState> {
        let payment = self.world.now(&self.payment).await;
        let mut rows = payment.transactions.iter();
        let reversal = rows.find(|row| row.kind() == TransactionKind::ChargebackReversal);
        reversal.map(Transaction::state)
    }
}

/// That it was lost after all takes back nothing, since nothing is returned yet: and then it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s52_a_dispute_that_is_lost_while_stripe_is_asked_whether_it_was_won_is_lost() {
    let disputed = Disputed::start().await;
    let won = disputed.won();
    let lost = async || {
        let lost = disputed.lost();
        assert_eq!(disputed.tell("evt_lost", "closed", &lost).await, "IGNORED");
    };
    disputed.told_slowly("evt_won", &won, lost).await;
    assert_eq!(disputed.charged_back().await, 900);
    assert_eq!(disputed.returned().await, Some(TransactionState::Reversed));
    disputed.world.everything_agrees().await;
}

/// That it was won again is no news as long as it is not known that it was lost in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s52_a_dispute_that_is_won_again_while_stripe_is_asked_whether_it_was_lost_is_won() {
    let disputed = Disputed::start().await;
    let won = disputed.won();
    assert_eq!(disputed.tell("evt_won", "closed", &won).await, "APPLIED");
    assert_eq!(disputed.charged_back().await, 0);
    let lost = disputed.lost();
    let won_again = async || {
        let won = disputed.won_again();
        assert_eq!(disputed.tell("evt_again", "closed", &won).await, "IGNORED");
    };
    disputed.told_slowly("evt_lost", &lost, won_again).await;
    assert_eq!(disputed.charged_back().await, 0);
    assert_eq!(disputed.returned().await, Some(TransactionState::Succeeded));
    disputed.world.everything_agrees().await;
}

/// What was answered about an older version of the payment is not applied to a newer one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s52_an_answer_of_stripe_s_that_others_have_overtaken_is_not_applied() {
    let disputed = Disputed::start().await;
    let won = disputed.won();
    assert_eq!(disputed.tell("evt_won", "closed", &won).await, "APPLIED");
    let lost = disputed.lost();
    let mut version = 0;
    let goes_on = async || {
        assert_eq!(disputed.tell("evt_seen", "updated", &lost).await, "APPLIED");
        assert_eq!(disputed.charged_back().await, 900);
        let won = disputed.won_again();
        assert_eq!(disputed.tell("evt_again", "closed", &won).await, "APPLIED");
        version = disputed.world.now(&disputed.payment).await.version;
    };
    disputed.told_slowly("evt_lost", &lost, goes_on).await;
    assert_eq!(disputed.charged_back().await, 0);
    let after = disputed.world.now(&disputed.payment).await;
    assert_eq!(after.version, version, "nothing was booked and taken back");
    disputed.world.everything_agrees().await;
}

/// Stripe is asked once more after the reversal is booked, and has no answer just then: the webhook is not done with, since
/// nobody else would tell that the dispute was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s52_a_dispute_that_is_lost_meanwhile_is_lost_though_stripe_fails_to_say_so_at_first() {
    let disputed = Disputed::start().await;
    let won = disputed.won();
    let lost = async || {
        let lost = disputed.lost();
        assert_eq!(disputed.tell("evt_lost", "closed", &lost).await, "IGNORED");
        disputed.world.stripe.fail_dispute();
    };
    disputed.told_slowly("evt_won", &won, lost).await;
    assert_eq!(disputed.charged_back().await, 900);
    assert_eq!(disputed.returned().await, Some(TransactionState::Reversed));
    let tried = "select attempts::bigint from webhook_inbox where event_id = 'evt_won'";
    assert!(disputed.world.db.number(tried).await > 1);
    disputed.world.everything_agrees().await;
}

/// What was applied is called so, though nothing was left to apply once its last question was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s52_a_webhook_of_a_dispute_whose_last_question_is_answered_late_was_applied_all_the_same()
{
    let disputed = Disputed::start().await;
    let won = disputed.won();
    let no_answer = async || disputed.world.stripe.fail_dispute();
    let became = disputed.told_slowly("evt_won", &won, no_answer).await;
    let tried = "select attempts::bigint from webhook_inbox where event_id = 'evt_won'";
    assert!(disputed.world.db.number(tried).await > 1, "it was parked");
    assert_eq!(became, "APPLIED");
    assert_eq!(disputed.returned().await, Some(TransactionState::Succeeded));
    assert_eq!(disputed.tell("evt_late", "closed", &won).await, "IGNORED");
    disputed.world.everything_agrees().await;
}

/// Stripe moved the date, and its older event comes late: of two events nothing says which is the older, so it is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s51_an_older_event_does_not_bring_back_an_older_date_of_a_dispute() {
    let disputed = Disputed::start().await;
    let due = |at: i64| {
        let mut dispute = disputed.stands("needs_response", &[-900]);
        dispute["evidence_details"] = json!({"due_by": at});
        disputed.world.stripe.disputed(&dispute);
        dispute
    };
    let shown = async || {
        let payment = disputed.world.now(&disputed.payment).await;
        let taken = payment.transactions.last().unwrap();
        let dispute = taken.dispute.as_ref().unwrap();
        dispute.due_time.as_ref().map(|due| due.seconds)
    };
    let older = due(1_800_000_000);
    let newer = due(1_800_600_000);
    for (event, dispute, became) in [
        ("evt_newer", &newer, "APPLIED"),
        ("evt_older", &older, "IGNORED"),
    ] {
        assert_eq!(disputed.tell(event, "updated", dispute).await, became);
        assert_eq!(shown().await, Some(1_800_600_000), "{event}");
    }
    // While it cannot be asked, what is known stays.
    disputed.world.stripe.fail_dispute();
    assert_eq!(
        disputed.tell("evt_older_again", "updated", &older).await,
        "IGNORED"
    );
    assert_eq!(shown().await, Some(1_800_600_000));
    disputed.world.everything_agrees().await;
}
