//! Journal rows as somebody writes them who owns the database.

use std::fmt::Write as _;

use quittance_domain::change::JournalEntry;
use quittance_evidence::LeafMac;
use quittance_store::KeyRing;
use uuid::Uuid;

use crate::test_keys;

/// A row of the journal. Fields can be changed before it is written, which is what tampering is.
#[derive(Debug, Clone)]
pub struct JournalRow {
    /// Its number in the order of arrival; `None`: the next one.
    pub arrival: Option<i64>,
    /// The stream.
    pub stream_id: Uuid,
    /// Its number within the stream.
    pub entity_seq: u64,
    /// The entry.
    pub entry_id: Uuid,
    /// Whose.
    pub tenant_id: Option<String>,
    /// Its bytes.
    pub leaf: Vec<u8>,
    /// Their MAC.
    pub mac: Vec<u8>,
    /// Under which key.
    pub mac_key_id: String,
}

impl JournalRow {
    /// The row as the service writes it, under the active key of [`test_keys`].
    pub fn of(entry: &JournalEntry) -> Self {
        Self::under(&test_keys(), entry)
    }

    /// The row as a service with these keys writes it.
    pub fn under(keys: &KeyRing, entry: &JournalEntry) -> Self {
        let mac = LeafMac::compute(keys.journal_key(), &entry.leaf);
        Self {
            arrival: None,
            stream_id: entry.stream,
            entity_seq: entry.entity_seq,
            entry_id: entry.id.0,
            tenant_id: entry
                .tenant
                .as_ref()
                .map(|tenant| tenant.as_str().to_owned()),
            leaf: entry.leaf.as_bytes().to_vec(),
            mac: mac.tag().to_vec(),
            mac_key_id: mac.key_id().as_str().to_owned(),
        }
    }

    /// The statement that writes it.
    pub fn insert(&self) -> String {
        let hex = |bytes: &[u8]| {
            let digits = bytes.iter().fold(String::new(), |mut digits, byte| {
                let _ = write!(digits, "{byte:02x}");
                digits
            });
            format!("'\\x{digits}'::bytea")
        };
        let text = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let tenant = self.tenant_id.as_deref().map_or("null".to_owned(), text);
        let arrival = self
            .arrival
            .map_or("default".to_owned(), |arrival| arrival.to_string());
        format!(
            "insert into journal (stream_id, entity_seq, entry_id, tenant_id, event_type, result, actor, source, \
             occurred_at, leaf, leaf_hash, mac, mac_key_id, arrival) values \
             ('{}', {}, '{}', {tenant}, 'audit.read', 'success', 'key-1', 'test', now(), {leaf}, \
             sha256('\\x00'::bytea || {leaf}), {}, {}, {arrival})",
            self.stream_id,
            self.entity_seq,
            self.entry_id,
            hex(&self.mac),
            text(&self.mac_key_id),
            leaf = hex(&self.leaf),
        )
    }
}
