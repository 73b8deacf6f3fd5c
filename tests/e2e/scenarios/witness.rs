//! A witness beside the server, as a process of its own with a state of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use quittance_evidence::SignedCheckpoint;
use quittance_evidence::note::{Note, VerifierKey};
use quittance_proto::v1::{EvidenceForm, ExportEvidenceRequest, GetCheckpointRequest};
use quittance_server::signing;
use tempfile::TempDir;
use tokio::net::TcpSocket;
use toml::Value;

use super::evidence::{evidence_of, exported, published};
use crate::harness::process::command;
use crate::harness::site::{LOG_NAME, Setting};
use crate::harness::{Site, SiteOptions, World, eventually, purchase};

pub const NAME: &str = "witness.test/w1";

/// `quittance witness serve`. Killed when dropped.
pub struct WitnessProcess {
    running: Child,
    address: SocketAddr,
    /// Keeps the port its own while it is not running: bound, and never listening.
    _port: TcpSocket,
    pub key: VerifierKey,
    log_keys: Vec<String>,
    directory: TempDir,
}

impl Drop for WitnessProcess {
    fn drop(&mut self) {
        let _ = self.running.kill();
        let _ = self.running.wait();
    }
}

impl WitnessProcess {
    /// A witness that follows the log of a site from its first entry.
    pub fn start(site: &Site) -> Self {
        let [log, _] = signing::published(site.audit.path()).unwrap();
        let (directory, log_keys) = (TempDir::new().unwrap(), vec![log.to_string()]);
        let made = arguments("init", &directory, &log_keys);
        let made = command(&made.iter().map(String::as_str).collect::<Vec<_>>())
            .args(["--name", NAME])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let printed = String::from_utf8(made.stdout).unwrap();
        let key = printed.lines().last().unwrap().parse().unwrap();
        let port = TcpSocket::new_v4().unwrap();
        // The witness's listener comes beside it.
        port.set_reuseaddr(true).unwrap();
        port.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let wanted = port.local_addr().unwrap().to_string();
        let (running, address) = serve(&directory, &log_keys, &wanted);
        Self {
            running,
            address,
            _port: port,
            key,
            log_keys,
            directory,
        }
    }

    fn kill(&mut self) {
        self.running.kill().unwrap();
        self.running.wait().unwrap();
    }

    fn start_again(&mut self) {
        let (running, address) = serve(&self.directory, &self.log_keys, &self.address.to_string());
        assert_eq!(address, self.address);
        self.running = running;
    }

    /// Starts it anew, as its operator does who is told of other keys of the log.
    pub fn follow(&mut self, log_keys: &[&VerifierKey]) {
        self.kill();
        self.log_keys = log_keys.iter().map(ToString::to_string).collect();
        self.start_again();
    }

    /// Has it follow another log as well, from its first entry.
    pub fn follow_another(&mut self, log_key: &VerifierKey) {
        self.kill();
        let made = arguments("init", &self.directory, &[log_key.to_string()]);
        let made = command(&made.iter().map(String::as_str).collect::<Vec<_>>()).output();
        assert!(made.as_ref().unwrap().status.success(), "{made:?}");
        self.log_keys.push(log_key.to_string());
        self.start_again();
    }

    /// What a server is told of it.
    pub fn settings(&self) -> Vec<Setting> {
        let witness = format!("http://{} {}", self.address, self.key);
        vec![
            ("audit.witnesses", Value::from(vec![witness])),
            ("audit.allow_plaintext_witnesses", Value::from(true)),
            ("audit.witness_interval_ms", Value::from(100)),
            ("audit.checkpoint_interval_ms", Value::from(100)),
        ]
    }
}

fn arguments(what: &str, directory: &TempDir, log_keys: &[String]) -> Vec<String> {
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (key, state) = (path("witness.key"), path("state"));
    let arguments = ["witness", what, "--key-file", &key, "--state", &state];
    let followed = log_keys.iter().flat_map(|key| ["--log-key", key.as_str()]);
    arguments
        .into_iter()
        .chain(followed)
        .map(str::to_owned)
        .collect()
}

fn serve(directory: &TempDir, log_keys: &[String], listen: &str) -> (Child, SocketAddr) {
    let arguments = arguments("serve", directory, log_keys);
    let mut running = command(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        .args(["--listen", listen])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    let address = lines.find_map(|line| {
        let line = line.unwrap();
        line.strip_prefix("Listening on http://")
            .map(|address| address.parse().unwrap())
    });
    (running, address.expect("it says where it listens"))
}

/// The size of the newest checkpoint, and whether the witness cosigned it; both signatures are checked.
async fn newest(world: &World, witness: &WitnessProcess) -> Option<(u64, bool)> {
    let read = world.client.call(GetCheckpointRequest {}).await.ok()?;
    let checkpoint = read.message.checkpoint.unwrap();
    let note = Note::parse(checkpoint.signed_note.as_bytes()).unwrap();
    let [log, _] = signing::published(world.audit.path()).unwrap();
    let keys = [log, witness.key.clone()];
    let signed = SignedCheckpoint::open(&note, &keys).unwrap();
    let cosigned = signed.cosigned().any(|(name, _)| name.as_str() == NAME);
    Some((signed.checkpoint.size, cosigned))
}

/// Waits until a checkpoint of at least so many entries is cosigned; answers its size.
async fn cosigned(world: &World, witness: &WitnessProcess, at_least: u64) -> u64 {
    eventually("a checkpoint is cosigned", async || {
        let (size, cosigned) = newest(world, witness).await?;
        (cosigned && size >= at_least).then_some(size)
    })
    .await
}

/// The page that the server makes of a payment.
async fn page_of(world: &World, payment_id: &str) -> String {
    let request = ExportEvidenceRequest {
        form: EvidenceForm::Html.into(),
        ..evidence_of(payment_id)
    };
    let answer = world.client.ok(request).await.message;
    String::from_utf8(answer.bundle).unwrap()
}

/// Whether the witness was ever asked with that result.
fn asked(world: &World, result: &str) -> bool {
    let series =
        format!("audit_witness_cosignatures_total{{result=\"{result}\",witness=\"{NAME}\"}}");
    world.metric(&series).is_some_and(|count| count > 0.0)
}

fn alarmed(world: &World) -> bool {
    let series = "audit_verify_failures_total{check=\"witness\"";
    world.metric(series).is_some_and(|count| count > 0.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_cosigns_every_checkpoint_and_one_that_is_away_holds_nothing_up() {
    let site = Site::new(SiteOptions::default()).await;
    let mut witness = WitnessProcess::start(&site);
    let world = World::on(site, witness.settings()).await;
    let payment = world.client.create(purchase("tok_approve", 100)).await;
    let first = cosigned(&world, &witness, 1).await;
    let id = payment.payment_id.as_str();
    eventually("the payment's bundle is dated by the witness", async || {
        let (_, bundle, _) = exported(&world, &world.client, evidence_of(id)).await;
        let mut keys = published(&world);
        keys.push(witness.key.clone());
        let signed = SignedCheckpoint::open(&bundle.checkpoint, &keys).unwrap();
        signed.cosigned().next()
    })
    .await;

    let page = page_of(&world, id).await;
    let keys = published(&world);
    for key in keys.iter().chain([&witness.key]) {
        assert!(
            page.contains(&key.to_string()),
            "the page has every key that it takes"
        );
    }
    assert!(page.contains(&format!("The witness {NAME} saw this state of the log at")));

    witness.kill();
    for amount in 1..6 {
        world.client.create(purchase("tok_approve", amount)).await;
    }
    // Everything is signed, and not cosigned.
    world.has_one_tree().await;
    // A page waits for no witness either, and says which is missing.
    let late = world.client.create(purchase("tok_approve", 7)).await;
    let page = page_of(&world, &late.payment_id).await;
    assert!(page.contains(">Proved<"));
    assert!(page.contains(&format!("The witness {NAME} has not cosigned this state")));
    let (entries, is_cosigned) = newest(&world, &witness).await.unwrap();
    assert!(entries > first && !is_cosigned);
    eventually("the failure is counted", async || {
        asked(&world, "failed").then_some(())
    })
    .await;

    witness.start_again();
    cosigned(&world, &witness, entries).await;
    assert!(asked(&world, "cosigned"));
    assert!(!asked(&world, "refused") && !alarmed(&world));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_ask_one_witness_and_a_lost_table_is_caught_up_with() {
    let site = Site::new(SiteOptions::default()).await;
    let witness = WitnessProcess::start(&site);
    let world = World::on(site, witness.settings()).await;
    let replica = world.replica().await;
    for amount in 1..4 {
        for client in [&world.client, &replica.client] {
            client.create(purchase("tok_approve", amount)).await;
        }
    }
    let entries = cosigned(&world, &witness, 6).await;
    // What was kept of it is gone: the witness says itself where it is.
    world.db.execute("delete from cosignatures", &[]).await;
    world.client.create(purchase("tok_approve", 7)).await;
    cosigned(&world, &witness, entries + 1).await;
    assert!(!asked(&world, "refused") && !alarmed(&world));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_forged_cosignatures_neither_hide_the_witness_nor_stop_it_and_an_alert_is_raised() {
    let site = Site::new(SiteOptions::default()).await;
    let witness = WitnessProcess::start(&site);
    let world = World::on(site, witness.settings()).await;
    let payment = world.client.create(purchase("tok_approve", 100)).await;
    let known = cosigned(&world, &witness, 1).await;
    let name = format!("{NAME}+{}", witness.key.id());
    // Of a tree larger than any, and of those that come next, in the place that the witness's own will have.
    let forged = "insert into cosignatures (tree_size, witness, root_hash, cosigned_at, line) \
                  select size, $1, sha256('x'), now(), 'nothing' from unnest(array[9000000000000000000]) size \
                  union all select size, $1, root_hash, now(), line || size || E'\\n' from cosignatures, \
                  generate_series(tree_size + 1, tree_size + 40) size where tree_size = (select min(tree_size) from cosignatures)";
    world.db.execute(forged, &[&name]).await;
    // And at the very moment of each checkpoint, over its own root: as if another server had asked the witness.
    let at_once = format!(
        "create function forge() returns trigger language plpgsql security definer as $$ begin \
         insert into cosignatures (tree_size, witness, root_hash, cosigned_at, line) \
         select new.tree_size, '{name}', new.root_hash, now(), line from cosignatures \
         order by tree_size limit 1 on conflict do nothing; return new; end $$; \
         create trigger forge after insert on checkpoints for each row execute function forge()"
    );
    world.db.batch(&at_once).await;
    for amount in 1..4 {
        world.client.create(purchase("tok_approve", amount)).await;
    }
    cosigned(&world, &witness, known + 1).await;
    let id = payment.payment_id.as_str();
    eventually("the payment's bundle is dated by the witness", async || {
        let (_, bundle, _) = exported(&world, &world.client, evidence_of(id)).await;
        let mut keys = published(&world);
        keys.push(witness.key.clone());
        let signed = SignedCheckpoint::open(&bundle.checkpoint, &keys).unwrap();
        signed.cosigned().next()
    })
    .await;
    assert!(!asked(&world, "refused") && !alarmed(&world));
    let series = "audit_verify_failures_total{check=\"cosignature\"";
    assert!(world.metric(series) > Some(0.0));
}

/// Whoever has the database, the signing keys and the signer's state writes another history, and signs it. Only the
/// witness knows better.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_a_log_rewritten_with_the_signing_key_is_refused_by_the_witness_and_an_alert_is_raised()
{
    let site = Site::new(SiteOptions::default()).await;
    let witness = WitnessProcess::start(&site);
    let world = World::on(site, witness.settings()).await;
    world.client.create(purchase("tok_approve", 100)).await;
    let known = cosigned(&world, &witness, 1).await;

    let forger = Site::new(SiteOptions::default()).await;
    let state = forger.audit.path().join("state");
    std::fs::remove_dir_all(&state).unwrap();
    for file in ["log.key", "receipt.key"] {
        let [from, to] = [&*world, &forger].map(|site: &Site| site.audit.path().join(file));
        std::fs::copy(from, to).unwrap();
    }
    drop(world);
    signing::set_up(forger.audit.path(), LOG_NAME).unwrap();
    let rewritten = World::on(forger, witness.settings()).await;
    // At first it is shorter than what the witness knows, then longer, and never its continuation.
    for amount in 0..known {
        let amount = i64::try_from(amount).unwrap() + 1;
        rewritten
            .client
            .create(purchase("tok_approve", amount))
            .await;
    }
    rewritten.has_one_tree().await;
    let (entries, _) = newest(&rewritten, &witness).await.unwrap();
    assert!(entries > known);
    eventually("the witness refuses, and an alert is raised", async || {
        (asked(&rewritten, "refused") && alarmed(&rewritten)).then_some(())
    })
    .await;
    assert!(!asked(&rewritten, "cosigned"));
    let kept = rewritten
        .db
        .number("select count(*) from cosignatures")
        .await;
    assert_eq!(kept, 0);
}
