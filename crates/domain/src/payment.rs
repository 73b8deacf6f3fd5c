//! The payment: what the caller asked for, where it stands, and what it has moved.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::amounts::Amounts;
use crate::decline::{Decline, Failure};
use crate::ids::{PaymentId, ProviderAccount, ProviderReference, TenantId};
use crate::money::{Currency, Money};
use crate::named::named_enum;
use crate::text::{Sensitive, Text};
use crate::transaction::Transaction;

/// Most transactions that commands may make of one payment.
pub const MAX_TRANSACTIONS: usize = 1_000;
/// Most transactions of one payment, those that the provider reports included: it moved the money, so its word is
/// recorded also where a command would be refused. What it reports beyond stays in the inbox, as a dead letter.
pub const MAX_RECORDED_TRANSACTIONS: usize = 2_000;
/// Most metadata pairs of one payment.
pub const MAX_METADATA_PAIRS: usize = 50;
/// Most characters of a metadata key.
pub const MAX_METADATA_KEY: usize = 40;
/// Most characters of a metadata value.
pub const MAX_METADATA_VALUE: usize = 500;

named_enum! {
    /// Where a payment stands. After authorization it is derived from the amounts (see [`crate::transition`]).
    pub enum PaymentState {
        /// Accepted; the outcome is not known yet.
        Pending = "PENDING",
        /// The customer has to authenticate or to be redirected.
        RequiresAction = "REQUIRES_ACTION",
        /// Authorized, nothing captured.
        Authorized = "AUTHORIZED",
        /// Part is captured, the rest can still be.
        PartiallyCaptured = "PARTIALLY_CAPTURED",
        /// Everything that can be captured is.
        Captured = "CAPTURED",
        /// Part of what was captured is refunded.
        PartiallyRefunded = "PARTIALLY_REFUNDED",
        /// All that was captured is refunded, and nothing is left to capture.
        Refunded = "REFUNDED",
        /// The authorization was released, nothing was captured.
        Voided = "VOIDED",
        /// The issuer or the provider refused.
        Declined = "DECLINED",
        /// Proved not processed.
        Failed = "FAILED",
        /// The authorization ran out.
        Expired = "EXPIRED",
    }
}

named_enum! {
    /// How a payment is captured.
    pub enum CaptureMethod {
        /// At once, with the authorization: one PURCHASE.
        Automatic = "AUTOMATIC",
        /// By `CapturePayment`.
        Manual = "MANUAL",
    }
}

named_enum! {
    /// Who initiates the payment.
    pub enum Initiator {
        /// The customer is present.
        Customer = "CUSTOMER",
        /// The merchant charges under a mandate.
        Merchant = "MERCHANT",
    }
}

named_enum! {
    /// The kind of a payment method.
    pub enum PaymentMethodType {
        /// A credit, debit or prepaid card.
        Card = "CARD",
        /// A debit from a bank account.
        BankDebit = "BANK_DEBIT",
        /// A wallet.
        Wallet = "WALLET",
        /// A transfer that the customer makes.
        BankTransfer = "BANK_TRANSFER",
        /// A voucher that the customer pays in cash.
        Voucher = "VOUCHER",
    }
}

/// What the customer pays with. Only the provider's token says which account; the rest is for display.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PaymentMethod {
    /// The kind.
    pub kind: PaymentMethodType,
    /// The provider's token. Present on commands; `None` when a payment is read for display.
    pub token: Option<Sensitive<String>>,
    /// The brand, such as `visa`; may be empty.
    pub brand: Text<40>,
    /// The last four digits; empty or exactly four digits.
    pub last4: Text<4>,
    /// Expiry month, 1 to 12.
    pub expiry_month: Option<u8>,
    /// Expiry year, 2000 to 2099.
    pub expiry_year: Option<u16>,
}

/// What the customer has to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NextAction {
    /// Where to send the customer's browser; may carry secrets of the customer's session.
    pub redirect_url: Sensitive<String>,
    /// What the redirect or challenge needs beside it.
    pub data: Sensitive<BTreeMap<String, String>>,
    /// Whether the customer has days for it, such as to find small deposits on a bank statement: then only the provider
    /// ends the wait, and who does not act within the time of the policy has not left.
    pub may_take_days: bool,
}

/// A payment, at one version. Version 1 is its acceptance; each [`crate::change::Change`] adds one,
/// and writes the journal entry whose `entity_seq` is that version.
#[allow(clippy::struct_excessive_bools)] // independent yes-or-no answers, not a state
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payment {
    /// The payment's id.
    pub id: PaymentId,
    /// Who owns it.
    pub tenant: TenantId,
    /// Where it stands.
    pub state: PaymentState,
    /// Whether a chargeback is open.
    pub disputed: bool,
    /// Whether the authorization ran out (proved by the provider).
    pub expired: bool,
    /// Whether real money moves.
    pub livemode: bool,
    /// The amount asked for.
    pub amount: Money,
    /// What it has moved.
    pub amounts: Amounts,
    /// What the customer pays with.
    pub method: PaymentMethod,
    /// How it is captured.
    pub capture_method: CaptureMethod,
    /// The caller's order id; may be empty.
    pub merchant_reference: Text<255>,
    /// The caller's description; may be empty.
    pub description: Text<500>,
    /// Where the customer returns to after a redirect; may be empty.
    pub return_url: Text<2048>,
    /// Who initiates.
    pub initiator: Initiator,
    /// The mandate of a merchant-initiated payment; may be empty.
    pub mandate_reference: Text<255>,
    /// The caller's own pairs.
    pub metadata: BTreeMap<String, String>,
    /// The customer, by the caller's reference; their personal fields are stored apart, erasable.
    pub customer_reference: Option<Sensitive<String>>,
    /// Whether the customer's data is erased, or being erased: nothing personal is stored with it any more.
    pub customer_erased: bool,
    /// The provider account that serves it.
    pub provider_account: ProviderAccount,
    /// Whether routing chose that account, and may choose another while nothing was sent; else the caller did.
    pub routed: bool,
    /// The provider's reference of the payment.
    pub provider_reference: Option<ProviderReference>,
    /// Whether that is the word of an operator, rather than the provider's.
    pub named_by_operator: bool,
    /// What the customer has to do, while REQUIRES_ACTION.
    pub next_action: Option<NextAction>,
    /// Why it was declined.
    pub decline: Option<Decline>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// When the authorization runs out, as far as the provider said.
    pub expires_at: Option<DateTime<Utc>>,
    /// How many changes were committed: 1, 2, 3 …
    pub version: u64,
    /// Hash of the newest journal entry's leaf, to which the next one is chained.
    pub last_leaf_hash: Option<[u8; 32]>,
}

impl Payment {
    /// The one currency of all its amounts.
    pub fn currency(&self) -> Currency {
        self.amount.currency()
    }
}

/// A payment with all its transactions, oldest first: what is decided upon, and what callers see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PaymentRecord {
    /// The payment.
    pub payment: Payment,
    /// Its transactions, oldest first; at most [`MAX_RECORDED_TRANSACTIONS`].
    pub transactions: Vec<Transaction>,
}

impl PaymentRecord {
    /// The transaction with this id.
    pub fn transaction(&self, id: crate::ids::TransactionId) -> Option<&Transaction> {
        self.transactions
            .iter()
            .find(|transaction| transaction.id == id)
    }

    /// The transaction that opened the payment: its PURCHASE or AUTHORIZATION.
    pub fn opening(&self) -> Option<&Transaction> {
        self.transactions
            .iter()
            .find(|transaction| transaction.kind.opens())
    }
}
