//! The one declared transition table: (payment state, event) → what becomes of the state.
//!
//! Everything else about states derives from this file or is tested against it: the diagram in
//! `docs/states.md`, the property tests, the `CHECK` on the state column. Whether a command is allowed
//! is decided in two steps: the table says in which states it can be at all, the amounts say how much.

use crate::amounts::Amounts;
use crate::named::named_enum;
use crate::payment::PaymentState;

named_enum! {
    /// Everything that can happen to a payment: commands accepted, and facts proved.
    pub enum PaymentEvent {
        /// The customer's authentication was handed over.
        ConfirmAccepted = "confirm_accepted",
        /// A capture was accepted.
        CaptureAccepted = "capture_accepted",
        /// A void was accepted.
        VoidAccepted = "void_accepted",
        /// A refund was accepted.
        RefundAccepted = "refund_accepted",
        /// The opening transaction needs the customer.
        ActionRequired = "action_required",
        /// The opening transaction is being processed.
        Processing = "processing",
        /// The opening transaction succeeded.
        Approved = "approved",
        /// The opening transaction was declined.
        Declined = "declined",
        /// The opening transaction was proved not processed.
        NotProcessed = "not_processed",
        /// The authorization ran out.
        Expired = "expired",
        /// A capture succeeded.
        CaptureSucceeded = "capture_succeeded",
        /// A capture was proved not done.
        CaptureFailed = "capture_failed",
        /// A void succeeded.
        VoidSucceeded = "void_succeeded",
        /// A void was proved not done.
        VoidFailed = "void_failed",
        /// A refund succeeded.
        RefundSucceeded = "refund_succeeded",
        /// A refund was proved not done.
        RefundFailed = "refund_failed",
        /// A refund that had succeeded was reversed by the provider.
        RefundReversed = "refund_reversed",
        /// The issuer took money back.
        ChargebackOpened = "chargeback_opened",
        /// The issuer returned it.
        ChargebackReversed = "chargeback_reversed",
        /// An operator had called the opening transaction done; the provider proves that it was declined.
        ResolutionDeclined = "resolution_declined",
        /// An operator had called the opening transaction done; the provider proves that it is not.
        ResolutionNotProcessed = "resolution_not_processed",
    }
}

/// What an event does to the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// The state becomes this one.
    To(PaymentState),
    /// The state follows from the amounts ([`derive_state`]).
    Derive,
    /// The state stays; amounts and transactions may change.
    Stay,
    /// The fact contradicts an end state. It is true all the same: the state follows from the
    /// amounts, and a person looks into it.
    Contradicts,
    /// A command that this state does not allow.
    Forbid,
}

// Two letters each, so that the table reads as a grid.
const ST: Next = Next::Stay;
const DE: Next = Next::Derive;
const CO: Next = Next::Contradicts;
const NO: Next = Next::Forbid;
const PD: Next = Next::To(PaymentState::Pending);
const RA: Next = Next::To(PaymentState::RequiresAction);
const DC: Next = Next::To(PaymentState::Declined);
const FA: Next = Next::To(PaymentState::Failed);
const VO: Next = Next::To(PaymentState::Voided);
const EX: Next = Next::To(PaymentState::Expired);

/// The table: a row for each event (as [`PaymentEvent::ALL`]), a column for each state (as
/// [`PaymentState::ALL`]).
#[rustfmt::skip]
const TABLE: [[Next; 11]; 21] = [
    // pending, requires action,
    //         authorized, partially captured, captured, partially refunded, refunded,
    //                             voided, declined, failed, expired
    /* ConfirmAccepted    */ [NO, PD,  NO, NO, NO, NO, NO,  NO, NO, NO, NO],
    /* CaptureAccepted    */ [NO, NO,  ST, ST, ST, ST, ST,  NO, NO, NO, NO],
    /* VoidAccepted       */ [ST, ST,  ST, ST, ST, ST, ST,  NO, NO, NO, NO],
    /* RefundAccepted     */ [NO, NO,  NO, ST, ST, ST, ST,  NO, NO, NO, NO],
    /* ActionRequired     */ [RA, ST,  ST, ST, ST, ST, ST,  ST, ST, ST, ST],
    /* Processing         */ [ST, PD,  ST, ST, ST, ST, ST,  ST, ST, ST, ST],
    /* Approved           */ [DE, DE,  ST, ST, ST, ST, ST,  CO, CO, CO, CO],
    /* Declined           */ [DC, DC,  ST, ST, ST, ST, ST,  ST, ST, DC, ST],
    /* NotProcessed       */ [FA, FA,  ST, ST, ST, ST, ST,  ST, ST, ST, ST],
    /* Expired            */ [EX, EX,  DE, DE, DE, DE, DE,  ST, ST, ST, ST],
    /* CaptureSucceeded   */ [CO, CO,  DE, DE, DE, DE, DE,  CO, CO, CO, CO],
    /* CaptureFailed      */ [ST, ST,  DE, DE, DE, DE, DE,  ST, ST, ST, ST],
    /* VoidSucceeded      */ [VO, VO,  DE, DE, DE, DE, DE,  ST, ST, ST, ST],
    /* VoidFailed         */ [ST, ST,  DE, DE, DE, DE, DE,  ST, ST, ST, ST],
    /* RefundSucceeded    */ [CO, CO,  CO, DE, DE, DE, DE,  CO, CO, CO, CO],
    /* RefundFailed       */ [ST, ST,  DE, DE, DE, DE, DE,  ST, ST, ST, ST],
    /* RefundReversed     */ [CO, CO,  CO, DE, DE, DE, DE,  CO, CO, CO, CO],
    /* ChargebackOpened   */ [CO, CO,  CO, ST, ST, ST, ST,  CO, CO, CO, CO],
    /* ChargebackReversed */ [ST, ST,  ST, ST, ST, ST, ST,  ST, ST, ST, ST],
    /* ResolutionDeclined */ [ST, ST,  DC, ST, DC, ST, ST,  ST, ST, ST, ST],
    /* ResolutionNotProc. */ [ST, ST,  FA, ST, FA, ST, ST,  ST, ST, ST, ST],
];

/// What `event` does to a payment in `state`: one cell of the table.
pub fn transition(state: PaymentState, event: PaymentEvent) -> Next {
    let row = PaymentEvent::ALL.iter().position(|known| *known == event);
    let column = PaymentState::ALL.iter().position(|known| *known == state);
    row.and_then(|row| TABLE.get(row))
        .zip(column)
        .and_then(|(row, column)| row.get(column))
        .copied()
        // Every event has a row and every state a column (tested); forbidding would lose no money.
        .unwrap_or(Next::Forbid)
}

/// The state that follows from the amounts, by one declared precedence:
///
/// 1. nothing was ever authorized: the state stays;
/// 2. something is captured: refunded in full with nothing left to capture, REFUNDED; refunded in part,
///    PARTIALLY_REFUNDED; something left to capture (or being captured, or being voided), PARTIALLY_CAPTURED; else CAPTURED;
/// 3. nothing is captured: everything released, EXPIRED or VOIDED; else AUTHORIZED.
pub fn derive_state(current: PaymentState, amounts: &Amounts, expired: bool) -> PaymentState {
    if amounts.authorized == 0 {
        return current;
    }
    let all_released = amounts.captured + amounts.voided >= amounts.authorized;
    if amounts.captured > 0 {
        return match (amounts.refunded, all_released) {
            (refunded, true) if refunded >= amounts.captured => PaymentState::Refunded,
            (1.., _) => PaymentState::PartiallyRefunded,
            (_, true) => PaymentState::Captured,
            (_, false) => PaymentState::PartiallyCaptured,
        };
    }
    match (all_released, expired) {
        (true, true) => PaymentState::Expired,
        (true, false) => PaymentState::Voided,
        (false, _) => PaymentState::Authorized,
    }
}

/// The state diagram of `docs/states.md`, in Mermaid's notation, from the table.
pub fn diagram() -> String {
    let mut out = String::from("stateDiagram-v2\n    [*] --> PENDING: CreatePayment\n");
    for event in PaymentEvent::ALL {
        for state in PaymentState::ALL {
            let targets: &[PaymentState] = match transition(*state, *event) {
                Next::To(target) => &[target],
                Next::Derive
                    if *state == PaymentState::Pending
                        || *state == PaymentState::RequiresAction =>
                {
                    &[PaymentState::Authorized, PaymentState::Captured]
                }
                Next::Derive => derived_targets(*event),
                Next::Stay | Next::Contradicts | Next::Forbid => &[],
            };
            for target in targets.iter().filter(|target| *target != state) {
                out.extend([
                    "    ",
                    state.name(),
                    " --> ",
                    target.name(),
                    ": ",
                    event.name(),
                    "\n",
                ]);
            }
        }
    }
    out
}

/// The states that an event can lead to, where the amounts decide.
fn derived_targets(event: PaymentEvent) -> &'static [PaymentState] {
    use PaymentState as S;
    match event {
        PaymentEvent::CaptureSucceeded => &[S::PartiallyCaptured, S::Captured],
        PaymentEvent::CaptureFailed => &[S::Authorized, S::PartiallyCaptured],
        PaymentEvent::VoidSucceeded => &[S::Voided, S::Captured],
        PaymentEvent::Expired => &[S::Expired, S::Captured],
        PaymentEvent::RefundSucceeded => &[S::PartiallyRefunded, S::Refunded],
        PaymentEvent::RefundReversed => &[S::Captured, S::PartiallyRefunded],
        PaymentEvent::ConfirmAccepted
        | PaymentEvent::CaptureAccepted
        | PaymentEvent::VoidAccepted
        | PaymentEvent::RefundAccepted
        | PaymentEvent::ActionRequired
        | PaymentEvent::Processing
        | PaymentEvent::Approved
        | PaymentEvent::Declined
        | PaymentEvent::NotProcessed
        | PaymentEvent::VoidFailed
        | PaymentEvent::RefundFailed
        | PaymentEvent::ChargebackOpened
        | PaymentEvent::ChargebackReversed
        | PaymentEvent::ResolutionDeclined
        | PaymentEvent::ResolutionNotProcessed => &[],
    }
}
