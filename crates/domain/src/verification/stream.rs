//! The entries of each stream, one after the other.

use std::collections::BTreeMap;

use quittance_evidence::Hash;
use uuid::Uuid;

use super::entry::{CheckedEntry, LeafFacts};
use super::mismatch::{Fault, Mismatch, Shown};
use super::replay::Replay;
use crate::ids::{EntryId, PaymentId};
use crate::journal::rows_before;
use crate::payment::MAX_RECORDED_TRANSACTIONS;
use crate::transaction::TransactionKind;

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
    /// Whether the payment was accepted for a customer, as the oldest says.
    pub of_customer: bool,
    /// What is said last about each transaction.
    pub transactions: BTreeMap<Uuid, TransactionFacts>,
    /// What follows from the entries; `None` where they cannot be followed from the first to the newest.
    pub(super) replay: Option<Replay>,
    tenant: Option<String>,
}

/// What the log says last about a transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionFacts {
    /// Its amount, where it is known: that of a void follows what is left.
    pub amount: Option<i64>,
    /// Its state, where entries tell it.
    pub state: Option<String>,
    /// Its kind, where the entry that made it tells it.
    pub kind: Option<TransactionKind>,
    /// Digest of its row, where entries tell it.
    pub row: Option<Hash>,
    /// Account, reference at the provider and decline, as the newest entry that is about it says.
    pub said: Option<TransactionSaid>,
}

/// What an entry says of its own transaction, beside amount and state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionSaid {
    /// The account that serves it.
    pub provider_account: Option<String>,
    /// The provider's reference of it.
    pub provider_reference: Option<String>,
    /// Why it was declined.
    pub decline_code: Option<String>,
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
            of_customer: false,
            transactions: BTreeMap::new(),
            replay: Some(Replay::new()),
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
        if entry.leaf.as_ref().is_some_and(|leaf| leaf.of_payment) {
            self.replay(&entry, in_place, &mut report);
        }
        self.take(entry);
    }

    /// Holds an entry to what the entries before it have left.
    fn replay(&mut self, entry: &CheckedEntry, in_place: bool, report: &mut dyn FnMut(Fault)) {
        let leaf = entry.leaf.as_ref().filter(|_| in_place && entry.genuine);
        let Some(leaf) = leaf else {
            self.replay = None;
            return;
        };
        if let (Some(expected), Some(found)) = (self.rows_before(leaf), leaf.rows_before)
            && expected != found
        {
            report(Fault::RowsChangedBefore { expected, found });
        }
        let first = self.entries == 0;
        let replay = self.replay.as_mut();
        if !replay.is_some_and(|replay| replay.follow(leaf, first, report)) {
            self.replay = None;
        }
    }

    /// Digest of the rows that the entry's change replaces, as the entries before it have left them; `None` where they
    /// do not tell.
    fn rows_before(&self, leaf: &LeafFacts) -> Option<Hash> {
        let payment = self.newest.as_ref()?.row_digest?;
        let known = leaf.transaction_rows.iter();
        let known = known.filter_map(|(id, _)| Some((*id, self.transactions.get(id)?.row)));
        let rows: Option<BTreeMap<_, _>> = known
            .map(|(id, row)| Some((id, *row?.as_bytes())))
            .collect();
        let digest = rows_before(*payment.as_bytes(), rows?);
        Some(Hash::from_bytes(digest))
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
                self.of_customer = leaf.of_customer;
            }
            if leaf.of_payment {
                self.note_transactions(leaf);
            }
        }
        self.newest = entry.leaf;
    }

    fn note_transactions(&mut self, leaf: &LeafFacts) {
        if let Some(facts) = leaf.transaction_id.and_then(|id| self.facts(id)) {
            facts.amount = leaf.amount_minor.or(facts.amount);
            facts.kind = facts.kind.or(leaf.makes.map(|(kind, ..)| kind));
            facts.said = Some(TransactionSaid {
                provider_account: leaf.provider_account.clone(),
                provider_reference: leaf.provider_reference.clone(),
                decline_code: leaf.decline_code.clone(),
            });
        }
        for (id, state) in &leaf.transaction_states {
            let replayed = self.replay.as_ref().and_then(|replay| replay.amount(*id));
            let Some(facts) = self.facts(*id) else {
                continue;
            };
            facts.state = Some(state.clone());
            facts.row = leaf.transaction_row(*id);
            if leaf.transaction_id != Some(*id) {
                // The entry does not tell it.
                facts.amount = replayed;
            }
        }
    }

    fn facts(&mut self, id: Uuid) -> Option<&mut TransactionFacts> {
        // A payment has no more; forged entries do not fill the memory.
        let full = self.transactions.len() >= MAX_RECORDED_TRANSACTIONS;
        if full && !self.transactions.contains_key(&id) {
            return None;
        }
        Some(self.transactions.entry(id).or_default())
    }

    /// Whether every entry followed from those before it, from the first to the newest: an entry that was made before
    /// entries told enough, or one that is missing or forged, ends the replay.
    pub fn replayed(&self) -> bool {
        self.replay.is_some()
    }

    /// The payment that the stream is of, as far as can be told.
    pub fn payment(&self) -> Option<PaymentId> {
        (self.of_payment != Some(false)).then_some(PaymentId(self.stream))
    }
}
