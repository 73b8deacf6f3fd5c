//! A log of several payments with its keys, from which bundles are exported.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::unnecessary_wraps,
    reason = "a panic is a failed test; texts are given as they are stored"
)]
#![allow(dead_code, reason = "each test binary uses its own part")]

use quittance_evidence::{
    Actor, Amounts, Cause, Checkpoint, Disclosure, EntryResult, Hash, LastEntry, Leaf, StreamId,
    bundle::{Bundle, BundleEntry, TrustedKeys},
    leaf_hash,
    note::{KeyName, SigningKey, VerifierKey, WitnessKey},
    tile::TileSet,
    tree::{CompactRange, Path},
};
use uuid::Uuid;

pub const ORIGIN: &str = "log.example/quittance";

pub fn key(name: &str, seed: u8) -> SigningKey {
    SigningKey::from_seed(KeyName::new(name).unwrap(), &[seed; 32])
}

/// What one log is made of.
pub struct Log {
    pub key: SigningKey,
    pub receipts: SigningKey,
    pub witness: WitnessKey,
    range: CompactRange,
    tiles: TileSet,
    /// Payment, place in the log and bytes of every entry.
    leaves: Vec<(Uuid, Vec<u8>)>,
}

impl Log {
    pub fn new() -> Self {
        Self {
            key: key(ORIGIN, 1),
            receipts: key("log.example/quittance/receipts", 2),
            witness: key("witness.example/w1", 3).into(),
            range: CompactRange::new(),
            tiles: TileSet::new(),
            leaves: Vec::new(),
        }
    }

    /// A log in which so many payments take turns, each with as many entries as a story has.
    pub fn of_payments(payments: u128) -> Self {
        let mut log = Self::new();
        let mut last = vec![None; payments as usize];
        for step in 1..=STORY {
            for payment in 0..payments {
                let leaf = story(Uuid::from_u128(payment + 1), step, last[payment as usize]);
                last[payment as usize] = Some(log.append(&leaf));
            }
        }
        log
    }

    pub fn append(&mut self, leaf: &Leaf) -> Hash {
        let bytes = leaf.encode().unwrap().into_bytes();
        self.append_bytes(leaf.payment_id.unwrap(), bytes)
    }

    /// Appends whatever it is to the entries of a payment.
    pub fn append_bytes(&mut self, payment: Uuid, bytes: Vec<u8>) -> Hash {
        let hash = leaf_hash(&bytes);
        self.tiles.append(&mut self.range, hash).unwrap();
        self.leaves.push((payment, bytes));
        hash
    }

    pub fn size(&self) -> u64 {
        self.leaves.len() as u64
    }

    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            origin: KeyName::new(ORIGIN).unwrap(),
            size: self.size(),
            root: self.range.root(),
        }
    }

    pub fn statement(&self, payment_id: Uuid) -> LastEntry {
        let of_payment = self.leaves.iter().filter(|(of, _)| *of == payment_id);
        let leaves: Vec<_> = of_payment.collect();
        LastEntry {
            payment_id,
            entity_seq: leaves.len() as u64,
            leaf_hash: leaf_hash(&leaves[leaves.len() - 1].1),
            origin: KeyName::new(ORIGIN).unwrap(),
            tree_size: self.size(),
            root: self.range.root(),
        }
    }

    pub fn bundle(&self, payment_id: Uuid) -> Bundle {
        let mut checkpoint = self.checkpoint().sign(&[&self.key]).unwrap();
        let seen = self.checkpoint().cosign(&self.witness, 1_772_323_200);
        checkpoint.add([seen]).unwrap();
        let entries = (0_u64..)
            .zip(&self.leaves)
            .filter(|(_, (of, _))| *of == payment_id)
            .map(|(index, (_, bytes))| {
                let path = Path::inclusion(index, self.size()).unwrap();
                let proof = path.prove(|id| self.tiles.node(id)).unwrap();
                BundleEntry::new(bytes.clone(), index, proof).unwrap()
            });
        Bundle {
            payment_id,
            checkpoint,
            last_entry: self.statement(payment_id).sign(&[&self.receipts]).unwrap(),
            entries: entries.collect(),
            disclosures: vec![name_of(payment_id)],
        }
    }

    /// The same entries under a checkpoint and a statement that a key signs as if it were the log's own; the witness
    /// cosigned it.
    pub fn bundle_by(&self, payment_id: Uuid, key: &SigningKey) -> Bundle {
        let origin = key.name().clone();
        let checkpoint = Checkpoint {
            origin: origin.clone(),
            ..self.checkpoint()
        };
        let mut signed = checkpoint.sign(&[key]).unwrap();
        signed
            .add([checkpoint.cosign(&self.witness, 1_772_323_200)])
            .unwrap();
        let statement = LastEntry {
            origin,
            ..self.statement(payment_id)
        };
        Bundle {
            checkpoint: signed,
            last_entry: statement.sign(&[key]).unwrap(),
            ..self.bundle(payment_id)
        }
    }

    pub fn verifiers(&self) -> Vec<VerifierKey> {
        let own = [&self.key, &self.receipts].map(|key| key.verifier().clone());
        let witness = [self.witness.verifier().clone()];
        own.into_iter().chain(witness).collect()
    }

    pub fn trusted(&self) -> TrustedKeys {
        TrustedKeys::new(self.verifiers())
    }
}

/// Entries of a [`story`].
pub const STORY: u64 = 7;

pub fn name_of(payment: Uuid) -> Disclosure {
    Disclosure::new(
        [4; 16],
        "customer.name",
        format!("Zoë <{}>", payment.as_u128()),
    )
    .unwrap()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// What happens at one entry of a [`story`].
struct Step {
    event: &'static str,
    by_caller: bool,
    result: EntryResult,
    state: &'static str,
    transaction: u128,
    amounts: Amounts,
}

impl Step {
    /// A payment that is taken at the second attempt, and partly refunded at the second attempt.
    fn of(seq: u64) -> Self {
        use EntryResult::{Failure, Success, Unknown};
        let taken = if seq < 3 { 0 } else { 12_345 };
        let (event, result, state, transaction) = match seq {
            1 => ("payment.accepted", Success, "PENDING", 1),
            2 => ("payment.outcome_unknown", Unknown, "PENDING", 1),
            3 => ("payment.captured", Success, "CAPTURED", 1),
            4 => ("refund.accepted", Success, "CAPTURED", 2),
            5 => ("refund.declined", Failure, "CAPTURED", 2),
            6 => ("refund.accepted", Success, "CAPTURED", 3),
            _ => ("refund.succeeded", Success, "PARTIALLY_REFUNDED", 3),
        };
        Self {
            event,
            by_caller: [1, 4, 6].contains(&seq),
            result,
            state,
            transaction,
            amounts: Amounts {
                authorized: taken,
                captured: taken,
                refund_pending: if [4, 6].contains(&seq) { 2_345 } else { 0 },
                refunded: if seq > 6 { 2_345 } else { 0 },
                ..Amounts::default()
            },
        }
    }

    fn actor(&self) -> Actor {
        let (kind, id, auth_method) = if self.by_caller {
            ("api_key", "checkout", some("bearer"))
        } else {
            ("system", "recovery", None)
        };
        Actor {
            kind: kind.to_owned(),
            id: id.to_owned(),
            auth_method,
        }
    }
}

/// Entry `seq` of a payment's story, linked to the entry before it.
pub fn story(payment: Uuid, seq: u64, prev: Option<Hash>) -> Leaf {
    let step = Step::of(seq);
    let at = format!("2026-02-28T23:5{seq}:51.00012Z").parse().unwrap();
    let mut leaf = Leaf {
        leaf_salt: (payment.as_u128() ^ u128::from(seq)).to_be_bytes(),
        entry_id: Uuid::from_u128(payment.as_u128() ^ u128::from(seq) << 64),
        stream_id: StreamId::Payment(payment),
        payment_id: Some(payment),
        transaction_id: Some(Uuid::from_u128(payment.as_u128() ^ step.transaction << 96)),
        merchant_reference: some("Bestellung \"42\" \\ <Größe Ä> 😀"),
        event_type: step.event.to_owned(),
        occurred_at: at,
        recorded_at: at,
        actor: step.actor(),
        result: step.result,
        state_from: (seq > 1).then(|| Step::of(seq - 1).state.to_owned()),
        state_to: some(step.state),
        amounts: Some(step.amounts),
        amount_minor: Some(if seq < 4 { 12_345 } else { 2_345 }),
        currency: some("EUR"),
        currency_exponent: Some(2),
        provider_account: some("sandbox-eu"),
        provider_reference: (seq > 2).then(|| "sbx_01".to_owned()),
        ..super::leaf(seq, prev)
    };
    add_facts(&mut leaf, payment);
    leaf
}

/// Says of an entry of a story what the service says of transactions, each with a reference of its own.
pub fn tell_transactions(leaf: &mut Leaf) {
    let (state, reference) = match leaf.entity_seq {
        1 | 2 => ("PENDING", None),
        3 => ("SUCCEEDED", some("sbx_01")),
        4 => ("PENDING", some("sbx_02")),
        5 => ("DECLINED", some("sbx_02")),
        6 => ("PENDING", some("sbx_03")),
        _ => ("SUCCEEDED", some("sbx_03")),
    };
    let kind = match leaf.entity_seq {
        1 => Some("PURCHASE"),
        4 | 6 => Some("REFUND"),
        _ => None,
    };
    leaf.provider_reference = reference;
    let told = [
        ("transaction_state", Some(state)),
        ("transaction_kind", kind),
    ];
    for (name, value) in told {
        if let Some(value) = value {
            leaf.details.insert(name.to_owned(), value.to_owned());
        }
    }
}

/// What only some entries have.
fn add_facts(leaf: &mut Leaf, payment: Uuid) {
    let cause = |code: &str, retryable| {
        Some(Cause {
            code: code.to_owned(),
            retryable,
        })
    };
    match leaf.entity_seq {
        1 => {
            let name = name_of(payment);
            leaf.personal_data = [(name.name().to_owned(), name.digest())].into();
            leaf.source.rpc_method = some("quittance.v1.PaymentService/CreatePayment");
            leaf.source.peer = some("203.0.113.9:50123");
        }
        2 => {
            leaf.attempt = Some(1);
            leaf.max_attempts = Some(8);
            leaf.next_retry_at = Some(leaf.recorded_at + chrono::TimeDelta::milliseconds(7_250));
            leaf.cause = cause("PROVIDER_TIMEOUT", true);
        }
        5 => {
            leaf.decline_code = some("INSUFFICIENT_FUNDS");
            leaf.cause = cause("DECLINED", false);
        }
        _ => {}
    }
}
