//! Signed notes, and what they sign: checkpoints, cosignatures, receipts, statements.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is a failed test"
)]

use proptest::prelude::*;
use quittance_evidence::{
    Checkpoint, CheckpointError, Hash, LastEntry, Receipt, SignedCheckpoint, TextError,
    note::{
        KeyError, KeyName, MAX_NOTE_BYTES, MAX_SIGNATURES, Note, NoteError, Signature, SigningKey,
        VerifierKey, WitnessKey,
    },
};
use uuid::Uuid;

const ORIGIN: &str = "example.com/quittance";

fn key(name: &str, seed: u8) -> SigningKey {
    SigningKey::from_seed(KeyName::new(name).unwrap(), &[seed; 32])
}

fn witness(name: &str, seed: u8) -> WitnessKey {
    key(name, seed).into()
}

fn checkpoint(size: u64) -> Checkpoint {
    Checkpoint {
        origin: KeyName::new(ORIGIN).unwrap(),
        size,
        root: Hash::of(&size.to_be_bytes()),
    }
}

fn receipt() -> Receipt {
    Receipt {
        entry_id: Uuid::from_u128(1),
        payment_id: Uuid::from_u128(2),
        entity_seq: 3,
        leaf_hash: Hash::of(b"leaf"),
        time_ms: 1_700_000_000_123,
    }
}

fn statement() -> LastEntry {
    LastEntry {
        payment_id: Uuid::from_u128(2),
        entity_seq: 7,
        leaf_hash: Hash::of(b"leaf"),
        origin: KeyName::new(ORIGIN).unwrap(),
        tree_size: 1_000,
        root: Hash::of(b"root"),
    }
}

/// Whether the note is what it was signed as: parses, verifies and has the same bytes.
fn accepted(bytes: &[u8], keys: &[VerifierKey]) -> bool {
    Note::parse(bytes).is_ok_and(|note| note.verify(keys).is_ok())
}

#[test]
fn no_bit_of_a_note_can_be_changed() {
    let (log, seen_by) = (key(ORIGIN, 1), witness("witness.example/w1", 2));
    let receipts = key("example.com/quittance/receipts", 3);
    let mut cosigned_only = checkpoint(70_000).sign(&[&log]).unwrap();
    let cosignature = checkpoint(70_000).cosign(&seen_by, 1_700_000_000);
    let text = cosigned_only.text().to_owned();
    let lines = format!("{text}\n{cosignature}");
    cosigned_only = lines.parse().unwrap();
    for (note, key) in [
        (checkpoint(70_000).sign(&[&log]).unwrap(), log.verifier()),
        (cosigned_only, seen_by.verifier()),
        (receipt().sign(&[&receipts]).unwrap(), receipts.verifier()),
        (statement().sign(&[&log]).unwrap(), log.verifier()),
    ] {
        let keys = [key.clone()];
        let bytes = note.to_string().into_bytes();
        assert!(accepted(&bytes, &keys));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!accepted(&changed, &keys), "bit {bit} of {note}");
        }
        for end in 0..bytes.len() {
            assert!(!accepted(&bytes[..end], &keys), "cut at {end}");
        }
    }
}

#[test]
fn while_a_key_is_replaced_both_sign_and_readers_of_either_are_content() {
    let (old, new, other) = (key(ORIGIN, 1), key(ORIGIN, 2), key(ORIGIN, 3));
    let note = checkpoint(9).sign(&[&old, &new]).unwrap();
    for keys in [vec![&old], vec![&new], vec![&new, &other], vec![&old, &new]] {
        let keys: Vec<_> = keys.iter().map(|key| key.verifier().clone()).collect();
        let signed = SignedCheckpoint::open(&note, &keys).unwrap();
        assert_eq!(signed.checkpoint, checkpoint(9));
        assert!(!signed.signers.is_empty());
    }
    let strangers = [other.verifier().clone()];
    assert_eq!(note.verify(&strangers), Err(NoteError::UnknownSigners));
}

#[test]
fn a_wrong_signature_of_a_known_key_spoils_the_whole_note() {
    let (one, two) = (key(ORIGIN, 1), key(ORIGIN, 2));
    let good = checkpoint(9).sign(&[&one]).unwrap();
    let of_another_text = checkpoint(10).sign(&[&two]).unwrap();
    let mut note = good.clone();
    note.add(of_another_text.signatures().iter().cloned())
        .unwrap();
    let keys = [one.verifier().clone(), two.verifier().clone()];
    let name = KeyName::new(ORIGIN).unwrap();
    assert_eq!(note.verify(&keys), Err(NoteError::WrongSignature(name)));
    // Who does not know the second key ignores it.
    assert_eq!(note.verify(&keys[..1]).unwrap().len(), 1);
    // A repeated signature counts once.
    note = good.clone();
    note.add(good.signatures().iter().cloned()).unwrap();
    assert_eq!(note, good);
    let twice = format!("{good}{}", good.signatures()[0]);
    let twice: Note = twice.parse().unwrap();
    assert_eq!(twice.verify(&keys).unwrap().len(), 1);
}

#[test]
fn a_cosignature_states_its_time_and_is_no_signature_of_the_log() {
    let (log, w1) = (key(ORIGIN, 1), witness("witness.example/w1", 2));
    let at = checkpoint(70_000);
    let mut note = at.sign(&[&log]).unwrap();
    note.add([at.cosign(&w1, 1_700_000_000)]).unwrap();
    let keys = [log.verifier().clone(), w1.verifier().clone()];
    let signed = SignedCheckpoint::open(&note, &keys).unwrap();
    assert_eq!(signed.signers, [&keys[0]]);
    assert_eq!(signed.cosigners.len(), 1);
    assert_eq!(signed.cosigners[0].time, Some(1_700_000_000));

    // A witness that calls itself by the log's name signs as a witness all the same.
    let posing = witness(ORIGIN, 1);
    let lines = format!("{}\n{}", at.text(), at.cosign(&posing, 5));
    let keys = [posing.verifier().clone()];
    assert_eq!(
        SignedCheckpoint::open(&lines.parse().unwrap(), &keys),
        Err(CheckpointError::NotByTheLog(at.origin.clone()))
    );
    // The same 32 bytes under two types are two keys.
    assert_ne!(log.verifier().id(), posing.verifier().id());
    // Another log's key does not speak for this log.
    let stranger = key("example.com/other", 4);
    let note = at.sign(&[&stranger]).unwrap();
    let keys = [stranger.verifier().clone()];
    assert_eq!(
        SignedCheckpoint::open(&note, &keys),
        Err(CheckpointError::NotByTheLog(at.origin))
    );
}

#[test]
fn a_cosigned_time_beyond_2_to_the_63_is_refused() {
    let w1 = witness("witness.example/w1", 2);
    let keys = [w1.verifier().clone()];
    let verify = |time| {
        let lines = format!(
            "{}\n{}",
            checkpoint(1).text(),
            checkpoint(1).cosign(&w1, time)
        );
        lines.parse::<Note>().unwrap().verify(&keys).is_ok()
    };
    assert!(verify(u64::MAX >> 1));
    assert!(!verify((u64::MAX >> 1) + 1));
}

#[test]
fn what_is_signed_as_one_thing_is_no_other() {
    let key = key(ORIGIN, 1);
    let keys = [key.verifier().clone()];
    let checkpoint = checkpoint(3).sign(&[&key]).unwrap();
    let receipt = receipt().sign(&[&key]).unwrap();
    let statement = statement().sign(&[&key]).unwrap();
    assert!(Receipt::open(&checkpoint, &keys).is_err());
    assert!(Receipt::open(&statement, &keys).is_err());
    assert!(SignedCheckpoint::open(&receipt, &keys).is_err());
    assert!(SignedCheckpoint::open(&statement, &keys).is_err());
    assert!(LastEntry::parse_text(receipt.text()).is_err());
    assert!(LastEntry::parse_text(checkpoint.text()).is_err());
}

#[test]
fn the_same_receipt_has_the_same_bytes() {
    let key = key("example.com/quittance/receipts", 3);
    let note = receipt().sign(&[&key]).unwrap();
    assert_eq!(note, receipt().sign(&[&key]).unwrap());
    let keys = [key.verifier().clone()];
    let read: Note = note.to_string().parse().unwrap();
    assert_eq!(Receipt::open(&read, &keys), Ok(receipt()));
    assert_eq!(
        receipt().text(),
        "quittance receipt v1\n\
         entry_id 00000000-0000-0000-0000-000000000001\n\
         payment_id 00000000-0000-0000-0000-000000000002\n\
         entity_seq 3\n\
         leaf_hash 9f91161f43433e49a6de6db680d79f60159f2e4ac9172621a12846428158440b\n\
         time_ms 1700000000123\n"
    );
}

#[test]
fn texts_have_one_spelling() {
    let text = receipt().text();
    for (from, to, refused) in [
        ("seq 3", "seq 03", TextError::Line("entity_seq")),
        ("seq 3", "seq +3", TextError::Line("entity_seq")),
        ("seq 3", "seq  3", TextError::Line("entity_seq")),
        ("entry_id ", "entry-id ", TextError::Line("entry_id")),
        (
            "receipt v1",
            "receipt v2",
            TextError::OtherKind("quittance receipt v1"),
        ),
        ("00123\n", "00123\nmore\n", TextError::TooLong),
        ("time_ms", "", TextError::Line("time_ms")),
    ] {
        assert_eq!(Receipt::parse_text(&text.replace(from, to)), Err(refused));
    }
    let text = checkpoint(70_000).text();
    for (from, to) in [
        ("\n70000", "\n070000"),
        ("\n70000", "\n-1"),
        ("\n70000", "\n4611686018427387905"),
        ("=\n", "\n"),
        ("=\n", "=\nextension\n"),
        (ORIGIN, ""),
        (ORIGIN, "a b"),
    ] {
        assert!(
            Checkpoint::parse_text(&text.replace(from, to)).is_err(),
            "{to}"
        );
    }
}

#[test]
fn notes_have_limits() {
    let signer = key(ORIGIN, 1);
    let keys = vec![&signer; MAX_SIGNATURES + 1];
    assert_eq!(Note::sign("x\n", &keys), Err(NoteError::TooManySignatures));
    assert_eq!(Note::sign("x\n", &[]), Err(NoteError::NoSignatures));
    for text in ["", "x", "x\r\n", "x\ty\n"] {
        assert_eq!(Note::sign(text, &[&signer]), Err(NoteError::NotText));
    }
    let long = "x".repeat(MAX_NOTE_BYTES) + "\n";
    assert_eq!(
        Note::sign(long.clone(), &[&signer]),
        Err(NoteError::TooLarge)
    );
    assert_eq!(Note::parse(long.as_bytes()), Err(NoteError::TooLarge));
    let lines = Note::sign("x\n", &keys[1..]).unwrap().to_string();
    assert!(lines.parse::<Note>().is_ok());
    let line = lines.lines().last().unwrap();
    assert_eq!(
        format!("{lines}{line}\n").parse::<Note>(),
        Err(NoteError::TooManySignatures)
    );
}

#[test]
fn a_text_may_hold_blank_lines_and_dashes() {
    let log = key(ORIGIN, 1);
    let text = "first\n\n\u{2014} not a signature\n";
    let note = Note::sign(text, &[&log]).unwrap();
    let read: Note = note.to_string().parse().unwrap();
    assert_eq!(read.text(), text);
    assert!(read.verify(&[log.verifier().clone()]).is_ok());
}

#[test]
fn private_keys_are_read_as_written_and_never_shown() {
    let log = key(ORIGIN, 171);
    let secret = log.to_secret_text();
    assert_eq!(
        SigningKey::parse(&format!("{}\n", *secret))
            .unwrap()
            .to_secret_text(),
        secret
    );
    let encoded = secret.rsplit('+').next().unwrap();
    for shown in [
        format!("{log:?}"),
        format!("{:?}", WitnessKey::from(log.clone())),
    ] {
        assert!(shown.contains("redacted") && !shown.contains("171") && !shown.contains(encoded));
    }
    for (from, to) in [("PRIVATE+", ""), ("KEY+", "KEY+x"), ("+Aa", "+BK")] {
        assert!(
            SigningKey::parse(&secret.replacen(from, to, 1)).is_err(),
            "{from}"
        );
    }
    assert!(SigningKey::parse(&secret[..secret.len() - 1]).is_err());
    let other_id = log.verifier().id().to_string();
    let changed = secret.replacen(&other_id, "00000000", 1);
    assert_eq!(SigningKey::parse(&changed).err(), Some(KeyError::WrongId));
}

proptest! {
    #[test]
    fn parsers_take_any_bytes_and_print_what_they_read(bytes in any::<Vec<u8>>(), text in "\\PC*") {
        if let Ok(note) = Note::parse(&bytes) {
            prop_assert_eq!(note.to_string().into_bytes(), bytes);
        }
        let _ = Checkpoint::parse_text(&text);
        let _ = Receipt::parse_text(&text);
        let _ = LastEntry::parse_text(&text);
        let _ = Signature::parse_lines(&text);
        let _ = text.parse::<VerifierKey>();
    }

    #[test]
    fn notes_read_back(text in "[a-zé—\n]{0,40}\n", seeds in proptest::collection::vec(any::<u8>(), 1..5)) {
        let keys: Vec<_> = seeds.iter().map(|seed| key(&format!("k{seed}"), *seed)).collect();
        let note = Note::sign(text, &keys.iter().collect::<Vec<_>>()).unwrap();
        let read: Note = note.to_string().parse().unwrap();
        prop_assert_eq!(&read, &note);
        let known: Vec<_> = keys.iter().map(|key| key.verifier().clone()).collect();
        prop_assert_eq!(read.verify(&known).unwrap().len(), known.len());
    }
}
