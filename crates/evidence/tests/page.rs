//! The printable page of a bundle. It is left at `target/tmp/evidence.html`, for a person to look at.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::path::Path;

use quittance_evidence::{
    Disclosure, Hash,
    bundle::{Bundle, BundleFormError, TrustedKeys},
    page,
};
use support::log::{Log, STORY, story, tell_transactions};
use uuid::Uuid;

const PAYMENT: Uuid = Uuid::from_u128(0x0199_0a5d_ac96_774b_bcce_b302_099a_8057);

/// The log of the example in the documents: one payment among a thousand others.
fn example() -> (Log, Bundle) {
    let name = Disclosure::new([9; 16], "customer.name", "Zoë Example").unwrap();
    let mut log = Log::of_payments(1_000);
    let mut last = None;
    for seq in 1..=STORY {
        let mut leaf = story(PAYMENT, seq, last);
        leaf.merchant_reference = Some("order-4711".to_owned());
        if seq == 1 {
            leaf.personal_data = [(name.name().to_owned(), name.digest())].into();
        }
        tell_transactions(&mut leaf);
        last = Some(log.append(&leaf));
    }
    let mut bundle = log.bundle(PAYMENT);
    bundle.disclosures = vec![name];
    (log, bundle)
}

/// `UPDATE_DOCS=1` writes it anew.
#[test]
fn the_example_of_the_documents_is_proved_under_the_keys_that_they_name() {
    let (log, bundle) = example();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let file = docs.join("example-evidence.json");
    let bytes = bundle.encode().unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &bytes).unwrap();
    }
    let page = page(&bundle, &log.trusted());
    // Nothing of it had to be replaced.
    assert!(!page.contains('\u{FFFD}'));
    let drawn = Path::new(env!("CARGO_TARGET_TMPDIR")).join("evidence.html");
    std::fs::write(drawn, page).unwrap();
    assert!(bundle.verify(&log.trusted()).is_proved());
    assert!(
        std::fs::read(&file).unwrap_or_default() == bytes,
        "docs/example-evidence.json is of an older time: run with UPDATE_DOCS=1"
    );
    let text = std::fs::read_to_string(docs.join("evidence.md")).unwrap();
    for key in log.verifiers() {
        assert!(text.contains(&key.to_string()), "docs/evidence.md: {key}");
    }
}

/// A log with one payment of a story whose texts try to be more than text.
fn log() -> Log {
    let mut log = Log::of_payments(3);
    let mut last = None;
    for seq in 1..=STORY {
        let mut leaf = story(PAYMENT, seq, last);
        let reason = "<script>alert(1)</script> & 'more' \" \u{202E}";
        leaf.details.insert("reason".to_owned(), reason.to_owned());
        last = Some(log.append(&leaf));
    }
    log
}

fn page(bundle: &Bundle, keys: &TrustedKeys) -> String {
    page::render(&bundle.encode().unwrap(), keys).unwrap()
}

#[test]
fn a_page_shows_the_payment_and_its_proof_and_needs_nothing_else() {
    let log = log();
    let bundle = log.bundle(PAYMENT);
    let page = page(&bundle, &log.trusted());
    for shown in [
        "<p class=\"verdict good\">Proved</p>",
        "123.45\u{a0}EUR",
        "23.45\u{a0}EUR",
        "Payment outcome unknown",
        "Captured \u{2192} Partially refunded",
        "Insufficient funds",
        "2026-02-28 23:52:51.000",
        "The witness witness.example/w1 saw this state of the log at 2026-03-01 00:00:00 UTC",
        &Hash::of(&bundle.encode().unwrap()).to_string(),
        &log.key.verifier().to_string(),
    ] {
        assert!(page.contains(shown), "{shown}");
    }
    for external in [
        "src=", "href=", "url(", "@import", "<script", "<img", "<iframe",
    ] {
        assert!(!page.contains(external), "{external}");
    }
    assert_eq!(
        page,
        page::render(&bundle.encode().unwrap(), &log.trusted()).unwrap()
    );
}

#[test]
fn the_payments_account_and_reference_are_those_of_what_opened_it() {
    let mut log = Log::new();
    let mut last = None;
    for seq in 1..=STORY {
        let mut leaf = story(PAYMENT, seq, last);
        tell_transactions(&mut leaf);
        if seq > 3 {
            leaf.provider_account = Some("elsewhere".to_owned());
        }
        last = Some(log.append(&leaf));
    }
    let page = page(&log.bundle(PAYMENT), &log.trusted());
    let sections: Vec<_> = page.split("<section").collect();
    let [_, summary, transactions, ..] = sections.as_slice() else {
        panic!("a page has sections: {page}");
    };
    assert!(summary.contains("sandbox-eu") && summary.contains("sbx_01"));
    assert!(!summary.contains("elsewhere") && !summary.contains("sbx_03"));
    // Each transaction's own stands beside it.
    let each: Vec<_> = transactions.split("<dl").skip(1).collect();
    let told = [
        ("Purchase", "123.45", "Succeeded", "sandbox-eu", "sbx_01"),
        ("Refund", "23.45", "Declined", "elsewhere", "sbx_02"),
        ("Refund", "23.45", "Succeeded", "elsewhere", "sbx_03"),
    ];
    assert_eq!(each.len(), told.len());
    for (shown, (kind, amount, state, account, reference)) in each.iter().zip(told) {
        for text in [kind, amount, state, account, reference] {
            assert!(shown.contains(text), "{text}: {shown}");
        }
    }
}

#[test]
fn no_text_of_an_entry_becomes_markup() {
    let log = log();
    let page = page(&log.bundle(PAYMENT), &log.trusted());
    let reason = "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#39;more&#39; &quot; \u{FFFD}";
    assert!(page.contains(reason));
    assert!(page.contains("&lt;Größe Ä&gt;"));
    assert!(page.contains(&format!("Zoë &lt;{}&gt;", PAYMENT.as_u128())));
    assert!(!page.contains('\u{202E}'));
}

#[test]
fn a_page_of_what_is_not_proved_says_so_first_and_why() {
    let log = log();
    let mut bundle = log.bundle(PAYMENT);
    bundle.entries.pop();
    let page = page(&bundle, &log.trusted());
    assert!(page.contains("<p class=\"verdict bad\">Not proved</p>"));
    let missing = format!(
        "the last entry was number {STORY}, and the bundle ends with number {}",
        STORY - 1
    );
    assert!(page.contains(&missing));
    let without_keys = self::page(&log.bundle(PAYMENT), &TrustedKeys::default());
    assert!(without_keys.contains("the note is not signed by a known key"));
}

#[test]
fn a_page_says_which_witness_has_not_cosigned_and_whether_that_was_relied_on() {
    let log = log();
    let mut bundle = log.bundle(PAYMENT);
    bundle.checkpoint = log.checkpoint().sign(&[&log.key]).unwrap();
    let missing = "<p>The witness witness.example/w1 has not cosigned this state of the log.</p>";
    let relied_on = page(&bundle, &log.trusted());
    assert!(relied_on.contains(missing) && relied_on.contains(">Not proved<"));
    let late = page(&bundle, &log.trusted().with_late_witnesses());
    assert!(late.contains(missing) && late.contains(">Proved<"));
    let keys = log.verifiers().into_iter().take(2).collect();
    let without = page(&bundle, &TrustedKeys::new(keys));
    assert!(without.contains("No witness has cosigned") && without.contains(">Proved<"));
}

#[test]
fn amounts_are_written_with_the_digits_of_their_currency() {
    for (currency, exponent, minor, shown) in [
        ("JPY", 0, 1_234_567, "1\u{202f}234\u{202f}567\u{a0}JPY"),
        ("KWD", 3, 1_234, "1.234\u{a0}KWD"),
        ("EUR", 2, 5, "0.05\u{a0}EUR"),
        ("EUR", 2, -5, "\u{2212}0.05\u{a0}EUR"),
        (
            "CLF",
            4,
            i64::MIN,
            "\u{2212}922\u{202f}337\u{202f}203\u{202f}685\u{202f}477.5808\u{a0}CLF",
        ),
    ] {
        let mut log = Log::new();
        let mut leaf = story(PAYMENT, 1, None);
        leaf.currency = Some(currency.to_owned());
        leaf.currency_exponent = Some(exponent);
        leaf.amount_minor = Some(minor);
        log.append(&leaf);
        let page = page(&log.bundle(PAYMENT), &log.trusted());
        assert!(page.contains(shown), "{shown}");
    }
}

#[test]
fn what_is_no_bundle_has_no_page() {
    let refused = page::render(b"{}", &TrustedKeys::default());
    assert!(matches!(refused, Err(BundleFormError::Malformed { .. })));
}
