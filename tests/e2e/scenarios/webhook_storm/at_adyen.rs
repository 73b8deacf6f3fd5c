//! Lives of payments at Adyen, which tells everything by webhook and cannot be asked.

use quittance_proto::v1::{CapturePaymentRequest, Payment, PaymentState};
use serde_json::{Value as Json, json};

use super::lives::Life;
use super::{Stage, Told};
use crate::harness::adyen::{Processed, item};
use crate::harness::{Client, Keyed as _, capture, refund, void};

/// A payment, and what Adyen has to say of it.
struct Story<'a> {
    stage: &'a Stage,
    payment: &'a Payment,
    opening: Processed,
}

impl Story<'_> {
    /// What Adyen processed of it at paths that end so; the last of it.
    fn last(&self, path: &str) -> Processed {
        let id = self.payment.payment_id.replace('-', "");
        self.stage.adyen.last_of(path, &id)
    }

    /// What became of its authorization.
    fn authorized(&self, done: bool) -> Json {
        let mut told = item("AUTHORISATION", &self.opening, None);
        told["success"] = json!(done.to_string());
        if !done {
            told["reason"] = json!("3D Not Authenticated");
        }
        if self.opening.answer["amount"].is_object() {
            told["amount"] = self.opening.answer["amount"].clone();
        }
        told
    }

    /// What became of its modification at paths that end so.
    fn modified(&self, event: &str, path: &str) -> Json {
        let mut told = item(event, &self.last(path), Some(&self.opening));
        if told["amount"].is_null() {
            told["amount"] = self.opening.body["amount"].clone();
        }
        told
    }

    /// The customer never completed it: this has a name of its own, and gives none to the payment.
    fn closed(&self) -> Json {
        let mut told = self.about("OFFER_CLOSED", "CLOSED");
        told["originalReference"] = Json::Null;
        told
    }

    /// What has a name of its own.
    fn about(&self, event: &str, named: &str) -> Json {
        let mut told = item(event, &self.opening, Some(&self.opening));
        told["pspReference"] = json!(self.opening.psp_reference().replace("PAYMENT", named));
        told
    }

    /// The caller asks for more, and what is told of that.
    async fn goes_on(&self, client: &Client, life: Life, key: &str) -> Vec<Json> {
        let payment = self.payment;
        let more = match life {
            Life::AdyenRefundTakenBack | Life::AdyenRefundOfAnotherAmountTakenBack => {
                client.ok(refund(payment, 600).key(key)).await;
                let told = ["REFUND", "REFUND_FAILED"];
                let [mut done, undone] = told.map(|event| self.modified(event, "/refunds"));
                if matches!(life, Life::AdyenRefundOfAnotherAmountTakenBack) {
                    done["amount"]["value"] = json!(550);
                }
                vec![done, undone]
            }
            Life::AdyenCaptureTakenBack => {
                client.ok(capture(payment, None).key(key)).await;
                let told = ["CAPTURE", "CAPTURE_FAILED"];
                told.map(|event| self.modified(event, "/captures")).to_vec()
            }
            Life::AdyenCaptureOfAnotherAmount => {
                client.ok(capture(payment, None).key(key)).await;
                let mut captured = self.modified("CAPTURE", "/captures");
                captured["amount"]["value"] = json!(650);
                vec![captured]
            }
            Life::AdyenCancelled => {
                client.ok(void(payment).key(key)).await;
                vec![self.modified("CANCELLATION", "/cancels")]
            }
            _ => {
                let part = CapturePaymentRequest {
                    // Adyen captures once, and lets go of the rest when it pleases.
                    final_capture: true,
                    ..capture(payment, 300)
                };
                client.ok(part.key(key)).await;
                let captured = self.modified("CAPTURE", "/captures");
                vec![captured, self.about("EXPIRE", "EXPIRED")]
            }
        };
        [vec![self.authorized(true)], more].concat()
    }
}

/// A payment at Adyen, and what is told of it, oldest first.
pub(super) async fn live(
    stage: &Stage,
    client: &Client,
    life: Life,
    (payment, key): (&Payment, &str),
) -> Vec<Told> {
    let mut story = Story {
        stage,
        payment,
        opening: Processed {
            path: String::new(),
            body: Json::Null,
            answer: Json::Null,
            sends: 0,
        },
    };
    story.opening = story.last("/payments");
    if payment.state() == PaymentState::RequiresAction {
        // Adyen names a payment once its customer has acted.
        let named = format!("PAYMENT{}", payment.payment_id.replace('-', ""));
        story.opening.answer["pspReference"] = json!(named);
    }
    let key = format!("{key}-2");
    let told = match life {
        Life::AdyenRefundTakenBack
        | Life::AdyenRefundOfAnotherAmountTakenBack
        | Life::AdyenCaptureTakenBack
        | Life::AdyenCaptureOfAnotherAmount
        | Life::AdyenCancelled
        | Life::AdyenExpiresInPart => story.goes_on(client, life, &key).await,
        Life::AdyenChargebackReturned => {
            let disputed = ["CHARGEBACK", "CHARGEBACK_REVERSED"];
            let disputed = disputed.map(|event| story.about(event, "DISPUTE"));
            [vec![story.authorized(true)], disputed.to_vec()].concat()
        }
        Life::AdyenExpires | Life::AdyenCustomerPaysThenExpires | Life::AdyenPartlyThenExpires => {
            vec![story.authorized(true), story.about("EXPIRE", "EXPIRED")]
        }
        Life::AdyenCustomerPays | Life::AdyenPartly => vec![story.authorized(true)],
        Life::AdyenCustomerFails => vec![story.authorized(false), story.closed()],
        Life::AdyenCustomerLeaves => vec![story.closed()],
        other => panic!("{other:?} is no life at Adyen"),
    };
    told.into_iter().map(Told::Adyen).collect()
}
