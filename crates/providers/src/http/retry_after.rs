//! `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime};
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// Longest wait that is taken from a provider; more than that is cut to it.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// How long whoever answered asked us to wait. A date counts from the answer's own `Date`, so that
/// neither clock has to be right; without one it says nothing.
pub fn read(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // All digits and no u64: longer than any cap.
        text.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs)
    } else {
        let from = date(headers, &DATE)?;
        let until = parse(text)?;
        (until - from).to_std().unwrap_or(Duration::ZERO)
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<NaiveDateTime> {
    parse(headers.get(name)?.to_str().ok()?.trim())
}

/// The three forms of an HTTP date, all UTC: IMF-fixdate, RFC 850, asctime.
fn parse(text: &str) -> Option<NaiveDateTime> {
    DateTime::parse_from_rfc2822(text)
        .map(|date| date.naive_utc())
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%A, %d-%b-%y %H:%M:%S GMT"))
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%a %b %e %H:%M:%S %Y"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(retry_after: &str, date: Option<&str>) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry_after.parse().unwrap());
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        read(&headers)
    }

    #[test]
    fn seconds_are_read_and_capped() {
        assert_eq!(wait("0", None), Some(Duration::ZERO));
        assert_eq!(wait("120", None), Some(Duration::from_secs(120)));
        assert_eq!(wait("86400", None), Some(MAX_RETRY_AFTER));
        assert_eq!(wait("99999999999999999999999", None), Some(MAX_RETRY_AFTER));
        for bad in ["", "-1", "1.5", "soon"] {
            assert_eq!(wait(bad, None), None, "{bad}");
        }
        assert_eq!(read(&HeaderMap::new()), None);
    }

    #[test]
    fn every_form_of_a_date_counts_from_the_answers_own() {
        let now = Some("Sun, 06 Nov 1994 08:49:07 GMT");
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(wait(text, now), Some(Duration::from_secs(30)), "{text}");
        }
        assert_eq!(
            wait("Sun, 06 Nov 1994 08:00:00 GMT", now),
            Some(Duration::ZERO)
        );
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", None), None);
    }
}
