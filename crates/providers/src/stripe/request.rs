//! Domain to wire, purely: the bytes of each request. The same operation always gives the same ones (I2).

use form_urlencoded::Serializer;
use quittance_domain::money::Money;
use quittance_domain::payment::{Initiator, PaymentMethodType};
use quittance_domain::ports::{Operation, Unpreparable};
use quittance_domain::transaction::{OperationKind, PreparedRequest};
use reqwest::Method;

use super::map::{CAPTURE, PAYMENT, TRANSACTION};
use super::money;
use crate::http::path_segment;
use crate::prepared::{self, Prepared};

const FORM: &str = "application/x-www-form-urlencoded";
/// How a customer, and a mandate, are named.
const CUSTOMER: &str = "cus_";
const MANDATE: &str = "mandate_";

pub(super) fn prepare(operation: &Operation<'_>) -> Result<PreparedRequest, Unpreparable> {
    let transaction = operation.transaction.id;
    // After the customer's authentication the payment intent carries its result: it is only asked for.
    let asks = operation.kind == OperationKind::Confirm;
    Ok(Prepared {
        operation: operation.kind,
        transaction,
        method: if asks { Method::GET } else { Method::POST },
        path: prepared::path(operation, route(operation.kind))?,
        content_type: FORM.to_owned(),
        body: body(operation)?.into_bytes(),
        idempotency_key: transaction.to_string(),
    }
    .seal())
}

pub(super) fn route(operation: OperationKind) -> &'static str {
    match operation {
        OperationKind::Purchase | OperationKind::Authorize => "/v1/payment_intents",
        OperationKind::Confirm => "/v1/payment_intents/{id}",
        OperationKind::Capture => "/v1/payment_intents/{id}/capture",
        OperationKind::Void => "/v1/payment_intents/{id}/cancel",
        OperationKind::Refund => "/v1/refunds",
    }
}

/// The payment intent of the payment.
fn intent<'a>(operation: &Operation<'a>) -> Result<&'a str, Unpreparable> {
    let reference = operation.payment.provider_reference.as_ref();
    reference
        .and_then(path_segment)
        .ok_or(Unpreparable::NoReference)
}

type Form = Serializer<'static, String>;

fn form() -> Form {
    Serializer::new(String::new())
}

fn body(operation: &Operation<'_>) -> Result<String, Unpreparable> {
    let amount = || operation.amount.ok_or(Unpreparable::Amount);
    let transaction = operation.transaction.id.to_string();
    match operation.kind {
        OperationKind::Purchase | OperationKind::Authorize => create(operation, amount()?),
        OperationKind::Confirm => Ok(String::new()),
        OperationKind::Capture => Ok(form()
            .append_pair("amount_to_capture", &units(amount()?)?)
            .append_pair(&metadata(CAPTURE), &transaction)
            .append_pair("expand[]", "latest_charge")
            .finish()),
        OperationKind::Void => Ok(form().append_pair("expand[]", "latest_charge").finish()),
        OperationKind::Refund => Ok(form()
            .append_pair("payment_intent", intent(operation)?)
            .append_pair("amount", &units(amount()?)?)
            .append_pair(&metadata(PAYMENT), &operation.payment.id.to_string())
            .append_pair(&metadata(TRANSACTION), &transaction)
            .finish()),
    }
}

fn units(amount: Money) -> Result<String, Unpreparable> {
    money::to_stripe(amount).map(|units| units.to_string())
}

fn metadata(name: &str) -> String {
    format!("metadata[{name}]")
}

/// The caller's metadata and the customer's fields stay here: Stripe has no use for them.
fn create(operation: &Operation<'_>, amount: Money) -> Result<String, Unpreparable> {
    let payment = operation.payment;
    let purchase = operation.kind == OperationKind::Purchase;
    let mut form = form();
    form.append_pair("amount", &units(amount)?)
        .append_pair("currency", &amount.currency().code().to_lowercase())
        .append_pair("confirm", "true")
        .append_pair(
            "capture_method",
            if purchase { "automatic" } else { "manual" },
        )
        .append_pair(&metadata(PAYMENT), &payment.id.to_string())
        .append_pair(
            &metadata(TRANSACTION),
            &operation.transaction.id.to_string(),
        )
        .append_pair("expand[]", "latest_charge");
    pay_with(&mut form, operation)?;
    if let Some(description) = payment.description.non_empty() {
        form.append_pair("description", description);
    }
    Ok(form.finish())
}

/// Which payment method, whose, and how the customer comes back.
fn pay_with(form: &mut Form, operation: &Operation<'_>) -> Result<(), Unpreparable> {
    let payment = operation.payment;
    let card = match payment.method.kind {
        PaymentMethodType::Card => true,
        PaymentMethodType::BankDebit | PaymentMethodType::Wallet => false,
        // The customer has days for either; who does not act within one is taken to have left.
        PaymentMethodType::BankTransfer | PaymentMethodType::Voucher => {
            return Err(Unpreparable::Method);
        }
    };
    let token = payment.method.token.as_ref().ok_or(Unpreparable::Method)?;
    let (mut customer, method) = match token.expose().split_once('/') {
        Some((customer, method)) => (Some(customer), method),
        None => (None, token.expose().as_str()),
    };
    let mut mandate = None;
    let present = payment.initiator == Initiator::Customer;
    if !present {
        form.append_pair("off_session", "true");
        match payment.mandate_reference.as_str() {
            reference if reference.starts_with(CUSTOMER) => customer = Some(reference),
            reference if reference.starts_with(MANDATE) => mandate = Some(reference),
            _ => return Err(Unpreparable::Field("mandate_reference")),
        }
    }
    let named = [
        ("customer", customer, CUSTOMER),
        ("mandate", mandate, MANDATE),
        ("payment_method", Some(method), ""),
    ];
    for (name, value, prefix) in named {
        let Some(value) = value else { continue };
        let name_of_stripe = value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if value.is_empty() || !name_of_stripe || !value.starts_with(prefix) {
            return Err(Unpreparable::Method);
        }
        form.append_pair(name, value);
    }
    let return_url = payment.return_url.non_empty().filter(|_| present);
    if card {
        form.append_pair("payment_method_types[]", "card");
    } else {
        // Whatever the account takes; without a way back, nothing that leads the customer away.
        let redirects = if return_url.is_some() {
            "always"
        } else {
            "never"
        };
        form.append_pair("automatic_payment_methods[enabled]", "true")
            .append_pair("automatic_payment_methods[allow_redirects]", redirects);
    }
    if let Some(return_url) = return_url {
        form.append_pair("return_url", return_url);
    }
    Ok(())
}
