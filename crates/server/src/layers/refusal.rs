//! Why a call is refused before it reaches its RPC.

use std::time::Duration;

use crate::auth::{AuthFailure, Role};

/// Why PERMISSION_DENIED is answered, whether at the edge or by the RPC.
pub(super) const ROLE_REQUIRED: &str = "ROLE_REQUIRED";

/// Why a call did not reach its RPC, or did not end in time. `grpc::status` gives each its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No credentials.
    MissingCredentials,
    /// Credentials that are not valid.
    InvalidCredentials,
    /// The caller lacks this role.
    RoleRequired(Role),
    /// There is no such RPC.
    UnknownMethod,
    /// As many calls as may be are being worked on; nothing was sent by this one.
    Overloaded,
    /// The tenant calls more often than it may; nothing was sent.
    RateLimited {
        /// How long it has to wait.
        retry_after: Duration,
    },
    /// The database cannot be asked who calls; nothing was sent.
    DatabaseUnavailable,
    /// The caller's deadline, or the server's own limit, passed before there was an answer.
    DeadlineExceeded,
    /// The server stops, and the call did not end within the time that it leaves.
    Interrupted,
    /// The RPC panicked: a defect. The panic is in the log.
    Defect,
}

impl Refusal {
    /// The name of the reason under which the audit log counts the refusal; `None` where it is no matter of
    /// access.
    pub const fn audited(self) -> Option<&'static str> {
        match self {
            Self::MissingCredentials => Some("MISSING_CREDENTIALS"),
            Self::InvalidCredentials => Some("INVALID_CREDENTIALS"),
            Self::RoleRequired(_) => Some(ROLE_REQUIRED),
            Self::UnknownMethod
            | Self::Overloaded
            | Self::RateLimited { .. }
            | Self::DatabaseUnavailable
            | Self::DeadlineExceeded
            | Self::Interrupted
            | Self::Defect => None,
        }
    }
}

impl From<AuthFailure> for Refusal {
    fn from(failure: AuthFailure) -> Self {
        match failure {
            AuthFailure::Missing => Self::MissingCredentials,
            AuthFailure::Invalid => Self::InvalidCredentials,
            AuthFailure::Overloaded => Self::Overloaded,
            AuthFailure::Unavailable => Self::DatabaseUnavailable,
        }
    }
}
