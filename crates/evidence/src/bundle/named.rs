//! What the name of a key says of it: which log it is of, and whether it is that log's own.

use crate::note::{KeyName, KeyType, VerifierKey};

/// What ends the name of a log's key of receipts. No log has such a name.
pub const RECEIPTS_SUFFIX: &str = "/receipts";

/// Whether a log can have that name, as far as the reader's keys tell: a key that is named below another speaks for that
/// log, and is none itself. Else whoever has a key of receipts could keep a log of its own.
pub(super) fn can_be_a_log(origin: &KeyName, keys: &[VerifierKey]) -> bool {
    let mut others = keys.iter().filter(|key| *key.name() != *origin);
    !origin.as_str().ends_with(RECEIPTS_SUFFIX) && !others.any(|log| speaks_for(log, origin))
}

fn speaks_for(log: &VerifierKey, name: &KeyName) -> bool {
    log.key_type() == KeyType::Ed25519 && is_of(log.name(), name)
}

/// Whether a key signs statements of the log: one of its own, or one named below it, as that of its receipts is.
pub(super) fn states_for(origin: &KeyName, key: &VerifierKey) -> bool {
    key.key_type() == KeyType::Ed25519 && is_of(origin, key.name())
}

/// Whether it is the log's name, or one below it.
fn is_of(log: &KeyName, name: &KeyName) -> bool {
    let rest = name.as_str().strip_prefix(log.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
