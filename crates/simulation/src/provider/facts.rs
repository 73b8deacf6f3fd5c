//! What the provider says of what is in its books, in the words of its shape.

use chrono::TimeDelta;
use quittance_domain::decline::{Cause, Decline, DeclineCode};
use quittance_domain::ids::{PaymentId, ProviderReference, TransactionId};
use quittance_domain::money::{Currency, Money};
use quittance_domain::payment::NextAction;
use quittance_domain::ports::LookupQuery;
use quittance_domain::text::{Sensitive, Text};
use quittance_domain::transaction::{Fact, FactKind, OperationKind, TransactionKind};
use quittance_domain::webhook::Subject;

use super::ledger::{Booked, Ledger, Status, opens};
use super::shape::{Nature, Shape};

/// Until when authorizations hold, as is told: some run out before, and none in a world's first minutes.
const AUTHORIZED_FOR: TimeDelta = TimeDelta::hours(1);

pub(super) fn eur(minor_units: i64) -> Option<Money> {
    let eur = Currency::parse("EUR").ok()?;
    Money::new(minor_units, eur).ok()
}

/// How an operation stands now.
pub(super) fn fact(id: TransactionId, booked: &Booked, nature: Nature) -> Fact {
    let kind = match (booked.status, nature.shape) {
        (Status::Approved, Shape::Plain | Shape::Stripe) if booked.ran_out => FactKind::Expired,
        // It was authorized.
        (Status::Approved | Status::Uncaptured, _) => approved(booked, nature),
        (Status::Challenged, _) => asks_the_customer(),
        (Status::Pending, _) => FactKind::Pending,
        (Status::Voided, Shape::Plain | Shape::Stripe) => FactKind::Failed(Cause::Voided),
        // The result of what was voided at Adyen is called "Cancelled".
        (Status::Voided, Shape::Adyen) | (Status::Declined, Shape::Plain) => refused(),
        (Status::Declined, Shape::Stripe | Shape::Adyen) if opens(booked.kind) => refused(),
        (Status::Declined, Shape::Stripe | Shape::Adyen) | (Status::TakenBack, Shape::Stripe) => {
            FactKind::Failed(Cause::ProviderReportedFailure)
        }
        (Status::TakenBack, Shape::Plain | Shape::Adyen) => {
            FactKind::TakenBack(Cause::ProviderReportedFailure)
        }
    };
    // What the customer does next may get another name.
    let has_names = nature.shape != Shape::Adyen || booked.status != Status::Challenged;
    let names = names(id, booked, nature).filter(|_| has_names);
    let (operation, payment) = names.unzip();
    Fact {
        kind,
        provider_reference: operation.flatten(),
        payment_reference: payment.flatten(),
    }
}

/// That it was received: how it ends is told by webhook.
pub(super) fn received(id: TransactionId, booked: &Booked, by_their_name: bool) -> Fact {
    Fact {
        kind: FactKind::Pending,
        provider_reference: reference(&id.to_string()),
        payment_reference: reference(&intent(booked.payment)).filter(|_| by_their_name),
    }
}

/// What a webhook tells of how an operation stands; `None` where there is none for that.
pub(super) fn told(id: TransactionId, booked: &Booked, nature: Nature) -> Option<(Subject, Fact)> {
    let fact = fact(id, booked, nature);
    let ours = Subject::Transaction(id);
    match nature.shape {
        // The event of the void tells it.
        Shape::Stripe if booked.status == Status::Voided => None,
        Shape::Stripe if booked.kind == OperationKind::Void => {
            let (kind, dispute) = (TransactionKind::Void, None);
            Some((Subject::Operation { kind, dispute }, fact))
        }
        Shape::Plain | Shape::Stripe => Some((ours, fact)),
        Shape::Adyen => match booked.status {
            // That it was authorized is told, whatever became of its capture.
            Status::Approved | Status::Declined | Status::TakenBack | Status::Uncaptured => {
                Some((ours, fact))
            }
            Status::Challenged | Status::Pending | Status::Voided => None,
        },
    }
}

/// That an authorization ran out, as a webhook tells it.
pub(super) fn ran_out(id: TransactionId, booked: &Booked, nature: Nature) -> Fact {
    Fact {
        kind: FactKind::Expired,
        ..fact(id, booked, nature)
    }
}

/// What Stripe's payment intent says of a capture or a void, of which there is one at most; `None` where it says nothing.
pub(super) fn of_intent(ledger: &Ledger, query: &LookupQuery, nature: Nature) -> Option<Fact> {
    let known = query.payment_reference.as_ref()?;
    let payment = known.as_str().strip_prefix(INTENT)?.parse().ok()?;
    let payment = PaymentId(payment);
    let done = |kind| {
        let mut all = ledger.operations.iter();
        all.find(|(_, held)| {
            held.kind == kind && held.payment == payment && held.status == Status::Approved
        })
    };
    let failed = |cause| Fact {
        kind: FactKind::Failed(cause),
        provider_reference: None,
        payment_reference: Some(known.clone()),
    };
    let ran_out = ledger.expired.contains(&payment);
    let canceled = done(OperationKind::Void).is_some() || ran_out;
    match query.kind {
        // Whoever canceled it.
        TransactionKind::Void if canceled => {
            let authorized = ledger.balance(payment).authorized;
            Some(Fact {
                kind: FactKind::Approved {
                    amount: eur(authorized).filter(|_| authorized > 0),
                    expires_at: None,
                },
                provider_reference: Some(known.clone()),
                payment_reference: Some(known.clone()),
            })
        }
        TransactionKind::Void if ledger.balance(payment).captured > 0 => {
            Some(failed(Cause::AlreadyCaptured))
        }
        TransactionKind::Capture => match done(OperationKind::Capture) {
            Some((id, booked)) if *id == query.transaction => Some(fact(*id, booked, nature)),
            None if ran_out => Some(failed(Cause::Expired)),
            None if canceled => Some(failed(Cause::ProviderReportedFailure)),
            Some(_) | None => None,
        },
        TransactionKind::Void
        | TransactionKind::Purchase
        | TransactionKind::Authorization
        | TransactionKind::Refund
        | TransactionKind::Chargeback
        | TransactionKind::ChargebackReversal => None,
    }
}

const INTENT: &str = "pi-";

fn intent(payment: PaymentId) -> String {
    format!("{INTENT}{payment}")
}

fn reference(text: &str) -> Option<ProviderReference> {
    ProviderReference::parse(text).ok()
}

/// The provider's names of an operation and of its payment, where it gives any.
pub(super) fn names(
    id: TransactionId,
    booked: &Booked,
    nature: Nature,
) -> Option<(Option<ProviderReference>, Option<ProviderReference>)> {
    let payment = intent(booked.payment);
    let operation = match (nature.shape, booked.kind) {
        (Shape::Stripe, OperationKind::Capture) => format!("ch-{}", booked.payment),
        (Shape::Plain, _)
        | (Shape::Stripe | Shape::Adyen, OperationKind::Refund)
        | (Shape::Adyen, OperationKind::Capture | OperationKind::Void) => id.to_string(),
        (
            Shape::Stripe | Shape::Adyen,
            OperationKind::Purchase | OperationKind::Authorize | OperationKind::Confirm,
        )
        | (Shape::Stripe, OperationKind::Void) => payment.clone(),
    };
    nature
        .names
        .then(|| (reference(&operation), reference(&payment)))
}

fn approved(booked: &Booked, nature: Nature) -> FactKind {
    let told = booked.kind == OperationKind::Authorize && nature.can_be_asked();
    let until = booked.arrived.checked_add_signed(AUTHORIZED_FOR);
    FactKind::Approved {
        amount: eur(booked.amount),
        expires_at: until.filter(|_| told),
    }
}

fn refused() -> FactKind {
    FactKind::Declined(Decline {
        code: DeclineCode::DoNotHonor,
        provider_code: Text::default(),
    })
}

fn asks_the_customer() -> FactKind {
    FactKind::RequiresAction(NextAction {
        redirect_url: Sensitive::new("https://issuer.example".to_owned()),
        data: Sensitive::default(),
        may_take_days: false,
    })
}
