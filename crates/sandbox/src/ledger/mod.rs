//! The books: payments, operations, idempotency keys and events, behind one short-held lock.
//!
//! `submit` decides which fault a request meets and replays stored answers, `execute` carries
//! commands out, `settle` ends what is pending, `view` renders, `events` tells.

mod dashboard;
mod events;
mod execute;
mod record;
mod settle;
mod submit;
mod totals;
mod view;

pub(crate) use events::Outbox;
pub(crate) use record::{Payment, Record};
pub(crate) use submit::{Ending, Reply, ReplyBody, Sent, Submission};

use crate::config::SandboxConfig;
use crate::error::ApiError;
use crate::fault::ControlFaults;
use crate::idempotency::Stored;
use crate::limits::MAX_CACHED_PLANS;
use crate::persist::{Image, Journal};
use crate::split_map::{SplitMap, digest};
use crate::token::Plan;
use chrono::{DateTime, Utc};
use events::EventLog;
use record::Sums;
use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use totals::Totals;
use uuid::Uuid;

/// The settings that the books need.
struct Rules {
    base_url: String,
    slow: Duration,
    settle_after: Duration,
    settle_unasked: Duration,
    lookup_window: Duration,
    max_stored: usize,
}

/// Operations that share a reference: one, unless money was asked for twice.
struct UnderReference {
    first: usize,
    more: Vec<usize>,
}

pub(crate) struct Ledger {
    rules: Rules,
    payments: Vec<Payment>,
    operations: Vec<Record>,
    by_payment_id: SplitMap<usize>,
    by_reference: SplitMap<UnderReference>,
    keys: SplitMap<Stored>,
    /// How many sends a token's fault has spoiled, by idempotency key.
    spoiled: SplitMap<u32>,
    plans: HashMap<Box<str>, Arc<Plan>>,
    totals: Totals,
    control: ControlFaults,
    events: EventLog,
    /// Pending operations by when they settle without being asked.
    unasked: BinaryHeap<Reverse<(DateTime<Utc>, usize)>>,
    journal: Option<Journal>,
    changed: Changed,
}

/// What the next line of the books file has to hold.
#[derive(Default)]
struct Changed {
    payments: Vec<usize>,
    operations: Vec<usize>,
    key: Option<u128>,
}

impl Ledger {
    /// Empty books, or those of the configured file.
    pub(crate) fn open(
        config: &SandboxConfig,
        base_url: String,
        outbox: Option<Outbox>,
    ) -> io::Result<Self> {
        let mut ledger = Self {
            rules: Rules {
                base_url,
                slow: config.slow,
                settle_after: config.settle_after,
                settle_unasked: config.settle_unasked,
                lookup_window: config.lookup_window,
                max_stored: config.max_stored_operations,
            },
            payments: Vec::new(),
            operations: Vec::new(),
            by_payment_id: SplitMap::new(),
            by_reference: SplitMap::new(),
            keys: SplitMap::new(),
            spoiled: SplitMap::new(),
            plans: HashMap::new(),
            totals: Totals::default(),
            control: ControlFaults::default(),
            events: EventLog::new(outbox),
            unasked: BinaryHeap::new(),
            journal: None,
            changed: Changed::default(),
        };
        if let Some(path) = &config.persist {
            ledger.journal = Some(Journal::open(path, |image| ledger.restore(image))?);
            for at in 0..ledger.operations.len() {
                ledger.remember_unasked(at);
            }
        }
        Ok(ledger)
    }

    pub(crate) fn control(&mut self) -> &mut ControlFaults {
        &mut self.control
    }

    fn plan(&mut self, text: &str) -> Result<Arc<Plan>, ApiError> {
        if let Some(plan) = self.plans.get(text) {
            return Ok(Arc::clone(plan));
        }
        let plan = Arc::new(Plan::parse(text, self.rules.slow)?);
        if self.plans.len() < MAX_CACHED_PLANS {
            self.plans.insert(text.into(), Arc::clone(&plan));
        }
        Ok(plan)
    }

    fn add_payment(&mut self, payment: Payment) -> usize {
        let at = self.payments.len();
        self.by_payment_id.insert(payment.id.as_u128(), at);
        self.payments.push(payment);
        self.touch_payment(at);
        at
    }

    fn add_operation(&mut self, record: Record) -> usize {
        let at = self.operations.len();
        let reference = digest(&[record.reference.as_bytes()]);
        match self.by_reference.get_mut(reference) {
            Some(known) => known.more.push(at),
            None => {
                self.by_reference.insert(
                    reference,
                    UnderReference {
                        first: at,
                        more: Vec::new(),
                    },
                );
            }
        }
        self.totals.add(&record);
        self.operations.push(record);
        self.touch_operation(at);
        at
    }

    /// The only way to change an operation: keeps the totals and the books file in step.
    fn change(&mut self, at: usize, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.operations.get_mut(at) {
            self.totals.remove(record);
            change(record);
            self.totals.add(record);
            self.touch_operation(at);
        }
    }

    /// Operations under a reference, oldest first.
    fn under(&self, reference: &str) -> impl Iterator<Item = usize> + '_ {
        let known = self.by_reference.get(digest(&[reference.as_bytes()]));
        known
            .into_iter()
            .flat_map(|under| std::iter::once(under.first).chain(under.more.iter().copied()))
    }

    fn payment_at(&self, id: Uuid) -> Result<usize, ApiError> {
        self.by_payment_id
            .get(id.as_u128())
            .copied()
            .ok_or(ApiError::not_found("no such payment"))
    }

    fn sums(&self, payment: &Payment) -> Sums {
        let mut sums = Sums::default();
        for at in std::iter::once(&payment.first).chain(&payment.later) {
            if let Some(record) = self.operations.get(*at) {
                sums.add(record);
            }
        }
        sums
    }

    fn touch_payment(&mut self, at: usize) {
        if self.journal.is_some() && !self.changed.payments.contains(&at) {
            self.changed.payments.push(at);
        }
    }

    fn touch_operation(&mut self, at: usize) {
        if self.journal.is_some() && !self.changed.operations.contains(&at) {
            self.changed.operations.push(at);
        }
    }

    /// Writes what changed to the books file. Called at the end of everything that changes.
    fn write_changes(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let changed = std::mem::take(&mut self.changed);
        let image = Image::of(
            changed
                .payments
                .iter()
                .filter_map(|at| Some((*at, self.payments.get(*at)?))),
            changed
                .operations
                .iter()
                .filter_map(|at| Some((*at, self.operations.get(*at)?))),
            changed.key.and_then(|key| Some((key, self.keys.get(key)?))),
        );
        if !image.is_empty() {
            journal.write(&image);
        }
    }

    /// Applies one line of the books file.
    fn restore(&mut self, image: Image<'_>) -> Result<(), &'static str> {
        let (payments, operations, key) = image.into_parts();
        for (at, payment) in payments {
            let plan = self.plan(&payment.token).map_err(|_| "unknown token")?;
            let payment = payment.restore(plan);
            if at == self.payments.len() {
                self.add_payment(payment);
            } else {
                *self.payments.get_mut(at).ok_or("payment out of order")? = payment;
            }
        }
        for (at, record) in operations {
            match at.cmp(&self.operations.len()) {
                Ordering::Less => self.change(at, |known| *known = record),
                Ordering::Equal => {
                    self.add_operation(record);
                }
                Ordering::Greater => return Err("operation out of order"),
            }
        }
        if let Some((key, stored)) = key {
            self.keys.insert(key, stored);
        }
        Ok(())
    }
}
