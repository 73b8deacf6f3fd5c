//! Notifications in the database: made once from the journal, claimed in the order of their payment, closed by whoever
//! holds the claim; and endpoints, whose secrets are encrypted.
#![allow(
    clippy::similar_names,
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "a test reads like its story, and one that cannot go on panics"
)]

use std::time::Duration;

use chrono::DateTime;
use quittance_domain::ids::EndpointId;
use quittance_domain::notification::{
    AttemptLog, ClaimedNotification, EndpointChange, EndpointState, EndpointUpdate, EventPattern,
    NewEndpoint, NotificationCause, NotificationClaim, NotificationCount, NotificationFilter,
    NotificationState, NotificationVerdict, Outbox, Pruned, Replay, Replayed, StoredNotification,
};
use quittance_domain::ports::{Commit, Store, StoreError};
use quittance_domain::text::{Sensitive, Text};
use quittance_store::PgStore;
use quittance_test_support::{Story, TestDb, entry_of_stream, eventually, tenant};
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(60);
const URL: &str = "https://receiver.example/hooks/token-in-a-path";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const THIRD: &str = "whsec_dGhpcmQtc2VjcmV0LXRoaXJkLXNlY3JldC10aGlyZC0=";
const NEXT: &str = "whsec_bmV4dC1zZWNyZXQtbmV4dC1zZWNyZXQtbmV4dA==";

fn endpoint(of: &str, events: &[&str]) -> NewEndpoint {
    NewEndpoint {
        id: EndpointId(Uuid::now_v7()),
        tenant: tenant(of),
        url: Sensitive::new(URL.to_owned()),
        description: Text::parse("books").unwrap(),
        events: events
            .iter()
            .map(|event| EventPattern::parse(event).unwrap())
            .collect(),
        secret: Sensitive::new(SECRET.to_owned()),
    }
}

/// A store whose sequencer runs, and the tenants `acme` and `globex`.
async fn started() -> (TestDb, PgStore) {
    let db = TestDb::new().await;
    let store = db.store().await;
    store.start_workers();
    for name in ["acme", "globex"] {
        assert!(store.create_tenant(&tenant(name)).await.unwrap());
    }
    (db, store)
}

/// Its receiver at this URL says that it is gone.
fn gone(id: EndpointId, url: &str) -> EndpointChange {
    let url = Sensitive::new(url.to_owned());
    EndpointChange::Gone { id, url }
}

/// A change of an endpoint, on record in a stream of its own.
async fn changed(store: &PgStore, of: &str, change: EndpointChange) -> bool {
    let entry = entry_of_stream(of, Uuid::now_v7(), 1);
    let of = tenant(of);
    let changed = store.change_endpoint(&of, change, entry);
    changed.await.unwrap()
}

fn create(endpoint: NewEndpoint, limit: usize) -> EndpointChange {
    EndpointChange::Create { endpoint, limit }
}

fn rotate(id: EndpointId, secret: &str, keep: Duration) -> EndpointChange {
    let secret = Sensitive::new(secret.to_owned());
    EndpointChange::Rotate { id, secret, keep }
}

async fn made(store: &PgStore, events: &[&str]) -> EndpointId {
    let new = endpoint("acme", events);
    let id = new.id;
    assert!(changed(store, "acme", create(new, 10)).await);
    id
}

/// A payment that was authorized and captured: three entries after its acceptance.
async fn payment(store: &PgStore, of: &str, key: &str) {
    let (mut story, accepted) = Story::accept(of, key, 1_000);
    let mut changes = vec![accepted, story.authorized()];
    changes.push(story.capture(&format!("{key}-c"), 1_000));
    changes.push(story.captured());
    for change in changes {
        assert_eq!(store.commit(change).await, Ok(Commit::Committed));
    }
}

/// Looks at everything that has been committed: this many entries, and one for each endpoint that was made.
async fn plan(store: &PgStore, entries: u64) -> u64 {
    let endpoints = store.list_endpoints(None, None, 100).await.unwrap();
    let entries = entries + u64::try_from(endpoints.len()).unwrap();
    eventually("every entry has a position", || async {
        store.next_position().await.unwrap() >= entries
    })
    .await;
    let mut made = 0;
    loop {
        let planned = store.plan_notifications(3).await.unwrap();
        made += planned.made;
        if !planned.more {
            assert_eq!(planned.next, entries);
            return made;
        }
    }
}

fn all(busy: Vec<(EndpointId, usize)>) -> NotificationClaim {
    NotificationClaim {
        limit: 100,
        per_endpoint: 5,
        busy,
        lease: LEASE,
    }
}

async fn claim(store: &PgStore) -> Vec<ClaimedNotification> {
    store.claim_notifications(&all(Vec::new())).await.unwrap()
}

/// Without regard to how many places an endpoint has.
async fn claim_all(store: &PgStore) -> Vec<ClaimedNotification> {
    let claim = NotificationClaim {
        per_endpoint: 100,
        ..all(Vec::new())
    };
    store.claim_notifications(&claim).await.unwrap()
}

fn log() -> AttemptLog {
    AttemptLog {
        started_at: DateTime::UNIX_EPOCH,
        latency: Duration::from_millis(7),
        http_status: Some(503),
    }
}

const fn again(after: Duration) -> NotificationVerdict {
    NotificationVerdict::Again {
        cause: NotificationCause::HttpStatus,
        after,
    }
}

const DEAD: NotificationVerdict = NotificationVerdict::Dead {
    cause: NotificationCause::HttpStatus,
};

async fn close(store: &PgStore, one: &ClaimedNotification, verdict: NotificationVerdict) -> bool {
    let closed = store.close_notification(one, log(), verdict).await;
    closed.unwrap().is_some()
}

async fn counted(store: &PgStore, what: NotificationCount) -> u64 {
    store.count_notifications(what).await.unwrap()
}

async fn pruned(store: &PgStore, which: Pruned, keep: Duration) -> u64 {
    store.prune_notifications(which, keep, 10).await.unwrap()
}

/// Oldest first.
async fn listed(store: &PgStore, of: &str) -> Vec<StoredNotification> {
    let (of, every) = (tenant(of), NotificationFilter::default());
    let found = store.list_notifications(Some(&of), &every, None, 100);
    let mut found = found.await.unwrap();
    found.reverse();
    found
}

#[tokio::test]
async fn every_event_becomes_one_notification_for_each_endpoint_that_wants_it() {
    let (_db, store) = started().await;
    // What was before an endpoint is nothing to it.
    payment(&store, "acme", "before").await;
    assert_eq!(plan(&store, 4).await, 0);
    let everything = made(&store, &[]).await;
    let captures = made(&store, &["payment.captured", "refund.*"]).await;
    let kinds = made(&store, &["payment.*"]).await;
    let others = made(&store, &["refund.*", "payment.cap"]).await;
    payment(&store, "acme", "one").await;
    payment(&store, "globex", "theirs").await;
    assert_eq!(plan(&store, 12).await, 4 + 1 + 4);
    assert_eq!(plan(&store, 12).await, 0, "looked at once");

    let found = listed(&store, "acme").await;
    let of = |id: EndpointId| {
        let found = found.iter().filter(move |one| one.endpoint == id);
        found
            .map(|one| (one.entity_seq, one.event_type.as_str()))
            .collect::<Vec<_>>()
    };
    assert_eq!(of(everything).len(), 4);
    assert_eq!(of(captures), [(4, "payment.captured")]);
    assert_eq!(of(kinds).len(), 4);
    assert!(of(others).is_empty());
    assert_eq!(listed(&store, "globex").await, []);
    let ids: std::collections::BTreeSet<_> = found.iter().map(|one| one.id).collect();
    assert_eq!(ids.len(), 9, "each is one of its own");
    assert!(found.iter().all(|one| one.tenant == tenant("acme")));
}

/// That what was won is lost after all is the other half of what an endpoint for chargebacks was told.
#[tokio::test]
async fn s44_whoever_wants_what_happens_to_chargebacks_hears_of_their_reversals() {
    let (_db, store) = started().await;
    let chargebacks = made(&store, &["chargeback.*"]).await;
    let reversals = made(&store, &["chargeback_reversal.*"]).await;
    made(&store, &["chargeback.reversed", "charge.*", "payment.*"]).await;
    let (mut story, accepted) = Story::accept("acme", "one", 1_000);
    let mut lost = story.authorized();
    "chargeback_reversal.reversed".clone_into(&mut lost.entry.event_type);
    for change in [accepted, lost] {
        assert_eq!(store.commit(change).await, Ok(Commit::Committed));
    }
    assert_eq!(plan(&store, 2).await, 3);
    let found = listed(&store, "acme").await;
    let told = found.iter().filter(|one| one.entity_seq == 2);
    let told: Vec<_> = told.map(|one| one.endpoint).collect();
    assert_eq!(told.len(), 2);
    assert!(told.contains(&chargebacks) && told.contains(&reversals));
}

/// A confirmation is a step of the payment, whatever its event is called.
#[tokio::test]
async fn whoever_wants_what_happens_to_payments_hears_of_their_confirmations() {
    let (_db, store) = started().await;
    let payments = made(&store, &["payment.*"]).await;
    let confirmations = made(&store, &["confirm.*"]).await;
    let named = made(&store, &["confirm.accepted"]).await;
    made(&store, &["payment.accepted", "confirm.refused", "refund.*"]).await;
    let (mut story, accepted) = Story::accept("acme", "one", 1_000);
    let mut confirmed = story.authorized();
    "confirm.accepted".clone_into(&mut confirmed.entry.event_type);
    for change in [accepted, confirmed] {
        assert_eq!(store.commit(change).await, Ok(Commit::Committed));
    }
    assert_eq!(plan(&store, 2).await, 5);
    let found = listed(&store, "acme").await;
    let told = found.iter().filter(|one| one.entity_seq == 2);
    let told: std::collections::BTreeSet<_> = told.map(|one| one.endpoint).collect();
    assert_eq!(told, [payments, confirmations, named].into());
}

#[tokio::test]
async fn s77_processes_that_plan_at_once_make_each_notification_once_and_none_is_lost() {
    let (db, store) = started().await;
    made(&store, &[]).await;
    let stores = [store.clone(), db.store().await, db.store().await];
    let planning = stores.map(|store| {
        tokio::spawn(async move {
            let mut made = 0;
            // Goes on until the others have seen the end, too.
            while counted(&store, NotificationCount::Waiting).await < 80 {
                made += store.plan_notifications(2).await.unwrap().made;
            }
            made
        })
    });
    for number in 0..20 {
        payment(&store, "acme", &format!("p{number}")).await;
    }
    let mut made = 0;
    for planner in planning {
        made += planner.await.unwrap();
    }
    assert_eq!(made, 80);
    let found = listed(&store, "acme").await;
    let places: Vec<_> = found.iter().map(|one| one.position).collect();
    // Before them is the entry about the endpoint, which tells nobody of a payment.
    let expected: Vec<_> = (1..=80).collect();
    assert_eq!(places, expected);
}

#[tokio::test]
async fn a_notification_waits_for_the_earlier_ones_of_its_payment_and_for_no_other() {
    let (_db, store) = started().await;
    made(&store, &[]).await;
    payment(&store, "acme", "one").await;
    payment(&store, "acme", "two").await;
    plan(&store, 8).await;
    let first = claim(&store).await;
    assert_eq!(first.len(), 2, "the first of each payment");
    assert!(claim(&store).await.is_empty(), "they are under way");
    // One is delivered: its payment goes on. The other fails: its payment waits with it.
    assert!(close(&store, &first[0], NotificationVerdict::Delivered).await);
    assert!(close(&store, &first[1], again(Duration::from_secs(3600))).await);
    let second = claim(&store).await;
    assert_eq!(second.len(), 1);
    assert_eq!(second[0].payment, first[0].payment);
    // Given up, it is in nobody's way.
    assert!(close(&store, &second[0], DEAD).await);
    let third = claim(&store).await;
    assert_eq!(third[0].payment, first[0].payment);
    let seqs = listed(&store, "acme").await;
    let waiting = seqs
        .iter()
        .filter(|one| one.payment == first[1].payment)
        .map(|one| one.next_attempt_at.unwrap());
    let waiting: std::collections::BTreeSet<_> = waiting.collect();
    assert_eq!(waiting.len(), 1, "what waits behind it is due with it");
    // Whoever claimed before counts no more.
    assert!(!close(&store, &first[1], NotificationVerdict::Delivered).await);
}

/// A claim looks at what is due, in this order, until it has enough: what waits behind a notification that waits itself
/// must not be among it, or every claim walks over all of it, for every endpoint and tenant.
#[tokio::test]
async fn what_is_made_behind_a_notification_that_waits_is_due_with_it() {
    let (db, store) = started().await;
    let down = made(&store, &[]).await;
    let mut stories = Vec::new();
    for number in 0..12 {
        let (story, accepted) = Story::accept("acme", &format!("p{number}"), 1_000);
        assert_eq!(store.commit(accepted).await, Ok(Commit::Committed));
        stories.push(story);
    }
    plan(&store, 12).await;
    let heads = claim_all(&store).await;
    assert_eq!(heads.len(), 12);
    for head in &heads {
        assert!(close(&store, head, again(Duration::from_secs(7_200))).await);
    }
    let well = made(&store, &[]).await;
    for story in &mut stories {
        assert_eq!(
            store.commit(story.authorized()).await,
            Ok(Commit::Committed)
        );
    }
    plan(&store, 24).await;
    let client = db.client().await;
    let due = async |of: EndpointId| {
        let text = format!(
            "select count(*) from notification_deliveries \
             where state = 'PENDING' and next_attempt_at <= now() and endpoint_id = '{}'",
            of.0
        );
        let row = client.query_one(&text, &[]).await.unwrap();
        row.get::<_, i64>(0)
    };
    assert_eq!((due(down).await, due(well).await), (0, 12));
    let found = listed(&store, "acme").await;
    for one in found.iter().filter(|one| one.endpoint == down) {
        let mut same = found.iter().filter(|other| other.endpoint == down);
        let head = same.find(|other| other.payment == one.payment).unwrap();
        assert_eq!(one.next_attempt_at, head.next_attempt_at);
    }
    let claimed = claim_all(&store).await;
    assert_eq!(claimed.len(), 12);
    assert!(claimed.iter().all(|one| one.endpoint == well));
    // Once its head is out of the way, it is due.
    let wake = "update notification_deliveries set next_attempt_at = now() where entity_seq = 1";
    client.execute(wake, &[]).await.unwrap();
    for head in claim_all(&store).await {
        assert!(close(&store, &head, NotificationVerdict::Delivered).await);
    }
    assert_eq!(due(down).await, 12);
}

#[tokio::test]
async fn a_claim_takes_no_more_of_an_endpoint_than_it_has_places_and_shares_them_out() {
    let (_db, store) = started().await;
    let slow = made(&store, &[]).await;
    for number in 0..9 {
        payment(&store, "acme", &format!("p{number}")).await;
    }
    plan(&store, 36).await;
    let other = made(&store, &["payment.captured"]).await;
    payment(&store, "acme", "last").await;
    plan(&store, 40).await;
    let busy = NotificationClaim {
        limit: 3,
        ..all(vec![(slow, 3)])
    };
    let claimed = store.claim_notifications(&busy).await.unwrap();
    let of = |id| claimed.iter().filter(|one| one.endpoint == id).count();
    // Two places are left at the slow one, and the other has all of its own.
    assert_eq!((of(slow), of(other)), (2, 1));
    let full = all(vec![(slow, 5), (other, 5)]);
    assert!(store.claim_notifications(&full).await.unwrap().is_empty());
}

#[tokio::test]
async fn dead_letters_are_replayed_under_their_id_and_attempts_are_logged() {
    let (_db, store) = started().await;
    let id = made(&store, &["payment.captured"]).await;
    payment(&store, "acme", "one").await;
    plan(&store, 4).await;
    let first = claim(&store).await.remove(0);
    assert!(close(&store, &first, again(Duration::ZERO)).await);
    let second = claim(&store).await.remove(0);
    assert_eq!(
        (second.id, second.attempt, second.tries, second.failures),
        (first.id, 2, 2, 1)
    );
    let acme = tenant("acme");
    let one = Replay::One(first.id);
    let replay = |of, what| {
        let store = store.clone();
        async move {
            store
                .replay_notifications(&tenant(of), what, 10)
                .await
                .unwrap()
        }
    };
    assert_eq!(replay("acme", one).await, Replayed::NotDead);
    assert!(close(&store, &second, DEAD).await);
    assert_eq!(counted(&store, NotificationCount::Waiting).await, 0);
    assert_eq!(counted(&store, NotificationCount::Dead).await, 1);
    assert_eq!(replay("globex", one).await, Replayed::NotFound);
    assert_eq!(replay("acme", one).await, Replayed::Again(1));
    let third = claim(&store).await.remove(0);
    assert_eq!(
        (third.id, third.attempt, third.tries, third.failures),
        (first.id, 3, 1, 0)
    );
    assert!(close(&store, &third, DEAD).await);
    let all = Replay::Endpoint(id);
    assert_eq!(replay("globex", all).await, Replayed::NotFound);
    assert_eq!(replay("acme", all).await, Replayed::Again(1));
    assert_eq!(replay("acme", all).await, Replayed::Again(0));
    let fourth = claim(&store).await.remove(0);
    assert!(close(&store, &fourth, NotificationVerdict::Delivered).await);
    let (found, attempts) = store.notification(&acme, first.id).await.unwrap().unwrap();
    assert_eq!(
        (found.state, found.attempts, found.cause),
        (NotificationState::Delivered, 4, None)
    );
    let numbers: Vec<_> = attempts.iter().map(|one| one.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert_eq!(attempts[0].cause, Some(NotificationCause::HttpStatus));
    assert_eq!(attempts[0].log, log());
    let theirs = store.notification(&tenant("globex"), first.id).await;
    assert!(theirs.unwrap().is_none());
    // What was delivered long enough ago goes, with its log.
    let long = pruned(&store, Pruned::Delivered, LEASE).await;
    let now = pruned(&store, Pruned::Delivered, Duration::ZERO).await;
    assert_eq!((long, now), (0, 1));
    assert_eq!(store.notification(&acme, first.id).await.unwrap(), None);
}

#[tokio::test]
async fn i12_dead_letters_go_in_time_and_a_deleted_endpoint_with_the_last_of_them() {
    let (_db, store) = started().await;
    let acme = tenant("acme");
    let (kept, deleted) = (
        made(&store, &["payment.captured"]).await,
        made(&store, &["payment.captured"]).await,
    );
    for number in 0..3 {
        payment(&store, "acme", &format!("p{number}")).await;
    }
    plan(&store, 12).await;
    for one in claim(&store).await {
        assert!(close(&store, &one, DEAD).await);
    }
    let left = async |id| {
        let found = listed(&store, "acme").await;
        found.iter().filter(|one| one.endpoint == id).count()
    };
    assert_eq!((left(kept).await, left(deleted).await), (3, 3));
    let delete = EndpointChange::Delete { id: deleted };
    assert!(changed(&store, "acme", delete).await);
    assert_eq!(pruned(&store, Pruned::Dead, LEASE).await, 0);
    assert_eq!(pruned(&store, Pruned::OfDeletedEndpoints, LEASE).await, 0);
    // Its dead letters hold it.
    let none = Duration::ZERO;
    assert_eq!(pruned(&store, Pruned::DeletedEndpoints, none).await, 0);
    assert_eq!(pruned(&store, Pruned::OfDeletedEndpoints, none).await, 3);
    assert_eq!((left(kept).await, left(deleted).await), (3, 0));
    assert_eq!(pruned(&store, Pruned::DeletedEndpoints, LEASE).await, 0);
    assert_eq!(pruned(&store, Pruned::DeletedEndpoints, none).await, 1);
    assert_eq!(pruned(&store, Pruned::Dead, none).await, 3);
    assert_eq!(counted(&store, NotificationCount::Dead).await, 0);
    // Who is not deleted stays.
    assert_eq!(pruned(&store, Pruned::DeletedEndpoints, none).await, 0);
    assert!(store.endpoint(&acme, kept).await.unwrap().is_some());
}

#[tokio::test]
async fn a_count_that_takes_too_long_leaves_the_others() {
    let (db, store) = started().await;
    let mut client = db.client().await;
    let held = client.transaction().await.unwrap();
    let lock = "lock table notification_cursor in access exclusive mode";
    held.batch_execute(lock).await.unwrap();
    for what in [NotificationCount::Waiting, NotificationCount::Dead] {
        assert_eq!(counted(&store, what).await, 0);
    }
    held.rollback().await.unwrap();
    assert_eq!(counted(&store, NotificationCount::Unplanned).await, 0);
}

#[tokio::test]
async fn what_waits_for_an_endpoint_that_is_off_becomes_a_dead_letter() {
    let (_db, store) = started().await;
    let acme = tenant("acme");
    let id = made(&store, &["payment.captured"]).await;
    payment(&store, "acme", "one").await;
    plan(&store, 4).await;
    let off = EndpointUpdate {
        enabled: Some(false),
        ..EndpointUpdate::default()
    };
    assert!(changed(&store, "acme", EndpointChange::Update { id, update: off }).await);
    // Also what happens meanwhile.
    payment(&store, "acme", "two").await;
    assert_eq!(plan(&store, 8 + 1).await, 1);
    assert!(claim(&store).await.is_empty());
    let states =
        |found: Vec<StoredNotification>| found.iter().map(|one| one.state).collect::<Vec<_>>();
    let (waits, dead) = (NotificationState::Pending, NotificationState::Dead);
    assert_eq!(states(listed(&store, "acme").await), [waits, dead]);
    assert_eq!(store.close_notifications(10).await.unwrap(), 1);
    let found = listed(&store, "acme").await;
    let closed = Some(NotificationCause::EndpointClosed);
    assert!(found.iter().all(|one| one.cause == closed));
    let all = Replay::Endpoint(id);
    let replayed = store.replay_notifications(&acme, all, 10).await.unwrap();
    assert_eq!(replayed, Replayed::EndpointClosed);
    let on = EndpointUpdate {
        enabled: Some(true),
        ..EndpointUpdate::default()
    };
    assert!(changed(&store, "acme", EndpointChange::Update { id, update: on }).await);
    let replayed = store.replay_notifications(&acme, all, 10).await.unwrap();
    assert_eq!(replayed, Replayed::Again(2));
    assert_eq!(claim(&store).await.len(), 2);
    // Gone, it is off as well, once.
    assert!(changed(&store, "acme", gone(id, URL)).await);
    assert!(!changed(&store, "acme", gone(id, URL)).await);
    assert_eq!(store.close_notifications(10).await.unwrap(), 0, "under way");
    let found = store.endpoint(&acme, id).await.unwrap().unwrap();
    assert_eq!(found.state, EndpointState::Gone);
}

#[tokio::test]
async fn a_receiver_that_is_gone_from_an_old_url_does_not_switch_off_the_new_one() {
    let (_db, store) = started().await;
    let acme = tenant("acme");
    let id = made(&store, &[]).await;
    payment(&store, "acme", "one").await;
    plan(&store, 4).await;
    let claimed = claim(&store).await.remove(0);
    // While that is under way, the endpoint moves.
    let moved = EndpointUpdate {
        url: Some(Sensitive::new("https://new.example/hooks".to_owned())),
        ..EndpointUpdate::default()
    };
    let update = EndpointChange::Update { id, update: moved };
    assert!(changed(&store, "acme", update).await);
    let old = claimed.destination.unwrap().url;
    assert!(!changed(&store, "acme", gone(id, old.expose())).await);
    let state = async || store.endpoint(&acme, id).await.unwrap().unwrap().state;
    assert_eq!(state().await, EndpointState::Enabled);
    let new = gone(id, "https://new.example/hooks");
    assert!(!changed(&store, "globex", new.clone()).await);
    assert!(changed(&store, "acme", new).await);
    assert_eq!(state().await, EndpointState::Gone);
}

#[tokio::test]
async fn i11_an_endpoint_is_its_tenants_and_its_secrets_are_encrypted() {
    let (db, store) = started().await;
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let id = made(&store, &["refund.*"]).await;
    let secrets = async || {
        let found = store.destination(&acme, id).await.unwrap().unwrap();
        assert_eq!(found.url.expose(), URL);
        let secrets = found.secrets.into_iter().map(Sensitive::into_exposed);
        secrets.collect::<Vec<_>>()
    };
    assert_eq!(secrets().await, [SECRET]);
    assert!(changed(&store, "acme", rotate(id, NEXT, LEASE)).await);
    assert_eq!(secrets().await, [NEXT, SECRET]);
    let found = store.endpoint(&acme, id).await.unwrap().unwrap();
    assert!(found.previous_secret_until.is_some());
    // The answer is lost, and it is asked for again: the receiver has the first one all the same.
    assert!(changed(&store, "acme", rotate(id, THIRD, LEASE)).await);
    assert_eq!(secrets().await, [THIRD, NEXT, SECRET]);
    assert!(changed(&store, "acme", rotate(id, SECRET, Duration::ZERO)).await);
    assert_eq!(secrets().await, [SECRET]);

    assert_eq!(store.endpoint(&globex, id).await.unwrap(), None);
    assert_eq!(
        store.list_endpoints(Some(&globex), None, 9).await.unwrap(),
        []
    );
    assert!(store.destination(&globex, id).await.unwrap().is_none());
    let before = entries(&db).await;
    let update = EndpointUpdate::default();
    assert!(!changed(&store, "globex", EndpointChange::Update { id, update }).await);
    assert!(!changed(&store, "globex", rotate(id, NEXT, LEASE)).await);
    assert!(!changed(&store, "globex", EndpointChange::Delete { id }).await);
    assert_eq!(
        entries(&db).await,
        before,
        "nothing was done, and nothing is on record"
    );
    let readable = "select count(*) from notification_endpoints \
                    where position('whsec' in encode(secret, 'escape')) > 0 \
                       or position('receiver' in encode(url, 'escape')) > 0";
    let client = db.client().await;
    let readable: i64 = client.query_one(readable, &[]).await.unwrap().get(0);
    assert_eq!(readable, 0);

    assert!(!changed(&store, "acme", create(endpoint("acme", &[]), 1)).await);
    assert!(changed(&store, "acme", EndpointChange::Delete { id }).await);
    assert!(!changed(&store, "acme", EndpointChange::Delete { id }).await);
    assert!(store.destination(&acme, id).await.unwrap().is_none());
    assert_eq!(store.list_endpoints(None, None, 9).await.unwrap(), []);
    assert!(changed(&store, "acme", create(endpoint("acme", &[]), 1)).await);
}

/// It would be told of what happens to the other tenant.
#[tokio::test]
async fn i11_an_endpoint_that_somebody_gave_to_another_tenant_is_not_opened() {
    let (db, store) = started().await;
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let id = made(&store, &["payment.*"]).await;
    let client = db.client().await;
    let give = "update notification_endpoints set tenant_id = $1";
    client.execute(give, &[&"globex"]).await.unwrap();
    payment(&store, "globex", "key-1").await;
    eventually("every entry has a position", || async {
        store.next_position().await.unwrap() >= 5
    })
    .await;
    assert!(store.plan_notifications(100).await.unwrap().made > 0);
    let claimed = claim(&store).await;
    assert!(!claimed.is_empty());
    for one in claimed {
        assert!(one.tenant == globex && one.destination.is_none());
    }
    let url = || StoreError::Corrupt("notification_endpoints.url".to_owned());
    assert_eq!(store.destination(&globex, id).await.err(), Some(url()));
    let listed = store.list_endpoints(Some(&globex), None, 9).await;
    assert_eq!(listed.err(), Some(url()));
    client.execute(give, &[&"acme"]).await.unwrap();
    let found = store.destination(&acme, id).await.unwrap().unwrap();
    assert_eq!(found.url.expose(), URL);
}

async fn entries(db: &TestDb) -> i64 {
    let client = db.client().await;
    let count = client.query_one("select count(*) from journal", &[]).await;
    count.unwrap().get(0)
}

#[tokio::test]
async fn a_change_of_an_endpoint_and_its_entry_are_durable_together_or_not_at_all() {
    let (db, store) = started().await;
    let acme = tenant("acme");
    let stream = Uuid::now_v7();
    let entry = || entry_of_stream("acme", stream, 1);
    let first = store.change_endpoint(&acme, create(endpoint("acme", &[]), 9), entry());
    assert!(first.await.unwrap());
    // The place of the entry is taken: the second endpoint is not made either.
    let second = store.change_endpoint(&acme, create(endpoint("acme", &[]), 9), entry());
    assert!(second.await.is_err());
    let there = store.list_endpoints(Some(&acme), None, 9).await.unwrap();
    assert_eq!((there.len(), entries(&db).await), (1, 1));
    // Nor is the first switched off, though its receiver is gone.
    let id = there[0].id;
    let off = store.change_endpoint(&acme, gone(id, URL), entry());
    assert!(off.await.is_err());
    let state = async || store.endpoint(&acme, id).await.unwrap().unwrap().state;
    assert_eq!(state().await, EndpointState::Enabled);
    let next = entry_of_stream("acme", Uuid::now_v7(), 1);
    let off = store.change_endpoint(&acme, gone(id, URL), next);
    assert!(off.await.unwrap());
    assert_eq!(
        (state().await, entries(&db).await),
        (EndpointState::Gone, 2)
    );
    let again = entry_of_stream("acme", Uuid::now_v7(), 1);
    let off = store.change_endpoint(&acme, gone(id, URL), again);
    assert!(!off.await.unwrap());
    assert_eq!(
        entries(&db).await,
        2,
        "nothing was done, and nothing is on record"
    );
    // No tenant, no endpoint, no entry.
    let unknown = tenant("nobody");
    let nobody = store.change_endpoint(
        &unknown,
        create(endpoint("nobody", &[]), 9),
        entry_of_stream("nobody", Uuid::now_v7(), 1),
    );
    assert!(nobody.await.is_err());
    assert_eq!(entries(&db).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_the_limit_of_endpoints_holds_however_many_are_made_at_once() {
    let (db, store) = started().await;
    let made = (0..12).map(|_| changed(&store, "acme", create(endpoint("acme", &[]), 3)));
    let made = futures::future::join_all(made).await;
    assert_eq!(made.iter().filter(|made| **made).count(), 3);
    let there = store.list_endpoints(Some(&tenant("acme")), None, 20).await;
    assert_eq!((there.unwrap().len(), entries(&db).await), (3, 3));
}
