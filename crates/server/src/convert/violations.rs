//! What is wrong with a request: every bad field, by the path that callers know it by.

use quittance_domain::money::MoneyError;
use quittance_domain::text::TextError;
use quittance_proto::v1::ErrorReason;

/// Most violations that one answer names. The answer travels in HTTP/2 trailers, of which common clients accept 8 KiB;
/// how many more there are is in the error's metadata.
pub const MAX_VIOLATIONS: usize = 32;

/// One bad field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its path, such as `amount.minor_units` or `metadata["order"]`.
    pub field: String,
    /// Why it is refused.
    pub reason: ErrorReason,
    /// The same, for people. Never quotes the value.
    pub description: String,
}

/// Every bad field of one request, in the order in which they were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations {
    listed: Vec<Violation>,
    omitted: usize,
}

impl Violations {
    /// Adds a bad field.
    pub fn add(&mut self, field: &str, reason: ErrorReason, description: impl Into<String>) {
        if self.listed.len() == MAX_VIOLATIONS {
            self.omitted += 1;
            return;
        }
        self.listed.push(Violation {
            field: field.to_owned(),
            reason,
            description: description.into(),
        });
    }

    /// Adds a field that is missing, malformed or out of range.
    pub fn invalid(&mut self, field: &str, description: impl Into<String>) {
        self.add(field, ErrorReason::InvalidField, description);
    }

    /// Adds a field that holds what looks like a card number.
    pub fn card_number(&mut self, field: &str) {
        let reason = ErrorReason::CardNumberNotAllowed;
        self.add(field, reason, "must not hold a card number");
    }

    pub(super) fn text(&mut self, field: &str, error: TextError) {
        self.invalid(field, error.to_string());
    }

    /// Adds a bad `Money`: which of its fields is bad follows from the error.
    pub(super) fn money(&mut self, field: &str, error: &MoneyError) {
        let (part, reason) = match error {
            MoneyError::UnknownCurrency => ("currency_code", ErrorReason::UnknownCurrency),
            MoneyError::OutOfRange => ("minor_units", ErrorReason::AmountOutOfRange),
        };
        self.add(&format!("{field}.{part}"), reason, error.to_string());
    }

    /// The value, if nothing is wrong and all of its parts are there; else what is wrong.
    ///
    /// # Errors
    /// All violations found.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.listed.is_empty() => Ok(value),
            Some(_) => Err(self),
            None => {
                if self.listed.is_empty() {
                    self.invalid("request", "is not complete");
                }
                Err(self)
            }
        }
    }

    /// The bad fields, at most [`MAX_VIOLATIONS`].
    pub fn listed(&self) -> &[Violation] {
        &self.listed
    }

    /// How many bad fields are not listed.
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// The reason of the whole: a card number outweighs everything, since its sender has to act on it; reasons that differ
    /// otherwise are an invalid request.
    pub fn reason(&self) -> ErrorReason {
        let mut reasons = self.listed.iter().map(|violation| violation.reason);
        let Some(first) = reasons.next() else {
            return ErrorReason::InvalidField;
        };
        reasons.fold(first, |all, next| match (all, next) {
            (ErrorReason::CardNumberNotAllowed, _) | (_, ErrorReason::CardNumberNotAllowed) => {
                ErrorReason::CardNumberNotAllowed
            }
            (all, next) if all == next => all,
            (_, _) => ErrorReason::InvalidField,
        })
    }
}
