//! Stripe's codes for refusals in the unified ones: one table, which `docs/stripe.md` shows.

use quittance_domain::decline::{Decline, DeclineCode};
use quittance_domain::text::Text;

use super::wire::ErrorDetail;
use DeclineCode::{
    AuthenticationFailed, AuthenticationRequired, CardExpired, CardLostOrStolen,
    CardNumberIncorrect, CvcIncorrect, DoNotHonor, Duplicate, FraudSuspected, InsufficientFunds,
    IssuerUnavailable, LimitExceeded, NotPermitted, Other, ProviderRefused,
};

/// Every code that Stripe documents as `decline_code` (<https://docs.stripe.com/declines/codes>), and those error
/// codes (<https://docs.stripe.com/error-codes>) that stand without one where a payment is refused. Sorted.
#[rustfmt::skip]
pub(super) const CODES: &[(&str, DeclineCode)] = &[
    ("account_closed", NotPermitted),
    ("amount_too_large", LimitExceeded),
    ("amount_too_small", NotPermitted),
    ("approve_with_id", IssuerUnavailable),
    ("authentication_not_handled", AuthenticationRequired),
    ("authentication_required", AuthenticationRequired),
    ("balance_insufficient", ProviderRefused),
    ("bank_account_declined", DoNotHonor),
    ("bank_account_restricted", NotPermitted),
    ("bank_account_unusable", NotPermitted),
    ("call_issuer", DoNotHonor),
    ("card_decline_rate_limit_exceeded", LimitExceeded),
    ("card_declined", DoNotHonor),
    ("card_not_supported", NotPermitted),
    ("card_velocity_exceeded", LimitExceeded),
    ("charge_exceeds_source_limit", LimitExceeded),
    ("charge_exceeds_transaction_limit", LimitExceeded),
    ("currency_not_supported", NotPermitted),
    ("debit_not_authorized", NotPermitted),
    ("do_not_honor", DoNotHonor),
    ("do_not_try_again", DoNotHonor),
    ("duplicate_transaction", Duplicate),
    ("expired_card", CardExpired),
    ("fraudulent", FraudSuspected),
    ("generic_decline", DoNotHonor),
    ("incorrect_address", Other),
    ("incorrect_cvc", CvcIncorrect),
    ("incorrect_number", CardNumberIncorrect),
    ("incorrect_pin", AuthenticationFailed),
    ("incorrect_zip", Other),
    ("insufficient_funds", InsufficientFunds),
    ("invalid_account", CardNumberIncorrect),
    ("invalid_amount", LimitExceeded),
    ("invalid_cvc", CvcIncorrect),
    ("invalid_expiry_month", CardExpired),
    ("invalid_expiry_year", CardExpired),
    ("invalid_number", CardNumberIncorrect),
    ("invalid_pin", AuthenticationFailed),
    ("issuer_not_available", IssuerUnavailable),
    ("lost_card", CardLostOrStolen),
    ("merchant_blacklist", FraudSuspected),
    ("mobile_device_authentication_required", AuthenticationRequired),
    ("new_account_information_available", NotPermitted),
    ("no_account", CardNumberIncorrect),
    ("no_action_taken", DoNotHonor),
    ("not_permitted", NotPermitted),
    ("offline_pin_required", AuthenticationRequired),
    ("online_or_offline_pin_required", AuthenticationRequired),
    ("payment_intent_authentication_failure", AuthenticationFailed),
    ("payment_intent_payment_attempt_expired", AuthenticationFailed),
    ("payment_intent_payment_attempt_failed", Other),
    ("payment_method_customer_decline", NotPermitted),
    ("payment_method_provider_decline", ProviderRefused),
    ("payment_method_provider_timeout", IssuerUnavailable),
    ("pickup_card", CardLostOrStolen),
    ("pin_try_exceeded", NotPermitted),
    ("processing_error", IssuerUnavailable),
    ("reenter_transaction", IssuerUnavailable),
    ("restricted_card", CardLostOrStolen),
    ("revocation_of_all_authorizations", NotPermitted),
    ("revocation_of_authorization", NotPermitted),
    ("security_violation", FraudSuspected),
    ("service_not_allowed", NotPermitted),
    ("stolen_card", CardLostOrStolen),
    ("stop_payment_order", NotPermitted),
    ("testmode_decline", ProviderRefused),
    ("transaction_not_allowed", NotPermitted),
    ("try_again_later", IssuerUnavailable),
    ("withdrawal_count_limit_exceeded", LimitExceeded),
];

/// The unified code of one of Stripe's. Those that it adds later are `OTHER` until they are in the table.
pub(super) fn unified(code: &str) -> DeclineCode {
    CODES
        .binary_search_by(|(known, _)| (*known).cmp(code))
        .ok()
        .and_then(|at| CODES.get(at))
        .map_or(Other, |(_, code)| *code)
}

/// Why Stripe refused: the issuer's reason where it tells one, else its own.
pub(super) fn decline(error: &ErrorDetail) -> Option<Decline> {
    let code = error.decline_code.as_ref().or(error.code.as_ref())?;
    Some(Decline {
        code: unified(code),
        provider_code: Text::parse(code.as_str()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/stripe.md` between its marks.
    const DOCUMENT: &str = "../../docs/stripe.md";
    const MARKS: [&str; 2] = ["<!-- declines -->\n", "<!-- /declines -->"];

    fn table() -> String {
        let mut table = "| Stripe says | Unified code | Advice |\n| --- | --- | --- |\n".to_owned();
        for (code, unified) in CODES {
            let row = format!("| `{code}` | `{unified}` | `{}` |\n", unified.advice());
            table.push_str(&row);
        }
        table
    }

    #[test]
    fn s08_every_decline_code_of_stripe_is_in_the_table_that_the_documentation_shows() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(MARKS[0]).unwrap();
        let (shown, after) = rest.split_once(MARKS[1]).unwrap();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            let text = format!("{before}{}{}{}{after}", MARKS[0], table(), MARKS[1]);
            std::fs::write(path, text).unwrap();
        } else {
            assert_eq!(shown, table(), "UPDATE_DOCS=1 writes it anew");
        }
    }

    #[test]
    fn s08_the_issuers_reason_counts_and_an_unknown_one_is_kept() {
        let error = |code: Option<&str>, decline_code: Option<&str>| ErrorDetail {
            r#type: "card_error".to_owned(),
            code: code.map(str::to_owned),
            decline_code: decline_code.map(str::to_owned),
            payment_intent: None,
        };
        for (code, decline_code, expected) in [
            (
                "card_declined",
                Some("insufficient_funds"),
                InsufficientFunds,
            ),
            ("card_declined", Some("lost_card"), CardLostOrStolen),
            ("expired_card", None, CardExpired),
            ("incorrect_cvc", Some("incorrect_cvc"), CvcIncorrect),
            ("card_declined", Some("cosmic_rays"), Other),
        ] {
            let said = decline(&error(Some(code), decline_code)).unwrap();
            assert_eq!(said.code, expected, "{code} {decline_code:?}");
            assert_eq!(said.provider_code.as_str(), decline_code.unwrap_or(code));
        }
        assert_eq!(decline(&error(None, None)), None);
    }

    #[test]
    fn the_table_is_sorted_so_that_every_code_is_found() {
        assert!(CODES.is_sorted_by(|(left, _), (right, _)| left < right));
        for (code, expected) in CODES {
            assert_eq!(unified(code), *expected);
        }
    }

    /// As the same refusals of Adyen's.
    #[test]
    fn s08_a_refusal_that_several_providers_know_has_one_code() {
        for code in ["incorrect_address", "incorrect_zip"] {
            assert_eq!(unified(code), Other, "AVS: {code}");
        }
        assert_eq!(unified("pin_try_exceeded"), NotPermitted);
    }
}
