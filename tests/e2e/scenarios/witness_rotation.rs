//! The key of the log is replaced while a witness cosigns: whoever has the new key and the witness's proves everything, also what
//! was signed before.

use quittance_evidence::SignedCheckpoint;
use quittance_evidence::bundle::{Bundle, TrustedKeys};
use quittance_evidence::note::{Note, VerifierKey};
use quittance_proto::v1::GetCheckpointRequest;
use toml::Value;

use super::evidence::evidence_of;
use super::log_under_load::verifier;
use super::witness::{NAME, WitnessProcess};
use crate::harness::process::{ServerProcess, run};
use crate::harness::python::{python_judges, python_verifier};
use crate::harness::site::Setting;
use crate::harness::{Client, Site, SiteOptions, eventually, purchase};

/// Pays, and waits until the log with it is cosigned under exactly these keys of the log.
async fn pay_until_cosigned(
    site: &Site,
    client: &Client,
    by: &[&VerifierKey],
    known: &[VerifierKey; 3],
) -> String {
    let payment = client.create(purchase("tok_approve", 100)).await;
    let entries = site.db.number("select count(*) from journal").await;
    let entries = u64::try_from(entries).unwrap();
    eventually("a checkpoint over it is cosigned", async || {
        let read = client.call(GetCheckpointRequest {}).await.ok()?;
        let checkpoint = read.message.checkpoint.unwrap();
        let note = Note::parse(checkpoint.signed_note.as_bytes()).unwrap();
        let signed = SignedCheckpoint::open(&note, known).unwrap();
        let cosigned = signed.cosigned().any(|(name, _)| name.as_str() == NAME);
        let log = known[..2].iter();
        let signers: Vec<_> = log
            .filter(|key| {
                note.signatures()
                    .iter()
                    .any(|signature| signature.is_of(key))
            })
            .collect();
        (signed.checkpoint.size >= entries && cosigned && signers == by).then_some(())
    })
    .await;
    payment.payment_id
}

/// The bundle of a payment once it is dated by the witness.
async fn cosigned_bundle(client: &Client, payment: &str, keys: &[VerifierKey]) -> Vec<u8> {
    eventually("the payment's bundle is dated by the witness", async || {
        let file = client.ok(evidence_of(payment)).await.message.bundle;
        is_proved(&file, keys).then_some(file)
    })
    .await
}

/// With a witness's key, only what it cosigned is.
fn is_proved(file: &[u8], keys: &[VerifierKey]) -> bool {
    let bundle = Bundle::decode(file).unwrap();
    bundle.verify(&TrustedKeys::new(keys.to_vec())).is_proved()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s79_a_key_of_the_log_is_replaced_while_a_witness_cosigns_and_both_verifiers_follow() {
    let site = Site::new(SiteOptions::default()).await;
    let mut witness = WitnessProcess::start(&site);
    let path = |file: &str| site.audit.path().join(file).to_str().unwrap().to_owned();
    let settings = |files: &[&str]| -> Vec<Setting> {
        let files: Vec<_> = files.iter().map(|file| path(file)).collect();
        let mut settings = witness.settings();
        settings.push(("audit.log_key_files", Value::from(files)));
        settings
    };
    let [alone, both, new_alone] = [
        settings(&["log.key"]),
        settings(&["log-2.key", "log.key"]),
        settings(&["log-2.key"]),
    ];
    let mut server = ServerProcess::start(&site, alone).await;
    let new_file = path("log-2.key");
    run(
        &site,
        Vec::new(),
        &["audit", "keys", "rotate", "--file", &new_file],
    )
    .unwrap();
    let [old, new] = ["log.key", "log-2.key"].map(|file| verifier(&site, file));
    let known = [old.clone(), new.clone(), witness.key.clone()];
    let receipts = verifier(&site, "receipt.key");
    let reader = |log: &VerifierKey| vec![log.clone(), receipts.clone(), witness.key.clone()];
    let (of_old, of_new) = (reader(&old), reader(&new));

    let first = pay_until_cosigned(&site, &server.client, &[&old], &known).await;
    let before = cosigned_bundle(&server.client, &first, &of_old).await;
    // Both sign: a witness that knows the old key alone goes on, and is told of the new one meanwhile.
    server.start_anew(&site, both).await;
    pay_until_cosigned(&site, &server.client, &[&old, &new], &known).await;
    let during = cosigned_bundle(&server.client, &first, &of_new).await;
    witness.follow(&[&old, &new]);
    pay_until_cosigned(&site, &server.client, &[&old, &new], &known).await;
    // The old one is taken out, here and then there.
    server.start_anew(&site, new_alone).await;
    pay_until_cosigned(&site, &server.client, &[&new], &known).await;
    witness.follow(&[&new]);
    let last = pay_until_cosigned(&site, &server.client, &[&new], &known).await;
    let after = cosigned_bundle(&server.client, &first, &of_new).await;
    let of_last = cosigned_bundle(&server.client, &last, &of_new).await;

    let files = [before, during, after, of_last];
    let judged = |keys: &[VerifierKey]| files.each_ref().map(|file| is_proved(file, keys)).to_vec();
    assert_eq!(judged(&of_old), [true, true, false, false]);
    assert_eq!(judged(&of_new), [false, true, true, true]);
    if let Some(python) = python_verifier().await {
        for keys in [&of_old, &of_new] {
            assert_eq!(python_judges(&python, &files, keys).await, judged(keys));
        }
    }
    // A stranger's cosignature is not the witness's.
    let stranger = WitnessProcess::start(&site).key.clone();
    assert!(!is_proved(&files[2], &[new, receipts, stranger]));
    let log = server.stop().await;
    assert!(!log.contains("a witness refuses this log"), "{log}");
}
