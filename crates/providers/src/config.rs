//! The configuration of provider accounts and routing, as the service's configuration file has it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use quittance_domain::ids::ProviderAccount;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::guard::{
    CircuitConfig, DEFAULT_MAX_CONCURRENT_CALLS, DEFAULT_MAX_CONCURRENT_LOOKUPS, GuardSettings,
    OutOfRange,
};
use crate::http::{BaseUrl, BaseUrlError, HttpError, HttpSettings};
use crate::webhook::SecretsProblem;

pub use crate::adapter::ProviderKind;

/// Default of [`ProviderAccountConfig::connect_timeout_ms`].
pub const DEFAULT_CONNECT_TIMEOUT_MS: u64 = 2_000;
/// Default of [`ProviderAccountConfig::total_timeout_ms`].
pub const DEFAULT_TOTAL_TIMEOUT_MS: u64 = 10_000;
/// Longest total timeout, in milliseconds: a transaction is leased for as long.
pub const MAX_TOTAL_TIMEOUT_MS: u64 = 120_000;
/// Most provider accounts.
pub const MAX_ACCOUNTS: usize = 64;
/// Most routing rules.
pub const MAX_RULES: usize = 1_000;

/// A secret from the configuration: never printed.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// Hands the secret out.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// One account at a provider.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct ProviderAccountConfig {
    /// Its name, 1 to 64 printable ASCII characters; stored with every payment, so never changed.
    pub name: String,
    /// The provider.
    pub kind: ProviderKind,
    /// Where it is: `https`, or `http` on loopback with `allow_plaintext`. Default empty: where the provider is for
    /// everybody ([`Adapter::base_url`](crate::Adapter::base_url)).
    #[serde(default)]
    pub base_url: String,
    /// The key that goes with every request.
    pub api_key: Secret,
    /// The secrets under which its webhooks are signed, at most two: during a rotation both are live. Default
    /// none: no webhook is accepted.
    #[serde(default)]
    pub webhook_secrets: Vec<Secret>,
    /// What only accounts of this kind have ([`Adapter::settings`](crate::Adapter::settings)), by name.
    #[serde(skip)]
    pub own: BTreeMap<&'static str, String>,
    /// Longest wait for a connection, in milliseconds: 1 up to below `total_timeout_ms`.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout_ms: u64,
    /// Longest wait for the whole answer, in milliseconds: at most [`MAX_TOTAL_TIMEOUT_MS`].
    #[serde(default = "default_total_timeout")]
    pub total_timeout_ms: u64,
    /// Whether real money moves. Default false; the sandbox never moves any.
    #[serde(default)]
    pub livemode: bool,
    /// Whether `http` to loopback is allowed. Default false; for development.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// Most sends at once, 1 to [`MAX_CONCURRENT_CALLS`](crate::guard::MAX_CONCURRENT_CALLS); further ones
    /// are refused before anything is written.
    #[serde(default = "default_max_concurrent_calls")]
    pub max_concurrent_calls: u32,
    /// Most lookups at once, 1 to [`MAX_CONCURRENT_LOOKUPS`](crate::guard::MAX_CONCURRENT_LOOKUPS); further
    /// ones wait, `total_timeout_ms` at most.
    #[serde(default = "default_max_concurrent_lookups")]
    pub max_concurrent_lookups: u32,
    /// When it is left alone because it fails or is slow.
    #[serde(default)]
    pub circuit: CircuitConfig,
}

fn default_connect_timeout() -> u64 {
    DEFAULT_CONNECT_TIMEOUT_MS
}

fn default_total_timeout() -> u64 {
    DEFAULT_TOTAL_TIMEOUT_MS
}

fn default_max_concurrent_calls() -> u32 {
    DEFAULT_MAX_CONCURRENT_CALLS
}

fn default_max_concurrent_lookups() -> u32 {
    DEFAULT_MAX_CONCURRENT_LOOKUPS
}

/// One routing rule. Each condition that is there must hold; the first rule of which all hold
/// chooses the accounts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutingRuleConfig {
    /// For this tenant only.
    pub tenant: Option<String>,
    /// In this currency only (ISO 4217 code).
    pub currency: Option<String>,
    /// From this amount on, in minor units of `currency`, which is then required.
    pub min_amount: Option<i64>,
    /// Up to and including this amount, in minor units of `currency`, which is then required.
    pub max_amount: Option<i64>,
    /// For this kind of payment method only, such as `CARD`.
    pub method: Option<String>,
    /// The accounts to try, best first; at least one.
    pub accounts: Vec<String>,
}

/// Accounts and routing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvidersConfig {
    /// The accounts, at most [`MAX_ACCOUNTS`]. Where no rule matches, all of them in this order.
    #[serde(default)]
    pub accounts: Vec<ProviderAccountConfig>,
    /// The rules, at most [`MAX_RULES`]; the first that matches decides.
    #[serde(default)]
    pub routing: Vec<RoutingRuleConfig>,
}

/// What is wrong with an account.
#[derive(Debug, Error)]
pub enum AccountProblem {
    /// The name is empty, too long or not printable ASCII.
    #[error("name must be 1 to 64 printable ASCII characters without spaces")]
    Name,
    /// Another account has the name.
    #[error("name is used twice")]
    NameTaken,
    /// The base URL cannot be used.
    #[error("base_url: {0}")]
    BaseUrl(#[from] BaseUrlError),
    /// The API key is missing or cannot be a header.
    #[error("api_key must be printable ASCII and not empty")]
    ApiKey,
    /// The webhook secrets cannot be used.
    #[error("webhook_secrets: {0}")]
    WebhookSecrets(#[from] SecretsProblem),
    /// What the provider does not take, in its adapter's words.
    #[error("{0}")]
    Refused(&'static str),
    /// The timeouts are out of range.
    #[error(
        "connect_timeout_ms must be at least 1 and below total_timeout_ms, which is at most \
         {MAX_TOTAL_TIMEOUT_MS}"
    )]
    Timeouts,
    /// A limit, or a setting of the circuit, is out of range.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// The HTTP client could not be made.
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// What is wrong with a routing rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuleProblem {
    /// Not a tenant id.
    #[error("tenant is not a tenant id")]
    Tenant,
    /// Not a currency.
    #[error("currency must be an ISO 4217 code in upper case")]
    Currency,
    /// Limits without a currency, below 1, or in the wrong order.
    #[error(
        "min_amount and max_amount need a currency, and 1 <= min_amount <= max_amount must hold"
    )]
    Amounts,
    /// Not a kind of payment method.
    #[error("method is not a payment method type such as CARD")]
    Method,
    /// No account.
    #[error("accounts must name at least one account")]
    NoAccount,
    /// An account that is not configured.
    #[error("accounts names {0}, which is not configured")]
    UnknownAccount(String),
    /// An account twice.
    #[error("accounts names {0} twice")]
    AccountTwice(String),
    /// Live accounts beside test accounts: a payment would move real money or none, depending on which of them is away.
    #[error(
        "accounts names {live}, where real money moves (livemode), and {test}, where none does"
    )]
    MixedModes {
        /// The first live account.
        live: String,
        /// The first test account.
        test: String,
    },
}

/// Why the providers' configuration was refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// An account cannot be used.
    #[error("provider account {name:?}: {problem}")]
    Account {
        /// Its name as configured.
        name: String,
        /// What is wrong.
        #[source]
        problem: AccountProblem,
    },
    /// A rule cannot be used.
    #[error("routing rule {number}: {problem}")]
    Rule {
        /// Its number, from 1.
        number: usize,
        /// What is wrong.
        #[source]
        problem: RuleProblem,
    },
    /// More accounts than allowed.
    #[error("more than {MAX_ACCOUNTS} provider accounts")]
    TooManyAccounts,
    /// More rules than allowed.
    #[error("more than {MAX_RULES} routing rules")]
    TooManyRules,
}

/// The settings of all accounts, and those that the account's kind has of its own.
impl<'de> Deserialize<'de> for ProviderAccountConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut given: Map<String, Value> = Map::deserialize(deserializer)?;
        let kind = given.get("kind").cloned().unwrap_or_default();
        // One that is missing or unknown is refused with all others.
        let kind = serde_json::from_value::<ProviderKind>(kind).ok();
        let names = kind.map_or(&[][..], |kind| kind.adapter().settings);
        let mut own = BTreeMap::new();
        for name in names {
            if let Some(value) = given.remove(*name) {
                let Value::String(text) = value else {
                    return Err(D::Error::custom(format_args!("{name} must be a text")));
                };
                own.insert(*name, text);
            }
        }
        let common = Self::deserialize(Value::Object(given)).map_err(D::Error::custom)?;
        Ok(Self { own, ..common })
    }
}

impl ProviderAccountConfig {
    /// An account with every default.
    pub fn new(
        name: impl Into<String>,
        kind: ProviderKind,
        base_url: impl Into<String>,
        api_key: Secret,
    ) -> Self {
        Self {
            name: name.into(),
            kind,
            base_url: base_url.into(),
            api_key,
            webhook_secrets: Vec::new(),
            own: BTreeMap::new(),
            connect_timeout_ms: DEFAULT_CONNECT_TIMEOUT_MS,
            total_timeout_ms: DEFAULT_TOTAL_TIMEOUT_MS,
            livemode: false,
            allow_plaintext: false,
            max_concurrent_calls: DEFAULT_MAX_CONCURRENT_CALLS,
            max_concurrent_lookups: DEFAULT_MAX_CONCURRENT_LOOKUPS,
            circuit: CircuitConfig::default(),
        }
    }

    /// Its limits and its circuit, checked.
    pub fn guard_settings(&self) -> Result<GuardSettings, OutOfRange> {
        GuardSettings::new(
            self.max_concurrent_calls,
            self.max_concurrent_lookups,
            &self.circuit,
        )
    }

    /// Where and how the account is reached, checked.
    pub fn http_settings(&self) -> Result<HttpSettings, AccountProblem> {
        let in_range = (1..self.total_timeout_ms).contains(&self.connect_timeout_ms)
            && self.total_timeout_ms <= MAX_TOTAL_TIMEOUT_MS;
        if !in_range {
            return Err(AccountProblem::Timeouts);
        }
        let base_url = match self.base_url.as_str() {
            "" => self.kind.adapter().base_url,
            base_url => base_url,
        };
        Ok(HttpSettings {
            account: self.account()?,
            base_url: BaseUrl::parse(base_url, self.allow_plaintext)?,
            connect_timeout: Duration::from_millis(self.connect_timeout_ms),
            total_timeout: Duration::from_millis(self.total_timeout_ms),
        })
    }

    /// The account's name, checked.
    pub fn account(&self) -> Result<ProviderAccount, AccountProblem> {
        ProviderAccount::parse(self.name.as_str()).map_err(|_| AccountProblem::Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = r#"
        [[accounts]]
        name = "sandbox"
        kind = "sandbox"
        base_url = "https://sandbox.example"
        api_key = "sk_secret"
    "#;

    #[test]
    fn defaults_are_the_documented_ones_and_secrets_do_not_print() {
        let config: ProvidersConfig = toml::from_str(ACCOUNT).unwrap();
        let account = config.accounts.first().unwrap();
        let settings = account.http_settings().unwrap();
        assert_eq!(settings.connect_timeout, Duration::from_secs(2));
        assert_eq!(settings.total_timeout, Duration::from_secs(10));
        let same = ProviderAccountConfig::new(
            "sandbox",
            crate::sandbox::KIND,
            "https://sandbox.example",
            Secret::new("sk_secret"),
        );
        assert_eq!(*account, same);
        assert!(!account.livemode && !account.allow_plaintext);
        assert!(account.guard_settings().is_ok());
        assert!(!format!("{config:?}").contains("sk_secret"));
    }

    #[test]
    fn unknown_keys_are_refused() {
        for text in [
            format!("{ACCOUNT}\napi_kee = \"x\""),
            // Another kind has it.
            format!("{ACCOUNT}\nmerchant_account = \"x\""),
            ACCOUNT.replace("kind = \"sandbox\"", "kind = \"bank\""),
            ACCOUNT.replace(
                "kind = \"sandbox\"",
                "kind = \"adyen\"\nmerchant_account = 7",
            ),
            format!("{ACCOUNT}\ncircuit = {{ min_call = 3 }}"),
            "[[routing]]\naccounts = []\ncountry = \"DE\"".to_owned(),
            "extra = 1".to_owned(),
        ] {
            assert!(toml::from_str::<ProvidersConfig>(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_kind_has_settings_of_its_own() {
        let text = ACCOUNT.replace(
            "kind = \"sandbox\"",
            "kind = \"adyen\"\nmerchant_account = \"Shop\"",
        );
        let config: ProvidersConfig = toml::from_str(&text).unwrap();
        let account = config.accounts.first().unwrap();
        assert_eq!(account.kind, crate::adyen::KIND);
        assert_eq!(account.own.get("merchant_account").unwrap(), "Shop");
        let unknown =
            toml::from_str::<ProvidersConfig>(&ACCOUNT.replace("\"sandbox\"", "\"bank\""));
        let unknown = unknown.unwrap_err().to_string();
        assert!(
            unknown.contains("one of adyen, sandbox, stripe"),
            "{unknown}"
        );
    }

    #[test]
    fn limits_and_circuit_are_set_one_by_one() {
        let text = format!("{ACCOUNT}\nmax_concurrent_calls = 7\ncircuit = {{ min_calls = 3 }}");
        let config: ProvidersConfig = toml::from_str(&text).unwrap();
        let account = config.accounts.first().unwrap();
        assert_eq!(account.max_concurrent_calls, 7);
        assert_eq!(
            account.circuit,
            CircuitConfig {
                min_calls: 3,
                ..CircuitConfig::default()
            }
        );
    }

    #[test]
    fn timeouts_that_could_hide_a_connect_failure_are_refused() {
        let config: ProvidersConfig = toml::from_str(ACCOUNT).unwrap();
        let account = config.accounts.first().unwrap();
        for (connect, total) in [(0, 10), (10, 10), (11, 10), (10, MAX_TOTAL_TIMEOUT_MS + 1)] {
            let mut account = account.clone();
            account.connect_timeout_ms = connect;
            account.total_timeout_ms = total;
            assert!(
                matches!(account.http_settings(), Err(AccountProblem::Timeouts)),
                "{connect} {total}"
            );
        }
    }
}
