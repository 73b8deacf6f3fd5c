//! The entries of each stream, one after the other.

use std::collections::BTreeMap;

use quittance_evidence::Hash;
use uuid::Uuid;

use super::entry::{CheckedEntry, LeafFacts};
use super::mismatch::{Fault, Mismatch, Shown};
use crate::ids::{EntryId, PaymentId};
use crate::payment::MAX_TRANSACTIONS;

/// Follows streams: their entries come in the order of (stream, `entity_seq`), each stream whole.
#[derive(Debug, Default)]
pub struct StreamWalk {
    open: Option<StreamEnd>,
}

/// What the log says about a stream, as of its newest entry.
#[derive(Debug, Clone)]
pub struct StreamEnd {
    /// The stream.
    pub stream: Uuid,
    /// How many entries there were.
    pub entries: i64,
    /// Number of the newest.
    pub entity_seq: i64,
    /// Hash of the newest.
    pub leaf_hash: Hash,
    /// Id of the newest.
    pub entry: EntryId,
    /// Position of the newest.
    pub position: Option<i64>,
    /// Whether it is a payment's; `None` where no entry of it can be read.
    pub of_payment: Option<bool>,
    /// What the newest says, where it can be read.
    pub newest: Option<LeafFacts>,
    /// Decimals of the currency, as the oldest says.
    pub currency_exponent: Option<u8>,
    /// What is said last about each transaction.
    pub transactions: BTreeMap<Uuid, TransactionFacts>,
    tenant: Option<String>,
}

/// What the log says last about a transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionFacts {
    /// Its amount.
    pub amount: Option<i64>,
    /// Its state, where entries tell it.
    pub state: Option<String>,
}

impl StreamWalk {
    /// Takes the next entry. Gives the stream before, where this one begins another.
    pub fn push(&mut self, entry: CheckedEntry, out: &mut Vec<Mismatch>) -> Option<StreamEnd> {
        let ended = match &self.open {
            Some(open) if open.stream != entry.stream => self.open.take(),
            Some(_) | None => None,
        };
        let open = self.open.get_or_insert_with(|| StreamEnd::new(&entry));
        open.push(entry, out);
        ended
    }

    /// Gives the stream that is open: nothing comes behind it.
    pub fn finish(&mut self) -> Option<StreamEnd> {
        self.open.take()
    }

    /// The stream that is open.
    pub fn open(&self) -> Option<Uuid> {
        self.open.as_ref().map(|open| open.stream)
    }
}

impl StreamEnd {
    fn new(first: &CheckedEntry) -> Self {
        Self {
            stream: first.stream,
            entries: 0,
            entity_seq: 0,
            leaf_hash: first.leaf_hash,
            entry: first.entry,
            position: None,
            of_payment: None,
            newest: None,
            currency_exponent: None,
            transactions: BTreeMap::new(),
            tenant: None,
        }
    }

    fn push(&mut self, entry: CheckedEntry, out: &mut Vec<Mismatch>) {
        let mut report = |fault| {
            out.push(Mismatch {
                fault,
                entry: Some(entry.entry),
                payment: entry.payment,
                position: entry.position.and_then(|it| u64::try_from(it).ok()),
            });
        };
        let expected = self.entity_seq.saturating_add(1);
        let in_place = entry.entity_seq == expected;
        if !in_place {
            report(Fault::SequenceGap {
                expected,
                found: entry.entity_seq,
            });
        }
        if let Some(leaf) = &entry.leaf {
            let before = (self.entries > 0).then_some(self.leaf_hash);
            // Across a gap the entry before is not there to be compared.
            if in_place && leaf.prev_leaf_hash != before {
                report(Fault::ChainBroken {
                    expected: Shown::of_option(before.as_ref()),
                    found: Shown::of_option(leaf.prev_leaf_hash.as_ref()),
                });
            }
            let tenant = self.tenant.get_or_insert_with(|| leaf.tenant_id.clone());
            if *tenant != leaf.tenant_id {
                report(Fault::OtherTenant);
            }
        }
        if let (Some(after), Some(found)) = (self.position, entry.position)
            && found <= after
        {
            report(Fault::PositionsReordered { after, found });
        }
        self.take(entry);
    }

    fn take(&mut self, entry: CheckedEntry) {
        self.entries += 1;
        self.entity_seq = entry.entity_seq;
        self.leaf_hash = entry.leaf_hash;
        self.entry = entry.entry;
        self.position = entry.position.or(self.position);
        if let Some(leaf) = &entry.leaf {
            self.of_payment.get_or_insert(leaf.of_payment);
            if self.entries == 1 {
                self.currency_exponent = leaf.currency_exponent;
            }
            if leaf.of_payment {
                self.note_transactions(leaf);
            }
        }
        self.newest = entry.leaf;
    }

    fn note_transactions(&mut self, leaf: &LeafFacts) {
        let mut note = |id: Uuid, amount: Option<i64>, state: Option<&String>| {
            // A payment has no more; forged entries do not fill the memory.
            if self.transactions.len() >= MAX_TRANSACTIONS && !self.transactions.contains_key(&id) {
                return;
            }
            let facts = self.transactions.entry(id).or_default();
            facts.amount = amount.or(facts.amount);
            facts.state = state.cloned().or(facts.state.take());
        };
        if let Some(id) = leaf.transaction_id {
            note(id, leaf.amount_minor, None);
        }
        for (id, state) in &leaf.transaction_states {
            note(*id, None, Some(state));
        }
    }

    /// The payment that the stream is of, as far as can be told.
    pub fn payment(&self) -> Option<PaymentId> {
        (self.of_payment != Some(false)).then_some(PaymentId(self.stream))
    }
}
