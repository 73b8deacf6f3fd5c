//! What is right is never reported, whatever happens meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quittance_domain::ports::StoreError;
use quittance_domain::verification::Trusted;
use quittance_store::{
    SIGNER_WITHIN, VERIFY_PATIENCE, VerifyError, VerifyEvent, VerifyProgress, VerifySettings,
};
use quittance_test_support::TestDb;
use tokio::sync::mpsc;

use super::{commit_world, grown, number, run, setting, signing, verify, verify_against};

#[tokio::test(flavor = "multi_thread")]
async fn an_untampered_log_is_verified_whole_and_nothing_is_reported() {
    let (_db, store, client) = grown(3_000).await;
    let (found, summary) = verify(&store).await;
    assert_eq!(found, []);
    let entries = number(&client, "select count(*) from journal").await;
    let payments = number(&client, "select count(*) from payments").await;
    assert_eq!((summary.entries, summary.payments), (entries, payments));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_log_is_intact() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (found, summary) = verify(&store).await;
    assert_eq!((found.as_slice(), summary.entries), (&[][..], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_meanwhile_is_never_reported() {
    let (_db, store, client) = grown(500).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4_u64)
        .map(|writer| {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut seed = (writer + 1) * 1_000_000;
                while !stop.load(Ordering::Relaxed) {
                    commit_world(&store, seed).await;
                    seed += 1;
                }
            })
        })
        .collect();
    let before = number(&client, "select count(*) from journal").await;
    let sign = async || {
        while !stop.load(Ordering::Relaxed) {
            signing::sign(&store, &[1]).await;
        }
    };
    let check = async || {
        for _ in 0..setting("QUITTANCE_VERIFY_ROUNDS", 12) {
            let trusted = signing::newest(&store).await;
            let (found, _) = verify_against(&store, &trusted).await;
            assert_eq!(found, []);
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(sign(), check());
    for writer in writers {
        writer.await.unwrap();
    }
    let after = number(&client, "select count(*) from journal").await;
    assert!(after > before, "nothing was committed meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_verification_runs_at_a_time_and_an_interrupted_one_goes_on() {
    let (db, store, client) = grown(3_000).await;
    let (sender, mut events) = mpsc::channel(1);
    let settings = VerifySettings {
        lanes: 1,
        resume: VerifyProgress::default(),
        trusted: Trusted::default(),
        patience: VERIFY_PATIENCE,
        signer_within: SIGNER_WITHIN,
    };
    let running = tokio::spawn({
        let store = store.clone();
        async move { store.verify_log(settings, sender).await }
    });
    assert!(events.recv().await.is_some());
    let other = db.store().await;
    let (busy, _) = run(&other, 1, VerifyProgress::default(), &Trusted::default()).await;
    assert_eq!(busy, Err(VerifyError::Busy));
    // Nobody listens any more: it ends.
    drop(events);
    assert!(running.await.unwrap().is_err());

    // From wherever it was told to go on, nothing is left out.
    let (summary, events) = run(&store, 1, VerifyProgress::default(), &Trusted::default()).await;
    let whole = summary.unwrap();
    let points = events.iter().filter_map(|event| match event {
        VerifyEvent::Progress { at, .. } => Some(*at),
        VerifyEvent::Mismatch(_) => None,
    });
    let middle =
        "select stream_id::text from journal order by stream_id, entity_seq offset 1500 limit 1";
    let middle: String = client.query_one(middle, &[]).await.unwrap().get(0);
    let before = format!("select count(*) from journal where stream_id < '{middle}'");
    let paid = format!("select count(*) from payments where payment_id < '{middle}'");
    let half = VerifyProgress {
        streams_from: Some(middle.parse().unwrap()),
        entries: number(&client, &before).await,
        payments: number(&client, &paid).await,
        mismatches: 0,
        begun: true,
    };
    for point in points.chain([half]) {
        let (summary, _) = run(&store, 3, point, &Trusted::default()).await;
        assert_eq!(summary, Ok(whole.clone()), "from {point:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_does_not_read_does_not_keep_others_from_verifying() {
    let (db, store, _client) = grown(200).await;
    // One event is taken, and the next has nowhere to go.
    let (sender, events) = mpsc::channel(1);
    let settings = VerifySettings {
        lanes: 1,
        resume: VerifyProgress::default(),
        trusted: Trusted::default(),
        patience: Duration::from_millis(1),
        signer_within: SIGNER_WITHIN,
    };
    let ended = store.verify_log(settings, sender).await;
    assert_eq!(ended, Err(VerifyError::Store(StoreError::Unavailable)));
    let other = db.store().await;
    let (summary, _) = run(&other, 1, VerifyProgress::default(), &Trusted::default()).await;
    assert_eq!(summary.unwrap().mismatches, 0);
    drop(events);
}

#[tokio::test]
async fn a_verification_that_is_yet_to_begin_is_due() {
    let db = TestDb::new().await;
    let (store, client) = (db.store().await, db.client().await);
    let every = Duration::from_secs(3_600);
    assert_eq!(store.claim_verification(every).await, Ok(false));
    let never = "update verification_schedule set started_at = 'infinity'";
    client.batch_execute(never).await.unwrap();
    assert_eq!(store.claim_verification(every).await, Ok(true));
    assert_eq!(store.claim_verification(every).await, Ok(false));
}
