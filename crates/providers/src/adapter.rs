//! What an adapter registers: all that the rest of the service knows of a kind of provider.

use std::fmt;
use std::sync::Arc;

use quittance_domain::ports::Provider;
use reqwest::header::{HeaderMap, HeaderName};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::ADAPTERS;
use crate::config::{AccountProblem, ProviderAccountConfig};
use crate::http::{TraceHeaders, sensitive};

/// Builds an account; the second argument adds the trace context to each of its requests.
pub type Build =
    fn(&ProviderAccountConfig, TraceHeaders) -> Result<Arc<dyn Provider>, AccountProblem>;

/// A kind of provider.
pub struct Adapter {
    /// How the configuration names it.
    pub kind: &'static str,
    /// Where the provider is, where that is the same for every account; empty where it is not.
    pub base_url: &'static str,
    /// Settings that its accounts have beside those of all: texts, refused for all other kinds.
    pub settings: &'static [&'static str],
    /// Builds an account.
    pub build: Build,
}

/// The header that lets an account in: its API key, behind this beginning. Never printed.
pub(crate) fn credentials(
    config: &ProviderAccountConfig,
    header: HeaderName,
    before: &str,
) -> Result<HeaderMap, AccountProblem> {
    let key = config.api_key.expose();
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(AccountProblem::ApiKey);
    }
    let value = sensitive(&format!("{before}{key}")).map_err(|_| AccountProblem::ApiKey)?;
    Ok(HeaderMap::from_iter([(header, value)]))
}

/// Which provider an account is at.
#[derive(Clone, Copy)]
pub struct ProviderKind(&'static Adapter);

impl ProviderKind {
    /// That of an adapter.
    pub const fn of(adapter: &'static Adapter) -> Self {
        Self(adapter)
    }

    /// Its adapter.
    pub const fn adapter(self) -> &'static Adapter {
        self.0
    }
}

impl PartialEq for ProviderKind {
    fn eq(&self, other: &Self) -> bool {
        self.0.kind == other.0.kind
    }
}

impl Eq for ProviderKind {}

impl fmt::Debug for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.kind)
    }
}

impl<'de> Deserialize<'de> for ProviderKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = ADAPTERS.iter().find(|adapter| adapter.kind == name);
        known.map(|adapter| Self(adapter)).ok_or_else(|| {
            let known: Vec<_> = ADAPTERS.iter().map(|adapter| adapter.kind).collect();
            D::Error::custom(format_args!("kind must be one of {}", known.join(", ")))
        })
    }
}
