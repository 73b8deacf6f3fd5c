//! The human form of a bundle: one HTML page that needs nothing else, to read and to print.
//!
//! It is made from the bundle's bytes and from what was found about them, and says which bytes those
//! were. It proves nothing by itself: anybody can write a page. It says how to check the file.

mod html;
mod proof;
mod timeline;

use html::Html;

use crate::{
    bundle::{Bundle, BundleFormError, Report, TrustedKeys},
    hash::Hash,
};

const STYLE: &str = include_str!("page/style.css");

/// Renders a bundle's file, checked under `keys`.
///
/// The same file and keys give the same page. Everything in it is escaped; it has no script, and loads
/// nothing.
///
/// # Errors
/// Those of [`Bundle::decode`]: what is no bundle is not rendered. A bundle that proves nothing is,
/// and the page says so first.
pub fn render(file: &[u8], keys: &TrustedKeys) -> Result<String, BundleFormError> {
    let bundle = Bundle::decode(file)?;
    let report = bundle.verify(keys);
    let mut page = Html::new();
    head(&mut page, &report);
    page.open("body", "").open("main", "");
    banner(&mut page, &report);
    timeline::summary(&mut page, &report);
    timeline::transactions(&mut page, &report);
    proof::status(&mut page, &report);
    timeline::entries(&mut page, &bundle, &report);
    timeline::disclosures(&mut page, &report);
    proof::meaning(&mut page, &report);
    proof::instructions(&mut page, &report, keys, &Hash::of(file));
    page.close("main").close("body");
    Ok(page.finish())
}

fn head(page: &mut Html, report: &Report) {
    page.raw("<head><meta charset=\"utf-8\">");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    // Should an escape ever be missed, nothing runs and nothing is fetched.
    page.raw(
        "<meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">",
    );
    page.text(
        "title",
        "",
        &format!("Evidence of payment {}", report.payment_id),
    );
    page.raw("<style>").raw(STYLE).raw("</style></head>");
}

fn banner(page: &mut Html, report: &Report) {
    let proved = report.is_proved();
    let (class, verdict) = if proved {
        ("verdict good", "Proved")
    } else {
        ("verdict bad", "Not proved")
    };
    page.open("header", "");
    page.text("p", "eyebrow", "Quittance \u{b7} evidence of a payment");
    page.open("div", "title");
    page.open("h1", "").words("Payment ");
    page.text("span", "id", &report.payment_id.to_string())
        .close("h1");
    page.text("p", class, verdict).close("div");
    if proved {
        page.text(
            "p",
            "lead",
            "Every entry below is in the log as it was recorded, in order and without a gap. None was \
             changed, removed or added since.",
        );
    } else {
        page.text(
            "p",
            "lead warning",
            "At least one check failed. Do not rely on what is shown below: the section \
             \u{201c}Proof\u{201d} says what is wrong.",
        );
    }
    page.close("header");
}
