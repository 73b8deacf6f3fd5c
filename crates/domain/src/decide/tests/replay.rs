//! Replaying what was decided: an honest log says what follows from it, and a row that was changed without an entry
//! shows also where a later change has built upon it (scenario 75).

use quittance_evidence::{LeafMac, MAC_KEY_BYTES, MacKey, MacKeyId};

use super::*;
use crate::journal::row_digest;
use crate::transaction::TransactionKind as Kind;
use crate::verification::{
    Fault, LoggedRow, MacKeys, Mismatch, Placed, StoredCustomer, StoredPayment, StoredTransaction,
    StreamWalk, check_entry, compare_payment,
};

struct Keys(MacKey);

impl MacKeys for Keys {
    fn mac_key(&self, _: &str) -> Option<&MacKey> {
        Some(&self.0)
    }
}

fn keys() -> Keys {
    let id = MacKeyId::new("k1").unwrap();
    Keys(MacKey::new(id, [7; MAC_KEY_BYTES]))
}

fn row(change: &Change, keys: &Keys) -> LoggedRow {
    let entry = change.entry.clone();
    let mac = LeafMac::compute(&keys.0, &entry.leaf);
    let entity_seq = i64::try_from(entry.entity_seq).unwrap();
    let tenant_id = entry.tenant.map(|tenant| tenant.as_str().to_owned());
    LoggedRow {
        stream_id: entry.stream,
        entity_seq,
        entry_id: entry.id.0,
        tenant_id: tenant_id.clone(),
        payment_id: entry.payment.map(|it| it.0),
        transaction_id: entry.transaction.map(|it| it.0),
        event_type: entry.event_type,
        result: entry.result.to_owned(),
        cause: entry.cause,
        actor: entry.actor,
        source: entry.source,
        provider_account: entry.provider_account,
        trace_id: None,
        occurred_at: entry.occurred_at,
        leaf: entry.leaf.as_bytes().to_vec(),
        leaf_hash: entry.leaf_hash.to_vec(),
        mac: mac.tag().to_vec(),
        mac_key_id: mac.key_id().as_str().to_owned(),
        arrival: entity_seq,
        refused: false,
        placed: Some(Placed {
            position: entity_seq,
            entry_id: entry.id.0,
            stream_id: entry.stream,
            entity_seq,
            tenant_id,
        }),
    }
}

impl World {
    /// What verification finds.
    pub fn verify(&self) -> Vec<Mismatch> {
        let (keys, mut found) = (keys(), Vec::new());
        let mut walk = StreamWalk::default();
        for change in &self.changes {
            let entry = check_entry(&row(change, &keys), i64::MAX, &keys, &mut found);
            assert!(walk.push(entry, &mut found).is_none());
        }
        let payment = &self.record.payment;
        let transactions = self.record.transactions.iter();
        let stored = StoredPayment {
            id: payment.id,
            version: i64::try_from(payment.version).unwrap(),
            last_leaf_hash: payment.last_leaf_hash.unwrap().to_vec(),
            updated_at: payment.updated_at,
            currency_exponent: i16::from(payment.currency().exponent()),
            customer: StoredCustomer::Held,
            payment: Ok(payment.clone()),
            transactions: Some(
                transactions
                    .map(|row| StoredTransaction {
                        id: row.id,
                        row: Ok(row.clone()),
                    })
                    .collect(),
            ),
        };
        let end = walk.finish().unwrap();
        assert!(end.replayed() || !found.is_empty());
        compare_payment(Some(&end), Some(&stored), &mut found);
        found
    }

    /// Codes and fields of what is found in the newest entry.
    fn found_in_newest(&self) -> Vec<String> {
        let newest = self.changes.last().unwrap().entry.id;
        let found = self.verify().into_iter();
        let found = found.filter(|mismatch| mismatch.entry == Some(newest));
        let field = |fault: &Fault| match fault {
            Fault::ReplayDiffers { field, .. } => (*field).to_owned(),
            _ => String::new(),
        };
        found
            .map(|it| format!("{} {}", it.fault.code(), field(&it.fault)))
            .collect()
    }

    fn opening(&mut self) -> &mut Transaction {
        self.record.transactions.first_mut().unwrap()
    }
}

#[test]
fn s75_amounts_that_were_changed_and_then_refunded_are_found_in_the_refund() {
    let mut world = World::captured(100);
    assert_eq!(world.verify(), []);
    world.tampered = true;
    let amounts = &mut world.record.payment.amounts;
    (amounts.authorized, amounts.captured) = (900, 900);
    world.refund(Some(500)).unwrap();
    assert_eq!(
        world.found_in_newest(),
        [
            "ROWS_CHANGED_BEFORE ",
            "REPLAY_DIFFERS authorized",
            "REPLAY_DIFFERS captured"
        ]
    );
    // Each is reported once, whatever follows.
    let before = world.verify().len();
    world.answer(approved(500));
    assert_eq!(world.verify().len(), before);
}

#[test]
fn s75_a_state_that_was_changed_and_then_built_upon_is_found() {
    let mut world = World::accepted(100, CaptureMethod::Manual);
    world.tampered = true;
    world.record.payment.state = crate::payment::PaymentState::Authorized;
    world.record.payment.amounts.authorized = 100;
    world.capture(Some(100), false).unwrap();
    let found = world.found_in_newest();
    for field in ["authorized", "state_from", "state_to"] {
        let expected = format!("REPLAY_DIFFERS {field}");
        assert!(found.contains(&expected), "{found:?}");
    }
}

#[test]
fn s75_a_state_that_was_changed_is_found_where_what_builds_upon_it_makes_no_transaction() {
    let mut world = World::captured(100);
    world.refund(Some(10)).unwrap();
    world.tampered = true;
    world.record.payment.state = crate::payment::PaymentState::Authorized;
    world.report(SendOutcome::Unknown(crate::decline::Cause::ConnectionLost));
    assert_eq!(
        world.found_in_newest(),
        [
            "ROWS_CHANGED_BEFORE ",
            "REPLAY_DIFFERS state_from",
            "REPLAY_DIFFERS state_to"
        ]
    );
}

#[test]
fn s75_columns_that_no_entry_states_are_found_where_a_change_builds_upon_them() {
    let changes: [fn(&mut World); 8] = [
        |world| world.record.payment.livemode = true,
        |world| world.record.payment.merchant_reference = Text::parse("other").unwrap(),
        |world| {
            world.record.payment.provider_reference = Some(ProviderReference::parse("x").unwrap());
        },
        |world| world.opening().ever_unknown = true,
        |world| world.opening().kind = Kind::Purchase,
        |world| world.opening().final_capture = true,
        |world| world.opening().execute_before += TimeDelta::days(9),
        |world| world.opening().attempts = 0,
    ];
    for (at, change) in changes.iter().enumerate() {
        let mut world = World::accepted(100, CaptureMethod::Manual);
        world.tampered = true;
        change(&mut world);
        let attempt = world.attempt();
        world.report(SendOutcome::Unknown(crate::decline::Cause::ConnectionLost));
        let found = world.found_in_newest();
        let told = found.contains(&"ROWS_CHANGED_BEFORE ".to_owned());
        assert!(told, "change {at} of {attempt:?}: {found:?}");
    }
}

#[test]
fn s75_metadata_whose_parts_are_cut_otherwise_are_found() {
    let pairs = |pairs: &[(&str, &str)]| {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        owned.collect()
    };
    for (kept, forged) in [
        (pairs(&[("k", "a=b")]), pairs(&[("k=a", "b")])),
        (
            pairs(&[("a", "1"), ("b", "2")]),
            pairs(&[("a", "1\nmetadata.b=2")]),
        ),
        (
            pairs(&[("a", "1\",\"b\":\"2")]),
            pairs(&[("a", "1"), ("b", "2")]),
        ),
    ] {
        let mut world = World::authorized(100);
        world.record.payment.metadata = kept;
        let honest = row_digest(&world.record.payment);
        world.record.payment.metadata = forged;
        assert_ne!(row_digest(&world.record.payment), honest);
        world.tampered = true;
    }
}

#[test]
fn s75_a_transaction_that_was_put_in_and_then_sent_is_found() {
    let mut world = World::captured(100);
    world.refund(Some(10)).unwrap();
    let mut forged = world.record.transactions.last().unwrap().clone();
    world.tampered = true;
    forged.id = TransactionId(id(7_777));
    forged.amount = 90;
    world.record.transactions.push(forged.clone());
    world
        .decide(|record, rules, stamp| try_start(record, forged.id, rules, stamp).ok_or(()))
        .unwrap();
    let found = world.found_in_newest();
    let told = found.contains(&"REPLAY_DIFFERS transaction_id".to_owned());
    assert!(told, "{found:?}");
}

/// A tampering with a row, and what of it is reported: a column, or the row.
type Tampering = (&'static str, fn(&mut Transaction));

#[test]
fn s75_any_column_of_a_transaction_shows_though_the_newest_entry_is_about_another() {
    let changes: [Tampering; 13] = [
        ("COLUMN", |row| row.kind = Kind::Void),
        ("COLUMN", |row| row.amount += 1),
        ("COLUMN", |row| {
            (row.kind, row.amount) = (Kind::Void, row.amount + 1);
        }),
        ("COLUMN", |row| row.state = TransactionState::Reversed),
        ("COLUMN", |row| {
            row.provider_reference = Some(ProviderReference::parse("forged").unwrap());
        }),
        ("COLUMN", |row| {
            row.provider_account = ProviderAccount::parse("forged").unwrap();
        }),
        ("COLUMN", |row| {
            row.decline = Some(Decline {
                code: DeclineCode::Other,
                provider_code: Text::default(),
            });
        }),
        ("ROW", |row| {
            row.origin = crate::transaction::TransactionOrigin::Operator;
        }),
        ("ROW", |row| row.final_capture = true),
        ("ROW", |row| row.ever_unknown = true),
        ("ROW", |row| {
            row.failure = Some(crate::decline::Failure {
                cause: crate::decline::Cause::Expired,
            });
        }),
        ("ROW", |row| row.execute_before += TimeDelta::days(9)),
        ("ROW", |row| row.resolved_by_operator = true),
    ];
    for (at, (which, change)) in changes.iter().enumerate() {
        let mut world = World::captured(100);
        world.refund(Some(10)).unwrap();
        world.answer(approved(10));
        assert_eq!(world.verify(), []);
        world.tampered = true;
        change(world.opening());
        let found = world.verify();
        let code = format!("TRANSACTION_{which}_DIFFERS");
        let codes: Vec<_> = found.iter().map(|it| it.fault.code()).collect();
        assert!(codes.contains(&code.as_str()), "change {at}: {codes:?}");
    }
}
