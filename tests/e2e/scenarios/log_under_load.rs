//! What the log signs while payments go on over two replicas: keys are replaced, and whoever grows the tree or signs it is
//! killed, or stopped while another takes over.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chrono::{DateTime, SecondsFormat, SubsecRound as _, TimeDelta, Utc};
use futures::future::join_all;
use quittance_evidence::bundle::TrustedKeys;
use quittance_evidence::note::{Note, SigningKey, VerifierKey};
use quittance_evidence::tree::{verify_consistency, verify_inclusion};
use quittance_evidence::{Hash, Receipt, SignedCheckpoint};
use quittance_proto::v1::get_inclusion_proof_request::Entry;
use quittance_proto::v1::{
    self, GetCheckpointRequest, GetConsistencyProofRequest, GetInclusionProofRequest,
};
use quittance_server::auth::Role;
use toml::Value;
use uuid::Uuid;

use super::evidence::{evidence_of, is_proved};
use super::kills_under_load::{Caller, Chance, number};
use super::verification::verified;
use crate::harness::process::{ServerProcess, run};
use crate::harness::site::{Setting, TENANT};
use crate::harness::{Client, Keyed as _, Site, SiteOptions, eventually, purchase};

pub const CLIENTS: u64 = 4;
/// Until the keys of receipts change: both replicas are started anew by then, or are late, as operators are.
const NOTICE: TimeDelta = TimeDelta::seconds(15);
/// How often the process that grows the tree is killed or stopped in an ordinary run.
pub const BLOWS: u64 = 4;
/// Between two of them, at most so many operations are finished.
pub const MOST_BETWEEN_BLOWS: u64 = 40;

fn hash(bytes: &[u8]) -> Hash {
    Hash::from_bytes(bytes.try_into().unwrap())
}

fn hashes(proof: &[Vec<u8>]) -> Vec<Hash> {
    proof.iter().map(|bytes| hash(bytes)).collect()
}

/// The published half of a key file.
pub fn verifier(site: &Site, file: &str) -> VerifierKey {
    let secret = std::fs::read_to_string(site.audit.path().join(file)).unwrap();
    SigningKey::parse(&secret).unwrap().verifier().clone()
}

fn path(site: &Site, file: &str) -> String {
    site.audit.path().join(file).to_str().unwrap().to_owned()
}

/// All that was signed for callers, in the order in which they got it.
#[derive(Default)]
pub struct Signed {
    /// With the idempotency key that a repetition has.
    receipts: Mutex<Vec<(String, v1::Receipt)>>,
    checkpoints: Mutex<Vec<v1::Checkpoint>>,
    proofs: Mutex<Vec<v1::GetInclusionProofResponse>>,
}

impl Signed {
    /// Whether the newest receipt and the newest checkpoint are signed by each of these keys, and by no other known one.
    fn newest_by(
        &self,
        receipts: [&VerifierKey; 2],
        log: [&VerifierKey; 2],
        by: [bool; 2],
    ) -> bool {
        let receipt = self.receipts.lock().unwrap().last().cloned();
        let checkpoint = self.checkpoints.lock().unwrap().last().cloned();
        let receipt = receipt.map(|(_, receipt)| receipt_by(&receipt, receipts));
        let checkpoint = checkpoint.map(|checkpoint| checkpoint_by(&checkpoint, log));
        (receipt, checkpoint) == (Some(by), Some(by))
    }
}

fn receipt_by(receipt: &v1::Receipt, keys: [&VerifierKey; 2]) -> [bool; 2] {
    let note: Note = receipt.signed_note.parse().unwrap();
    keys.map(|key| Receipt::open(&note, std::slice::from_ref(key)).is_ok())
}

fn checkpoint_by(checkpoint: &v1::Checkpoint, keys: [&VerifierKey; 2]) -> [bool; 2] {
    let note = Note::parse(checkpoint.signed_note.as_bytes()).unwrap();
    keys.map(|key| SignedCheckpoint::open(&note, std::slice::from_ref(key)).is_ok())
}

/// Two replicas, and callers of both that go on whatever happens to one of them.
pub struct Load<'a> {
    clients: [Client; 2],
    seed: u64,
    finished: AtomicU64,
    retries: AtomicU64,
    done: AtomicBool,
    signed: &'a Signed,
}

impl<'a> Load<'a> {
    pub fn new(replicas: &[ServerProcess; 2], seed: u64, signed: &'a Signed) -> Self {
        Self {
            clients: replicas.each_ref().map(|replica| replica.client.clone()),
            seed,
            finished: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            done: AtomicBool::new(false),
            signed,
        }
    }

    fn caller(&self, number: u64) -> Caller<'_> {
        Caller {
            replicas: self.clients.each_ref().map(Client::reconnected),
            chance: Chance(self.seed.wrapping_add(number)),
            finished: &self.finished,
            retries: &self.retries,
        }
    }

    /// Lets the callers end.
    pub fn end(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// Purchases, each with its receipt, until it is done.
    pub async fn pay(&self, number: u64) {
        let mut caller = self.caller(number);
        for payment in 0.. {
            if self.is_done() {
                return;
            }
            let key = format!("{number}-{payment}");
            let answer = caller.ask(of(&key)).await;
            let receipt = answer.receipt.unwrap();
            self.signed.receipts.lock().unwrap().push((key, receipt));
            self.finished.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Checkpoints, and proofs of what was just paid, until it is done; each proof is verified as it comes.
    pub async fn watch(&self, keys: &[VerifierKey]) {
        let mut caller = self.caller(CLIENTS);
        let mut last: Option<(u64, Hash)> = None;
        while !self.is_done() {
            let newest = self.signed.receipts.lock().unwrap().last().cloned();
            let Some((_, receipt)) = newest else {
                tokio::task::yield_now().await;
                continue;
            };
            let request = GetInclusionProofRequest {
                entry: Some(Entry::EntryId(receipt.entry_id)),
                tree_size: 0,
            };
            let proved = caller.ask(request).await;
            let checkpoint = proved.checkpoint.clone().unwrap();
            let (size, root) = opened(&checkpoint, keys);
            let proof = proved.proof.as_ref().unwrap();
            assert_eq!(proof.leaf_hash, receipt.leaf_hash);
            let leaf = hash(&receipt.leaf_hash);
            let path = hashes(&proof.hashes);
            verify_inclusion(&leaf, proof.leaf_index, size, &path, &root).unwrap();
            self.signed.proofs.lock().unwrap().push(proved);
            let served = caller
                .ask(GetCheckpointRequest {})
                .await
                .checkpoint
                .unwrap();
            let newer = opened(&served, keys);
            self.signed
                .checkpoints
                .lock()
                .unwrap()
                .extend([checkpoint, served]);
            // One server may serve an older one than another did a moment ago.
            for (size, root) in [(size, root), newer] {
                if let Some((old, old_root)) = last.filter(|(old, _)| *old < size) {
                    let request = GetConsistencyProofRequest {
                        first_tree_size: old,
                        second_tree_size: size,
                    };
                    let proof = caller.ask(request).await.proof.unwrap();
                    let path = hashes(&proof.hashes);
                    verify_consistency(old, &old_root, size, &root, &path).unwrap();
                }
                if last.is_none_or(|(old, _)| old < size) {
                    last = Some((size, root));
                }
            }
        }
    }

    /// Lets the callers get on by so many operations.
    pub async fn get_on(&self, operations: u64) {
        let until = self.finished.load(Ordering::Relaxed) + operations;
        eventually("the callers get on", async || {
            (self.finished.load(Ordering::Relaxed) >= until).then_some(())
        })
        .await;
    }
}

fn of(key: &str) -> v1::CreatePaymentRequest {
    purchase("tok_approve", 100).key(key)
}

/// Size and root of a checkpoint that one of `keys` signed.
fn opened(checkpoint: &v1::Checkpoint, keys: &[VerifierKey]) -> (u64, Hash) {
    let note = Note::parse(checkpoint.signed_note.as_bytes()).unwrap();
    let signed = SignedCheckpoint::open(&note, keys).unwrap().checkpoint;
    (signed.size, signed.root)
}

/// When the entry of a receipt was recorded: that decides which key signs.
fn recorded(receipt: &v1::Receipt) -> DateTime<Utc> {
    let at = receipt.issue_time.unwrap();
    DateTime::from_timestamp(at.seconds, at.nanos.unsigned_abs()).unwrap()
}

/// Every receipt's entry is in the journal as it was promised; and every checkpoint that was served is of the one tree.
async fn all_was_kept(site: &Site, signed: &Signed, keys: &[VerifierKey]) {
    let roots = site.roots_of_one_tree(keys).await;
    for checkpoint in signed.checkpoints.lock().unwrap().iter() {
        let (entries, root) = opened(checkpoint, keys);
        assert_eq!(roots[usize::try_from(entries).unwrap()], root);
    }
    let entries = "select entry_id::text, sha256('\\x00'::bytea || leaf) from journal";
    let rows = site.db.rows(entries, &[]).await;
    let entries: HashMap<String, Vec<u8>> =
        rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for (key, receipt) in signed.receipts.lock().unwrap().iter() {
        assert_eq!(entries[&receipt.entry_id], receipt.leaf_hash, "{key}");
    }
}

fn receipt_settings(site: &Site, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<Setting> {
    let text = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let older = format!("{} until {}", path(site, "receipt.key"), text(until));
    vec![
        (
            "audit.receipt_key_file",
            Value::from(path(site, "receipt-2.key")),
        ),
        ("audit.receipt_key_from", Value::from(text(from))),
        ("audit.older_receipt_keys", Value::from(vec![older])),
    ]
}

/// The keys of a rotation: of the log, and of receipts, the old and the new one.
struct Keys {
    log: [VerifierKey; 2],
    receipts: [VerifierKey; 2],
}

impl Keys {
    /// What a reader trusts who has the old ones, or the new ones.
    fn of(&self, which: usize) -> TrustedKeys {
        TrustedKeys::new(vec![self.log[which].clone(), self.receipts[which].clone()])
    }

    fn newest_by(&self, signed: &Signed, by: [bool; 2]) -> bool {
        signed.newest_by(self.receipts.each_ref(), self.log.each_ref(), by)
    }
}

async fn bundle(caller: &mut Caller<'_>, payment: &str) -> Vec<u8> {
    caller.ask(evidence_of(payment)).await.bundle
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s79_all_that_is_signed_while_keys_are_replaced_under_load_verifies() {
    let site = Site::new(SiteOptions::short_leases().recovering()).await;
    let mut replicas = [
        ServerProcess::start(&site, Vec::new()).await,
        ServerProcess::start(&site, Vec::new()).await,
    ];
    for (receipts, file) in [(false, "log-2.key"), (true, "receipt-2.key")] {
        let file = path(&site, file);
        let mut arguments = vec!["audit", "keys", "rotate", "--file", &file];
        arguments.extend(receipts.then_some("--receipts"));
        run(&site, Vec::new(), &arguments).unwrap();
    }
    let keys = Keys {
        log: ["log.key", "log-2.key"].map(|file| verifier(&site, file)),
        receipts: ["receipt.key", "receipt-2.key"].map(|file| verifier(&site, file)),
    };
    let signed = Signed::default();
    let load = Load::new(&replicas, 0, &signed);
    let paying = join_all((0..CLIENTS).map(|number| load.pay(number)));
    let rotating = async {
        let mut caller = load.caller(CLIENTS + 1);
        eventually("the old keys sign", async || {
            keys.newest_by(&signed, [true, false]).then_some(())
        })
        .await;
        let payment = signed.receipts.lock().unwrap()[0].1.payment_id.clone();
        let before = bundle(&mut caller, &payment).await;

        // Both keys sign, on one server after the other.
        let from = Utc::now().trunc_subsecs(3) + NOTICE;
        let receipts = receipt_settings(&site, from, "2199-01-01T00:00:00Z".parse().unwrap());
        let log = |files: &[&str]| {
            let files: Vec<_> = files.iter().map(|file| path(&site, file)).collect();
            ("audit.log_key_files", Value::from(files))
        };
        for replica in &mut replicas {
            let mut settings = receipts.clone();
            settings.push(log(&["log-2.key", "log.key"]));
            replica.start_anew(&site, settings).await;
        }
        let ready = Utc::now();
        eventually("both keys sign", async || {
            keys.newest_by(&signed, [true, true]).then_some(())
        })
        .await;
        let during = bundle(&mut caller, &payment).await;

        // The old one of the log is taken out, that of receipts soon has had its time.
        let until = Utc::now().trunc_subsecs(3) + NOTICE;
        let receipts = receipt_settings(&site, from, until);
        for replica in &mut replicas {
            let mut settings = receipts.clone();
            settings.push(log(&["log-2.key"]));
            replica.start_anew(&site, settings).await;
        }
        let ready = [ready, Utc::now()];
        eventually("the new keys sign", async || {
            keys.newest_by(&signed, [false, true]).then_some(())
        })
        .await;
        let after = bundle(&mut caller, &payment).await;
        load.get_on(20).await;
        load.done.store(true, Ordering::Relaxed);
        // What each reader is sure of: who has the old keys, and who has the new ones.
        let proved = [before, during, after]
            .map(|bundle| [0, 1].map(|which| is_proved(&bundle, &keys.of(which))));
        assert_eq!(proved[0], [true, false]);
        assert_eq!(proved[2], [false, true]);
        // Of which time the statement is depends on when it was made.
        assert!(proved[1].contains(&true), "{proved:?}");
        ([from, until], ready)
    };
    let (_, (), ([from, until], ready)) = tokio::join!(paying, load.watch(&keys.log), rotating);

    all_was_kept(&site, &signed, &keys.log).await;
    let (receipts, log) = (keys.receipts.each_ref(), keys.log.each_ref());
    let mut seen = BTreeSet::new();
    // A server that was not started anew in time signs alone what others sign with both.
    let late = |at: &DateTime<Utc>| (from..ready[0]).contains(at) || (until..ready[1]).contains(at);
    for (key, receipt) in signed.receipts.lock().unwrap().iter() {
        let (at, by) = (recorded(receipt), receipt_by(receipt, receipts));
        assert!(by.contains(&true), "{key}");
        if !late(&at) {
            assert_eq!(by, [at < until, at >= from], "{key} of {at}");
        }
        seen.insert(by);
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    let by: BTreeSet<_> = signed
        .checkpoints
        .lock()
        .unwrap()
        .iter()
        .map(|checkpoint| checkpoint_by(checkpoint, log))
        .collect();
    assert_eq!(by.len(), 3, "{by:?}");
    // Repeated at either server, every command gets the receipt that it got.
    let given = signed.receipts.lock().unwrap().clone();
    for (number, (key, receipt)) in given.iter().enumerate() {
        if !late(&recorded(receipt)) {
            let again = replicas[number % 2]
                .client
                .ok(of(key))
                .await
                .message
                .receipt;
            assert_eq!(again.as_ref(), Some(receipt), "{key}");
        }
    }
    let address = replicas[0].address;
    let auditor = site.caller(address, TENANT, &[Role::PlatformAudit]).await;
    let (found, summary) = verified(&auditor).await;
    assert_eq!(found, []);
    assert!(summary.checkpoint.is_some());
    println!(
        "{} receipts, {} checkpoints, {} proofs; {} calls repeated",
        given.len(),
        signed.checkpoints.lock().unwrap().len(),
        signed.proofs.lock().unwrap().len(),
        load.retries.load(Ordering::Relaxed),
    );
}

/// Which replica grows the tree: the one that said last that it does.
fn grower(replicas: &[ServerProcess; 2]) -> Option<usize> {
    let said = |replica: &ServerProcess| {
        let log = replica.log();
        let mut lines = log.lines().rev();
        // The last one may not be whole yet.
        let active =
            |line: &&str| line.contains("this integrator is active") && line.ends_with('}');
        let line: serde_json::Value = serde_json::from_str(lines.find(active)?).unwrap();
        Some(line["timestamp"].as_str().unwrap().to_owned())
    };
    let said = replicas.each_ref().map(said);
    let last = said.iter().flatten().max()?;
    said.iter().position(|it| it.as_ref() == Some(last))
}

/// Each time, either the process is killed, and another goes on; or it is stopped until another has taken over, and then
/// goes on as well, believing that it is the one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s76_whoever_grows_and_signs_the_tree_is_killed_or_stopped_under_load_and_there_is_one_tree()
 {
    let blows = number("QUITTANCE_KILLS").unwrap_or(BLOWS);
    let seed = number("QUITTANCE_KILLS_SEED").unwrap_or(Uuid::new_v4().as_u64_pair().0);
    println!("{blows} blows; QUITTANCE_KILLS_SEED={seed}");
    let site = Site::new(SiteOptions::short_leases().recovering()).await;
    let mut replicas = [
        ServerProcess::start(&site, Vec::new()).await,
        ServerProcess::start(&site, Vec::new()).await,
    ];
    let keys = [verifier(&site, "log.key")];
    let signed = Signed::default();
    let load = Load::new(&replicas, seed, &signed);
    let paying = join_all((0..CLIENTS).map(|number| load.pay(number)));
    let fence = "select fence from sequencer_head";
    let striking = async {
        let mut chance = Chance(seed.wrapping_add(CLIENTS + 1));
        for blow in 0..blows {
            load.get_on(1 + chance.below(MOST_BETWEEN_BLOWS)).await;
            let victim = eventually("one grows the tree", async || grower(&replicas)).await;
            let before = site.db.number(fence).await;
            if blow.is_multiple_of(2) {
                replicas[victim].kill();
            } else {
                replicas[victim].suspend();
            }
            // The other one, and nobody else is there.
            eventually("the other takes over", async || {
                (site.db.number(fence).await > before).then_some(())
            })
            .await;
            eventually("the other grows the tree", async || {
                (grower(&replicas) == Some(1 - victim)).then_some(())
            })
            .await;
            load.get_on(1).await;
            if blow.is_multiple_of(2) {
                replicas[victim].start_again().await;
            } else {
                replicas[victim].go_on();
            }
            let covered = "select coalesce(max(tree_size), 0) from checkpoints";
            let signed_before = site.db.number(covered).await;
            eventually("the tree grows and is signed", async || {
                (site.db.number(covered).await > signed_before).then_some(())
            })
            .await;
        }
        load.done.store(true, Ordering::Relaxed);
    };
    tokio::join!(paying, load.watch(&keys), striking);
    let fences = site.db.number(fence).await;
    assert!(fences > i64::try_from(blows).unwrap());
    one_tree_was_signed(&site, &signed, &keys, &replicas).await;
    println!("{fences} holders of the lease; {load}");
}

/// All that was signed is of one tree, which has every entry, and nobody raised an alarm.
pub async fn one_tree_was_signed(
    site: &Site,
    signed: &Signed,
    keys: &[VerifierKey],
    replicas: &[ServerProcess; 2],
) {
    all_was_kept(site, signed, keys).await;
    // A caller has its answer as soon as there is a receipt; what a server that was killed was about to learn, recovery does.
    eventually("it is known what became of every payment", async || {
        let pending = "select count(*) from transactions where state = 'PENDING'";
        (site.db.number(pending).await == 0).then_some(())
    })
    .await;
    site.everything_agrees().await;
    for replica in replicas {
        let log = replica.log();
        // One that was stopped may find, when it goes on, that the database did not answer in time: that is no alarm.
        let alarms = ["the tree stands still", "nothing is signed"];
        let raised = log.lines().find(|line| {
            line.contains("\"ERROR\"") && alarms.iter().any(|alarm| line.contains(alarm))
        });
        assert_eq!(raised, None);
    }
}

impl fmt::Display for Load<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} payments, {} checkpoints served, {} calls repeated",
            self.signed.receipts.lock().unwrap().len(),
            self.signed.checkpoints.lock().unwrap().len(),
            self.retries.load(Ordering::Relaxed),
        )
    }
}
