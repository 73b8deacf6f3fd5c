//! Adyen's refusal reasons in the unified decline codes: one table, which `docs/adyen.md` shows.

use quittance_domain::decline::{Decline, DeclineCode};
use quittance_domain::text::Text;

use DeclineCode as D;

/// Code, reason and unified code, as in Adyen's "Refusal reasons". Numbers that are missing are not in use.
#[rustfmt::skip]
pub(super) const REFUSALS: [(u16, &str, DeclineCode); 44] = [
    (2, "Refused", D::DoNotHonor),
    (3, "Referral", D::DoNotHonor),
    (4, "Acquirer Error", D::IssuerUnavailable),
    (5, "Blocked Card", D::CardLostOrStolen),
    (6, "Expired Card", D::CardExpired),
    (7, "Invalid Amount", D::ProviderRefused),
    (8, "Invalid Card Number", D::CardNumberIncorrect),
    (9, "Issuer Unavailable", D::IssuerUnavailable),
    (10, "Not supported", D::NotPermitted),
    (11, "3D Not Authenticated", D::AuthenticationFailed),
    (12, "Not enough balance", D::InsufficientFunds),
    (14, "Acquirer Fraud", D::FraudSuspected),
    (15, "Cancelled", D::Other),
    (16, "Shopper Cancelled", D::Other),
    (17, "Invalid Pin", D::AuthenticationFailed),
    (18, "Pin tries exceeded", D::NotPermitted),
    (19, "Pin validation not possible", D::NotPermitted),
    (20, "FRAUD", D::FraudSuspected),
    (21, "Not Submitted", D::ProviderRefused),
    (22, "FRAUD-CANCELLED", D::FraudSuspected),
    (23, "Transaction Not Permitted", D::NotPermitted),
    (24, "CVC Declined", D::CvcIncorrect),
    (25, "Restricted Card", D::NotPermitted),
    (26, "Revocation Of Auth", D::NotPermitted),
    (27, "Declined Non Generic", D::DoNotHonor),
    (28, "Withdrawal amount exceeded", D::LimitExceeded),
    (29, "Withdrawal count exceeded", D::LimitExceeded),
    (31, "Issuer Suspected Fraud", D::FraudSuspected),
    (32, "AVS Declined", D::Other),
    (33, "Card requires online pin", D::AuthenticationRequired),
    (34, "No checking account available on Card", D::NotPermitted),
    (35, "No savings account available on Card", D::NotPermitted),
    (36, "Mobile pin required", D::AuthenticationRequired),
    (37, "Contactless fallback", D::AuthenticationRequired),
    (38, "Authentication required", D::AuthenticationRequired),
    (39, "RReq not received from DS", D::AuthenticationFailed),
    (40, "Current AID is in Penalty Box", D::IssuerUnavailable),
    (41, "CVM Required Restart Payment", D::AuthenticationRequired),
    (42, "3DS Authentication Error", D::AuthenticationFailed),
    (43, "Online PIN required", D::AuthenticationRequired),
    (44, "Try another interface", D::NotPermitted),
    (45, "Chip downgrade mode", D::NotPermitted),
    (46, "Transaction blocked by Adyen to prevent excessive retry fees", D::ProviderRefused),
    (50, "Token Revoked", D::NotPermitted),
];

/// Why a payment was refused, by the code of an answer. One that is not in the table is kept, and says nothing more
/// than that.
pub(super) fn by_code(code: &str) -> Decline {
    let number = code.parse::<u16>().ok();
    let known = REFUSALS.iter().find(|(known, ..)| Some(*known) == number);
    Decline {
        code: known.map_or(D::Other, |(_, _, unified)| *unified),
        provider_code: Text::parse(code).unwrap_or_default(),
    }
}

/// Why a payment was refused, by the reason that a webhook gives. It is not signed, so only what is in the table
/// comes of it: it chooses among refusals, and no text of it is kept.
pub(super) fn by_reason(reason: &str) -> Decline {
    // Adyen may append more after a colon, and end a reason with a dot.
    let reason = reason.split(':').next().unwrap_or_default();
    let reason = reason.trim().trim_end_matches('.');
    let known = REFUSALS
        .iter()
        .find(|(_, known, _)| known.eq_ignore_ascii_case(reason));
    let (code, provider_code) = known.map_or((D::Other, String::new()), |(number, _, unified)| {
        (*unified, number.to_string())
    });
    Decline {
        code,
        provider_code: Text::parse(provider_code).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fmt::Write as _;

    use quittance_domain::decline::RetryAdvice;

    use super::*;

    const DOCUMENT: &str = include_str!("../../../../docs/adyen.md");

    #[test]
    fn s08_every_refusal_code_and_reason_has_its_unified_code() {
        for (number, reason, unified) in REFUSALS {
            let by_number = by_code(&number.to_string());
            assert_eq!(by_number.code, unified, "{number}");
            assert_eq!(by_number.provider_code.as_str(), number.to_string());
            assert_eq!(by_reason(reason), by_number, "{reason}");
        }
        let numbers: HashSet<_> = REFUSALS.iter().map(|(number, ..)| number).collect();
        let reasons = REFUSALS.iter().map(|(_, reason, _)| reason.to_lowercase());
        let reasons: HashSet<_> = reasons.collect();
        assert_eq!(
            (numbers.len(), reasons.len()),
            (REFUSALS.len(), REFUSALS.len())
        );
    }

    #[test]
    fn s10_hard_refusals_advise_against_any_retry() {
        for hard in ["5", "14", "20", "22", "31"] {
            assert_eq!(
                by_code(hard).code.advice(),
                RetryAdvice::DoNotRetry,
                "{hard}"
            );
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_other() {
        for unknown in ["", "0", "1", "13", "30", "999", "99999999", "two", "-2"] {
            let decline = by_code(unknown);
            assert_eq!(decline.code, DeclineCode::Other, "{unknown}");
            assert_eq!(decline.provider_code.as_str(), unknown);
        }
        for unknown in ["", "null", "Whatever the sender likes to have stored"] {
            let decline = by_reason(unknown);
            assert_eq!(decline.code, DeclineCode::Other, "{unknown}");
            assert_eq!(decline.provider_code.as_str(), "", "nothing of it is kept");
        }
        assert_eq!(
            by_reason("Current AID is in Penalty Box.")
                .provider_code
                .as_str(),
            "40"
        );
    }

    #[test]
    fn the_document_shows_the_table() {
        let mut table =
            String::from("| Adyen | Reason | Unified | Advice |\n| --- | --- | --- | --- |\n");
        for (number, reason, unified) in REFUSALS {
            let advice = unified.advice();
            writeln!(table, "| {number} | {reason} | `{unified}` | `{advice}` |").unwrap();
        }
        assert!(
            DOCUMENT.contains(&table),
            "docs/adyen.md should hold:\n{table}"
        );
    }
}
