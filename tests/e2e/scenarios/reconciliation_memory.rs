//! How much memory a large settlement export takes.
//!
//! `QUITTANCE_EXPORT_LINES=500000` is the largest that is read; the server and the command line are processes of their own.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::process::Stdio;
use std::time::Instant;

use quittance_server::auth::Role;
use toml::{Table, Value};

use super::kills_under_load::number;
use crate::harness::process::{ServerProcess, command};
use crate::harness::site::TENANT;
use crate::harness::stripe::STRIPE;
use crate::harness::tls::pki;
use crate::harness::{Site, SiteOptions};

/// Lines of an ordinary run.
const LINES: u64 = 20_000;
/// Most that the server may need for a line, in bytes: it is the same for every size, but for the moments in which a table
/// grows.
const PER_LINE: u64 = 512;
/// What a run needs however short the export is, in kB: connections, buffers, pages of our own transactions.
const ANYWAY_KB: u64 = 24 * 1_024;

/// Each line is an operation of its own, with as many names as there are: the most that there can be to remember.
fn export(lines: u64) -> String {
    let mut text =
        "created_utc,currency,gross,reporting_category,source_id,customer_facing_amount,\
         customer_facing_currency,charge_id,payment_intent_id,payment_metadata[quittance_payment],\
         payment_metadata[quittance_transaction]\n"
            .to_owned();
    for number in 0..lines {
        let (payment, transaction) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
        let (hours, minutes) = (number / 60 % 24, number % 60);
        writeln!(
            text,
            "2026-01-02 {hours:02}:{minutes:02}:00,eur,12.34,charge,ch_{number:024},12.34,eur,\
             ch_{number:024},pi_{number:024},{payment},{transaction}"
        )
        .unwrap();
    }
    text
}

async fn server(site: &Site) -> ServerProcess {
    let mut account = Table::new();
    for (key, value) in [
        ("name", Value::from(STRIPE)),
        ("kind", "stripe".into()),
        ("base_url", "http://127.0.0.1:9".into()),
        ("api_key", "sk_test_e2e".into()),
        ("allow_plaintext", true.into()),
    ] {
        account.insert(key.to_owned(), value);
    }
    let accounts = vec![Value::from(account)];
    ServerProcess::start(site, vec![("providers.accounts", accounts.into())]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s78_a_large_export_is_reconciled_in_bounded_memory() {
    let lines = number("QUITTANCE_EXPORT_LINES").unwrap_or(LINES);
    let site = Site::new(SiteOptions::default()).await;
    let server = server(&site).await;
    let directory = tempfile::tempdir().unwrap();
    let [small, large, key_file] =
        ["small.csv", "large.csv", "key"].map(|it| directory.path().join(it));
    std::fs::write(&small, export(10)).unwrap();
    let text = export(lines);
    std::fs::write(&large, &text).unwrap();
    let key = site.api_key(TENANT, &[Role::PlatformAudit]).await;
    std::fs::write(&key_file, key).unwrap();
    let reconcile = async |export: &std::path::Path| {
        let printed = directory.path().join("printed");
        let mut command = command(&["reconcile", STRIPE, "--json", "--export"]);
        let address = format!("https://localhost:{}", server.address.port());
        command
            .arg(export)
            .env("QUITTANCE_ADDRESS", address)
            .env("QUITTANCE_CA_FILE", &pki().ca_file)
            .env("QUITTANCE_API_KEY_FILE", &key_file)
            .stdout(File::create(&printed).unwrap())
            .stderr(Stdio::inherit());
        let status = tokio::task::spawn_blocking(move || command.status().unwrap());
        assert_eq!(
            status.await.unwrap().code(),
            Some(6),
            "nothing of it is ours"
        );
        let printed = std::fs::read_to_string(printed).unwrap();
        printed.lines().count()
    };
    // What is made once, such as connections, is no part of it.
    assert_eq!(reconcile(&small).await, 10 + 1);
    let (before, begun) = (server.peak_memory_kb(), Instant::now());
    let printed = reconcile(&large).await;
    let grown = server.peak_memory_kb().saturating_sub(before);
    let report = format!(
        "{lines} lines, {} bytes: {grown} kB more at the peak, {before} kB before, in {:?}\n",
        text.len(),
        begun.elapsed()
    );
    std::io::stdout().write_all(report.as_bytes()).unwrap();
    assert_eq!(
        printed,
        usize::try_from(lines).unwrap() + 1,
        "each is nobody's"
    );
    assert!(grown < ANYWAY_KB + lines * PER_LINE / 1_024, "{report}");
}
