//! How calls to providers failed, counted from what the audit log says of each: nothing else is proof of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quittance_evidence::{Leaf, StreamId};

use crate::ids::PaymentId;
use crate::ports::FailureSummary;
use crate::transaction::{Attempt, AttemptOutcome};

/// Detail of the entries by which an attempt began and ended: what it asks of the provider.
pub(crate) const OPERATION: &str = "attempt_operation";
/// Detail of the entry by which it ended: the provider account that it went to.
pub(crate) const ACCOUNT: &str = "attempt_account";
/// The same: what it told.
pub(crate) const OUTCOME: &str = "attempt_outcome";
/// The same: why, where the outcome is not an answer.
pub(crate) const CAUSE: &str = "attempt_cause";
/// The same: how long the provider took, in microseconds.
pub(crate) const LATENCY: &str = "attempt_latency_us";

/// Payments that a summary names as examples of one failure.
const EXAMPLES: usize = 3;

/// Says how an attempt ended, in the details of the entry by which it did; of one that has not, what it asks.
pub fn tell_attempt(details: &mut BTreeMap<String, String>, attempt: &Attempt) {
    let mut tell = |name: &str, value: String| details.insert(name.to_owned(), value);
    tell(OPERATION, attempt.operation.name().to_owned());
    let Some(end) = &attempt.ended else {
        return;
    };
    tell(ACCOUNT, attempt.provider_account.as_str().to_owned());
    tell(OUTCOME, end.outcome.name().to_owned());
    tell(LATENCY, end.latency_micros.to_string());
    if let Some(cause) = end.cause {
        tell(CAUSE, cause.name().to_owned());
    }
}

/// How an attempt ended, as an entry of the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedAttempt {
    payment: PaymentId,
    account: String,
    operation: String,
    /// Why, where it failed.
    failure: Option<String>,
    latency_micros: u64,
}

impl EndedAttempt {
    /// What an entry says of an attempt that ended with it; `None` where none did.
    pub fn read(leaf: &Leaf) -> Option<Self> {
        let StreamId::Payment(payment) = leaf.stream_id else {
            return None;
        };
        let detail = |name: &str| leaf.details.get(name).map(String::as_str);
        let outcome = AttemptOutcome::from_name(detail(OUTCOME)?)?;
        let why = match outcome {
            // What the provider declined has its reason with the transaction.
            AttemptOutcome::Declined => leaf.decline_code.as_deref(),
            AttemptOutcome::Failed | AttemptOutcome::NotSent | AttemptOutcome::Unknown => None,
            AttemptOutcome::Approved | AttemptOutcome::RequiresAction | AttemptOutcome::Pending => {
                return Self::of(leaf, payment, None);
            }
        };
        let why = detail(CAUSE).or(why).unwrap_or(outcome.name());
        Self::of(leaf, payment, Some(why.to_owned()))
    }

    fn of(leaf: &Leaf, payment: uuid::Uuid, failure: Option<String>) -> Option<Self> {
        let detail = |name: &str| leaf.details.get(name);
        Some(Self {
            payment: PaymentId(payment),
            account: detail(ACCOUNT)?.clone(),
            operation: detail(OPERATION)?.clone(),
            failure,
            latency_micros: detail(LATENCY)?.parse().ok()?,
        })
    }
}

/// Counts attempts by account and operation, and failed ones by cause. Its size is that of the answer: it grows with how
/// many different failures there are, not with how often they happened.
#[derive(Debug, Default)]
pub struct FailureTally {
    attempts: BTreeMap<(String, String), u64>,
    failures: BTreeMap<(String, String, String), Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    count: u64,
    latency: Latencies,
    /// The newest: ids of payments begin with their time.
    examples: BTreeSet<uuid::Uuid>,
}

impl FailureTally {
    /// Counts one.
    pub fn add(&mut self, attempt: EndedAttempt) {
        let (account, operation) = (attempt.account, attempt.operation);
        let place = (account.clone(), operation.clone());
        *self.attempts.entry(place).or_default() += 1;
        let Some(cause) = attempt.failure else {
            return;
        };
        let failures = self
            .failures
            .entry((cause, account, operation))
            .or_default();
        failures.count += 1;
        failures.latency.add(attempt.latency_micros);
        failures.examples.insert(attempt.payment.0);
        if failures.examples.len() > EXAMPLES {
            failures.examples.pop_first();
        }
    }

    /// The failures, most frequent first, at most `limit` of them.
    pub fn summaries(self, limit: usize) -> Vec<FailureSummary> {
        let attempts = self.attempts;
        let mut summaries: Vec<_> = self
            .failures
            .into_iter()
            .map(|((cause, provider_account, operation), failures)| {
                let place = (provider_account, operation);
                let attempts = attempts.get(&place).copied().unwrap_or(failures.count);
                let (provider_account, operation) = place;
                FailureSummary {
                    cause,
                    provider_account,
                    operation,
                    failures: failures.count,
                    attempts,
                    latency: failures.latency.quantiles(),
                    examples: failures.examples.into_iter().rev().map(PaymentId).collect(),
                }
            })
            .collect();
        // Stable: those of one count stay in the order of their causes.
        summaries.sort_by_key(|summary| std::cmp::Reverse(summary.failures));
        summaries.truncate(limit);
        summaries
    }
}

/// Latencies in classes whose width is at most a 64th of what is in them, so that any number of them takes little room.
#[derive(Debug, Default)]
struct Latencies {
    classes: BTreeMap<u64, u64>,
    count: u64,
}

/// Latencies below it, in microseconds, have a class each.
const EXACT_BELOW: u64 = 128;

impl Latencies {
    fn add(&mut self, micros: u64) {
        *self.classes.entry(class_of(micros)).or_default() += 1;
        self.count += 1;
    }

    /// The quantiles 0.5, 0.95 and 0.99, in seconds.
    fn quantiles(&self) -> [f64; 3] {
        [50, 95, 99].map(|percent| {
            let rank = self.count.saturating_mul(percent).div_ceil(100);
            let mut before = 0;
            let found = self.classes.iter().find(|(_, count)| {
                before += **count;
                before >= rank
            });
            let micros = found.map_or(0, |(class, _)| middle_of(*class));
            Duration::from_micros(micros).as_secs_f64()
        })
    }
}

/// The first seven bits of the number, and how many follow.
fn class_of(micros: u64) -> u64 {
    if micros < EXACT_BELOW {
        return micros;
    }
    let dropped = u64::from(micros.ilog2()) - 6;
    dropped * 64 + (micros >> dropped)
}

fn middle_of(class: u64) -> u64 {
    if class < EXACT_BELOW {
        return class;
    }
    let dropped = class / 64 - 1;
    ((class - dropped * 64) << dropped) + (1 << dropped) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_class_is_near_what_is_in_it() {
        for micros in (0..2_000).chain([12_345, 300_000, 59_999_999, u64::MAX / 3, u64::MAX]) {
            let middle = middle_of(class_of(micros));
            assert!(
                middle.abs_diff(micros) <= micros / 128 + 1,
                "{micros}: {middle}"
            );
        }
        let classes: BTreeSet<_> = (0..1_000_000).map(class_of).collect();
        assert!(classes.len() < 1_000);
    }

    #[test]
    fn failures_are_counted_by_cause_and_the_newest_are_named() {
        let mut tally = FailureTally::default();
        for number in 0..100 {
            tally.add(EndedAttempt {
                payment: PaymentId(uuid::Uuid::from_u128(number)),
                account: "sandbox".to_owned(),
                operation: "purchase".to_owned(),
                failure: (number < 10).then(|| "RESPONSE_TIMEOUT".to_owned()),
                latency_micros: 1_000_000,
            });
        }
        let summaries = tally.summaries(50);
        let [summary] = summaries.as_slice() else {
            panic!("one failure, not {summaries:?}");
        };
        assert_eq!((summary.failures, summary.attempts), (10, 100));
        let newest = [9, 8, 7].map(|number| PaymentId(uuid::Uuid::from_u128(number)));
        assert_eq!(summary.examples, newest);
        assert!(
            summary
                .latency
                .iter()
                .all(|seconds| (seconds - 1.0).abs() < 0.01)
        );
    }
}
