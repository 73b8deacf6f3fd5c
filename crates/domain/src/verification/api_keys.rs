//! API keys against what the log says of them: who a caller is rests on their rows.

use quittance_evidence::Leaf;
use thiserror::Error;

use super::entry::CheckedEntry;
use super::mismatch::{Fault, Mismatch, Shown};
use crate::ids::EntryId;
use crate::journal::{API_KEY_CREATED, API_KEY_ID, API_KEY_REVOKED, API_KEY_ROLES};

/// What is wrong with the row of an API key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApiKeyFault {
    /// Its MAC is missing, wrong, or under a key that is not in the key ring.
    #[error(
        "the row of the API key {0} is not as the service wrote it: its MAC is missing or wrong"
    )]
    RowForged(Shown),
    /// The log says that it was made, and it has no row.
    #[error("the API key {0} was made, and has no row")]
    Missing(Shown),
    /// A column is not what the log says.
    #[error("{column} of the API key {key} should be {expected}, and is {found}")]
    Differs {
        /// Which key.
        key: Shown,
        /// Which column.
        column: &'static str,
        /// What the log says.
        expected: Shown,
        /// As stored.
        found: Shown,
    },
    /// The log says that it was revoked, and its row says that it is not.
    #[error("the API key {0} was revoked, and its row says that it is not")]
    NotRevoked(Shown),
}

impl ApiKeyFault {
    /// A stable name.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::RowForged(_) => "API_KEY_ROW_FORGED",
            Self::Missing(_) => "API_KEY_MISSING",
            Self::Differs { .. } => "API_KEY_DIFFERS",
            Self::NotRevoked(_) => "API_KEY_NOT_REVOKED",
        }
    }
}

/// What an entry says of an API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeySaid {
    /// The key's public part.
    pub key_id: String,
    /// Whether it was revoked; else it was made.
    pub revoked: bool,
    /// For which tenant, and what it may do, where it was made.
    made: Option<(String, String)>,
}

impl ApiKeySaid {
    /// `None` where the entry is about no key.
    pub(super) fn of(leaf: &Leaf) -> Option<Self> {
        let revoked = match &*leaf.event_type {
            API_KEY_CREATED => false,
            API_KEY_REVOKED => true,
            _ => return None,
        };
        let roles = leaf.details.get(API_KEY_ROLES).cloned();
        let made = roles.filter(|_| !revoked);
        Some(Self {
            key_id: leaf.details.get(API_KEY_ID)?.clone(),
            revoked,
            made: made.map(|roles| (leaf.tenant_id.clone(), roles)),
        })
    }
}

/// An API key's row, of the moment of the entry or later.
#[derive(Debug, Clone)]
pub struct ApiKeyRow {
    /// Its public part.
    pub key_id: String,
    /// For which tenant it calls.
    pub tenant_id: String,
    /// What it may do: names of roles, with a blank between two.
    pub roles: String,
    /// Whether it is revoked.
    pub revoked: bool,
    /// Whether it has a MAC at all: one made before keys had one was revoked, and has none.
    pub has_mac: bool,
    /// Whether its MAC is right.
    pub genuine: bool,
}

/// Holds a key's row to what an entry says of it. An entry that the service did not write says nothing.
pub fn compare_api_key(entry: &CheckedEntry, row: Option<&ApiKeyRow>, out: &mut Vec<Mismatch>) {
    let said = entry.leaf.as_ref().and_then(|leaf| leaf.api_key.as_ref());
    let Some(said) = said.filter(|_| entry.genuine) else {
        return;
    };
    let key = || Shown::of(&said.key_id);
    let mut report = |fault| {
        out.push(mismatch(
            fault,
            Some(entry.entry),
            entry.position.and_then(|it| u64::try_from(it).ok()),
        ));
    };
    let Some(row) = row else {
        return report(ApiKeyFault::Missing(key()));
    };
    if said.revoked && !row.revoked {
        report(ApiKeyFault::NotRevoked(key()));
    }
    let Some((tenant, roles)) = &said.made else {
        return;
    };
    for (column, expected, found) in [
        ("tenant_id", tenant, &row.tenant_id),
        ("roles", roles, &row.roles),
    ] {
        if expected != found {
            report(ApiKeyFault::Differs {
                key: key(),
                column,
                expected: Shown::of(expected),
                found: Shown::of(found),
            });
        }
    }
}

/// Looks at a key's row by itself.
pub fn check_api_key(row: &ApiKeyRow, out: &mut Vec<Mismatch>) {
    let works_not = row.revoked && !row.has_mac;
    if !row.genuine && !works_not {
        let fault = ApiKeyFault::RowForged(Shown::of(&row.key_id));
        out.push(mismatch(fault, None, None));
    }
}

fn mismatch(fault: ApiKeyFault, entry: Option<EntryId>, position: Option<u64>) -> Mismatch {
    Mismatch {
        fault: Fault::ApiKey(fault),
        entry,
        payment: None,
        position,
    }
}
