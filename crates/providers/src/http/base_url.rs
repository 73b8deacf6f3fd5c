//! Where a provider is, parsed once.

use quittance_domain::ids::ProviderReference;
use reqwest::Url;
use thiserror::Error;

/// Why a base URL was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BaseUrlError {
    /// Not an absolute URL with a host.
    #[error("expected a URL such as https://api.example.com")]
    Malformed,
    /// Neither `https` nor `http`.
    #[error("expected https")]
    Scheme,
    /// `http` without permission.
    #[error("plain http needs allow_plaintext = true")]
    PlaintextNotAllowed,
    /// `http` to another machine.
    #[error("plain http is allowed to loopback addresses only")]
    PlaintextOffLoopback,
    /// User name, password, query or fragment.
    #[error("must not hold credentials, a query or a fragment")]
    Extras,
}

/// An `https` URL (or `http` on loopback, where allowed) without credentials, query or fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    url: Url,
    host: String,
    port: u16,
    tls: bool,
}

impl BaseUrl {
    /// Parses and checks a URL. `allow_plaintext` admits `http` to `localhost`, `127.0.0.0/8` and
    /// `::1`.
    pub fn parse(text: &str, allow_plaintext: bool) -> Result<Self, BaseUrlError> {
        let url = Url::parse(text).map_err(|_| BaseUrlError::Malformed)?;
        let host = url.host_str().ok_or(BaseUrlError::Malformed)?.to_owned();
        let tls = match url.scheme() {
            "https" => true,
            "http" if !allow_plaintext => return Err(BaseUrlError::PlaintextNotAllowed),
            "http" if !is_loopback(&host) => return Err(BaseUrlError::PlaintextOffLoopback),
            "http" => false,
            _ => return Err(BaseUrlError::Scheme),
        };
        let credentials = !url.username().is_empty() || url.password().is_some();
        if credentials || url.query().is_some() || url.fragment().is_some() {
            return Err(BaseUrlError::Extras);
        }
        let port = url.port_or_known_default().ok_or(BaseUrlError::Malformed)?;
        Ok(Self {
            url,
            host,
            port,
            tls,
        })
    }

    /// The host name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether connections are encrypted.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The URL of a path below it; whatever the path holds, the host stays.
    pub(super) fn join(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        let prefix = self.url.path().trim_end_matches('/');
        url.set_path(&format!("{prefix}{path}"));
        url
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// A provider's reference as a path segment: letters, digits, `_` and `-` as every provider's are.
/// `None` for anything else, which could name another resource.
pub fn path_segment(reference: &ProviderReference) -> Option<&str> {
    let text = reference.as_str();
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        .then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_is_required_except_on_loopback_when_allowed() {
        for (text, plaintext, expected) in [
            ("https://api.example.com", false, Ok(())),
            ("https://api.example.com:8443/v71/", false, Ok(())),
            ("http://127.0.0.1:9", true, Ok(())),
            ("http://[::1]:9", true, Ok(())),
            ("http://localhost:9", true, Ok(())),
            (
                "http://127.0.0.1:9",
                false,
                Err(BaseUrlError::PlaintextNotAllowed),
            ),
            (
                "http://api.example.com",
                true,
                Err(BaseUrlError::PlaintextOffLoopback),
            ),
            (
                "http://localhost.example.com",
                true,
                Err(BaseUrlError::PlaintextOffLoopback),
            ),
            (
                "http://192.168.0.1",
                true,
                Err(BaseUrlError::PlaintextOffLoopback),
            ),
            ("ftp://api.example.com", true, Err(BaseUrlError::Scheme)),
            (
                "https://user:secret@api.example.com",
                false,
                Err(BaseUrlError::Extras),
            ),
            (
                "https://api.example.com?a=b",
                false,
                Err(BaseUrlError::Extras),
            ),
            (
                "https://api.example.com#f",
                false,
                Err(BaseUrlError::Extras),
            ),
            ("api.example.com", false, Err(BaseUrlError::Malformed)),
            ("", false, Err(BaseUrlError::Malformed)),
        ] {
            assert_eq!(
                BaseUrl::parse(text, plaintext).map(|_| ()),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn paths_are_appended_and_cannot_change_the_host() {
        let base = BaseUrl::parse("https://api.example.com/v71/", false).unwrap();
        assert_eq!(
            base.join("/payments").as_str(),
            "https://api.example.com/v71/payments"
        );
        for path in [
            "//evil.example/x",
            "/@evil.example",
            "/a?b#c",
            "/\\evil.example",
        ] {
            assert_eq!(
                base.join(path).host_str(),
                Some("api.example.com"),
                "{path}"
            );
            assert_eq!(base.join(path).query(), None, "{path}");
        }
        assert_eq!(
            (base.host(), base.port(), base.is_tls()),
            ("api.example.com", 443, true)
        );
    }

    #[test]
    fn references_that_could_name_another_resource_are_no_path_segments() {
        let reference = |text: &str| ProviderReference::parse(text).unwrap();
        assert_eq!(path_segment(&reference("spay_0a-B")), Some("spay_0a-B"));
        for bad in ["..", "a/b", "a?b", "a%2fb", "a#b", "a\\b", "."] {
            assert_eq!(path_segment(&reference(bad)), None, "{bad}");
        }
    }
}
