//! Evidence bundles: what is whole is proved, and every forgery is found and named.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "a panic is a failed test"
)]

mod support;

use std::sync::LazyLock;

use proptest::prelude::*;
use quittance_evidence::{
    ChainFault, Disclosure, Hash,
    bundle::{
        Bundle, BundleFormError, CheckFailure, CheckName, MAX_BUNDLE_BYTES, Report, TrustedKeys,
    },
    note::{KeyName, WitnessKey},
    tree::ProofError,
};
use support::log::{Log, STORY, key, name_of};
use uuid::Uuid;

const PAYMENT: Uuid = Uuid::from_u128(5);

static LOG: LazyLock<Log> = LazyLock::new(|| Log::of_payments(40));

fn bundle() -> Bundle {
    LOG.bundle(PAYMENT)
}

fn verify(bundle: &Bundle) -> Report {
    bundle.verify(&LOG.trusted())
}

/// The failures of the checks, by name.
fn failed(bundle: &Bundle) -> Vec<CheckName> {
    verify(bundle).failures().map(|(name, _)| name).collect()
}

fn failure(bundle: &Bundle, name: CheckName) -> CheckFailure {
    let report = verify(bundle);
    let found = report.failures().find(|(of, _)| *of == name);
    found.unwrap().1.clone()
}

#[test]
fn a_whole_bundle_is_proved_and_tells_what_it_proves() {
    let bytes = bundle().encode().unwrap();
    let read = Bundle::decode(&bytes).unwrap();
    assert_eq!(read, bundle());
    let report = verify(&read);
    assert!(report.is_proved(), "{report:?}");
    assert_eq!(report.checks.len(), CheckName::ALL.len());
    assert_eq!(report.entries.len() as u64, STORY);
    assert_eq!(report.tree_size, Some(LOG.size()));
    let witness = KeyName::new("witness.example/w1").unwrap();
    assert_eq!(report.cosigned, [(witness, 1_772_323_200)]);
    assert_eq!(report.disclosures, [name_of(PAYMENT)]);
}

#[test]
fn nothing_of_another_payment_is_in_a_bundle() {
    let bytes = bundle().encode().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    for other in (1..=40).filter(|other| *other != 5) {
        assert!(!text.contains(&Uuid::from_u128(other).to_string()));
        assert!(!text.contains(&format!("<{other}>")));
    }
}

#[test]
fn without_witness_or_disclosure_it_is_proved_all_the_same() {
    let mut bundle = bundle();
    bundle.disclosures.clear();
    bundle.checkpoint = LOG.checkpoint().sign(&[&LOG.key]).unwrap();
    let mut keys = LOG.verifiers();
    keys.truncate(2);
    let report = bundle.verify(&TrustedKeys::new(keys));
    assert!(report.is_proved());
    assert!(report.cosigned.is_empty() && report.disclosures.is_empty());
    assert!(report.not_cosigned.is_empty());
}

#[test]
fn a_witness_whose_key_is_given_must_have_cosigned() {
    let mut bundle = bundle();
    bundle.checkpoint = LOG.checkpoint().sign(&[&LOG.key]).unwrap();
    assert_eq!(failed(&bundle), [CheckName::Witnesses]);
    let why = failure(&bundle, CheckName::Witnesses);
    assert_eq!(why.to_string(), "not cosigned by witness.example/w1");
    // Another one will not do, nor one of two.
    let other = WitnessKey::from(key("witness.example/w2", 4));
    let both = [LOG.verifiers(), vec![other.verifier().clone()]].concat();
    bundle
        .checkpoint
        .add([LOG.checkpoint().cosign(&other, 1_772_323_200)])
        .unwrap();
    let report = bundle.verify(&TrustedKeys::new(both.clone()));
    assert_eq!(report.not_cosigned, [LOG.witness.verifier().name().clone()]);
    assert!(!report.is_proved());
    // Whoever publishes the bundle waits for no witness.
    let report = bundle.verify(&TrustedKeys::new(both).with_late_witnesses());
    assert!(report.is_proved());
    assert_eq!(report.cosigned.len(), 1);
    assert_eq!(report.not_cosigned.len(), 1);
}

#[test]
fn while_a_witness_replaces_its_key_either_will_do() {
    let newer = WitnessKey::from(key("witness.example/w1", 4));
    let keys = [vec![newer.verifier().clone()], LOG.verifiers()].concat();
    let report = bundle().verify(&TrustedKeys::new(keys));
    assert!(report.is_proved() && report.not_cosigned.is_empty());
    assert_eq!(report.cosigned.len(), 1);
}

#[test]
fn an_entry_left_out_at_the_end_in_the_middle_or_at_the_start_is_named() {
    let mut cut = bundle();
    cut.entries.pop();
    assert_eq!(failed(&cut), [CheckName::LastEntry]);
    assert_eq!(
        failure(&cut, CheckName::LastEntry),
        CheckFailure::OtherLastEntry {
            stated: STORY,
            found: STORY - 1
        }
    );
    for at in 0..STORY - 1 {
        let mut gap = bundle();
        gap.entries.remove(at as usize);
        let CheckFailure::Chain(error) = failure(&gap, CheckName::Entries) else {
            panic!("a gap is no other failure");
        };
        assert_eq!(error.place, at + 1);
        assert_eq!(error.fault, ChainFault::WrongNumber(at + 2));
    }
    let mut nothing = bundle();
    nothing.entries.clear();
    assert_eq!(
        failure(&nothing, CheckName::Entries),
        CheckFailure::NoEntries
    );
}

#[test]
fn an_entry_that_says_something_else_is_named() {
    let mut changed = bundle();
    let entry = &mut changed.entries[3];
    entry.leaf_data = entry.leaf_data.replace("\"2345\"", "\"1345\"");
    let not_in_log = CheckFailure::NotInLog {
        number: 4,
        source: ProofError::WrongRoot,
    };
    assert_eq!(failure(&changed, CheckName::Inclusion), not_in_log);
    // The next entry is chained to what stood there before.
    let CheckFailure::Chain(error) = failure(&changed, CheckName::Entries) else {
        panic!("a broken chain is no other failure");
    };
    assert_eq!((error.place, error.fault), (5, ChainFault::WrongLink));
}

#[test]
fn entries_of_another_payment_or_in_another_order_are_refused() {
    let other = LOG.bundle(Uuid::from_u128(6));
    let mut posing = other.clone();
    posing.payment_id = PAYMENT;
    assert_eq!(
        failure(&posing, CheckName::Entries),
        CheckFailure::OtherPayment(PAYMENT)
    );
    assert_eq!(
        failure(&posing, CheckName::LastEntry),
        CheckFailure::StatementAboutAnother("payment")
    );
    let mut mixed = bundle();
    mixed.entries[2] = other.entries[2].clone();
    assert_eq!(failed(&mixed), [CheckName::Entries, CheckName::LastEntry]);
    let mut swapped = bundle();
    swapped.entries.swap(1, 2);
    assert!(failed(&swapped).contains(&CheckName::Entries));
}

#[test]
fn a_checkpoint_and_a_statement_that_do_not_belong_together_are_refused() {
    let later = Log::of_payments(41);
    // Entries proved in one tree, the checkpoint of another.
    let mut other_tree = bundle();
    other_tree.checkpoint = later.checkpoint().sign(&[&LOG.key]).unwrap();
    assert_eq!(
        failed(&other_tree),
        [
            CheckName::Inclusion,
            CheckName::LastEntry,
            CheckName::Witnesses
        ]
    );
    assert_eq!(
        failure(&other_tree, CheckName::LastEntry),
        CheckFailure::StatementAboutAnother("checkpoint")
    );
    let mut by_nobody = bundle();
    by_nobody.checkpoint = LOG.checkpoint().sign(&[&LOG.receipts]).unwrap();
    assert!(failed(&by_nobody).contains(&CheckName::Checkpoint));
    let stranger = key("log.example/quittancer", 9);
    let mut trusted = LOG.verifiers();
    trusted.push(stranger.verifier().clone());
    let mut stated_by_another = bundle();
    stated_by_another.last_entry = LOG.statement(PAYMENT).sign(&[&stranger]).unwrap();
    let report = stated_by_another.verify(&TrustedKeys::new(trusted));
    let failures: Vec<_> = report.failures().map(|(name, _)| name).collect();
    assert_eq!(failures, [CheckName::LastEntry]);
}

/// Whoever has it, also one that was replaced, could make up entries, a tree over them, and a checkpoint of its name.
#[test]
fn s75_a_key_of_receipts_alone_makes_no_log() {
    let forged = LOG.bundle_by(PAYMENT, &LOG.receipts);
    let not_a_log = CheckFailure::NotALog(LOG.receipts.name().clone());
    assert_eq!(failure(&forged, CheckName::Checkpoint), not_a_log);
    // Whichever keys its reader has.
    let receipts = LOG.receipts.verifier().clone();
    let report = forged.verify(&TrustedKeys::new(vec![receipts]));
    assert!(!report.is_proved());
    // A key of another name speaks for the log just as well, and is known by the key of the log.
    let speaker = key("log.example/quittance/eu/statements", 9);
    let forged = LOG.bundle_by(PAYMENT, &speaker);
    let keys = [LOG.verifiers(), vec![speaker.verifier().clone()]].concat();
    let report = forged.verify(&TrustedKeys::new(keys));
    let failures: Vec<_> = report.failures().map(|(_, why)| why.clone()).collect();
    assert!(failures.contains(&CheckFailure::NotALog(speaker.name().clone())));
    // One that is only named alike is another log's.
    let other = key("log.example/quittance-eu", 9);
    let keys = [LOG.verifiers(), vec![other.verifier().clone()]].concat();
    let own = LOG.bundle_by(PAYMENT, &other);
    assert!(own.verify(&TrustedKeys::new(keys)).is_proved());
}

#[test]
fn who_trusts_no_key_has_nothing_proved() {
    let report = bundle().verify(&TrustedKeys::default());
    assert!(!report.is_proved());
    // What needs no key is checked all the same.
    let failures: Vec<_> = report.failures().map(|(name, _)| name).collect();
    let keyed = [
        CheckName::Checkpoint,
        CheckName::Inclusion,
        CheckName::LastEntry,
    ];
    assert_eq!(failures, keyed);
    let witness_only = TrustedKeys::new(LOG.verifiers().split_off(2));
    assert!(!bundle().verify(&witness_only).is_proved());
}

#[test]
fn a_value_that_was_never_recorded_is_refused() {
    let mut bundle = bundle();
    let invented = Disclosure::new([4; 16], "customer.name", "Somebody else").unwrap();
    bundle.disclosures.push(invented);
    let expected = CheckFailure::NotInEntries {
        number: 2,
        name: "customer.name".to_owned(),
    };
    assert_eq!(failure(&bundle, CheckName::Disclosures), expected);
    // The same digest under another name is another value.
    let renamed = Disclosure::new([4; 16], "customer.nick", name_of(PAYMENT).value()).unwrap();
    bundle.disclosures = vec![renamed];
    assert_eq!(failed(&bundle), [CheckName::Disclosures]);
}

#[test]
fn a_file_has_one_spelling_and_limits() {
    let bytes = bundle().encode().unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let refused = |text: &str| Bundle::decode(text.as_bytes()).unwrap_err();
    for (from, to) in [
        ("\n ", "\n  "),
        ("}\n", "}"),
        ("Größe", "Gr\\u00f6\\u00dfe"),
        ("\"leaf_index\": \"", "\"leaf_index\": \"0"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert!(
            matches!(refused(&changed), BundleFormError::NotCanonical { .. }),
            "{to}"
        );
    }
    for (from, to) in [
        ("\"format\"", "\"more\": 1,\n \"format\""),
        ("\"format\"", "\"format\": \"\",\n \"format\""),
        ("\"leaf_index\": \"4\"", "\"leaf_index\": 4"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert!(
            matches!(refused(&changed), BundleFormError::Malformed { .. }),
            "{to}"
        );
    }
    assert_eq!(
        refused(&text.replace("bundle v1", "bundle v2")),
        BundleFormError::OtherFormat
    );
    let long = vec![b' '; MAX_BUNDLE_BYTES + 1];
    assert_eq!(
        Bundle::decode(&long),
        Err(BundleFormError::TooLarge(MAX_BUNDLE_BYTES + 1))
    );
    let mut deep = bundle();
    deep.entries[0].inclusion_proof = vec![Hash::of(b""); 64];
    assert!(matches!(
        deep.encode(),
        Err(BundleFormError::TooMany { most: 63, .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_change_of_the_file_leaves_another_bundle_proved(
        at in any::<prop::sample::Index>(), bit in 0..8, kind in 0..4,
    ) {
        let mut bytes = bundle().encode().unwrap();
        let at = at.index(bytes.len());
        match kind {
            0 => bytes[at] ^= 1_u8 << bit,
            1 => { bytes.remove(at); }
            2 => bytes.insert(at, bytes[at]),
            _ => bytes.truncate(at),
        }
        // A changed cosignature line may pass for that of an unknown witness, and is then not shown as
        // trusted. Nothing else may be changed.
        if let Ok(changed) = Bundle::decode(&bytes) {
            let report = verify(&changed);
            let whole = changed == bundle();
            prop_assert!(whole || !report.is_proved() || report.cosigned.is_empty());
            if report.is_proved() {
                prop_assert_eq!(changed.entries, bundle().entries);
                prop_assert_eq!(changed.disclosures, bundle().disclosures);
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in any::<Vec<u8>>()) {
        prop_assert!(Bundle::decode(&bytes).is_err());
    }
}
