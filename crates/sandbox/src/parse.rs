//! From bytes to commands: a command that exists is well-formed.

use crate::error::ApiError;
use crate::fault::RequestKind;
use crate::limits::{
    MAX_DESCRIPTION, MAX_IDEMPOTENCY_KEY, MAX_MANDATE_REFERENCE, MAX_PAIR_NAME, MAX_PAIR_VALUE,
    MAX_PAIRS, MAX_REFERENCE, MAX_URL,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use uuid::Uuid;

/// Three upper-case letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Currency([u8; 3]);

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or("XXX"))
    }
}

impl Currency {
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(code) if code.iter().all(u8::is_ascii_uppercase) => Ok(Self(code)),
            _ => Err(ApiError::invalid(
                "currency",
                "invalid_currency",
                "currency must be three upper-case letters (ISO 4217)",
            )),
        }
    }
}

/// What a POST asks for. Amounts are positive minor units.
pub(crate) enum Command {
    Create(NewPayment),
    Confirm {
        payment: Uuid,
        reference: String,
        passed: bool,
    },
    Capture {
        payment: Uuid,
        reference: String,
        amount: i64,
        currency: Currency,
        last: bool,
    },
    Void {
        payment: Uuid,
        reference: String,
    },
    Refund {
        payment: Uuid,
        reference: String,
        amount: i64,
        currency: Currency,
    },
}

/// An authorization or purchase.
pub(crate) struct NewPayment {
    pub reference: String,
    pub payment_reference: Option<String>,
    pub amount: i64,
    pub currency: Currency,
    pub token: String,
    /// Purchase (`true`) or authorization.
    pub capture: bool,
    pub return_url: Option<String>,
}

impl Command {
    pub(crate) fn kind(&self) -> RequestKind {
        match self {
            Self::Create(new) if new.capture => RequestKind::Purchase,
            Self::Create(_) => RequestKind::Authorization,
            Self::Confirm { .. } => RequestKind::Confirm,
            Self::Capture { .. } => RequestKind::Capture,
            Self::Void { .. } => RequestKind::Void,
            Self::Refund { .. } => RequestKind::Refund,
        }
    }

    pub(crate) fn reference(&self) -> &str {
        match self {
            Self::Create(NewPayment { reference, .. })
            | Self::Confirm { reference, .. }
            | Self::Capture { reference, .. }
            | Self::Void { reference, .. }
            | Self::Refund { reference, .. } => reference,
        }
    }
}

#[derive(Deserialize)]
struct CreateBody {
    reference: String,
    payment_reference: Option<String>,
    amount: i64,
    currency: String,
    token: String,
    capture: bool,
    description: Option<String>,
    return_url: Option<String>,
    initiator: Option<Initiator>,
    mandate_reference: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// Who is present. Checked, and of no further effect here.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Initiator {
    Customer,
    Merchant,
}

#[derive(Deserialize)]
struct ConfirmBody {
    reference: String,
    parameters: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct CaptureBody {
    reference: String,
    amount: i64,
    currency: String,
    r#final: bool,
}

#[derive(Deserialize)]
struct VoidBody {
    reference: String,
}

#[derive(Deserialize)]
struct RefundBody {
    reference: String,
    amount: i64,
    currency: String,
}

pub(crate) fn create(body: &[u8]) -> Result<Command, ApiError> {
    let body: CreateBody = json(body)?;
    if let Some(reference) = &body.payment_reference {
        check_reference("payment_reference", reference)?;
    }
    if matches!(body.initiator, Some(Initiator::Customer)) && body.mandate_reference.is_some() {
        return Err(ApiError::invalid(
            "mandate_reference",
            "mandate_not_allowed",
            "a mandate is for payments without the customer present",
        ));
    }
    check_length("description", body.description.as_deref(), MAX_DESCRIPTION)?;
    let mandate = body.mandate_reference.as_deref();
    check_length("mandate_reference", mandate, MAX_MANDATE_REFERENCE)?;
    check_length("return_url", body.return_url.as_deref(), MAX_URL)?;
    check_pairs("metadata", &body.metadata)?;
    Ok(Command::Create(NewPayment {
        reference: reference(body.reference)?,
        payment_reference: body.payment_reference,
        amount: amount(body.amount)?,
        currency: Currency::parse(&body.currency)?,
        token: body.token,
        capture: body.capture,
        return_url: body.return_url,
    }))
}

pub(crate) fn confirm(payment: Uuid, body: &[u8]) -> Result<Command, ApiError> {
    let body: ConfirmBody = json(body)?;
    check_pairs("parameters", &body.parameters)?;
    let passed = match body.parameters.get("challenge").map(String::as_str) {
        Some("passed") => true,
        Some("failed") => false,
        _ => {
            return Err(ApiError::invalid(
                "parameters",
                "invalid_challenge",
                "parameters must hold challenge = passed or challenge = failed",
            ));
        }
    };
    Ok(Command::Confirm {
        payment,
        reference: reference(body.reference)?,
        passed,
    })
}

pub(crate) fn capture(payment: Uuid, body: &[u8]) -> Result<Command, ApiError> {
    let body: CaptureBody = json(body)?;
    Ok(Command::Capture {
        payment,
        reference: reference(body.reference)?,
        amount: amount(body.amount)?,
        currency: Currency::parse(&body.currency)?,
        last: body.r#final,
    })
}

pub(crate) fn void(payment: Uuid, body: &[u8]) -> Result<Command, ApiError> {
    let body: VoidBody = json(body)?;
    Ok(Command::Void {
        payment,
        reference: reference(body.reference)?,
    })
}

pub(crate) fn refund(payment: Uuid, body: &[u8]) -> Result<Command, ApiError> {
    let body: RefundBody = json(body)?;
    Ok(Command::Refund {
        payment,
        reference: reference(body.reference)?,
        amount: amount(body.amount)?,
        currency: Currency::parse(&body.currency)?,
    })
}

/// `spay_` and 32 hexadecimal digits.
pub(crate) fn payment_id(text: &str) -> Result<Uuid, ApiError> {
    text.strip_prefix("spay_")
        .and_then(|id| Uuid::try_parse(id).ok())
        .ok_or(ApiError::not_found("no such payment"))
}

pub(crate) fn idempotency_key(value: Option<&[u8]>) -> Result<&[u8], ApiError> {
    match value {
        Some(key)
            if (1..=MAX_IDEMPOTENCY_KEY).contains(&key.len())
                && key.iter().all(|byte| (b' '..=b'~').contains(byte)) =>
        {
            Ok(key)
        }
        _ => Err(ApiError::malformed(
            "idempotency_key_required",
            "the Idempotency-Key header must hold 1 to 255 printable ASCII characters",
        )),
    }
}

/// The parser's own message is not passed on: it quotes the input.
pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|_| {
        ApiError::malformed(
            "malformed_request",
            "the body is not the JSON that this call takes",
        )
    })
}

fn amount(amount: i64) -> Result<i64, ApiError> {
    if amount > 0 {
        Ok(amount)
    } else {
        Err(ApiError::invalid(
            "amount",
            "invalid_amount",
            "amount must be positive minor units",
        ))
    }
}

fn reference(text: String) -> Result<String, ApiError> {
    check_reference("reference", &text)?;
    Ok(text)
}

fn check_reference(param: &'static str, text: &str) -> Result<(), ApiError> {
    if (1..=MAX_REFERENCE).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(ApiError::invalid(
            param,
            "invalid_reference",
            "references are 1 to 64 printable ASCII characters without spaces",
        ))
    }
}

fn check_length(param: &'static str, text: Option<&str>, limit: usize) -> Result<(), ApiError> {
    if text.is_none_or(|text| text.chars().count() <= limit) {
        Ok(())
    } else {
        Err(ApiError::invalid(param, "too_long", "the text is too long"))
    }
}

fn check_pairs(param: &'static str, pairs: &BTreeMap<String, String>) -> Result<(), ApiError> {
    let fits = |(name, value): (&String, &String)| {
        name.chars().count() <= MAX_PAIR_NAME && value.chars().count() <= MAX_PAIR_VALUE
    };
    if pairs.len() <= MAX_PAIRS && pairs.iter().all(fits) {
        Ok(())
    } else {
        Err(ApiError::invalid(
            param,
            "too_many_pairs",
            "too many pairs, or one is too long",
        ))
    }
}
