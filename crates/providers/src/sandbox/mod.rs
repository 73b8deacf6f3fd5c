//! The adapter of the sandbox, our own provider for development and tests (`docs/sandbox.md`).

mod map;
mod settlement;
mod webhook;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quittance_domain::decline::Cause;
use quittance_domain::money::Money;
use quittance_domain::payment::Initiator;
use quittance_domain::ports::{
    Capabilities, LookupQuery, Operation, Provider, ProviderRules, Unpreparable, VoidBefore,
};
use quittance_domain::reconciliation::{SettlementPage, SettlementSource};
use quittance_domain::transaction::{
    LookupOutcome, OperationKind, PreparedRequest, SendReport, TransactionOrigin,
};
use reqwest::header::{AUTHORIZATION, HeaderName};

use crate::adapter::{Adapter, ProviderKind, credentials};
use crate::config::{AccountProblem, ProviderAccountConfig};
use crate::http::{HttpClient, TraceHeaders, Verdict, path_segment};
use crate::prepared::{self, Prepared, json, unsendable};
use crate::webhook::StandardWebhooks;

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The sandbox takes at most this many bytes of description.
const MAX_DESCRIPTION_BYTES: usize = 1_000;

/// Operations of the books that are asked for at once: as many as an answer of 1 MiB holds for certain.
const BOOKS_PAGE: usize = 500;

/// How it is registered.
pub static ADAPTER: Adapter = Adapter {
    kind: "sandbox",
    base_url: "",
    settings: &[],
    build: |config, trace| Ok(Arc::new(Sandbox::new(config, trace)?)),
};
/// The kind of its accounts.
pub const KIND: ProviderKind = ProviderKind::of(&ADAPTER);

/// One account at a sandbox.
pub struct Sandbox {
    http: HttpClient,
    webhooks: StandardWebhooks,
    capabilities: Capabilities,
}

impl Sandbox {
    /// Builds the account. `trace` adds the trace context to each request.
    pub fn new(
        config: &ProviderAccountConfig,
        trace: TraceHeaders,
    ) -> Result<Self, AccountProblem> {
        if config.livemode {
            return Err(AccountProblem::Refused(
                "livemode must be false for the sandbox",
            ));
        }
        let credentials = credentials(config, AUTHORIZATION, "Bearer ")?;
        Ok(Self {
            http: HttpClient::new(config.http_settings()?, credentials, trace)?,
            webhooks: StandardWebhooks::new(&config.webhook_secrets)?,
            capabilities: Capabilities {
                partial_capture: true,
                several_captures: true,
                void_before_authorization: VoidBefore::Named,
                authoritative_lookup: true,
                current_lookup: true,
                consistency_window: Duration::ZERO,
                idempotency_key_lifetime: Duration::from_secs(24 * 3600),
            },
        })
    }
}

impl ProviderRules for Sandbox {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prepare(&self, operation: &Operation<'_>) -> Result<PreparedRequest, Unpreparable> {
        let path = prepared::path(operation, route(operation.kind))?;
        Ok(Prepared::post(operation, path, body(operation)?))
    }
}

#[async_trait]
impl Provider for Sandbox {
    async fn send(&self, request: &PreparedRequest, send: u32) -> SendReport {
        let Ok(prepared) = Prepared::open(request) else {
            return unsendable();
        };
        let (transaction, operation) = (prepared.transaction, prepared.operation);
        let exchange = self
            .http
            .send(&prepared, route(operation), &IDEMPOTENCY_KEY, send);
        exchange.await.reported(
            |body| map::answered(body, transaction, operation),
            |status, body| map::refused(status, body, operation),
        )
    }

    async fn lookup(&self, query: &LookupQuery) -> LookupOutcome {
        if query.origin == TransactionOrigin::Provider {
            return self.look_up_in_payment(query).await;
        }
        let path = format!("/v1/operations/{}", query.transaction);
        let route = "/v1/operations/{reference}";
        let exchange = self.http.get(&path, route, &[]).await;
        exchange.looked_up(|body| map::found(body, query.transaction), map::not_found)
    }

    fn settlements(&self) -> Option<SettlementSource> {
        Some(settlement::source())
    }

    async fn settlement_page(&self, after: u64) -> Result<SettlementPage, Cause> {
        let (after, limit) = (after.to_string(), BOOKS_PAGE.to_string());
        let query = [("after", after.as_str()), ("limit", limit.as_str())];
        let exchange = self.http.get("/books", "/books", &query).await;
        match exchange.verdict {
            Verdict::Success => {
                let bytes = exchange.body().to_vec();
                let next = settlement::next(&bytes).map_err(|_| Cause::UnreadableResponse)?;
                Ok(SettlementPage { bytes, next })
            }
            Verdict::Refused(_) => Err(Cause::RequestRefused),
            Verdict::NotSent(not_sent) => Err(not_sent.cause()),
            Verdict::Unknown(unknown) => Err(unknown.cause()),
        }
    }

    fn send_timeout(&self) -> Duration {
        self.http.total_timeout()
    }

    fn livemode(&self) -> bool {
        // Refused by the constructor: the sandbox moves no real money.
        false
    }
}

impl Sandbox {
    /// What the sandbox did by itself is found among the payment's operations: it does not know our id of it.
    async fn look_up_in_payment(&self, query: &LookupQuery) -> LookupOutcome {
        let reference = query.payment_reference.as_ref().and_then(path_segment);
        let Some(segment) = reference else {
            return LookupOutcome::NotFound {
                authoritative: false,
            };
        };
        let path = format!("/v1/payments/{segment}");
        let exchange = self.http.get(&path, "/v1/payments/{id}", &[]).await;
        exchange.looked_up(
            |body| map::found_in_payment(body, query),
            |_, _| exchange.unavailable(Cause::RequestRefused),
        )
    }
}

fn route(operation: OperationKind) -> &'static str {
    match operation {
        OperationKind::Purchase | OperationKind::Authorize => "/v1/payments",
        OperationKind::Confirm => "/v1/payments/{id}/confirm",
        OperationKind::Capture => "/v1/payments/{id}/captures",
        OperationKind::Void => "/v1/payments/{id}/void",
        OperationKind::Refund => "/v1/payments/{id}/refunds",
    }
}

fn body(operation: &Operation<'_>) -> Result<Vec<u8>, Unpreparable> {
    let reference = operation.transaction.id.to_string();
    let amount = || operation.amount.ok_or(Unpreparable::Amount);
    match operation.kind {
        OperationKind::Purchase => create(operation, reference, amount()?, true),
        OperationKind::Authorize => create(operation, reference, amount()?, false),
        OperationKind::Confirm => {
            let parameters = operation.parameters.iter();
            let parameters = parameters.map(|(name, value)| (name.as_str(), value.as_str()));
            json(&wire::Confirm {
                reference,
                parameters: parameters.collect(),
            })
        }
        OperationKind::Capture => json(&wire::Capture {
            reference,
            amount: amount()?.minor_units(),
            currency: amount()?.currency().code(),
            r#final: operation.transaction.final_capture,
        }),
        OperationKind::Void => json(&wire::Void { reference }),
        OperationKind::Refund => json(&wire::Refund {
            reference,
            amount: amount()?.minor_units(),
            currency: amount()?.currency().code(),
        }),
    }
}

/// The caller's metadata and the customer's fields stay here: the sandbox has no use for them.
fn create(
    operation: &Operation<'_>,
    reference: String,
    amount: Money,
    capture: bool,
) -> Result<Vec<u8>, Unpreparable> {
    let payment = operation.payment;
    let token = payment.method.token.as_ref().ok_or(Unpreparable::Method)?;
    let (initiator, mandate_reference) = match payment.initiator {
        Initiator::Customer => ("customer", None),
        Initiator::Merchant => ("merchant", payment.mandate_reference.non_empty()),
    };
    json(&wire::CreatePayment {
        reference,
        payment_reference: payment.id.to_string(),
        amount: amount.minor_units(),
        currency: amount.currency().code(),
        token: token.expose(),
        capture,
        description: payment.description.non_empty().map(shortened),
        return_url: payment.return_url.non_empty(),
        initiator,
        mandate_reference,
    })
}

/// The longest beginning of whole characters that the sandbox takes.
fn shortened(text: &str) -> &str {
    let fits = |end: &usize| text.is_char_boundary(*end);
    let end = (0..=text.len().min(MAX_DESCRIPTION_BYTES))
        .rev()
        .find(fits)
        .unwrap_or(0);
    text.get(..end).unwrap_or_default()
}
