//! The payment tokens: which scenario a payment plays.

use crate::error::ApiError;
use crate::fault::{Fault, FaultRule, FaultSpec, Mishap, RequestKind, When};
use crate::limits::MAX_TOKEN;
use crate::wire::DeclineCode;
use std::time::Duration;

/// Every payment token, each the name of a scenario. `docs/sandbox.md` says for each what is
/// answered to the first send, to a resend and to a lookup, and how it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the names are the documentation; docs/sandbox.md has the table"
)]
pub enum Token {
    Approve,
    Decline,
    InsufficientFunds,
    ExpiredCard,
    LostCard,
    Fraud,
    RequiresAction,
    PendingThenApprove,
    PendingThenDecline,
    TimeoutBeforeCharge,
    TimeoutAfterCharge,
    ResetAfterCharge,
    Error500ThenApprove,
    RateLimited,
    MalformedResponse,
    Slow,
    WrongAmount,
    DuplicateWebhook,
    WebhookOutOfOrder,
    CaptureFails,
    RefundFailsLater,
    Chargeback,
}

impl Token {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 22] = [
        Self::Approve,
        Self::Decline,
        Self::InsufficientFunds,
        Self::ExpiredCard,
        Self::LostCard,
        Self::Fraud,
        Self::RequiresAction,
        Self::PendingThenApprove,
        Self::PendingThenDecline,
        Self::TimeoutBeforeCharge,
        Self::TimeoutAfterCharge,
        Self::ResetAfterCharge,
        Self::Error500ThenApprove,
        Self::RateLimited,
        Self::MalformedResponse,
        Self::Slow,
        Self::WrongAmount,
        Self::DuplicateWebhook,
        Self::WebhookOutOfOrder,
        Self::CaptureFails,
        Self::RefundFailsLater,
        Self::Chargeback,
    ];

    /// The token as a request carries it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approve => "tok_approve",
            Self::Decline => "tok_decline",
            Self::InsufficientFunds => "tok_insufficient_funds",
            Self::ExpiredCard => "tok_expired_card",
            Self::LostCard => "tok_lost_card",
            Self::Fraud => "tok_fraud",
            Self::RequiresAction => "tok_requires_action",
            Self::PendingThenApprove => "tok_pending_then_approve",
            Self::PendingThenDecline => "tok_pending_then_decline",
            Self::TimeoutBeforeCharge => "tok_timeout_before_charge",
            Self::TimeoutAfterCharge => "tok_timeout_after_charge",
            Self::ResetAfterCharge => "tok_reset_after_charge",
            Self::Error500ThenApprove => "tok_error_500_then_approve",
            Self::RateLimited => "tok_rate_limited",
            Self::MalformedResponse => "tok_malformed_response",
            Self::Slow => "tok_slow",
            Self::WrongAmount => "tok_wrong_amount",
            Self::DuplicateWebhook => "tok_duplicate_webhook",
            Self::WebhookOutOfOrder => "tok_webhook_out_of_order",
            Self::CaptureFails => "tok_capture_fails",
            Self::RefundFailsLater => "tok_refund_fails_later",
            Self::Chargeback => "tok_chargeback",
        }
    }

    /// How the issuer answers the authorization or purchase.
    pub(crate) const fn verdict(self) -> Verdict {
        match self {
            Self::Decline => Verdict::Decline(DeclineCode::DoNotHonor),
            Self::InsufficientFunds => Verdict::Decline(DeclineCode::InsufficientFunds),
            Self::ExpiredCard => Verdict::Decline(DeclineCode::ExpiredCard),
            Self::LostCard => Verdict::Decline(DeclineCode::LostCard),
            Self::Fraud => Verdict::Decline(DeclineCode::Fraud),
            Self::RequiresAction => Verdict::RequireAction,
            Self::PendingThenApprove => Verdict::PendingThenApprove,
            Self::PendingThenDecline => Verdict::PendingThenDecline,
            Self::Approve
            | Self::TimeoutBeforeCharge
            | Self::TimeoutAfterCharge
            | Self::ResetAfterCharge
            | Self::Error500ThenApprove
            | Self::RateLimited
            | Self::MalformedResponse
            | Self::Slow
            | Self::WrongAmount
            | Self::DuplicateWebhook
            | Self::WebhookOutOfOrder
            | Self::CaptureFails
            | Self::RefundFailsLater
            | Self::Chargeback => Verdict::Approve,
        }
    }

    /// What goes wrong with the sends of the authorization or purchase.
    const fn fault(self, slow: Duration) -> FaultRule {
        match self {
            Self::TimeoutBeforeCharge => FaultRule::once(Mishap::Hang(When::Before)),
            Self::TimeoutAfterCharge => FaultRule::once(Mishap::Hang(When::After)),
            Self::ResetAfterCharge => FaultRule::once(Mishap::Reset(When::After)),
            Self::Error500ThenApprove => FaultRule::once(Mishap::Status(500, When::Before)),
            Self::RateLimited => FaultRule::once(Mishap::Status(429, When::Before)),
            Self::MalformedResponse => FaultRule::once(Mishap::Malformed),
            Self::Slow => FaultRule {
                fault: Fault {
                    latency: slow,
                    mishap: None,
                },
                times: 1,
            },
            Self::Approve
            | Self::Decline
            | Self::InsufficientFunds
            | Self::ExpiredCard
            | Self::LostCard
            | Self::Fraud
            | Self::RequiresAction
            | Self::PendingThenApprove
            | Self::PendingThenDecline
            | Self::WrongAmount
            | Self::DuplicateWebhook
            | Self::WebhookOutOfOrder
            | Self::CaptureFails
            | Self::RefundFailsLater
            | Self::Chargeback => FaultRule::NONE,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Approve,
    Decline(DeclineCode),
    RequireAction,
    PendingThenApprove,
    PendingThenDecline,
}

/// A token with its parameters, read once: `tok_approve?latency_ms=200&capture.drop=after`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// As sent; what the books file keeps.
    pub text: Box<str>,
    pub token: Token,
    /// Added to the amount asked for: what is really charged.
    pub amount_delta: i64,
    pub settle_after: Option<Duration>,
    authorize: FaultRule,
    confirm: FaultRule,
    capture: FaultRule,
    void: FaultRule,
    refund: FaultRule,
}

const UNKNOWN_TOKEN: ApiError = ApiError::invalid(
    "token",
    "unknown_token",
    "no such sandbox token: see docs/sandbox.md",
);
const UNKNOWN_PARAMETER: ApiError = ApiError::invalid(
    "token",
    "invalid_fault",
    "unknown or malformed parameter behind the token: see docs/sandbox.md",
);

/// The parameters of one kind of request.
#[derive(Default)]
struct Section {
    spec: FaultSpec,
    times: Option<u32>,
}

impl Section {
    fn set(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        if name == "times" {
            self.times = Some(value.parse().map_err(|_| UNKNOWN_PARAMETER)?);
            return Ok(());
        }
        if self.spec.set(name, value)? {
            Ok(())
        } else {
            Err(UNKNOWN_PARAMETER)
        }
    }

    fn rule(self, base: FaultRule) -> Result<FaultRule, ApiError> {
        self.spec.rule(base, self.times)
    }
}

impl Plan {
    /// Reads a token. `slow` is what `tok_slow` waits.
    pub(crate) fn parse(text: &str, slow: Duration) -> Result<Self, ApiError> {
        if text.len() > MAX_TOKEN {
            return Err(UNKNOWN_TOKEN);
        }
        let (name, query) = text.split_once('?').unwrap_or((text, ""));
        let token = Token::ALL
            .into_iter()
            .find(|token| token.name() == name)
            .ok_or(UNKNOWN_TOKEN)?;
        let mut amount_delta = i64::from(token == Token::WrongAmount);
        let mut settle_after = None;
        let [
            mut authorize,
            mut confirm,
            mut capture,
            mut void,
            mut refund,
        ] = std::array::from_fn(|_| Section::default());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(UNKNOWN_PARAMETER)?;
            match name.split_once('.') {
                Some(("confirm", name)) => confirm.set(name, value)?,
                Some(("capture", name)) => capture.set(name, value)?,
                Some(("void", name)) => void.set(name, value)?,
                Some(("refund", name)) => refund.set(name, value)?,
                Some(_) => return Err(UNKNOWN_PARAMETER),
                None if name == "amount_delta" => {
                    amount_delta = value.parse().map_err(|_| UNKNOWN_PARAMETER)?;
                }
                None if name == "settle_after_ms" => {
                    let millis = value.parse().map_err(|_| UNKNOWN_PARAMETER)?;
                    settle_after = Some(Duration::from_millis(millis));
                }
                None => authorize.set(name, value)?,
            }
        }
        Ok(Self {
            text: text.into(),
            token,
            amount_delta,
            settle_after,
            authorize: authorize.rule(token.fault(slow))?,
            confirm: confirm.rule(FaultRule::NONE)?,
            capture: capture.rule(FaultRule::NONE)?,
            void: void.rule(FaultRule::NONE)?,
            refund: refund.rule(FaultRule::NONE)?,
        })
    }

    /// What goes wrong with the sends of one kind of request.
    pub(crate) const fn rule(&self, kind: RequestKind) -> FaultRule {
        match kind {
            RequestKind::Authorization | RequestKind::Purchase => self.authorize,
            RequestKind::Confirm => self.confirm,
            RequestKind::Capture => self.capture,
            RequestKind::Void => self.void,
            RequestKind::Refund => self.refund,
            RequestKind::Lookup => FaultRule::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_millis(1500);

    #[test]
    fn every_token_is_read_by_its_name_and_documented() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/sandbox.md");
        let page = std::fs::read_to_string(page).unwrap();
        for token in Token::ALL {
            assert_eq!(Plan::parse(token.name(), SLOW).unwrap().token, token);
            let row = format!("| `{}` |", token.name());
            assert!(
                page.contains(&row),
                "docs/sandbox.md has no row for {}",
                token.name()
            );
        }
    }

    #[test]
    fn parameters_belong_to_the_kind_they_name() {
        let plan = Plan::parse("tok_approve?capture.drop=after&times=3&status=503", SLOW).unwrap();
        let rule = plan.rule(RequestKind::Capture);
        assert_eq!(
            (rule.fault.mishap, rule.times),
            (Some(Mishap::Drop(When::After)), 1)
        );
        let rule = plan.rule(RequestKind::Purchase);
        assert_eq!(rule.fault.mishap, Some(Mishap::Status(503, When::Before)));
        assert_eq!(rule.times, 3);
        assert_eq!(plan.rule(RequestKind::Refund), FaultRule::NONE);
    }

    #[test]
    fn refusals_do_not_repeat_the_token() {
        for bad in [
            "tok_nope",
            "4111111111111111",
            "tok_approve?x=4111111111111111",
        ] {
            let error = Plan::parse(bad, SLOW).unwrap_err();
            assert_eq!(error.status, 422);
            assert!(!error.message.contains("4111"));
        }
    }
}
