//! A payment with its log, as the database would hold them, for verification.

use quittance_domain::change::JournalEntry;
use quittance_domain::payment::PaymentRecord;
use quittance_domain::verification::{
    LoggedRow, MacKeys, Mismatch, Placed, StoredCustomer, StoredPayment, StoredTransaction,
    StreamEnd, StreamWalk, check_entry, compare_payment,
};
use quittance_evidence::{LeafMac, MAC_KEY_BYTES, MacKey, MacKeyId};

/// One key of the log, the same in every world.
#[derive(Debug)]
pub struct Keys(MacKey);

impl Keys {
    /// The key; `None` where its name is none.
    pub fn new() -> Option<Self> {
        let id = MacKeyId::new("k1").ok()?;
        Some(Self(MacKey::new(id, [7; MAC_KEY_BYTES])))
    }
}

impl MacKeys for Keys {
    fn mac_key(&self, id: &str) -> Option<&MacKey> {
        (id == self.0.id().as_str()).then_some(&self.0)
    }
}

/// A payment and all that the database holds about it.
#[derive(Debug, Clone)]
pub struct Books {
    /// Its entries.
    pub rows: Vec<LoggedRow>,
    /// It and its transactions.
    pub stored: StoredPayment,
}

impl Books {
    /// The books of a payment.
    pub fn new<'a>(
        record: &PaymentRecord,
        entries: impl IntoIterator<Item = &'a JournalEntry>,
        keys: &Keys,
    ) -> Self {
        let entries = entries.into_iter();
        Self {
            rows: entries.zip(1..).map(|(it, at)| row(it, at, keys)).collect(),
            stored: stored(record),
        }
    }

    /// Verifies them, as a batch is. Gives what is found, and whether the entries were replayed to the end.
    pub fn verify(&self, keys: &Keys) -> (Vec<Mismatch>, bool) {
        let mut found = Vec::new();
        let mut walk = StreamWalk::default();
        let mut rows: Vec<&LoggedRow> = self.rows.iter().collect();
        rows.sort_by_key(|row| (row.stream_id, row.entity_seq));
        let mut ends = Vec::new();
        for row in rows {
            let entry = check_entry(row, i64::MAX, keys, &mut found);
            ends.extend(walk.push(entry, &mut found));
        }
        ends.extend(walk.finish());
        let (own, others): (Vec<_>, Vec<_>) = ends
            .into_iter()
            .partition(|end| end.stream == self.stored.id.0);
        compare_payment(own.first(), Some(&self.stored), &mut found);
        for end in &others {
            compare_payment(Some(end), None, &mut found);
        }
        (found, own.first().is_some_and(StreamEnd::replayed))
    }
}

fn row(entry: &JournalEntry, arrival: i64, keys: &Keys) -> LoggedRow {
    let mac = LeafMac::compute(&keys.0, &entry.leaf);
    let entity_seq = i64::try_from(entry.entity_seq).unwrap_or(i64::MAX);
    let tenant = entry.tenant.as_ref();
    let tenant_id = tenant.map(|tenant| tenant.as_str().to_owned());
    LoggedRow {
        stream_id: entry.stream,
        entity_seq,
        entry_id: entry.id.0,
        tenant_id: tenant_id.clone(),
        payment_id: entry.payment.map(|it| it.0),
        transaction_id: entry.transaction.map(|it| it.0),
        event_type: entry.event_type.clone(),
        result: entry.result.to_owned(),
        cause: entry.cause.clone(),
        actor: entry.actor.clone(),
        source: entry.source.clone(),
        provider_account: entry.provider_account.clone(),
        trace_id: entry.trace_id.map(|id| id.to_vec()),
        occurred_at: entry.occurred_at,
        leaf: entry.leaf.as_bytes().to_vec(),
        leaf_hash: entry.leaf_hash.to_vec(),
        mac: mac.tag().to_vec(),
        mac_key_id: mac.key_id().as_str().to_owned(),
        arrival,
        refused: false,
        placed: Some(Placed {
            position: arrival,
            entry_id: entry.id.0,
            stream_id: entry.stream,
            entity_seq,
            tenant_id,
        }),
    }
}

fn stored(record: &PaymentRecord) -> StoredPayment {
    let payment = record.payment.clone();
    let transactions = record.transactions.iter().map(|row| StoredTransaction {
        id: row.id,
        row: Ok(row.clone()),
    });
    let last_leaf_hash = payment.last_leaf_hash;
    StoredPayment {
        id: payment.id,
        version: i64::try_from(payment.version).unwrap_or(i64::MAX),
        last_leaf_hash: last_leaf_hash.unwrap_or_default().to_vec(),
        updated_at: payment.updated_at,
        currency_exponent: i16::from(payment.currency().exponent()),
        transactions: Some(transactions.collect()),
        customer: payment
            .customer_reference
            .as_ref()
            .map_or(StoredCustomer::None, |_| StoredCustomer::Held),
        payment: Ok(payment),
    }
}
