//! Builders: the valid changes of one payment, one after the other.

use std::collections::BTreeMap;

use chrono::{DateTime, SubsecRound as _, Utc};
use quittance_domain::amounts::Amounts;
use quittance_domain::cases::OpenCases;
use quittance_domain::change::{
    Change, CommandKind, CustomerData, IdempotencyRecord, JournalEntry, PersonalField, Write,
};
use quittance_domain::contradictions::Contradictions;
use quittance_domain::decline::Cause;
use quittance_domain::erasure::{
    CUSTOMER_DETAIL, ERASED, ERASURE_REQUESTED, ERASURE_STREAM, NewErasure,
};
use quittance_domain::failures::tell_attempt;
use quittance_domain::fingerprint::{Fingerprint, FingerprintKey, idempotency_key_digest};
use quittance_domain::ids::{
    AttemptId, EntryId, IdempotencyKey, PaymentId, ProviderAccount, ProviderReference, TenantId,
    TransactionId,
};
use quittance_domain::left_alone::LeftAlone;
use quittance_domain::money::{Currency, Money};
use quittance_domain::payment::{
    CaptureMethod, Initiator, Payment, PaymentMethod, PaymentMethodType, PaymentState,
};
use quittance_domain::reconciliation::StreamHead;
use quittance_domain::text::{Sensitive, Text};
use quittance_domain::transaction::{
    Attempt, AttemptEnd, AttemptOutcome, OperationKind, PreparedRequest, Transaction,
    TransactionKind, TransactionOrigin, TransactionState,
};
use quittance_evidence::{Actor, EntryResult, Hash, Leaf, SCHEMA_VERSION, Source, StreamId};
use uuid::Uuid;

use crate::test_keys;

/// What every salt of a story is made of.
pub const SALT_BYTE: u8 = 9;

/// A tenant by name.
pub fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

fn account() -> ProviderAccount {
    ProviderAccount::parse("sandbox").unwrap()
}

/// A payment and what happens to it. Each method gives the next change, decided upon the last.
#[derive(Clone, Debug)]
pub struct Story {
    /// The payment after the last change.
    pub payment: Payment,
    /// The transaction that the last change was about.
    pub transaction: Transaction,
    /// Its running attempt.
    pub attempt: Attempt,
    /// The trace that every entry names.
    pub trace_id: [u8; 16],
}

impl Story {
    /// A new payment to be authorized, accepted: version 1.
    pub fn accept(tenant_name: &str, key: &str, minor_units: i64) -> (Self, Change) {
        let now = now();
        let payment = new_payment(tenant_name, minor_units, now);
        let transaction = new_transaction(TransactionKind::Authorization, minor_units, now);
        let attempt = new_attempt(&transaction, OperationKind::Authorize, now);
        let mut story = Self {
            payment,
            transaction,
            attempt,
            trace_id: *Uuid::now_v7().as_bytes(),
        };
        let mut change = story.accepted("payment.accepted", None, key);
        change.idempotency = Some(story.record(CommandKind::Create, key));
        change.transactions = vec![Write::Insert(story.transaction.clone())];
        change.attempt = Some(Write::Insert(story.attempt.clone()));
        (story, change)
    }

    /// The same for a customer, with an e-mail address.
    pub fn accept_of_customer(
        tenant_name: &str,
        key: &str,
        reference: &str,
        email: &str,
    ) -> (Self, Change) {
        let (mut story, mut change) = Self::accept(tenant_name, key, 1_000);
        let reference = Sensitive::new(reference.to_owned());
        story.payment.customer_reference = Some(reference.clone());
        change.payment.customer_reference = Some(reference.clone());
        change.customer = Some(CustomerData {
            reference,
            fields: vec![PersonalField {
                name: "customer.email",
                salt: [SALT_BYTE; 16],
                value: Sensitive::new(email.to_owned()),
            }],
        });
        (story, change)
    }

    /// The provider authorized it.
    pub fn authorized(&mut self) -> Change {
        self.payment.state = PaymentState::Authorized;
        self.payment.amounts.authorized = self.payment.amount.minor_units();
        self.payment.provider_reference = Some(ProviderReference::parse("ref_1").unwrap());
        self.ended(
            TransactionState::Succeeded,
            AttemptOutcome::Approved,
            None,
            "payment.authorized",
        )
    }

    /// The answer was lost: it stays pending.
    pub fn answer_lost(&mut self) -> Change {
        self.transaction.ever_unknown = true;
        self.ended(
            TransactionState::Pending,
            AttemptOutcome::Unknown,
            Some(Cause::ResponseTimeout),
            "payment.attempt_ended",
        )
    }

    /// A capture was asked for: reserved.
    pub fn capture(&mut self, key: &str, minor_units: i64) -> Change {
        self.payment.amounts.capture_pending += minor_units;
        self.command(
            TransactionKind::Capture,
            CommandKind::Capture,
            OperationKind::Capture,
            key,
            minor_units,
        )
    }

    /// The capture succeeded.
    pub fn captured(&mut self) -> Change {
        let amount = self.transaction.amount;
        self.payment.amounts.capture_pending -= amount;
        self.payment.amounts.captured += amount;
        let Amounts {
            authorized,
            captured,
            ..
        } = self.payment.amounts;
        self.payment.state = if captured < authorized {
            PaymentState::PartiallyCaptured
        } else {
            PaymentState::Captured
        };
        self.ended(
            TransactionState::Succeeded,
            AttemptOutcome::Approved,
            None,
            "payment.captured",
        )
    }

    fn command(
        &mut self,
        kind: TransactionKind,
        command: CommandKind,
        operation: OperationKind,
        key: &str,
        minor_units: i64,
    ) -> Change {
        let now = now();
        self.transaction = new_transaction(kind, minor_units, now);
        self.attempt = new_attempt(&self.transaction, operation, now);
        let event = format!("payment.{operation}_accepted");
        self.payment.version += 1;
        self.payment.updated_at = now;
        let previous = self.payment.last_leaf_hash;
        let mut change = self.accepted(&event, previous, key);
        change.idempotency = Some(self.record(command, key));
        change.transactions = vec![Write::Insert(self.transaction.clone())];
        change.attempt = Some(Write::Insert(self.attempt.clone()));
        change
    }

    fn ended(
        &mut self,
        state: TransactionState,
        outcome: AttemptOutcome,
        cause: Option<Cause>,
        event: &str,
    ) -> Change {
        let now = now();
        self.transaction.state = state;
        self.transaction.updated_at = now;
        if state.ended() {
            self.transaction.request = None;
            self.transaction.lease_until = None;
            self.transaction.next_step_at = None;
        }
        let response = cause
            .is_none()
            .then(|| Sensitive::new(b"{\"status\":\"ok\"}".to_vec()));
        self.attempt.ended = Some(AttemptEnd {
            ended_at: now,
            latency_micros: 12_345,
            outcome,
            cause,
            http_status: cause.is_none().then_some(200),
            response_digest: response.as_ref().map(|_| [4; 32]),
            response,
        });
        let result = if cause.is_some() {
            EntryResult::Unknown
        } else {
            EntryResult::Success
        };
        self.payment.version += 1;
        self.payment.updated_at = now;
        let previous = self.payment.last_leaf_hash;
        let mut details = BTreeMap::new();
        tell_attempt(&mut details, &self.attempt);
        let mut change = self.change_with(event, previous, result, details);
        change.transactions = vec![Write::Update(self.transaction.clone())];
        change.attempt = Some(Write::Update(self.attempt.clone()));
        change
    }

    /// The next version, chained to the last.
    pub fn next(&mut self, event: &str, result: EntryResult) -> Change {
        self.payment.version += 1;
        self.payment.updated_at = now();
        let previous = self.payment.last_leaf_hash;
        self.change(event, previous, result)
    }

    fn record(&self, command: CommandKind, key: &str) -> IdempotencyRecord {
        IdempotencyRecord {
            tenant: self.payment.tenant.clone(),
            key: IdempotencyKey::parse(key).unwrap(),
            command,
            fingerprint: Fingerprint::from_bytes(vec![1; 17]),
            payment: self.payment.id,
            transaction: self.transaction.id,
            created_at: self.payment.updated_at,
        }
    }

    /// The acceptance of what is asked under a key.
    fn accepted(&mut self, event: &str, previous: Option<[u8; 32]>, key: &str) -> Change {
        let secret = FingerprintKey::new(test_keys().fingerprint_key());
        let digest = idempotency_key_digest(&secret, self.payment.tenant.as_str(), key);
        let details = BTreeMap::new();
        self.change_under(
            event,
            previous,
            (EntryResult::Success, Some(digest)),
            details,
        )
    }

    fn change(&mut self, event: &str, previous: Option<[u8; 32]>, result: EntryResult) -> Change {
        self.change_with(event, previous, result, BTreeMap::new())
    }

    fn change_with(
        &mut self,
        event: &str,
        previous: Option<[u8; 32]>,
        result: EntryResult,
        details: BTreeMap<String, String>,
    ) -> Change {
        self.change_under(event, previous, (result, None), details)
    }

    fn change_under(
        &mut self,
        event: &str,
        previous: Option<[u8; 32]>,
        (result, key_digest): (EntryResult, Option<[u8; 32]>),
        details: BTreeMap<String, String>,
    ) -> Change {
        let mut leaf = leaf(
            StreamId::Payment(self.payment.id.0),
            self.payment.version,
            event,
        );
        leaf.tenant_id = self.payment.tenant.as_str().to_owned();
        leaf.prev_leaf_hash = previous.map(Hash::from_bytes);
        leaf.payment_id = Some(self.payment.id.0);
        leaf.transaction_id = Some(self.transaction.id.0);
        leaf.state_to = Some(self.payment.state.name().to_owned());
        leaf.result = result;
        leaf.trace_id = self.trace_id;
        leaf.details = details;
        leaf.idempotency_key_digest = key_digest.map(Hash::from_bytes);
        let mut entry = entry(&leaf, self.payment.id.0, Some(&self.payment.tenant));
        entry.payment = Some(self.payment.id);
        entry.transaction = Some(self.transaction.id);
        entry.provider_account = Some(self.payment.provider_account.as_str().to_owned());
        entry.trace_id = Some(self.trace_id);
        self.payment.last_leaf_hash = Some(entry.leaf_hash);
        Change {
            payment: self.payment.clone(),
            idempotency: None,
            transactions: Vec::new(),
            attempt: None,
            customer: None,
            closes_cases: Vec::new(),
            operator_action: None,
            entry,
        }
    }
}

/// An entry of a tenant's named stream.
pub fn entry_of_stream(tenant_name: &str, stream: Uuid, entity_seq: u64) -> JournalEntry {
    let stream_id = StreamId::named("audit", stream).unwrap();
    let mut leaf = leaf(stream_id, entity_seq, "audit.read");
    leaf.tenant_id = tenant_name.to_owned();
    leaf.prev_leaf_hash = (entity_seq > 1).then(|| Hash::from_bytes([5; 32]));
    entry(&leaf, stream, Some(&tenant(tenant_name)))
}

/// The first entry of an erasure's stream: that the customer's data is to be erased.
pub fn erasure_requested(new: &NewErasure) -> JournalEntry {
    erasure_entry(new, 1, ERASURE_REQUESTED, None)
}

/// The entry behind one of them: that it was erased.
pub fn erasure_done(new: &NewErasure, behind: &StreamHead) -> JournalEntry {
    let before = Hash::from_bytes(behind.leaf_hash);
    erasure_entry(new, behind.entity_seq + 1, ERASED, Some(before))
}

fn erasure_entry(
    new: &NewErasure,
    entity_seq: u64,
    event: &str,
    before: Option<Hash>,
) -> JournalEntry {
    let stream_id = StreamId::named(ERASURE_STREAM, new.id.0).unwrap();
    let mut leaf = leaf(stream_id, entity_seq, event);
    leaf.prev_leaf_hash = before;
    leaf.tenant_id = new.tenant.as_str().to_owned();
    let customer = new.customer.unwrap().to_string();
    leaf.details.insert(CUSTOMER_DETAIL.to_owned(), customer);
    entry(&leaf, new.id.0, Some(&new.tenant))
}

/// The next entry of such a stream, which names the one before.
pub fn entry_behind(before: &JournalEntry) -> JournalEntry {
    let stream_id = StreamId::named("audit", before.stream).unwrap();
    let mut leaf = leaf(stream_id, before.entity_seq + 1, "audit.read");
    leaf.tenant_id = before.tenant.as_ref().unwrap().as_str().to_owned();
    leaf.prev_leaf_hash = Some(Hash::from_bytes(before.leaf_hash));
    entry(&leaf, before.stream, before.tenant.as_ref())
}

fn entry(leaf: &Leaf, stream: Uuid, tenant: Option<&TenantId>) -> JournalEntry {
    let data = leaf.encode().unwrap();
    JournalEntry {
        id: EntryId(leaf.entry_id),
        stream,
        entity_seq: leaf.entity_seq,
        tenant: tenant.cloned(),
        payment: None,
        transaction: None,
        event_type: leaf.event_type.clone(),
        result: leaf.result.as_str(),
        cause: None,
        actor: leaf.actor.id.clone(),
        source: leaf.source.rpc_method.clone().unwrap_or_default(),
        provider_account: None,
        trace_id: None,
        occurred_at: leaf.occurred_at,
        leaf_hash: *data.leaf_hash().as_bytes(),
        leaf: data,
    }
}

fn leaf(stream_id: StreamId, entity_seq: u64, event: &str) -> Leaf {
    let now = now();
    Leaf {
        schema_version: SCHEMA_VERSION,
        leaf_salt: rand::random(),
        entry_id: Uuid::now_v7(),
        tenant_id: String::new(),
        stream_id,
        entity_seq,
        prev_leaf_hash: None,
        payment_id: None,
        transaction_id: None,
        merchant_reference: None,
        capture_method: None,
        decline_code: None,
        amounts: None,
        payment_row_digest: None,
        event_type: event.to_owned(),
        occurred_at: now,
        recorded_at: now,
        actor: Actor {
            kind: "service".into(),
            id: "key-1".into(),
            auth_method: None,
        },
        source: Source {
            service: "quittance".into(),
            version: "0".into(),
            instance: "test".into(),
            peer: None,
            rpc_method: Some("quittance.v1.PaymentService/CreatePayment".to_owned()),
        },
        result: EntryResult::Success,
        grpc_status: None,
        cause: None,
        state_from: None,
        state_to: None,
        amount_minor: None,
        currency: None,
        currency_exponent: None,
        attempt: None,
        max_attempts: None,
        next_retry_at: None,
        provider_account: None,
        provider_reference: None,
        provider_request_digest: None,
        provider_response_digest: None,
        idempotency_key_digest: None,
        request_id: None,
        trace_id: [0; 16],
        span_id: [0; 8],
        trace_flags: 0,
        remote_trace_id: None,
        remote_span_id: None,
        personal_data: BTreeMap::new(),
        details: BTreeMap::new(),
    }
}

fn new_payment(tenant_name: &str, minor_units: i64, now: DateTime<Utc>) -> Payment {
    Payment {
        id: PaymentId(Uuid::now_v7()),
        tenant: tenant(tenant_name),
        state: PaymentState::Pending,
        disputed: false,
        expired: false,
        livemode: false,
        amount: Money::new(minor_units, Currency::parse("EUR").unwrap()).unwrap(),
        amounts: Amounts::default(),
        method: PaymentMethod {
            kind: PaymentMethodType::Card,
            token: Some(Sensitive::new("tok_approve".to_owned())),
            brand: Text::parse("visa").unwrap(),
            last4: Text::parse("4242").unwrap(),
            expiry_month: Some(12),
            expiry_year: Some(2030),
        },
        capture_method: CaptureMethod::Manual,
        merchant_reference: Text::parse("order-1").unwrap(),
        description: Text::parse("Two \"quoted\" words, and a comma").unwrap(),
        return_url: Text::default(),
        initiator: Initiator::Customer,
        mandate_reference: Text::default(),
        metadata: BTreeMap::from([("colour".to_owned(), "grün {\"a\":1}".to_owned())]),
        customer_reference: None,
        customer_erased: false,
        provider_account: account(),
        routed: true,
        provider_reference: None,
        named_by_operator: false,
        next_action: None,
        decline: None,
        failure: None,
        created_at: now,
        updated_at: now,
        expires_at: None,
        version: 1,
        last_leaf_hash: None,
    }
}

fn new_transaction(kind: TransactionKind, minor_units: i64, now: DateTime<Utc>) -> Transaction {
    let later = |minutes| now + chrono::TimeDelta::minutes(minutes);
    Transaction {
        id: TransactionId(Uuid::now_v7()),
        kind,
        origin: TransactionOrigin::Caller,
        state: TransactionState::Pending,
        amount: minor_units,
        provider_account: account(),
        provider_reference: None,
        decline: None,
        failure: None,
        reason: Text::default(),
        final_capture: false,
        dispute: None,
        attempts: 1,
        ever_unknown: false,
        retries: 0,
        resolved_by_operator: false,
        open_cases: OpenCases::NONE,
        contradictions: Contradictions::default(),
        left_alone: LeftAlone::default(),
        request: Some(PreparedRequest {
            bytes: Sensitive::new(b"{\"source\":\"tok_approve\"}".to_vec()),
        }),
        execute_before: later(15),
        lease_until: Some(later(1)),
        next_step_at: Some(later(1)),
        created_at: now,
        updated_at: now,
    }
}

fn new_attempt(transaction: &Transaction, operation: OperationKind, now: DateTime<Utc>) -> Attempt {
    Attempt {
        id: AttemptId(Uuid::now_v7()),
        transaction: transaction.id,
        number: 1,
        operation,
        provider_account: account(),
        digest_salt: [SALT_BYTE; 16],
        request_digest: [3; 32],
        started_at: now,
        ended: None,
    }
}
