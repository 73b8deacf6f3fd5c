//! What a payment is made with: a payment method that the customer stored before, or what Adyen's client code (Drop-in, or
//! one of its components) made of what the customer entered, which it calls `state.data`.

use quittance_domain::payment::{Payment, PaymentMethodType};
use quittance_domain::ports::Unpreparable;
use serde_json::{Map, Value};

/// Most characters of a stored payment method's id.
const MAX_STORED_METHOD: usize = 64;
/// Adyen's type of all cards.
const CARD: &str = "scheme";
/// The field that both come in.
const TOKEN: Unpreparable = Unpreparable::Field("payment_method.provider_token");
/// What only a form of the merchant's own would have collected, and never Adyen's, which encrypts it.
const RAW: [&str; 4] = ["number", "cvc", "expiryMonth", "expiryYear"];
/// How a stored payment method is named among the details.
const STORED: [&str; 2] = ["storedPaymentMethodId", "recurringDetailReference"];
/// What the client code tells beside the payment method, and is handed on: it is about the customer and their browser.
/// Nothing else is, since it comes from there: above all nothing that says what is paid, to whom, or at what risk.
const BESIDE: [&str; 11] = [
    "billingAddress",
    "browserInfo",
    "channel",
    "countryCode",
    "deliveryAddress",
    "origin",
    "shopperEmail",
    "shopperIP",
    "shopperLocale",
    "shopperName",
    "telephoneNumber",
];

/// What a payment is made with.
pub(super) struct PaidWith {
    /// The payment method of the request.
    pub details: Map<String, Value>,
    /// More fields of the request, by their names.
    pub beside: Map<String, Value>,
    /// Whether the customer had stored it.
    pub stored: bool,
    /// Whether the customer wants it to be stored.
    pub store: bool,
}

impl PaidWith {
    /// That of a payment.
    pub fn of(payment: &Payment) -> Result<Self, Unpreparable> {
        let card = match payment.method.kind {
            PaymentMethodType::Card => true,
            PaymentMethodType::BankDebit | PaymentMethodType::Wallet => false,
            // The customer has days for either; who does not act within one is taken to have left.
            PaymentMethodType::BankTransfer | PaymentMethodType::Voucher => {
                return Err(Unpreparable::Method);
            }
        };
        let token = payment.method.token.as_ref().ok_or(Unpreparable::Method)?;
        if token.expose().starts_with('{') {
            Self::entered(token.expose(), card)
        } else {
            Self::stored(token.expose(), card)
        }
    }

    fn stored(id: &str, card: bool) -> Result<Self, Unpreparable> {
        if id.len() > MAX_STORED_METHOD {
            return Err(Unpreparable::Method);
        }
        let r#type = card.then(|| ("type".to_owned(), CARD.into()));
        let id = ("storedPaymentMethodId".to_owned(), id.into());
        Ok(Self {
            details: r#type.into_iter().chain([id]).collect(),
            beside: Map::new(),
            stored: true,
            store: false,
        })
    }

    fn entered(data: &str, card: bool) -> Result<Self, Unpreparable> {
        let mut data: Map<String, Value> = serde_json::from_str(data).map_err(|_| TOKEN)?;
        let Some(Value::Object(details)) = data.remove("paymentMethod") else {
            return Err(TOKEN);
        };
        if RAW.iter().any(|name| details.contains_key(*name)) {
            return Err(TOKEN);
        }
        let r#type = details.get("type").and_then(Value::as_str).ok_or(TOKEN)?;
        if (r#type == CARD) != card {
            return Err(Unpreparable::Method);
        }
        let mut beside: Map<_, _> = BESIDE
            .iter()
            .filter_map(|name| data.remove_entry(*name))
            .collect();
        // Of the rest a browser could say how little risk there is.
        let fingerprint = data.get("riskData").and_then(|risk| risk.get("clientData"));
        if let Some(fingerprint) = fingerprint {
            let risk = Map::from_iter([("clientData".to_owned(), fingerprint.clone())]);
            beside.insert("riskData".to_owned(), risk.into());
        }
        let stored = STORED.iter().any(|name| details.contains_key(*name));
        let wished = data.get("storePaymentMethod").and_then(Value::as_bool);
        Ok(Self {
            details,
            beside,
            stored,
            store: wished == Some(true) && !stored,
        })
    }
}
