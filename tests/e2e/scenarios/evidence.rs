//! The evidence bundle of a payment: exported by a server, checked by nobody but its reader.

use quittance_evidence::bundle::{Bundle, MAX_BUNDLE_ENTRIES, Report, TrustedKeys};
use quittance_evidence::note::{SigningKey, VerifierKey};
use quittance_evidence::{Hash, leaf_hash, page};
use quittance_proto::v1::{
    Customer, EvidenceForm, ExportEvidenceRequest, ExportEvidenceResponse, ListEntriesRequest,
    Payment,
};
use quittance_server::auth::Role;
use quittance_test_support::{JournalRow, entry_of_stream};
use tonic::Code;
use uuid::Uuid;

use crate::harness::command_line::CommandLine;
use crate::harness::process::command;
use crate::harness::python::{python_judges, python_verifier};
use crate::harness::site::{LOG_NAME, TENANT, TENANT_ROLES};
use crate::harness::{
    Client, CreateRequest as _, Site, SiteOptions, World, authorization, capture, eventually,
    purchase, refund,
};

/// Changed bundles that both verifiers judge.
const MUTATIONS: usize = 60;

/// The published keys of a site's log.
pub fn published(site: &Site) -> Vec<VerifierKey> {
    let key = |file: &str| {
        let secret = std::fs::read_to_string(site.audit.path().join(file)).unwrap();
        SigningKey::parse(&secret).unwrap().verifier().clone()
    };
    vec![key("log.key"), key("receipt.key")]
}

pub fn evidence_of(payment_id: &str) -> ExportEvidenceRequest {
    ExportEvidenceRequest {
        payment_id: payment_id.to_owned(),
        ..ExportEvidenceRequest::default()
    }
}

/// Exports a bundle, and checks it as its reader does.
pub async fn exported(
    world: &World,
    client: &Client,
    request: ExportEvidenceRequest,
) -> (ExportEvidenceResponse, Bundle, Report) {
    // It waits for a checkpoint for some seconds, and then says that there is none yet.
    let answer = eventually("a checkpoint covers it", async || {
        match client.call(request.clone()).await {
            Err(failure) if failure.reason == "ENTRY_NOT_MERGED" => None,
            answer => Some(answer.unwrap().message),
        }
    })
    .await;
    assert_eq!(answer.media_type, "application/json");
    let (bundle, report) = checked(world, &answer.bundle);
    (answer, bundle, report)
}

fn checked(world: &World, file: &[u8]) -> (Bundle, Report) {
    let bundle = Bundle::decode(file).unwrap();
    let report = bundle.verify(&TrustedKeys::new(published(world)));
    let failures: Vec<_> = report.failures().collect();
    assert!(report.is_proved(), "{failures:?}");
    (bundle, report)
}

pub fn is_proved(file: &[u8], keys: &TrustedKeys) -> bool {
    Bundle::decode(file).is_ok_and(|bundle| bundle.verify(keys).is_proved())
}

fn arthur() -> Customer {
    Customer {
        customer_reference: "customer-42".to_owned(),
        name: "Arthur Dent".to_owned(),
        email: "arthur@dent.example".to_owned(),
        ..Customer::default()
    }
}

/// A payment that much has happened to: an authorization, captures, and a refund.
async fn eventful(world: &World) -> Payment {
    let mut request = authorization("tok_approve", 1_000).merchant_reference("order-1");
    request.customer = Some(arthur());
    let payment = world.client.create(request).await;
    for amount in [300, 200] {
        world.client.ok(capture(&payment, amount)).await;
    }
    let answer = world.client.ok(refund(&payment, 100)).await;
    answer.message.payment.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exported_bundle_covers_the_payment_and_verifies_with_the_published_keys_alone() {
    let world = World::start().await;
    let payment = eventful(&world).await;
    // At once: the call waits for the checkpoint.
    let id = payment.payment_id.as_str();
    let (answer, bundle, report) = exported(&world, &world.client, evidence_of(id)).await;
    let entries = world.client.entries_of(id).await;
    assert_eq!(answer.last_entity_seq, payment.version);
    let leaves: Vec<_> = bundle
        .entries
        .iter()
        .map(|entry| entry.leaf_data.as_bytes())
        .collect();
    let stored: Vec<_> = entries
        .iter()
        .map(|entry| entry.leaf_data.as_slice())
        .collect();
    assert_eq!(leaves, stored, "every entry, byte for byte, in order");
    assert_eq!(answer.file_name, format!("evidence-{id}.json"));
    assert!(answer.source_bundle.is_empty());
    let checkpoint = answer.checkpoint.unwrap();
    assert_eq!(checkpoint.signed_note, bundle.checkpoint.to_string());
    assert_eq!(Some(checkpoint.tree_size), report.tree_size);
    assert_eq!(report.origin.unwrap().as_str(), LOG_NAME);
    // A declined payment proves itself as well.
    let declined = world.client.create(purchase("tok_decline", 500)).await;
    let (_, _, report) = exported(&world, &world.client, evidence_of(&declined.payment_id)).await;
    let last = report.entries.last().unwrap();
    assert_eq!(last.leaf.decline_code.as_deref(), Some("DO_NOT_HONOR"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_verifiers_judge_an_exported_bundle_and_every_change_of_it_alike() {
    let Some(python) = python_verifier().await else {
        return;
    };
    let world = World::start().await;
    let payment = eventful(&world).await;
    let (answer, _, _) = exported(&world, &world.client, evidence_of(&payment.payment_id)).await;
    let keys = TrustedKeys::new(published(&world));
    let mut files = vec![answer.bundle.clone()];
    files.extend((0..MUTATIONS).map(|number| mutated(&answer.bundle, number)));
    let theirs = python_judges(&python, &files, &published(&world)).await;
    let ours: Vec<_> = files.iter().map(|file| is_proved(file, &keys)).collect();
    assert_eq!(theirs, ours);
    assert_eq!(ours.iter().filter(|proved| **proved).count(), 1);
    assert!(ours[0]);
}

/// One change at a place that nobody chose: places and kinds come from a hash, which also differs with the file.
fn mutated(file: &[u8], number: usize) -> Vec<u8> {
    let lots = Hash::of(&[file, number.to_string().as_bytes()].concat());
    let lots = lots.as_bytes();
    let mut file = file.to_vec();
    let place = u32::from_be_bytes(lots[..4].try_into().unwrap());
    let at = usize::try_from(place).unwrap() % file.len();
    match lots[4] % 4 {
        0 => file[at] ^= 1 << (lots[5] % 8),
        1 => drop(file.remove(at)),
        2 => file.insert(at, b'0'),
        _ => file.truncate(at),
    }
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_the_bundle_that_comes_with_it() {
    let world = World::start().await;
    let payment = eventful(&world).await;
    let request = ExportEvidenceRequest {
        form: EvidenceForm::Html.into(),
        ..evidence_of(&payment.payment_id)
    };
    let answer = world.client.ok(request).await.message;
    assert_eq!(answer.media_type, "text/html; charset=utf-8");
    let name = format!("evidence-{}.html", payment.payment_id);
    assert_eq!(answer.file_name, name);
    let (bundle, _) = checked(&world, &answer.source_bundle);
    assert_eq!(bundle.payment_id.to_string(), payment.payment_id);
    let shown = String::from_utf8(answer.bundle).unwrap();
    let keys = TrustedKeys::new(published(&world));
    let rendered = page::render(&answer.source_bundle, &keys).unwrap();
    assert_eq!(shown, rendered, "anybody makes the same page of it");
    assert!(shown.contains(&Hash::of(&answer.source_bundle).to_string()));
    for told in ["Proved", "order-1", "Arthur Dent"] {
        assert!(shown.contains(told), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn personal_data_is_disclosed_to_whom_it_may_be() {
    let world = World::start().await;
    let payment = eventful(&world).await;
    let request = evidence_of(&payment.payment_id);
    let names = |bundle: &Bundle| -> Vec<String> {
        let values = bundle.disclosures.iter();
        let mut values: Vec<_> = values.map(|one| one.value().to_owned()).collect();
        values.sort();
        values
    };
    let (answer, bundle, report) = exported(&world, &world.client, request.clone()).await;
    assert_eq!(names(&bundle), ["Arthur Dent", "arthur@dent.example"]);
    assert_eq!(answer.disclosures, 2);
    assert_eq!(report.disclosures.len(), 2);

    let omitting = ExportEvidenceRequest {
        omit_disclosures: true,
        ..request.clone()
    };
    let auditor = world.as_role(TENANT, &[Role::AuditRead]).await;
    let platform = [Role::PlatformAudit, Role::PaymentsRead];
    let platform = world.as_role("platform", &platform).await;
    for (client, request) in [
        (&world.client, omitting),
        (&auditor, request.clone()),
        (&platform, request),
    ] {
        let (answer, bundle, _) = exported(&world, client, request).await;
        assert_eq!((names(&bundle).len(), answer.disclosures), (0, 0));
        let text = String::from_utf8(answer.bundle).unwrap();
        assert!(!text.contains("dent.example"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_holds_nothing_of_another_tenant_and_who_asks_for_theirs_finds_none() {
    let world = World::start().await;
    let stranger = world.other_tenant().await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for number in 0..5 {
        let reference = |whose: &str| format!("{whose}-{number}");
        let request = authorization("tok_approve", 1_000).merchant_reference(&reference("ours"));
        let (mine, other) = tokio::join!(
            world.client.create(request),
            stranger.create(
                purchase("tok_approve", 771_234_567_891).merchant_reference(&reference("theirs"))
            )
        );
        world.client.ok(capture(&mine, 100)).await;
        stranger.ok(refund(&other, 1)).await;
        ours.push(mine);
        theirs.push(other);
    }
    let mut secrets = vec![
        "globex".to_owned(),
        "theirs-".to_owned(),
        "771234567891".to_owned(),
    ];
    let mut leaves = Vec::new();
    for payment in &theirs {
        let refused = world.client.refused(evidence_of(&payment.payment_id)).await;
        refused.is(Code::NotFound, "PAYMENT_NOT_FOUND");
        assert!(!refused.money_may_have_moved());
        secrets.push(payment.payment_id.clone());
        for entry in stranger.entries_of(&payment.payment_id).await {
            secrets.extend([entry.entry_id, entry.transaction_id, entry.trace_id]);
            leaves.push(entry.leaf_data);
        }
    }
    for payment in &ours {
        let request = evidence_of(&payment.payment_id);
        let (answer, bundle, _) = exported(&world, &world.client, request).await;
        let text = String::from_utf8(answer.bundle).unwrap();
        for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
            assert!(!text.contains(secret.as_str()), "{secret} is in {text}");
        }
        for leaf in &leaves {
            let leaf = std::str::from_utf8(leaf).unwrap();
            assert!(!text.contains(leaf));
        }
        // A neighbour's leaf hash may be a sibling: it is salted, and tells nothing. Nowhere else is one.
        for leaf in &leaves {
            let hash = leaf_hash(leaf).to_string();
            let siblings = bundle
                .entries
                .iter()
                .flat_map(|entry| &entry.inclusion_proof);
            let among_them = siblings.filter(|step| step.to_string() == hash).count();
            assert_eq!(text.matches(&hash).count(), among_them);
        }
    }
    // Who may read across tenants is given theirs.
    let platform = world.as_role("platform", &[Role::PlatformAudit]).await;
    exported(&world, &platform, evidence_of(&theirs[0].payment_id)).await;
    let nobodys = evidence_of("0198c5a2-0000-7000-8000-000000000001");
    let refused = world.client.refused(nobodys).await;
    refused.is(Code::NotFound, "PAYMENT_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_exported_what_is_on_record_before_it_is_given() {
    let world = World::start().await;
    let payment = world.client.create(purchase("tok_approve", 100)).await;
    let request = ExportEvidenceRequest {
        form: EvidenceForm::Html.into(),
        ..evidence_of(&payment.payment_id)
    };
    world.client.ok(request).await;
    let none = evidence_of("0198c5a2-0000-7000-8000-000000000001");
    world.client.refused(none).await;
    let request = ListEntriesRequest {
        event_type: "audit.evidence_exported".to_owned(),
        ..ListEntriesRequest::default()
    };
    let entries = world.client.entries(request).await;
    let [given, looked] = entries.as_slice() else {
        panic!("{entries:?}");
    };
    assert_eq!(given.payment_id, payment.payment_id);
    assert_ne!(looked.payment_id, payment.payment_id);
    let facts = |name: &str| given.details.get(name).map(String::as_str);
    assert_eq!(facts("form"), Some("html"));
    assert_eq!(facts("personal_data"), Some("disclosed"));
    assert!(given.actor.is_some());
    // It is no part of the evidence: that is the payment's own entries.
    let (_, bundle, _) = exported(&world, &world.client, evidence_of(&payment.payment_id)).await;
    assert_eq!(
        bundle.entries.len(),
        usize::try_from(payment.version).unwrap()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_checkpoint_covers_the_payment_in_time_the_caller_is_told_to_ask_again() {
    // Signed when the server starts, and then not for a minute.
    let world =
        World::start_with(SiteOptions::default().with("audit.checkpoint_interval_ms", 60_000))
            .await;
    eventually("the first look of the signer is over", async || {
        let sql = "select count(*) from tree_heads";
        (world.db.number(sql).await > 0).then_some(())
    })
    .await;
    let payment = world.client.create(purchase("tok_approve", 100)).await;
    let refused = world.client.refused(evidence_of(&payment.payment_id));
    let refused = refused.await;
    refused.is(Code::FailedPrecondition, "ENTRY_NOT_MERGED");
    assert!(refused.retryable());
    assert!(!refused.money_may_have_moved());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_with_more_entries_than_a_bundle_holds_is_refused_with_a_way_out() {
    let world = World::start().await;
    let payment = Uuid::now_v7();
    let rows: Vec<_> = (1..=u64::try_from(MAX_BUNDLE_ENTRIES).unwrap() + 1)
        .map(|seq| JournalRow::under(&world.keys, &entry_of_stream(TENANT, payment, seq)).insert())
        .collect();
    for some in rows.chunks(1_000) {
        world.db.batch(&some.join("; ")).await;
    }
    let index = "update journal set payment_id = stream_id where stream_id = $1::text::uuid";
    world.db.execute(index, &[&payment.to_string()]).await;
    let uncovered = "select (select count(*) from journal) - coalesce((select max(tree_size) from checkpoints), 0)";
    eventually("a checkpoint covers all of them", async || {
        (world.db.number(uncovered).await <= 0).then_some(())
    })
    .await;
    let refused = world
        .client
        .refused(evidence_of(&payment.to_string()))
        .await;
    refused.is(Code::FailedPrecondition, "EVIDENCE_TOO_LARGE");
    assert!(!refused.retryable() && !refused.money_may_have_moved());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_exports_what_it_then_verifies_offline() {
    let world = World::start().await;
    let payment = eventful(&world).await;
    let id = payment.payment_id.as_str();
    let shell = CommandLine::new(&world, "audit", &TENANT_ROLES).await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (file, html, bare) = (path("bundle.json"), path("page.html"), path("bare.json"));
    let said = shell
        .prints(&["export", id, "--out", &file, "--html", &html])
        .await;
    assert!(said.contains("personal data: 2 values"), "{said}");
    assert!(said.contains("quittance evidence verify"), "{said}");
    let bytes = std::fs::read(&file).unwrap();
    checked(&world, &bytes);
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains(&Hash::of(&bytes).to_string()));
    let without = ["export", id, "--out", &bare, "--without-personal-data"];
    let said = shell.prints(&without).await;
    assert!(said.contains("no personal data"), "{said}");

    for file in [&file, &bare] {
        let mut verify = command(&["evidence", "verify", file]);
        for key in published(&world) {
            verify.args(["--key", &key.to_string()]);
        }
        let output = tokio::task::spawn_blocking(move || verify.output().unwrap());
        let output = output.await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && said.contains("PROVED"), "{said}");
    }

    let nobodys = "0198c5a2-0000-7000-8000-000000000001";
    let refused = shell
        .fails(3, &["export", nobodys, "--out", &path("none")])
        .await;
    assert!(refused.contains("PAYMENT_NOT_FOUND"), "{refused}");
    assert!(!directory.path().join("none").exists());
    let malformed = shell.fails(2, &["export", "no-payment"]).await;
    assert!(malformed.contains("no-payment"), "{malformed}");
}
