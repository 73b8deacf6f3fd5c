//! Verifiers end, and take no proof for two different trees.
#![no_main]
use quittance_evidence::{Hash, tree::{verify_consistency, verify_growth, verify_inclusion}};

libfuzzer_sys::fuzz_target!(|input: (u64, u64, [u8; 32], Vec<[u8; 32]>)| {
    let (a, b, root, proof) = input;
    let root = Hash::from_bytes(root);
    let proof: Vec<_> = proof.into_iter().map(Hash::from_bytes).collect();
    let other = Hash::of(root.as_bytes());
    assert!(verify_inclusion(&other, a, b, &proof, &root).is_err() || proof.is_empty());
    let _ = verify_growth(a, &root, b, &other, &proof);
    assert!(verify_consistency(a, &root, b, &other, &proof).is_err() || a < b);
});
