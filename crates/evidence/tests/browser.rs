//! The printable page in a real browser, as whoever gets it sees it. Its pictures are left in `target/tmp/page-*`, for a
//! person to look at.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a panic is a failed test, and a skipped one says so"
)]

#[path = "browser/driver.rs"]
mod driver;
mod support;

use std::{fs, path::PathBuf};

use driver::{Browser, browser_or_skip};
use quittance_evidence::{bundle::Bundle, page};
use serde_json::Value;
use support::log::{Log, STORY, story, tell_transactions};
use uuid::Uuid;

const PAYMENT: Uuid = Uuid::from_u128(0x0199_0a5d_ac96_774b_bcce_b302_099a_8057);

/// A small phone, a screen, and the width of text on A4 (180 of 210 mm at 96 pixels an inch).
const WIDTHS: [(&str, u32, bool); 3] = [
    ("phone", 360, false),
    ("screen", 1280, false),
    ("a4", 680, true),
];

/// What stands beyond the right edge of the page, or of what holds it.
const OVERFLOW: &str = "
    const width = document.documentElement.clientWidth, beyond = [];
    if (document.documentElement.scrollWidth > width) beyond.push('page ' + document.documentElement.scrollWidth);
    for (const element of document.body.querySelectorAll('*')) {
        const box = element.getBoundingClientRect();
        const cut = element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0;
        if (box.right > width + 1 || box.left < -1 || cut)
            beyond.push(element.tagName + '.' + element.className + ' ' + element.textContent.slice(0, 60));
    }
    return beyond;";

/// The verdict, where it is seen without scrolling.
const VERDICT: &str = "
    const verdict = document.querySelector('.verdict'), box = verdict.getBoundingClientRect();
    const style = getComputedStyle(verdict);
    const seen = box.width > 0 && box.height > 0 && box.bottom < 500 && style.visibility === 'visible'
        && style.opacity === '1' && verdict.checkVisibility();
    return seen ? verdict.innerText : '';";

fn log(spoil: bool) -> Log {
    let mut log = Log::of_payments(50);
    let mut last = None;
    for seq in 1..=STORY {
        let mut leaf = story(PAYMENT, seq, last);
        tell_transactions(&mut leaf);
        if spoil {
            // No blank to break the line at, and markup.
            leaf.merchant_reference = Some("W".repeat(300));
            leaf.provider_reference =
                Some(format!("<img src=http://x.example>{}", "9".repeat(200)));
            leaf.actor.id = "i".repeat(200);
            leaf.amount_minor = Some(i64::MIN);
            let reason = "<script>fetch('http://x.example/')</script>".repeat(5);
            leaf.details.insert("a".repeat(64), reason);
        }
        last = Some(log.append(&leaf));
    }
    log
}

fn written(name: &str, page: &str) -> (PathBuf, String) {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let file = directory.join(format!("page-{name}.html"));
    fs::write(&file, page).unwrap();
    let url = format!("file://{}", file.display());
    (directory, url)
}

/// Opens the page at every width; gives its visible text.
fn looked_at(browser: &Browser, name: &str, page: &str, verdict: &str) -> String {
    let (directory, url) = written(name, page);
    let mut text = String::new();
    for (medium, width, printed) in WIDTHS {
        browser.show(width, printed);
        browser.open(&url);
        let beyond = browser.run(OVERFLOW);
        assert_eq!(beyond, Value::Array(Vec::new()), "{name} on {medium}");
        assert_eq!(browser.run(VERDICT), verdict, "{name} on {medium}");
        let picture = directory.join(format!("page-{name}-{medium}.png"));
        fs::write(picture, browser.picture()).unwrap();
        let seen = browser.run("return document.body.innerText");
        seen.as_str().unwrap().clone_into(&mut text);
    }
    fs::write(directory.join(format!("page-{name}.pdf")), browser.paper()).unwrap();
    let console = browser.log("browser");
    assert_eq!(console, Vec::<Value>::new(), "{name}: the console is empty");
    assert_eq!(requests(browser), vec![url; WIDTHS.len()], "{name}");
    text
}

/// Everything that was asked for over the network, or from files.
fn requests(browser: &Browser) -> Vec<String> {
    let events = browser.log("performance");
    let asked = events.iter().filter_map(|event| {
        let event: Value = serde_json::from_str(event["message"].as_str()?).ok()?;
        let event = &event["message"];
        let sent = event["method"] == "Network.requestWillBeSent";
        sent.then(|| {
            event["params"]["request"]["url"]
                .as_str()
                .unwrap()
                .to_owned()
        })
    });
    asked.collect()
}

#[test]
fn a_page_is_whole_on_a_phone_a_screen_and_paper_and_asks_for_nothing() {
    let Some(browser) = browser_or_skip() else {
        return;
    };
    let log = log(false);
    let mut bundle = log.bundle(PAYMENT);
    bundle.disclosures.clear();
    let page_of =
        |bundle: &Bundle| page::render(&bundle.encode().unwrap(), &log.trusted()).unwrap();
    let text = looked_at(&browser, "proved", &page_of(&bundle), "Proved");
    for shown in [
        PAYMENT.to_string().as_str(),
        "123.45\u{a0}EUR",
        "23.45\u{a0}EUR",
        "sbx_01",
        "sbx_03",
        "The state of the log is signed by the log.",
        "2026-03-01 00:00:00 UTC",
    ] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    bundle.entries.pop();
    let text = looked_at(&browser, "not-proved", &page_of(&bundle), "Not proved");
    let last = format!("the last entry was number {STORY}");
    assert!(text.contains(&last), "{text}");
}

#[test]
fn texts_that_are_long_or_would_be_markup_neither_break_out_nor_ask_for_anything() {
    let Some(browser) = browser_or_skip() else {
        return;
    };
    let log = log(true);
    let bundle = log.bundle(PAYMENT);
    let rendered = page::render(&bundle.encode().unwrap(), &log.trusted()).unwrap();
    let text = looked_at(&browser, "long", &rendered, "Proved");
    assert!(text.contains("<script>fetch("), "{text}");
}
