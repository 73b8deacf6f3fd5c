//! The adapter of Stripe: PaymentIntents, refunds and disputes (`docs/stripe.md`).
//!
//! A payment is a payment intent. It is created and confirmed by one request; what the customer then does, Stripe
//! carries through by itself, so that a confirmation only asks. Captures and cancellations have no objects of their own.

mod decline;
mod lookup;
mod map;
mod money;
mod request;
mod settlement;
mod signature;
mod webhook;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quittance_domain::decline::Cause;
use quittance_domain::ids::ProviderReference;
use quittance_domain::ports::{
    Capabilities, LookupQuery, Named, Operation, Provider, ProviderRules, Unpreparable, VoidBefore,
};
use quittance_domain::reconciliation::SettlementSource;
use quittance_domain::transaction::{
    Dispute, LookupOutcome, PreparedRequest, SendOutcome, SendReport, TransactionKind,
};
use quittance_domain::unconfirmed::Unconfirmed;
use quittance_domain::webhook::WebhookFact;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};

use self::signature::Secrets;
use crate::adapter::{Adapter, ProviderKind, credentials};
use crate::config::{AccountProblem, ProviderAccountConfig};
use crate::http::{Exchange, HttpClient, TraceHeaders, Verdict};
use crate::outcome::NotSent;
use crate::prepared::{Prepared, unsendable};

/// Where Stripe is, unless an account says otherwise.
pub const BASE_URL: &str = "https://api.stripe.com";
/// The version of Stripe's API that every request asks for. Webhook endpoints must be created with it too: it is the
/// first whose `refund.created` and `refund.updated` tell of refunds of charges.
pub const API_VERSION: &str = "2024-10-28.acacia";

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");
const SHOULD_RETRY: &str = "stripe-should-retry";

/// How it is registered.
pub static ADAPTER: Adapter = Adapter {
    kind: "stripe",
    base_url: BASE_URL,
    settings: &[],
    build: |config, trace| Ok(Arc::new(Stripe::new(config, trace)?)),
};
/// The kind of its accounts.
pub const KIND: ProviderKind = ProviderKind::of(&ADAPTER);

/// One account at Stripe.
pub struct Stripe {
    http: HttpClient,
    secrets: Secrets,
    livemode: bool,
    capabilities: Capabilities,
}

impl Stripe {
    /// Builds the account. `trace` adds the trace context to each request.
    pub fn new(
        config: &ProviderAccountConfig,
        trace: TraceHeaders,
    ) -> Result<Self, AccountProblem> {
        let mut headers = credentials(config, AUTHORIZATION, "Bearer ")?;
        let of_other_mode = if config.livemode { "_test_" } else { "_live_" };
        if config.api_key.expose().contains(of_other_mode) {
            return Err(AccountProblem::Refused(
                "api_key is for test payments where livemode = true, or the other way round",
            ));
        }
        headers.insert(&STRIPE_VERSION, HeaderValue::from_static(API_VERSION));
        Ok(Self {
            http: HttpClient::new(config.http_settings()?, headers, trace)?,
            secrets: Secrets::new(&config.webhook_secrets)?,
            livemode: config.livemode,
            capabilities: Capabilities {
                partial_capture: true,
                // Only some cards of some accounts can ("multicapture").
                several_captures: false,
                void_before_authorization: VoidBefore::Named,
                // A search sees a payment within about a minute, usually.
                authoritative_lookup: false,
                current_lookup: true,
                // Not to find something proves nothing however long it is waited: the same request under the same key
                // tells at once.
                consistency_window: Duration::ZERO,
                idempotency_key_lifetime: Duration::from_secs(24 * 3600),
            },
        })
    }
}

impl ProviderRules for Stripe {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prepare(&self, operation: &Operation<'_>) -> Result<PreparedRequest, Unpreparable> {
        request::prepare(operation)
    }
}

#[async_trait]
impl Provider for Stripe {
    async fn send(&self, request: &PreparedRequest, send: u32) -> SendReport {
        let Ok(prepared) = Prepared::open(request) else {
            return unsendable();
        };
        let route = request::route(prepared.operation);
        let exchange = self
            .http
            .send(&prepared, route, &IDEMPOTENCY_KEY, send)
            .await;
        let outcome = match exchange.verdict {
            Verdict::Success => {
                map::answered(exchange.body(), prepared.transaction, prepared.operation)
            }
            Verdict::Refused(status) => {
                let retry = should_retry(&exchange);
                map::refused(status, exchange.body(), retry, prepared.operation)
            }
            Verdict::NotSent(not_sent) => not_sent_for(not_sent, should_retry(&exchange)),
            Verdict::Unknown(unknown) => unknown.into(),
        };
        exchange.into_report(outcome)
    }

    async fn lookup(&self, query: &LookupQuery) -> LookupOutcome {
        lookup::look_up(&self.http, query).await
    }

    async fn dispute(&self, query: &LookupQuery) -> Result<Option<Dispute>, Unconfirmed> {
        lookup::dispute_details(&self.http, query).await
    }

    async fn payment_named(&self, reference: &ProviderReference) -> Result<Named, Unconfirmed> {
        lookup::payment_named(&self.http, reference).await
    }

    async fn operations(
        &self,
        kind: TransactionKind,
        payment: &ProviderReference,
    ) -> Result<Vec<WebhookFact>, Unconfirmed> {
        match kind {
            TransactionKind::Refund => lookup::refunds(&self.http, payment).await,
            TransactionKind::Purchase
            | TransactionKind::Authorization
            | TransactionKind::Capture
            | TransactionKind::Void
            | TransactionKind::Chargeback
            | TransactionKind::ChargebackReversal => Err(Cause::RequestRefused.into()),
        }
    }

    fn settlements(&self) -> Option<SettlementSource> {
        Some(settlement::source())
    }

    fn send_timeout(&self) -> Duration {
        self.http.total_timeout()
    }

    fn livemode(&self) -> bool {
        self.livemode
    }
}

/// What Stripe says about sending the same request again, whatever the status. Of a 5xx it needs no answer here: its
/// outcome is unknown either way, and is looked up before anything is sent.
fn should_retry(exchange: &Exchange) -> Option<bool> {
    match exchange.header(SHOULD_RETRY) {
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) | None => None,
    }
}

/// Where Stripe says that waiting does not help, a refusal for going too fast is final.
fn not_sent_for(not_sent: NotSent, retry: Option<bool>) -> SendOutcome {
    if not_sent == NotSent::RateLimited && retry == Some(false) {
        return NotSent::RequestRefused.into();
    }
    not_sent.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn account(key: &str, livemode: bool) -> Result<Stripe, AccountProblem> {
        let config = ProviderAccountConfig {
            livemode,
            ..ProviderAccountConfig::new("stripe", KIND, "", Secret::new(key))
        };
        Stripe::new(&config, |_| {})
    }

    #[test]
    fn s61_a_key_of_the_other_mode_is_refused() {
        for key in ["sk_test_1", "rk_test_1"] {
            assert!(account(key, false).is_ok(), "{key}");
            assert!(matches!(
                account(key, true),
                Err(AccountProblem::Refused(_))
            ));
        }
        for key in ["sk_live_1", "rk_live_1"] {
            assert!(account(key, true).is_ok_and(|it| it.livemode()), "{key}");
            assert!(matches!(
                account(key, false),
                Err(AccountProblem::Refused(_))
            ));
        }
        for key in ["", "sk test", "sk_test_1\n"] {
            assert!(matches!(account(key, false), Err(AccountProblem::ApiKey)));
        }
    }

    #[test]
    fn a_rate_limit_that_no_waiting_lifts_is_a_refusal() {
        let (limited, refused) = (NotSent::RateLimited, NotSent::RequestRefused);
        for (retry, expected) in [
            (None, limited),
            (Some(true), limited),
            (Some(false), refused),
        ] {
            assert_eq!(not_sent_for(limited, retry), expected.into(), "{retry:?}");
        }
        let credentials = NotSent::CredentialsRefused;
        assert_eq!(not_sent_for(credentials, Some(false)), credentials.into());
    }
}
