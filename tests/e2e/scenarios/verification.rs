//! The whole log verified through the server: asked for, from the command line, and by itself.

use std::process::Output;

use quittance_proto::v1::verify_log_response::Event;
use quittance_proto::v1::{
    GetEntryRequest, LogMismatch, TailEntriesRequest, VerificationStage, VerificationSummary,
    WatchPaymentsRequest,
};
use quittance_server::auth::Role;
use tempfile::TempDir;
use toml::Value;
use tonic::Code;

use crate::harness::database::Database;
use crate::harness::process::command;
use crate::harness::site::{LOG_NAME, TENANT};
use crate::harness::tls::pki;
use crate::harness::{
    Client, CreateRequest as _, Site, SiteOptions, World, authorization, capture, eventually,
    next_told, purchase, refund,
};

/// Payments of every kind of outcome.
async fn payments(world: &World) -> String {
    let client = &world.client;
    client.create(purchase("tok_decline", 700)).await;
    client.create(purchase("tok_wrong_amount", 1250)).await;
    let request = authorization("tok_approve", 1000).merchant_reference("order-7");
    let payment = client.create(request).await;
    client.ok(capture(&payment, 300)).await;
    client.ok(refund(&payment, 100)).await;
    client.entries_of(&payment.payment_id).await;
    payment.payment_id
}

/// Runs `quittance audit` against the world's server.
async fn audit(world: &World, role: Role, arguments: &[&str]) -> Output {
    let directory = TempDir::new().unwrap();
    let key_file = directory.path().join("key");
    let key = world.api_key(TENANT, &[role]).await;
    std::fs::write(&key_file, key).unwrap();
    let mut command = command(&["audit"]);
    command
        .args(arguments)
        .env(
            "QUITTANCE_ADDRESS",
            format!("https://localhost:{}", world.address().port()),
        )
        .env("QUITTANCE_CA_FILE", &pki().ca_file)
        .env("QUITTANCE_API_KEY_FILE", &key_file);
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// What a verification of the whole log finds.
pub async fn verified(auditor: &Client) -> (Vec<LogMismatch>, VerificationSummary) {
    let mut told = auditor.verify_log().await.unwrap();
    let (mut found, mut summary) = (Vec::new(), None);
    while let Some(message) = next_told(&mut told).await.unwrap() {
        match message.event {
            Some(Event::Mismatch(mismatch)) => found.push(mismatch),
            Some(Event::Summary(end)) => summary = Some(end),
            Some(Event::Progress(_)) | None => {}
        }
    }
    (found, summary.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_verification_finds_what_was_changed_behind_the_service_and_nothing_else() {
    let world = World::start().await;
    let id = payments(&world).await;
    let failure = world.client.verify_log().await.err().unwrap();
    failure.is(Code::PermissionDenied, "ROLE_REQUIRED");

    let intact = audit(&world, Role::PlatformAudit, &["verify"]).await;
    let said = text(intact.stdout);
    assert!(intact.status.success(), "{said}{}", text(intact.stderr));
    assert!(said.contains("the log is intact."), "{said}");
    assert!(said.contains(" checked since 20"), "{said}");

    let change = "update payments set captured = captured - 100, refunded = refunded - 100 \
                  where payment_id::text = $1";
    world.db.execute(change, &[&id]).await;
    let auditor = world.as_role(TENANT, &[Role::PlatformAudit]).await;
    let (found, summary) = verified(&auditor).await;
    let codes: Vec<_> = found.iter().map(|it| it.code.as_str()).collect();
    assert_eq!(
        codes,
        [
            "PAYMENT_COLUMN_DIFFERS",
            "PAYMENT_COLUMN_DIFFERS",
            "PAYMENT_ROW_DIFFERS"
        ]
    );
    assert!(found.iter().all(|it| it.payment_id == id));
    assert_eq!(summary.mismatches, 3);

    let differs = audit(&world, Role::PlatformAudit, &["verify"]).await;
    let said = text(differs.stdout);
    assert_eq!(differs.status.code(), Some(5), "{said}");
    assert!(
        said.contains(&id) && said.contains("captured should be \"300\", and is \"200\""),
        "{said}"
    );
    assert!(text(differs.stderr).contains("the log does not verify: 3 mismatches"));
}

/// Runs `quittance audit verify --resume-file` on a file with this in it; gives also whether the file is still there.
async fn resumed(world: &World, token: &str) -> (Output, bool) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("resume");
    std::fs::write(&file, token).unwrap();
    let arguments = ["verify", "--resume-file", file.to_str().unwrap()];
    let output = audit(world, Role::PlatformAudit, &arguments).await;
    (output, file.exists())
}

/// Where a check can go on that was cut when it began, and when it had read every stream and not the tree.
async fn points(auditor: &Client) -> (String, String) {
    eventually("a check tells that nothing is checked yet", async || {
        let mut told = auditor.verify_log().await.unwrap();
        let mut first = None;
        while let Some(message) = next_told(&mut told).await.unwrap() {
            let Some(Event::Progress(progress)) = message.event else {
                continue;
            };
            if progress.stage() == VerificationStage::Tree {
                return first.map(|first| (first, progress.resume_token));
            }
            if progress.checked == 0 && first.is_none() {
                first = Some(progress.resume_token);
            }
        }
        panic!("the tree is checked")
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_an_interrupted_check_goes_on_from_its_file() {
    let world = World::start().await;
    let id = payments(&world).await;
    let auditor = world.as_role(TENANT, &[Role::PlatformAudit]).await;
    let (at_first, after_streams) = points(&auditor).await;
    for token in [&at_first, &after_streams, ""] {
        let (output, is_left) = resumed(&world, token).await;
        let said = text(output.stdout);
        assert!(output.status.success(), "{said}{}", text(output.stderr));
        assert!(said.contains("the log is intact.") && !is_left, "{said}");
    }

    // What was checked before is not read again, and what was not is.
    let change = "update payments set captured = captured + 1 where payment_id::text = $1";
    world.db.execute(change, &[&id]).await;
    let (output, is_left) = resumed(&world, &at_first).await;
    let said = text(output.stdout);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains(&id) && !is_left, "{said}");
    let (output, _) = resumed(&world, &after_streams).await;
    assert!(output.status.success(), "{}", text(output.stdout));
    let whole = audit(&world, Role::PlatformAudit, &["verify"]).await;
    assert_eq!(whole.status.code(), Some(5));
    let back = "update payments set captured = captured - 1 where payment_id::text = $1";
    world.db.execute(back, &[&id]).await;

    // The hashes of the entries are: the tree over them is rebuilt, wherever the check goes on.
    let change = "update journal set leaf = changed, leaf_hash = sha256('\\x00'::bytea || changed) \
                  from (select convert_to(replace(convert_from(leaf, 'UTF8'), 'order-7', 'order-8'), 'UTF8') as changed \
                  from journal where stream_id::text = $1 and entity_seq = 1) as other \
                  where stream_id::text = $1 and entity_seq = 1";
    world.db.execute(change, &[&id]).await;
    for token in [&at_first, &after_streams] {
        let (output, _) = resumed(&world, token).await;
        assert_eq!(output.status.code(), Some(5), "{}", text(output.stdout));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_a_check_goes_on_from_no_point_but_one_of_its_own() {
    let world = World::start().await;
    payments(&world).await;
    let mut tail = world
        .client
        .tail(TailEntriesRequest::default())
        .await
        .unwrap();
    let of_another_stream = next_told(&mut tail).await.unwrap().unwrap().resume_token;
    drop(tail);
    for token in ["garbage", of_another_stream.as_str()] {
        let (output, is_left) = resumed(&world, token).await;
        let said = text(output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(
            said.contains("--resume-file: the check cannot go on from"),
            "{said}"
        );
        assert!(said.contains("remove the file to begin anew"), "{said}");
        assert!(is_left, "nobody else's file is removed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_a_lock_held_by_somebody_else_is_told_of_and_the_turn_is_not_lost() {
    let site = Site::new(SiteOptions::default()).await;
    // The attacker is there first: the lock of whoever verifies.
    let lock = 0x7175_6974_7665_7269_i64;
    let hold = format!("select pg_advisory_lock({lock})");
    site.db.execute(&hold, &[]).await;
    let every = ("audit.verify_interval_seconds", Value::Integer(1));
    let world = World::on(site, vec![every]).await;
    let runs = |result: &str| {
        let series = format!("audit_verify_runs_total{{result=\"{result}\"}}");
        world.metric(&series).unwrap_or_default()
    };
    eventually("it is counted", async || (runs("busy") > 1.0).then_some(())).await;
    assert!(runs("intact") < 1.0, "the lock is held");
    assert!(world.metric("audit_verify_age_seconds").is_some());
    let release = format!("select pg_advisory_unlock({lock})");
    world.db.execute(&release, &[]).await;
    eventually("it is verified", async || {
        (runs("intact") > 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_s_life_is_shown_step_by_step() {
    let world = World::start().await;
    let id = payments(&world).await;
    let shown = audit(&world, Role::AuditRead, &["show", &id, "--reads"]).await;
    let said = text(shown.stdout);
    assert!(shown.status.success(), "{said}{}", text(shown.stderr));
    for part in [
        "order   order-7",
        "captured 3.00 EUR, refunded 1.00 EUR",
        "PENDING → AUTHORIZED",
        "quittance.v1.PaymentService/CapturePayment",
        "Who read this",
        "audit.entries_listed",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_an_entry_that_was_changed_is_marked_wherever_it_is_shown() {
    let world = World::start().await;
    let id = payments(&world).await;
    let forged = async || -> Vec<u64> {
        let entries = world.client.entries_of(&id).await;
        let forged = entries.iter().filter(|entry| !entry.authentic);
        forged.map(|entry| entry.entity_seq).collect()
    };
    assert_eq!(forged().await, Vec::<u64>::new());
    let change = "update journal set leaf = convert_to(replace(convert_from(leaf, 'UTF8'), 'order-7', 'order-9'), 'UTF8') \
                  where stream_id::text = $1 and entity_seq = 2";
    world.db.execute(change, &[&id]).await;
    assert_eq!(forged().await, [2]);
    let mut tail = world
        .client
        .tail(TailEntriesRequest::default())
        .await
        .unwrap();
    let mut told = Vec::new();
    while told.len() < 3 {
        let entry = next_told(&mut tail).await.unwrap().unwrap().entry.unwrap();
        if entry.stream_id == id {
            told.push(entry);
        }
    }
    let authentic: Vec<_> = told.iter().map(|entry| entry.authentic).collect();
    assert_eq!(authentic, [true, false, true]);
    let entry_id = told[1].entry_id.clone();
    let read = world.client.ok(GetEntryRequest { entry_id }).await.message;
    assert!(!read.entry.unwrap().authentic);
    let shown = audit(&world, Role::AuditRead, &["show", &id]).await;
    let said = text(shown.stdout);
    assert!(shown.status.success(), "{said}{}", text(shown.stderr));
    assert!(said.contains("1 of its entries: NOT AUTHENTIC"), "{said}");
    assert!(said.contains("order   order-7"), "{said}");
}

/// One that was sequenced and has a byte changed since, and one that any holder of the application's role can insert.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_an_entry_that_cannot_be_read_is_marked_and_stops_no_reader() {
    let world = World::start().await;
    let id = payments(&world).await;
    let torn = "update journal set leaf = set_byte(leaf, 0, 120) where stream_id::text = $1 and entity_seq = 2";
    world.db.execute(torn, &[&id]).await;
    let made_up = "insert into journal (stream_id, entity_seq, entry_id, tenant_id, payment_id, event_type, result, actor, \
                   source, occurred_at, leaf, leaf_hash, mac, mac_key_id) \
                   select stream_id, 99, gen_random_uuid(), tenant_id, payment_id, event_type, result, actor, source, \
                   occurred_at, 'x', leaf_hash, mac, mac_key_id from journal where stream_id::text = $1 and entity_seq = 1";
    world.db.execute(made_up, &[&id]).await;
    let listed = world.client.entries_of(&id).await;
    let forged: Vec<_> = listed.iter().filter(|entry| !entry.authentic).collect();
    let mut numbers: Vec<_> = forged.iter().map(|entry| entry.entity_seq).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 99]);
    for entry in forged {
        assert_eq!(entry.stream_id, id);
        assert_eq!((entry.event_type.as_str(), entry.leaf_data.len()), ("", 0));
        let entry_id = entry.entry_id.clone();
        let read = world.client.ok(GetEntryRequest { entry_id }).await.message;
        let read = read.entry.unwrap();
        assert_eq!((read.authentic, read.receipt), (false, None));
    }
    let after = world.client.create(purchase("tok_approve", 100)).await;
    let mut tail = world
        .client
        .tail(TailEntriesRequest::default())
        .await
        .unwrap();
    let mut authentic = Vec::new();
    loop {
        let entry = next_told(&mut tail).await.unwrap().unwrap().entry.unwrap();
        if entry.stream_id == after.payment_id {
            break;
        }
        if entry.stream_id == id {
            authentic.push(entry.authentic);
        }
    }
    assert_eq!(authentic.first_chunk(), Some(&[true, false, true]));
    let mut watch = world
        .client
        .watch(WatchPaymentsRequest::default())
        .await
        .unwrap();
    let mut told = Vec::new();
    while let Some(response) = next_told(&mut watch).await.unwrap() {
        let event = response.event.unwrap();
        if event.payment_id == after.payment_id {
            break;
        }
        if event.payment_id == id {
            told.push(event.entity_seq);
        }
    }
    assert_eq!(told.first_chunk(), Some(&[1, 3]));
    let shown = audit(&world, Role::AuditRead, &["show", &id]).await;
    let said = text(shown.stdout);
    assert!(shown.status.success(), "{said}{}", text(shown.stderr));
    assert!(said.contains("2 of its entries: NOT AUTHENTIC"), "{said}");
}

/// The signer is stopped, or it would write the newest one again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_checkpoints_that_were_deleted_or_exchanged_for_a_stranger_s_are_missed() {
    let site = Site::new(SiteOptions::default()).await;
    let world = World::on(site, Vec::new()).await;
    payments(&world).await;
    world.has_one_tree().await;
    // Nothing more is signed; what was signed is known.
    let lock = world.audit.path().join("state").join("signer.lock");
    let lock = std::fs::File::open(lock).unwrap();
    let locking = lock.try_clone().unwrap();
    tokio::task::spawn_blocking(move || locking.lock().unwrap())
        .await
        .unwrap();
    let auditor = world.as_role(TENANT, &[Role::PlatformAudit]).await;
    let codes = async || -> Vec<String> {
        let (found, _) = verified(&auditor).await;
        found.into_iter().map(|it| it.code).collect()
    };
    assert_eq!(codes().await, Vec::<String>::new());
    let forged = format!(
        "update checkpoints set note = replace(note, '\u{2014} {LOG_NAME} ', '\u{2014} {LOG_NAME} AAAA')"
    );
    world.db.execute(&forged, &[]).await;
    let (found, summary) = verified(&auditor).await;
    let told: Vec<_> = found.iter().map(|it| it.code.as_str()).collect();
    let (last, others) = told.split_last().unwrap();
    assert_eq!(*last, "CHECKPOINT_MISSING");
    assert!(!others.is_empty());
    let named = |code: &&str| *code == "CHECKPOINT_COLUMN_DIFFERS";
    assert!(others.iter().all(named), "{told:?}");
    assert_eq!(summary.checkpoint, None, "a stranger's is not named");
    world.db.execute("delete from checkpoints", &[]).await;
    assert_eq!(codes().await, ["CHECKPOINT_MISSING"]);
    drop(lock);
    eventually("the signer writes it again", async || {
        codes().await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_verified_from_time_to_time_by_one_server_and_an_alert_is_raised() {
    let every = ("audit.verify_interval_seconds", Value::Integer(1));
    let site = Site::new(SiteOptions::default()).await;
    let world = World::on(site, vec![every]).await;
    let id = payments(&world).await;
    let runs = |result: &str| {
        let series = format!("audit_verify_runs_total{{result=\"{result}\"}}");
        world.metric(&series).unwrap_or_default()
    };
    eventually("it is verified", async || {
        (runs("intact") > 0.0).then_some(())
    })
    .await;
    assert_eq!(
        world.metric("audit_verify_failures_total{check=\"log\""),
        Some(0.0)
    );
    let change = "update payments set refunded = 0 where payment_id::text = $1";
    world.db.execute(change, &[&id]).await;
    eventually("the change is noticed", async || {
        (runs("differs") > 0.0).then_some(())
    })
    .await;
    assert!(world.metric("audit_verify_failures_total{check=\"log\"") >= Some(2.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_verification_finds_a_changed_tree_and_a_database_that_was_set_back() {
    let world = World::start().await;
    payments(&world).await;
    world.has_one_tree().await;
    let auditor = world.as_role(TENANT, &[Role::PlatformAudit]).await;
    let verify = async || {
        let mut told = auditor.verify_log().await.unwrap();
        let (mut found, mut summary) = (Vec::new(), None);
        while let Some(message) = next_told(&mut told).await.unwrap() {
            match message.event {
                Some(Event::Mismatch(mismatch)) => found.push(mismatch),
                Some(Event::Summary(end)) => summary = Some(end),
                Some(Event::Progress(_)) | None => {}
            }
        }
        (found, summary.unwrap())
    };
    let (found, summary) = verify().await;
    assert_eq!(found, []);
    let checkpoint = summary.checkpoint.unwrap();
    assert!(super::tree::verified(&world, &checkpoint).0 > 0);

    let smallest = "(select min(tree_size) from tree_heads)";
    let change =
        format!("update tree_heads set root_hash = sha256(root_hash) where tree_size = {smallest}");
    world.db.execute(&change, &[]).await;
    let (found, _) = verify().await;
    let codes: Vec<_> = found.iter().map(|it| it.code.as_str()).collect();
    // The root is not that of the entries, and the MAC not of the root.
    assert_eq!(codes, ["TREE_HEAD_DIFFERS", "TREE_HEAD_MAC_WRONG"]);
    assert_eq!(found[0].stage(), VerificationStage::Tree);
    let size = world
        .db
        .number("select min(tree_size) from tree_heads")
        .await;
    assert_eq!(found[0].leaf_index, u64::try_from(size - 1).ok());

    let more =
        "select (select max(tree_size) from checkpoints) - (select min(tree_size) from tree_heads)";
    eventually("more was signed", async || {
        (world.db.number(more).await > 0).then_some(())
    })
    .await;
    // As an older backup has it: the entries are there, and the tree is not what was signed.
    let change = format!("delete from tree_heads where tree_size > {smallest}");
    // Where the tree grows again before it is looked at, it is no older than what was signed: nobody grows it meanwhile.
    let holder = Database::connect(world.database_url()).await;
    eventually("it is told that the log was set back", async || {
        holder.execute("rollback", &[]).await;
        holder.execute("begin", &[]).await;
        let hold = "select from sequencer_head for update";
        assert_eq!(holder.rows(hold, &[]).await.len(), 1);
        world.db.execute(&change, &[]).await;
        let differs = audit(&world, Role::PlatformAudit, &["verify"]).await;
        assert_eq!(differs.status.code(), Some(5));
        text(differs.stdout).contains("LOG_SET_BACK").then_some(())
    })
    .await;
}
