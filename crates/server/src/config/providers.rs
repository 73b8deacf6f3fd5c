//! Section `[providers]`: accounts and routing rules, whose shapes the provider adapters define.

use quittance_providers::config::ProvidersConfig;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::error::ConfigError;
use super::settings::{Settings, read};

const ACCOUNTS: &str = "providers.accounts";
const ROUTING: &str = "providers.routing";

/// Parses the section. What its values mean is checked when the accounts are built, at start.
pub(super) fn parse(settings: &Settings) -> Result<ProvidersConfig, ConfigError> {
    let accounts = tables(settings, ACCOUNTS)?.into_iter().enumerate();
    let accounts = accounts.map(|(index, table)| {
        let table = with_secret_read(settings, index, table)?;
        let table = with_webhook_secrets_read(settings, index, table)?;
        shaped(settings, ACCOUNTS, index, table)
    });
    let accounts = accounts.collect::<Result<Vec<_>, _>>()?;
    if accounts.is_empty() {
        return Err(settings.invalid(ACCOUNTS, "at least one account is needed"));
    }
    let rules = tables(settings, ROUTING)?.into_iter().enumerate();
    let routing = rules.map(|(index, table)| shaped(settings, ROUTING, index, table));
    Ok(ProvidersConfig {
        accounts,
        routing: routing.collect::<Result<_, _>>()?,
    })
}

fn tables(settings: &Settings, key: &str) -> Result<Vec<Table>, ConfigError> {
    let tables: Option<Vec<Table>> = settings
        .list(key)?
        .iter()
        .map(|value| value.as_table().cloned())
        .collect();
    tables.ok_or_else(|| settings.invalid(key, "must be a list of tables"))
}

fn shaped<T: DeserializeOwned>(
    settings: &Settings,
    key: &str,
    index: usize,
    table: Table,
) -> Result<T, ConfigError> {
    Value::Table(table)
        .try_into()
        .map_err(|error: toml::de::Error| {
            let wrong = without_fields(error.message());
            settings.invalid(key, format_args!("entry {}: {wrong}", index + 1))
        })
}

/// What is wrong, without the list of fields that there are: those that are read from files (`api_key_file`) are not in it, and
/// would be taken for ones that may not be given.
fn without_fields(message: &str) -> String {
    match message.split_once(", expected one of") {
        Some((unknown, _)) if unknown.starts_with("unknown field") => {
            format!("{unknown}; docs/configuration.md says which there are")
        }
        _ => message.to_owned(),
    }
}

/// Replaces `api_key_file` by `api_key`.
fn with_secret_read(
    settings: &Settings,
    index: usize,
    mut table: Table,
) -> Result<Table, ConfigError> {
    let Some(path) = table.remove("api_key_file") else {
        return Ok(table);
    };
    let invalid = |reason: &str| {
        settings.invalid(
            ACCOUNTS,
            format_args!("entry {}: api_key_file {reason}", index + 1),
        )
    };
    let Value::String(path) = path else {
        return Err(invalid("must be a text"));
    };
    if table.contains_key("api_key") {
        return Err(invalid("and api_key are both set; set one of them"));
    }
    let secret = read(ACCOUNTS, path.as_ref())?.trim().to_owned();
    table.insert("api_key".to_owned(), Value::String(secret));
    Ok(table)
}

/// Replaces `webhook_secrets_file`, which holds one a line, by `webhook_secrets`.
fn with_webhook_secrets_read(
    settings: &Settings,
    index: usize,
    mut table: Table,
) -> Result<Table, ConfigError> {
    let Some(path) = table.remove("webhook_secrets_file") else {
        return Ok(table);
    };
    let invalid = |reason: &str| {
        settings.invalid(
            ACCOUNTS,
            format_args!("entry {}: webhook_secrets_file {reason}", index + 1),
        )
    };
    let Value::String(path) = path else {
        return Err(invalid("must be a text"));
    };
    if table.contains_key("webhook_secrets") {
        return Err(invalid("and webhook_secrets are both set; set one of them"));
    }
    let text = read(ACCOUNTS, path.as_ref())?;
    let secrets = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| Value::String(line.to_owned()));
    let secrets = Value::Array(secrets.collect());
    table.insert("webhook_secrets".to_owned(), secrets);
    Ok(table)
}
