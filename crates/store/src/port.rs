//! The store as the domain sees it: each method hands on to the module that knows.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use quittance_domain::change::{Change, IdempotencyRecord, JournalEntry};
use quittance_domain::erasure::{Erasure, ErasureStep, Erasures, NewErasure};
use quittance_domain::ids::{
    CustomerId, EntryId, ErasureId, EventId, IdempotencyKey, PaymentId, ProviderAccount, TenantId,
    TransactionId, WebhookId,
};
use quittance_domain::payment::PaymentRecord;
use quittance_domain::ports::{
    Backlog, CaseFilter, Claim, Commit, Due, EntryFilter, FailureReport, InDoubt, Named,
    PaymentFilter, PaymentPage, SentThrough, Store, StoreError, StoredCase, StoredEntry,
};
use quittance_domain::reconciliation::{Booked, BookedRange, Bookings, StreamHead};
use quittance_domain::text::Sensitive;
use quittance_domain::transaction::{Attempt, OperationKind};
use quittance_domain::webhook::{
    ClaimedWebhook, Inbox, InboxBacklog, InboxClaim, NewWebhook, Receipt, Replay, StoredBody,
    StoredWebhook, WebhookFilter, WebhookVerdict, Wiped,
};
use uuid::Uuid;

use crate::failures::MAX_SUMMARY_ENTRIES;
use crate::store::PgStore;

#[async_trait]
impl Store for PgStore {
    async fn commit(&self, change: Change) -> Result<Commit, StoreError> {
        self.commit_change(change).await
    }

    async fn append(&self, entry: JournalEntry) -> Result<Commit, StoreError> {
        self.append_entry(entry).await
    }

    async fn payment(
        &self,
        tenant: &TenantId,
        id: PaymentId,
    ) -> Result<Option<PaymentRecord>, StoreError> {
        self.read_payment(tenant, id).await
    }

    async fn idempotency_record(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.read_idempotency_record(tenant, key).await
    }

    async fn list_payments(
        &self,
        tenant: &TenantId,
        filter: &PaymentFilter,
        after: Option<PaymentId>,
        limit: usize,
    ) -> Result<PaymentPage, StoreError> {
        self.payment_page(tenant, filter, after, limit).await
    }

    async fn list_entries(
        &self,
        tenant: Option<&TenantId>,
        filter: &EntryFilter,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        self.read_entries(tenant, filter, after, limit).await
    }

    async fn entry(
        &self,
        tenant: Option<&TenantId>,
        id: EntryId,
    ) -> Result<Option<StoredEntry>, StoreError> {
        self.read_entry(tenant, id).await
    }

    async fn entries_from(
        &self,
        tenant: Option<&TenantId>,
        position: u64,
        limit: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        self.read_entries_from(tenant, position, limit).await
    }

    async fn next_position(&self) -> Result<u64, StoreError> {
        self.inner.positions.next_position().await
    }

    async fn wait_for_position(&self, position: u64, limit: Duration) {
        self.inner.positions.wait_for(position, limit).await;
    }

    async fn claim_due(&self, claim: &Claim) -> Result<Vec<Due>, StoreError> {
        self.claim(claim).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.count_backlog().await
    }

    async fn attempt(
        &self,
        payment: PaymentId,
        transaction: TransactionId,
        number: u32,
    ) -> Result<Option<Attempt>, StoreError> {
        self.read_attempt(payment, transaction, number).await
    }

    async fn attempts_in_doubt(
        &self,
        payment: PaymentId,
        transaction: TransactionId,
        operation: OperationKind,
    ) -> Result<InDoubt, StoreError> {
        self.count_attempts_in_doubt(payment, transaction, operation)
            .await
    }

    async fn sent_through(
        &self,
        payment: PaymentId,
        transaction: Option<TransactionId>,
        account: &ProviderAccount,
    ) -> Result<SentThrough, StoreError> {
        self.find_sender(payment, transaction, account).await
    }

    async fn payment_of_event(
        &self,
        account: &ProviderAccount,
        event: &EventId,
    ) -> Result<Named, StoreError> {
        self.find_payment_of_event(account, event).await
    }

    async fn method_token(
        &self,
        payment: PaymentId,
    ) -> Result<Option<Sensitive<String>>, StoreError> {
        self.read_method_token(payment).await
    }

    async fn list_cases(
        &self,
        tenant: Option<&TenantId>,
        filter: &CaseFilter,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<StoredCase>, StoreError> {
        self.read_cases(tenant, filter, after, limit).await
    }

    async fn summarize_failures(
        &self,
        tenant: Option<&TenantId>,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        limit: usize,
    ) -> Result<FailureReport, StoreError> {
        self.read_failures(tenant, (from, to), limit, MAX_SUMMARY_ENTRIES)
            .await
    }
}

#[async_trait]
impl Inbox for PgStore {
    async fn receive(&self, webhooks: Vec<NewWebhook>) -> Result<Vec<Receipt>, StoreError> {
        self.store_webhooks(webhooks).await
    }

    async fn claim_webhooks(&self, claim: &InboxClaim) -> Result<Vec<ClaimedWebhook>, StoreError> {
        self.claim_inbox(claim).await
    }

    async fn close_webhook(
        &self,
        claimed: &ClaimedWebhook,
        verdict: WebhookVerdict,
        about: &[PaymentId],
    ) -> Result<Option<f64>, StoreError> {
        self.close_claimed(claimed, verdict, about).await
    }

    async fn inbox_backlog(&self) -> Result<InboxBacklog, StoreError> {
        self.count_inbox().await
    }

    async fn list_webhooks(
        &self,
        filter: &WebhookFilter,
        before: Option<WebhookId>,
        limit: usize,
    ) -> Result<Vec<StoredWebhook>, StoreError> {
        self.read_webhooks(filter, before, limit).await
    }

    async fn webhook(
        &self,
        id: WebhookId,
    ) -> Result<Option<(StoredWebhook, StoredBody)>, StoreError> {
        self.read_webhook(id).await
    }

    async fn replay_webhook(&self, id: WebhookId) -> Result<Replay, StoreError> {
        self.take_up_again(id).await
    }

    async fn wipe_webhooks(
        &self,
        which: Wiped,
        kept_for: Duration,
        limit: usize,
    ) -> Result<usize, StoreError> {
        self.wipe_bodies(which, kept_for, limit).await
    }
}

#[async_trait]
impl Erasures for PgStore {
    async fn customer(
        &self,
        tenant: &TenantId,
        reference: &Sensitive<String>,
    ) -> Result<Option<CustomerId>, StoreError> {
        self.customer_to_erase(tenant, reference).await
    }

    async fn request_erasure(&self, new: NewErasure) -> Result<Option<Erasure>, StoreError> {
        self.store_erasure(new).await
    }

    async fn erasure(
        &self,
        tenant: &TenantId,
        id: ErasureId,
    ) -> Result<Option<Erasure>, StoreError> {
        self.read_erasure(tenant, id).await
    }

    async fn claim_erasure(&self, lease: Duration) -> Result<Option<Erasure>, StoreError> {
        self.claim_due_erasure(lease).await
    }

    async fn erase(
        &self,
        claimed: &Erasure,
        again_in: Duration,
    ) -> Result<ErasureStep, StoreError> {
        self.erase_customer(claimed, again_in).await
    }

    async fn close_erasure(
        &self,
        id: ErasureId,
        payments: u64,
        recorded_at: Option<DateTime<Utc>>,
    ) -> Result<(), StoreError> {
        self.finish_erasure(id, payments, recorded_at).await
    }
}

#[async_trait]
impl Bookings for PgStore {
    async fn booked(&self, range: &BookedRange, limit: usize) -> Result<Vec<Booked>, StoreError> {
        self.read_booked(range, limit).await
    }

    async fn booked_of(
        &self,
        account: &ProviderAccount,
        payments: &[PaymentId],
    ) -> Result<Vec<Booked>, StoreError> {
        self.read_booked_of(account, payments).await
    }

    async fn stream_head(&self, stream: Uuid) -> Result<Option<StreamHead>, StoreError> {
        self.read_stream_head(stream).await
    }
}
