//! What a witness cosigns, and what it never does.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;
use quittance_evidence::{
    Checkpoint, leaf_hash,
    note::{KeyName, Note, SigningKey},
    tile::TileSet,
    tree::{CompactRange, Path, ProofError},
    witness::{AddCheckpoint, AddCheckpointError, Refusal, WitnessedLog},
};

const ORIGIN: &str = "log.example/quittance";

fn key(name: &str, seed: u8) -> SigningKey {
    SigningKey::from_seed(KeyName::new(name).unwrap(), &[seed; 32])
}

/// A log of leaves that differ from those of a log with another `salt` from leaf `fork` on.
struct Log {
    tiles: TileSet,
    heads: Vec<Checkpoint>,
}

impl Log {
    fn forked(salt: u8, fork: u64) -> Self {
        let (mut range, mut tiles) = (CompactRange::new(), TileSet::new());
        let origin = || KeyName::new(ORIGIN).unwrap();
        let mut heads = vec![Checkpoint::empty(origin())];
        for index in 0..100_u64 {
            let of_fork = if index < fork { 0 } else { salt };
            let leaf = leaf_hash(&[&index.to_be_bytes()[..], &[of_fork]].concat());
            tiles.append(&mut range, leaf).unwrap();
            heads.push(Checkpoint {
                origin: origin(),
                size: range.size(),
                root: range.root(),
            });
        }
        Self { tiles, heads }
    }

    fn head(&self, size: usize) -> Checkpoint {
        self.heads.get(size).unwrap().clone()
    }

    fn request(&self, old: u64, new: u64) -> AddCheckpoint {
        let proof = if old == 0 {
            Vec::new()
        } else {
            let path = Path::consistency(old, new).unwrap();
            path.prove(|id| self.tiles.node(id)).unwrap()
        };
        let head = self.head(usize::try_from(new).unwrap());
        AddCheckpoint {
            old_size: old,
            proof,
            checkpoint: head.sign(&[&key(ORIGIN, 1)]).unwrap(),
        }
    }
}

fn follow(last: Checkpoint) -> WitnessedLog {
    WitnessedLog::new(vec![key(ORIGIN, 1).verifier().clone()], last)
}

#[test]
fn a_log_that_grows_is_followed_from_its_first_entry() {
    let log = Log::forked(0, 0);
    let mut witness = follow(log.head(0));
    for (old, new) in [(0, 0), (0, 7), (7, 7), (7, 8), (8, 99)] {
        let next = witness.judge(&log.request(old, new)).unwrap();
        assert_eq!(next, log.head(usize::try_from(new).unwrap()));
        witness.advance(next);
    }
}

#[test]
fn a_smaller_tree_after_a_larger_one_is_refused() {
    let log = Log::forked(0, 0);
    let witness = follow(log.head(50));
    for old in [0, 20] {
        let request = log.request(old, 40);
        assert_eq!(witness.judge(&request), Err(Refusal::OtherOldSize(50)));
    }
    let mut request = log.request(40, 40);
    request.old_size = 50;
    request.proof.clear();
    assert_eq!(witness.judge(&request), Err(Refusal::Malformed));
}

#[test]
fn a_signed_fork_is_known_for_one_whatever_old_size_comes_with_it() {
    let (honest, forked) = (Log::forked(0, 0), Log::forked(1, 20));
    let witness = follow(honest.head(50));
    for old in [0, 7, 50] {
        let judged = witness.judge(&forked.request(old, 50));
        assert_eq!(judged, Err(Refusal::Fork(50)), "old {old}");
    }
    // A public checkpoint with a proof that somebody made up says nothing about the log.
    let mut made_up = honest.request(50, 60);
    made_up.proof.reverse();
    let judged = witness.judge(&made_up);
    assert!(matches!(judged, Err(Refusal::NotGrown(_))), "{judged:?}");
}

#[test]
fn who_does_not_sign_for_the_log_is_refused() {
    let log = Log::forked(0, 0);
    let witness = follow(log.head(0));
    let mut request = log.request(0, 5);
    request.checkpoint = log.head(5).sign(&[&key(ORIGIN, 2)]).unwrap();
    assert!(matches!(
        witness.judge(&request),
        Err(Refusal::NotByTheLog(_))
    ));
    let other = Checkpoint {
        origin: KeyName::new("other.example").unwrap(),
        ..log.head(5)
    };
    request.checkpoint = other.sign(&[&key(ORIGIN, 1)]).unwrap();
    assert!(matches!(
        witness.judge(&request),
        Err(Refusal::NotByTheLog(_))
    ));
    request.checkpoint = Note::sign("not a checkpoint\n", &[&key(ORIGIN, 1)]).unwrap();
    assert_eq!(witness.judge(&request), Err(Refusal::Malformed));
}

proptest! {
    #[test]
    fn no_fork_is_ever_cosigned(fork in 0_u64..100, old in 1_u64..100, more in 0_u64..50) {
        let (honest, forked) = (Log::forked(0, 0), Log::forked(1, fork));
        let new = (old + more).min(100);
        let witness = follow(honest.head(usize::try_from(old).unwrap()));
        let judged = witness.judge(&forked.request(old, new));
        if fork >= old {
            // The fork begins after what was seen: it is this log's only history so far.
            prop_assert!(judged.is_ok());
        } else if new == old {
            prop_assert_eq!(judged, Err(Refusal::Fork(old)));
        } else {
            let no_growth = matches!(
                judged,
                Err(Refusal::NotGrown(ProofError::WrongOldRoot | ProofError::WrongRoot))
            );
            prop_assert!(no_growth, "{judged:?}");
        }
    }

    #[test]
    fn requests_read_back(old in 0_u64..100, more in 0_u64..50) {
        let request = Log::forked(0, 0).request(old, (old + more).min(100));
        prop_assert_eq!(AddCheckpoint::parse(request.to_string().as_bytes()), Ok(request));
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in any::<Vec<u8>>(), text in "old [0-9]{0,3}\n([a-zA-Z+/=]{0,44}\n){0,3}\n\\PC{0,9}\n") {
        let _ = AddCheckpoint::parse(&bytes);
        let _ = AddCheckpoint::parse(text.as_bytes());
    }
}

#[test]
fn a_request_has_one_spelling_and_a_limit() {
    let request = Log::forked(0, 0).request(7, 9).to_string();
    let parse = |text: String| AddCheckpoint::parse(text.as_bytes());
    assert_eq!(
        parse(request.replace("old 7", "old 07")),
        Err(AddCheckpointError::OldSize)
    );
    assert_eq!(
        parse(request.replace("old 7", "new 7")),
        Err(AddCheckpointError::OldSize)
    );
    let line = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";
    let long = request.replace("old 7\n", &format!("old 7\n{}", line.repeat(64)));
    assert_eq!(parse(long), Err(AddCheckpointError::Proof));
    assert_eq!(
        parse(request.replace("old 7\n", "old 7\nAAAA\n")),
        Err(AddCheckpointError::Proof)
    );
    assert_eq!(parse("old 7\n".to_owned()), Err(AddCheckpointError::Proof));
    assert!(matches!(
        parse("old 7\n\nx\n".to_owned()),
        Err(AddCheckpointError::Note(_))
    ));
}
