//! A call that failed, told to a person: the reason, the bad fields, and what to do.

use std::error::Error;
use std::fmt;

use quittance_proto::v1::ErrorReason;
use tonic::{Code, Status, transport};
use tonic_types::StatusExt as _;

use super::show::plain;
use crate::grpc::status::reason_name;

/// What to do about each error.
const ERRORS: &str = include_str!("../../../../../docs/errors.md");
/// Before the advice of an error.
const WHAT_TO_DO: &str = "**What to do.** ";
/// The process's exit code when the server refused.
const REFUSED: u8 = 3;
/// The process's exit code when it can be tried again later.
const TRY_AGAIN: u8 = 4;
const TRACE_ID: &str = "quittance-trace-id";

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFailed {
    reason: Option<ErrorReason>,
    text: String,
    try_again: bool,
}

impl CallFailed {
    /// No connection to the server.
    pub(super) fn unreachable(address: &str, error: &transport::Error) -> Self {
        let mut causes = String::new();
        let mut cause = error.source();
        while let Some(error) = cause {
            let said = error.to_string();
            if !causes.contains(&said) {
                causes.push_str(": ");
                causes.push_str(&said);
            }
            cause = error.source();
        }
        let mut text = format!("cannot connect to {address}{causes}");
        if causes.contains("UnknownIssuer") {
            text.push_str(
                "\n  What to do: name the authority of the server's certificate by --ca-file.",
            );
        }
        Self {
            reason: None,
            text,
            try_again: true,
        }
    }

    /// Whether it failed for this reason.
    pub(in crate::commands) fn is(&self, reason: ErrorReason) -> bool {
        self.reason == Some(reason)
    }

    /// Whether it may help to try again.
    pub(in crate::commands) fn may_be_tried_again(&self) -> bool {
        self.try_again
    }

    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        if self.try_again { TRY_AGAIN } else { REFUSED }
    }
}

impl fmt::Display for CallFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for CallFailed {}

impl From<Status> for CallFailed {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let Some(info) = details.error_info() else {
            // Not from our service, or from nobody: a connection that was lost, a proxy.
            let text = format!("{:?}: {}", status.code(), plain(status.message()));
            let try_again = matches!(
                status.code(),
                Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled
            );
            return Self {
                reason: None,
                text,
                try_again,
            };
        };
        let reason = ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason));
        let told = format!("{}: {}", plain(&info.reason), plain(status.message()));
        let mut lines = vec![told];
        let violations = details.bad_request().into_iter();
        for bad in violations.flat_map(|request| &request.field_violations) {
            let (field, why) = (plain(&bad.field), plain(&bad.description));
            lines.push(format!("{field} {why}"));
        }
        if let Some(advice) = reason.and_then(what_to_do) {
            lines.push(format!("What to do: {advice}"));
        }
        let trace = status.metadata().get(TRACE_ID);
        if let Some(trace) = trace.and_then(|trace| trace.to_str().ok()) {
            lines.push(format!("Trace: {}", plain(trace)));
        }
        Self {
            reason,
            text: lines.join("\n  "),
            try_again: info
                .metadata
                .get("retryable")
                .is_some_and(|flag| flag == "true"),
        }
    }
}

/// The advice of `docs/errors.md`, in one line.
fn what_to_do(reason: ErrorReason) -> Option<String> {
    let title = format!("\n## {}\n", reason_name(reason));
    let (_, section) = ERRORS.split_once(&title)?;
    let (_, advice) = section.split_once(WHAT_TO_DO)?;
    let paragraph = advice.split("\n\n").next()?;
    Some(paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::status::Failure;

    #[test]
    fn every_error_comes_with_what_to_do() {
        for reason in (1..200).filter_map(|number| ErrorReason::try_from(number).ok()) {
            let advice = what_to_do(reason).unwrap_or_default();
            assert!(advice.len() > 5, "{reason:?}: {advice:?}");
            assert!(!advice.contains("## "), "{reason:?}: {advice}");
        }
        assert_eq!(what_to_do(ErrorReason::Unspecified), None);
    }

    #[test]
    fn a_refusal_names_reason_and_advice_and_whether_to_try_again() {
        let ended = Failure::new(ErrorReason::TransactionEnded, "its outcome is known");
        let failed = CallFailed::from(Status::from(ended));
        let text = failed.to_string();
        assert!(
            text.starts_with(
                "TRANSACTION_ENDED: its outcome is known\n  What to do: Read the payment."
            ),
            "{text}"
        );
        assert_eq!(failed.exit_code(), REFUSED);
        let sending = Failure::new(ErrorReason::TransactionBeingSent, "wait");
        assert_eq!(
            CallFailed::from(Status::from(sending)).exit_code(),
            TRY_AGAIN
        );
        assert_eq!(
            CallFailed::from(Status::unavailable("gone")).exit_code(),
            TRY_AGAIN
        );
        let escaping = CallFailed::from(Status::unknown("\u{1b}[2Jgone"));
        assert_eq!(escaping.to_string(), "Unknown: \u{fffd}[2Jgone");
        assert_eq!(escaping.exit_code(), REFUSED);
    }
}
