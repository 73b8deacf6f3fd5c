//! Applies the webhooks of the inbox: on every replica, each webhook by one of them at a time.
//!
//! What is done twice is harmless: a fact that is known already changes nothing. What cannot be applied yet is parked
//! and tried again, without holding up others; what never can is a dead letter.

use std::sync::Arc;
use std::time::Duration;

use quittance_domain::error::FlowError;
use quittance_domain::flows::{Flows, Hearing, Told};
use quittance_domain::ids::{PaymentId, ProviderAccount};
use quittance_domain::ports::{Providers, Store};
use quittance_domain::webhook::{
    ClaimedWebhook, Inbox, InboxClaim, PaymentName, Subject, Unreadable, WebhookFact,
    WebhookReason, WebhookVerdict,
};
use quittance_telemetry::{self as telemetry, Metrics};
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::links::accepted_in;
use super::pace::{failed, half_at_least, pause};
use super::shares::{Shares, share, task_of};
use crate::config::{WebhookRetries, WebhooksConfig};
use crate::trail::Trail;

/// What the worker works with.
#[derive(Clone)]
pub struct WebhookWorkerParts {
    /// Where webhooks are.
    pub inbox: Arc<dyn Inbox>,
    /// They apply what a webhook says.
    pub flows: Flows,
    /// For the spans that webhooks are linked to.
    pub store: Arc<dyn Store>,
    /// The accounts, which read their webhooks.
    pub providers: Arc<dyn Providers>,
    /// Where it gets on record that a webhook is given up.
    pub trail: Trail,
    /// Where lag and backlog are shown.
    pub metrics: Metrics,
    /// How much at once, and how often.
    pub settings: WebhooksConfig,
    /// Told when this process has stored something.
    pub wake: Arc<Notify>,
}

/// The worker.
pub struct WebhookWorker {
    parts: WebhookWorkerParts,
    running: JoinSet<()>,
    shares: Shares<ProviderAccount>,
    failures: u32,
}

impl WebhookWorker {
    /// A worker that has not begun.
    pub fn new(parts: WebhookWorkerParts) -> Self {
        Self {
            parts,
            running: JoinSet::new(),
            shares: Shares::default(),
            failures: 0,
        }
    }

    /// Works until `stop`, when nothing more is claimed; returns when what runs has ended, or at `kill`.
    /// What is left then is claimed by others once the claim has run out.
    pub async fn run(mut self, stop: CancellationToken, kill: CancellationToken) {
        while !stop.is_cancelled() {
            let more = self.claim_and_start().await;
            let pause = pause(self.parts.settings.poll_interval, self.failures);
            let wake = Arc::clone(&self.parts.wake);
            let ready = self.failures == 0 && self.free() > 0;
            tokio::select! {
                () = stop.cancelled() => break,
                // A place is free; it is worth a look where more was there than could be started.
                Some(ended) = self.running.join_next_with_id(), if more => self.ended(&ended),
                () = wake.notified(), if ready => {}
                () = tokio::time::sleep(pause) => {}
            }
            while let Some(ended) = self.running.try_join_next_with_id() {
                self.ended(&ended);
            }
        }
        tokio::select! {
            () = async { while self.running.join_next().await.is_some() {} } => {}
            // Dropped, they are aborted.
            () = kill.cancelled() => {}
        }
    }

    fn ended(&mut self, ended: &Result<(Id, ()), JoinError>) {
        self.shares.ended(task_of(ended));
    }

    fn free(&self) -> usize {
        let most = self.parts.settings.concurrency;
        most.saturating_sub(self.running.len())
    }

    /// Claims what can be started, and starts it. Whether there is probably more.
    async fn claim_and_start(&mut self) -> bool {
        let free = self.free();
        if free == 0 {
            return true;
        }
        let settings = &self.parts.settings;
        let share = share(settings.concurrency, self.parts.providers.names().len());
        let claim = InboxClaim {
            limit: free,
            per_account: share,
            busy: self.shares.taken(),
            lease: settings.claim,
        };
        match self.parts.inbox.claim_webhooks(&claim).await {
            Ok(claimed) => {
                self.failures = 0;
                let all = claimed.len() >= free;
                for webhook in claimed {
                    let account = webhook.account.clone();
                    let work = work_on(self.parts.clone(), webhook);
                    self.shares.begun(self.running.spawn(work).id(), account);
                }
                all || self.shares.crowded(share)
            }
            Err(error) => {
                let what = "the inbox of webhooks cannot be read";
                self.failures = failed(what, self.failures, &error);
                false
            }
        }
    }
}

/// Applies one webhook, in a trace of its own, and writes down what became of it.
async fn work_on(parts: WebhookWorkerParts, webhook: ClaimedWebhook) {
    let span = tracing::info_span!(
        parent: None,
        "webhook",
        otel.kind = "consumer",
        otel.status_code = Empty,
        webhook.id = %webhook.id,
        provider.account = %webhook.account,
        retry.number = webhook.attempt,
        payment.id = Empty,
        transaction.id = Empty,
        outcome = Empty,
        cause = Empty,
        error.message = Empty,
    );
    let working = async {
        let (verdict, about) = parts.judge(&webhook).await;
        let (state, reason) = (verdict.state(), verdict.reason());
        Span::current().record("outcome", state.name());
        if let Some(reason) = reason {
            Span::current().record("cause", reason.name());
        }
        if let WebhookVerdict::Dead { reason } = verdict {
            // First: whoever finds the dead letter finds it on record, too.
            let recorded = parts.trail.webhook_given_up(&webhook, reason, &about);
            if let Err(error) = recorded.await {
                tracing::warn!(
                    webhook.id = %webhook.id,
                    error.message = %error,
                    "that a webhook is given up could not be put on record; it is taken up again"
                );
                return;
            }
        }
        match parts.inbox.close_webhook(&webhook, verdict, &about).await {
            Ok(Some(age)) => parts.closed(&webhook, verdict, age),
            // Somebody else has claimed it since.
            Ok(None) => {}
            Err(error) => tracing::warn!(
                webhook.id = %webhook.id,
                error.message = %error,
                "what became of a webhook could not be written down; it is taken up again"
            ),
        }
    };
    working.instrument(span).await;
}

impl WebhookWorkerParts {
    /// What is to become of it, and which payments it is about.
    async fn judge(&self, webhook: &ClaimedWebhook) -> (WebhookVerdict, Vec<PaymentId>) {
        let retries = self.settings.retries;
        let facts = match self.facts(webhook) {
            Ok(facts) => facts,
            Err(verdict) => return (verdict, Vec::new()),
        };
        let mut outcomes = Vec::with_capacity(facts.len());
        let mut about = Vec::new();
        for told in facts {
            let payment = match self.name(webhook, &told).await {
                Ok(payment) => payment,
                Err(outcome) => {
                    outcomes.push(outcome);
                    continue;
                }
            };
            if !about.contains(&payment) {
                about.push(payment);
            }
            let told = WebhookFact {
                payment: PaymentName::Ours(payment),
                ..told
            };
            let account = &webhook.account;
            match self.flows.operations_told(account, payment, &told).await {
                Ok(named) => {
                    for fact in &named {
                        outcomes.push(Box::pin(self.apply(webhook, fact)).await);
                    }
                }
                Err(why) => outcomes.push(outcome(Told::NotConfirmed(why))),
            }
        }
        (together(&outcomes, webhook, retries), about)
    }

    /// What it says; or what becomes of it where that cannot be known.
    fn facts(&self, webhook: &ClaimedWebhook) -> Result<Vec<WebhookFact>, WebhookVerdict> {
        let retries = self.settings.retries;
        if webhook.tries > retries.max_attempts {
            return Err(dead(WebhookReason::Abandoned));
        }
        let Some(body) = &webhook.body else {
            return Err(dead(WebhookReason::NotOpened));
        };
        let Some(provider) = self.providers.account(&webhook.account) else {
            let unknown = WebhookReason::UnknownAccount;
            return Err(later(unknown, Duration::ZERO, webhook, retries));
        };
        provider
            .webhook(body.expose())
            .map_err(|error| match error {
                Unreadable::Malformed => dead(WebhookReason::Unreadable),
                Unreadable::Unexpected => dead(WebhookReason::Unexpected),
            })
    }

    /// The payment by our id, where something else names it; or why that cannot be known.
    async fn name(
        &self,
        webhook: &ClaimedWebhook,
        fact: &WebhookFact,
    ) -> Result<PaymentId, Outcome> {
        let named = self.flows.payment_named(&webhook.account, &fact.payment);
        match named.await {
            Ok(named) => named.map_err(outcome),
            Err(error) => Err(not_applied(&error)),
        }
    }

    async fn apply(&self, webhook: &ClaimedWebhook, fact: &WebhookFact) -> Outcome {
        let span = Span::current();
        if let PaymentName::Ours(payment) = &fact.payment {
            span.record("payment.id", payment.to_string());
        }
        if let Subject::Transaction(transaction) = &fact.subject {
            span.record("transaction.id", transaction.to_string());
        }
        let hearing = Hearing {
            webhook: webhook.id,
            again: webhook.attempt > 1,
        };
        let told = self.flows.provider_told(&webhook.account, hearing, fact);
        match told.await {
            Ok(told) => {
                if matches!(told, Told::Applied | Told::NoNews) {
                    self.link(&span, fact).await;
                }
                outcome(told)
            }
            Err(error) => not_applied(&error),
        }
    }

    /// Links the webhook's span to the one that accepted the transaction.
    async fn link(&self, span: &Span, fact: &WebhookFact) {
        let (PaymentName::Ours(payment), Subject::Transaction(transaction)) =
            (&fact.payment, &fact.subject)
        else {
            return;
        };
        let accepted = accepted_in(self.store.as_ref(), *payment, *transaction);
        if let Some(accepted) = accepted.await {
            telemetry::add_link(span, accepted);
        }
    }

    fn closed(&self, webhook: &ClaimedWebhook, verdict: WebhookVerdict, age: f64) {
        let state = match verdict {
            WebhookVerdict::Parked { .. } => return,
            WebhookVerdict::Applied => "applied",
            WebhookVerdict::Ignored => "ignored",
            WebhookVerdict::Dead { reason } => {
                // What the provider told is not booked, and nobody else will ask.
                tracing::error!(
                    webhook.id = %webhook.id,
                    provider.account = %webhook.account,
                    cause = reason.name(),
                    "a webhook was given up: kept as a dead letter, until a person has it replayed"
                );
                "dead"
            }
        };
        self.metrics
            .webhook_done(webhook.account.as_str(), state, age);
    }
}

/// Defects are errors; what the database or a race is to blame for passes.
fn not_applied(error: &FlowError) -> Outcome {
    let span = Span::current();
    span.record("error.message", error.to_string());
    span.record("otel.status_code", "ERROR");
    if matches!(error, FlowError::Internal(_)) {
        tracing::error!(error.message = %error, "a webhook could not be applied");
    } else {
        tracing::warn!(error.message = %error, "a webhook could not be applied just now");
    }
    if error.is_transient() {
        Outcome::Waits(WebhookReason::NotApplied, None)
    } else {
        Outcome::Later(WebhookReason::NotApplied)
    }
}

/// What became of one fact of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Applied,
    Nothing,
    /// It may come to something, and does not as long as something else lasts: that is not held against it. The provider may
    /// have said how long it is to be left alone.
    Waits(WebhookReason, Option<Duration>),
    /// It may come to something.
    Later(WebhookReason),
    Never(WebhookReason),
}

fn outcome(told: Told) -> Outcome {
    match told {
        Told::Applied => Outcome::Applied,
        Told::NoNews => Outcome::Nothing,
        // It may come before its row: written by somebody whose commit is not visible yet, or restored.
        Told::UnknownPayment => Outcome::Later(WebhookReason::UnknownPayment),
        // Nobody told otherwise: what it says may exist in this webhook alone.
        Told::NotConfirmed(why) if why.cause.unanswered() => {
            Outcome::Waits(WebhookReason::NotConfirmed, why.retry_after)
        }
        Told::Early => Outcome::Waits(WebhookReason::NotConfirmed, None),
        Told::NotConfirmed(_) => Outcome::Later(WebhookReason::NotConfirmed),
        Told::Nameless => Outcome::Never(WebhookReason::Unreadable),
        // As its payment's own events are; kept, in case that somebody took our metadata off.
        Told::NotOurs => Outcome::Never(WebhookReason::Unexpected),
        Told::OtherAccount => Outcome::Never(WebhookReason::OtherAccount),
        Told::MovedOn => Outcome::Never(WebhookReason::MovedOn),
    }
}

/// What becomes of a webhook with all its facts: it is tried again while any of them may come to something, and is
/// a dead letter if any of them never will. It uses up no try while one of them waits for something else, and waits as long as
/// any provider asked for.
fn together(
    outcomes: &[Outcome],
    webhook: &ClaimedWebhook,
    retries: WebhookRetries,
) -> WebhookVerdict {
    let first = |wanted: fn(&Outcome) -> Option<WebhookReason>| outcomes.iter().find_map(wanted);
    let waits = first(|outcome| match outcome {
        Outcome::Waits(reason, _) => Some(*reason),
        Outcome::Applied | Outcome::Nothing | Outcome::Later(_) | Outcome::Never(_) => None,
    });
    let again = first(|outcome| match outcome {
        Outcome::Later(reason) => Some(*reason),
        Outcome::Applied | Outcome::Nothing | Outcome::Waits(..) | Outcome::Never(_) => None,
    });
    let never = first(|outcome| match outcome {
        Outcome::Never(reason) => Some(*reason),
        Outcome::Applied | Outcome::Nothing | Outcome::Waits(..) | Outcome::Later(_) => None,
    });
    match (waits, again, never) {
        (Some(reason), _, _) => wait(reason, asked_for(outcomes), webhook, retries),
        (None, Some(reason), _) => later(reason, Duration::ZERO, webhook, retries),
        (None, None, Some(reason)) => dead(reason),
        (None, None, None) if outcomes.contains(&Outcome::Applied) => WebhookVerdict::Applied,
        (None, None, None) => WebhookVerdict::Ignored,
    }
}

/// For how long providers asked to be left alone.
fn asked_for(outcomes: &[Outcome]) -> Duration {
    let asked = outcomes.iter().filter_map(|outcome| match outcome {
        Outcome::Waits(_, asked) => *asked,
        Outcome::Applied | Outcome::Nothing | Outcome::Later(_) | Outcome::Never(_) => None,
    });
    asked.max().unwrap_or_default()
}

const fn dead(reason: WebhookReason) -> WebhookVerdict {
    WebhookVerdict::Dead { reason }
}

/// Tried again once it may be asked for, unless that was the last time.
fn later(
    reason: WebhookReason,
    asked: Duration,
    webhook: &ClaimedWebhook,
    retries: WebhookRetries,
) -> WebhookVerdict {
    if webhook.tries >= retries.max_attempts {
        return dead(reason);
    }
    WebhookVerdict::Parked {
        reason,
        again_in: asked.saturating_add(half_at_least(retries.limit(webhook.tries))),
        free: false,
    }
}

/// Tried again without using up a try, once it may be asked for again; what has waited for too long uses them up.
fn wait(
    reason: WebhookReason,
    asked: Duration,
    webhook: &ClaimedWebhook,
    retries: WebhookRetries,
) -> WebhookVerdict {
    if webhook.age >= retries.wait {
        return later(reason, asked, webhook, retries);
    }
    WebhookVerdict::Parked {
        reason,
        again_in: asked.saturating_add(half_at_least(retries.limit_at(webhook.age))),
        free: true,
    }
}

#[cfg(test)]
mod tests {
    use quittance_domain::decline::Cause;
    use quittance_domain::ids::WebhookId;
    use quittance_domain::unconfirmed::Unconfirmed;

    use super::*;

    const RETRIES: WebhookRetries = WebhookRetries {
        first: Duration::from_secs(1),
        max: Duration::from_secs(8),
        max_attempts: 3,
        wait: Duration::from_secs(100),
    };

    fn webhook(tries: u32, age: u64) -> ClaimedWebhook {
        ClaimedWebhook {
            id: WebhookId(uuid::Uuid::nil()),
            account: ProviderAccount::parse("sandbox").unwrap(),
            body: None,
            attempt: tries,
            tries,
            age: Duration::from_secs(age),
        }
    }

    #[test]
    fn a_webhook_of_several_facts_is_done_when_all_of_them_are() {
        use Outcome::{Applied, Later, Never, Nothing};
        let unknown = WebhookReason::UnknownPayment;
        let other = WebhookReason::OtherAccount;
        let together = |outcomes: &[Outcome]| together(outcomes, &webhook(1, 0), RETRIES);
        assert_eq!(together(&[]), WebhookVerdict::Ignored);
        assert_eq!(together(&[Nothing, Nothing]), WebhookVerdict::Ignored);
        assert_eq!(together(&[Nothing, Applied]), WebhookVerdict::Applied);
        assert_eq!(together(&[Applied, Never(other)]), dead(other));
        let parked = together(&[Never(other), Later(unknown), Applied]);
        assert_eq!(parked.reason(), Some(unknown));
        assert!(matches!(parked, WebhookVerdict::Parked { .. }));
    }

    #[test]
    fn s53_what_stays_unknown_is_tried_less_and_less_often_and_then_a_dead_letter() {
        let reason = WebhookReason::UnknownPayment;
        for tries in 1..3 {
            let verdict = later(reason, Duration::ZERO, &webhook(tries, 0), RETRIES);
            let WebhookVerdict::Parked { again_in, free, .. } = verdict else {
                panic!("given up too soon");
            };
            let limit = RETRIES.limit(tries);
            assert!(again_in >= limit / 2 && again_in <= limit, "{again_in:?}");
            assert!(!free);
        }
        assert_eq!(
            later(reason, Duration::ZERO, &webhook(3, 0), RETRIES),
            dead(reason)
        );
    }

    #[test]
    fn what_waits_for_something_else_uses_up_no_try_until_it_has_waited_for_too_long() {
        let reason = WebhookReason::NotConfirmed;
        for told in [
            Told::Early,
            Told::NotConfirmed(Cause::CredentialsRefused.into()),
            Told::NotConfirmed(Cause::ConnectTimeout.into()),
            Told::NotConfirmed(Cause::CircuitOpen.into()),
        ] {
            for (age, longest) in [(0, 1), (5, 5), (99, 8)] {
                let verdict = together(&[outcome(told)], &webhook(3, age), RETRIES);
                let WebhookVerdict::Parked { again_in, free, .. } = verdict else {
                    panic!("given up at the age of {age}");
                };
                assert!(free && again_in <= Duration::from_secs(longest));
            }
            let old = |tries| together(&[outcome(told)], &webhook(tries, 100), RETRIES);
            assert!(matches!(old(1), WebhookVerdict::Parked { free: false, .. }));
            assert_eq!(old(3), dead(reason));
        }
        // An answer is an answer: what the provider does not know is not asked for ever.
        let refuted = outcome(Told::NotConfirmed(Cause::NotProcessed.into()));
        assert_eq!(together(&[refuted], &webhook(3, 0), RETRIES), dead(reason));
    }

    #[test]
    fn s18_a_provider_that_asks_to_be_left_alone_is_not_asked_sooner_because_of_a_webhook() {
        let asks = |seconds| {
            outcome(Told::NotConfirmed(Unconfirmed {
                cause: Cause::RateLimited,
                retry_after: Some(Duration::from_secs(seconds)),
            }))
        };
        let told = [asks(30), Outcome::Applied, asks(60), outcome(Told::Early)];
        let verdict = together(&told, &webhook(1, 0), RETRIES);
        let WebhookVerdict::Parked { again_in, free, .. } = verdict else {
            panic!("given up");
        };
        assert!(free && again_in >= Duration::from_secs(60), "{again_in:?}");
        // Nor where it has waited for so long that its tries are used up.
        let verdict = together(&told, &webhook(1, 100), RETRIES);
        let WebhookVerdict::Parked { again_in, free, .. } = verdict else {
            panic!("given up");
        };
        assert!(!free && again_in >= Duration::from_secs(60), "{again_in:?}");
    }
}
