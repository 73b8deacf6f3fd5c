//! Signatures of Adyen's standard webhooks: HMAC-SHA256 over eight fields of each item.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::wire;
use crate::config::Secret;
use crate::webhook::{MAX_SECRETS, SecretsProblem};

/// What a secret has to be.
const FORM: SecretsProblem = SecretsProblem::Form("the 64 hexadecimal digits of Adyen's HMAC key");

/// How many bytes a key has.
const KEY_BYTES: usize = 32;
/// What divides the fields where they are signed. It is not escaped.
pub(super) const SEPARATOR: char = ':';

/// The live keys of an account.
pub(super) struct Keys(Vec<Hmac<Sha256>>);

/// Hand-written: it holds secrets.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// Reads the keys, 64 hexadecimal digits each. With none, nothing is ever verified.
    pub fn new(secrets: &[Secret]) -> Result<Self, SecretsProblem> {
        if secrets.len() > MAX_SECRETS {
            return Err(SecretsProblem::TooMany);
        }
        let keys = secrets.iter().map(|secret| key(secret.expose()));
        keys.collect::<Result<_, _>>().map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the signature is that of these fields under any key. Every key is tried, each in constant time.
    pub fn match_any(&self, fields: &SignedFields, signature: &str) -> bool {
        let Ok(signature) = BASE64.decode(signature) else {
            return false;
        };
        let signed = fields.joined();
        let mut any = false;
        for key in &self.0 {
            let mut mac = key.clone();
            mac.update(signed.as_bytes());
            any |= mac.verify_slice(&signature).is_ok();
        }
        any
    }
}

fn key(secret: &str) -> Result<Hmac<Sha256>, SecretsProblem> {
    let key = hex::decode(secret).map(Zeroizing::new);
    let key = key.map_err(|_| FORM)?;
    if key.len() != KEY_BYTES {
        return Err(FORM);
    }
    Hmac::new_from_slice(&key).map_err(|_| FORM)
}

/// What is signed of an item, in the order in which it is signed; what is missing is empty.
pub(super) struct SignedFields([String; 8]);

impl SignedFields {
    pub fn of(item: &wire::Item) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let amount = item.amount.as_ref();
        let value = amount.and_then(|amount| amount.value);
        Self([
            text(&item.psp_reference),
            text(&item.original_reference),
            text(&item.merchant_account_code),
            text(&item.merchant_reference),
            value.map_or_else(String::new, |value| value.to_string()),
            amount.map_or_else(String::new, |amount| text(&amount.currency)),
            text(&item.event_code),
            item.success
                .as_ref()
                .map_or_else(String::new, |success| success.text().to_owned()),
        ])
    }

    /// Whether the signed text can be divided into fields in one way only. With a separator inside a field, what
    /// was signed as one could be presented as two.
    pub fn unambiguous(&self) -> bool {
        !self.0.iter().any(|field| field.contains(SEPARATOR))
    }

    /// What is signed, as it is signed.
    pub fn joined(&self) -> String {
        self.0.join(":")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adyen's own example.
    const KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
    const OTHER: &str = "00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF";
    const SIGNATURE: &str = "coqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo0=";

    fn keys(keys: &[&str]) -> Keys {
        let secrets: Vec<_> = keys.iter().map(|key| Secret::new(*key)).collect();
        Keys::new(&secrets).unwrap()
    }

    fn example() -> wire::Item {
        serde_json::from_str(
            r#"{"pspReference": "7914073381342284", "originalReference": null,
                "merchantAccountCode": "TestMerchant", "merchantReference": "TestPayment-1407325143704",
                "amount": {"currency": "EUR", "value": 1130}, "eventCode": "AUTHORISATION", "success": "true"}"#,
        )
        .unwrap()
    }

    #[test]
    fn the_example_of_the_documentation_verifies() {
        let fields = SignedFields::of(&example());
        assert_eq!(
            fields.joined(),
            "7914073381342284::TestMerchant:TestPayment-1407325143704:1130:EUR:AUTHORISATION:true"
        );
        assert!(keys(&[KEY]).match_any(&fields, SIGNATURE));
        assert!(keys(&[&KEY.to_lowercase()]).match_any(&fields, SIGNATURE));
    }

    #[test]
    fn s46_s47_another_signature_or_field_does_not() {
        let fields = SignedFields::of(&example());
        for bad in [
            "",
            "coqCmt/IZ4E3",
            "coqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo0",
            "doqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo0=",
            "coqCmt_IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU-iCWo0=",
        ] {
            assert!(!keys(&[KEY]).match_any(&fields, bad), "{bad}");
        }
        for altered in 0..8 {
            let mut fields = SignedFields::of(&example());
            fields.0[altered].push('0');
            assert!(!keys(&[KEY]).match_any(&fields, SIGNATURE), "{altered}");
        }
    }

    #[test]
    fn s49_two_keys_are_live_during_rotation() {
        let fields = SignedFields::of(&example());
        assert!(keys(&[OTHER, KEY]).match_any(&fields, SIGNATURE));
        assert!(keys(&[KEY, OTHER]).match_any(&fields, SIGNATURE));
        assert!(!keys(&[OTHER]).match_any(&fields, SIGNATURE));
        assert!(!keys(&[]).match_any(&fields, SIGNATURE));
    }

    #[test]
    fn s57_fields_with_a_separator_could_be_divided_otherwise() {
        let mut item = example();
        assert!(SignedFields::of(&item).unambiguous());
        item.merchant_reference = Some("a:1:EUR".to_owned());
        let whole = SignedFields::of(&item);
        item.merchant_reference = Some("a".to_owned());
        item.amount = serde_json::from_str(r#"{"currency": "EUR:1130:EUR", "value": 1}"#).ok();
        let divided = SignedFields::of(&item);
        assert_eq!(whole.joined(), divided.joined(), "one signature for both");
        assert!(!whole.unambiguous() && !divided.unambiguous());
    }

    #[test]
    fn keys_of_another_form_or_too_many_are_refused_and_none_prints() {
        for bad in [
            "",
            "44",
            "xyz",
            &KEY[1..],
            &format!("{KEY}00"),
            "whsec_AAAA",
        ] {
            let problem = Keys::new(&[Secret::new(bad)]).unwrap_err();
            assert_eq!(problem, FORM, "{bad}");
        }
        let many = vec![Secret::new(KEY); MAX_SECRETS + 1];
        assert_eq!(Keys::new(&many).unwrap_err(), SecretsProblem::TooMany);
        assert_eq!(format!("{:?}", keys(&[KEY])), "Keys(1)");
    }
}
