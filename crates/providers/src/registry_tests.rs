use super::*;
use crate::config::Secret;

fn account(name: &str) -> ProviderAccountConfig {
    let url = "http://127.0.0.1:9";
    ProviderAccountConfig {
        allow_plaintext: true,
        ..ProviderAccountConfig::new(name, crate::sandbox::KIND, url, Secret::new("key"))
    }
}

/// One where real money moves.
fn live(name: &str) -> ProviderAccountConfig {
    ProviderAccountConfig {
        kind: crate::stripe::KIND,
        livemode: true,
        ..account(name)
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
fn a_rule_of_live_and_test_accounts_is_refused_and_says_which_they_are() {
    let accounts = vec![account("one"), live("prod"), live("spare"), account("two")];
    let with = |routing| {
        let accounts = accounts.clone();
        Registry::from_config(&ProvidersConfig { accounts, routing }, |_| {})
    };
    for accounts in [["one", "prod"], ["prod", "one"]] {
        let error = with(vec![rule(&["one", "two"]), rule(&accounts)]).unwrap_err();
        let expected = "routing rule 2: accounts names prod, where real money moves (livemode), and one, where none does";
        assert_eq!(error.to_string(), expected);
    }
    let of_one_mode = with(vec![rule(&["one", "two"]), rule(&["spare", "prod"])]);
    of_one_mode.unwrap();
}

#[test]
fn without_a_matching_rule_the_first_account_that_serves_decides_whether_real_money_moves() {
    let theirs = RoutingRuleConfig {
        tenant: Some("bank".to_owned()),
        ..rule(&["mine"])
    };
    for (accounts, tenant, expected) in [
        (
            vec![live("prod"), account("one"), live("spare")],
            "shop",
            ["prod", "spare"],
        ),
        (
            vec![account("one"), live("prod"), account("two")],
            "shop",
            ["one", "two"],
        ),
        // What serves other tenants alone decides nothing.
        (
            vec![account("mine"), live("prod"), account("one"), live("spare")],
            "shop",
            ["prod", "spare"],
        ),
    ] {
        let has_theirs = accounts.iter().any(|account| account.name == "mine");
        let routing = has_theirs.then(|| theirs.clone()).into_iter().collect();
        let config = ProvidersConfig { accounts, routing };
        let registry = Registry::from_config(&config, |_| {}).unwrap();
        let accounts = routed(&registry, tenant, 1, "EUR", PaymentMethodType::Card);
        assert_eq!(accounts, expected);
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

#[test]
fn limits_and_circuits_out_of_range_are_refused_by_account() {
    let none_at_all = ProviderAccountConfig {
        max_concurrent_calls: 0,
        ..account("a")
    };
    let mut no_probes = account("a");
    no_probes.circuit.half_open_probes = 0;
    for (account, expected) in [
        (none_at_all, "max_concurrent_calls must be 1 to 100000"),
        (no_probes, "circuit.half_open_probes must be 1 to 1000"),
    ] {
        let config = ProvidersConfig {
            accounts: vec![account],
            routing: Vec::new(),
        };
        let error = Registry::from_config(&config, |_| {}).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("provider account \"a\": {expected}")
        );
    }
}
