//! Section `[audit]`: the witnesses that cosign checkpoints.

use std::time::Duration;

use quittance_evidence::note::{KeyType, VerifierKey};
use quittance_providers::http::BaseUrl;
use reqwest::Url;

use super::error::ConfigError;
use super::settings::Settings;

/// Most witnesses: each gets every checkpoint.
const MAX_WITNESSES: usize = 16;
const WITNESSES: &str = "audit.witnesses";

/// The witnesses, and how they are called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WitnessesConfig {
    /// Who.
    pub witnesses: Vec<WitnessConfig>,
    /// Longest wait for a witness's whole answer, connection included.
    pub timeout: Duration,
    /// Shortest time between two calls to one witness.
    pub interval: Duration,
}

impl WitnessesConfig {
    /// The keys that cosignatures are checked with.
    pub fn keys(&self) -> impl Iterator<Item = &VerifierKey> {
        self.witnesses.iter().map(|witness| &witness.key)
    }
}

/// A witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessConfig {
    /// Where checkpoints are sent: its address, and `/add-checkpoint` behind it.
    pub url: Url,
    /// Its published key.
    pub key: VerifierKey,
}

impl WitnessesConfig {
    pub(super) fn parse(settings: &Settings) -> Result<Self, ConfigError> {
        let plaintext = settings.flag("audit.allow_plaintext_witnesses")?;
        let timeout = settings.millis("audit.witness_timeout_ms", 100..=60_000)?;
        let interval = settings.millis("audit.witness_interval_ms", 100..=3_600_000)?;
        let mut witnesses: Vec<WitnessConfig> = Vec::new();
        for text in settings.texts(WITNESSES)? {
            let witness = WitnessConfig::parse(&text, plaintext);
            let witness = witness.map_err(|reason| settings.invalid(WITNESSES, &reason))?;
            if witnesses.iter().any(|known| known.key == witness.key) {
                return Err(settings.invalid(WITNESSES, "the same witness twice"));
            }
            witnesses.push(witness);
        }
        if witnesses.len() > MAX_WITNESSES {
            return Err(settings.invalid(WITNESSES, "at most 16 witnesses"));
        }
        Ok(Self {
            witnesses,
            timeout,
            interval,
        })
    }
}

impl WitnessConfig {
    /// Reads `<URL> <verifier key>`.
    fn parse(text: &str, plaintext: bool) -> Result<Self, String> {
        let (url, key) = text.split_once(' ').ok_or(
            "must be \"<URL> <verifier key>\", as `quittance witness init` prints the key",
        )?;
        BaseUrl::parse(url, plaintext).map_err(|error| format!("{url}: {error}"))?;
        let url = format!("{}/add-checkpoint", url.trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|error| format!("{url}: {error}"))?;
        let key: VerifierKey = key.trim().parse().map_err(|error| format!("{error}"))?;
        match key.key_type() {
            KeyType::Cosignature => Ok(Self { url, key }),
            KeyType::Ed25519 => Err(format!(
                "{} is the key of a log, not of a witness",
                key.name()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quittance_evidence::note::{KeyName, SigningKey, WitnessKey};

    #[test]
    fn a_witness_is_an_https_url_and_the_key_of_a_witness() {
        let key = SigningKey::from_seed(KeyName::new("witness.example/w1").unwrap(), &[1; 32]);
        let of_log = key.verifier().to_string();
        let key = WitnessKey::from(key).verifier().to_string();
        let parse = |url: &str, plaintext| WitnessConfig::parse(&format!("{url} {key}"), plaintext);
        let witness = parse("https://w1.example/below/", false).unwrap();
        assert_eq!(
            witness.url.as_str(),
            "https://w1.example/below/add-checkpoint"
        );
        assert_eq!(witness.key.name().as_str(), "witness.example/w1");
        assert!(parse("http://127.0.0.1:7446", false).is_err());
        assert!(parse("http://127.0.0.1:7446", true).is_ok());
        assert!(parse("http://w1.example", true).is_err());
        assert!(parse("ftp://w1.example", true).is_err());
        assert!(WitnessConfig::parse(&format!("https://w1.example {of_log}"), false).is_err());
        assert!(WitnessConfig::parse("https://w1.example", false).is_err());
    }
}
