//! What becomes of a payment before anybody hears of it, and how it comes to that.
//!
//! A customer who fails and then pays all the same is not among them: a person is asked about that where the decline had
//! been told, and is not where it never was.

use futures::stream::{self, StreamExt as _};
use quittance_proto::v1::{CreatePaymentRequest, Payment, PaymentState};

use super::super::kills_under_load::Chance;
use super::{Stage, Told, at_adyen, at_stripe};
use crate::harness::adyen::{
    ADYEN, APPROVED, PARTLY, REDIRECTED, adyen_authorization, adyen_purchase,
};
use crate::harness::played_stripe;
use crate::harness::site::{ACCOUNT, SANDBOX_KEY};
use crate::harness::stripe::STRIPE;
use crate::harness::webhooks::client;
use crate::harness::{
    Client, Keyed as _, Site, authorization, capture, confirm, purchase, refund, void,
};

/// Payments made at once.
const MAKERS: usize = 8;

/// What becomes of a payment before anybody hears of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Life {
    PendingThenPaid,
    PendingThenDeclined,
    PaidForAnotherAmount,
    CustomerPasses,
    CustomerFails,
    RefundThatFails,
    CapturesAndVoid,
    CaptureThatFails,
    AdyenRefundTakenBack,
    AdyenCaptureTakenBack,
    AdyenCancelled,
    AdyenChargebackReturned,
    AdyenExpires,
    AdyenExpiresInPart,
    AdyenCustomerPays,
    AdyenCustomerPaysThenExpires,
    AdyenCustomerFails,
    AdyenCustomerLeaves,
    AdyenPartly,
    AdyenPartlyThenExpires,
    AdyenCaptureOfAnotherAmount,
    AdyenRefundOfAnotherAmountTakenBack,
    StripeRefundThatFails,
    StripeRefundsInDashboard,
    StripeDisputeWon,
    StripeDisputeWonThenLost,
    StripeDisputeWonAgain,
    StripeInquiry,
    StripeInquiryThenLost,
    StripeExpires,
    StripeCustomerPays,
    StripeCustomerPaysThenExpires,
    StripeCustomerFails,
    StripeCustomerLeaves,
    StripeAnotherAmount,
    StripeAnotherAmountThenExpires,
}

impl Life {
    const ALL: [Self; 36] = [
        Self::PendingThenPaid,
        Self::PendingThenDeclined,
        Self::PaidForAnotherAmount,
        Self::CustomerPasses,
        Self::CustomerFails,
        Self::RefundThatFails,
        Self::CapturesAndVoid,
        Self::CaptureThatFails,
        Self::AdyenRefundTakenBack,
        Self::AdyenCaptureTakenBack,
        Self::AdyenCancelled,
        Self::AdyenChargebackReturned,
        Self::AdyenExpires,
        Self::AdyenExpiresInPart,
        Self::AdyenCustomerPays,
        Self::AdyenCustomerPaysThenExpires,
        Self::AdyenCustomerFails,
        Self::AdyenCustomerLeaves,
        Self::AdyenPartly,
        Self::AdyenPartlyThenExpires,
        Self::AdyenCaptureOfAnotherAmount,
        Self::AdyenRefundOfAnotherAmountTakenBack,
        Self::StripeRefundThatFails,
        Self::StripeRefundsInDashboard,
        Self::StripeDisputeWon,
        Self::StripeDisputeWonThenLost,
        Self::StripeDisputeWonAgain,
        Self::StripeInquiry,
        Self::StripeInquiryThenLost,
        Self::StripeExpires,
        Self::StripeCustomerPays,
        Self::StripeCustomerPaysThenExpires,
        Self::StripeCustomerFails,
        Self::StripeCustomerLeaves,
        Self::StripeAnotherAmount,
        Self::StripeAnotherAmountThenExpires,
    ];

    /// How many events it has: all of them are awaited before any is delivered.
    pub(super) const fn events(self) -> u64 {
        match self {
            Self::PendingThenPaid
            | Self::PendingThenDeclined
            | Self::PaidForAnotherAmount
            | Self::CustomerPasses
            | Self::CustomerFails
            | Self::AdyenCustomerPays
            | Self::AdyenCustomerLeaves
            | Self::AdyenPartly => 1,
            Self::CaptureThatFails
            | Self::AdyenCancelled
            | Self::AdyenExpires
            | Self::AdyenCustomerPaysThenExpires
            | Self::AdyenCustomerFails
            | Self::AdyenPartlyThenExpires
            | Self::AdyenCaptureOfAnotherAmount
            | Self::StripeCustomerPays
            | Self::StripeCustomerFails
            | Self::StripeCustomerLeaves
            | Self::StripeAnotherAmount => 2,
            Self::RefundThatFails
            | Self::AdyenRefundTakenBack
            | Self::AdyenCaptureTakenBack
            | Self::AdyenChargebackReturned
            | Self::AdyenExpiresInPart
            | Self::AdyenRefundOfAnotherAmountTakenBack
            | Self::StripeDisputeWon
            | Self::StripeExpires
            | Self::StripeAnotherAmountThenExpires => 3,
            Self::CapturesAndVoid
            | Self::StripeRefundThatFails
            | Self::StripeInquiry
            | Self::StripeCustomerPaysThenExpires => 4,
            Self::StripeRefundsInDashboard
            | Self::StripeDisputeWonThenLost
            | Self::StripeInquiryThenLost => 5,
            Self::StripeDisputeWonAgain => 6,
        }
    }

    /// The other amount that was told, where a person has to say what holds in the end.
    pub(super) const fn waits_with(self) -> Option<i64> {
        match self {
            Self::PaidForAnotherAmount => Some(395),
            Self::AdyenPartly => Some(250),
            Self::AdyenCaptureOfAnotherAmount => Some(650),
            Self::StripeAnotherAmount => Some(899),
            _ => None,
        }
    }

    /// How it begins.
    fn first(self) -> CreatePaymentRequest {
        match self {
            Self::PendingThenPaid => at(ACCOUNT, purchase("tok_pending_then_approve", 400)),
            Self::PendingThenDeclined => at(ACCOUNT, purchase("tok_pending_then_decline", 500)),
            Self::PaidForAnotherAmount => at(
                ACCOUNT,
                purchase("tok_pending_then_approve?amount_delta=-5", 400),
            ),
            Self::CustomerPasses | Self::CustomerFails => {
                // The answer to the confirmation is lost: what the customer did is told by webhook.
                at(
                    ACCOUNT,
                    purchase("tok_requires_action?confirm.status_after=500", 450),
                )
            }
            Self::RefundThatFails => at(ACCOUNT, purchase("tok_approve", 600)),
            Self::CapturesAndVoid => at(ACCOUNT, authorization("tok_approve", 700)),
            Self::CaptureThatFails => at(ACCOUNT, authorization("tok_capture_fails", 800)),
            Self::AdyenRefundTakenBack
            | Self::AdyenChargebackReturned
            | Self::AdyenRefundOfAnotherAmountTakenBack => at(ADYEN, adyen_purchase(APPROVED, 600)),
            Self::AdyenCaptureTakenBack
            | Self::AdyenCancelled
            | Self::AdyenExpires
            | Self::AdyenExpiresInPart
            | Self::AdyenCaptureOfAnotherAmount => at(ADYEN, adyen_authorization(APPROVED, 700)),
            Self::AdyenCustomerPays | Self::AdyenCustomerFails => {
                at(ADYEN, adyen_purchase(REDIRECTED, 650))
            }
            Self::AdyenCustomerPaysThenExpires | Self::AdyenCustomerLeaves => {
                at(ADYEN, adyen_authorization(REDIRECTED, 650))
            }
            Self::AdyenPartly => at(ADYEN, adyen_purchase(PARTLY, 500)),
            Self::AdyenPartlyThenExpires => at(ADYEN, adyen_authorization(PARTLY, 500)),
            Self::StripeRefundThatFails
            | Self::StripeRefundsInDashboard
            | Self::StripeDisputeWon
            | Self::StripeDisputeWonThenLost
            | Self::StripeDisputeWonAgain
            | Self::StripeInquiry
            | Self::StripeInquiryThenLost => at(STRIPE, purchase("pm_card_visa", 900)),
            Self::StripeExpires => at(STRIPE, authorization("pm_card_visa", 900)),
            Self::StripeCustomerPays
            | Self::StripeCustomerFails
            | Self::StripeCustomerLeaves
            | Self::StripeAnotherAmount => at(STRIPE, purchase(played_stripe::REDIRECTED, 900)),
            Self::StripeCustomerPaysThenExpires | Self::StripeAnotherAmountThenExpires => {
                at(STRIPE, authorization(played_stripe::REDIRECTED, 900))
            }
        }
    }
}

/// Lives of so many events, each kind at least once.
pub(super) fn lives(webhooks: u64, chance: &mut Chance) -> Vec<Life> {
    let mut lives = Life::ALL.to_vec();
    let mut planned: u64 = lives.iter().map(|life| life.events()).sum();
    while planned < webhooks {
        let kinds = u64::try_from(Life::ALL.len()).unwrap();
        let life = Life::ALL[usize::try_from(chance.below(kinds)).unwrap()];
        planned += life.events();
        lives.push(life);
    }
    lives
}

fn at(account: &str, request: CreatePaymentRequest) -> CreatePaymentRequest {
    CreatePaymentRequest {
        provider_account: account.to_owned(),
        ..request
    }
}

async fn control(site: &Site, payment: &Payment, what: &str) {
    let reference = &payment.provider_reference;
    let base = site.sandbox.base_url();
    let url = format!("{base}/control/payments/{reference}/{what}");
    let answer = client().post(url).bearer_auth(SANDBOX_KEY);
    let status = answer.send().await.unwrap().status();
    assert!(status.is_success(), "{what}: {status}");
}

/// Its id, and what is told of it by others than the sandbox.
async fn live(site: &Stage, client: &Client, life: Life, key: &str) -> (String, Vec<Told>) {
    let payment = client.create(life.first().key(key)).await;
    let told = match payment.provider_account.as_str() {
        ADYEN => at_adyen::live(site, client, life, (&payment, key)).await,
        STRIPE => at_stripe::live(site, client, life, (&payment, key)).await,
        _ => {
            live_at_sandbox(site, client, life, (&payment, key)).await;
            Vec::new()
        }
    };
    (payment.payment_id, told)
}

async fn live_at_sandbox(
    site: &Stage,
    client: &Client,
    life: Life,
    (payment, key): (&Payment, &str),
) {
    match life {
        Life::PendingThenPaid | Life::PendingThenDeclined | Life::PaidForAnotherAmount => {
            assert_eq!(payment.state(), PaymentState::Pending);
            control(site, payment, "settle").await;
        }
        Life::CustomerPasses | Life::CustomerFails => {
            assert_eq!(payment.state(), PaymentState::RequiresAction);
            let passes = matches!(life, Life::CustomerPasses);
            let challenge = if passes { "passed" } else { "failed" };
            let request = confirm(payment, challenge).key(&format!("{key}-a"));
            let answer = client.ok(request).await.message.payment.unwrap();
            assert_eq!(answer.state(), PaymentState::Pending);
        }
        Life::RefundThatFails => {
            client
                .ok(refund(payment, 250).key(&format!("{key}-r")))
                .await;
            control(site, payment, "fail_refund").await;
        }
        Life::CapturesAndVoid => {
            for (part, name) in [(30, "c1"), (20, "c2")] {
                let request = capture(payment, part).key(&format!("{key}-{name}"));
                client.ok(request).await;
            }
            client.ok(void(payment).key(&format!("{key}-v"))).await;
        }
        Life::CaptureThatFails => {
            client
                .ok(capture(payment, None).key(&format!("{key}-c")))
                .await;
            control(site, payment, "settle").await;
        }
        other => panic!("{other:?} is no life at the sandbox"),
    }
}

/// Makes the payments of these lives: their ids, in the same order, and what is told of them.
pub(super) async fn make(
    site: &Stage,
    client: &Client,
    lives: &[Life],
    prefix: &str,
) -> Vec<(String, Vec<Told>)> {
    let making = lives.iter().enumerate().map(|(number, life)| {
        let key = format!("{prefix}-{number}");
        async move { live(site, client, *life, &key).await }
    });
    stream::iter(making).buffered(MAKERS).collect().await
}
