//! The configured accounts, and the rules that choose among them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use quittance_domain::ids::{ProviderAccount, TenantId};
use quittance_domain::money::{Currency, Money};
use quittance_domain::payment::PaymentMethodType;
use quittance_domain::ports::{Circuit, Provider, Providers};

use crate::config::{
    AccountProblem, ConfigError, MAX_ACCOUNTS, MAX_RULES, ProviderAccountConfig, ProvidersConfig,
    RoutingRuleConfig, RuleProblem,
};
use crate::guard::{Guarded, Monotonic, monotonic};
use crate::http::TraceHeaders;

/// Every configured account, and the routing rules.
pub struct Registry {
    accounts: HashMap<ProviderAccount, Arc<Guarded>>,
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
        let clock = monotonic();
        let accounts = config.accounts.iter().map(|account| {
            build(account, trace, &clock).map_err(|problem| ConfigError::Account {
                name: account.name.clone(),
                problem,
            })
        });
        Self::new(accounts.collect::<Result<_, _>>()?, &config.routing)
    }

    /// A registry of accounts that are built already, in order of preference.
    pub fn new(accounts: Vec<Guarded>, routing: &[RoutingRuleConfig]) -> Result<Self, ConfigError> {
        if accounts.len() > MAX_ACCOUNTS {
            return Err(ConfigError::TooManyAccounts);
        }
        if routing.len() > MAX_RULES {
            return Err(ConfigError::TooManyRules);
        }
        let everything: Vec<_> = accounts.iter().map(|it| it.account().clone()).collect();
        if let Some(name) = first_repeated(&everything) {
            let problem = AccountProblem::NameTaken;
            return Err(ConfigError::Account {
                name: name.to_string(),
                problem,
            });
        }
        let rules = (1..).zip(routing).map(|(number, rule)| {
            Rule::parse(rule, &accounts).map_err(|problem| ConfigError::Rule { number, problem })
        });
        let rules = rules.collect::<Result<_, _>>()?;
        Ok(Self {
            accounts: everything
                .iter()
                .cloned()
                .zip(accounts.into_iter().map(Arc::new))
                .collect(),
            rules,
            everything,
        })
    }

    /// The circuit of every account, in the order of the configuration.
    pub fn circuits(&self) -> Vec<(ProviderAccount, Circuit)> {
        let accounts = self.everything.iter();
        let circuit = |name| {
            Some((
                ProviderAccount::clone(name),
                self.accounts.get(name)?.circuit(),
            ))
        };
        accounts.filter_map(circuit).collect()
    }

    /// The accounts that a new payment may be served by, in the order of the configuration: all of them live, or none.
    fn preferred(
        &self,
        tenant: &TenantId,
        amount: Money,
        method: PaymentMethodType,
    ) -> Vec<ProviderAccount> {
        let mut rules = self.rules.iter();
        if let Some(rule) = rules.find(|rule| rule.matches(tenant, amount, method)) {
            return rule.accounts.clone();
        }
        let serve = |name: &&ProviderAccount| self.serves(tenant, name);
        let mut open = self.everything.iter().filter(serve).peekable();
        let mode = open.peek().and_then(|name| self.livemode(name));
        let same_mode = open.filter(|name| self.livemode(name) == mode);
        same_mode.cloned().collect()
    }

    fn livemode(&self, name: &ProviderAccount) -> Option<bool> {
        self.accounts.get(name).map(|account| account.livemode())
    }
}

impl Providers for Registry {
    fn account(&self, name: &ProviderAccount) -> Option<Arc<dyn Provider>> {
        let account = self.accounts.get(name)?;
        Some(Arc::<Guarded>::clone(account))
    }

    fn names(&self) -> Vec<ProviderAccount> {
        self.everything.clone()
    }

    fn route(
        &self,
        tenant: &TenantId,
        amount: Money,
        method: PaymentMethodType,
    ) -> Vec<ProviderAccount> {
        let preferred = self.preferred(tenant, amount, method).into_iter();
        let admits = |name: &ProviderAccount| self.accounts.get(name).is_some_and(|it| it.admits());
        // Last, not left out: if all are refused, the first of them is who the payment waits for.
        let (mut ready, refusing): (Vec<_>, Vec<_>) = preferred.partition(admits);
        ready.extend(refusing);
        ready
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
    fn parse(config: &RoutingRuleConfig, known: &[Guarded]) -> Result<Self, RuleProblem> {
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
    known: &[Guarded],
) -> Result<Vec<ProviderAccount>, RuleProblem> {
    if names.is_empty() {
        return Err(RuleProblem::NoAccount);
    }
    let chosen = names.iter().map(|name| {
        let mut known = known.iter();
        let account = known.find(|known| known.account().as_str() == name);
        account.ok_or_else(|| RuleProblem::UnknownAccount(name.clone()))
    });
    let chosen = chosen.collect::<Result<Vec<_>, _>>()?;
    let first_of = |livemode| {
        let mut chosen = chosen.iter();
        let found = chosen.find(|account| account.livemode() == livemode);
        found.map(|account| account.account().to_string())
    };
    if let (Some(live), Some(test)) = (first_of(true), first_of(false)) {
        return Err(RuleProblem::MixedModes { live, test });
    }
    let accounts: Vec<_> = chosen.iter().map(|it| it.account().clone()).collect();
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
    clock: &Monotonic,
) -> Result<Guarded, AccountProblem> {
    let provider = (config.kind.adapter().build)(config, trace)?;
    let (account, settings) = (config.account()?, config.guard_settings()?);
    Ok(Guarded::new(account, provider, settings, Arc::clone(clock)))
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
