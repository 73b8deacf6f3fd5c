//! The configured accounts, and the rules that choose among them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use quittance_domain::ids::{ProviderAccount, TenantId};
use quittance_domain::money::{Currency, Money};
use quittance_domain::payment::PaymentMethodType;
use quittance_domain::ports::{Provider, Providers};

use crate::config::{
    AccountProblem, ConfigError, MAX_ACCOUNTS, MAX_RULES, ProviderAccountConfig, ProviderKind,
    ProvidersConfig, RoutingRuleConfig, RuleProblem,
};
use crate::http::TraceHeaders;
use crate::sandbox::Sandbox;

/// Every configured account, and the routing rules.
pub struct Registry {
    accounts: HashMap<ProviderAccount, Arc<dyn Provider>>,
    rules: Vec<Rule>,
    /// Every account in the order of the configuration: the answer where no rule matches.
    everything: Vec<ProviderAccount>,
}

/// Hand-written: adapters hold credentials.
impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("accounts", &self.everything)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Rule {
    tenant: Option<TenantId>,
    currency: Option<Currency>,
    min_amount: i64,
    max_amount: i64,
    method: Option<PaymentMethodType>,
    accounts: Vec<ProviderAccount>,
}

impl Registry {
    /// Builds every configured account. `trace` adds the trace context to each request.
    pub fn from_config(config: &ProvidersConfig, trace: TraceHeaders) -> Result<Self, ConfigError> {
        // Before anything is built: each account reads the platform's root certificates.
        if config.accounts.len() > MAX_ACCOUNTS {
            return Err(ConfigError::TooManyAccounts);
        }
        let accounts = config.accounts.iter().map(|account| {
            build(account, trace).map_err(|problem| ConfigError::Account {
                name: account.name.clone(),
                problem,
            })
        });
        Self::new(accounts.collect::<Result<_, _>>()?, &config.routing)
    }

    /// A registry of accounts that are built already, in order of preference.
    pub fn new(
        accounts: Vec<(ProviderAccount, Arc<dyn Provider>)>,
        routing: &[RoutingRuleConfig],
    ) -> Result<Self, ConfigError> {
        if accounts.len() > MAX_ACCOUNTS {
            return Err(ConfigError::TooManyAccounts);
        }
        if routing.len() > MAX_RULES {
            return Err(ConfigError::TooManyRules);
        }
        let everything: Vec<_> = accounts.iter().map(|(name, _)| name.clone()).collect();
        if let Some(name) = first_repeated(&everything) {
            let problem = AccountProblem::NameTaken;
            return Err(ConfigError::Account {
                name: name.to_string(),
                problem,
            });
        }
        let rules = (1..).zip(routing).map(|(number, rule)| {
            Rule::parse(rule, &everything).map_err(|problem| ConfigError::Rule { number, problem })
        });
        let rules = rules.collect::<Result<_, _>>()?;
        Ok(Self {
            accounts: accounts.into_iter().collect(),
            rules,
            everything,
        })
    }
}

impl Providers for Registry {
    fn account(&self, name: &ProviderAccount) -> Option<Arc<dyn Provider>> {
        self.accounts.get(name).map(Arc::clone)
    }

    fn route(
        &self,
        tenant: &TenantId,
        amount: Money,
        method: PaymentMethodType,
    ) -> Vec<ProviderAccount> {
        let mut rules = self.rules.iter();
        if let Some(rule) = rules.find(|rule| rule.matches(tenant, amount, method)) {
            return rule.accounts.clone();
        }
        let open = self
            .everything
            .iter()
            .filter(|name| self.serves(tenant, name));
        open.cloned().collect()
    }

    /// An account that only rules of certain tenants name is theirs alone.
    fn serves(&self, tenant: &TenantId, name: &ProviderAccount) -> bool {
        let mut naming = self
            .rules
            .iter()
            .filter(|rule| rule.accounts.contains(name))
            .peekable();
        let unnamed = naming.peek().is_none();
        let open = naming.any(|rule| rule.tenant.as_ref().is_none_or(|bound| bound == tenant));
        self.accounts.contains_key(name) && (unnamed || open)
    }
}

impl Rule {
    fn parse(config: &RoutingRuleConfig, known: &[ProviderAccount]) -> Result<Self, RuleProblem> {
        let tenant = config.tenant.as_deref().map(TenantId::parse).transpose();
        let currency = config.currency.as_deref().map(Currency::parse).transpose();
        let currency = currency.map_err(|_| RuleProblem::Currency)?;
        let method = match config.method.as_deref() {
            Some(name) => Some(PaymentMethodType::from_name(name).ok_or(RuleProblem::Method)?),
            None => None,
        };
        let (min_amount, max_amount) = (
            config.min_amount.unwrap_or(1),
            config.max_amount.unwrap_or(i64::MAX),
        );
        let limited = config.min_amount.is_some() || config.max_amount.is_some();
        if (limited && currency.is_none()) || min_amount < 1 || max_amount < min_amount {
            return Err(RuleProblem::Amounts);
        }
        Ok(Self {
            tenant: tenant.map_err(|_| RuleProblem::Tenant)?,
            currency,
            min_amount,
            max_amount,
            method,
            accounts: named_accounts(&config.accounts, known)?,
        })
    }

    fn matches(&self, tenant: &TenantId, amount: Money, method: PaymentMethodType) -> bool {
        self.tenant.as_ref().is_none_or(|only| only == tenant)
            && self.currency.is_none_or(|only| only == amount.currency())
            && (self.min_amount..=self.max_amount).contains(&amount.minor_units())
            && self.method.is_none_or(|only| only == method)
    }
}

fn named_accounts(
    names: &[String],
    known: &[ProviderAccount],
) -> Result<Vec<ProviderAccount>, RuleProblem> {
    if names.is_empty() {
        return Err(RuleProblem::NoAccount);
    }
    let accounts = names.iter().map(|name| {
        let account = known.iter().find(|account| account.as_str() == name);
        account
            .cloned()
            .ok_or_else(|| RuleProblem::UnknownAccount(name.clone()))
    });
    let accounts = accounts.collect::<Result<Vec<_>, _>>()?;
    match first_repeated(&accounts) {
        Some(account) => Err(RuleProblem::AccountTwice(account.to_string())),
        None => Ok(accounts),
    }
}

fn first_repeated(accounts: &[ProviderAccount]) -> Option<&ProviderAccount> {
    let mut seen = std::collections::HashSet::new();
    accounts.iter().find(|account| !seen.insert(*account))
}

fn build(
    config: &ProviderAccountConfig,
    trace: TraceHeaders,
) -> Result<(ProviderAccount, Arc<dyn Provider>), AccountProblem> {
    let provider: Arc<dyn Provider> = match config.kind {
        ProviderKind::Sandbox => Arc::new(Sandbox::new(config, trace)?),
    };
    Ok((config.account()?, provider))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn account(name: &str) -> ProviderAccountConfig {
        ProviderAccountConfig {
            name: name.to_owned(),
            kind: ProviderKind::Sandbox,
            base_url: "http://127.0.0.1:9".to_owned(),
            api_key: Secret::new("key"),
            connect_timeout_ms: 2_000,
            total_timeout_ms: 10_000,
            livemode: false,
            allow_plaintext: true,
        }
    }

    fn rule(accounts: &[&str]) -> RoutingRuleConfig {
        let accounts = accounts.iter().map(|name| (*name).to_owned()).collect();
        RoutingRuleConfig {
            accounts,
            ..RoutingRuleConfig::default()
        }
    }

    fn registry(routing: Vec<RoutingRuleConfig>) -> Result<Registry, ConfigError> {
        let accounts = vec![account("one"), account("two"), account("three")];
        Registry::from_config(&ProvidersConfig { accounts, routing }, |_| {})
    }

    fn routed(
        registry: &Registry,
        tenant: &str,
        minor_units: i64,
        currency: &str,
        method: PaymentMethodType,
    ) -> Vec<String> {
        let money = Money::new(minor_units, Currency::parse(currency).unwrap()).unwrap();
        let accounts = registry.route(&TenantId::parse(tenant).unwrap(), money, method);
        accounts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_account_that_only_rules_of_some_tenants_name_is_theirs_alone() {
        let theirs = RoutingRuleConfig {
            tenant: Some("bank".to_owned()),
            ..rule(&["two"])
        };
        let registry = registry(vec![theirs]).unwrap();
        let two = ProviderAccount::parse("two").unwrap();
        assert!(registry.serves(&TenantId::parse("bank").unwrap(), &two));
        assert!(!registry.serves(&TenantId::parse("shop").unwrap(), &two));
        let accounts = routed(&registry, "shop", 1, "EUR", PaymentMethodType::Card);
        assert_eq!(accounts, ["one", "three"]);
    }

    #[test]
    fn without_a_matching_rule_every_account_serves_in_order() {
        let registry = registry(Vec::new()).unwrap();
        let accounts = routed(&registry, "shop", 1, "EUR", PaymentMethodType::Card);
        assert_eq!(accounts, ["one", "two", "three"]);
        assert!(
            registry
                .account(&ProviderAccount::parse("two").unwrap())
                .is_some()
        );
        assert!(
            registry
                .account(&ProviderAccount::parse("four").unwrap())
                .is_none()
        );
    }

    #[test]
    fn the_first_rule_of_which_every_condition_holds_decides() {
        let text = |text: &str| Some(text.to_owned());
        let registry = registry(vec![
            RoutingRuleConfig {
                tenant: text("vip"),
                ..rule(&["three", "one"])
            },
            RoutingRuleConfig {
                currency: text("EUR"),
                min_amount: Some(100),
                max_amount: Some(200),
                ..rule(&["two"])
            },
            RoutingRuleConfig {
                method: text("WALLET"),
                ..rule(&["three"])
            },
            RoutingRuleConfig {
                currency: text("EUR"),
                ..rule(&["one"])
            },
        ])
        .unwrap();
        let card = PaymentMethodType::Card;
        assert_eq!(routed(&registry, "vip", 150, "EUR", card), ["three", "one"]);
        assert_eq!(routed(&registry, "shop", 100, "EUR", card), ["two"]);
        assert_eq!(routed(&registry, "shop", 200, "EUR", card), ["two"]);
        assert_eq!(routed(&registry, "shop", 99, "EUR", card), ["one"]);
        assert_eq!(routed(&registry, "shop", 201, "EUR", card), ["one"]);
        assert_eq!(
            routed(&registry, "shop", 150, "USD", PaymentMethodType::Wallet),
            ["three"]
        );
        assert_eq!(
            routed(&registry, "shop", 150, "USD", card),
            ["one", "two", "three"]
        );
    }

    #[test]
    fn rules_that_cannot_be_meant_are_refused_by_number() {
        let text = |text: &str| Some(text.to_owned());
        for (bad, problem) in [
            (rule(&[]), RuleProblem::NoAccount),
            (
                rule(&["four"]),
                RuleProblem::UnknownAccount("four".to_owned()),
            ),
            (
                rule(&["one", "one"]),
                RuleProblem::AccountTwice("one".to_owned()),
            ),
            (
                RoutingRuleConfig {
                    tenant: text(""),
                    ..rule(&["one"])
                },
                RuleProblem::Tenant,
            ),
            (
                RoutingRuleConfig {
                    currency: text("eur"),
                    ..rule(&["one"])
                },
                RuleProblem::Currency,
            ),
            (
                RoutingRuleConfig {
                    method: text("card"),
                    ..rule(&["one"])
                },
                RuleProblem::Method,
            ),
            (
                RoutingRuleConfig {
                    min_amount: Some(5),
                    ..rule(&["one"])
                },
                RuleProblem::Amounts,
            ),
            (
                RoutingRuleConfig {
                    currency: text("EUR"),
                    min_amount: Some(5),
                    max_amount: Some(4),
                    ..rule(&["one"])
                },
                RuleProblem::Amounts,
            ),
        ] {
            match registry(vec![rule(&["one"]), bad]) {
                Err(ConfigError::Rule {
                    number: 2,
                    problem: found,
                }) => assert_eq!(found, problem),
                other => panic!("{problem:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn bad_accounts_are_refused_by_name_without_showing_their_key() {
        let named = |name: &str| account(name);
        for (accounts, expected) in [
            (
                vec![named("one"), named("one")],
                "provider account \"one\": name is used twice",
            ),
            (
                vec![ProviderAccountConfig {
                    api_key: Secret::new(""),
                    ..named("a")
                }],
                "provider account \"a\": api_key must be printable ASCII and not empty",
            ),
            (
                vec![ProviderAccountConfig {
                    api_key: Secret::new("sk\n1"),
                    ..named("a")
                }],
                "provider account \"a\": api_key must be printable ASCII and not empty",
            ),
            (
                vec![ProviderAccountConfig {
                    livemode: true,
                    ..named("a")
                }],
                "provider account \"a\": livemode must be false for the sandbox",
            ),
            (
                vec![ProviderAccountConfig {
                    allow_plaintext: false,
                    ..named("a")
                }],
                "provider account \"a\": base_url: plain http needs allow_plaintext = true",
            ),
            (
                vec![named("a b")],
                "provider account \"a b\": name must be 1 to 64 printable ASCII characters \
                 without spaces",
            ),
        ] {
            let config = ProvidersConfig {
                accounts,
                routing: Vec::new(),
            };
            let error = Registry::from_config(&config, |_| {}).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
