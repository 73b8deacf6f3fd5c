//! The books file: one JSON line for each change, holding what changed as it is now.
//!
//! Images instead of requests: replaying is assignment, so that a later version of the rules
//! cannot rewrite what an earlier one charged.

use crate::idempotency::Stored;
use crate::ledger::{Payment, Record};
use crate::token::Plan;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;
use tracing::error;
use uuid::Uuid;

/// What one change left behind, by position in the books.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Image<'a> {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    payments: Vec<(usize, PaymentImage)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    operations: Vec<(usize, Cow<'a, Record>)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<(u128, Cow<'a, Stored>)>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct PaymentImage {
    id: Uuid,
    payment_reference: Option<Box<str>>,
    return_url: Option<Box<str>>,
    pub token: Box<str>,
    first: usize,
    later: Vec<usize>,
    withholds_authorized: bool,
}

impl PaymentImage {
    fn of(payment: &Payment) -> Self {
        Self {
            id: payment.id,
            payment_reference: payment.callers_id.clone(),
            return_url: payment.return_url.clone(),
            token: payment.plan.text.clone(),
            first: payment.first,
            later: payment.later.clone(),
            withholds_authorized: payment.withholds_authorized,
        }
    }

    pub(crate) fn restore(self, plan: Arc<Plan>) -> Payment {
        Payment {
            id: self.id,
            callers_id: self.payment_reference,
            return_url: self.return_url,
            plan,
            first: self.first,
            later: self.later,
            withholds_authorized: self.withholds_authorized,
        }
    }
}

type Parts = (
    Vec<(usize, PaymentImage)>,
    Vec<(usize, Record)>,
    Option<(u128, Stored)>,
);

impl<'a> Image<'a> {
    pub(crate) fn of(
        payments: impl Iterator<Item = (usize, &'a Payment)>,
        operations: impl Iterator<Item = (usize, &'a Record)>,
        key: Option<(u128, &'a Stored)>,
    ) -> Self {
        Self {
            payments: payments
                .map(|(at, payment)| (at, PaymentImage::of(payment)))
                .collect(),
            operations: operations
                .map(|(at, record)| (at, Cow::Borrowed(record)))
                .collect(),
            key: key.map(|(key, stored)| (key, Cow::Borrowed(stored))),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.payments.is_empty() && self.operations.is_empty() && self.key.is_none()
    }

    pub(crate) fn into_parts(self) -> Parts {
        (
            self.payments,
            self.operations
                .into_iter()
                .map(|(at, record)| (at, record.into_owned()))
                .collect(),
            self.key.map(|(key, stored)| (key, stored.into_owned())),
        )
    }
}

/// The open books file.
pub(crate) struct Journal {
    file: File,
    broken: bool,
}

impl Journal {
    /// Replays the file line by line, then opens it for appending. A last line without its end was
    /// being written when the process died, so it was never answered: it is cut off.
    pub(crate) fn open(
        path: &Path,
        mut apply: impl FnMut(Image<'static>) -> Result<(), &'static str>,
    ) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        let mut reader = BufReader::new(&file);
        let (mut line, mut number, mut complete) = (String::new(), 0_u64, 0_u64);
        loop {
            line.clear();
            let read = reader.read_line(&mut line)?;
            if !line.ends_with('\n') {
                break;
            }
            number += 1;
            let invalid = |reason: String| {
                let message = format!("{}: line {number}: {reason}", path.display());
                io::Error::new(io::ErrorKind::InvalidData, message)
            };
            let image = serde_json::from_str(&line).map_err(|error| invalid(error.to_string()))?;
            apply(image).map_err(|reason| invalid(reason.to_owned()))?;
            complete = complete.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        }
        file.set_len(complete)?;
        Ok(Self {
            file,
            broken: false,
        })
    }

    /// Appends one line in one write. After a failed write nothing more is accepted: books that
    /// forget are worse than none.
    pub(crate) fn write(&mut self, image: &Image<'_>) {
        let written = serde_json::to_vec(image)
            .map_err(io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                self.file.write_all(&line)
            });
        if let Err(failure) = written {
            self.broken = true;
            error!(error = %failure, "the sandbox cannot write its books file");
        }
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }
}
