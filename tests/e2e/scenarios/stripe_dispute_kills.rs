//! A server that is killed between what it booked of a dispute and the question that follows: whoever takes the webhook up again
//! asks it.

use quittance_proto::v1::{PaymentState, TransactionKind, TransactionState};
use serde_json::Value as Json;
use toml::Value;

use crate::harness::played_stripe::{PlayedStripe, delivery, event};
use crate::harness::process::ServerProcess;
use crate::harness::stripe::STRIPE;
use crate::harness::webhooks::client;
use crate::harness::{Site, SiteOptions, eventually, purchase};

/// One server, whose only account is at a played Stripe.
struct Victim {
    site: Site,
    stripe: PlayedStripe,
    server: ServerProcess,
}

impl Victim {
    async fn start() -> Self {
        let site = Site::new(SiteOptions::short_leases()).await;
        let stripe = PlayedStripe::start().await;
        let mut account = stripe.account();
        // What the claim of a dead server fits to.
        account.insert("total_timeout_ms".to_owned(), Value::from(1_000));
        account.insert("connect_timeout_ms".to_owned(), Value::from(500));
        let accounts = vec![Value::from(account)];
        let settings = vec![
            ("providers.accounts", Value::from(accounts)),
            ("webhooks.claim_seconds", Value::from(11)),
            ("webhooks.poll_interval_ms", Value::from(20)),
        ];
        let server = ServerProcess::start(&site, settings).await;
        Self {
            site,
            stripe,
            server,
        }
    }

    async fn deliver(&self, id: &str, kind: &str, dispute: &Json) {
        let told = event(id, &format!("charge.dispute.{kind}"), dispute);
        let sent = delivery(&told, &client(), self.server.http_address()).send();
        assert!(sent.await.unwrap().status().is_success());
    }

    async fn ended(&self, id: &str) -> String {
        eventually(&format!("{id} has ended"), async || {
            let sql = "select state from webhook_inbox where event_id = $1 \
                       and state not in ('RECEIVED', 'PARKED')";
            let rows = self.site.db.rows(sql, &[&id]).await;
            rows.first().map(|row| row.get(0))
        })
        .await
    }
}

/// That it is won is booked, and nobody knows yet whether that still holds. Where it does not, nothing but the question tells:
/// the event of that came before, and had nothing to change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s52_what_a_killed_server_did_not_ask_about_a_dispute_is_asked_by_the_next() {
    for lost in [false, true] {
        let mut victim = Victim::start().await;
        let bought = purchase("pm_card_visa", 900);
        let payment = victim.server.client.create(bought).await;
        assert_eq!(payment.provider_account, STRIPE);
        assert_eq!(payment.state(), PaymentState::Captured);
        let intent = victim.stripe.intent(&payment.payment_id);
        let due = 1_900_000_000;
        let stands = [
            ("lost", &[-900, 900, -900][..], due),
            ("needs_response", &[-900][..], due),
            ("won", &[-900, 900][..], due),
        ];
        let told = victim.stripe.dispute(&intent, &stands);
        let [after, taken, won] = &told[..] else {
            panic!("three")
        };
        victim.stripe.disputed(taken);
        victim.deliver("evt_taken", "created", taken).await;
        assert_eq!(victim.ended("evt_taken").await, "APPLIED");

        victim.stripe.disputed(won);
        let mut first = victim.stripe.hold_dispute();
        victim.deliver("evt_won", "closed", won).await;
        first.made().await;
        let mut second = victim.stripe.hold_dispute();
        first.let_go();
        // What was answered first is booked.
        second.made().await;
        let booked = "select count(*) from transactions where kind = 'CHARGEBACK_REVERSAL'";
        assert_eq!(victim.site.db.number(booked).await, 1);
        victim.server.kill();
        if lost {
            victim.stripe.disputed(after);
        }
        victim.server.start_again().await;
        assert_eq!(victim.ended("evt_won").await, "APPLIED", "lost: {lost}");

        let found = victim.server.client.payment(&payment.payment_id).await;
        let charged_back = found.amount_charged_back.unwrap().minor_units;
        assert_eq!(charged_back, if lost { 900 } else { 0 });
        let reversal = found.transactions.last().unwrap();
        assert_eq!(reversal.kind(), TransactionKind::ChargebackReversal);
        let state = if lost {
            TransactionState::Reversed
        } else {
            TransactionState::Succeeded
        };
        assert_eq!(reversal.state(), state);
        let about = reversal.dispute.as_ref().unwrap();
        assert_eq!(about.reason, "fraudulent");
        assert_eq!(about.due_time.as_ref().unwrap().seconds, due);
        let told_once = "select count(*) from journal where event_type = 'chargeback.reversed'";
        assert_eq!(victim.site.db.number(told_once).await, 1);
        assert_eq!(found.disputed, lost);
        second.let_go();
        victim.site.everything_agrees().await;
    }
}
