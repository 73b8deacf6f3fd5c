//! Domain values with sensible defaults.

use std::collections::BTreeMap;

use chrono::DateTime;
use quittance_domain::amounts::Amounts;
use quittance_domain::cases::OpenCases;
use quittance_domain::contradictions::Contradictions;
use quittance_domain::ids::{
    PaymentId, ProviderAccount, ProviderReference, TenantId, TransactionId,
};
use quittance_domain::left_alone::LeftAlone;
use quittance_domain::money::{Currency, Money};
use quittance_domain::payment::{
    CaptureMethod, Initiator, Payment, PaymentMethod, PaymentMethodType, PaymentState,
};
use quittance_domain::ports::Operation;
use quittance_domain::text::{Sensitive, Text};
use quittance_domain::transaction::{
    OperationKind, Transaction, TransactionKind, TransactionOrigin, TransactionState,
};
use uuid::Uuid;

pub fn eur(minor_units: i64) -> Money {
    Money::new(minor_units, Currency::parse("EUR").unwrap()).unwrap()
}

/// A payment of 10.00 EUR with a token, known at the provider as `reference`.
pub fn payment(token: &str, reference: Option<&str>) -> Payment {
    Payment {
        id: PaymentId(Uuid::now_v7()),
        tenant: TenantId::parse("shop").unwrap(),
        state: PaymentState::Pending,
        disputed: false,
        expired: false,
        livemode: false,
        amount: eur(1000),
        amounts: Amounts::default(),
        method: PaymentMethod {
            kind: PaymentMethodType::Card,
            token: Some(Sensitive::new(token.to_owned())),
            brand: Text::default(),
            last4: Text::default(),
            expiry_month: None,
            expiry_year: None,
        },
        capture_method: CaptureMethod::Manual,
        merchant_reference: Text::default(),
        description: Text::parse("Two tickets").unwrap(),
        return_url: Text::parse("https://shop.example/return").unwrap(),
        initiator: Initiator::Customer,
        mandate_reference: Text::default(),
        metadata: BTreeMap::new(),
        customer_reference: Some(Sensitive::new("shopper-7".to_owned())),
        customer_erased: false,
        provider_account: ProviderAccount::parse("sandbox").unwrap(),
        routed: false,
        provider_reference: reference.map(|text| ProviderReference::parse(text).unwrap()),
        named_by_operator: false,
        next_action: None,
        decline: None,
        failure: None,
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
        expires_at: None,
        version: 1,
        last_leaf_hash: None,
    }
}

/// A transaction of a payment for the given operation.
pub fn transaction(payment: &Payment, operation: OperationKind, amount: i64) -> Transaction {
    Transaction {
        id: TransactionId(Uuid::now_v7()),
        kind: match operation {
            OperationKind::Purchase => TransactionKind::Purchase,
            OperationKind::Authorize | OperationKind::Confirm => TransactionKind::Authorization,
            OperationKind::Capture => TransactionKind::Capture,
            OperationKind::Void => TransactionKind::Void,
            OperationKind::Refund => TransactionKind::Refund,
        },
        origin: TransactionOrigin::Caller,
        state: TransactionState::Pending,
        amount,
        provider_account: payment.provider_account.clone(),
        provider_reference: None,
        decline: None,
        failure: None,
        reason: Text::default(),
        final_capture: false,
        dispute: None,
        attempts: 0,
        ever_unknown: false,
        retries: 0,
        resolved_by_operator: false,
        open_cases: OpenCases::NONE,
        contradictions: Contradictions::default(),
        left_alone: LeftAlone::default(),
        request: None,
        execute_before: DateTime::UNIX_EPOCH,
        lease_until: None,
        next_step_at: None,
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
    }
}

/// The operation of a transaction; voids and confirmations name no amount. It is taken for what opened the payment.
pub fn operation<'a>(
    kind: OperationKind,
    payment: &'a Payment,
    transaction: &'a Transaction,
    parameters: &'a [(String, String)],
) -> Operation<'a> {
    let amount = match kind {
        OperationKind::Void | OperationKind::Confirm => None,
        OperationKind::Purchase
        | OperationKind::Authorize
        | OperationKind::Capture
        | OperationKind::Refund => Some(eur(transaction.amount)),
    };
    Operation {
        kind,
        payment,
        transaction,
        opening: transaction,
        amount,
        parameters,
    }
}
