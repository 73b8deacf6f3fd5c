//! The tree over the log, as callers see it: checkpoints, proofs, receipts.

use quittance_evidence::note::{Note, VerifierKey};
use quittance_evidence::tree::{CompactRange, verify_consistency, verify_inclusion};
use quittance_evidence::{Hash, Receipt, SignedCheckpoint, leaf_hash};
use quittance_proto::v1::get_inclusion_proof_request::Entry;
use quittance_proto::v1::{
    self, GetCheckpointRequest, GetConsistencyProofRequest, GetEntryRequest,
    GetInclusionProofRequest,
};
use quittance_server::auth::Role;
use toml::Value;
use tonic::Code;

use crate::harness::process::{ServerProcess, run};
use crate::harness::site::{LOG_NAME, TENANT};
use crate::harness::{
    Keyed as _, Site, SiteOptions, World, authorization, capture, eventually, purchase, refund,
    sync, void,
};

fn hash(bytes: &[u8]) -> Hash {
    Hash::from_bytes(bytes.try_into().unwrap())
}

fn hashes(proof: &[Vec<u8>]) -> Vec<Hash> {
    proof.iter().map(|bytes| hash(bytes)).collect()
}

/// The published keys of a site's log, of checkpoints and of receipts.
fn published(site: &Site) -> [Vec<VerifierKey>; 2] {
    ["log.key", "receipt.key"].map(|file| {
        let secret = std::fs::read_to_string(site.audit.path().join(file)).unwrap();
        let key = quittance_evidence::note::SigningKey::parse(&secret).unwrap();
        vec![key.verifier().clone()]
    })
}

/// Size and root of a checkpoint, whose signature is checked.
pub fn verified(site: &Site, checkpoint: &v1::Checkpoint) -> (u64, Hash) {
    let note = Note::parse(checkpoint.signed_note.as_bytes()).unwrap();
    let [keys, _] = published(site);
    let signed = SignedCheckpoint::open(&note, &keys).unwrap();
    let stated = signed.checkpoint;
    assert_eq!(stated.origin.as_str(), LOG_NAME);
    assert_eq!(checkpoint.origin, LOG_NAME);
    assert_eq!(checkpoint.tree_size, stated.size);
    assert_eq!(checkpoint.root_hash, stated.root.as_bytes());
    (stated.size, stated.root)
}

fn inclusion_of(entry_id: &str) -> GetInclusionProofRequest {
    GetInclusionProofRequest {
        entry: Some(Entry::EntryId(entry_id.to_owned())),
        tree_size: 0,
    }
}

/// The proof of an entry, once it is merged.
async fn proof_of(world: &World, entry_id: &str) -> v1::GetInclusionProofResponse {
    eventually("the entry is merged", async || {
        match world.client.call(inclusion_of(entry_id)).await {
            Ok(proved) => Some(proved.message),
            Err(failure) => {
                failure.is(Code::FailedPrecondition, "ENTRY_NOT_MERGED");
                assert!(failure.retryable());
                None
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_entry_of_a_payment_is_proved_to_its_tenant_under_a_signed_checkpoint() {
    let world = World::start().await;
    let payment = world
        .client
        .create(authorization("tok_approve", 1000))
        .await;
    world.client.ok(capture(&payment, 300)).await;
    let entries = world.client.entries_of(&payment.payment_id).await;
    assert!(entries.len() >= 4);
    for entry in entries {
        let proved = proof_of(&world, &entry.entry_id).await;
        let (size, root) = verified(&world, proved.checkpoint.as_ref().unwrap());
        let proof = proved.proof.unwrap();
        assert_eq!(proof.tree_size, size);
        let read = world
            .client
            .ok(GetEntryRequest {
                entry_id: entry.entry_id,
            })
            .await;
        let leaf = leaf_hash(&read.entry.as_ref().unwrap().leaf_data);
        assert_eq!(proof.leaf_hash, leaf.as_bytes());
        let path = hashes(&proof.hashes);
        verify_inclusion(&leaf, proof.leaf_index, size, &path, &root).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_every_later_checkpoint_begins_with_that_of_an_earlier_one() {
    let world = World::start().await;
    let checkpoint = async || {
        let read = world.client.call(GetCheckpointRequest {}).await.ok()?;
        Some(verified(&world, read.checkpoint.as_ref().unwrap()))
    };
    let mut seen = vec![eventually("one is signed", checkpoint).await];
    for amount in 1..4 {
        world.client.create(purchase("tok_approve", amount)).await;
        let last = seen.last().unwrap().0;
        let newer = eventually("a larger one is signed", async || {
            checkpoint().await.filter(|(size, _)| *size > last)
        })
        .await;
        seen.push(newer);
    }
    let (size, root) = *seen.last().unwrap();
    for (old_size, old_root) in seen.into_iter().filter(|(old, _)| *old > 0) {
        let request = GetConsistencyProofRequest {
            first_tree_size: old_size,
            second_tree_size: size,
        };
        let proof = world.client.ok(request).await.message.proof.unwrap();
        let path = hashes(&proof.hashes);
        verify_consistency(old_size, &old_root, size, &root, &path).unwrap();
    }
}

/// A tile is a row: what is proved of a smaller tree has to lead to the newest checkpoint, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_no_proof_of_a_smaller_tree_is_given_from_a_tile_that_was_changed() {
    let world = World::start().await;
    let platform = world.as_role(TENANT, &[Role::PlatformAudit]).await;
    for amount in 1..4 {
        world.client.create(purchase("tok_approve", amount)).await;
    }
    let size = eventually("the tree has some entries", async || {
        let read = platform.call(GetCheckpointRequest {}).await.ok()?;
        let (size, _) = verified(&world, read.checkpoint.as_ref()?);
        (size > 6).then_some(size)
    })
    .await;
    let by_index = |leaf_index, tree_size| GetInclusionProofRequest {
        entry: Some(Entry::LeafIndex(leaf_index)),
        tree_size,
    };
    let consistency = |first_tree_size, second_tree_size| GetConsistencyProofRequest {
        first_tree_size,
        second_tree_size,
    };
    platform.ok(by_index(1, 4)).await;
    platform.ok(consistency(3, 5)).await;
    platform.ok(consistency(1, size)).await;
    let change = "alter table tree_tiles disable trigger all; \
                  update tree_tiles set hashes = set_byte(hashes, 32 * 2, 255 - get_byte(hashes, 32 * 2)) \
                  where level = 0 and tile_index = 0";
    for sql in change.split("; ") {
        world.db.execute(sql, &[]).await;
    }
    let failures = || world.metric("audit_verify_failures_total{check=\"proof\"");
    assert_eq!(failures(), Some(0.0));
    for refused in [
        platform.refused(by_index(1, 4)).await,
        platform.refused(consistency(3, 5)).await,
        platform.refused(consistency(1, size)).await,
    ] {
        refused.is(Code::Internal, "INTERNAL");
    }
    assert!(failures() >= Some(3.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_nobody_has_another_tenants_entry_proved_or_asks_by_position() {
    let world = World::start().await;
    let payment = world.client.create(purchase("tok_approve", 100)).await;
    let entry_id = world.client.entries_of(&payment.payment_id).await[0]
        .entry_id
        .clone();
    let proved = proof_of(&world, &entry_id).await.proof.unwrap();
    let stranger = world.other_tenant().await;
    let refused = stranger.refused(inclusion_of(&entry_id)).await;
    refused.is(Code::NotFound, "ENTRY_NOT_FOUND");
    let by_index = GetInclusionProofRequest {
        entry: Some(Entry::LeafIndex(proved.leaf_index)),
        tree_size: proved.tree_size,
    };
    let refused = world.client.refused(by_index.clone()).await;
    refused.is(Code::PermissionDenied, "ROLE_REQUIRED");
    let platform = world.as_role(TENANT, &[Role::PlatformAudit]).await;
    let same = platform.ok(by_index).await.message.proof.unwrap();
    assert_eq!(same, proved);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_beyond_the_newest_checkpoint_is_out_of_range() {
    let world = World::start().await;
    let payment = world.client.create(purchase("tok_approve", 100)).await;
    let entry_id = &world.client.entries_of(&payment.payment_id).await[0].entry_id;
    let proved = proof_of(&world, entry_id).await;
    let far = proved.checkpoint.unwrap().tree_size + 1_000_000;
    let beyond = GetInclusionProofRequest {
        tree_size: far,
        ..inclusion_of(entry_id)
    };
    let refused = world.client.refused(beyond).await;
    refused.is(Code::OutOfRange, "TREE_SIZE_OUT_OF_RANGE");
    for (first, second) in [(far, 0), (1, far), (2, 1)] {
        let request = GetConsistencyProofRequest {
            first_tree_size: first,
            second_tree_size: second,
        };
        let refused = world.client.refused(request).await;
        refused.is(Code::OutOfRange, "TREE_SIZE_OUT_OF_RANGE");
    }
    let nothing = GetConsistencyProofRequest::default();
    let refused = world.client.refused(nothing).await;
    refused.is(Code::InvalidArgument, "INVALID_FIELD");
    refused.names(&["first_tree_size"]);
    let nothing = world
        .client
        .refused(GetInclusionProofRequest::default())
        .await;
    nothing.names(&["entry"]);
}

/// What a receipt promises, whose signature is checked.
fn opened(site: &Site, receipt: &v1::Receipt) -> Receipt {
    let note = Note::parse(receipt.signed_note.as_bytes()).unwrap();
    let [of_checkpoints, keys] = published(site);
    let opened = Receipt::open(&note, &keys).unwrap();
    assert!(Receipt::open(&note, &of_checkpoints).is_err());
    assert_eq!(opened.entry_id.to_string(), receipt.entry_id);
    assert_eq!(opened.payment_id.to_string(), receipt.payment_id);
    assert_eq!(opened.entity_seq, receipt.entity_seq);
    assert_eq!(opened.leaf_hash.as_bytes().as_slice(), receipt.leaf_hash);
    opened
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_gets_a_receipt_of_its_acceptance_and_its_repetition_the_same() {
    let world = World::start().await;
    let client = &world.client;
    let create = authorization("tok_approve", 1000);
    let created = client.ok(create.clone()).await.message;
    let payment = created.payment.unwrap();
    let (taken, back, rest) = (
        capture(&payment, 300),
        refund(&payment, 100),
        void(&payment),
    );
    let mut receipts = vec![
        created.receipt.unwrap(),
        client.ok(taken.clone()).await.message.receipt.unwrap(),
        client.ok(back.clone()).await.message.receipt.unwrap(),
        client.ok(rest.clone()).await.message.receipt.unwrap(),
    ];
    // Another replica has none of them in memory.
    let replica = world.replica().await;
    let again = [
        replica.client.ok(create).await.message.receipt.unwrap(),
        replica.client.ok(taken).await.message.receipt.unwrap(),
        replica.client.ok(back).await.message.receipt.unwrap(),
        replica.client.ok(rest).await.message.receipt.unwrap(),
    ];
    assert_eq!(receipts, again);
    receipts.push(client.ok(sync(&payment)).await.message.receipt.unwrap());
    let entries = client.entries_of(&payment.payment_id).await;
    for receipt in &receipts {
        let promised = opened(&world, receipt);
        assert_eq!(receipt.payment_id, payment.payment_id);
        let entry_id = receipt.entry_id.clone();
        let read = client.ok(GetEntryRequest { entry_id }).await.message;
        let entry = read.entry.unwrap();
        assert_eq!(entry.entity_seq, promised.entity_seq);
        assert_eq!(leaf_hash(&entry.leaf_data), promised.leaf_hash);
        assert_eq!(entry.receipt.as_ref(), Some(receipt));
    }
    let accepted: Vec<u64> = receipts.iter().map(|receipt| receipt.entity_seq).collect();
    assert_eq!(accepted[0], 1);
    assert!(
        accepted.windows(2).all(|pair| pair[0] < pair[1]),
        "{accepted:?}"
    );
    let last = u64::try_from(entries.len()).unwrap();
    assert_eq!(accepted.last(), Some(&last));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_an_entry_that_was_rewritten_in_the_database_gets_no_receipt() {
    let world = World::start().await;
    let create = authorization("tok_approve", 1000);
    let created = world.client.ok(create.clone()).await.message;
    let payment = created.payment.unwrap();
    let receipt = created.receipt.unwrap();
    let get = GetEntryRequest {
        entry_id: receipt.entry_id.clone(),
    };
    let read = world.client.ok(get.clone()).await.message.entry.unwrap();
    assert_eq!(read.receipt, Some(receipt));
    // A field of no consequence, in every entry of the payment, by somebody who owns the database.
    let rewritten = "update journal set leaf = convert_to(replace(convert_from(leaf, 'utf8'), \
                     '\"instance\":\"', '\"instance\":\"x'), 'utf8') where stream_id = $1::text::uuid";
    world.db.execute(rewritten, &[&payment.payment_id]).await;
    let read = world.client.ok(get).await.message.entry.unwrap();
    assert!(
        read.source.unwrap().instance.starts_with('x'),
        "it is shown"
    );
    assert_eq!(read.receipt, None);
    assert_eq!(world.client.ok(sync(&payment)).await.message.receipt, None);
    // A server that did not write the entry itself does not know any more what was accepted under the key.
    let replica = world.replica().await;
    let refused = replica.client.refused(create).await;
    refused.is(Code::Internal, "INTERNAL");
    assert!(refused.money_may_have_moved());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repetition_while_a_payment_is_under_way_gets_the_same_receipt() {
    let world = World::start().await;
    let request = purchase("tok_requires_action", 700).key("once");
    let first = world.client.ok(request.clone()).await.message;
    let again = world.client.ok(request).await.message;
    assert_eq!(first.receipt, again.receipt);
    opened(&world, &first.receipt.unwrap());
}

impl Site {
    /// There is one tree, it holds every entry once at its position, and every head and every checkpoint ever made is
    /// of that tree. Waits until everything is covered by a checkpoint.
    pub async fn has_one_tree(&self) {
        let [keys, _] = published(self);
        self.roots_of_one_tree(&keys).await;
    }

    /// The same, where checkpoints are signed by one of `keys`. Gives the root of every size.
    pub async fn roots_of_one_tree(&self, keys: &[VerifierKey]) -> Vec<Hash> {
        let uncovered = "select (select count(*) from journal) - \
                         coalesce((select max(tree_size) from checkpoints), 0)";
        eventually("a checkpoint covers the log", async || {
            (self.db.number(uncovered).await <= 0).then_some(())
        })
        .await;
        let refused = "select count(*) from refused_entries";
        assert_eq!(self.db.number(refused).await, 0);
        let twice = "select count(*) - count(distinct entry_id) from journal_positions";
        assert_eq!(self.db.number(twice).await, 0);
        let missing = "select count(*) from journal j where not exists \
                       (select 1 from journal_positions p where p.entry_id = j.entry_id)";
        assert_eq!(self.db.number(missing).await, 0);
        let leaves = "select p.position, j.leaf from journal_positions p \
                      join journal j using (stream_id, entity_seq) order by p.position";
        let mut roots = vec![CompactRange::new().root()];
        let mut range = CompactRange::new();
        for (index, row) in (0_i64..).zip(self.db.rows(leaves, &[]).await) {
            assert_eq!(row.get::<_, i64>(0), index);
            range.push(leaf_hash(row.get(1)));
            roots.push(range.root());
        }
        let stated = "select tree_size, root_hash, null from tree_heads union all \
                      select tree_size, root_hash, note from checkpoints";
        for row in self.db.rows(stated, &[]).await {
            let size = usize::try_from(row.get::<_, i64>(0)).unwrap();
            assert_eq!(roots[size], hash(row.get(1)), "of size {size}");
            if let Some(note) = row.get::<_, Option<String>>(2) {
                let note = Note::parse(note.as_bytes()).unwrap();
                let signed = SignedCheckpoint::open(&note, keys).unwrap().checkpoint;
                assert_eq!(usize::try_from(signed.size).unwrap(), size);
                assert_eq!(signed.root, roots[size]);
            }
        }
        roots
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s76_two_replicas_grow_and_sign_one_tree_whoever_holds_the_lease() {
    let world = World::start().await;
    let replica = world.replica().await;
    for round in 0..8 {
        for client in [&world.client, &replica.client] {
            client.create(purchase("tok_approve", 100 + round)).await;
        }
        // The holder still believes that it is the one.
        let sql = "update sequencer_head set lease_until = '-infinity'";
        world.db.execute(sql, &[]).await;
    }
    world.has_one_tree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_an_entry_of_a_superuser_is_refused_reported_and_never_signed() {
    let world = World::start().await;
    let payment = world.client.create(purchase("tok_approve", 100)).await;
    world.has_one_tree().await;
    // A refund that never was: the entry of another one, a little changed.
    let sql = "insert into journal (stream_id, entity_seq, entry_id, tenant_id, event_type, result, actor, source, \
               occurred_at, leaf, leaf_hash, mac, mac_key_id) \
               select stream_id, entity_seq + 100, gen_random_uuid(), tenant_id, event_type, result, actor, source, \
               occurred_at, leaf, leaf_hash, mac, mac_key_id from journal where stream_id = $1::text::uuid \
               order by entity_seq desc limit 1";
    world.db.execute(sql, &[&payment.payment_id]).await;
    eventually("it is on record", async || {
        let refused = "select count(*) from refused_entries where reason = 'NOT_ITS_ROW'";
        (world.db.number(refused).await == 1).then_some(())
    })
    .await;
    eventually("it is counted", async || {
        let counted = world.metric("audit_verify_failures_total{check=\"entry\"")?;
        ((counted - 1.0).abs() < 0.5).then_some(())
    })
    .await;
    world.client.create(purchase("tok_approve", 200)).await;
    let covered =
        "select (select max(tree_size) from checkpoints) = (select count(*) from journal) - 1";
    eventually("everything else is signed", async || {
        world
            .db
            .row(covered, &[])
            .await
            .get::<_, bool>(0)
            .then_some(())
    })
    .await;
}

/// The published half of a key file.
fn verifier(file: &std::path::Path) -> VerifierKey {
    let secret = std::fs::read_to_string(file).unwrap();
    let key = quittance_evidence::note::SigningKey::parse(&secret).unwrap();
    key.verifier().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s79_a_key_of_the_log_is_replaced_by_commands_and_the_log_says_so() {
    let site = Site::new(SiteOptions::default()).await;
    let file = |name: &str| site.audit.path().join(name).to_str().unwrap().to_owned();
    let (old, new) = (file("log.key"), file("log-2.key"));
    let rotate = ["audit", "keys", "rotate", "--file", &new];
    let server = ServerProcess::start(&site, Vec::new()).await;
    server.client.create(purchase("tok_approve", 100)).await;
    let printed = run(&site, Vec::new(), &rotate).unwrap();
    let key = verifier(new.as_ref());
    assert!(printed.contains(&key.to_string()), "{printed}");
    let refused = run(&site, Vec::new(), &rotate).unwrap_err();
    assert!(
        refused.contains("log-2.key"),
        "what is there stays: {refused}"
    );
    let told = "select leaf from journal where event_type = 'audit.signing_key_made'";
    let rows = site.db.rows(told, &[]).await;
    assert_eq!(rows.len(), 1);
    let leaf = quittance_evidence::Leaf::decode(rows[0].get(0)).unwrap();
    assert_eq!(leaf.details["public_key"], key.to_string());
    assert_eq!(leaf.details["replaces"], verifier(old.as_ref()).to_string());
    // One server after the other: the old one still signs by itself meanwhile.
    let both = vec![(
        "audit.log_key_files",
        Value::from(vec![new.clone(), old.clone()]),
    )];
    let other = ServerProcess::start(&site, both).await;
    server.client.create(purchase("tok_approve", 200)).await;
    server.stop().await;
    // Which server signed with which keys, and from when on.
    let started = "select leaf from journal where event_type = 'service.started' order by entry_id";
    let started = site.db.rows(started, &[]).await;
    let named = started.iter().map(|row| {
        let leaf = quittance_evidence::Leaf::decode(row.get(0)).unwrap();
        let receipts = verifier(file("receipt.key").as_ref()).to_string();
        assert_eq!(leaf.details["receipt_key"], receipts);
        leaf.details["signing_keys"].clone()
    });
    let old_key = verifier(old.as_ref());
    assert_eq!(
        named.collect::<Vec<_>>(),
        [old_key.to_string(), format!("{key} {old_key}")]
    );
    other.client.create(purchase("tok_approve", 300)).await;
    let entries = site.db.number("select count(*) from journal").await;
    let entries = u64::try_from(entries).unwrap();
    eventually(
        "a checkpoint under the new key covers the log",
        async || {
            let read = other.client.call(GetCheckpointRequest {}).await.ok()?;
            let checkpoint = read.message.checkpoint.unwrap();
            let note = Note::parse(checkpoint.signed_note.as_bytes()).unwrap();
            let keys = [key.clone()];
            let signed = SignedCheckpoint::open(&note, &keys).ok()?;
            // Whoever only knows the old key is served as well.
            verified(&site, &checkpoint);
            (signed.checkpoint.size >= entries).then_some(())
        },
    )
    .await;
    site.has_one_tree().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s79_without_keys_or_state_a_server_says_what_to_do() {
    let site = Site::new(SiteOptions::default()).await;
    let refused = |settings| run(&site, settings, &["serve"]).unwrap_err();
    let said = refused(vec![("audit.receipt_key_file", Value::from(""))]);
    assert!(said.contains("audit.receipt_key_file"), "{said}");
    let elsewhere = site.audit.path().join("nothing");
    let nothing = vec![(
        "audit.state_directory",
        Value::from(elsewhere.to_str().unwrap()),
    )];
    let said = refused(nothing.clone());
    assert!(said.contains("quittance audit signer init"), "{said}");
    run(&site, nothing, &["audit", "signer", "init"]).unwrap();
    let again = run(&site, Vec::new(), &["audit", "signer", "init"]).unwrap_err();
    assert!(
        again.contains("holds the state of a signer already"),
        "{again}"
    );
}
