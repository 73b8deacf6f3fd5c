//! Where an endpoint's notifications are posted: a URL that was looked at.

use std::net::IpAddr;

use quittance_domain::notification::MAX_ENDPOINT_URL;
use quittance_domain::text::Sensitive;
use reqwest::Url;
use thiserror::Error;

use super::network::AllowedNetworks;

/// The port of https.
const HTTPS_PORT: u16 = 443;
/// The first port that programs of ordinary users listen on. Below it are services of the host, such as mail, which
/// nobody should have the service talk to.
const FIRST_USER_PORT: u16 = 1_024;

/// Why a URL is refused. Never quotes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TargetProblem {
    /// It cannot be read as a URL.
    #[error("must be an absolute https:// URL of at most {MAX_ENDPOINT_URL} characters")]
    NotAUrl,
    /// It is not encrypted.
    #[error("must begin with https://")]
    NotHttps,
    /// It holds a user or a password.
    #[error("must not hold a user or a password")]
    Credentials,
    /// It holds a fragment, which is never sent.
    #[error("must not hold a fragment")]
    Fragment,
    /// Its port is that of a service of the host.
    #[error("must have port {HTTPS_PORT}, or one from {FIRST_USER_PORT} on")]
    Port,
    /// Its address is not public, and in no network that is allowed.
    #[error("must have a public address, or one of notifications.allowed_networks")]
    Address,
}

/// A URL that notifications may be posted to, as far as it tells by itself: what its name resolves to is judged with
/// each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target(Sensitive<Url>);

impl Target {
    /// Parses a URL. Plain http:// is for `localhost` and loopback addresses, and only where that is allowed.
    pub fn parse(
        text: &str,
        networks: &AllowedNetworks,
        plaintext_loopback: bool,
    ) -> Result<Self, TargetProblem> {
        if text.len() > MAX_ENDPOINT_URL || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TargetProblem::NotAUrl);
        }
        let url = Url::parse(text).map_err(|_| TargetProblem::NotAUrl)?;
        let host = url.host_str().ok_or(TargetProblem::NotAUrl)?;
        let address = literal(host);
        let local = address.map_or(host == "localhost", |address| address.is_loopback());
        match url.scheme() {
            "https" => {}
            "http" if plaintext_loopback && local => {}
            _ => return Err(TargetProblem::NotHttps),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetProblem::Credentials);
        }
        if url.fragment().is_some() {
            return Err(TargetProblem::Fragment);
        }
        let port = url.port_or_known_default().ok_or(TargetProblem::Port)?;
        if port != HTTPS_PORT && port < FIRST_USER_PORT && !local {
            return Err(TargetProblem::Port);
        }
        if address.is_some_and(|address| !networks.allow(address)) {
            return Err(TargetProblem::Address);
        }
        Ok(Self(Sensitive::new(url)))
    }

    /// The URL.
    pub fn url(&self) -> &Url {
        self.0.expose()
    }

    /// The host, which may be logged and recorded; the rest of the URL may hold a token.
    pub fn host(&self) -> &str {
        self.url().host_str().unwrap_or_default()
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.url().port_or_known_default().unwrap_or_default()
    }

    /// Whether it is encrypted.
    pub fn is_tls(&self) -> bool {
        self.url().scheme() == "https"
    }

    /// Its address, where its host is one: nobody resolves it then.
    pub fn address(&self) -> Option<IpAddr> {
        literal(self.host())
    }
}

/// The address that a host is, rather than names.
fn literal(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, plaintext: bool) -> Option<TargetProblem> {
        let networks = AllowedNetworks(vec!["10.20.0.0/16".parse().unwrap()]);
        Target::parse(text, &networks, plaintext).err()
    }

    #[test]
    fn a_url_is_https_to_a_public_or_allowed_host() {
        use TargetProblem::{Address, Credentials, Fragment, NotAUrl, NotHttps, Port};
        for good in [
            "https://receiver.example/hooks",
            "https://receiver.example:8443/hooks?a=b",
            "https://8.8.8.8/hooks",
            "https://[2606:4700:4700::1111]/hooks",
            "https://10.20.1.1:9000/",
        ] {
            assert_eq!(refused(good, false), None, "{good}");
        }
        let long = format!("https://receiver.example/{}", "a".repeat(MAX_ENDPOINT_URL));
        for (bad, problem) in [
            ("", NotAUrl),
            ("receiver.example", NotAUrl),
            ("https://", NotAUrl),
            ("https://receiver.example/a b", NotAUrl),
            ("https://receiver.example/\u{e4}", NotAUrl),
            (long.as_str(), NotAUrl),
            ("http://receiver.example/", NotHttps),
            ("ftp://receiver.example/", NotHttps),
            ("https://user:secret@receiver.example/", Credentials),
            ("https://user@receiver.example/", Credentials),
            ("https://receiver.example/#a", Fragment),
            ("https://receiver.example:25/", Port),
            ("https://receiver.example:0/", Port),
            ("https://127.0.0.1:8443/", Address),
            ("https://10.0.0.1/", Address),
            ("https://169.254.169.254/latest/meta-data", Address),
            ("https://[::1]/", Address),
            ("https://[::ffff:169.254.169.254]/", Address),
            ("https://[64:ff9b::a9fe:a9fe]/", Address),
            // Other ways to write 127.0.0.1 and 169.254.169.254, as browsers read them (WHATWG URL).
            ("https://2130706433/", Address),
            ("https://0x7f.1/", Address),
            ("https://0177.0.0.1/", Address),
            ("https://127.1/", Address),
            ("https://0xa9fea9fe/", Address),
        ] {
            assert_eq!(refused(bad, false), Some(problem), "{bad}");
        }
    }

    #[test]
    fn plain_http_is_for_loopback_in_development() {
        let local = AllowedNetworks(vec!["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()]);
        for good in [
            "http://127.0.0.1:8080/",
            "http://localhost:8080/",
            "http://[::1]:8080/",
        ] {
            assert!(Target::parse(good, &local, true).is_ok(), "{good}");
            let problem = Target::parse(good, &local, false).unwrap_err();
            assert_eq!(problem, TargetProblem::NotHttps, "{good}");
        }
        for bad in [
            "http://receiver.example/",
            "http://10.20.0.1:8080/",
            "http://localhost.example/",
        ] {
            assert_eq!(refused(bad, true), Some(TargetProblem::NotHttps), "{bad}");
        }
    }

    #[test]
    fn a_target_shows_its_host_only() {
        let target = Target::parse(
            "https://receiver.example/token",
            &AllowedNetworks::default(),
            false,
        );
        let target = target.unwrap();
        assert_eq!((target.host(), target.port()), ("receiver.example", 443));
        assert!(!format!("{target:?}").contains("token"));
    }
}
