//! Lives of payments at Stripe, which can be asked what holds now: whatever is told, it is at the end of its life.

use quittance_proto::v1::Payment;
use serde_json::{Value as Json, json};

use super::lives::Life;
use super::{Stage, Told};
use crate::harness::played_stripe::{PlayedStripe, charge, event};
use crate::harness::{Client, Keyed as _, refund};

type Named = (&'static str, Json);

const ASKED: &str = "payment_intent.requires_action";
const AUTHORIZED: &str = "payment_intent.amount_capturable_updated";

/// The customer, sent to the issuer's page, comes back from there with this.
fn comes_back(status: &str, amount: (&str, i64)) -> [(&'static str, Json); 4] {
    let (name, amount) = amount;
    let received = if name == "amount_received" { amount } else { 0 };
    [
        ("status", json!(status)),
        ("amount_received", json!(received)),
        ("amount_capturable", json!(amount - received)),
        ("next_action", Json::Null),
    ]
}

/// Stripe lets it run out: what it says then of the payment.
fn runs_out(stripe: &PlayedStripe, intent: &Json) -> Json {
    let canceled = [
        ("status", json!("canceled")),
        ("cancellation_reason", json!("automatic")),
        ("amount_capturable", json!(0)),
        ("next_action", Json::Null),
    ];
    stripe.becomes(intent, &canceled)
}

/// What is told of a payment that was, or is to be, authorized by its customer's authentication, or not.
fn told_of_customer(stripe: &PlayedStripe, life: Life, intent: Json) -> Vec<Named> {
    let paid = |amount| stripe.becomes(&intent, &comes_back("succeeded", amount));
    let authorized = |amount| {
        let held = ("amount_capturable", amount);
        stripe.becomes(&intent, &comes_back("requires_capture", held))
    };
    let later = match life {
        Life::StripeCustomerPays => {
            vec![("payment_intent.succeeded", paid(("amount_received", 900)))]
        }
        Life::StripeAnotherAmount => {
            vec![("payment_intent.succeeded", paid(("amount_received", 899)))]
        }
        Life::StripeCustomerFails => {
            let failed = comes_back("requires_payment_method", ("amount_received", 0));
            let _ = stripe.becomes(&intent, &failed);
            let error =
                json!({"type": "card_error", "code": "payment_intent_authentication_failure"});
            let failed = stripe.becomes(&intent, &[("last_payment_error", error)]);
            vec![("payment_intent.payment_failed", failed)]
        }
        Life::StripeCustomerLeaves => {
            vec![("payment_intent.canceled", runs_out(stripe, &intent))]
        }
        Life::StripeCustomerPaysThenExpires => {
            let held = authorized(900);
            vec![
                (AUTHORIZED, held),
                ("charge.expired", charge(&intent)),
                ("payment_intent.canceled", runs_out(stripe, &intent)),
            ]
        }
        Life::StripeAnotherAmountThenExpires => {
            let held = authorized(899);
            vec![
                (AUTHORIZED, held),
                ("payment_intent.canceled", runs_out(stripe, &intent)),
            ]
        }
        other => panic!("{other:?} asks no customer at Stripe"),
    };
    std::iter::once((ASKED, intent)).chain(later).collect()
}

/// An event of a dispute, and how it stands then: its status, what was withdrawn and returned, and its date.
type Disputed = (&'static str, (&'static str, &'static [i64], i64));

const CREATED: &str = "charge.dispute.created";
const UPDATED: &str = "charge.dispute.updated";
const WITHDRAWN: &str = "charge.dispute.funds_withdrawn";
const REINSTATED: &str = "charge.dispute.funds_reinstated";
const CLOSED: &str = "charge.dispute.closed";

/// How a dispute of 9 euros goes on, as its events tell.
fn disputed(life: Life) -> &'static [Disputed] {
    const DUE: i64 = 1_900_000_000;
    const LATER: i64 = DUE + 86_400;
    const TAKEN: &[i64] = &[-900];
    const WON: &[i64] = &[-900, 900];
    const LOST: &[i64] = &[-900, 900, -900];
    const WON_AGAIN: &[i64] = &[-900, 900, -900, 900];
    match life {
        Life::StripeDisputeWon => &[
            (CREATED, ("needs_response", TAKEN, DUE)),
            (CLOSED, ("won", WON, DUE)),
        ],
        Life::StripeDisputeWonThenLost => &[
            (CREATED, ("needs_response", TAKEN, DUE)),
            (UPDATED, ("under_review", TAKEN, LATER)),
            (CLOSED, ("won", WON, LATER)),
            (CLOSED, ("lost", LOST, LATER)),
        ],
        Life::StripeDisputeWonAgain => &[
            (CREATED, ("needs_response", TAKEN, DUE)),
            (CLOSED, ("won", WON, DUE)),
            (UPDATED, ("lost", LOST, LATER)),
            (REINSTATED, ("won", WON_AGAIN, LATER)),
            (CLOSED, ("won", WON_AGAIN, LATER)),
        ],
        Life::StripeInquiry => &[
            (CREATED, ("warning_needs_response", &[], DUE)),
            (UPDATED, ("warning_under_review", &[], LATER)),
            (CLOSED, ("warning_closed", &[], LATER)),
        ],
        Life::StripeInquiryThenLost => &[
            (CREATED, ("warning_needs_response", &[], DUE)),
            (WITHDRAWN, ("needs_response", TAKEN, LATER)),
            (UPDATED, ("under_review", TAKEN, LATER)),
            (CLOSED, ("lost", TAKEN, LATER)),
        ],
        other => panic!("{other:?} is not disputed"),
    }
}

/// A payment at Stripe, and what is told of it, oldest first.
pub(super) async fn live(
    stage: &Stage,
    client: &Client,
    life: Life,
    (payment, key): (&Payment, &str),
) -> Vec<Told> {
    let stripe = &stage.stripe;
    let intent = stripe.intent(&payment.payment_id);
    let refunded = || ("charge.refunded", charge(&intent));
    let paid = ("payment_intent.succeeded", intent.clone());
    let told = match life {
        Life::StripeRefundThatFails => {
            let request = refund(payment, 300).key(&format!("{key}-2"));
            client.ok(request).await;
            let made = stripe.refunds(&intent).remove(0);
            let failed = stripe.fail(&made);
            let (made, failed) = (("refund.created", made), ("refund.failed", failed));
            vec![paid, made, refunded(), failed]
        }
        Life::StripeRefundsInDashboard => {
            // They look alike.
            let [one, two] =
                [200, 200].map(|amount| ("refund.created", stripe.refund(&intent, amount)));
            vec![paid, refunded(), one, refunded(), two]
        }
        Life::StripeDisputeWon
        | Life::StripeDisputeWonThenLost
        | Life::StripeDisputeWonAgain
        | Life::StripeInquiry
        | Life::StripeInquiryThenLost => {
            let (events, stands): (Vec<_>, Vec<_>) = disputed(life).iter().copied().unzip();
            let told = stripe.dispute(&intent, &stands);
            std::iter::once(paid)
                .chain(events.into_iter().zip(told))
                .collect()
        }
        Life::StripeExpires => {
            let gone = ("payment_intent.canceled", runs_out(stripe, &intent));
            let charged = ("charge.expired", charge(&intent));
            vec![(AUTHORIZED, intent), charged, gone]
        }
        customer_s => told_of_customer(stripe, customer_s, intent),
    };
    let told = told.iter().enumerate().map(|(number, (kind, object))| {
        let id = format!("evt_{}_{number}", payment.payment_id);
        Told::Stripe(event(&id, kind, object))
    });
    told.collect()
}
