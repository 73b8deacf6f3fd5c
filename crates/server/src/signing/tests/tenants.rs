//! Whose an entry is, its bytes say, and not the column that whoever owns the database can change (I11).

use quittance_domain::ids::{EntryId, PaymentId};
use quittance_domain::ports::{EntryFilter, Store as _, StoredEntry};
use quittance_evidence::bundle::{Bundle, BundleEntry};
use quittance_evidence::{LastEntry, leaf_hash};
use quittance_test_support::{Story, tenant};

use super::*;
use crate::convert::entry::{EntryError, decode};

/// A payment of acme's, whose entry is in a signed tree; and then somebody writes another tenant into every column.
async fn stolen() -> (Log, StoredCheckpoint, PaymentId, EntryId) {
    let log = Log::new().await;
    let (_, accepted) = Story::accept("acme", "key-1", 1_000);
    let (payment, entry) = (accepted.payment.id, accepted.entry.id);
    log.store.commit(accepted).await.unwrap();
    eventually("the tree has it", || async {
        log.store.tree_head().await.unwrap().is_some()
    })
    .await;
    let signed = log.signer().sign_once().await.unwrap();
    for table in ["journal", "journal_positions", "payments"] {
        let stolen = format!("update {table} set tenant_id = 'other'");
        log.execute(&stolen).await;
    }
    (log, signed, payment, entry)
}

fn assert_shown_to_its_tenant_alone(stored: &StoredEntry, entry: EntryId) {
    assert_eq!(stored.id, entry);
    let refused = decode(stored, Some(&tenant("other"))).unwrap_err();
    assert_eq!(refused, EntryError::Foreign(entry.0));
    assert!(decode(stored, Some(&tenant("acme"))).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_an_entry_is_not_shown_to_the_tenant_that_somebody_wrote_beside_it() {
    let (log, _, _, entry) = stolen().await;
    let (store, other) = (&log.store, tenant("other"));
    let filter = EntryFilter::default();
    let listed = store.list_entries(Some(&other), &filter, None, 9).await;
    let told = store.entries_from(Some(&other), 0, 9).await;
    let read = store.entry(Some(&other), entry).await.unwrap();
    for found in [listed.unwrap(), told.unwrap(), Vec::from_iter(read)] {
        let [stored] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_shown_to_its_tenant_alone(stored, entry);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_a_bundle_is_not_given_to_the_tenant_that_somebody_wrote_beside_its_entries() {
    let (log, signed, payment, _) = stolen().await;
    let (store, evidence, other) = (&log.store, log.evidence(), tenant("other"));
    assert_eq!(store.newest_entry(Some(&other), payment).await, Ok(Some(1)));
    let TreeHead { size, root } = signed.head;
    let merged = store.merged_entries(payment, 0, 1, size, 9).await.unwrap();
    let [merged] = merged.entries.as_slice() else {
        panic!("{merged:?}");
    };
    let leaf = (leaf_hash(&merged.leaf), merged.position);
    let (proofs, _) = store.inclusion_proofs(&[leaf], size).await.unwrap();
    let entries = proofs
        .into_iter()
        .map(|path| BundleEntry::new(merged.leaf.clone(), merged.position, path).unwrap());
    let last = LastEntry {
        payment_id: payment.0,
        entity_seq: 1,
        leaf_hash: leaf.0,
        origin: evidence.keys.origin().unwrap().clone(),
        tree_size: size,
        root,
    };
    let bundle = Bundle {
        payment_id: payment.0,
        checkpoint: Note::parse(signed.note.as_bytes()).unwrap(),
        last_entry: last.sign(&evidence.keys.receipts_at(Utc::now())).unwrap(),
        entries: entries.collect(),
        disclosures: Vec::new(),
    };
    let keys = evidence.keys.published(&[]);
    let refused = finish_bundle(&bundle, &keys, Some(&other), false);
    assert!(
        matches!(refused, Err(BundleError::OtherTenant)),
        "{refused:?}"
    );
    assert!(finish_bundle(&bundle, &keys, Some(&tenant("acme")), false).is_ok());
}
