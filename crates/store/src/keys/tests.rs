use super::*;

fn ring(ids: &[(&str, u8)]) -> Result<KeyRing, KeyRingError> {
    KeyRing::new(
        ids.iter()
            .map(|(id, byte)| ((*id).to_owned(), [*byte; KEY_BYTES])),
    )
}

#[test]
fn a_ring_has_one_to_sixteen_keys_with_plain_and_different_ids() {
    assert_eq!(ring(&[]).unwrap_err(), KeyRingError::Empty);
    assert_eq!(ring(&[("a:b", 1)]).unwrap_err(), KeyRingError::Id);
    let twice = ring(&[("a", 1), ("a", 2)]).unwrap_err();
    assert_eq!(twice, KeyRingError::DuplicateId("a".into()));
    let many: Vec<_> = (0..17).map(|n| (format!("k{n}"), [n; KEY_BYTES])).collect();
    assert_eq!(KeyRing::new(many).unwrap_err(), KeyRingError::TooMany);
}

#[test]
fn every_purpose_has_its_own_key() {
    let ring = ring(&[("a", 7)]).unwrap();
    let key = &ring.active;
    let mut all = vec![
        *key.columns,
        *key.fingerprint,
        *key.api_key,
        *key.api_key_row,
        *key.page_token,
        *key.customer_reference,
        *key.tree_head,
        *key.checkpoint,
        *key.cosignature,
        [7; KEY_BYTES],
    ];
    let many = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), many);
}

#[test]
fn the_mac_of_a_head_is_of_its_size_root_and_the_one_before_and_survives_a_new_active_key() {
    let (old, new) = (
        ring(&[("a", 1)]).unwrap(),
        ring(&[("b", 2), ("a", 1)]).unwrap(),
    );
    let head = |size, root, previous| TreeHeadFacts {
        size,
        root,
        previous,
    };
    let (root, three) = ([7; 32], Some(2));
    let (mac, id) = old.tree_head_mac(head(3, &root, three));
    let verify = |head, id: &str, mac: &[u8]| new.verify_tree_head(head, id, mac);
    assert_eq!(verify(head(3, &root, three), &id, &mac), Some(true));
    for other in [
        head(4, &root, three),
        head(3, &[8; 32], three),
        head(3, &root, Some(1)),
        head(3, &root, None),
    ] {
        assert_eq!(verify(other, &id, &mac), Some(false));
    }
    let right = head(3, &root, three);
    assert_eq!(verify(right, &id, &mac[..31]), Some(false));
    assert_eq!(verify(right, "b", &mac), Some(false));
    assert_eq!(verify(right, "c", &mac), None);
}

#[test]
fn the_mac_of_a_checkpoint_is_of_its_size_time_note_and_the_one_before() {
    let (old, new) = (
        ring(&[("a", 1)]).unwrap(),
        ring(&[("b", 2), ("a", 1)]).unwrap(),
    );
    let facts = |size, signed_at, previous, note| CheckpointFacts {
        size,
        signed_at,
        previous,
        note,
        note_digest: Some(&[9; 32][..]),
    };
    let (mac, id) = old.checkpoint_mac(facts(3, 5, Some(2), "note"));
    assert_eq!(
        new.verify_checkpoint(facts(3, 5, Some(2), "note"), &id, &mac),
        Some(true)
    );
    for other in [
        facts(4, 5, Some(2), "note"),
        facts(3, 6, Some(2), "note"),
        facts(3, 5, Some(1), "note"),
        facts(3, 5, None, "note"),
        facts(3, 5, Some(2), "nota"),
        CheckpointFacts {
            note_digest: Some(&[8; 32]),
            ..facts(3, 5, Some(2), "note")
        },
        CheckpointFacts {
            note_digest: None,
            ..facts(3, 5, Some(2), "note")
        },
    ] {
        assert_eq!(new.verify_checkpoint(other, &id, &mac), Some(false));
    }
    assert_eq!(
        new.verify_checkpoint(facts(3, 5, Some(2), "note"), "b", &mac),
        Some(false)
    );
    assert_eq!(
        new.verify_checkpoint(facts(3, 5, Some(2), "note"), "c", &mac),
        None
    );
}

#[test]
fn api_keys_fingerprints_and_customers_survive_a_new_active_key() {
    let old = ring(&[("a", 1)]).unwrap();
    let new = ring(&[("b", 2), ("a", 1)]).unwrap();
    let (mac, id) = old.api_key_mac(b"secret");
    assert!(new.verify_api_key(b"secret", &id, &mac));
    assert!(!new.verify_api_key(b"Secret", &id, &mac));
    assert!(!new.verify_api_key(b"secret", "b", &mac));
    assert!(!new.verify_api_key(b"secret", "c", &mac));
    assert_eq!(old.fingerprint_key(), new.fingerprint_key());
    assert_eq!(
        old.customer_reference_mac("acme", "customer-1"),
        new.customer_reference_mac("acme", "customer-1")
    );
}

#[test]
fn the_mac_of_an_api_keys_row_is_of_all_that_is_believed_of_it() {
    let ring = ring(&[("b", 2), ("a", 1)]).unwrap();
    let row = ApiKeyFacts {
        key_id: "k",
        tenant: "acme",
        name: "till",
        roles: "admin audit.read",
        created_at: DateTime::UNIX_EPOCH,
        secret_mac: &[7; 32],
    };
    let mac = ring.api_key_row_mac(&row, "a").unwrap();
    assert!(ring.verify_api_key_row(&row, "a", &mac));
    assert!(!ring.verify_api_key_row(&row, "b", &mac));
    assert!(!ring.verify_api_key_row(&row, "c", &mac));
    assert!(!ring.verify_api_key_row(&row, "a", &mac[1..]));
    let later = DateTime::from_timestamp_micros(1).unwrap();
    for changed in [
        ApiKeyFacts { key_id: "l", ..row },
        ApiKeyFacts { tenant: "b", ..row },
        ApiKeyFacts { name: "", ..row },
        ApiKeyFacts {
            roles: "admin",
            ..row
        },
        ApiKeyFacts {
            created_at: later,
            ..row
        },
        ApiKeyFacts {
            secret_mac: &[8; 32],
            ..row
        },
    ] {
        assert!(!ring.verify_api_key_row(&changed, "a", &mac), "{changed:?}");
    }
}

#[test]
fn a_ring_prints_ids_only() {
    assert_eq!(
        format!("{:?}", ring(&[("b", 2), ("a", 1)]).unwrap()),
        r#"["b", "a"]"#
    );
}

#[test]
fn the_mac_of_a_cosignature_is_of_all_that_its_row_says_and_of_the_one_before() {
    let (old, new) = (
        ring(&[("a", 1)]).unwrap(),
        ring(&[("b", 2), ("a", 1)]).unwrap(),
    );
    let right = CosignatureFacts {
        size: 3,
        root: &[7; 32],
        witness: "w+1",
        line: "line",
        previous: 2,
    };
    let (mac, id) = old.cosignature_mac(right);
    assert_eq!(new.verify_cosignature(right, &id, &mac), Some(true));
    for other in [
        CosignatureFacts { size: 4, ..right },
        CosignatureFacts {
            root: &[8; 32],
            ..right
        },
        CosignatureFacts {
            witness: "w+2",
            ..right
        },
        CosignatureFacts {
            line: "lime",
            ..right
        },
        CosignatureFacts {
            previous: 1,
            ..right
        },
    ] {
        assert_eq!(new.verify_cosignature(other, &id, &mac), Some(false));
    }
    assert_eq!(new.verify_cosignature(right, "b", &mac), Some(false));
    assert_eq!(new.verify_cosignature(right, "c", &mac), None);
}
