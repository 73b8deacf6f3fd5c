//! A provider account: what it can do, what is sent to it and asked of it; and the accounts that there are.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;

use crate::decline::Cause;
use crate::ids::{ProviderAccount, ProviderReference, TenantId, TransactionId};
use crate::money::{Currency, Money};
use crate::payment::Payment;
use crate::reconciliation::{SettlementPage, SettlementSource};
use crate::transaction::{
    Dispute, LookupOutcome, OperationKind, PreparedRequest, SendReport, Transaction,
    TransactionKind, TransactionOrigin,
};
use crate::unconfirmed::Unconfirmed;
use crate::webhook::{ProviderWebhooks, WebhookFact};

use super::{Named, Saturated};

/// Whether a payment can be voided before it is authorized, and by which name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoidBefore {
    /// It cannot.
    Never,
    /// By the provider's name, while its customer has to act.
    Named,
    /// By ours too: while its customer has to act, and where it is not known whether the provider holds it.
    Ours,
}

/// What a provider can do.
#[allow(clippy::struct_excessive_bools)] // independent yes-or-no answers, not a state
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether part of an authorization can be captured.
    pub partial_capture: bool,
    /// Whether an authorization can be captured several times.
    pub several_captures: bool,
    /// Whether a payment can be voided before it is authorized.
    pub void_before_authorization: VoidBefore,
    /// Whether its lookup by our transaction id sees every accepted request.
    pub authoritative_lookup: bool,
    /// Whether a lookup by the provider's own reference tells how the operation stands now. Where it does not, what
    /// a webhook tells cannot be confirmed by asking, and its word has to do.
    pub current_lookup: bool,
    /// How long after a request its lookup may still miss it.
    pub consistency_window: Duration,
    /// How long it keeps an idempotency key.
    pub idempotency_key_lifetime: Duration,
}

/// What an adapter is asked to do, as domain values.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// What to do.
    pub kind: OperationKind,
    /// For which payment; its method carries the token when it is new.
    pub payment: &'a Payment,
    /// As which transaction; its id is the idempotency key.
    pub transaction: &'a Transaction,
    /// The transaction that opened the payment: the provider knows the payment by its id, also before it gives it a name
    /// of its own. `transaction` itself where that opens it.
    pub opening: &'a Transaction,
    /// How much (the transaction's amount); `None` for voids and confirmations.
    pub amount: Option<Money>,
    /// What the customer's authentication returned (confirm only).
    pub parameters: &'a [(String, String)],
}

/// Why an adapter cannot make a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unpreparable {
    /// The provider cannot represent the amount in this currency exactly.
    #[error("the provider cannot represent this amount exactly")]
    Amount,
    /// The provider does not serve this currency.
    #[error("the provider does not serve {0}")]
    Currency(Currency),
    /// The provider does not serve this payment method.
    #[error("the provider does not serve this payment method")]
    Method,
    /// The provider needs an optional field that the request does not hold, or not in a form that it takes.
    #[error("the provider needs {0}")]
    Field(&'static str),
    /// The provider's reference of the payment is not known yet.
    #[error("the provider's reference is not known yet")]
    NoReference,
}

/// The pure half of an adapter: what it can do, and the bytes of its requests.
pub trait ProviderRules: Send + Sync {
    /// What the provider can do.
    fn capabilities(&self) -> &Capabilities;

    /// Makes the request: the same operation always gives the same bytes.
    fn prepare(&self, operation: &Operation<'_>) -> Result<PreparedRequest, Unpreparable>;
}

/// What to look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupQuery {
    /// Our transaction. The provider knows this id only where we asked for the transaction; see `origin`.
    pub transaction: TransactionId,
    /// What it does. A chargeback and its reversal may share the provider's reference.
    pub kind: TransactionKind,
    /// Who caused it: what the provider itself did is found by `provider_reference` alone, which is then known.
    pub origin: TransactionOrigin,
    /// Its provider reference, where known.
    pub provider_reference: Option<ProviderReference>,
    /// The payment's provider reference, where known.
    pub payment_reference: Option<ProviderReference>,
}

impl LookupQuery {
    /// Asks what became of a transaction of this payment.
    pub fn about(payment: &Payment, transaction: &Transaction) -> Self {
        Self {
            transaction: transaction.id,
            kind: transaction.kind,
            origin: transaction.origin,
            provider_reference: transaction.provider_reference.clone(),
            payment_reference: payment.provider_reference.clone(),
        }
    }
}

/// A place for one call to an account; given back when it is dropped.
pub struct Place(Option<Box<dyn Any + Send + Sync>>);

impl Place {
    /// A place that holds something until it is given back.
    pub fn holding(permit: impl Any + Send + Sync) -> Self {
        Self(Some(Box::new(permit)))
    }

    /// A place where there is no limit.
    pub fn unlimited() -> Self {
        Self(None)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.0.is_some()).finish()
    }
}

/// Whether an account is called at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Circuit {
    /// Yes.
    Closed,
    /// A few calls, to see whether it is back.
    HalfOpen,
    /// No: calls are answered as not sent.
    Open,
}

/// One account at a payment provider.
#[async_trait]
pub trait Provider: ProviderRules + ProviderWebhooks + 'static {
    /// Sends a prepared request once, and classifies what came of it. Never retries by itself.
    /// `send` is 1 for the first send of the transaction.
    async fn send(&self, request: &PreparedRequest, send: u32) -> SendReport;

    /// Asks what became of a transaction.
    async fn lookup(&self, query: &LookupQuery) -> LookupOutcome;

    /// Whether a lookup asks the provider at all. Where there is nothing to ask, its answer says nothing about
    /// whether the provider works.
    fn lookup_asks(&self) -> bool {
        true
    }

    /// Asks which payment of ours the provider knows by this reference. For webhooks that name a payment by the
    /// provider's reference alone.
    async fn payment_named(&self, _reference: &ProviderReference) -> Result<Named, Unconfirmed> {
        Ok(Named::NotFound)
    }

    /// Asks what a chargeback, or its reversal, is about now: its reason, its date, its amount. `None` where the provider
    /// cannot be asked that, or does not know it.
    async fn dispute(&self, _query: &LookupQuery) -> Result<Option<Dispute>, Unconfirmed> {
        Ok(None)
    }

    /// Asks for all operations of a kind on the payment that the provider knows by this reference, as its webhooks would
    /// tell of each. For webhooks that do not say which of them they are about.
    async fn operations(
        &self,
        _kind: TransactionKind,
        _payment: &ProviderReference,
    ) -> Result<Vec<WebhookFact>, Unconfirmed> {
        Err(Cause::RequestRefused.into())
    }

    /// How it is learnt what the account settled; `None` where that cannot be read.
    fn settlements(&self) -> Option<SettlementSource> {
        None
    }

    /// Asks what the account settled, behind `after`. For accounts whose source says that they are asked.
    async fn settlement_page(&self, _after: u64) -> Result<SettlementPage, Cause> {
        Err(Cause::RequestRefused)
    }

    /// How long a send can take at most, connection included.
    fn send_timeout(&self) -> Duration;

    /// Whether real money moves through this account.
    fn livemode(&self) -> bool;

    /// Takes a place for one send, before anything is written for it.
    fn reserve(&self) -> Result<Place, Saturated> {
        Ok(Place::unlimited())
    }

    /// Waits for a place for one send, as long as a send can take: whoever waits is served before those who only try
    /// ([`Provider::reserve`]). For what is accepted already, so that new requests do not keep it from being sent.
    async fn place(&self) -> Result<Place, Saturated> {
        self.reserve()
    }

    /// Whether it is called at all.
    fn circuit(&self) -> Circuit {
        Circuit::Closed
    }
}

/// The configured provider accounts and the rules that choose among them.
pub trait Providers: Send + Sync + 'static {
    /// The account with this name.
    fn account(&self, name: &ProviderAccount) -> Option<Arc<dyn Provider>>;

    /// Whether this tenant may use an account; an account that does not exist serves nobody.
    fn serves(&self, tenant: &TenantId, name: &ProviderAccount) -> bool;

    /// The names of all accounts.
    fn names(&self) -> Vec<ProviderAccount>;

    /// The accounts that may serve a new payment, best first; those whose circuit is open come last.
    fn route(
        &self,
        tenant: &TenantId,
        amount: Money,
        method: crate::payment::PaymentMethodType,
    ) -> Vec<ProviderAccount>;
}
