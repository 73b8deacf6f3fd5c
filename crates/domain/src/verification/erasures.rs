//! Erasures that the log says were done, against what is stored: a destroyed key that came back opens everything again.

use super::entry::CheckedEntry;
use super::mismatch::{Fault, Mismatch, Shown};
use super::row_fault::RowFault;
use crate::erasure::ErasureSaid;
use crate::ids::{CustomerId, ErasureId};

/// What is stored of an erasure and its customer, of the moment of the entry or later. A customer who was erased never comes
/// back, and the row of the erasure stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredErasure {
    /// Customer and tenant of its row; `None` where there is none.
    pub row: Option<(CustomerId, String)>,
    /// Whether there is a customer of the id that the entry names.
    pub customer_is_there: bool,
}

/// An erasure of which it is not known whether it was done: an entry of its stream is under a key that is not at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnjudgedErasure {
    /// Which.
    pub erasure: ErasureId,
    /// The key's id, as stored.
    pub key: String,
}

impl UnjudgedErasure {
    /// What is reported wherever something is not held against its customer for that reason: whoever made the key up hides
    /// nothing behind it.
    pub(super) fn fault(&self) -> RowFault {
        RowFault::ErasureKeyUnknown {
            erasure: self.erasure,
            key: Shown::of(&self.key),
        }
    }

    /// The same, of the erasure itself.
    pub fn mismatch(&self) -> Mismatch {
        of_erasure(self.fault())
    }
}

/// What an entry says of an erasure that was done. One that the service did not write says nothing.
pub fn erasure_done(entry: &CheckedEntry) -> Option<&ErasureSaid> {
    let said = entry.leaf.as_ref()?.erased.as_ref()?;
    entry.genuine.then_some(said)
}

/// An erasure that is closed, and of which no entry says that it was done: the entry is written first, so somebody who did
/// not erase anything closed it.
pub fn erasure_without_entry(erasure: ErasureId) -> Mismatch {
    of_erasure(RowFault::ErasureWithoutEntry(erasure))
}

const fn of_erasure(fault: RowFault) -> Mismatch {
    Mismatch {
        fault: Fault::Row(fault),
        entry: None,
        payment: None,
        position: None,
    }
}

/// Holds what is stored to an entry that says that an erasure was done.
pub fn compare_erasure(entry: &CheckedEntry, stored: &StoredErasure, out: &mut Vec<Mismatch>) {
    let Some(said) = erasure_done(entry) else {
        return;
    };
    let mut report = |fault| {
        out.push(Mismatch {
            fault: Fault::Row(fault),
            entry: Some(entry.entry),
            payment: None,
            position: entry.position.and_then(|it| u64::try_from(it).ok()),
        });
    };
    if stored.customer_is_there {
        report(RowFault::ErasedCustomerStored(said.customer));
    }
    let Some((customer, tenant)) = &stored.row else {
        return report(RowFault::ErasureMissing(said.erasure));
    };
    let mut compare = |column, expected: Shown, found: Shown| {
        if expected != found {
            report(RowFault::ErasureDiffers {
                erasure: said.erasure,
                column,
                expected,
                found,
            });
        }
    };
    compare(
        "customer_id",
        Shown::of(&said.customer),
        Shown::of(customer),
    );
    compare("tenant_id", Shown::of(&said.tenant), Shown::of(tenant));
}
