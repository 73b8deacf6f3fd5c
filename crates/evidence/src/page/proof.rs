//! What was checked, what it means, and how to check it again.

use chrono::DateTime;

use super::html::Html;
use crate::{
    bundle::{Check, CheckName, Report, TrustedKeys},
    hash::Hash,
    note::{KeyType, VerifierKey},
};

/// The checks, one by one.
pub(super) fn status(page: &mut Html, report: &Report) {
    page.open("section", "").text("h2", "", "Proof");
    page.open("ul", "checks");
    // What the witnesses did is told of each of them.
    let checks = report.checks.iter();
    for check in checks.filter(|check| check.name != CheckName::Witnesses) {
        let (class, mark) = match check.result {
            Ok(()) => ("good", "\u{2713}"),
            Err(_) => ("bad", "\u{2717}"),
        };
        page.open("li", class).text("span", "mark", mark);
        page.open("div", "").text("p", "", claim(check.name));
        if let Err(failure) = &check.result {
            page.text("p", "why", &with_causes(failure));
        }
        page.close("div").close("li");
    }
    witnesses(page, report);
    page.close("ul");
    page.open("dl", "technical");
    let origin = report.origin.as_ref().map(ToString::to_string);
    page.opt_fact("log", "", origin.as_deref());
    let size = report.tree_size.map(|size| size.to_string());
    page.opt_fact("entries in the log", "", size.as_deref());
    let root = report.root.map(|root| root.to_string());
    page.opt_fact("root of the log", "", root.as_deref());
    page.close("dl").close("section");
}

fn witnesses(page: &mut Html, report: &Report) {
    let mut line = |class, mark, text: &str| {
        page.open("li", class).text("span", "mark", mark);
        page.text("p", "", text).close("li");
    };
    if report.cosigned.is_empty() && report.not_cosigned.is_empty() {
        let text = "No witness has cosigned: when things happened is the log\u{2019}s word only.";
        line("open", "\u{2013}", text);
    }
    let demanded = |check: &Check| check.name == CheckName::Witnesses && check.result.is_err();
    let (class, mark) = if report.checks.iter().any(demanded) {
        ("bad", "\u{2717}")
    } else {
        ("open", "\u{2013}")
    };
    for name in &report.not_cosigned {
        let text = format!("The witness {name} has not cosigned this state of the log.");
        line(class, mark, &text);
    }
    for (name, seconds) in &report.cosigned {
        let time = i64::try_from(*seconds)
            .ok()
            .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
            .map(|time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string());
        let time = time.unwrap_or_else(|| format!("second {seconds} since 1970"));
        let text = format!(
            "The witness {name} saw this state of the log at {time}: all of it existed by then."
        );
        line("good", "\u{2713}", &text);
    }
}

const fn claim(name: CheckName) -> &'static str {
    match name {
        CheckName::Checkpoint => "The state of the log is signed by the log.",
        CheckName::Entries => {
            "The entries are those of this payment, numbered from 1 without gaps, each linked to the one \
             before it."
        }
        CheckName::Inclusion => "Every entry is in the log, byte for byte as it is here.",
        CheckName::LastEntry => {
            "The log states, signed, that there was no further entry at that point."
        }
        CheckName::Disclosures => "Every disclosed value is the one that was recorded.",
        CheckName::Witnesses => "Every witness that this check relies on has cosigned.",
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// What the reader may conclude.
pub(super) fn meaning(page: &mut Html, report: &Report) {
    page.open("section", "split");
    page.open("div", "").text("h2", "", "What this proves");
    page.open("ul", "plain");
    for line in [
        "What the operator of the log recorded about this payment, up to the state of the log named above.",
        "That no entry was changed, removed, inserted or reordered since the log signed that state.",
        "That the operator of the log stated, signed, which of the payment\u{2019}s entries was the last in that state.",
    ] {
        page.text("li", "", line);
    }
    page.close("ul").close("div");
    page.open("div", "")
        .text("h2", "", "What it does not prove");
    page.open("ul", "plain");
    page.text(
        "li",
        "",
        "That what was recorded is true: it shows what the operator recorded, and that it was not changed.",
    );
    page.text(
        "li",
        "",
        "That none came after the last entry: that is the operator\u{2019}s signed statement, which a receipt of a later one would \
         prove wrong.",
    );
    if report.cosigned.is_empty() {
        page.text(
            "li",
            "",
            "When it was recorded: without a witness, times are the operator\u{2019}s word.",
        );
    } else {
        page.text(
            "li",
            "",
            "The exact time of an entry: only that it existed when the witness cosigned.",
        );
    }
    page.text(
        "li",
        "",
        "Anything that happened after that state of the log.",
    );
    page.text(
        "li",
        "",
        "Anything by this page alone: anybody can write a page. Check the file.",
    );
    page.close("ul").close("div").close("section");
}

/// How to check the file.
pub(super) fn instructions(page: &mut Html, report: &Report, keys: &TrustedKeys, file: &Hash) {
    page.open("section", "").text("h2", "", "Check it yourself");
    page.text(
        "p",
        "",
        "This page was made from one file, the evidence bundle. With it and the keys below, on any \
         computer, without a connection to anybody:",
    );
    // Of a witness that has not cosigned, the key would be asked for in vain.
    let asked = keys
        .iter()
        .filter(|key| !report.not_cosigned.contains(key.name()));
    let name = format!("evidence-{}.json", report.payment_id);
    let words = asked.map(|key| format!("--key '{key}'"));
    let words: Vec<String> = std::iter::once(name).chain(words).collect();
    let command = words.join(" \\\n  ");
    page.open("pre", "").raw("quittance evidence verify ");
    page.words_in_lines(&command).close("pre");
    page.text(
        "p",
        "",
        "verify_evidence.py, an independent program of 150 lines that you can read, takes the same: python3 \
         verify_evidence.py and what follows the word verify. Take the keys from the log\u{2019}s operator and from the \
         witnesses themselves, not from here; they should be the same:",
    );
    page.open("dl", "keys");
    for key in keys.iter() {
        page.fact(whose(key, report), "mono", &key.to_string());
    }
    page.fact("SHA-256 of the file", "mono", &file.to_string());
    page.close("dl").close("section");
}

/// What a key signs.
fn whose(key: &VerifierKey, report: &Report) -> &'static str {
    let is_origin = report
        .origin
        .as_ref()
        .is_none_or(|origin| origin == key.name());
    match key.key_type() {
        KeyType::Cosignature if report.not_cosigned.contains(key.name()) => {
            "Key of a witness (has not cosigned)"
        }
        KeyType::Cosignature => "Key of a witness",
        KeyType::Ed25519 if is_origin => "Key of the log",
        KeyType::Ed25519 => "Key of receipts and statements",
    }
}
