//! One POST: which fault it meets, whether it is a replay, and what is answered.

use super::{Ledger, Payment};
use crate::clock;
use crate::error::ApiError;
use crate::fault::{Fault, FaultRule, Mishap, When};
use crate::idempotency::{Answer, Stored};
use crate::parse::Command;
use crate::wire::Operation;
use std::time::{Duration, Instant};

/// A well-formed POST.
pub(crate) struct Submission {
    /// Digest of the idempotency key.
    pub key: u128,
    /// Digest of path and body.
    pub digest: u128,
    pub command: Command,
}

/// What the client gets, and when.
pub(crate) struct Sent {
    pub after: Duration,
    pub ending: Ending,
}

pub(crate) enum Ending {
    Answer(Reply),
    /// Nothing until `max_hang`, then the end of the connection.
    Hang,
    /// The end of the connection.
    Drop,
    /// A reset, in the middle of the answer if there is one.
    Reset(Option<Reply>),
}

pub(crate) struct Reply {
    pub body: ReplyBody,
    /// Answered from the idempotency store.
    pub replayed: bool,
    /// Only half of the JSON.
    pub malformed: bool,
}

pub(crate) enum ReplyBody {
    Operation(Box<Operation>),
    Error(ApiError),
    /// 404 of a lookup, which says whether it proves anything.
    NotFound {
        authoritative: bool,
    },
}

impl Reply {
    pub(crate) const fn error(error: ApiError) -> Self {
        Self {
            body: ReplyBody::Error(error),
            replayed: false,
            malformed: false,
        }
    }

    pub(crate) fn operation(operation: Operation) -> Self {
        let body = ReplyBody::Operation(Box::new(operation));
        Self {
            body,
            replayed: false,
            malformed: false,
        }
    }
}

impl Sent {
    pub(crate) const fn now(reply: Reply) -> Self {
        Self {
            after: Duration::ZERO,
            ending: Ending::Answer(reply),
        }
    }

    /// The end of a send that leaves no trace, if the fault says so.
    pub(crate) fn spoiled(fault: Fault) -> Option<Self> {
        let ending = match fault.mishap? {
            Mishap::Hang(When::Before) => Ending::Hang,
            Mishap::Drop(When::Before) => Ending::Drop,
            Mishap::Reset(When::Before) => Ending::Reset(None),
            Mishap::Status(status, When::Before) => {
                Ending::Answer(Reply::error(ApiError::injected(status, false)))
            }
            Mishap::Hang(When::After)
            | Mishap::Drop(When::After)
            | Mishap::Reset(When::After)
            | Mishap::Status(_, When::After)
            | Mishap::Malformed => return None,
        };
        Some(Self {
            after: fault.latency,
            ending,
        })
    }

    /// The end of a send that was carried out.
    pub(crate) fn carried_out(mut reply: Reply, fault: Fault) -> Self {
        let ending = match fault.mishap {
            Some(Mishap::Hang(_)) => Ending::Hang,
            Some(Mishap::Drop(_)) => Ending::Drop,
            Some(Mishap::Reset(_)) => Ending::Reset(Some(reply)),
            Some(Mishap::Status(status, _)) => {
                reply.body = ReplyBody::Error(ApiError::injected(status, true));
                Ending::Answer(reply)
            }
            Some(Mishap::Malformed) => {
                reply.malformed = true;
                Ending::Answer(reply)
            }
            None => Ending::Answer(reply),
        };
        Self {
            after: fault.latency,
            ending,
        }
    }
}

impl Ledger {
    /// Carries a POST out, or replays it, or spoils it. Everything that is decided here is decided
    /// at once, under the caller's lock; waiting is left to the caller.
    pub(crate) fn submit(&mut self, submission: &Submission) -> Sent {
        if let Some(refusal) = self.refuse(submission) {
            return Sent::now(Reply::error(refusal));
        }
        let fault = match self.fault_of(submission) {
            Ok(fault) => fault,
            Err(error) => return Sent::now(Reply::error(error)),
        };
        if let Some(sent) = Sent::spoiled(fault) {
            return sent;
        }
        if let Some(stored) = self.keys.get(submission.key) {
            let reply = self.replay(stored);
            self.totals.replayed();
            return Sent::carried_out(reply, fault);
        }
        self.first(submission, fault)
    }

    /// Refusals that neither use up a fault nor are stored.
    fn refuse(&self, submission: &Submission) -> Option<ApiError> {
        if self
            .journal
            .as_ref()
            .is_some_and(crate::persist::Journal::is_broken)
        {
            return Some(ApiError::books_broken());
        }
        match self.keys.get(submission.key) {
            Some(stored) if stored.digest != submission.digest => Some(ApiError::key_reused()),
            Some(stored)
                if stored
                    .busy_until
                    .is_some_and(|until| until > Instant::now()) =>
            {
                Some(ApiError::key_in_use())
            }
            None if self.operations.len() >= self.rules.max_stored
                || self.keys.len() >= self.rules.max_stored =>
            {
                Some(ApiError::books_full())
            }
            Some(_) | None => None,
        }
    }

    /// A fault armed through the control API goes before the token's own.
    fn fault_of(&mut self, submission: &Submission) -> Result<Fault, ApiError> {
        let command = &submission.command;
        let rule = self.rule_of(command)?;
        if let Some(fault) = self.control.take(command.kind(), command.reference()) {
            return Ok(fault);
        }
        if rule.times == 0 {
            return Ok(Fault::default());
        }
        let spoiled = self.spoiled.get(submission.key).copied().unwrap_or(0);
        if spoiled >= rule.times {
            return Ok(Fault::default());
        }
        // Without room to count, a fault would never end.
        if spoiled == 0 && self.spoiled.len() >= self.rules.max_stored {
            return Ok(Fault::default());
        }
        self.spoiled.insert(submission.key, spoiled + 1);
        Ok(rule.fault)
    }

    fn rule_of(&mut self, command: &Command) -> Result<FaultRule, ApiError> {
        let payment = match command {
            Command::Create(new) => return Ok(self.plan(&new.token)?.rule(command.kind())),
            Command::Confirm { payment, .. }
            | Command::Capture { payment, .. }
            | Command::Void { payment, .. }
            | Command::Refund { payment, .. } => *payment,
        };
        let at = self.by_payment_id.get(payment.as_u128());
        let payment: Option<&Payment> = at.and_then(|at| self.payments.get(*at));
        Ok(payment.map_or(FaultRule::NONE, |payment| payment.plan.rule(command.kind())))
    }

    fn replay(&self, stored: &Stored) -> Reply {
        let body = match &stored.answer {
            Answer::Operation {
                at,
                status,
                decline,
            } => match self.operation_as(*at, *status, *decline) {
                Some(operation) => ReplyBody::Operation(Box::new(operation)),
                None => ReplyBody::Error(ApiError::not_found("no such operation")),
            },
            Answer::Error(error) => ReplyBody::Error(error.as_ref().clone()),
        };
        Reply {
            body,
            replayed: true,
            malformed: stored.malformed,
        }
    }

    fn first(&mut self, submission: &Submission, fault: Fault) -> Sent {
        let carried_out = self.execute(&submission.command, clock::now());
        let answer = match carried_out {
            Ok(at) => match self.operations.get(at) {
                Some(record) => Answer::Operation {
                    at,
                    status: record.status,
                    decline: record.decline,
                },
                None => return Sent::now(Reply::error(ApiError::not_found("no such operation"))),
            },
            Err(error) if error.kept => Answer::Error(Box::new(error)),
            Err(error) => return Sent::now(Reply::error(error)),
        };
        let answer = match fault.mishap {
            Some(Mishap::Status(status, When::After)) => {
                Answer::Error(Box::new(ApiError::injected(status, true)))
            }
            _ => answer,
        };
        let stored = Stored {
            digest: submission.digest,
            answer,
            malformed: fault.mishap == Some(Mishap::Malformed),
            // A first request that is slow to answer is still running for everybody else.
            busy_until: Instant::now()
                .checked_add(fault.latency)
                .filter(|_| !fault.latency.is_zero()),
        };
        let mut reply = self.replay(&stored);
        reply.replayed = false;
        self.keys.insert(submission.key, stored);
        if self.journal.is_some() {
            self.changed.key = Some(submission.key);
        }
        self.write_changes();
        Sent::carried_out(reply, fault)
    }
}
