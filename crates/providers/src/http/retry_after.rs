//! `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime};
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// How long whoever answered asked us to wait, and at most `longest`. A date counts from the answer's own `Date`, so that
/// neither clock has to be right; without one it says nothing.
pub fn read(headers: &HeaderMap, longest: Duration) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // All digits and no u64: longer than any cap.
        text.parse().map_or(longest, Duration::from_secs)
    } else {
        let from = date(headers, &DATE)?;
        let until = parse(text)?;
        (until - from).to_std().unwrap_or(Duration::ZERO)
    };
    Some(wait.min(longest))
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

    const LONGEST: Duration = Duration::from_secs(7_200);

    fn wait(retry_after: &str, date: Option<&str>) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry_after.parse().unwrap());
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        read(&headers, LONGEST)
    }

    #[test]
    fn seconds_are_read_and_capped() {
        assert_eq!(wait("0", None), Some(Duration::ZERO));
        assert_eq!(wait("120", None), Some(Duration::from_secs(120)));
        assert_eq!(wait("7200", None), Some(LONGEST));
        assert_eq!(wait("7201", None), Some(LONGEST));
        assert_eq!(wait("99999999999999999999999", None), Some(LONGEST));
        for bad in ["", "-1", "1.5", "soon"] {
            assert_eq!(wait(bad, None), None, "{bad}");
        }
        assert_eq!(read(&HeaderMap::new(), LONGEST), None);
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
