//! What is told about operations, and in which order.

use super::Ledger;
use crate::limits::{MAX_EVENTS, MAX_PAGE};
use crate::token::Token;
use crate::webhook::{Delivery, Sender};
use crate::wire::{DeclineCode, Event, EventPage, EventType, OperationKind, OperationStatus};
use chrono::{DateTime, Utc};
use std::collections::VecDeque;
use uuid::Uuid;

/// Where events go besides the log.
pub(crate) type Outbox = Sender;

/// An event is kept as what it tells, and rendered when asked for.
#[derive(Clone, Copy)]
struct Told {
    kind: EventType,
    at: usize,
    status: OperationStatus,
    decline: Option<DeclineCode>,
    when: DateTime<Utc>,
}

pub(super) struct EventLog {
    outbox: Option<Outbox>,
    /// Tells the events of one run from those of another.
    run: u64,
    told: VecDeque<Told>,
    /// Number of the oldest event that is kept.
    oldest: u64,
}

impl EventLog {
    pub(super) fn new(outbox: Option<Outbox>) -> Self {
        Self {
            outbox,
            run: rand::random(),
            told: VecDeque::new(),
            oldest: 0,
        }
    }

    pub(super) fn are_sent(&self) -> bool {
        self.outbox.is_some()
    }

    /// Keeps an event and gives its number.
    fn keep(&mut self, told: Told) -> u64 {
        if self.told.len() >= MAX_EVENTS {
            self.told.pop_front();
            self.oldest += 1;
        }
        self.told.push_back(told);
        self.oldest + u64::try_from(self.told.len().saturating_sub(1)).unwrap_or(0)
    }

    fn id(&self, number: u64) -> String {
        let id = (u128::from(self.run) << 64) | u128::from(number);
        format!("evt_{}", Uuid::from_u128(id).simple())
    }
}

impl Ledger {
    /// Everything that follows from an operation having reached a status.
    pub(super) fn decided(&mut self, at: usize, now: DateTime<Utc>) {
        let Some(record) = self.operations.get(at) else {
            return;
        };
        let (payment, kind, status) = (record.payment, record.kind, record.status);
        let Some(token) = self.payments.get(payment).map(|payment| payment.plan.token) else {
            return;
        };
        match status {
            OperationStatus::Pending if kind == OperationKind::Chargeback => {
                self.tell(EventType::ChargebackInquiryOpened, at, now);
            }
            OperationStatus::Pending => self.remember_unasked(at),
            OperationStatus::RequiresAction => {}
            OperationStatus::Approved => self.approved(at, payment, kind, token, now),
            OperationStatus::Declined => self.tell(EventType::PaymentDeclined, at, now),
            OperationStatus::Failed => match kind {
                OperationKind::Capture => self.tell(EventType::PaymentCaptureFailed, at, now),
                OperationKind::Refund => self.tell(EventType::RefundFailed, at, now),
                OperationKind::Chargeback => self.tell(EventType::ChargebackClosed, at, now),
                // Voided before authentication: the void tells it.
                OperationKind::Purchase
                | OperationKind::Authorization
                | OperationKind::Void
                | OperationKind::ChargebackReversal => {}
            },
        }
    }

    fn approved(
        &mut self,
        at: usize,
        payment: usize,
        kind: OperationKind,
        token: Token,
        now: DateTime<Utc>,
    ) {
        let reordered = token == Token::WebhookOutOfOrder;
        match kind {
            OperationKind::Authorization if reordered => {
                if let Some(payment) = self.payments.get_mut(payment) {
                    payment.withholds_authorized = true;
                }
                self.touch_payment(payment);
            }
            OperationKind::Authorization => self.tell(EventType::PaymentAuthorized, at, now),
            OperationKind::Purchase => {
                self.tell(EventType::PaymentCaptured, at, now);
                if reordered {
                    self.tell(EventType::PaymentAuthorized, at, now);
                }
            }
            OperationKind::Capture => {
                self.tell(EventType::PaymentCaptured, at, now);
                self.tell_withheld(payment, now);
            }
            OperationKind::Void => {
                self.tell(EventType::PaymentVoided, at, now);
                self.tell_withheld(payment, now);
            }
            OperationKind::Refund => self.tell(EventType::RefundSucceeded, at, now),
            OperationKind::Chargeback => self.tell(EventType::ChargebackOpened, at, now),
            OperationKind::ChargebackReversal => {
                self.tell(EventType::ChargebackReversed, at, now);
            }
        }
        if token == Token::Chargeback
            && matches!(kind, OperationKind::Purchase | OperationKind::Capture)
        {
            self.charge_back(payment, at, now);
        }
    }

    /// The authorization's event, after the one that should have come later.
    fn tell_withheld(&mut self, payment: usize, now: DateTime<Utc>) {
        let Some(known) = self.payments.get_mut(payment) else {
            return;
        };
        if std::mem::take(&mut known.withholds_authorized) {
            let first = known.first;
            self.touch_payment(payment);
            self.tell(EventType::PaymentAuthorized, first, now);
        }
    }

    fn tell(&mut self, kind: EventType, at: usize, now: DateTime<Utc>) {
        let Some(record) = self.operations.get(at) else {
            return;
        };
        let (payment, status, decline) = (record.payment, record.status, record.decline);
        let told = Told {
            kind,
            at,
            status,
            decline,
            when: now,
        };
        let number = self.events.keep(told);
        let Some(outbox) = &self.events.outbox else {
            return;
        };
        let Some(event) = self.event(number, told) else {
            return;
        };
        let twice = self
            .payments
            .get(payment)
            .is_some_and(|payment| payment.plan.token == Token::DuplicateWebhook);
        let copies = if twice { 3 } else { 1 };
        outbox.send(payment, Delivery { event, copies });
    }

    fn event(&self, number: u64, told: Told) -> Option<Event> {
        let operation = self.operation_as(told.at, told.status, told.decline)?;
        let payment = self.payments.get(self.operations.get(told.at)?.payment)?;
        Some(Event {
            id: self.events.id(number),
            r#type: told.kind,
            created_at: told.when,
            payment_id: operation.payment_id.clone(),
            payment_reference: payment.callers_id.as_deref().map(str::to_owned),
            operation,
        })
    }

    /// Events from number `after` on.
    pub(crate) fn event_page(&self, after: u64, limit: usize) -> EventPage {
        let log = &self.events;
        let skip = usize::try_from(after.saturating_sub(log.oldest)).unwrap_or(usize::MAX);
        let limit = limit.clamp(1, MAX_PAGE);
        let first = after.max(log.oldest);
        let numbered = (first..).zip(log.told.iter().skip(skip).take(limit));
        let events: Vec<Event> = numbered
            .filter_map(|(number, told)| self.event(number, *told))
            .collect();
        let end = skip.saturating_add(events.len());
        let next = (end < log.told.len())
            .then(|| first.saturating_add(u64::try_from(events.len()).unwrap_or(u64::MAX)));
        EventPage { events, next }
    }
}
