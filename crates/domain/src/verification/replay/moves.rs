//! What each thing that can happen to a transaction does to the payment.

use uuid::Uuid;

use super::{Happened, Held, Replay, Said};
use crate::amounts::{Amounts, Proved};
use crate::decline::Cause;
use crate::payment::PaymentState;
use crate::transaction::{TransactionKind, TransactionOrigin, TransactionState};
use crate::transition::{Next, PaymentEvent, derive_state, transition};

use TransactionState::{Declined, Failed, Pending, RequiresAction, Reversed, Succeeded};

impl Replay {
    /// Applies what happened. Gives the other transactions that it changes, as they are then.
    pub(super) fn apply(
        &mut self,
        said: &Said<'_>,
        before: Option<Held>,
        mut after: Held,
        happened: Happened,
    ) -> Vec<(Uuid, Held)> {
        after.sent |= said.leaf.attempted;
        if before.is_none_or(|before| before.state != after.state) {
            let cause = said.leaf.cause.as_deref();
            after.voided = after.state == Failed && cause == Some(Cause::Voided.name());
        }
        let left = self.amounts.capturable();
        self.reserve(before, after);
        let id = said.id;
        match happened {
            Happened::Expired => {
                let was = self.put(id, after);
                return self.ran_out(&was);
            }
            Happened::Done => {
                let was = self.put(id, after);
                return self.done(&was, before, after);
            }
            // It was authorized before the void that was taken to have kept it from being made.
            Happened::NotDone
                if after.kind == TransactionKind::Purchase
                    && after.state == Reversed
                    && before.is_some_and(|before| before.voided) =>
            {
                self.put(id, after);
                self.amounts.authorized += after.amount;
                self.amounts.add_voided_rest();
                self.amounts.rebook(self.proved());
                self.expired = false;
                self.advance(PaymentEvent::VoidSucceeded);
            }
            Happened::NotDone => {
                let was = self.put(id, after);
                return self.not_done(said, &was, before, after);
            }
            Happened::TakenBack => {
                let was = self.put(id, after);
                self.taken_back(said, &was, after);
            }
            Happened::DoneAgain => {
                let was = self.put(id, after);
                self.done_again(&was, after);
            }
            Happened::Accepted => self.accepted(after, left),
            Happened::Noticed if said.leaf.event_type == "chargeback.inquiry_opened" => {
                self.advance(PaymentEvent::ChargebackOpened);
            }
            Happened::Nothing if after.kind.opens() && after.state == RequiresAction => {
                self.advance(PaymentEvent::ActionRequired);
            }
            Happened::Nothing if said.leaf.event_type == "confirm.accepted" => {
                self.advance(PaymentEvent::ConfirmAccepted);
            }
            Happened::Nothing if after.kind.opens() && after.state == Pending => {
                self.advance(PaymentEvent::Processing);
            }
            Happened::Noticed | Happened::NeverDone | Happened::Nothing => {}
        }
        self.transactions.insert(id, after);
        Vec::new()
    }

    /// Puts in what became of a transaction; gives what was before.
    fn put(&mut self, id: Uuid, after: Held) -> Self {
        let was = self.clone();
        self.transactions.insert(id, after);
        was
    }

    /// What a capture or a refund holds back while its outcome is not known.
    fn reserve(&mut self, before: Option<Held>, after: Held) {
        let reserved = |held: Held| match held.origin {
            _ if held.state.ended() => 0,
            TransactionOrigin::Provider => 0,
            TransactionOrigin::Caller
            | TransactionOrigin::Operator
            | TransactionOrigin::Service => held.amount,
        };
        let change = reserved(after) - before.map_or(0, reserved);
        match after.kind {
            TransactionKind::Capture => self.amounts.capture_pending += change,
            TransactionKind::Refund => self.amounts.refund_pending += change,
            TransactionKind::Purchase
            | TransactionKind::Authorization
            | TransactionKind::Void
            | TransactionKind::Chargeback
            | TransactionKind::ChargebackReversal => {}
        }
    }

    fn accepted(&mut self, after: Held, left: i64) {
        match after.kind {
            TransactionKind::Void => self.amounts.void_pending += after.amount,
            TransactionKind::Capture if after.final_capture => {
                self.amounts.void_pending += left - after.amount;
            }
            TransactionKind::Capture
            | TransactionKind::Purchase
            | TransactionKind::Authorization
            | TransactionKind::Refund
            | TransactionKind::Chargeback
            | TransactionKind::ChargebackReversal => {}
        }
    }

    fn done(&mut self, was: &Self, before: Option<Held>, after: Held) -> Vec<(Uuid, Held)> {
        let released = after.kind == TransactionKind::Authorization
            && before.is_some_and(|before| before.state == Failed && before.voided)
            && was.transactions.values().any(|held| {
                held.kind == TransactionKind::Void && held.state == Succeeded && held.at_provider()
            });
        let amounts = &mut self.amounts;
        let event = match after.kind {
            TransactionKind::Purchase => {
                amounts.authorized += after.amount;
                amounts.captured += after.amount;
                PaymentEvent::Approved
            }
            TransactionKind::Authorization => {
                amounts.authorized += after.amount;
                if released {
                    amounts.add_voided_rest();
                    PaymentEvent::VoidSucceeded
                } else {
                    if self.expired {
                        amounts.add_voided_rest();
                    }
                    PaymentEvent::Approved
                }
            }
            TransactionKind::Capture => {
                amounts.add_captured(after.amount);
                if after.final_capture {
                    amounts.add_voided_rest();
                }
                PaymentEvent::CaptureSucceeded
            }
            TransactionKind::Void => {
                amounts.add_voided_rest();
                PaymentEvent::VoidSucceeded
            }
            TransactionKind::Refund => {
                amounts.add_refunded(after.amount);
                PaymentEvent::RefundSucceeded
            }
            TransactionKind::Chargeback => PaymentEvent::ChargebackOpened,
            TransactionKind::ChargebackReversal => PaymentEvent::ChargebackReversed,
        };
        if after.kind.disputes() {
            self.book_dispute(was);
        }
        self.amounts.rebook(self.proved());
        let mut others = Vec::new();
        if after.kind.opens() {
            self.expired &= after.kind == TransactionKind::Authorization;
            others.extend(self.settle_waiting_void(was, after));
        }
        if after.kind == TransactionKind::Void {
            others.extend(self.end_opening());
            others.extend(self.take_back_purchase());
        }
        self.advance(event);
        others
    }

    fn book_dispute(&mut self, was: &Self) {
        let before = was.proved().charged_back.max(0);
        let after = self.proved().charged_back.max(0);
        if after >= before {
            self.amounts.add_charged_back(after - before);
        } else {
            self.amounts.take_back_chargeback(before - after);
        }
    }

    /// The void that waits for the payment to be authorized has something to release now, or came too late.
    fn settle_waiting_void(&mut self, was: &Self, opened: Held) -> Option<(Uuid, Held)> {
        let (id, mut void) = was.waiting_void()?;
        let left = self.amounts.capturable();
        if opened.kind != TransactionKind::Purchase && left > 0 {
            void.amount = left;
            self.amounts.void_pending += left;
        } else if void.at_provider() {
            return None;
        } else {
            void.state = Failed;
        }
        Some((id, void))
    }

    /// A void that succeeded before the authorization did ends that too.
    fn end_opening(&self) -> Option<(Uuid, Held)> {
        let mut all = self.transactions.iter();
        let (id, opening) = all.find(|(_, held)| held.kind.opens())?;
        let mut opening = *opening;
        if opening.state.ended() {
            return None;
        }
        (opening.state, opening.voided) = (Failed, true);
        Some((*id, opening))
    }

    /// A void that succeeded takes back the capture of a purchase: what is released is not captured any more.
    fn take_back_purchase(&mut self) -> Option<(Uuid, Held)> {
        let mut all = self.transactions.iter();
        let (id, purchase) = all.find(|(_, held)| held.kind.opens())?;
        let (id, mut purchase) = (*id, *purchase);
        if purchase.kind != TransactionKind::Purchase || purchase.state != Succeeded {
            return None;
        }
        self.amounts.take_back_capture(purchase.amount);
        self.amounts.add_voided_rest();
        purchase.state = Reversed;
        self.transactions.insert(id, purchase);
        self.amounts.rebook(self.proved());
        Some((id, purchase))
    }

    fn not_done(
        &mut self,
        said: &Said<'_>,
        was: &Self,
        before: Option<Held>,
        after: Held,
    ) -> Vec<(Uuid, Held)> {
        let held_back = after.origin != TransactionOrigin::Provider
            && before.is_some_and(|before| !before.state.ended());
        let event = match after.kind {
            TransactionKind::Purchase | TransactionKind::Authorization => {
                if after.state == Declined {
                    PaymentEvent::Declined
                } else {
                    PaymentEvent::NotProcessed
                }
            }
            TransactionKind::Capture => PaymentEvent::CaptureFailed,
            TransactionKind::Void => PaymentEvent::VoidFailed,
            TransactionKind::Refund => PaymentEvent::RefundFailed,
            TransactionKind::Chargeback | TransactionKind::ChargebackReversal => {
                self.advance(PaymentEvent::ChargebackReversed);
                return Vec::new();
            }
        };
        let releases = after.kind == TransactionKind::Void || after.final_capture;
        if releases && held_back {
            self.amounts.void_pending = 0;
        }
        let rests = matches!(after.kind, TransactionKind::Capture | TransactionKind::Void);
        if rests && self.gone(was, said.id) {
            self.amounts.add_voided_rest();
        }
        self.amounts.rebook(self.proved());
        let void = was
            .waiting_void()
            .filter(|(_, void)| after.kind.opens() && !void.at_provider());
        let Some((id, mut void)) = void else {
            self.advance(event);
            if after.state == Reversed && after.final_capture && held_back {
                // While it was done, it released the rest.
                let amounts = &mut self.amounts;
                let kept = amounts.captured + amounts.capture_pending + after.amount;
                amounts.voided = amounts.voided.max(amounts.authorized - kept);
            }
            return Vec::new();
        };
        if after.voided {
            void.state = Succeeded;
            self.advance(PaymentEvent::VoidSucceeded);
        } else {
            void.state = Failed;
            self.advance(event);
        }
        vec![(id, void)]
    }

    fn ran_out(&mut self, was: &Self) -> Vec<(Uuid, Held)> {
        self.expired = true;
        if self.amounts.authorized > 0 {
            self.amounts.add_voided_rest();
        }
        self.advance(PaymentEvent::Expired);
        let void = was.waiting_void().filter(|(_, void)| !void.at_provider());
        let ended = void.map(|(id, void)| {
            (
                id,
                Held {
                    state: Failed,
                    ..void
                },
            )
        });
        ended.into_iter().collect()
    }

    fn taken_back(&mut self, said: &Said<'_>, was: &Self, after: Held) {
        if said.leaf.event_type == "payment.resolution_refuted" && was.is_opening_alone() {
            self.amounts = Amounts::default();
            return self.advance(if after.state == Declined {
                PaymentEvent::ResolutionDeclined
            } else {
                PaymentEvent::ResolutionNotProcessed
            });
        }
        let event = match after.kind {
            TransactionKind::Refund => {
                self.amounts.take_back_refund(after.amount);
                PaymentEvent::RefundReversed
            }
            TransactionKind::Capture | TransactionKind::Purchase => {
                self.amounts.take_back_capture(after.amount);
                if self.gone(was, said.id) {
                    self.amounts.add_voided_rest();
                }
                PaymentEvent::CaptureFailed
            }
            TransactionKind::ChargebackReversal => {
                self.book_dispute(was);
                PaymentEvent::ChargebackOpened
            }
            TransactionKind::Authorization
            | TransactionKind::Void
            | TransactionKind::Chargeback => return,
        };
        self.amounts.rebook(self.proved());
        self.advance(event);
    }

    fn done_again(&mut self, was: &Self, after: Held) {
        let event = match after.kind {
            TransactionKind::Refund => {
                self.amounts.add_refunded(after.amount);
                PaymentEvent::RefundSucceeded
            }
            TransactionKind::Capture | TransactionKind::Purchase => {
                self.amounts.add_captured(after.amount);
                if after.final_capture {
                    self.amounts.add_voided_rest();
                }
                PaymentEvent::CaptureSucceeded
            }
            TransactionKind::ChargebackReversal => {
                self.book_dispute(was);
                PaymentEvent::ChargebackReversed
            }
            TransactionKind::Authorization
            | TransactionKind::Void
            | TransactionKind::Chargeback => return,
        };
        self.amounts.rebook(self.proved());
        self.advance(event);
    }

    fn advance(&mut self, event: PaymentEvent) {
        self.state = match transition(self.state, event) {
            Next::To(state) => state,
            Next::Stay | Next::Forbid => self.state,
            Next::Derive | Next::Contradicts => {
                derive_state(self.state, &self.amounts, self.expired)
            }
        };
    }

    /// The void that waits for the payment's opening.
    fn waiting_void(&self) -> Option<(Uuid, Held)> {
        let open = matches!(
            self.state,
            PaymentState::Pending | PaymentState::RequiresAction
        );
        let mut all = self.transactions.iter().filter(|_| open);
        all.find(|(_, held)| held.kind == TransactionKind::Void && held.state == Pending)
            .map(|(id, held)| (*id, *held))
    }

    /// Whether what is left of the authorization cannot be captured any more: it ran out, or another transaction than this
    /// one released it.
    fn gone(&self, was: &Self, but: Uuid) -> bool {
        let closed = was.transactions.iter().any(|(id, held)| {
            let closes = held.kind == TransactionKind::Void
                || held.kind == TransactionKind::Capture && held.final_capture;
            closes && *id != but && held.state == Succeeded
        });
        self.expired || closed
    }

    fn is_opening_alone(&self) -> bool {
        let mut all = self.transactions.values();
        all.all(|held| held.kind.opens() || matches!(held.state, Declined | Failed))
    }

    pub(super) fn proved(&self) -> Proved {
        let mut proved = Proved {
            released: self.expired,
            ..Proved::default()
        };
        for held in self.transactions.values() {
            if held.state != Succeeded {
                continue;
            }
            match held.kind {
                TransactionKind::Purchase => proved.captured += held.amount,
                TransactionKind::Capture => {
                    proved.captured += held.amount;
                    proved.released |= held.final_capture;
                }
                TransactionKind::Refund => proved.refunded += held.amount,
                TransactionKind::Chargeback => proved.charged_back += held.amount,
                TransactionKind::ChargebackReversal => proved.charged_back -= held.amount,
                TransactionKind::Void => proved.released = true,
                TransactionKind::Authorization => {}
            }
        }
        proved
    }
}

impl Held {
    /// Whether the provider may hold it, so that its own outcome decides it.
    fn at_provider(self) -> bool {
        self.sent || self.origin == TransactionOrigin::Provider
    }
}
