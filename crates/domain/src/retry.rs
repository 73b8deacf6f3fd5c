//! When a transaction without an outcome is taken up again, how often, and when a person is asked instead.
//!
//! Waits grow exponentially with full jitter (any wait between none and the limit of that step), so that what
//! failed together does not come back together. They are kept in the database, with the transaction.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::decline::Cause;
use crate::transaction::{OperationKind, Transaction, TransactionKind, TransactionState};

/// Before the end of the provider's retention of a key, the same key is no longer relied upon.
pub const KEY_AGE_MARGIN: Duration = Duration::from_secs(3_600);

/// What a transaction waits for: each has its own schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WaitFor {
    /// The provider could not be reached: nothing was sent.
    Reach,
    /// The provider asked us to slow down, or does not let us in.
    Leave,
    /// What became of a send is not known.
    Outcome,
    /// The provider said that it has not decided yet.
    Decision,
    /// The customer has to act, and may have, without anybody telling us.
    Customer,
}

impl WaitFor {
    /// What there is to wait for after a send or a lookup that ended so.
    pub fn after(cause: Cause) -> Self {
        match cause {
            Cause::ConnectionRefused
            | Cause::ConnectTimeout
            | Cause::NameResolution
            | Cause::TlsHandshake
            | Cause::CircuitOpen
            | Cause::SendOverdue => Self::Reach,
            Cause::RateLimited | Cause::CredentialsRefused | Cause::RequestInProgress => {
                Self::Leave
            }
            Cause::ResponseTimeout
            | Cause::ConnectionLost
            | Cause::ProviderError
            | Cause::UnreadableResponse
            | Cause::ResponseTooLarge
            | Cause::SenderLost
            | Cause::RequestRefused
            | Cause::AmountMismatch
            | Cause::NotProcessed
            | Cause::NotSentInTime
            | Cause::ProviderReportedFailure
            | Cause::AlreadyCaptured
            | Cause::Voided
            | Cause::Expired
            | Cause::NothingToVoid
            | Cause::ResolvedByOperator => Self::Outcome,
        }
    }
}

/// One schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Longest wait before the first step; it doubles with each step.
    pub first: Duration,
    /// Longest wait of all.
    pub max: Duration,
    /// Most steps in a row without news; after them a person is asked. By default time ends sooner than they do.
    pub steps: u32,
    /// How long after its acceptance a transaction is taken up; after it a person is asked. What is older, and was asked for
    /// anew (a confirmation, a person's retry) or could not be asked about meanwhile, still has
    /// [`Backoff::late_steps`].
    pub give_up_after: Duration,
}

/// The part of `give_up_after` in which what is older than that is still taken up.
const LATE_PART: u32 = 8;

/// Fewest steps without news before a person is asked about what nobody took up for long: it is not given up at its next step.
const LATE_STEPS_AT_LEAST: u32 = 8;

impl Backoff {
    /// The wait after `steps` steps without news: anything from none to the step's limit, as `jitter` says.
    pub fn wait(&self, steps: u32, jitter: u64) -> Duration {
        let micros = u64::try_from(self.limit(steps).as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(jitter % micros.saturating_add(1).max(1))
    }

    /// Fewest steps in a row without news before a person is asked, however old the transaction is: as many as fit into an
    /// eighth of `give_up_after` where each wait is half as long as it can be; at most `steps`.
    pub fn late_steps(&self) -> u32 {
        let (mut left, mut steps) = (self.give_up_after / LATE_PART, 0);
        while steps < self.steps {
            let wait = self.limit(steps) / 2;
            if wait > left {
                break;
            }
            if wait.is_zero() {
                return self.steps;
            }
            left -= wait;
            steps += 1;
        }
        steps
    }

    /// The same at a time at which that eighth is over since the transaction's last news: then as few as
    /// [`LATE_STEPS_AT_LEAST`], however seldom it could be taken up meanwhile.
    fn late_steps_by(&self, transaction: &Transaction, now: DateTime<Utc>) -> u32 {
        let aged_at = transaction.created_at + delta(self.give_up_after);
        let over =
            now - aged_at.max(transaction.updated_at) >= delta(self.give_up_after / LATE_PART);
        let steps = self.late_steps();
        if over {
            steps.min(LATE_STEPS_AT_LEAST)
        } else {
            steps
        }
    }

    /// The longest wait after `steps` steps.
    fn limit(&self, steps: u32) -> Duration {
        let doubled = 2u32.checked_pow(steps.min(31)).unwrap_or(u32::MAX);
        self.first.saturating_mul(doubled).min(self.max)
    }
}

/// Most sends of one transaction, by what it asks for, once one of them may have been processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxSends {
    /// Of a purchase.
    pub purchase: u32,
    /// Of an authorization.
    pub authorize: u32,
    /// Of what the customer's authentication returned.
    pub confirm: u32,
    /// Of a capture.
    pub capture: u32,
    /// Of a void.
    pub void: u32,
    /// Of a refund.
    pub refund: u32,
}

impl MaxSends {
    /// The limit of an operation.
    pub fn of(&self, operation: OperationKind) -> u32 {
        match operation {
            OperationKind::Purchase => self.purchase,
            OperationKind::Authorize => self.authorize,
            OperationKind::Confirm => self.confirm,
            OperationKind::Capture => self.capture,
            OperationKind::Void => self.void,
            OperationKind::Refund => self.refund,
        }
    }
}

/// The whole policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// While the provider cannot be reached.
    pub reach: Backoff,
    /// While the provider holds us off.
    pub leave: Backoff,
    /// While an outcome is not known.
    pub outcome: Backoff,
    /// While the provider has not decided.
    pub decision: Backoff,
    /// While the customer has to act. After it nobody is asked: most such payments were simply left, and the
    /// payment can still be confirmed, voided or synchronized.
    pub customer: Backoff,
    /// How long the customer may take before the provider is asked to release the payment; `None`: any time.
    pub abandon_after: Option<Duration>,
    /// While the provider refuses to release it: a step is a void that it refused. Waits are as long as they can be,
    /// not drawn: nothing is gained by asking again at once, and payments are not left all at the same time. So is the
    /// provider asked about an authorization whose time has passed.
    pub release: Backoff,
    /// Longest `Retry-After` that is honoured.
    pub max_retry_after: Duration,
    /// Most sends of one transaction.
    pub max_sends: MaxSends,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        const DAY: u64 = 86_400;
        let backoff = |first, max, steps, days| Backoff {
            first: Duration::from_secs(first),
            max: Duration::from_secs(max),
            steps,
            give_up_after: Duration::from_secs(days * DAY),
        };
        Self {
            reach: backoff(1, 120, 5_000, 2),
            leave: backoff(2, 300, 2_000, 2),
            outcome: backoff(1, 900, 1_000, 2),
            decision: backoff(5, 3_600, 2_000, 14),
            customer: backoff(60, 10_800, 200, 7),
            abandon_after: Some(Duration::from_secs(DAY)),
            release: backoff(3_600, 86_400, 6, 30),
            max_retry_after: Duration::from_secs(3_600),
            max_sends: MaxSends {
                purchase: 100,
                authorize: 100,
                confirm: 100,
                capture: 100,
                void: 100,
                refund: 100,
            },
        }
    }
}

/// When a transaction without an outcome is taken up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// Then.
    At(DateTime<Utc>),
    /// Not by itself: a person decides.
    GiveUp,
}

impl RetryPolicy {
    fn backoff(&self, wait: WaitFor) -> &Backoff {
        match wait {
            WaitFor::Reach => &self.reach,
            WaitFor::Leave => &self.leave,
            WaitFor::Outcome => &self.outcome,
            WaitFor::Decision => &self.decision,
            WaitFor::Customer => &self.customer,
        }
    }

    /// When a transaction is taken up again, given what it waits for; not while its provider is to be left alone about it.
    ///
    /// What was certainly never sent needs no person: `execute_before` ends it (voids have none).
    pub fn next_step(
        &self,
        transaction: &Transaction,
        wait: WaitFor,
        now: DateTime<Utc>,
        jitter: u64,
    ) -> NextStep {
        let backoff = self.backoff(wait);
        let drawn = now + delta(backoff.wait(transaction.retries, jitter));
        let alone = transaction.left_alone_until().filter(|until| *until > now);
        // All who were told the same time do not come back at the same time.
        let asked = alone.map(|until| until + delta(backoff.wait(0, jitter)));
        let due = asked.map_or(drawn, |asked| asked.max(drawn));
        let never_sent =
            transaction.certainly_unprocessed() && transaction.kind != TransactionKind::Void;
        let until = transaction.execute_before;
        if never_sent && now < until {
            // At its end, the next step proves that it was not sent, and ends it.
            return NextStep::At(due.min(until));
        }
        let aged = now - transaction.created_at >= delta(backoff.give_up_after);
        let late = aged && transaction.retries >= backoff.late_steps_by(transaction, now);
        let used_up = transaction.retries >= backoff.steps || late;
        // What is abandoned is taken up then, whatever else is due; but not while the provider is to be left alone.
        let abandoned = self.abandoned_at(transaction).filter(|at| now < *at);
        match abandoned.map(|at| alone.map_or(at, |until| at.max(until))) {
            Some(at) if used_up => NextStep::At(at),
            Some(at) => NextStep::At(due.min(at)),
            None if used_up => NextStep::GiveUp,
            None => NextStep::At(due),
        }
    }
}

impl RetryPolicy {
    /// Until when a provider is left alone that asks for it now.
    pub fn honoured_until(&self, asked: Duration, now: DateTime<Utc>) -> DateTime<Utc> {
        let honoured = asked.min(self.max_retry_after);
        now.checked_add_signed(delta(honoured)).unwrap_or(now)
    }

    /// From when on a transaction that waits for its customer counts as abandoned; `None` where it never does.
    pub fn abandoned_at(&self, transaction: &Transaction) -> Option<DateTime<Utc>> {
        let waits = transaction.state == TransactionState::RequiresAction;
        let after = self.abandon_after.filter(|_| waits)?;
        transaction.updated_at.checked_add_signed(delta(after))
    }

    /// When a payment that is abandoned is taken up again, where the schedule is used up and the provider could not be asked
    /// about it: as long after that as what is late is taken up. Then a person is asked. `None` where it is not abandoned.
    pub fn abandoned_again(
        &self,
        transaction: &Transaction,
        now: DateTime<Utc>,
        jitter: u64,
    ) -> Option<NextStep> {
        let at = self.abandoned_at(transaction).filter(|at| *at <= now)?;
        let customer = &self.customer;
        if now - at >= delta(customer.give_up_after / LATE_PART) {
            return Some(NextStep::GiveUp);
        }
        let wait = delta(customer.wait(transaction.retries, jitter));
        let due = transaction
            .left_alone_until()
            .map_or(now, |until| until.max(now));
        Some(
            due.checked_add_signed(wait)
                .map_or(NextStep::GiveUp, NextStep::At),
        )
    }

    /// When the provider is asked again to release an abandoned payment, which it has refused `refused` times (one at
    /// least), the last time at `last`. A person is asked once it was asked as often, or as long, as is allowed.
    pub fn released_again(
        &self,
        opening: &Transaction,
        refused: u32,
        last: DateTime<Utc>,
    ) -> NextStep {
        let release = &self.release;
        let aged = last - opening.created_at >= delta(release.give_up_after);
        if refused >= release.steps || aged {
            return NextStep::GiveUp;
        }
        let wait = release.limit(refused.saturating_sub(1));
        last.checked_add_signed(delta(wait))
            .map_or(NextStep::GiveUp, NextStep::At)
    }
}

impl RetryPolicy {
    /// When the provider is first asked about an authorization that it said holds `until` then: a while after, in which it may
    /// tell by itself, and not of all at once.
    pub fn looked_at(&self, until: DateTime<Utc>, jitter: u64) -> DateTime<Utc> {
        let wait = self.release.first + self.release.wait(0, jitter);
        until.checked_add_signed(delta(wait)).unwrap_or(until)
    }

    /// The same after a look without news, of which there were `looks` before since that time; `None` where there were
    /// enough.
    pub fn looked_at_again(
        &self,
        until: DateTime<Utc>,
        looks: u32,
        now: DateTime<Utc>,
        jitter: u64,
    ) -> Option<DateTime<Utc>> {
        if now < until {
            return Some(self.looked_at(until, jitter));
        }
        let looks = looks.saturating_add(1);
        let wait = self.release.limit(looks);
        let next = now.checked_add_signed(delta(wait))?;
        (looks < self.release.steps).then_some(next)
    }
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wait_is_within_its_doubling_limit_and_reaches_both_ends() {
        let backoff = RetryPolicy::default().reach;
        for steps in 0..40 {
            let limit = (1u64 << steps.min(20)).min(120) * 1_000_000;
            for jitter in [0, 1, 17, limit, u64::MAX, u64::MAX / 3] {
                assert!(backoff.wait(steps, jitter) <= Duration::from_micros(limit));
            }
            assert_eq!(backoff.wait(steps, 0), Duration::ZERO);
            assert_eq!(backoff.wait(steps, limit), Duration::from_micros(limit));
        }
    }

    #[test]
    fn what_is_old_already_still_has_a_part_of_its_schedule() {
        let policy = RetryPolicy::default();
        for (backoff, steps) in [
            (policy.reach, 360..370),
            (policy.leave, 145..160),
            (policy.outcome, 50..60),
            (policy.decision, 80..100),
            (policy.customer, 18..24),
        ] {
            assert!(steps.contains(&backoff.late_steps()), "{backoff:?}");
        }
        let few = Backoff {
            steps: 3,
            ..policy.outcome
        };
        assert_eq!(few.late_steps(), 3);
        let short = Backoff {
            give_up_after: Duration::from_secs(1),
            ..policy.outcome
        };
        assert_eq!(short.late_steps(), 0);
        let no_wait = Backoff {
            first: Duration::ZERO,
            max: Duration::ZERO,
            ..policy.outcome
        };
        assert_eq!(no_wait.late_steps(), no_wait.steps);
    }

    #[test]
    fn waits_spread_over_the_whole_interval() {
        let backoff = RetryPolicy::default().outcome;
        let mut halves = [0u32; 2];
        for draw in 0..1_000u64 {
            let jitter = draw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let late = backoff.wait(6, jitter) > Duration::from_secs(32);
            halves[usize::from(late)] += 1;
        }
        assert!(halves.iter().all(|half| *half > 400), "{halves:?}");
    }
}
