//! The simulated provider as the product sees it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use futures::channel::oneshot;
use futures::future::{Either, select};
use quittance_domain::decline::Cause;
use quittance_domain::ids::{ProviderAccount, ProviderReference, TenantId, TransactionId};
use quittance_domain::money::Money;
use quittance_domain::payment::PaymentMethodType;
use quittance_domain::ports::{
    Capabilities, Circuit, LookupQuery, Operation, Place, Provider, ProviderRules, Providers,
    Saturated, Unpreparable,
};
use quittance_domain::text::Sensitive;
use quittance_domain::transaction::{
    Fact, FactKind, LookupOutcome, OperationKind, PreparedRequest, SendOutcome, SendReport,
    TransactionKind, TransactionOrigin,
};
use quittance_domain::webhook::{
    Delivery, ProviderWebhooks, Unreadable, Unverified, VerifiedEvent, WebhookFact,
};

use super::facts::{fact, of_intent};
use super::ledger::Booked;
use super::shape::Shape;
use super::unasked::Unasked;
use super::wire::Wire;
use super::{SimProvider, SimProviders};
use crate::executor::WORLD;

/// How long a caller waits for an answer.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The latest that a request is processed after its caller gave up; less than the sender's lease.
const LATE: Duration = Duration::from_secs(13);

/// How long after its attempt was recorded a send may begin: a third of the lease's margin for the commit, and what two
/// clocks can differ. Seconds.
const SEND_WITHIN: i64 = 10;

/// The provider does not hold it, and that proves nothing.
const NOT_FOUND: LookupOutcome = LookupOutcome::NotFound {
    authoritative: false,
};

impl ProviderRules for SimProvider {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prepare(&self, operation: &Operation<'_>) -> Result<PreparedRequest, Unpreparable> {
        let by_name = match (self.nature.shape, operation.kind) {
            (Shape::Plain, _)
            | (Shape::Stripe | Shape::Adyen, OperationKind::Purchase | OperationKind::Authorize)
            | (Shape::Adyen, OperationKind::Confirm | OperationKind::Void) => false,
            (Shape::Stripe, OperationKind::Confirm | OperationKind::Void)
            | (Shape::Stripe | Shape::Adyen, OperationKind::Capture | OperationKind::Refund) => {
                true
            }
        };
        if by_name && operation.payment.provider_reference.is_none() {
            return Err(Unpreparable::NoReference);
        }
        Ok(PreparedRequest {
            bytes: Sensitive::new(Wire::write(operation)),
        })
    }
}

fn report(outcome: SendOutcome) -> SendReport {
    let answered = match &outcome {
        SendOutcome::Answered(fact) => Some(format!("{:?}", fact.kind)),
        SendOutcome::NotSent(_) | SendOutcome::Unknown(_) => None,
    };
    SendReport {
        outcome,
        latency_micros: 1_000,
        http_status: None,
        response: answered.map(|text| Sensitive::new(text.into_bytes())),
        retry_after: None,
    }
}

/// Webhooks come to the flows as facts that were verified and read.
impl ProviderWebhooks for SimProvider {
    fn verify(&self, _delivery: &Delivery<'_>) -> Result<Vec<VerifiedEvent>, Unverified> {
        Err(Unverified::NoSecret)
    }

    fn webhook(&self, _body: &[u8]) -> Result<Vec<WebhookFact>, Unreadable> {
        Err(Unreadable::Unexpected)
    }
}

#[async_trait]
impl Provider for SimProvider {
    async fn send(&self, request: &PreparedRequest, send: u32) -> SendReport {
        let bytes = request.bytes.expose().clone();
        let wire = Wire::read(&bytes);
        if let Some(wire) = &wire {
            self.judge(wire.transaction, send);
        }
        let chaos = *self.chaos.lock();
        if self.executor.chance(chaos.circuit_open) {
            return report(SendOutcome::NotSent(Cause::CircuitOpen));
        }
        if let Some(wire) = &wire {
            self.judge_send(wire);
            self.judge_begin(wire);
            if self.executor.chance(chaos.holds_off) {
                return self.hold_off(wire.transaction, send).await;
            }
        }
        let roll = self.executor.pick(0..1_000);
        if roll < chaos.not_sent {
            self.executor.wait_up_to(Duration::from_secs(2)).await;
            return report(SendOutcome::NotSent(Cause::ConnectionRefused));
        }
        if let Some(wire) = &wire {
            self.begins(wire.transaction);
        }
        if roll < chaos.not_sent + chaos.lost_request {
            self.executor.wait(TOTAL_TIMEOUT).await;
            return report(SendOutcome::Unknown(Cause::ResponseTimeout));
        }
        let unheard = roll < chaos.not_sent + chaos.lost_request + chaos.lost_answer;
        // Once it has left, it arrives, whatever becomes of the sender.
        let (tell, told) = oneshot::channel();
        let provider = self.clone();
        self.executor.spawn(WORLD, async move {
            let takes = if unheard {
                LATE
            } else {
                Duration::from_millis(300)
            };
            provider.executor.wait_up_to(takes).await;
            let answer = provider.process(&bytes);
            if let Some(wire) = Wire::read(&bytes) {
                provider.tell_outcome(wire.transaction);
            }
            let answers_within = Duration::from_millis(300);
            provider.executor.wait_up_to(answers_within).await;
            // The sender may have crashed.
            let _ = tell.send(answer.filter(|_| !unheard));
        });
        match select(told, Box::pin(self.executor.wait(TOTAL_TIMEOUT))).await {
            Either::Left((Ok(Some(outcome)), _)) => report(outcome),
            Either::Left((Ok(None) | Err(_), _)) => {
                report(SendOutcome::Unknown(Cause::UnreadableResponse))
            }
            Either::Right(_) => report(SendOutcome::Unknown(Cause::ResponseTimeout)),
        }
    }

    async fn lookup(&self, query: &LookupQuery) -> LookupOutcome {
        if !self.nature.can_be_asked() {
            return unasked(query);
        }
        self.judge_lookup(query.transaction);
        self.executor.wait_up_to(Duration::from_millis(300)).await;
        let chaos = *self.chaos.lock();
        if self.executor.chance(chaos.holds_off) {
            // Whoever asked without being due waits for nothing.
            let known = self.executor.on_demand();
            let wait = (!known).then(|| self.asks_to_wait(query.transaction, None));
            return LookupOutcome::Unavailable {
                cause: Cause::RateLimited,
                retry_after: wait,
            };
        }
        let fails = self.executor.chance(chaos.lookup_fails);
        let found = self.find(query);
        self.executor.wait_up_to(Duration::from_millis(300)).await;
        if fails {
            return LookupOutcome::Unavailable {
                cause: Cause::ConnectionRefused,
                retry_after: None,
            };
        }
        found.map_or(
            LookupOutcome::NotFound {
                authoritative: self.nature.authoritative,
            },
            LookupOutcome::Found,
        )
    }

    fn lookup_asks(&self) -> bool {
        self.nature.can_be_asked()
    }

    fn send_timeout(&self) -> Duration {
        TOTAL_TIMEOUT
    }

    fn livemode(&self) -> bool {
        false
    }

    fn reserve(&self) -> Result<Place, Saturated> {
        if self.executor.chance(self.chaos.lock().busy) {
            return Err(Saturated);
        }
        Ok(Place::unlimited())
    }

    fn circuit(&self) -> Circuit {
        if self.executor.chance(self.chaos.lock().circuit_open) {
            return Circuit::Open;
        }
        Circuit::Closed
    }
}

/// What is said without asking: what has a name is held.
fn unasked(query: &LookupQuery) -> LookupOutcome {
    let Some(reference) = &query.provider_reference else {
        return NOT_FOUND;
    };
    LookupOutcome::Found(Fact {
        kind: FactKind::Pending,
        provider_reference: Some(reference.clone()),
        payment_reference: query.payment_reference.clone(),
    })
}

impl SimProvider {
    /// What its books say about what is looked up.
    fn find(&self, query: &LookupQuery) -> Option<Fact> {
        let books = self.books.lock();
        if query.origin == TransactionOrigin::Provider {
            let named = query.provider_reference.as_ref();
            let named = named.map(ProviderReference::as_str);
            let mut all = books.unasked.iter();
            let found = all.find(|unasked| {
                unasked.kind == query.kind && Some(unasked.reference.as_str()) == named
            });
            return found.map(Unasked::fact);
        }
        let moved = !query.kind.opens();
        let booked = books.operations.get(&query.transaction);
        match self.nature.shape {
            Shape::Stripe if moved && query.payment_reference.is_none() => return None,
            Shape::Stripe if moved && !refunds(query) => {
                return of_intent(&books, query, self.nature);
            }
            Shape::Plain | Shape::Stripe | Shape::Adyen => {}
        }
        let booked = booked.filter(|booked| self.shows(booked, query))?;
        Some(fact(query.transaction, booked, self.nature))
    }

    /// Asks us to wait, instead of processing a request: whether it was processed, it says or does not.
    async fn hold_off(&self, id: TransactionId, send: u32) -> SendReport {
        self.executor.wait_up_to(Duration::from_millis(300)).await;
        let outcome = if self.executor.chance(500) {
            SendOutcome::NotSent(Cause::RateLimited)
        } else {
            self.begins(id);
            SendOutcome::Unknown(Cause::ProviderError)
        };
        SendReport {
            retry_after: Some(self.asks_to_wait(id, Some(send))),
            ..report(outcome)
        }
    }

    /// Looks at whether a send may be made now: its attempt is committed, and its lease has time for it.
    fn judge(&self, id: TransactionId, send: u32) {
        let committed = self.store.look(|tables| {
            let attempt = tables.attempts.get(&(id, send));
            attempt.map(|attempt| attempt.started_at)
        });
        let age = committed.map(|at| self.executor.now() - at);
        let text = match age {
            None => format!("I1: {id} was sent without a committed attempt"),
            Some(age) if age > TimeDelta::seconds(SEND_WITHIN) => {
                format!("{id} was sent when its lease had no time for it")
            }
            Some(_) => return,
        };
        self.books.lock().violations.push(text);
    }

    /// Whether its lookup shows an operation: its own, and not younger than its window (in the worst case). What Stripe is
    /// asked for by its own name it shows at once.
    fn shows(&self, booked: &Booked, query: &LookupQuery) -> bool {
        let named = query.payment_reference.is_some() || query.provider_reference.is_some();
        let by_name = self.nature.shape == Shape::Stripe && named;
        let age = self.executor.now() - booked.arrived;
        let window = TimeDelta::from_std(self.nature.window).unwrap_or_default();
        let seen = by_name || age >= window || self.executor.chance(300);
        booked.account == self.account && seen
    }
}

fn refunds(query: &LookupQuery) -> bool {
    query.kind == TransactionKind::Refund
}

impl Providers for SimProviders {
    fn account(&self, name: &ProviderAccount) -> Option<Arc<dyn Provider>> {
        let found = self.0.iter().find(|provider| provider.account == *name)?;
        Some(Arc::new(found.clone()))
    }

    fn names(&self) -> Vec<ProviderAccount> {
        self.0.iter().map(|found| found.account.clone()).collect()
    }

    fn serves(&self, _tenant: &TenantId, _name: &ProviderAccount) -> bool {
        true
    }

    fn route(
        &self,
        _tenant: &TenantId,
        _amount: Money,
        _method: PaymentMethodType,
    ) -> Vec<ProviderAccount> {
        self.names()
    }
}
