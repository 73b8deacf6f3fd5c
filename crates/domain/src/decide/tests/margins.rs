//! What is left for clocks that differ, and for attempts that end late.

use std::time::Duration;

use chrono::TimeDelta;

use super::{World, try_start};
use crate::decide::{self, ProvedUnsent, Quiet};
use crate::decline::Cause;
use crate::payment::CaptureMethod;
use crate::transaction::{FactKind, SendOutcome, SendReport};

/// The clocks of two servers differ by 10 s at most, each being within 5 s of the database's.
#[test]
fn i3_not_found_is_believed_once_the_window_has_passed_by_any_server_s_clock() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.answer(FactKind::Pending);
    let mut held = world.record.transactions[0].clone();
    let window = Duration::from_secs(5);
    let quiet = |held: &_, window, seconds| {
        let since = world.record.transactions[0].updated_at;
        Quiet::judge(held, window, since + TimeDelta::seconds(seconds)).is_some()
    };
    // The time of an answer is that of the server which had it.
    assert_eq!(held.lease_until, None);
    assert!(!quiet(&held, window, 14));
    assert!(quiet(&held, window, 15));
    assert!(quiet(&held, Duration::ZERO, 0));
    // The end of a lease has room for it already.
    held.lease_until = Some(held.updated_at + TimeDelta::seconds(25));
    assert!(!quiet(&held, window, 29));
    assert!(quiet(&held, window, 30));
}

#[test]
fn i4_what_an_older_attempt_leaves_open_proves_that_nothing_of_the_later_is_unsent() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    // An attempt does not end twice.
    world.tampered = true;
    let (older, id) = (world.attempt(), world.newest());
    world.report(SendOutcome::NotSent(Cause::ConnectionRefused));
    world
        .decide(|record, rules, stamp| try_start(record, id, rules, stamp).ok_or(()))
        .unwrap();
    let late = SendReport {
        outcome: SendOutcome::Unknown(Cause::ResponseTimeout),
        latency_micros: 1,
        http_status: None,
        response: None,
        retry_after: None,
    };
    world
        .decide(|record, _, stamp| decide::outcome(record, &older, &late, stamp))
        .unwrap();
    world.report(SendOutcome::NotSent(Cause::ConnectionRefused));
    let held = world.record.transaction(id).unwrap();
    assert!(held.ever_unknown);
    assert_eq!(ProvedUnsent::by_sends(held), None);
}
