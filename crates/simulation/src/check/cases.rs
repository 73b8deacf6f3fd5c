//! The cases that are open, as the database lists them for a person.

use std::collections::BTreeMap;

use quittance_domain::change::OperatorActionKind;
use quittance_domain::transaction::Transaction;

use crate::store::Tables;

/// What is open about each transaction.
pub struct Open(BTreeMap<uuid::Uuid, Vec<OperatorActionKind>>);

impl Open {
    /// What is open in a database.
    pub fn of(tables: &Tables) -> Self {
        let mut open: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for case in tables.cases.iter().filter(|case| case.closed.is_none()) {
            open.entry(case.transaction.0).or_default().push(case.kind);
        }
        Self(open)
    }

    /// Whether a person is asked about a transaction, for whatever reason.
    pub fn any(&self, row: &Transaction) -> bool {
        self.0.contains_key(&row.id.0)
    }

    /// Whether a case of this kind is open about a transaction.
    pub fn has(&self, row: &Transaction, kind: OperatorActionKind) -> bool {
        self.0
            .get(&row.id.0)
            .is_some_and(|open| open.contains(&kind))
    }
}
