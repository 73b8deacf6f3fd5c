//! Single fields: text, enums, money, ids and times.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use prost_types::Timestamp;
use quittance_domain::card_number::contains_card_number;
use quittance_domain::command::MAX_EXECUTE_WITHIN;
use quittance_domain::ids::{IdempotencyKey, PaymentId, ProviderAccount};
use quittance_domain::money::{Currency, MAX_AMOUNT_MINOR_UNITS, Money, MoneyError};
use quittance_domain::text::{Text, TextError};
use quittance_proto::v1;
use uuid::Uuid;

use super::violations::Violations;

/// Length of a UUID as text, hyphens included.
const UUID_TEXT: usize = 36;
/// Digits after the second that are kept: those that the database keeps.
const SUBSECOND_DIGITS: u16 = 6;

/// A value that was looked at: `None` where it was refused, and what is wrong with it is in the violations.
pub(super) type Checked<T> = Option<T>;

/// A parser that says why it refuses a text.
type Parse<T> = fn(String) -> Result<T, TextError>;

/// Parses a text that holds no card number.
pub(super) fn parsed<T>(
    bad: &mut Violations,
    field: &str,
    value: String,
    parse: Parse<T>,
) -> Option<T> {
    if contains_card_number(&value) {
        bad.card_number(field);
        return None;
    }
    parse(value).map_err(|error| bad.text(field, error)).ok()
}

/// Text of at most `MAX` characters; may be empty.
pub(super) fn text<const MAX: usize>(
    bad: &mut Violations,
    field: &str,
    value: String,
) -> Option<Text<MAX>> {
    parsed(bad, field, value, Text::parse)
}

/// Text that must not be empty.
pub(super) fn required<const MAX: usize>(
    bad: &mut Violations,
    field: &str,
    value: String,
) -> Option<Text<MAX>> {
    parsed(bad, field, value, not_empty)
}

/// Parses text that must not be empty.
pub(super) fn not_empty<const MAX: usize>(value: String) -> Result<Text<MAX>, TextError> {
    if value.is_empty() {
        return Err(TextError::Empty);
    }
    Text::parse(value)
}

/// A filter: absent when empty.
pub(super) fn filter<const MAX: usize>(
    bad: &mut Violations,
    field: &str,
    value: String,
) -> Checked<Option<String>> {
    let text = text::<MAX>(bad, field, value)?;
    Some(text.non_empty().map(str::to_owned))
}

/// 1 to `MAX` printable ASCII characters, spaces included.
pub(super) fn printable<const MAX: usize>(value: String) -> Result<String, TextError> {
    if value.is_empty() {
        return Err(TextError::Empty);
    }
    if value.len() > MAX {
        return Err(TextError::TooLong { max: MAX });
    }
    if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(TextError::NotPrintableAscii);
    }
    Ok(value)
}

pub(super) fn idempotency_key(bad: &mut Violations, value: String) -> Option<IdempotencyKey> {
    parsed(bad, "idempotency_key", value, |value| {
        IdempotencyKey::parse(value)
    })
}

/// The account named, if one is.
pub(super) fn provider_account(
    bad: &mut Violations,
    value: String,
) -> Checked<Option<ProviderAccount>> {
    if value.is_empty() {
        return Some(None);
    }
    let parse: Parse<_> = |value| ProviderAccount::parse(value);
    parsed(bad, "provider_account", value, parse).map(Some)
}

/// A UUID with hyphens. Of which version it is decides only whether it will be found.
pub(super) fn uuid(bad: &mut Violations, field: &str, value: &str) -> Option<Uuid> {
    let parsed = Some(value)
        .filter(|value| value.len() == UUID_TEXT)
        .and_then(|value| Uuid::try_parse(value).ok());
    if parsed.is_none() {
        let problem = if value.is_empty() {
            "is required"
        } else {
            "must be a UUID with hyphens"
        };
        bad.invalid(field, problem);
    }
    parsed
}

pub(super) fn payment_id(bad: &mut Violations, value: &str) -> Option<PaymentId> {
    uuid(bad, "payment_id", value).map(PaymentId)
}

/// A value of an enum of the contract; an unknown number is refused.
pub(super) fn known<E: TryFrom<i32>>(bad: &mut Violations, field: &str, number: i32) -> Option<E> {
    let value = E::try_from(number).ok();
    if value.is_none() {
        bad.invalid(field, "is not a known value");
    }
    value
}

/// The states of a filter, none of them unspecified and at most as many as there are. `state_of` gives the state that a
/// message names; `None` for "unspecified".
pub(super) fn states<E: TryFrom<i32>, S>(
    bad: &mut Violations,
    numbers: &[i32],
    known_states: &[S],
    state_of: fn(E) -> Option<S>,
) -> Option<Vec<S>> {
    let most = known_states.len();
    if numbers.len() > most {
        bad.invalid("states", format!("must be at most {most}"));
        return None;
    }
    let mut states = Vec::new();
    let mut good = true;
    for (at, number) in numbers.iter().enumerate() {
        let field = format!("states[{at}]");
        match known(bad, &field, *number).map(state_of) {
            Some(Some(state)) => states.push(state),
            Some(None) => {
                bad.invalid(&field, "must not be unspecified");
                good = false;
            }
            None => good = false,
        }
    }
    good.then_some(states)
}

/// An amount. Both of its fields are looked at, so that both are named if both are bad.
pub(super) fn money(bad: &mut Violations, field: &str, value: &v1::Money) -> Option<Money> {
    let currency = Currency::parse(&value.currency_code)
        .map_err(|error| bad.money(field, &error))
        .ok();
    if !(1..=MAX_AMOUNT_MINOR_UNITS).contains(&value.minor_units) {
        bad.money(field, &MoneyError::OutOfRange);
        return None;
    }
    let money = Money::new(value.minor_units, currency?);
    money.map_err(|error| bad.money(field, &error)).ok()
}

/// An amount that may be absent.
pub(super) fn optional_money(
    bad: &mut Violations,
    field: &str,
    value: Option<&v1::Money>,
) -> Checked<Option<Money>> {
    match value {
        None => Some(None),
        Some(value) => money(bad, field, value).map(Some),
    }
}

/// A time, cut to microseconds.
pub(super) fn time(
    bad: &mut Violations,
    field: &str,
    value: Option<Timestamp>,
) -> Checked<Option<DateTime<Utc>>> {
    let Some(value) = value else {
        return Some(None);
    };
    let in_range = Some(value).filter(is_timestamp);
    let parsed = in_range.and_then(|value| {
        DateTime::from_timestamp(value.seconds, u32::try_from(value.nanos).ok()?)
    });
    if parsed.is_none() {
        bad.invalid(
            field,
            "must be a time from year 1 to 9999, nanos 0 to 999,999,999",
        );
    }
    parsed.map(|time| Some(time.trunc_subsecs(SUBSECOND_DIGITS)))
}

/// The range of `google.protobuf.Timestamp`: 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z.
fn is_timestamp(value: &Timestamp) -> bool {
    (-62_135_596_800..=253_402_300_799).contains(&value.seconds)
        && (0..1_000_000_000).contains(&value.nanos)
}

/// `execute_before`: not too far ahead. Whether it lies in the future is decided with the command, because a repetition is
/// answered from the first request also after that time (I6).
pub(super) fn execute_before(
    bad: &mut Violations,
    value: Option<Timestamp>,
    now: DateTime<Utc>,
) -> Checked<Option<DateTime<Utc>>> {
    const FIELD: &str = "execute_before";
    let time = time(bad, FIELD, value)?;
    let latest = now.checked_add_signed(delta(MAX_EXECUTE_WITHIN));
    if time.zip(latest).is_some_and(|(time, latest)| time > latest) {
        let days = MAX_EXECUTE_WITHIN.as_secs() / 86_400;
        bad.invalid(FIELD, format!("must lie at most {days} days ahead"));
        return None;
    }
    Some(time)
}

/// The same span of time; the constants that it is used for are all small.
pub(super) fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

/// Limits of a map of texts.
pub(super) struct PairLimits {
    /// The field.
    pub field: &'static str,
    /// Most pairs.
    pub pairs: usize,
    /// Checks a key.
    pub key: Parse<()>,
    /// Checks a value.
    pub value: Parse<()>,
}

/// Checks the pairs of a map. A bad key is never quoted: the map as a whole is named.
pub(super) fn pairs(
    bad: &mut Violations,
    limits: &PairLimits,
    map: BTreeMap<String, String>,
) -> Option<BTreeMap<String, String>> {
    let field = limits.field;
    if map.len() > limits.pairs {
        bad.invalid(field, format!("must hold at most {} pairs", limits.pairs));
        return None;
    }
    let mut good = true;
    for (key, value) in &map {
        if contains_card_number(key) {
            bad.add(
                field,
                v1::ErrorReason::CardNumberNotAllowed,
                "a key must not hold a card number",
            );
            good = false;
        } else if let Err(error) = (limits.key)(key.clone()) {
            bad.invalid(field, format!("a key {error}"));
            good = false;
        } else {
            let path = format!("{field}[\"{}\"]", key.escape_debug());
            good &= parsed(bad, &path, value.clone(), limits.value).is_some();
        }
    }
    good.then_some(map)
}
