//! What a payment has moved, and what is left: the amounts from which permissions and state follow.

/// The amounts of one payment, in minor units of its currency; none is ever negative.
///
/// I5 holds for every value that our own commands produce (see [`Amounts::holds_limits`]); the
/// database repeats it as `CHECK`s. What a provider proves beyond the limits goes to `excess`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Amounts {
    /// Proved authorized.
    pub authorized: i64,
    /// Proved captured.
    pub captured: i64,
    /// Reserved by captures whose outcome is not known.
    pub capture_pending: i64,
    /// Proved released, by a void, a final capture or expiry.
    pub voided: i64,
    /// Reserved by a void whose outcome is not known.
    pub void_pending: i64,
    /// Proved refunded, and not reversed since.
    pub refunded: i64,
    /// Reserved by refunds whose outcome is not known.
    pub refund_pending: i64,
    /// Taken back by chargebacks, and not returned since.
    pub charged_back: i64,
    /// Proved by the provider beyond what our limits allow; a person looks into it.
    pub excess: i64,
}

/// What a payment's transactions prove together, whatever our limits had room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Proved {
    pub captured: i64,
    pub refunded: i64,
    pub charged_back: i64,
    /// Whether what is left of the authorization is gone: it ran out, or a void or a final capture released it.
    pub released: bool,
}

impl Amounts {
    /// What a capture may still take.
    pub fn capturable(&self) -> i64 {
        (self.authorized - self.captured - self.capture_pending - self.voided - self.void_pending)
            .max(0)
    }

    /// What a refund may still give back.
    pub fn refundable(&self) -> i64 {
        (self.captured - self.refunded - self.refund_pending - self.charged_back).max(0)
    }

    /// I5, word for word, and that no amount is negative.
    pub fn holds_limits(&self) -> bool {
        self.all().iter().all(|amount| *amount >= 0)
            && self.captured + self.capture_pending + self.voided + self.void_pending
                <= self.authorized
            && self.refunded + self.refund_pending <= self.captured
    }

    /// Every amount, in the order of the columns.
    pub fn all(&self) -> [i64; 9] {
        [
            self.authorized,
            self.captured,
            self.capture_pending,
            self.voided,
            self.void_pending,
            self.refunded,
            self.refund_pending,
            self.charged_back,
            self.excess,
        ]
    }

    /// Records a proved capture: within what is left; then from what was thought voided; then as excess.
    pub(crate) fn add_captured(&mut self, amount: i64) {
        let room = self.authorized - self.captured - self.capture_pending;
        let taken = amount.clamp(0, room.max(0));
        self.captured += taken;
        self.excess += amount - taken;
        let mut over = self.captured + self.capture_pending + self.voided + self.void_pending
            - self.authorized;
        for part in [&mut self.void_pending, &mut self.voided] {
            let given = over.clamp(0, *part);
            *part -= given;
            over -= given;
        }
    }

    /// Records a proved refund: within what was captured, the rest as excess.
    pub(crate) fn add_refunded(&mut self, amount: i64) {
        let room = (self.captured - self.refunded - self.refund_pending).max(0);
        let taken = amount.clamp(0, room);
        self.refunded += taken;
        self.excess += amount - taken;
    }

    /// Records a proved chargeback: within what was captured, the rest as excess.
    pub(crate) fn add_charged_back(&mut self, amount: i64) {
        let room = (self.captured - self.charged_back).max(0);
        let taken = amount.clamp(0, room);
        self.charged_back += taken;
        self.excess += amount - taken;
    }

    /// Records that charged back money was returned: first what counts as charged back, the rest from the excess
    /// that it once was.
    pub(crate) fn take_back_chargeback(&mut self, amount: i64) {
        let taken = amount.min(self.charged_back);
        self.charged_back -= taken;
        self.excess = (self.excess - (amount - taken)).max(0);
    }

    /// What left beyond what came in: excess, and what was both refunded and charged back.
    pub(crate) fn beyond(&self) -> i64 {
        self.excess + (self.refunded + self.charged_back - self.captured).max(0)
    }

    /// Records that a proved refund was reversed later: first from what counts as refunded, the rest from the
    /// excess that it once was.
    pub(crate) fn take_back_refund(&mut self, amount: i64) {
        let taken = amount.min(self.refunded);
        self.refunded -= taken;
        self.excess = (self.excess - (amount - taken)).max(0);
    }

    /// Records that a proved capture was reversed later. What has been refunded of it, or is being refunded,
    /// cannot be taken from the captures (I5): it is money that left beyond what came in, hence excess.
    pub(crate) fn take_back_capture(&mut self, amount: i64) {
        let room = (self.captured - self.refunded - self.refund_pending).max(0);
        let taken = amount.min(room);
        self.captured -= taken;
        self.excess += amount - taken;
    }

    /// Books out of the excess what has room now, given all that is proved.
    pub(crate) fn rebook(&mut self, proved: Proved) {
        let surplus = (self.captured - proved.captured).max(0);
        let free = (self.captured - self.refunded - self.refund_pending).max(0);
        let taken = surplus.min(free).min(self.excess);
        self.captured -= taken;
        self.excess -= taken;
        if proved.released {
            // What captures held of it cannot be captured again.
            self.voided += taken;
        }
        let missing = (proved.captured - self.captured).clamp(0, self.excess);
        self.excess -= missing;
        self.add_captured(missing);
        let missing = (proved.refunded - self.refunded).clamp(0, self.excess);
        self.excess -= missing;
        self.add_refunded(missing);
        let missing = (proved.charged_back - self.charged_back).clamp(0, self.excess);
        self.excess -= missing;
        self.add_charged_back(missing);
        self.excess = self.out_of_place(proved);
    }

    /// What is proved and not booked, and what is booked although it is not proved any more, since a refund holds it.
    fn out_of_place(&self, proved: Proved) -> i64 {
        let missing = |proved: i64, booked: i64| (proved - booked).max(0);
        (proved.captured - self.captured).abs()
            + missing(proved.refunded, self.refunded)
            + missing(proved.charged_back, self.charged_back)
    }

    /// Records a proved release of everything that is neither captured nor reserved by a capture.
    pub(crate) fn add_voided_rest(&mut self) {
        self.void_pending = 0;
        self.voided = (self.authorized - self.captured - self.capture_pending).max(self.voided);
    }
}
