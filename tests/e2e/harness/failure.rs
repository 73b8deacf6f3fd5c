//! What a refused call says, in the form that every error must have.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use quittance_proto::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// An error of the service. Made only from a status in the form that the contract demands.
pub struct Failure {
    pub code: Code,
    pub message: String,
    pub reason: String,
    pub metadata: HashMap<String, String>,
    /// Fields with what is wrong with each.
    pub violations: Vec<(String, String)>,
    pub retry_delay: Option<Duration>,
    pub status: Status,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let details = status
            .check_error_details()
            .unwrap_or_else(|error| panic!("unreadable details ({error}): {status:?}"));
        let info = details
            .error_info()
            .unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
        assert_eq!(info.domain, "quittance", "{status:?}");
        let reason = info.reason.clone();
        let known = ErrorReason::from_str_name(&format!("ERROR_REASON_{reason}"));
        assert!(
            known.is_some(),
            "{reason} is not an ErrorReason: {status:?}"
        );
        for key in ["retryable", "money_may_have_moved"] {
            let value = info.metadata.get(key).map(String::as_str);
            assert!(
                matches!(value, Some("true" | "false")),
                "{key} of {status:?}"
            );
        }
        let violations = details.bad_request().map(|bad| {
            let violations = bad.field_violations.iter();
            violations
                .map(|bad| (bad.field.clone(), bad.description.clone()))
                .collect()
        });
        let failure = Self {
            code: status.code(),
            message: status.message().to_owned(),
            reason,
            metadata: info.metadata.clone(),
            violations: violations.unwrap_or_default(),
            retry_delay: details.retry_info().and_then(|info| info.retry_delay),
            status,
        };
        failure.check_code();
        failure
    }
}

impl Failure {
    fn check_code(&self) {
        // What INVALID_FIELD means is which field; the others may be about the whole request.
        if self.reason == "INVALID_FIELD" || self.reason == "CARD_NUMBER_NOT_ALLOWED" {
            assert_eq!(self.code, Code::InvalidArgument, "{self:?}");
            assert!(!self.violations.is_empty(), "names no field: {self:?}");
        }
        if self.code == Code::ResourceExhausted && self.retryable() {
            assert!(
                self.retry_delay.is_some(),
                "says not when to retry: {self:?}"
            );
        }
    }

    /// Demands a code and a reason.
    #[track_caller]
    pub fn is(&self, code: Code, reason: &str) -> &Self {
        assert_eq!(
            (self.code, self.reason.as_str()),
            (code, reason),
            "{self:?}"
        );
        self
    }

    /// Demands that exactly these fields are named, in any order.
    #[track_caller]
    pub fn names(&self, fields: &[&str]) -> &Self {
        let mut named: Vec<_> = self
            .violations
            .iter()
            .map(|(field, _)| field.as_str())
            .collect();
        let mut fields = fields.to_vec();
        named.sort_unstable();
        fields.sort_unstable();
        assert_eq!(named, fields, "{self:?}");
        self
    }

    pub fn retryable(&self) -> bool {
        self.metadata["retryable"] == "true"
    }

    pub fn money_may_have_moved(&self) -> bool {
        self.metadata["money_may_have_moved"] == "true"
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            code,
            message,
            reason,
            metadata,
            violations,
            retry_delay,
            status: _,
        } = self;
        write!(
            f,
            "{code:?} {reason}: {message}; {metadata:?}; {violations:?}; {retry_delay:?}"
        )
    }
}
