//! The cases that are open, as the database lists them for a person.

use std::collections::BTreeMap;

use quittance_domain::cases::OpenCases;
use quittance_domain::change::OperatorActionKind;
use quittance_domain::transaction::Transaction;

use crate::store::Tables;

/// What is open about each transaction.
pub struct Open(BTreeMap<uuid::Uuid, OpenCases>);

impl Open {
    /// What is open in a database.
    pub fn of(tables: &Tables) -> Self {
        let mut open = BTreeMap::<_, OpenCases>::new();
        for case in tables.cases.iter().filter(|case| case.closed.is_none()) {
            let about = open.entry(case.transaction.0).or_default();
            *about = about.with(case.kind);
        }
        Self(open)
    }

    /// What is open about a transaction.
    pub fn about(&self, row: &Transaction) -> OpenCases {
        self.0.get(&row.id.0).copied().unwrap_or_default()
    }

    /// Whether a person is asked about a transaction, for whatever reason.
    pub fn any(&self, row: &Transaction) -> bool {
        !self.about(row).is_empty()
    }

    /// Whether a case of this kind is open about a transaction.
    pub fn has(&self, row: &Transaction, kind: OperatorActionKind) -> bool {
        self.about(row).contains(kind)
    }
}
