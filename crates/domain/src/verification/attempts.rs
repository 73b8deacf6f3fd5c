//! Attempts: what entries say of them against their rows, and rows that no entry speaks of.
//!
//! Their columns are believed: a chargeback is applied where an attempt went through its account, and a send is repeated as
//! often as attempts say that it may.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use quittance_evidence::{Hash, Leaf};

use super::claims::Claim;
use super::erasures::UnjudgedErasure;
use super::mismatch::{Mismatch, Shown};
use super::row_fault::{ResponseProblem, RowFault};
use crate::failures;
use crate::ids::{PaymentId, TransactionId};
use crate::journal::salted_digest;
use crate::transaction::MAX_STORED_RESPONSE;

/// What an entry says of an attempt that began or ended with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptSaid {
    /// Its number.
    pub number: u32,
    /// Digest of the bytes sent.
    pub request: Option<Hash>,
    /// Digest of what came back.
    pub response: Option<Hash>,
    /// The account that it goes to.
    pub account: Option<String>,
    /// What it asks.
    pub operation: Option<String>,
    /// How it ended; `None` where it began.
    pub end: Option<AttemptEndSaid>,
}

/// How an attempt ended, as an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptEndSaid {
    /// What it told.
    pub outcome: String,
    /// Why there was no answer.
    pub cause: Option<String>,
    /// How long it took, in microseconds.
    pub latency_micros: Option<String>,
}

impl AttemptSaid {
    pub(super) fn of(leaf: &Leaf) -> Option<Self> {
        let detail = |name: &str| leaf.details.get(name).cloned();
        let end = detail(failures::OUTCOME).map(|outcome| AttemptEndSaid {
            outcome,
            cause: detail(failures::CAUSE),
            latency_micros: detail(failures::LATENCY),
        });
        Some(Self {
            number: leaf.attempt?,
            request: leaf.provider_request_digest,
            response: leaf.provider_response_digest,
            // An attempt begins at the account that its transaction has then; that may be another one when it ends.
            account: match end {
                Some(_) => detail(failures::ACCOUNT),
                None => leaf.provider_account.clone(),
            },
            operation: detail(failures::OPERATION),
            end,
        })
    }
}

/// An attempt as stored.
#[derive(Debug, Clone)]
pub struct StoredAttempt {
    /// Column `tenant_id`.
    pub tenant: String,
    /// Column `operation`.
    pub operation: String,
    /// Column `provider_account`.
    pub account: String,
    /// Column `started_at`.
    pub started_at: DateTime<Utc>,
    /// Column `request_digest`.
    pub request_digest: Vec<u8>,
    /// Column `ended_at`.
    pub ended_at: Option<DateTime<Utc>>,
    /// Column `outcome`.
    pub outcome: Option<String>,
    /// Column `cause`.
    pub cause: Option<String>,
    /// Column `latency_micros`.
    pub latency_micros: Option<i64>,
    /// Column `response_digest`.
    pub response_digest: Option<Vec<u8>>,
    /// What came back, opened.
    pub response: StoredResponse,
}

/// What a provider answered, as stored.
#[derive(Debug, Clone)]
pub enum StoredResponse {
    /// Nothing.
    None,
    /// It opens, and so does the salt of its digest.
    Opened {
        /// At most the first 16 KiB of what came.
        bytes: Vec<u8>,
        /// The attempt's salt.
        salt: [u8; 16],
    },
    /// It does not open.
    Unreadable,
    /// The payment's customer was erased, or is being erased: nothing is kept.
    Erased,
    /// It is not there, or its key is not, and whether the payment's customer was erased is not known.
    Unjudged(UnjudgedErasure),
}

/// Notes what differs of one attempt.
struct Differences<'a> {
    claim: &'a Claim,
    number: u32,
    out: &'a mut Vec<Mismatch>,
}

impl Differences<'_> {
    fn text(&mut self, column: &'static str, expected: Option<&str>, found: Option<&str>) {
        if expected != found {
            self.differs(column, Shown::of_option(expected), Shown::of_option(found));
        }
    }

    fn digest(&mut self, column: &'static str, expected: Option<Hash>, found: Option<&Vec<u8>>) {
        let is_it = |found: &Vec<u8>| expected.is_some_and(|it| found == it.as_bytes());
        if expected.is_some() != found.is_some() || !found.is_none_or(is_it) {
            let found = found.map(hex::encode);
            self.differs(
                column,
                Shown::of_option(expected.as_ref()),
                Shown::of_option(found.as_ref()),
            );
        }
    }

    /// The entry's own time.
    fn time(&mut self, column: &'static str, found: Option<DateTime<Utc>>) {
        if found.is_none_or(|found| !self.claim.is_at(found)) {
            let found = found.map_or(Shown::of_option(None::<&str>), Shown::of_time);
            self.differs(column, Shown::of_time(self.claim.at), found);
        }
    }

    fn differs(&mut self, column: &'static str, expected: Shown, found: Shown) {
        let fault = RowFault::AttemptDiffers {
            transaction: self.claim.transaction,
            number: self.number,
            column,
            expected,
            found,
        };
        self.out.push(self.claim.mismatch(fault));
    }
}

/// Holds an attempt to what an entry says of it that never changes again.
pub fn compare_attempt(claim: &Claim, row: Option<&StoredAttempt>, out: &mut Vec<Mismatch>) {
    let Some(said) = &claim.said.attempt else {
        return;
    };
    let (transaction, number) = (claim.transaction, said.number);
    let Some(row) = row else {
        let missing = RowFault::AttemptMissing {
            transaction,
            number,
        };
        return out.push(claim.mismatch(missing));
    };
    let mut differences = Differences { claim, number, out };
    differences.text("tenant_id", Some(&claim.tenant), Some(&row.tenant));
    if let Some(account) = &said.account {
        differences.text("provider_account", Some(account), Some(&row.account));
    }
    if let Some(operation) = &said.operation {
        differences.text("operation", Some(operation), Some(&row.operation));
    }
    if said.request.is_some() {
        differences.digest("request_digest", said.request, Some(&row.request_digest));
    }
    if said.end.is_none() {
        differences.time("started_at", Some(row.started_at));
    }
}

/// Holds an attempt to how it ended, as an entry says. One whose sender was taken for dead may end once more: then only
/// the last such entry has to be right.
pub fn compare_attempt_end(claim: &Claim, row: &StoredAttempt) -> Vec<Mismatch> {
    let mut out = Vec::new();
    let Some((said, end)) = claim
        .said
        .attempt
        .as_ref()
        .and_then(|said| Some((said, said.end.as_ref()?)))
    else {
        return out;
    };
    let (transaction, number) = (claim.transaction, said.number);
    let mut differences = Differences {
        claim,
        number,
        out: &mut out,
    };
    differences.text("outcome", Some(&end.outcome), row.outcome.as_deref());
    differences.text("cause", end.cause.as_deref(), row.cause.as_deref());
    let latency = row.latency_micros.map(|micros| micros.to_string());
    differences.text(
        "latency_micros",
        end.latency_micros.as_deref(),
        latency.as_deref(),
    );
    differences.time("ended_at", row.ended_at);
    differences.digest(
        "response_digest",
        said.response,
        row.response_digest.as_ref(),
    );
    let problem = said
        .response
        .and_then(|digest| problem_of(&row.response, &digest));
    if let Some(problem) = problem {
        out.push(claim.mismatch(RowFault::Response {
            transaction,
            number,
            problem,
        }));
    }
    if let (Some(_), StoredResponse::Unjudged(erasure)) = (&said.response, &row.response) {
        out.push(claim.mismatch(erasure.fault()));
    }
    out
}

/// One that was too long to be stored whole cannot be digested again; that it opens says that it is the attempt's.
fn problem_of(response: &StoredResponse, digest: &Hash) -> Option<ResponseProblem> {
    match response {
        StoredResponse::None => Some(ResponseProblem::Gone),
        StoredResponse::Unreadable => Some(ResponseProblem::Unreadable),
        StoredResponse::Erased | StoredResponse::Unjudged(_) => None,
        StoredResponse::Opened { bytes, salt } => {
            let whole = bytes.len() < MAX_STORED_RESPONSE;
            (whole && salted_digest(salt, bytes) != *digest.as_bytes())
                .then_some(ResponseProblem::Differs)
        }
    }
}

/// Which attempt a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttemptKey {
    /// Column `payment_id`.
    pub payment: PaymentId,
    /// Column `transaction_id`.
    pub transaction: TransactionId,
    /// Column `number`; the service begins with 1.
    pub number: i32,
    /// Whether it has ended, by its row.
    pub ended: bool,
}

/// The attempts that none of these entries began, or ended where they have. Entries of their payments that are not among
/// these may have.
pub fn unspoken_attempts(claims: &[Claim], rows: &[AttemptKey]) -> Vec<AttemptKey> {
    let said = claims.iter().filter_map(|claim| {
        let said = claim.said.attempt.as_ref()?;
        let key = AttemptKey {
            payment: claim.payment,
            transaction: claim.transaction,
            number: i32::try_from(said.number).ok()?,
            ended: said.end.is_some(),
        };
        Some(key)
    });
    let said: BTreeSet<_> = said.collect();
    let spoken = |row: &AttemptKey| {
        // One that has not ended by its row may have by now.
        said.contains(row)
            || !row.ended
                && said.contains(&AttemptKey {
                    ended: true,
                    ..*row
                })
    };
    rows.iter().filter(|row| !spoken(row)).copied().collect()
}

/// An attempt that no entry began, or one that no entry ended.
pub fn attempt_without_entry(attempt: AttemptKey) -> Mismatch {
    let fault = RowFault::AttemptWithoutEntry {
        transaction: attempt.transaction,
        number: attempt.number,
    };
    Mismatch::of_payment(attempt.payment, fault)
}

/// Attempts of what has no entry that began one.
pub fn attempts_of_nothing(payment: PaymentId) -> Mismatch {
    Mismatch::of_payment(payment, RowFault::AttemptsOfNothing)
}

#[cfg(test)]
#[path = "attempts_tests.rs"]
mod tests;
