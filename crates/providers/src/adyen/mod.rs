//! The adapter of Adyen: Checkout API, version 71 (`docs/adyen.md`).

mod amount;
mod disputes;
mod event;
mod map;
mod method;
mod reference;
mod refusals;
mod settlement;
mod signature;
mod webhook;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quittance_domain::payment::Initiator;
use quittance_domain::ports::{
    Capabilities, LookupQuery, Operation, Provider, ProviderRules, Unpreparable, VoidBefore,
};
use quittance_domain::reconciliation::SettlementSource;
use quittance_domain::transaction::{
    Fact, FactKind, LookupOutcome, OperationKind, PreparedRequest, SendReport, Transaction,
};
use reqwest::header::HeaderName;

use crate::adapter::{Adapter, ProviderKind, credentials};
use crate::config::{AccountProblem, ProviderAccountConfig};
use crate::http::{HttpClient, TraceHeaders};
use crate::prepared::{self, Prepared, json, unsendable};
use method::PaidWith;
use reference::Reference;
use signature::Keys;

/// Where a payment is cancelled that is known by our reference alone.
const CANCELS: &str = "/cancels";
static API_KEY: HeaderName = HeaderName::from_static("x-api-key");
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// How the hosts of the live platform end, and those of the test platform.
const LIVE_HOSTS: &str = "-live.adyenpayments.com";
const TEST_HOSTS: &str = "-test.adyen.com";
/// How long Adyen keeps a key: "a minimum period of 7 days" (API idempotency).
const KEY_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Most characters of a merchant account's name.
const MAX_MERCHANT_ACCOUNT: usize = 80;
/// Characters of a shopper reference.
const SHOPPER_REFERENCE: std::ops::RangeInclusive<usize> = 3..=256;

/// The setting that its accounts alone have.
const MERCHANT_ACCOUNT: &str = "merchant_account";

/// How it is registered.
pub static ADAPTER: Adapter = Adapter {
    kind: "adyen",
    base_url: "",
    settings: &[MERCHANT_ACCOUNT],
    build: |config, trace| Ok(Arc::new(Adyen::new(config, trace)?)),
};
/// The kind of its accounts.
pub const KIND: ProviderKind = ProviderKind::of(&ADAPTER);

/// One merchant account at Adyen.
pub struct Adyen {
    http: HttpClient,
    merchant_account: String,
    keys: Keys,
    livemode: bool,
    capabilities: Capabilities,
}

impl Adyen {
    /// Builds the account. `trace` adds the trace context to each request.
    pub fn new(
        config: &ProviderAccountConfig,
        trace: TraceHeaders,
    ) -> Result<Self, AccountProblem> {
        let credentials = credentials(config, API_KEY.clone(), "")?;
        let settings = config.http_settings()?;
        if belies(settings.base_url.host(), config.livemode) {
            return Err(AccountProblem::Refused(
                "base_url is Adyen's live one where livemode = false, or its test one where livemode = true",
            ));
        }
        Ok(Self {
            http: HttpClient::new(settings, credentials, trace)?,
            merchant_account: merchant_account(config)?,
            keys: Keys::new(&config.webhook_secrets)?,
            livemode: config.livemode,
            capabilities: Capabilities {
                partial_capture: true,
                // Adyen releases what a partial capture leaves, unless the account has multiple partial captures;
                // with them a final capture would leave the rest reserved.
                several_captures: false,
                // A payment that has no name of Adyen's yet is cancelled by our reference of it.
                void_before_authorization: VoidBefore::Ours,
                // There is no lookup; the same bytes under the same key are answered as the first time.
                authoritative_lookup: false,
                current_lookup: false,
                consistency_window: Duration::ZERO,
                idempotency_key_lifetime: KEY_LIFETIME,
            },
        })
    }
}

/// Whether a host is that of the other platform: payments would be called real that are not, or the other way round.
fn belies(host: &str, livemode: bool) -> bool {
    let other = if livemode { TEST_HOSTS } else { LIVE_HOSTS };
    host.to_ascii_lowercase().ends_with(other)
}

/// Part of what is signed, so without the character that divides the fields.
fn merchant_account(config: &ProviderAccountConfig) -> Result<String, AccountProblem> {
    let name = config
        .own
        .get(MERCHANT_ACCOUNT)
        .cloned()
        .unwrap_or_default();
    let plain = |b: u8| b.is_ascii_graphic() && b != b':';
    if name.is_empty() {
        return Err(AccountProblem::Refused("merchant_account is needed"));
    }
    if name.len() > MAX_MERCHANT_ACCOUNT || !name.bytes().all(plain) {
        return Err(AccountProblem::Refused(
            "merchant_account must be printable ASCII without a colon, at most 80 characters",
        ));
    }
    Ok(name)
}

impl ProviderRules for Adyen {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prepare(&self, operation: &Operation<'_>) -> Result<PreparedRequest, Unpreparable> {
        let named = operation.payment.provider_reference.is_some();
        let path = prepared::path(operation, route(operation.kind, named))?;
        Ok(Prepared::post(operation, path, self.body(operation)?))
    }
}

#[async_trait]
impl Provider for Adyen {
    async fn send(&self, request: &PreparedRequest, send: u32) -> SendReport {
        let Ok(prepared) = Prepared::open(request) else {
            return unsendable();
        };
        let route = route(prepared.operation, prepared.path != CANCELS);
        let exchange = self.http.send(&prepared, route, &IDEMPOTENCY_KEY, send);
        exchange.await.reported(
            |body| map::answered(body, &prepared, self.livemode),
            map::refused,
        )
    }

    /// Adyen cannot be asked: results come with answers and by webhook alone.
    ///
    /// What it has given a reference it holds, and has not decided as far as we were told: the webhook is waited
    /// for, and a resend would be answered as the first time. What it never named may not have reached it: not
    /// found, which proves nothing, so recovery sends the same bytes under the same key while that lives.
    async fn lookup(&self, query: &LookupQuery) -> LookupOutcome {
        match &query.provider_reference {
            Some(reference) => LookupOutcome::Found(Fact {
                kind: FactKind::Pending,
                provider_reference: Some(reference.clone()),
                payment_reference: query.payment_reference.clone(),
            }),
            None => LookupOutcome::NotFound {
                authoritative: false,
            },
        }
    }

    fn lookup_asks(&self) -> bool {
        false
    }

    fn settlements(&self) -> Option<SettlementSource> {
        Some(settlement::source(&self.merchant_account))
    }

    fn send_timeout(&self) -> Duration {
        self.http.total_timeout()
    }

    fn livemode(&self) -> bool {
        self.livemode
    }
}

/// `named` where the payment has a name of Adyen's.
fn route(operation: OperationKind, named: bool) -> &'static str {
    match operation {
        OperationKind::Void if !named => CANCELS,
        OperationKind::Purchase | OperationKind::Authorize => "/payments",
        OperationKind::Confirm => "/payments/details",
        OperationKind::Capture => "/payments/{reference}/captures",
        OperationKind::Void => "/payments/{reference}/cancels",
        OperationKind::Refund => "/payments/{reference}/refunds",
    }
}

impl Adyen {
    fn body(&self, operation: &Operation<'_>) -> Result<Vec<u8>, Unpreparable> {
        let amount = || amount::to_wire(operation.amount.ok_or(Unpreparable::Amount)?);
        match operation.kind {
            OperationKind::Purchase | OperationKind::Authorize => self.create(operation, amount()?),
            OperationKind::Confirm => details(operation.parameters),
            OperationKind::Capture | OperationKind::Refund => {
                self.modification(operation, Some(amount()?))
            }
            OperationKind::Void if operation.payment.provider_reference.is_some() => {
                self.modification(operation, None)
            }
            OperationKind::Void => json(&wire::CancelByReference {
                merchant_account: &self.merchant_account,
                payment_reference: reference(operation, operation.opening).to_string(),
                reference: our_reference(operation).to_string(),
            }),
        }
    }

    /// The caller's metadata and the customer's fields stay here, but for what is in the token.
    fn create(
        &self,
        operation: &Operation<'_>,
        amount: wire::Amount,
    ) -> Result<Vec<u8>, Unpreparable> {
        let payment = operation.payment;
        let manual = operation.kind == OperationKind::Authorize;
        let method = PaidWith::of(payment)?;
        let shopper = payment.customer_reference.as_ref();
        let shopper = shopper.filter(|it| SHOPPER_REFERENCE.contains(&it.expose().chars().count()));
        if shopper.is_none() && (method.stored || method.store) {
            return Err(Unpreparable::Field("customer.customer_reference"));
        }
        let model = match payment.initiator {
            Initiator::Customer => "CardOnFile",
            Initiator::Merchant if method.stored => "UnscheduledCardOnFile",
            // Without the customer there is nobody to enter it.
            Initiator::Merchant => return Err(Unpreparable::Method),
        };
        json(&wire::CreatePayment {
            amount,
            merchant_account: &self.merchant_account,
            reference: our_reference(operation).to_string(),
            shopper_interaction: if method.stored {
                "ContAuth"
            } else {
                "Ecommerce"
            },
            recurring_processing_model: (method.stored || method.store).then_some(model),
            store_payment_method: method.store.then_some(true),
            payment_method: method.details,
            beside: method.beside,
            return_url: payment
                .return_url
                .non_empty()
                .ok_or(Unpreparable::Field("return_url"))?,
            shopper_reference: shopper.map(|it| it.expose().as_str()),
            merchant_order_reference: payment.merchant_reference.non_empty(),
            // Either way it is said, so that the merchant account's capture delay decides nothing.
            capture_delay_hours: (!manual).then_some(0),
            additional_data: manual.then_some(wire::ManualCapture {
                manual_capture: "true",
            }),
        })
    }

    fn modification(
        &self,
        operation: &Operation<'_>,
        amount: Option<wire::Amount>,
    ) -> Result<Vec<u8>, Unpreparable> {
        json(&wire::Modification {
            merchant_account: &self.merchant_account,
            amount,
            reference: our_reference(operation).to_string(),
        })
    }
}

fn our_reference(operation: &Operation<'_>) -> Reference {
    reference(operation, operation.transaction)
}

/// Our reference of a transaction of the payment.
fn reference(operation: &Operation<'_>, transaction: &Transaction) -> Reference {
    Reference {
        payment: operation.payment.id,
        transaction: transaction.id,
        kind: transaction.kind,
    }
}

/// What the customer's step returned, by the names that Adyen gave it.
fn details(parameters: &[(String, String)]) -> Result<Vec<u8>, Unpreparable> {
    let mut details: BTreeMap<&str, &str> = parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let payment_data = details.remove("paymentData");
    json(&wire::Details {
        details,
        payment_data,
    })
}
