//! What the spans of workers are linked to.

use quittance_domain::ids::{PaymentId, TransactionId};
use quittance_domain::ports::{EntryFilter, Store};
use quittance_evidence::Leaf;
use quittance_telemetry::TraceIds;

/// The span that accepted a transaction: that of its first journal entry.
pub(super) async fn accepted_in(
    store: &dyn Store,
    payment: PaymentId,
    transaction: TransactionId,
) -> Option<TraceIds> {
    let filter = EntryFilter {
        payment: Some(payment),
        transaction: Some(transaction),
        ..EntryFilter::default()
    };
    let entries = store.list_entries(None, &filter, None, 1);
    let first = entries.await.ok()?.into_iter().next()?;
    let leaf = Leaf::decode(&first.leaf).ok()?;
    Some(TraceIds {
        trace_id: leaf.trace_id,
        span_id: leaf.span_id,
        flags: leaf.trace_flags,
    })
}
