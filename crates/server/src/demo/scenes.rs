//! The scenes, in their order.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use quittance_proto::v1;
use quittance_proto::v1::PaymentState;

use super::client::{Answered, Client};
use super::show::{self, Show, money, short};

const CURRENCY: &str = "EUR";
/// How often a payment that recovers is looked at, and how many times.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const MAX_LOOKS: u32 = 240;

fn euros(minor_units: i64) -> v1::Money {
    v1::Money {
        minor_units,
        currency_code: CURRENCY.to_owned(),
    }
}

pub(super) fn order(
    client: &Client,
    name: &str,
    minor_units: i64,
    token: &str,
    capture_method: v1::CaptureMethod,
) -> v1::CreatePaymentRequest {
    v1::CreatePaymentRequest {
        idempotency_key: client.key(name),
        amount: Some(euros(minor_units)),
        payment_method: Some(v1::PaymentMethod {
            r#type: v1::PaymentMethodType::Card.into(),
            provider_token: token.to_owned(),
            ..Default::default()
        }),
        capture_method: capture_method.into(),
        merchant_reference: format!("demo-{name}"),
        ..Default::default()
    }
}

pub(super) fn expect(answered: &Answered, state: PaymentState) -> anyhow::Result<()> {
    let found = answered.payment.state();
    ensure!(
        found == state,
        "payment {} is {}, which should be {}",
        answered.payment.payment_id,
        found.as_str_name(),
        state.as_str_name(),
    );
    Ok(())
}

pub(super) async fn purchase(client: &mut Client, show: &Show) -> anyhow::Result<()> {
    show.scene(1, "A purchase: authorized and captured at once");
    let request = order(
        client,
        "purchase",
        1999,
        "tok_approve",
        v1::CaptureMethod::Automatic,
    );
    let bought = client.create(request).await?;
    show.call("CreatePayment 19.99 EUR", &bought.payment);
    expect(&bought, PaymentState::Captured)
}

pub(super) async fn partial_captures(client: &mut Client, show: &Show) -> anyhow::Result<String> {
    show.scene(2, "Authorize, capture in two parts, refund a part");
    let request = order(
        client,
        "parts",
        10_000,
        "tok_approve",
        v1::CaptureMethod::Manual,
    );
    let authorized = client.create(request).await?;
    show.call(
        "CreatePayment 100.00 EUR, capture MANUAL",
        &authorized.payment,
    );
    expect(&authorized, PaymentState::Authorized)?;
    let payment_id = authorized.payment.payment_id.clone();
    for (name, amount, last, state) in [
        ("capture-1", 6_000, false, PaymentState::PartiallyCaptured),
        ("capture-2", 4_000, true, PaymentState::Captured),
    ] {
        let captured = client
            .capture(v1::CapturePaymentRequest {
                payment_id: payment_id.clone(),
                idempotency_key: client.key(name),
                amount: Some(euros(amount)),
                final_capture: last,
                ..Default::default()
            })
            .await?;
        let how = if last { ", final" } else { "" };
        show.call(
            &format!("CapturePayment {}{how}", money(&euros(amount))),
            &captured.payment,
        );
        expect(&captured, state)?;
    }
    let refunded = client
        .refund(v1::RefundPaymentRequest {
            payment_id: payment_id.clone(),
            idempotency_key: client.key("refund"),
            amount: Some(euros(2_500)),
            reason: "one of the shoes did not fit".to_owned(),
            ..Default::default()
        })
        .await?;
    show.call("RefundPayment 25.00 EUR", &refunded.payment);
    expect(&refunded, PaymentState::PartiallyRefunded)?;
    Ok(payment_id)
}

pub(super) async fn decline(client: &mut Client, show: &Show) -> anyhow::Result<()> {
    show.scene(3, "A decline: an outcome, not an error");
    let token = "tok_insufficient_funds";
    let request = order(
        client,
        "declined",
        1999,
        token,
        v1::CaptureMethod::Automatic,
    );
    let declined = client.create(request).await?;
    show.call(
        &format!("CreatePayment 19.99 EUR, {token}"),
        &declined.payment,
    );
    expect(&declined, PaymentState::Declined)?;
    let decline = declined
        .payment
        .decline
        .as_ref()
        .context("the payment has no decline")?;
    show::fact(&format!(
        "code {}, advice {}, the provider's own code: {}",
        short(decline.code().as_str_name(), "DECLINE_CODE_"),
        short(decline.retry_advice().as_str_name(), "RETRY_ADVICE_"),
        decline.provider_code,
    ));
    Ok(())
}

pub(super) async fn repeated_request(client: &mut Client, show: &Show) -> anyhow::Result<()> {
    show.scene(
        4,
        "The same request again: answered from the same payment, charged once",
    );
    let request = order(
        client,
        "repeated",
        4_200,
        "tok_approve",
        v1::CaptureMethod::Automatic,
    );
    let first = client.create(request.clone()).await?;
    show.call("CreatePayment 42.00 EUR", &first.payment);
    let second = client.create(request).await?;
    show.call("CreatePayment 42.00 EUR, the same key", &second.payment);
    ensure!(
        !first.replayed && second.replayed,
        "the second answer should be a replay"
    );
    ensure!(
        first.payment.payment_id == second.payment.payment_id,
        "there are two payments"
    );
    show::fact(&format!(
        "idempotent-replayed: true, both times payment {}",
        first.payment.payment_id
    ));
    Ok(())
}

pub(super) async fn lost_answer(client: &mut Client, show: &Show) -> anyhow::Result<()> {
    show.scene(5, "The provider's answer is lost: PENDING, never a guess");
    let token = "tok_reset_after_charge";
    let request = order(client, "lost", 7_500, token, v1::CaptureMethod::Automatic);
    let pending = client.create(request).await?;
    show.call("CreatePayment 75.00 EUR, connection cut", &pending.payment);
    expect(&pending, PaymentState::Pending)?;
    show.note(
        "The money may have moved. Nobody sends it again: recovery asks the provider by itself.",
    );
    let resolved = recovered(client, &pending.payment.payment_id).await?;
    show.call("GetPayment, a moment later", &resolved.payment);
    expect(&resolved, PaymentState::Captured)?;
    ensure!(!resolved.trace_id.is_empty(), "the answer names no trace");
    Ok(())
}

/// The payment once recovery knows what became of it.
async fn recovered(client: &mut Client, payment_id: &str) -> anyhow::Result<Answered> {
    for _ in 0..MAX_LOOKS {
        let found = client.get(payment_id).await?;
        if found.payment.state() != PaymentState::Pending {
            return Ok(found);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    anyhow::bail!("recovery has not found out about payment {payment_id} within a minute")
}

pub(super) async fn audit_trail(
    client: &mut Client,
    show: &Show,
    payment_id: &str,
) -> anyhow::Result<()> {
    show.scene(
        6,
        &format!("The audit trail of the second payment ({payment_id})"),
    );
    let entries = client.entries(payment_id).await?;
    // Accepted and outcome of: authorization, two captures, refund.
    ensure!(
        entries.len() >= 8,
        "there should be 8 entries, there are {}",
        entries.len()
    );
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header(["#", "time (UTC)", "event", "state", "amount", "trace id"]);
    for entry in &entries {
        ensure!(
            entry.trace_id.len() == 32,
            "entry {} names no trace",
            entry.entry_id
        );
        table.add_row([
            entry.entity_seq.to_string(),
            time_of(entry),
            entry.event_type.clone(),
            entry.state_to.clone(),
            entry.amount.as_ref().map(money).unwrap_or_default(),
            entry.trace_id.clone(),
        ]);
    }
    show::table(&table);
    show.note("Every change is an entry, written in the same commit; its trace id leads to the call's spans.");
    Ok(())
}

fn time_of(entry: &v1::AuditEntry) -> String {
    let at = entry.occurred_at.as_ref().and_then(|time| {
        let nanos = u32::try_from(time.nanos).ok()?;
        chrono::DateTime::from_timestamp(time.seconds, nanos)
    });
    at.map(|at| at.format("%H:%M:%S%.3f").to_string())
        .unwrap_or_default()
}
