use quittance_domain::money::Currency;
use quittance_domain::transaction::TransactionState;
use quittance_domain::webhook::WebhookState;
use quittance_proto::v1::ErrorReason;

use super::*;
use crate::convert::MAX_VIOLATIONS;

/// Every reason of the contract, in its order.
fn reasons() -> Vec<ErrorReason> {
    (1..200)
        .filter_map(|number| ErrorReason::try_from(number).ok())
        .collect()
}

fn details(status: &Status) -> (String, HashMap<String, String>) {
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.domain, DOMAIN);
    (info.reason, info.metadata)
}

#[test]
fn the_documentation_has_every_reason_and_no_other() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md");
    let text = std::fs::read_to_string(path).unwrap();
    let sections: Vec<_> = text.split("\n## ").skip(1).collect();
    let titles: Vec<_> = sections
        .iter()
        .map(|section| section.lines().next().unwrap())
        .collect();
    let names: Vec<_> = reasons().into_iter().map(reason_name).collect();
    assert_eq!(titles, names);
    for (reason, section) in reasons().into_iter().zip(sections) {
        let Profile {
            code,
            retryable,
            money_may_have_moved,
        } = profile(reason);
        let yes = |flag| if flag { "yes" } else { "no" };
        let code = format!("{code:?}")
            .chars()
            .fold(String::new(), |mut name, c| {
                if c.is_ascii_uppercase() && !name.is_empty() {
                    name.push('_');
                }
                name.push(c.to_ascii_uppercase());
                name
            });
        let expected = format!(
            "`{code}` · retryable: {} · money may have moved: {}",
            yes(retryable),
            yes(money_may_have_moved)
        );
        assert_eq!(
            section.lines().nth(2),
            Some(expected.as_str()),
            "{reason:?}"
        );
        assert!(
            section.contains("**Cause.** ") && section.contains("**What to do.** "),
            "{reason:?}"
        );
    }
}

#[test]
fn the_contracts_comments_name_the_same_codes() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../proto/quittance/v1/error_reason.proto"
    );
    let text = std::fs::read_to_string(path).unwrap();
    for reason in reasons() {
        let code = profile(reason).code;
        let (before, _) = text
            .split_once(&format!("  {} =", reason.as_str_name()))
            .unwrap();
        let comment: Vec<_> = before
            .lines()
            .rev()
            .take_while(|line| line.starts_with("  //"))
            .collect();
        let first = comment.last().unwrap().trim_start_matches("  // ");
        let (name, _) = first.split_once('.').unwrap();
        let name = name.replace('_', "").to_lowercase();
        assert_eq!(name, format!("{code:?}").to_lowercase(), "{reason:?}");
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn every_flow_error_has_its_reason_and_says_whether_money_may_have_moved() {
    use ErrorReason as R;
    let eur = Currency::parse("EUR").unwrap();
    let wait = Duration::from_secs(3);
    let account = quittance_domain::ids::ProviderAccount::parse("nowhere").unwrap();
    let state = PaymentState::Voided;
    let rejected = |rejection: Rejection| FlowError::Rejected(rejection);
    for (error, reason, moved) in [
        (
            rejected(Rejection::StateForbids { state }),
            R::PaymentStateForbids,
            false,
        ),
        (
            rejected(Rejection::ExceedsCapturable { left: 7 }),
            R::AmountExceedsCapturable,
            false,
        ),
        (
            rejected(Rejection::ExceedsRefundable { left: 7 }),
            R::AmountExceedsRefundable,
            false,
        ),
        (
            rejected(Rejection::CurrencyDiffers),
            R::CurrencyMismatch,
            false,
        ),
        (rejected(Rejection::VoidPending), R::VoidPending, false),
        (
            rejected(Rejection::CapturePending),
            R::CapturePending,
            false,
        ),
        (
            rejected(Rejection::NoSuchTransaction),
            R::TransactionNotFound,
            false,
        ),
        (
            rejected(Rejection::TransactionEnded {
                state: TransactionState::Succeeded,
            }),
            R::TransactionEnded,
            false,
        ),
        (
            rejected(Rejection::BeingSent),
            R::TransactionBeingSent,
            false,
        ),
        (
            rejected(Rejection::NothingOpen),
            R::OperatorActionNotOpen,
            false,
        ),
        (
            rejected(Rejection::PaymentChanged { version: 7 }),
            R::PaymentChanged,
            false,
        ),
        (
            rejected(Rejection::OutcomeUnknown),
            R::TransactionOutcomeUnknown,
            false,
        ),
        (
            rejected(Rejection::PartialCaptureUnsupported),
            R::PartialCaptureUnsupported,
            false,
        ),
        (
            rejected(Rejection::CaptureMustBeFinal),
            R::FinalCaptureRequired,
            false,
        ),
        (
            rejected(Rejection::TooManyTransactions),
            R::TooManyTransactions,
            false,
        ),
        (
            rejected(Unpreparable::Amount.into()),
            R::AmountNotRepresentable,
            false,
        ),
        (
            rejected(Unpreparable::Currency(eur).into()),
            R::OperationUnsupported,
            false,
        ),
        (
            rejected(Unpreparable::Method.into()),
            R::OperationUnsupported,
            false,
        ),
        (
            rejected(Unpreparable::Field("return_url").into()),
            R::InvalidField,
            false,
        ),
        (
            rejected(Unpreparable::NoReference.into()),
            R::ProviderReferenceUnknown,
            false,
        ),
        (
            rejected(Rejection::ExecuteBeforePassed),
            R::InvalidField,
            true,
        ),
        (FlowError::PaymentNotFound, R::PaymentNotFound, false),
        (FlowError::NothingUnderKey, R::PaymentNotFound, true),
        (FlowError::WebhookNotFound, R::WebhookNotFound, false),
        (
            FlowError::WebhookNotReplayable {
                state: WebhookState::Applied,
            },
            R::WebhookNotReplayable,
            false,
        ),
        (FlowError::WebhookWiped, R::WebhookWiped, false),
        (FlowError::EntryNotFound, R::EntryNotFound, false),
        (
            FlowError::IdempotencyKeyReused { field: "amount" },
            R::IdempotencyKeyReused,
            true,
        ),
        (FlowError::NoRoute, R::NoRoute, true),
        (
            FlowError::NoneCanServe(Unpreparable::Field("return_url")),
            R::InvalidField,
            true,
        ),
        (
            FlowError::NoneCanServe(Unpreparable::Amount),
            R::AmountNotRepresentable,
            true,
        ),
        (
            FlowError::NoneCanServe(Unpreparable::Method),
            R::OperationUnsupported,
            true,
        ),
        (
            FlowError::UnknownProviderAccount(account),
            R::UnknownProviderAccount,
            true,
        ),
        (FlowError::ConcurrentChange, R::ConcurrentChange, true),
        (
            FlowError::Overloaded { retry_after: wait },
            R::Overloaded,
            true,
        ),
        (FlowError::DatabaseUnavailable, R::DatabaseUnavailable, true),
        (FlowError::AcceptanceUnknown, R::AcceptanceUnknown, true),
        (FlowError::DeadlineExceeded, R::DeadlineExceeded, true),
        (FlowError::Internal("secret".to_owned()), R::Internal, true),
    ] {
        let status = Status::from(Failure::from(error.clone()));
        let (name, metadata) = details(&status);
        assert_eq!(name, reason_name(reason), "{error:?}");
        assert_eq!(status.code(), profile(reason).code, "{error:?}");
        assert_eq!(
            metadata["money_may_have_moved"],
            moved.to_string(),
            "{error:?}"
        );
        assert_eq!(error.money_may_have_moved(), moved, "{error:?}");
        assert!(["true", "false"].contains(&metadata["retryable"].as_str()));
        let precondition = status.get_details_precondition_failure().is_some();
        assert_eq!(
            precondition,
            status.code() == Code::FailedPrecondition,
            "{error:?}"
        );
        let fields = status.get_details_bad_request().is_some();
        assert_eq!(fields, status.code() == Code::InvalidArgument, "{error:?}");
    }
}

#[test]
fn an_account_that_is_gone_is_no_fault_of_a_command_on_its_payment() {
    let account = quittance_domain::ids::ProviderAccount::parse("gone").unwrap();
    let gone = FlowError::UnknownProviderAccount(account);
    let status = Status::from(of_existing_payment(gone.clone()));
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(details(&status).0, "UNKNOWN_PROVIDER_ACCOUNT");
    assert!(status.get_details_bad_request().is_none());
    let failure = status.get_details_precondition_failure().unwrap();
    assert_eq!(failure.violations[0].r#type, "PROVIDER_ACCOUNT");

    let new = Status::from(Failure::from(gone));
    assert_eq!(new.code(), Code::InvalidArgument);
    let fields = new.get_details_bad_request().unwrap().field_violations;
    assert_eq!(fields[0].field, "provider_account");

    let other = Status::from(of_existing_payment(FlowError::PaymentNotFound));
    assert_eq!(other.code(), Code::NotFound);
}

#[test]
fn details_say_what_to_do() {
    let reused = FlowError::IdempotencyKeyReused {
        field: "description",
    };
    let (_, metadata) = details(&Failure::from(reused).into());
    assert_eq!(metadata["field"], "description");

    let (_, metadata) = details(&refusal(&Refusal::RoleRequired(Role::PaymentsRefund), true));
    assert_eq!(metadata["role"], "payments.refund");

    let overloaded = FlowError::Overloaded {
        retry_after: Duration::from_secs(3),
    };
    let status = Status::from(Failure::from(overloaded));
    let retry = status.get_details_retry_info().unwrap();
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(3)));

    let state = Rejection::StateForbids {
        state: PaymentState::Voided,
    };
    let status = Status::from(Failure::from(state));
    let violations = status
        .get_details_precondition_failure()
        .unwrap()
        .violations;
    assert_eq!(violations[0].r#type, "VOIDED");

    let ended = Rejection::TransactionEnded {
        state: TransactionState::Declined,
    };
    let status = Status::from(Failure::from(ended));
    assert_eq!(details(&status).1["state"], "DECLINED");

    // What is still under way ends by itself.
    for waiting in [
        Rejection::BeingSent,
        Rejection::CapturePending,
        Rejection::VoidPending,
        Unpreparable::NoReference.into(),
    ] {
        let (_, metadata) = details(&Failure::from(waiting.clone()).into());
        assert_eq!(metadata["retryable"], "true", "{waiting:?}");
    }
}

#[test]
fn i10_a_defect_tells_its_id_and_nothing_else() {
    let status = Status::from(Failure::defect("password=hunter2"));
    let (reason, metadata) = details(&status);
    assert_eq!(reason, "INTERNAL");
    assert_eq!(
        status.message(),
        format!("internal error {}", metadata["error_id"])
    );
    let bytes = String::from_utf8_lossy(status.details()).into_owned();
    assert!(!bytes.contains("hunter2") && !status.message().contains("hunter2"));
}

#[test]
fn every_refusal_has_a_status() {
    for (given, reason) in [
        (Refusal::MissingCredentials, ErrorReason::MissingCredentials),
        (Refusal::InvalidCredentials, ErrorReason::InvalidCredentials),
        (
            Refusal::RoleRequired(Role::Admin),
            ErrorReason::RoleRequired,
        ),
        (Refusal::UnknownMethod, ErrorReason::UnknownMethod),
        (Refusal::Overloaded, ErrorReason::Overloaded),
        (
            Refusal::DatabaseUnavailable,
            ErrorReason::DatabaseUnavailable,
        ),
        (Refusal::DeadlineExceeded, ErrorReason::DeadlineExceeded),
        (
            Refusal::RateLimited {
                retry_after: Duration::from_millis(20),
            },
            ErrorReason::RateLimited,
        ),
        (Refusal::Interrupted, ErrorReason::AcceptanceUnknown),
        (Refusal::Defect, ErrorReason::Internal),
    ] {
        let status = refusal(&given, true);
        assert_eq!(details(&status).0, reason_name(reason));
        assert_eq!(status.code(), profile(reason).code);
    }
}

/// What comes before the RPC does not know its key, and what cuts a call off does not know how far it came.
#[test]
fn i13_a_refusal_of_what_moves_money_denies_nothing() {
    for given in [
        Refusal::MissingCredentials,
        Refusal::InvalidCredentials,
        Refusal::RoleRequired(Role::PaymentsWrite),
        Refusal::Overloaded,
        Refusal::RateLimited {
            retry_after: Duration::from_millis(20),
        },
        Refusal::DatabaseUnavailable,
        Refusal::DeadlineExceeded,
        Refusal::Interrupted,
        Refusal::Defect,
    ] {
        for (denies_nothing, said) in [(true, "true"), (false, "false")] {
            let (_, metadata) = details(&refusal(&given, denies_nothing));
            assert_eq!(metadata["money_may_have_moved"], said, "{given:?}");
        }
    }
}

#[test]
fn many_violations_are_counted_and_fit_into_the_trailers_of_common_clients() {
    let mut violations = Violations::default();
    for at in 0..MAX_VIOLATIONS + 5 {
        violations.invalid(
            &format!("metadata[\"{at:040}\"]"),
            "must not hold control characters",
        );
    }
    let status = Status::from(Failure::from(violations));
    let (_, metadata) = details(&status);
    assert_eq!(metadata["violations_omitted"], "5");
    let fields = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(fields.len(), MAX_VIOLATIONS);
    let header_bytes = status.details().len() * 4 / 3;
    assert!(header_bytes < 7_000, "{header_bytes}");
}

#[test]
fn a_card_number_outweighs_other_violations() {
    let mut violations = Violations::default();
    violations.invalid("amount", "is required");
    violations.card_number("description");
    violations.add(
        "amount.currency_code",
        ErrorReason::UnknownCurrency,
        "unknown",
    );
    assert_eq!(violations.reason(), ErrorReason::CardNumberNotAllowed);

    let mut violations = Violations::default();
    violations.add(
        "amount.currency_code",
        ErrorReason::UnknownCurrency,
        "unknown",
    );
    assert_eq!(violations.reason(), ErrorReason::UnknownCurrency);
    violations.invalid("idempotency_key", "must not be empty");
    assert_eq!(violations.reason(), ErrorReason::InvalidField);
}

#[test]
fn our_own_statuses_and_those_of_health_stay_as_they_are() {
    let ours = Status::from(Failure::new(ErrorReason::NotImplemented, "not yet"));
    let same = normalize_framework_status(ours.clone());
    assert_eq!(same.details(), ours.details());
    let health = normalize_framework_status(Status::not_found("service not registered"));
    assert_eq!((health.code(), health.details().len()), (Code::NotFound, 0));
    assert_eq!(normalize_framework_status(Status::ok("")).code(), Code::Ok);
}

#[test]
fn framework_codes_become_reasons() {
    for (status, reason) in [
        (Status::cancelled("Timeout expired"), ErrorReason::Cancelled),
        (Status::deadline_exceeded(""), ErrorReason::DeadlineExceeded),
        (Status::unknown("h2"), ErrorReason::Internal),
        (
            Status::internal("Error encoding: no room"),
            ErrorReason::Internal,
        ),
    ] {
        let normal = normalize_framework_status(status);
        assert_eq!(details(&normal).0, reason_name(reason));
        assert_eq!(details(&normal).1["money_may_have_moved"], "true");
    }
}
