//! Webhooks: what operators ask about them, and how they are shown.

use quittance_domain::flows::{SeenBody, SeenWebhook};
use quittance_domain::ids::WebhookId;
use quittance_domain::text::Text;
use quittance_domain::transaction::FactKind;
use quittance_domain::webhook::{
    PaymentName, StoredWebhook, Subject, WebhookFact, WebhookFilter, WebhookReason, WebhookState,
};
use quittance_proto::v1;

use super::admin::reason;
use super::payment::{money, timestamp};
use super::queries::page_size;
use super::scalars;
use super::violations::Violations;

/// A page of webhooks asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhooksQuery {
    /// Which webhooks.
    pub filter: WebhookFilter,
    /// How many at most.
    pub page_size: usize,
}

/// A webhook to be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayQuery {
    /// Which.
    pub id: WebhookId,
    /// Why.
    pub reason: Text<500>,
}

/// Parses `ListWebhooks`; its page token is opened by whoever has the keys.
///
/// # Errors
/// Every bad field.
pub fn list_webhooks(request: v1::ListWebhooksRequest) -> Result<WebhooksQuery, Violations> {
    let mut violations = Violations::default();
    let bad = &mut violations;
    let page_size = page_size(bad, "page_size", request.page_size);
    let states = scalars::states(bad, &request.states, WebhookState::ALL, state_of);
    let account = scalars::provider_account(bad, request.provider_account);
    let cause = scalars::known(bad, "cause", request.cause).map(reason_of);
    let query = || {
        let filter = WebhookFilter {
            states: states?,
            account: account?,
            reason: cause?,
        };
        Some(WebhooksQuery {
            filter,
            page_size: page_size?,
        })
    };
    let query = query();
    violations.finish(query)
}

/// Parses `GetWebhook`.
///
/// # Errors
/// Every bad field.
pub fn get_webhook(request: &v1::GetWebhookRequest) -> Result<WebhookId, Violations> {
    let mut violations = Violations::default();
    let id = scalars::uuid(&mut violations, "webhook_id", &request.webhook_id).map(WebhookId);
    violations.finish(id)
}

/// Parses `ReplayWebhook`.
///
/// # Errors
/// Every bad field.
pub fn replay_webhook(request: v1::ReplayWebhookRequest) -> Result<ReplayQuery, Violations> {
    let mut violations = Violations::default();
    let bad = &mut violations;
    let id = scalars::uuid(bad, "webhook_id", &request.webhook_id).map(WebhookId);
    let reason = reason(bad, request.reason);
    let query = id
        .zip(reason)
        .map(|(id, reason)| ReplayQuery { id, reason });
    violations.finish(query)
}

/// The webhook as a message, without what it says.
pub fn webhook(stored: &StoredWebhook) -> v1::Webhook {
    v1::Webhook {
        webhook_id: stored.id.to_string(),
        provider_account: stored.account.to_string(),
        event_id: stored.event.to_string(),
        state: state(stored.state).into(),
        cause: stored.reason.map(cause).unwrap_or_default().into(),
        attempts: stored.attempts.into(),
        receive_time: Some(timestamp(stored.received_at)),
        next_attempt_time: stored.next_step_at.map(timestamp),
        finish_time: stored.finished_at.map(timestamp),
        wipe_time: stored.wiped_at.map(timestamp),
        body_bytes: 0,
        body_sha256: String::new(),
        statements: Vec::new(),
    }
}

/// The webhook as a message, with what it says.
pub fn seen_webhook(seen: &SeenWebhook) -> v1::Webhook {
    let message = webhook(&seen.stored);
    match &seen.body {
        SeenBody::Wiped | SeenBody::NotOpened => message,
        SeenBody::Kept {
            bytes,
            digest,
            says,
        } => {
            let facts = says.iter().flatten().flatten();
            v1::Webhook {
                body_bytes: i64::try_from(*bytes).unwrap_or(i64::MAX),
                body_sha256: hex::encode(digest),
                statements: facts.map(statement).collect(),
                ..message
            }
        }
    }
}

fn statement(told: &WebhookFact) -> v1::WebhookStatement {
    let (payment_id, named) = match &told.payment {
        PaymentName::Ours(payment) => (payment.to_string(), None),
        PaymentName::Theirs(reference) => (String::new(), Some(reference)),
        // The event is named after the payment's reference, which the fact has.
        PaymentName::OfEvent(_) => (String::new(), None),
    };
    let transaction_id = match &told.subject {
        Subject::Transaction(transaction) => transaction.to_string(),
        Subject::Operation { .. } | Subject::Unnamed { .. } | Subject::Unclear { .. } => {
            String::new()
        }
    };
    let payment_reference = named.or(told.fact.payment_reference.as_ref());
    let (outcome, amount) = match &told.subject {
        Subject::Unclear { .. } => (v1::WebhookOutcome::Unspecified, None),
        Subject::Transaction(_) | Subject::Operation { .. } | Subject::Unnamed { .. } => {
            outcome(&told.fact.kind)
        }
    };
    v1::WebhookStatement {
        payment_id,
        payment_reference: payment_reference
            .map(ToString::to_string)
            .unwrap_or_default(),
        transaction_id,
        provider_reference: told
            .fact
            .provider_reference
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        outcome: outcome.into(),
        amount,
    }
}

fn outcome(kind: &FactKind) -> (v1::WebhookOutcome, Option<v1::Money>) {
    use v1::WebhookOutcome as Said;
    match kind {
        FactKind::Approved { amount, .. } => (
            Said::Approved,
            amount.map(|amount| money(amount.minor_units(), amount.currency())),
        ),
        FactKind::Declined(_) => (Said::Declined, None),
        FactKind::RequiresAction(_) => (Said::RequiresAction, None),
        FactKind::Pending => (Said::Pending, None),
        FactKind::Failed(_) | FactKind::TakenBack(_) => (Said::Failed, None),
        FactKind::Expired => (Said::Expired, None),
    }
}

/// The state that a message names; `None` for "unspecified".
fn state_of(state: v1::WebhookState) -> Option<WebhookState> {
    use v1::WebhookState as Given;
    Some(match state {
        Given::Unspecified => return None,
        Given::Received => WebhookState::Received,
        Given::Applied => WebhookState::Applied,
        Given::Ignored => WebhookState::Ignored,
        Given::Parked => WebhookState::Parked,
        Given::Dead => WebhookState::Dead,
    })
}

fn state(state: WebhookState) -> v1::WebhookState {
    match state {
        WebhookState::Received => v1::WebhookState::Received,
        WebhookState::Applied => v1::WebhookState::Applied,
        WebhookState::Ignored => v1::WebhookState::Ignored,
        WebhookState::Parked => v1::WebhookState::Parked,
        WebhookState::Dead => v1::WebhookState::Dead,
    }
}

/// The cause that a message names; `None` for "unspecified".
fn reason_of(cause: v1::WebhookCause) -> Option<WebhookReason> {
    use v1::WebhookCause as Given;
    Some(match cause {
        Given::Unspecified => return None,
        Given::UnknownPayment => WebhookReason::UnknownPayment,
        Given::OtherAccount => WebhookReason::OtherAccount,
        Given::MovedOn => WebhookReason::MovedOn,
        Given::NotConfirmed => WebhookReason::NotConfirmed,
        Given::Unreadable => WebhookReason::Unreadable,
        Given::Unexpected => WebhookReason::Unexpected,
        Given::NotApplied => WebhookReason::NotApplied,
        Given::UnknownAccount => WebhookReason::UnknownAccount,
        Given::NotOpened => WebhookReason::NotOpened,
        Given::Abandoned => WebhookReason::Abandoned,
    })
}

fn cause(reason: WebhookReason) -> v1::WebhookCause {
    match reason {
        WebhookReason::UnknownPayment => v1::WebhookCause::UnknownPayment,
        WebhookReason::OtherAccount => v1::WebhookCause::OtherAccount,
        WebhookReason::MovedOn => v1::WebhookCause::MovedOn,
        WebhookReason::NotConfirmed => v1::WebhookCause::NotConfirmed,
        WebhookReason::Unreadable => v1::WebhookCause::Unreadable,
        WebhookReason::Unexpected => v1::WebhookCause::Unexpected,
        WebhookReason::NotApplied => v1::WebhookCause::NotApplied,
        WebhookReason::UnknownAccount => v1::WebhookCause::UnknownAccount,
        WebhookReason::NotOpened => v1::WebhookCause::NotOpened,
        WebhookReason::Abandoned => v1::WebhookCause::Abandoned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_causes_have_the_names_of_the_inbox_both_ways() {
        for known in WebhookState::ALL {
            let message = state(*known);
            assert_eq!(
                message.as_str_name(),
                format!("WEBHOOK_STATE_{}", known.name())
            );
            assert_eq!(state_of(message), Some(*known));
        }
        for known in WebhookReason::ALL {
            let message = cause(*known);
            assert_eq!(
                message.as_str_name(),
                format!("WEBHOOK_CAUSE_{}", known.name())
            );
            assert_eq!(reason_of(message), Some(*known));
        }
    }

    #[test]
    fn every_bad_field_of_a_list_is_named() {
        let request = v1::ListWebhooksRequest {
            page_size: 501,
            states: vec![5, 0, 77],
            provider_account: "a b".to_owned(),
            cause: 99,
            page_token: String::new(),
        };
        let refused = list_webhooks(request).unwrap_err();
        let fields: Vec<_> = refused.listed().iter().map(|bad| &*bad.field).collect();
        let expected = [
            "page_size",
            "states[1]",
            "states[2]",
            "provider_account",
            "cause",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_replay_has_a_reason_without_card_numbers() {
        let request = |reason: &str| v1::ReplayWebhookRequest {
            webhook_id: uuid::Uuid::nil().to_string(),
            reason: reason.to_owned(),
        };
        assert!(replay_webhook(request("the payment is there now")).is_ok());
        for bad in ["", "  ", "card 4242 4242 4242 4242"] {
            assert!(replay_webhook(request(bad)).is_err(), "{bad}");
        }
    }
}
