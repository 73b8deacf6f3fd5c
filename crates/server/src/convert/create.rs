//! `CreatePayment`.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use http::Uri;
use quittance_domain::card_number::contains_card_number;
use quittance_domain::command::{Create, Customer};
use quittance_domain::payment::{
    CaptureMethod, Initiator, MAX_METADATA_KEY, MAX_METADATA_PAIRS, MAX_METADATA_VALUE,
    PaymentMethod, PaymentMethodType,
};
use quittance_domain::text::{Sensitive, Text};
use quittance_proto::v1;

use super::scalars::{self, PairLimits};
use super::violations::Violations;

/// Most characters of a provider's token.
/// What a provider's client code makes of a card is encrypted part by part, and may hold what is known of the browser.
const MAX_PROVIDER_TOKEN: usize = 16_384;
/// Most characters of an email address (RFC 5321, 4.5.3.1.3, less the angle brackets).
const MAX_EMAIL: usize = 254;
/// Digits that may be shown of a card number (PCI DSS 3.4.1).
const LAST_DIGITS: usize = 4;
/// Names of the lines of an address, by which they can be erased and disclosed one by one.
const ADDRESS_LINES: [&str; 4] = [
    "customer.address.line1",
    "customer.address.line2",
    "customer.address.line3",
    "customer.address.line4",
];

/// Parses the request.
///
/// # Errors
/// Every bad field.
pub fn create(request: v1::CreatePaymentRequest, now: DateTime<Utc>) -> Result<Create, Violations> {
    let mut violations = Violations::default();
    let bad = &mut violations;
    let idempotency_key = scalars::idempotency_key(bad, request.idempotency_key);
    let amount = amount(bad, request.amount.as_ref());
    let method = payment_method(bad, request.payment_method);
    let capture_method = capture_method(bad, request.capture_method);
    let merchant_reference = scalars::text(bad, "merchant_reference", request.merchant_reference);
    let description = scalars::text(bad, "description", request.description);
    let return_url = return_url(bad, request.return_url);
    let provider_account = scalars::provider_account(bad, request.provider_account);
    let customer = request
        .customer
        .map_or(Some(None), |given| customer(bad, given).map(Some));
    let initiator = initiator(bad, request.initiator);
    let mandate_reference = scalars::text(bad, "mandate_reference", request.mandate_reference);
    mandate_fits(bad, initiator, mandate_reference.as_ref());
    let execute_before = scalars::execute_before(bad, request.execute_before, now);
    let metadata = scalars::pairs(bad, &METADATA, request.metadata);
    let command = || {
        Some(Create {
            idempotency_key: idempotency_key?,
            amount: amount?,
            method: method?,
            capture_method: capture_method?,
            merchant_reference: merchant_reference?,
            description: description?,
            return_url: return_url?,
            provider_account: provider_account?,
            customer: customer?,
            initiator: initiator?,
            mandate_reference: mandate_reference?,
            execute_before: execute_before?,
            metadata: metadata?,
        })
    };
    let command = command();
    violations.finish(command)
}

const METADATA: PairLimits = PairLimits {
    field: "metadata",
    pairs: MAX_METADATA_PAIRS,
    key: |key| scalars::not_empty::<MAX_METADATA_KEY>(key).map(drop),
    value: |value| Text::<MAX_METADATA_VALUE>::parse(value).map(drop),
};

fn amount(
    bad: &mut Violations,
    value: Option<&v1::Money>,
) -> Option<quittance_domain::money::Money> {
    let Some(value) = value else {
        bad.invalid("amount", "is required");
        return None;
    };
    scalars::money(bad, "amount", value)
}

fn payment_method(bad: &mut Violations, value: Option<v1::PaymentMethod>) -> Option<PaymentMethod> {
    let Some(value) = value else {
        bad.invalid("payment_method", "is required");
        return None;
    };
    let kind = method_type(bad, value.r#type);
    let token = scalars::parsed(
        bad,
        "payment_method.provider_token",
        value.provider_token,
        scalars::printable::<MAX_PROVIDER_TOKEN>,
    );
    let brand = scalars::text(bad, "payment_method.brand", value.brand);
    let last4 = last_digits(bad, value.last4);
    let expiry = expiry(bad, value.expiry_month, value.expiry_year);
    let (expiry_month, expiry_year) = expiry?;
    Some(PaymentMethod {
        kind: kind?,
        token: Some(Sensitive::new(token?)),
        brand: brand?,
        last4: last4?,
        expiry_month,
        expiry_year,
    })
}

fn method_type(bad: &mut Violations, number: i32) -> Option<PaymentMethodType> {
    use v1::PaymentMethodType as Given;
    const FIELD: &str = "payment_method.type";
    match scalars::known(bad, FIELD, number)? {
        Given::Unspecified => {
            bad.invalid(FIELD, "is required");
            None
        }
        Given::Card => Some(PaymentMethodType::Card),
        Given::BankDebit => Some(PaymentMethodType::BankDebit),
        Given::Wallet => Some(PaymentMethodType::Wallet),
        Given::BankTransfer => Some(PaymentMethodType::BankTransfer),
        Given::Voucher => Some(PaymentMethodType::Voucher),
    }
}

fn last_digits(bad: &mut Violations, value: String) -> Option<Text<LAST_DIGITS>> {
    const FIELD: &str = "payment_method.last4";
    if value.is_empty() {
        return Some(Text::default());
    }
    if value.len() != LAST_DIGITS || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A whole card number here is the likeliest mistake of all.
        if contains_card_number(&value) {
            bad.card_number(FIELD);
        } else {
            bad.invalid(FIELD, "must be exactly four digits");
        }
        return None;
    }
    scalars::text(bad, FIELD, value)
}

/// Month and year: both or neither.
fn expiry(bad: &mut Violations, month: u32, year: u32) -> Option<(Option<u8>, Option<u16>)> {
    const MONTH: &str = "payment_method.expiry_month";
    const YEAR: &str = "payment_method.expiry_year";
    if (month, year) == (0, 0) {
        return Some((None, None));
    }
    let in_month = u8::try_from(month)
        .ok()
        .filter(|month| (1..=12).contains(month));
    let in_year = u16::try_from(year)
        .ok()
        .filter(|year| (2000..=2099).contains(year));
    if in_month.is_none() {
        bad.invalid(
            MONTH,
            "must be 1 to 12, and given together with expiry_year",
        );
    }
    if in_year.is_none() {
        bad.invalid(
            YEAR,
            "must be 2000 to 2099, and given together with expiry_month",
        );
    }
    Some((Some(in_month?), Some(in_year?)))
}

fn capture_method(bad: &mut Violations, number: i32) -> Option<CaptureMethod> {
    use v1::CaptureMethod as Given;
    match scalars::known(bad, "capture_method", number)? {
        Given::Unspecified | Given::Automatic => Some(CaptureMethod::Automatic),
        Given::Manual => Some(CaptureMethod::Manual),
    }
}

fn initiator(bad: &mut Violations, number: i32) -> Option<Initiator> {
    use v1::Initiator as Given;
    match scalars::known(bad, "initiator", number)? {
        Given::Unspecified | Given::Customer => Some(Initiator::Customer),
        Given::Merchant => Some(Initiator::Merchant),
    }
}

fn mandate_fits(bad: &mut Violations, initiator: Option<Initiator>, mandate: Option<&Text<255>>) {
    let (Some(initiator), Some(mandate)) = (initiator, mandate) else {
        return;
    };
    let given = mandate.non_empty().is_some();
    match initiator {
        Initiator::Merchant if !given => {
            bad.invalid("mandate_reference", "is required for INITIATOR_MERCHANT");
        }
        Initiator::Customer if given => {
            bad.invalid(
                "mandate_reference",
                "is only allowed for INITIATOR_MERCHANT",
            );
        }
        Initiator::Merchant | Initiator::Customer => {}
    }
}

fn return_url(bad: &mut Violations, value: String) -> Option<Text<2048>> {
    let url = scalars::text::<2048>(bad, "return_url", value)?;
    if url.non_empty().is_some_and(|url| !may_return_to(url)) {
        bad.invalid(
            "return_url",
            "must be an absolute https URL (http only to a loopback address), without a user name",
        );
        return None;
    }
    Some(url)
}

/// Whether a customer's browser may be sent there.
fn may_return_to(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else {
        return false;
    };
    let Some(authority) = uri.authority() else {
        return false;
    };
    // What stands before an @ makes people misread the host.
    if authority.host().is_empty() || authority.as_str().contains('@') {
        return false;
    }
    match uri.scheme_str() {
        Some("https") => true,
        Some("http") => is_loopback(authority.host()),
        Some(_) | None => false,
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn customer(bad: &mut Violations, value: v1::Customer) -> Option<Customer> {
    let reference =
        scalars::required::<255>(bad, "customer.customer_reference", value.customer_reference);
    let mut fields = Vec::new();
    let mut add = |name: &'static str, value: Option<String>| {
        fields.extend(value.map(|value| (name, Sensitive::new(value))));
    };
    add(
        "customer.email",
        personal::<MAX_EMAIL>(bad, "customer.email", value.email),
    );
    add("customer.ip", ip_address(bad, value.ip_address));
    add(
        "customer.name",
        personal::<255>(bad, "customer.name", value.name),
    );
    if let Some(address) = value.address {
        postal_address(bad, address, &mut add);
    }
    fields.sort_by_key(|(name, _)| *name);
    let reference = Sensitive::new(reference?.as_str().to_owned());
    Some(Customer { reference, fields })
}

/// A personal text, if one is given. What is refused is in `bad`, which ends the request.
fn personal<const MAX: usize>(bad: &mut Violations, field: &str, value: String) -> Option<String> {
    scalars::filter::<MAX>(bad, field, value).flatten()
}

fn ip_address(bad: &mut Violations, value: String) -> Option<String> {
    const FIELD: &str = "customer.ip_address";
    let text = personal::<64>(bad, FIELD, value)?;
    let address = text.parse::<IpAddr>().ok();
    if address.is_none() {
        bad.invalid(FIELD, "must be an IPv4 or IPv6 address");
    }
    address.map(|address| address.to_string())
}

fn postal_address(
    bad: &mut Violations,
    value: v1::PostalAddress,
    add: &mut impl FnMut(&'static str, Option<String>),
) {
    const LINES: &str = "customer.address.lines";
    const COUNTRY: &str = "customer.address.country_code";
    if value.lines.len() > ADDRESS_LINES.len() {
        bad.invalid(
            LINES,
            format!("must be at most {} lines", ADDRESS_LINES.len()),
        );
    }
    for (at, (name, line)) in ADDRESS_LINES.into_iter().zip(value.lines).enumerate() {
        let text = scalars::required::<255>(bad, &format!("{LINES}[{at}]"), line);
        add(name, text.map(|text| text.as_str().to_owned()));
    }
    for (name, text) in [
        ("customer.address.city", value.city),
        ("customer.address.postal_code", value.postal_code),
        ("customer.address.region", value.region),
    ] {
        add(name, personal::<255>(bad, name, text));
    }
    let country = personal::<255>(bad, COUNTRY, value.country_code);
    if country
        .as_deref()
        .is_some_and(|code| !is_country_code(code))
    {
        bad.invalid(
            COUNTRY,
            "must be two upper-case letters (ISO 3166-1 alpha-2)",
        );
        return;
    }
    add(COUNTRY, country);
}

fn is_country_code(code: &str) -> bool {
    code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase())
}
