//! The end of a log: entries that were signed are lost for good, and another log goes on with what is left.

use quittance_evidence::bundle::{Bundle, TrustedKeys};
use quittance_evidence::note::{KeyName, Note, SigningKey, VerifierKey};
use quittance_evidence::{Checkpoint, Hash, SignedCheckpoint};
use quittance_proto::v1::GetCheckpointRequest;
use quittance_server::auth::Role;
use toml::{Table, Value};

use super::evidence::evidence_of;
use super::log_under_load::verifier;
use super::verification::verified;
use super::witness::{NAME, WitnessProcess};
use crate::harness::process::{ServerProcess, run};
use crate::harness::site::{LOG_NAME, Setting, TENANT};
use crate::harness::{Site, SiteOptions, eventually, purchase};

const INIT: [&str; 3] = ["audit", "signer", "init"];
const INIT_NEW_LOG: [&str; 4] = ["audit", "signer", "init", "--new-log"];
const ANOTHER: &str = "quittance.test/another-log";

/// Waits until a checkpoint over everything is served that the log and its witness have signed.
async fn cosigned(site: &Site, server: &ServerProcess, log: &VerifierKey, witness: &VerifierKey) {
    let entries = site.db.number("select count(*) from journal").await;
    let entries = u64::try_from(entries).unwrap();
    let keys = [log.clone(), witness.clone()];
    eventually("a checkpoint over it is cosigned", async || {
        let read = server.client.call(GetCheckpointRequest {}).await.ok()?;
        let checkpoint = read.message.checkpoint.unwrap();
        let note = Note::parse(checkpoint.signed_note.as_bytes()).unwrap();
        let signed = SignedCheckpoint::open(&note, &keys).unwrap();
        assert_eq!(signed.checkpoint.origin, *log.name());
        let cosigned = signed.cosigned().any(|(name, _)| name.as_str() == NAME);
        (signed.checkpoint.size >= entries && cosigned).then_some(())
    })
    .await;
}

async fn codes(site: &Site, server: &ServerProcess) -> Vec<String> {
    let auditor = site.caller(server.address, TENANT, &[Role::PlatformAudit]);
    let (found, _) = verified(&auditor.await).await;
    found.into_iter().map(|it| it.code).collect()
}

/// As after a failover: the signer's state knows of entries that the database does not have.
fn lose_entries(site: &Site) {
    let secret = std::fs::read_to_string(site.audit.path().join("log.key")).unwrap();
    let key = SigningKey::parse(&secret).unwrap();
    let file = site.audit.path().join("state/signer.toml");
    let mut state: Table = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    let note = Note::parse(state["note"].as_str().unwrap().as_bytes()).unwrap();
    let signed = Checkpoint::parse_text(note.text()).unwrap();
    let lost = Checkpoint {
        origin: KeyName::new(LOG_NAME).unwrap(),
        size: signed.size + 3,
        root: Hash::of(b"with what is lost"),
    };
    let note = lost.sign(&[&key]).unwrap().to_string();
    state.insert("note".to_owned(), note.into());
    std::fs::write(&file, state.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s79_where_signed_entries_are_lost_for_good_another_log_goes_on_with_what_is_left() {
    let site = Site::new(SiteOptions::default()).await;
    let mut witness = WitnessProcess::start(&site);
    let mut server = ServerProcess::start(&site, witness.settings()).await;
    let old = verifier(&site, "log.key");
    let before = server.client.create(purchase("tok_approve", 100)).await;
    cosigned(&site, &server, &old, &witness.key).await;
    assert_eq!(codes(&site, &server).await, [""; 0]);
    server.kill();
    lose_entries(&site);
    server.start_again().await;
    // Which of them, is said by how many entries it has written since.
    let found = codes(&site, &server).await;
    let lost = ["LOG_SET_BACK", "SIGNED_TREE_DIFFERS"];
    assert!(
        found.iter().any(|code| lost.contains(&code.as_str())),
        "{found:?}"
    );
    server.kill();

    let path = |name: &str| site.audit.path().join(name).to_str().unwrap().to_owned();
    let state = ("audit.state_directory", Value::from(path("another/state")));
    let refused = run(&site, vec![state.clone()], &INIT).unwrap_err();
    assert!(refused.contains("--new-log"), "{refused}");
    // Not under its old name.
    let refused = run(&site, vec![state.clone()], &INIT_NEW_LOG).unwrap_err();
    assert!(refused.contains("has a name of its own"), "{refused}");
    let directory = path("another");
    let generate = [
        "audit",
        "keys",
        "generate",
        "--directory",
        &directory,
        "--name",
        ANOTHER,
    ];
    run(&site, Vec::new(), &generate).unwrap();
    let another: Vec<Setting> = vec![
        ("audit.log_key_files", vec![path("another/log.key")].into()),
        ("audit.receipt_key_file", path("another/receipt.key").into()),
        state,
    ];
    run(&site, another.clone(), &INIT_NEW_LOG).unwrap();
    let stored = format!("select count(*) from checkpoints where note like '{ANOTHER}%'");
    assert_eq!(site.db.number(&stored).await, 1);
    let refused = run(&site, another.clone(), &INIT_NEW_LOG).unwrap_err();
    assert!(refused.contains("was signed before"), "{refused}");

    let new = verifier(&site, "another/log.key");
    witness.follow_another(&new);
    let settings: Vec<_> = witness.settings().into_iter().chain(another).collect();
    let server = ServerProcess::start(&site, settings).await;
    let after = server.client.create(purchase("tok_approve", 200)).await;
    cosigned(&site, &server, &new, &witness.key).await;
    // Also what was signed and cosigned under the old name.
    assert_eq!(codes(&site, &server).await, [""; 0]);
    let receipts = verifier(&site, "another/receipt.key");
    let keys = TrustedKeys::new(vec![new, receipts, witness.key.clone()]);
    for payment in [before, after] {
        eventually("the payment is proved by the new log", async || {
            let file = server.client.ok(evidence_of(&payment.payment_id)).await;
            let bundle = Bundle::decode(&file.message.bundle).unwrap();
            bundle.verify(&keys).is_proved().then_some(())
        })
        .await;
    }
    // A cosignature that no stored checkpoint has is not taken for one of a log before.
    let forge = "update checkpoints set note_digest = sha256('another') \
                 where tree_size = (select min(tree_size) from cosignatures)";
    site.db.execute(forge, &[]).await;
    let found = codes(&site, &server).await;
    assert!(
        found.iter().any(|code| code == "COSIGNATURE_FORGED"),
        "{found:?}"
    );
}
