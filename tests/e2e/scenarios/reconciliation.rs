//! What a provider settled against ours, by the command line: as an operator reconciles.

use std::io::Write as _;
use std::path::PathBuf;

use quittance_proto::v1::{ListEntriesRequest, Payment, PaymentState, Transaction};
use quittance_server::auth::Role;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::adyen::{
    ADYEN, APPROVED, AdyenWorld, MERCHANT_ACCOUNT, REFUSED, adyen_purchase,
};
use crate::harness::command_line::CommandLine;
use crate::harness::site::ACCOUNT;
use crate::harness::stripe::{STRIPE, StripeWorld};
use crate::harness::webhooks::Hooks;
use crate::harness::{World, authorization, capture, purchase, refund, void};

/// Everything that a run prints, with `--json`.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    findings: Vec<Value>,
    summary: Value,
    errors: String,
}

impl Run {
    /// The kinds of the findings, each with what it differs in.
    fn kinds(&self) -> Vec<String> {
        let kind = |finding: &Value| {
            let differs = finding["differs"].as_array().unwrap().iter();
            let differs: Vec<_> = differs.map(|it| it.as_str().unwrap()).collect();
            let text = format!(
                "{} {}",
                finding["kind"].as_str().unwrap(),
                differs.join(" ")
            );
            text.trim_end().to_owned()
        };
        let mut kinds: Vec<_> = self.findings.iter().map(kind).collect();
        kinds.sort_unstable();
        kinds
    }

    fn count(&self, name: &str) -> u64 {
        self.summary[name].as_u64().unwrap()
    }

    fn agrees(&self, transactions: u64) {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert!(self.findings.is_empty(), "{self:?}");
        assert_eq!(self.count("agreed"), transactions, "{self:?}");
    }
}

/// The command line of an auditor of the platform, who reconciles one account.
struct Auditor {
    line: CommandLine,
    account: &'static str,
    directory: TempDir,
}

impl Auditor {
    async fn of(world: &World, account: &'static str) -> Self {
        Self {
            line: CommandLine::new(world, "reconcile", &[Role::PlatformAudit]).await,
            account,
            directory: TempDir::new().unwrap(),
        }
    }

    fn file(&self, export: &str) -> PathBuf {
        let path = self.directory.path().join("export.csv");
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(export.as_bytes()).unwrap();
        path
    }

    async fn run(&self, arguments: &[&str]) -> Run {
        let arguments = [&[self.account, "--json"], arguments].concat();
        let output = self.line.run(&arguments).await;
        let mut findings = Vec::new();
        let mut summary = Value::Null;
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let mut told: Value = serde_json::from_str(line).unwrap();
            match told.get_mut("finding") {
                Some(finding) => findings.push(finding.take()),
                None => summary = told["summary"].take(),
            }
        }
        Run {
            code: output.status.code(),
            findings,
            summary,
            errors: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// With an export that has everything from the beginning to the end of time.
    async fn with(&self, export: &str) -> Run {
        let file = self.file(export);
        let whole = [
            "--from",
            "2020-01-01T00:00:00Z",
            "--to",
            "2099-01-01T00:00:00Z",
        ];
        let file = ["--export", file.to_str().unwrap(), "--margin", "0"];
        self.run(&[&whole[..], &file].concat()).await
    }
}

fn transaction(payment: &Payment) -> &Transaction {
    &payment.transactions[0]
}

async fn entries(world: &World, payment: &Payment) -> Vec<String> {
    let request = ListEntriesRequest {
        payment_id: payment.payment_id.clone(),
        ..ListEntriesRequest::default()
    };
    let entries = world.client.entries(request).await.into_iter();
    let types = entries.map(|entry| entry.event_type);
    types
        .filter(|it| it.starts_with("reconciliation."))
        .collect()
}

async fn recorded(world: &World) -> i64 {
    let sql = "select count(*) from journal where event_type like 'reconciliation.%' \
               and event_type not in ('reconciliation.started', 'reconciliation.finished')";
    world.db.number(sql).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s78_the_sandbox_s_books_agree_with_ours() {
    let world = World::start().await;
    let paid = world.client.create(purchase("tok_approve", 1_000)).await;
    world.client.ok(refund(&paid, 300)).await;
    let held = world.client.create(authorization("tok_approve", 500)).await;
    world.client.ok(capture(&held, 200)).await;
    world.client.ok(capture(&held, 100)).await;
    world.client.ok(void(&held)).await;
    world.client.create(purchase("tok_decline", 700)).await;

    let auditor = Auditor::of(&world, ACCOUNT).await;
    let run = auditor.run(&[]).await;
    // The purchases, two captures, and the refund.
    run.agrees(5);
    assert_eq!(run.count("lines"), 5);
    // The authorization and the void.
    assert_eq!(run.count("passed_lines"), 2);
    assert_eq!(recorded(&world).await, 0);
    let people = auditor.line.prints(&[ACCOUNT]).await;
    assert!(
        people.contains("5 agree, 0 missing, 0 extra, 0 differ"),
        "{people}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s78_the_sandbox_s_books_show_what_is_missing_extra_or_differs_and_once() {
    let world = Hooks::start().await;
    let create = async |token, amount| world.client.create(purchase(token, amount)).await;
    let (lost, amount) = (
        create("tok_approve", 1_000).await,
        create("tok_approve", 2_000).await,
    );
    let (currency, state) = (
        create("tok_approve", 3_000).await,
        create("tok_approve", 4_000).await,
    );
    let refunded = world
        .client
        .ok(refund(&state, 500))
        .await
        .message
        .transaction
        .unwrap();
    let agreed = create("tok_approve", 5_000).await;
    // Charged otherwise than it was asked: it waits for a person, and both books say so.
    let wrong = create("tok_wrong_amount", 6_000).await;

    // Somebody changed our tables: one is another transaction now, one has another amount, one another currency.
    let id = |payment: &Payment| payment.payment_id.clone();
    let other = uuid::Uuid::now_v7().to_string();
    let sql = "update transactions set transaction_id = $2::text::uuid, provider_reference = 'sop_other' where payment_id = $1::text::uuid";
    world.db.execute(sql, &[&id(&lost), &other]).await;
    let sql = "update transactions set amount = 1999 where payment_id = $1::text::uuid";
    world.db.execute(sql, &[&id(&amount)]).await;
    let sql = "update payments set currency = 'USD' where payment_id = $1::text::uuid";
    world.db.execute(sql, &[&id(&currency)]).await;
    // And the bank sent a refund back, of which nobody told us.
    world
        .control(&state, "fail_refund", serde_json::json!({}))
        .await;

    let auditor = Auditor::of(&world, ACCOUNT).await;
    let run = auditor.run(&[]).await;
    assert_eq!(run.code, Some(6), "{run:?}");
    assert_eq!(
        run.kinds(),
        [
            "DIFFERING AMOUNT",
            "DIFFERING CURRENCY",
            "DIFFERING STATE",
            "DIFFERING STATE AMOUNT",
            "EXTRA",
            "MISSING",
        ]
    );
    // The purchase that agrees, and the one whose refund differs.
    assert_eq!(run.count("agreed"), 2);
    let of = |payment: &Payment| {
        let mut found = run.findings.iter();
        found
            .find(|it| it["payment_id"] == payment.payment_id.as_str())
            .unwrap()
    };
    assert_eq!(of(&lost)["transaction_id"], other.as_str());
    assert_eq!(of(&amount)["our_amount"]["minor_units"], 1_999);
    assert_eq!(of(&amount)["their_amount"]["minor_units"], 2_000);
    assert_eq!(
        of(&state)["transaction_id"],
        refunded.transaction_id.as_str()
    );
    assert_eq!(of(&wrong)["our_state"], "PENDING");

    // On record, under the tenant of each payment, and once, however often it is found.
    assert_eq!(run.count("findings_recorded"), 6);
    assert_eq!(run.summary["repeated"], false);
    assert_eq!(recorded(&world).await, 6);
    assert_eq!(entries(&world, &amount).await, ["reconciliation.differing"]);
    assert_eq!(entries(&world, &lost).await, ["reconciliation.missing"]);
    assert!(entries(&world, &agreed).await.is_empty());
    let another = Auditor::of(&world, ACCOUNT).await;
    let again = another.run(&[]).await;
    assert_eq!((again.code, again.kinds()), (Some(6), run.kinds()));
    assert_eq!(again.summary["repeated"], true);
    assert_eq!(again.summary["export_sha256"], run.summary["export_sha256"]);
    assert_eq!(recorded(&world).await, 6);
    let finished = "select count(*) from journal where event_type = 'reconciliation.finished'";
    assert_eq!(world.db.number(finished).await, 2);

    // What is found anew is added.
    let sql = "update transactions set amount = 4999 where payment_id = $1::text::uuid";
    world.db.execute(sql, &[&id(&agreed)]).await;
    let more = auditor.run(&[]).await;
    assert_eq!(more.summary["repeated"], false);
    assert_eq!(entries(&world, &agreed).await, ["reconciliation.differing"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s78_who_may_reconcile_what_is_told_and_on_record() {
    let world = World::start().await;
    let tenant = CommandLine::new(&world, "reconcile", &[Role::AuditRead, Role::Admin]).await;
    let told = tenant.fails(3, &[ACCOUNT]).await;
    assert!(told.contains("ROLE_REQUIRED"), "{told}");
    let auditor = Auditor::of(&world, "nowhere").await;
    let run = auditor.run(&[]).await;
    assert_eq!(run.code, Some(3));
    assert!(
        run.errors.contains("UNKNOWN_PROVIDER_ACCOUNT"),
        "{}",
        run.errors
    );
    let started = "select count(*) from journal where event_type = 'reconciliation.started'";
    assert_eq!(world.db.number(started).await, 0);
    Auditor::of(&world, ACCOUNT).await.run(&[]).await.agrees(0);
    assert_eq!(world.db.number(started).await, 1);
}

/// A time before anything that these tests do, but within reach of it, as providers write it.
fn days_ago() -> String {
    let at = chrono::Utc::now() - chrono::TimeDelta::days(10);
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// An itemized report of Stripe's balance transactions.
struct StripeExport(String);

impl StripeExport {
    fn new() -> Self {
        Self(
            "balance_transaction_id,created_utc,available_on_utc,currency,gross,fee,net,reporting_category,source_id,\
             description,customer_facing_amount,customer_facing_currency,charge_id,payment_intent_id\n"
                .to_owned(),
        )
    }

    /// Amounts as the customer saw them; the payout is in pounds.
    fn line(
        mut self,
        category: &str,
        source: &str,
        amount: &str,
        currency: &str,
        names: &str,
    ) -> Self {
        let sign = if category == "refund" { "-" } else { "" };
        let booked = days_ago();
        let record = format!(
            "txn_1,{booked},{booked},gbp,{sign}1.23,0.10,0.00,{category},{source},\"Order, 7\",\
             {amount},{currency},{names}\n"
        );
        self.0.push_str(&record);
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s78_a_stripe_report_is_compared_with_ours() {
    let Some(world) = StripeWorld::start().await else {
        return;
    };
    let paid = world.client.create(purchase("pm_card_visa", 1_000)).await;
    let held = world
        .client
        .create(authorization("pm_card_visa", 900))
        .await;
    let mut last = capture(&held, 400);
    last.final_capture = true;
    let captured = world.client.ok(last).await.message.transaction.unwrap();
    let returned = world
        .client
        .ok(refund(&paid, 250))
        .await
        .message
        .transaction
        .unwrap();
    let card = world.card("4000000000000341").await;
    let declined = world.client.create(purchase(&card, 500)).await;
    assert_eq!(declined.state(), PaymentState::Declined);

    let names = |payment: &Payment| format!(",{}", payment.provider_reference);
    let charge = captured.provider_reference.as_str();
    let export = |amount: &str, currency: &str| {
        StripeExport::new()
            .line("charge", "ch_paid", amount, currency, &names(&paid))
            .line(
                "refund",
                &returned.provider_reference,
                "2.50",
                "eur",
                &names(&paid),
            )
            .line("payout", "po_1", "", "", ",")
    };
    let both = export("10.00", "eur").line("charge", charge, "4.00", "eur", &names(&held));
    let auditor = Auditor::of(&world, STRIPE).await;
    let agreed = auditor.with(&both.0).await;
    assert_eq!(agreed.kinds(), Vec::<String>::new(), "{agreed:?}");
    // The declined one agrees, too: neither says that anything moved.
    agreed.agrees(4);
    assert_eq!(agreed.count("passed_lines"), 1);

    let found = auditor.with(&export("10.01", "eur").0).await;
    assert_eq!(
        (found.code, found.kinds()),
        (
            Some(6),
            vec!["DIFFERING AMOUNT".to_owned(), "MISSING".to_owned()]
        )
    );
    let dollars = export("10.00", "usd").line("charge", charge, "4.00", "eur", &names(&held));
    assert_eq!(
        auditor.with(&dollars.0).await.kinds(),
        ["DIFFERING CURRENCY"]
    );
    let not_ours = both.line("charge", "ch_strange", "7.00", "eur", ",pi_strange");
    assert_eq!(auditor.with(&not_ours.0).await.kinds(), ["EXTRA"]);
    let settled = export("10.00", "eur")
        .line("charge", charge, "4.00", "eur", &names(&held))
        .line("charge", "ch_declined", "5.00", "eur", &names(&declined))
        .line("brand_new", "x_1", "", "", ",");
    let run = auditor.with(&settled.0).await;
    let expected = if declined.provider_reference.is_empty() {
        ["EXTRA", "UNKNOWN_LINE"]
    } else {
        ["DIFFERING STATE", "UNKNOWN_LINE"]
    };
    assert_eq!(run.kinds(), expected, "{run:?}");

    // From its lines alone: they are weeks older than what we have, about which nothing can be said.
    let file = auditor.file(&StripeExport::new().line("payout", "po_1", "", "", ",").0);
    let run = auditor.run(&["--export", file.to_str().unwrap()]).await;
    assert_eq!(
        (run.code, run.count("missing"), run.count("not_judged")),
        (Some(0), 0, 3),
        "{run:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s78_a_malformed_export_names_line_and_column_and_a_huge_one_is_bounded() {
    let world = AdyenWorld::start().await;
    let auditor = Auditor::of(&world, ADYEN).await;
    let good = AdyenExport::new().line("PSP1", "x-1", "Settled", "EUR", ("", "1.00"));
    let bad = AdyenExport(good.0.clone()).line("PSP2", "x-2", "Settled", "EUR", ("", "1.005"));
    let run = auditor.with(&bad.0).await;
    assert_eq!(run.code, Some(3));
    let place = "line 3, column \"Gross Credit (GC)\": not an amount in whole minor units";
    assert!(
        run.errors.contains("SETTLEMENT_EXPORT_UNREADABLE") && run.errors.contains(place),
        "{}",
        run.errors
    );
    let run = auditor.with("Psp Reference,Type\nPSP1,Settled\n").await;
    assert!(
        run.errors
            .contains("line 1, column \"Merchant Account\": the column is missing"),
        "{}",
        run.errors
    );
    // Nothing of it is on record, but that somebody tried.
    assert_eq!(recorded(&world).await, 2);
    let failed = "select count(*) from journal where event_type = 'reconciliation.failed' and cause = 'EXPORT_UNREADABLE'";
    assert_eq!(world.db.number(failed).await, 2);

    // A quote that is never closed: the rest of the file is not read into memory.
    let endless = format!("{}\"{}", good.0, "x".repeat(8 * 1024 * 1024));
    let run = auditor.with(&endless).await;
    assert!(
        run.errors.contains("line 3: longer than 65536 bytes"),
        "{}",
        run.errors
    );
    // Many lines, none of which moves a payment's money, are not kept.
    let mut many = good;
    for _ in 0..30_000 {
        many = many.line("", "", "Fee", "EUR", ("", ""));
    }
    let run = auditor.with(&many.0).await;
    assert_eq!(run.count("passed_lines"), 30_000);
    assert_eq!(run.kinds(), ["EXTRA"]);
}

/// A settlement details report of Adyen's.
struct AdyenExport(String);

impl AdyenExport {
    fn new() -> Self {
        Self(
            "Company Account,Merchant Account,Psp Reference,Merchant Reference,Payment Method,Creation Date,TimeZone,Type,\
             Modification Reference,Gross Currency,Gross Debit (GC),Gross Credit (GC),Exchange Rate,Net Currency,\
             Net Debit (NC),Net Credit (NC),Commission (NC),Batch Number\n"
                .to_owned(),
        )
    }

    fn line(
        mut self,
        psp: &str,
        reference: &str,
        r#type: &str,
        currency: &str,
        (debit, credit): (&str, &str),
    ) -> Self {
        let booked = days_ago();
        let record = format!(
            "Company,{MERCHANT_ACCOUNT},{psp},{reference},visa,{booked},UTC,{type},{psp},{currency},{debit},\
             {credit},1,EUR,,0.90,0.10,7\n"
        );
        self.0.push_str(&record);
        self
    }

    fn settled(self, payment: &Payment, currency: &str, credit: &str) -> Self {
        let simple = |id: &str| id.replace('-', "");
        let (paid, opening) = (
            simple(&payment.payment_id),
            simple(&transaction(payment).transaction_id),
        );
        let reference = format!("{paid}-{opening}-purchase");
        self.line(
            &payment.provider_reference,
            &reference,
            "Settled",
            currency,
            ("", credit),
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s78_a_settlement_report_of_adyen_s_is_compared_with_ours() {
    let world = AdyenWorld::start().await;
    let create = async |token, amount| world.client.create(adyen_purchase(token, amount)).await;
    let (first, second) = (create(APPROVED, 1_000).await, create(APPROVED, 2_000).await);
    let refused = create(REFUSED, 700).await;
    let auditor = Auditor::of(&world, ADYEN).await;

    let fee = ("", "", "Fee", "EUR", ("0.10", ""));
    let all = |credit: &str, currency: &str| {
        let export = AdyenExport::new().settled(&first, currency, credit);
        export.line(fee.0, fee.1, fee.2, fee.3, fee.4)
    };
    let both = all("10.00", "EUR").settled(&second, "EUR", "20.00");
    let agreed = auditor.with(&both.0).await;
    agreed.agrees(3);
    assert!(
        agreed.summary["ignored_columns"]
            .as_array()
            .unwrap()
            .contains(&"Commission (NC)".into())
    );

    let run = auditor.with(&all("9.99", "EUR").0).await;
    assert_eq!(
        (run.code, run.kinds()),
        (
            Some(6),
            vec!["DIFFERING AMOUNT".to_owned(), "MISSING".to_owned()]
        )
    );
    let run = auditor
        .with(&all("10.00", "USD").settled(&second, "EUR", "20.00").0)
        .await;
    assert_eq!(run.kinds(), ["DIFFERING CURRENCY"]);
    let run = auditor
        .with(
            &all("10.00", "EUR")
                .settled(&second, "EUR", "20.00")
                .settled(&refused, "EUR", "7.00")
                .0,
        )
        .await;
    assert_eq!(run.kinds(), ["DIFFERING STATE"]);
    let strange = both.line("PSPX", "order-7", "Settled", "EUR", ("", "1.00"));
    let run = auditor.with(&strange.0).await;
    assert_eq!(run.kinds(), ["EXTRA"]);
    assert_eq!(run.findings[0]["provider_reference"], "PSPX");

    // A batch need not have all of its time: without being told so, nothing is called missing.
    let file = auditor.file(&all("10.00", "EUR").0);
    let run = auditor.run(&["--export", file.to_str().unwrap()]).await;
    assert_eq!((run.code, run.count("missing")), (Some(0), 0), "{run:?}");
    assert_eq!(run.summary["complete"], false);
    // Twice the same export finds the same, and adds nothing.
    let before = recorded(&world).await;
    assert_eq!(auditor.with(&strange.0).await.summary["repeated"], true);
    assert_eq!(recorded(&world).await, before);
}
