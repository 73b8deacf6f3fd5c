//! What an error of the database means for what was asked of it.

use diesel::result::{DatabaseErrorKind, Error};
use quittance_domain::ports::StoreError;

use crate::warning::Thinned;

static READ_FAILED: Thinned = Thinned::new();

/// What a failed statement means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A constraint or a value was refused: nothing was written, and trying again changes nothing.
    Refused(String),
    /// Nothing was written; trying again may help.
    Transient,
    /// The server reported an error that is none of these, or the connection is gone: ask the
    /// connection whether it is alive. If it is, nothing was written; if not, that is not known.
    Doubtful,
    /// The connection is gone: it is not known whether anything was written.
    Lost,
}

/// Reads an error. Takes constraint names from it, never messages or values.
pub(crate) fn classify(error: &Error) -> Failure {
    use DatabaseErrorKind as Kind;
    match error {
        Error::DatabaseError(kind, information) => match kind {
            Kind::UniqueViolation
            | Kind::ForeignKeyViolation
            | Kind::NotNullViolation
            | Kind::CheckViolation
            | Kind::RestrictViolation
            | Kind::ExclusionViolation => {
                let name = information.constraint_name().or(information.column_name());
                Failure::Refused(name.unwrap_or("unnamed constraint").to_owned())
            }
            // A standby that takes no writes (yet): after a failover it will.
            Kind::SerializationFailure | Kind::ReadOnlyTransaction => Failure::Transient,
            Kind::UnableToSendCommand | Kind::ClosedConnection => Failure::Lost,
            // Deadlocks, timeouts, full disks and shutdowns among them: the driver keeps no code.
            _ => Failure::Doubtful,
        },
        // The driver could not make the request, or read the answer: a defect.
        _ => Failure::Refused("statement".to_owned()),
    }
}

/// What a failed read tells the caller.
pub(crate) fn read_error(error: &Error) -> StoreError {
    match classify(error) {
        Failure::Refused(what) => StoreError::Refused(what),
        Failure::Transient | Failure::Doubtful | Failure::Lost => {
            if let Some(count) = READ_FAILED.due() {
                tracing::warn!(kind = kind(error), count, "a read of the database failed");
            }
            StoreError::Unavailable
        }
    }
}

/// The kind of an error, for the log: it holds no values.
pub(crate) fn kind(error: &Error) -> String {
    match error {
        Error::DatabaseError(kind, information) => {
            let at = information.constraint_name().or(information.table_name());
            format!(
                "{kind:?}{}",
                at.map(|at| format!(" ({at})")).unwrap_or_default()
            )
        }
        Error::NotFound => "not found".to_owned(),
        _ => "driver".to_owned(),
    }
}
