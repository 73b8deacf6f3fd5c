//! Public vectors, positive and negative. `vectors/README.md` says where they are from.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "a panic is a failed test"
)]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use quittance_evidence::{
    Checkpoint, Hash, SignedCheckpoint, leaf_hash,
    note::{KeyError, Note, SigningKey, VerifierKey},
    tile::{Entries, Tile, TileId, TileSet},
    tree::{CompactRange, Path, verify_consistency, verify_growth, verify_inclusion},
};
use serde_json::Value;

const MERKLE: &str = include_str!("vectors/merkle.jsonl");
const TESSERA: &str = include_str!("vectors/tessera_log.json");

/// Some cases have roots or hashes that are not 32 bytes long, which our types cannot hold. A digest of
/// their bytes and part stands for them, so that the verifier itself must refuse what is left.
fn hash(text: &Value, part: &str) -> Hash {
    let bytes = STANDARD.decode(text.as_str().unwrap_or("")).unwrap();
    let stand_in = || Hash::of(&[part.as_bytes(), &bytes].concat());
    <[u8; 32]>::try_from(&bytes[..]).map_or_else(|_| stand_in(), Hash::from_bytes)
}

fn proof(case: &Value) -> Vec<Hash> {
    case["proof"]
        .as_array()
        .map(|hashes| hashes.iter().map(|step| hash(step, "step")).collect())
        .unwrap_or_default()
}

fn cases(kind: &str) -> Vec<Value> {
    MERKLE
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|case: &Value| case["case"].as_str().unwrap().starts_with(kind))
        .collect()
}

#[test]
fn every_public_inclusion_case_is_judged_as_published() {
    let cases = cases("inclusion/");
    for case in &cases {
        let verified = verify_inclusion(
            &hash(&case["leafHash"], "leaf"),
            case["leafIdx"].as_u64().unwrap(),
            case["treeSize"].as_u64().unwrap(),
            &proof(case),
            &hash(&case["root"], "root"),
        );
        assert_eq!(verified.is_err(), case["wantErr"], "{case}");
    }
    assert_eq!(cases.len(), 98);
}

#[test]
fn every_public_consistency_case_is_judged_as_published() {
    let cases = cases("consistency/");
    for case in &cases {
        let (old, new) = (hash(&case["root1"], "root"), hash(&case["root2"], "root"));
        let sizes = (case["size1"].as_u64(), case["size2"].as_u64());
        let (old_size, new_size) = (sizes.0.unwrap(), sizes.1.unwrap());
        let proof = proof(case);
        let verified = verify_consistency(old_size, &old, new_size, &new, &proof);
        assert_eq!(verified.is_err(), case["wantErr"], "{case}");
        if old_size > 0 {
            let followed = verify_growth(old_size, &old, new_size, &new, &proof);
            assert_eq!(followed, verified, "{case}");
        }
    }
    assert_eq!(cases.len(), 98);
}

#[test]
fn an_empty_proof_from_size_0_is_refused_by_readers_and_taken_by_witnesses() {
    let from_empty: Vec<_> = cases("consistency/")
        .into_iter()
        .filter(|case| case["size1"] == 0 && proof(case).is_empty())
        .collect();
    let (mut taken, empty) = (0, CompactRange::new().root());
    for case in &from_empty {
        let new_size = case["size2"].as_u64().unwrap();
        let (old, new) = (hash(&case["root1"], "root"), hash(&case["root2"], "root"));
        assert!(verify_consistency(0, &old, new_size, &new, &[]).is_err());
        let followed = verify_growth(0, &old, new_size, &new, &[]);
        // A witness starts from the root of the empty tree, whatever the new one is.
        let right = old == empty && (new_size > 0 || new == empty);
        assert_eq!(followed.is_ok(), right, "{case}");
        taken += usize::from(right);
    }
    assert!(taken > 0 && taken < from_empty.len());
}

struct Log {
    key: VerifierKey,
    checkpoints: Vec<String>,
    tile: Vec<u8>,
    entries: Vec<u8>,
}

fn log() -> Log {
    let log: Value = serde_json::from_str(TESSERA).unwrap();
    let bytes = |name: &str| STANDARD.decode(log[name].as_str().unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Log {
        key: text(&log["verifier_key"]).parse().unwrap(),
        checkpoints: log["checkpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(text)
            .collect(),
        tile: bytes("tile"),
        entries: bytes("entries"),
    }
}

#[test]
fn another_implementations_log_gives_its_own_tiles_roots_and_signatures() {
    let log = log();
    let (mut range, mut tiles) = (CompactRange::new(), TileSet::new());
    let keys = [log.key];
    let mut entries = Entries::new(&log.entries);
    for (size, text) in (0_u64..).zip(&log.checkpoints) {
        let note: Note = text.parse().unwrap();
        assert_eq!(note.to_string(), *text);
        let signed = SignedCheckpoint::open(&note, &keys).unwrap();
        assert_eq!(signed.checkpoint.size, size);
        assert_eq!(signed.checkpoint.root, range.root());
        assert_eq!(signed.checkpoint.text(), note.text());
        if let Some(entry) = entries.next() {
            tiles.append(&mut range, leaf_hash(entry.unwrap())).unwrap();
        }
    }
    let first = TileId { level: 0, index: 0 };
    assert_eq!(tiles.get(first).unwrap().encode(), log.tile);
    assert_eq!(first.path(15), "tile/0/000.p/15");
}

#[test]
fn another_implementations_tile_proves_every_leaf_and_every_growth() {
    let log = log();
    let root = |size: u64| {
        let note: Note = log.checkpoints[size as usize].parse().unwrap();
        Checkpoint::parse_text(note.text()).unwrap().root
    };
    let tile = Tile::decode(&log.tile).unwrap();
    for size in 1..=15 {
        let mut tiles = TileSet::new();
        let at_the_time = tile.narrowed(size as u16).unwrap();
        tiles.insert(TileId { level: 0, index: 0 }, at_the_time);
        for (index, leaf) in (0..size).zip(tile.hashes()) {
            let path = Path::inclusion(index, size).unwrap();
            let proof = path.prove(|id| tiles.node(id)).unwrap();
            verify_inclusion(leaf, index, size, &proof, &root(size)).unwrap();
        }
        for old in 1..=size {
            let path = Path::consistency(old, size).unwrap();
            let proof = path.prove(|id| tiles.node(id)).unwrap();
            verify_consistency(old, &root(old), size, &root(size), &proof).unwrap();
        }
    }
}

/// Key and note of the tests of Go's sumdb/note.
const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const GO_SECRET: &str =
    "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\n\
    \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

#[test]
fn gos_key_signs_gos_note_byte_for_byte() {
    let key = SigningKey::parse(GO_SECRET).unwrap();
    assert_eq!(key.verifier().to_string(), GO_KEY);
    assert_eq!(key.to_secret_text().as_str(), GO_SECRET);
    let note: Note = GO_NOTE.parse().unwrap();
    let ours = Note::sign(note.text(), &[&key]).unwrap();
    assert_eq!(ours.to_string(), GO_NOTE);
    assert_eq!(note.verify(&[GO_KEY.parse().unwrap()]).unwrap().len(), 1);
}

#[test]
fn only_gos_key_as_it_is_written_is_that_key() {
    for from in 0..GO_KEY.len() {
        for to in from + 1..=GO_KEY.len() {
            let whole = from == 0 && to == GO_KEY.len();
            assert_eq!(GO_KEY[from..to].parse::<VerifierKey>().is_ok(), whole);
        }
    }
    for at in 0..GO_KEY.len() {
        for bit in 0..7 {
            let mut bytes = GO_KEY.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(changed.parse::<VerifierKey>().is_err(), "{changed}");
        }
    }
}

#[test]
fn the_verifier_key_of_signed_note_reads_as_published() {
    let text = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    let key: VerifierKey = text.parse().unwrap();
    assert_eq!(key.name().as_str(), "example.com/foo");
    assert_eq!(key.id().to_string(), "530d903a");
    assert_eq!(key.to_string(), text);
    let refused = |from: &str, to: &str| text.replace(from, to).parse::<VerifierKey>();
    assert_eq!(refused("903a", "903b"), Err(KeyError::WrongId));
    assert_eq!(refused("/foo", "/fob"), Err(KeyError::WrongId));
    assert_eq!(refused("/foo", "/f o"), Err(KeyError::InvalidName));
    // 0x02 in the place of 0x01.
    assert_eq!(refused("Aek", "Aik"), Err(KeyError::UnknownType));
}
