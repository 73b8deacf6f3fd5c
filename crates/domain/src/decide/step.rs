//! One step under construction: what it changes, until it is closed into a [`Change`].

use std::collections::BTreeMap;

use quittance_evidence::EntryResult;

use super::watch::watch;
use super::{Ask, DecideError};
use crate::amounts::Proved;
use crate::cases::{OpenCases, closes_when_known};
use crate::change::{
    Change, CustomerData, IdempotencyRecord, OperatorAction, OperatorActionKind, Write,
};
use crate::context::{Actor, ActorKind};
use crate::contradictions::Contradictions;
use crate::decline::Cause;
use crate::failures::tell_attempt;
use crate::ids::TransactionId;
use crate::journal::{CASE_CLOSED, CASE_OPENED, EntryFacts, Stamp, payment_entry, tell_rows};
use crate::money::Money;
use crate::payment::{Payment, PaymentRecord, PaymentState};
use crate::transaction::{Attempt, Transaction, TransactionKind, TransactionState};
use crate::transition::{Next, PaymentEvent, derive_state, transition};

/// A step under construction.
pub(super) struct Step {
    pub payment: Payment,
    pub state_from: Option<PaymentState>,
    /// The transaction that the step is about.
    pub subject: Write<Transaction>,
    /// Other transactions that it ends or extends.
    pub others: Vec<Transaction>,
    pub attempt: Option<Write<Attempt>>,
    pub customer: Option<CustomerData>,
    /// What it closes of the open cases.
    pub closes_cases: Vec<OperatorAction>,
    pub action: Option<OperatorActionKind>,
    pub event_type: String,
    pub result: EntryResult,
    pub cause: Option<Cause>,
    pub actor: Option<Actor>,
    pub details: BTreeMap<String, String>,
}

impl Step {
    /// A step that changes `payment`, about `subject`.
    pub fn on(payment: &Payment, subject: Write<Transaction>, event_type: String) -> Self {
        Self {
            payment: payment.clone(),
            state_from: Some(payment.state),
            subject,
            others: Vec::new(),
            attempt: None,
            customer: None,
            closes_cases: Vec::new(),
            action: None,
            event_type,
            result: EntryResult::Success,
            cause: None,
            actor: None,
            details: BTreeMap::new(),
        }
    }

    /// Names the provider as the one who acted: what follows is its word.
    pub fn by_provider(&mut self) {
        self.actor = Some(Actor {
            kind: ActorKind::Provider,
            id: self.subject.row().provider_account.as_str().to_owned(),
            auth_method: "",
        });
    }

    /// Moves the payment's state as the table says; the amounts must be those after the event.
    pub fn advance(&mut self, event: PaymentEvent) {
        let state = self.payment.state;
        self.payment.state = match transition(state, event) {
            Next::To(state) => state,
            Next::Stay | Next::Forbid => state,
            Next::Derive => derive_state(state, &self.payment.amounts, self.payment.expired),
            Next::Contradicts => {
                self.open_case(OperatorActionKind::ContradictingFact);
                derive_state(state, &self.payment.amounts, self.payment.expired)
            }
        };
    }

    /// Has the payment's state follow from the amounts, which must be those after the step.
    pub fn derive_state(&mut self) {
        let (payment, state) = (&self.payment, self.payment.state);
        self.payment.state = derive_state(state, &payment.amounts, payment.expired);
    }

    /// Opens a case if the provider has proved more than our limits allow, or more has left than came in: each time that it
    /// grows. Where the step opens one about a contradiction as well, that tells both.
    pub fn report_excess(&mut self, beyond_before: i64) {
        let excess = self.payment.amounts.beyond() - beyond_before;
        if excess <= 0 {
            return;
        }
        self.tell("excess_minor", &excess.to_string());
        if self.action != Some(OperatorActionKind::ContradictingFact) {
            self.open_another_case(OperatorActionKind::ExcessAmount);
        }
    }

    /// Opens a case for a person, unless one of the kind is open about this transaction already.
    pub fn open_case(&mut self, kind: OperatorActionKind) {
        if !self.subject.row().open_cases.contains(kind) {
            self.open_another_case(kind);
        }
    }

    /// Opens a case for a person, also beside others of its kind.
    fn open_another_case(&mut self, kind: OperatorActionKind) {
        self.action = Some(kind);
        self.edit(|transaction| transaction.open_cases = transaction.open_cases.with(kind));
    }

    /// Closes the cases of a kind about the subject, if one is open.
    pub fn close_case(&mut self, kind: OperatorActionKind) {
        let mut row = self.subject.row().clone();
        self.close_case_of(&mut row, kind);
        self.edit(|transaction| transaction.open_cases = row.open_cases);
    }

    fn close_case_of(&mut self, row: &mut Transaction, kind: OperatorActionKind) {
        if row.open_cases.contains(kind) {
            let transaction = row.id;
            self.closes_cases.push(OperatorAction { kind, transaction });
            row.open_cases = row.open_cases.without(kind);
        }
    }

    /// Closes the cases of a transaction that were open because its outcome was not known: now it is.
    pub fn close_known(&mut self, row: &mut Transaction) {
        let open = row.open_cases;
        for kind in open.iter().filter(|kind| closes_when_known(*kind)) {
            self.close_case_of(row, kind);
        }
    }

    /// Opens a case for a person about what was told against what is known of the transaction: once for each while a case
    /// about a contradiction is open, whatever opened that. Whether it is news.
    pub fn contradict(&mut self, told: &str) -> bool {
        let open = self.subject.row().open_cases;
        let asked = open.contains(OperatorActionKind::ContradictingFact);
        let mut news = false;
        self.edit(|transaction| {
            if !asked {
                transaction.contradictions = Contradictions::default();
            }
            news = transaction.contradictions.add(told);
        });
        if news {
            self.open_another_case(OperatorActionKind::ContradictingFact);
        }
        news
    }

    /// The payment's transactions as they are after the step; those that it ends beside its subject as they were.
    pub fn after<'a>(
        &'a self,
        record: &'a PaymentRecord,
    ) -> impl Iterator<Item = &'a Transaction> + Clone {
        let subject = self.subject.row();
        let others = record.transactions.iter();
        let others = others.filter(move |held| held.id != subject.id);
        others.chain(std::iter::once(subject))
    }

    /// What the transactions prove after the step.
    fn proved(&self, record: &PaymentRecord) -> Proved {
        proved(self.after(record))
    }

    /// Books what the provider proved and what had no room beside a reservation that is gone now, or before what it
    /// rests on was proved: out of the excess, into what it is.
    pub fn rebook(&mut self, record: &PaymentRecord) {
        self.rebook_without(record, None);
    }

    /// The same, where the step takes back what another transaction than its subject had done.
    pub fn rebook_without(&mut self, record: &PaymentRecord, taken_back: Option<TransactionId>) {
        let left = self.after(record);
        let mut proved = proved(left.filter(|held| Some(held.id) != taken_back));
        proved.released |= self.payment.expired;
        self.payment.amounts.rebook(proved);
    }

    /// Books what chargebacks and their reversals have moved with this step, in whatever order they are told.
    pub fn book_dispute(&mut self, record: &PaymentRecord) {
        if !self.subject.row().kind.disputes() {
            return;
        }
        let before = proved(record.transactions.iter()).charged_back.max(0);
        let after = self.proved(record).charged_back.max(0);
        let amounts = &mut self.payment.amounts;
        if after >= before {
            amounts.add_charged_back(after - before);
        } else {
            amounts.take_back_chargeback(before - after);
        }
        self.judge_dispute(record);
    }

    /// Says whether the payment is disputed: while an inquiry is open, or charged back money is not returned.
    pub fn judge_dispute(&mut self, record: &PaymentRecord) {
        let open = self
            .after(record)
            .any(|held| held.kind == TransactionKind::Chargeback && !held.state.ended());
        self.payment.disputed = open || self.proved(record).charged_back > 0;
    }

    /// Closes the cases of the subject that were open because its outcome was not known.
    pub fn settle_cases(&mut self) {
        let mut row = self.subject.row().clone();
        self.close_known(&mut row);
        self.edit(|transaction| transaction.open_cases = row.open_cases);
    }

    /// Adds a detail to the journal entry, unless it is empty.
    pub fn tell(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.details.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Adds the amount that the provider names to the journal entry.
    pub fn tell_named(&mut self, named: Money) {
        self.tell("named_amount_minor", &named.minor_units().to_string());
        self.tell("named_currency", named.currency().code());
    }

    /// Says which cases it opens and closes, so that one that is gone, or was closed by nobody, shows.
    fn tell_cases(&mut self) {
        if let Some(kind) = self.action {
            self.tell(CASE_OPENED, kind.name());
        }
        let mut closed = BTreeMap::<_, OpenCases>::new();
        for case in &self.closes_cases {
            let kinds = closed.entry(case.transaction).or_default();
            *kinds = kinds.with(case.kind);
        }
        for (id, kinds) in closed {
            self.tell(&format!("{CASE_CLOSED}{id}"), &kinds.to_string());
        }
    }

    /// Closes the step: the next version, and its journal entry. `record` is what was decided upon, as it was read;
    /// `None` for a new payment.
    pub fn close(
        mut self,
        record: Option<&PaymentRecord>,
        ask: Option<Ask>,
        stamp: &Stamp<'_>,
    ) -> Result<Change, DecideError> {
        if let Some(record) = record {
            watch(&mut self, record, stamp);
        }
        self.payment.version += 1;
        self.payment.updated_at = stamp.now;
        let written = (&self.subject, self.others.as_slice());
        tell_rows(&mut self.details, &self.payment, written, record);
        self.tell_cases();
        let attempt = self.attempt.as_ref().map(Write::row);
        if let Some(attempt) = attempt {
            tell_attempt(&mut self.details, attempt);
        }
        let response_digest = attempt
            .and_then(|attempt| attempt.ended.as_ref())
            .and_then(|end| end.response_digest);
        let facts = EntryFacts {
            event_type: self.event_type,
            transaction: self.subject.row(),
            state_from: self.state_from,
            result: self.result,
            cause: self.cause,
            actor: self.actor,
            attempt: attempt.map(|attempt| attempt.number),
            digests: (
                attempt.map(|attempt| attempt.request_digest),
                response_digest,
            ),
            key_digest: ask.as_ref().map(|ask| ask.key_digest),
            personal: self
                .customer
                .as_ref()
                .map_or(&[], |customer| &customer.fields),
            details: self.details,
        };
        let entry = payment_entry(&self.payment, facts, stamp)?;
        self.payment.last_leaf_hash = Some(entry.leaf_hash);
        let subject_id = self.subject.row().id;
        let idempotency = ask.map(|ask| IdempotencyRecord {
            tenant: self.payment.tenant.clone(),
            key: ask.key,
            command: ask.command,
            fingerprint: ask.fingerprint,
            payment: self.payment.id,
            transaction: subject_id,
            created_at: stamp.now,
        });
        let others = self.others.into_iter().map(Write::Update);
        Ok(Change {
            payment: self.payment,
            idempotency,
            transactions: std::iter::once(self.subject).chain(others).collect(),
            attempt: self.attempt,
            customer: self.customer,
            closes_cases: self.closes_cases,
            operator_action: self.action.map(|kind| OperatorAction {
                kind,
                transaction: subject_id,
            }),
            entry,
        })
    }
}

/// What transactions prove together.
fn proved<'a>(transactions: impl Iterator<Item = &'a Transaction>) -> Proved {
    let mut proved = Proved::default();
    for held in transactions.filter(|held| held.state == TransactionState::Succeeded) {
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
