//! What clients and operators ask for.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use quittance_domain::cases::OpenCases;
use quittance_domain::change::OperatorActionKind;
use quittance_domain::command::{
    Capture, Confirm, Create, Customer, Refund, Resolution, Resolve, Retry, Void,
};
use quittance_domain::context::{Actor, ActorKind, Caller, Origin};
use quittance_domain::ids::{
    IdempotencyKey, PaymentId, ProviderReference, TenantId, TransactionId,
};
use quittance_domain::money::{Currency, Money};
use quittance_domain::payment::{CaptureMethod, Initiator, PaymentMethod, PaymentMethodType};
use quittance_domain::text::{Sensitive, Text};
use quittance_domain::transaction::{TransactionOrigin, TransactionState};

use crate::executor::Executor;
use crate::provider::{SimProvider, Status};
use crate::store::SimStore;

/// Something that a client asks for; repeated, it is the same request under the same key.
#[derive(Clone)]
pub(super) enum Act {
    Create(Box<Create>),
    Confirm(Confirm),
    Capture(Capture),
    Void(Void),
    Refund(Refund),
    Sync(PaymentId),
    Resolve(Resolve),
    Retry(Retry),
}

impl Act {
    pub fn choose(
        executor: &Executor,
        store: &SimStore,
        provider: &SimProvider,
        known: &[PaymentId],
        key: String,
    ) -> Self {
        let payment = match u32::try_from(known.len()) {
            Ok(count @ 1..) if executor.chance(700) => known
                .get(usize::try_from(executor.pick(0..count)).unwrap_or(0))
                .copied(),
            _ => None,
        };
        let idempotency_key = key_of(key);
        let Some(payment) = payment else {
            return Self::Create(Box::new(create(executor, idempotency_key)));
        };
        let amount = executor
            .chance(600)
            .then(|| eur(i64::from(executor.pick(1..110))))
            .flatten();
        let (reason, execute_before) = (Text::default(), None);
        match executor.pick(0..13) {
            0..=3 => {
                let final_capture = executor.chance(200);
                Self::Capture(Capture {
                    payment,
                    idempotency_key,
                    amount,
                    final_capture,
                    execute_before,
                })
            }
            4..=6 => Self::Refund(Refund {
                payment,
                idempotency_key,
                amount,
                reason,
                execute_before,
            }),
            7 | 8 => Self::Void(Void {
                payment,
                idempotency_key,
                reason,
            }),
            9 => Self::Confirm(Confirm {
                payment,
                idempotency_key,
                parameters: Sensitive::default(),
            }),
            10 | 11 => Self::Sync(payment),
            _ => {
                Self::of_operator(executor, store, provider, payment).unwrap_or(Self::Sync(payment))
            }
        }
    }

    /// Makes a new payment that of a customer: of one in seven that there are, or of none.
    pub fn give_customer(&mut self, number: u64) {
        let Self::Create(command) = self else {
            return;
        };
        let name = format!("customer-{}", number % 7);
        command.customer = (!number.is_multiple_of(7)).then(|| Customer {
            reference: Sensitive::new(name.clone()),
            fields: vec![("customer.name", Sensitive::new(name))],
        });
    }

    /// An operator who decides about what is pending, rightly or wrongly.
    fn of_operator(
        executor: &Executor,
        store: &SimStore,
        provider: &SimProvider,
        payment: PaymentId,
    ) -> Option<Self> {
        let transaction_open = store.look(|tables| {
            let rows = &tables.payments.get(&payment)?.transactions;
            let open = rows.iter().find(|row| !row.state.ended());
            Some(open.map(|open| (open.id, open.open_cases)))
        })?;
        let Some((transaction, cases)) = transaction_open else {
            return Self::taken_back(executor, store, payment);
        };
        let reason = Text::parse("seen on a statement").ok()?;
        if executor.chance(500) {
            return Some(Self::Retry(Retry {
                payment,
                transaction,
                reason,
            }));
        }
        let resolution = match executor.pick(0..3) {
            0 => Resolution::Succeeded {
                // They may have taken it for another one.
                provider_reference: ProviderReference::parse("of-another-one")
                    .ok()
                    .filter(|_| executor.chance(300)),
                // Who looks into the provider's dashboard sees what was really moved.
                amount: provider
                    .operations()
                    .get(&transaction)
                    .filter(|_| executor.chance(500))
                    .and_then(|booked| eur(booked.amount)),
            },
            1 => Resolution::NotProcessed,
            _ => Resolution::Acknowledged(acknowledged(executor, cases)),
        };
        Some(Self::Resolve(Resolve {
            payment,
            transaction,
            resolution,
            reason,
            evidence: Text::default(),
            seen_version: None,
        }))
    }

    /// An operator who says, wrongly, that the provider took back what was done.
    fn taken_back(executor: &Executor, store: &SimStore, payment: PaymentId) -> Option<Self> {
        let (transaction, version) = store.look(|tables| {
            let record = tables.payments.get(&payment)?;
            let mut done = record.transactions.iter().rev();
            let done = done.find(|row| {
                row.state == TransactionState::Succeeded
                    && row.origin != TransactionOrigin::Provider
            })?;
            Some((done.id, record.payment.version))
        })?;
        executor.chance(200).then(|| {
            Self::Resolve(Resolve {
                payment,
                transaction,
                resolution: Resolution::TakenBack,
                reason: Text::parse("as their support says").unwrap_or_default(),
                evidence: Text::default(),
                seen_version: Some(version),
            })
        })
    }

    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Create(command) => Some(command.idempotency_key.as_str()),
            Self::Confirm(command) => Some(command.idempotency_key.as_str()),
            Self::Capture(command) => Some(command.idempotency_key.as_str()),
            Self::Void(command) => Some(command.idempotency_key.as_str()),
            Self::Refund(command) => Some(command.idempotency_key.as_str()),
            Self::Sync(_) | Self::Resolve(_) | Self::Retry(_) => None,
        }
    }
}

/// What an operator does about what recovery has given up, most often rightly.
pub(super) fn given_up(
    executor: &Executor,
    provider: &SimProvider,
    payment: PaymentId,
    transaction: TransactionId,
) -> Option<Act> {
    let reason = Text::parse("as their support says").ok()?;
    if executor.chance(500) {
        return Some(Act::Retry(Retry {
            payment,
            transaction,
            reason,
        }));
    }
    let booked = provider.operations().remove(&transaction);
    let resolution = match booked.map(|booked| (booked.status, booked.amount)) {
        Some((Status::Approved, amount)) => Resolution::Succeeded {
            provider_reference: provider
                .name_of(transaction)
                .filter(|_| executor.chance(500)),
            amount: eur(amount),
        },
        Some((Status::Pending | Status::Challenged, _)) => return None,
        Some((Status::Declined | Status::Voided | Status::TakenBack | Status::Uncaptured, _))
        | None => Resolution::NotProcessed,
    };
    executor.chance(600).then_some(Act::Resolve(Resolve {
        payment,
        transaction,
        resolution,
        reason,
        evidence: Text::default(),
        seen_version: None,
    }))
}

pub(super) fn key_of(text: String) -> IdempotencyKey {
    IdempotencyKey::parse(text).unwrap_or_else(|_| unreachable_key())
}

#[allow(clippy::expect_used)] // a constant that is valid
fn unreachable_key() -> IdempotencyKey {
    IdempotencyKey::parse("key").expect("a valid key")
}

fn eur(minor_units: i64) -> Option<Money> {
    Currency::parse("EUR")
        .ok()
        .and_then(|eur| Money::new(minor_units, eur).ok())
}

fn create(executor: &Executor, idempotency_key: IdempotencyKey) -> Create {
    Create {
        capture_method: if executor.chance(500) {
            CaptureMethod::Manual
        } else {
            CaptureMethod::Automatic
        },
        execute_before: executor
            .chance(300)
            .then(|| executor.now() + TimeDelta::seconds(executor.pick(10..60).into())),
        ..purchase(idempotency_key)
    }
}

/// A purchase by card, of 1 EUR.
///
/// # Panics
/// Never: what is parsed is a constant.
#[allow(clippy::expect_used)] // constants that are valid
pub fn purchase(idempotency_key: IdempotencyKey) -> Create {
    Create {
        idempotency_key,
        amount: eur(100).expect("a valid amount"),
        method: PaymentMethod {
            kind: PaymentMethodType::Card,
            token: Some(Sensitive::new("tok".to_owned())),
            brand: Text::default(),
            last4: Text::default(),
            expiry_month: None,
            expiry_year: None,
        },
        capture_method: CaptureMethod::Automatic,
        merchant_reference: Text::default(),
        description: Text::default(),
        return_url: Text::default(),
        provider_account: None,
        customer: None,
        initiator: Initiator::Customer,
        mandate_reference: Text::default(),
        execute_before: None,
        metadata: BTreeMap::new(),
    }
}

/// Somebody who calls; where they are in a hurry, for some seconds at most.
///
/// # Panics
/// Never: what is parsed is a constant.
#[allow(clippy::expect_used)] // constants that are valid
pub fn caller(executor: &Executor, hurried: bool) -> Caller {
    let patience = TimeDelta::seconds(i64::from(executor.pick(1..12)));
    Caller {
        tenant: TenantId::parse("acme").expect("a valid tenant"),
        actor: Actor {
            kind: ActorKind::Service,
            id: "client".to_owned(),
            auth_method: "api_key",
        },
        origin: Origin::default(),
        remote: None,
        deadline: hurried.then(|| executor.now() + patience),
    }
}

/// The kind that an operator acknowledges: one that is open, if any is.
fn acknowledged(executor: &Executor, cases: OpenCases) -> OperatorActionKind {
    let second = executor.chance(500);
    let kind = cases.iter().nth(usize::from(second)).or(cases.first());
    kind.unwrap_or(OperatorActionKind::RecoveryExhausted)
}
