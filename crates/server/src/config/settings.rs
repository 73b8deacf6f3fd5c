//! Settings before they are parsed: gathered from defaults, file and environment, unknown ones
//! refused, each with where it came from.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::{Table, Value};

use super::error::{ConfigError, Origin};
use super::secret::Secret;

/// Every setting with its default and its documentation.
pub const DEFAULTS: &str = include_str!("../../../../config.default.toml");
/// Prefix of the environment variables that are settings.
const PREFIX: &str = "QUITTANCE_";
/// Variables with the prefix that are options of commands rather than settings.
pub const COMMAND_VARIABLES: &[&str] = &[
    "QUITTANCE_CONFIG",
    "QUITTANCE_DATA_DIR",
    "QUITTANCE_API_KEY",
    "QUITTANCE_API_KEY_FILE",
    "QUITTANCE_ADDRESS",
    "QUITTANCE_CA_FILE",
];
/// Of so many letters of an unknown setting one may be wrong for a known one to be suggested.
const MISTYPED_ONE_IN: usize = 4;
/// The variable that wins over `database.url`.
const DATABASE_URL: &str = "DATABASE_URL";

/// Where settings come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file, if one is named.
    pub file: Option<PathBuf>,
    /// Environment variables; those without our prefix are ignored.
    pub environment: Vec<(String, String)>,
    /// What a command sets instead of the defaults; file and environment win over it.
    pub command: Vec<(&'static str, Value)>,
    /// What wins over everything (for servers started in-process).
    pub forced: Vec<(&'static str, Value)>,
}

impl Sources {
    /// This process's environment, and the file given.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        // A variable that is not Unicode cannot be one of ours.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let environment = std::env::vars_os().filter_map(text).collect();
        Self {
            file,
            environment,
            ..Self::default()
        }
    }
}

#[derive(Clone)]
struct Setting {
    value: Value,
    origin: Origin,
}

/// All settings by their dotted path. Has no `Debug`: values may be secret.
#[derive(Clone)]
pub struct Settings(BTreeMap<String, Setting>);

impl Settings {
    /// Gathers all sources.
    ///
    /// # Errors
    /// [`ConfigError`] for an unreadable file, a syntax error or an unknown setting.
    pub fn gather(sources: &Sources) -> Result<Self, ConfigError> {
        let mut settings = Self(BTreeMap::new());
        let defaults = parse_table(Path::new("config.default.toml"), DEFAULTS)?;
        flatten("", defaults, &mut |key, value| {
            settings.0.insert(
                key,
                Setting {
                    value,
                    origin: Origin::Default,
                },
            );
        });
        for (key, value) in &sources.command {
            settings.set((*key).to_owned(), value.clone(), Origin::Command)?;
        }
        if let Some(path) = &sources.file {
            let text = read("--config", path)?;
            let mut given = Vec::new();
            flatten("", parse_table(path, &text)?, &mut |key, value| {
                given.push((key, value));
            });
            for (key, value) in given {
                settings.set(key, value, Origin::File(path.clone()))?;
            }
        }
        for (name, value) in &sources.environment {
            settings.set_variable(name, value)?;
        }
        for (key, value) in &sources.forced {
            settings.set((*key).to_owned(), value.clone(), Origin::Command)?;
        }
        Ok(settings)
    }

    /// Every known key, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn set(&mut self, key: String, value: Value, origin: Origin) -> Result<(), ConfigError> {
        if let Some(setting) = self.0.get_mut(&key) {
            *setting = Setting { value, origin };
            return Ok(());
        }
        let nearest = self.nearest(&key);
        Err(ConfigError::UnknownKey {
            key,
            origin,
            nearest,
        })
    }

    fn set_variable(&mut self, name: &str, text: &str) -> Result<(), ConfigError> {
        if name == DATABASE_URL {
            // Set to nothing it says nothing.
            if text.is_empty() {
                return Ok(());
            }
            self.clear("database.url_file");
            let value = Value::String(text.to_owned());
            return self.set(
                "database.url".to_owned(),
                value,
                Origin::Variable(name.to_owned()),
            );
        }
        let Some(path) = name.strip_prefix(PREFIX) else {
            return Ok(());
        };
        if COMMAND_VARIABLES.contains(&name) {
            return Ok(());
        }
        let origin = Origin::Variable(name.to_owned());
        let key = path.to_ascii_lowercase().replace("__", ".");
        let Some(setting) = self.0.get(&key) else {
            let nearest = self.nearest(&key).map(|nearest| variable_name(&nearest));
            return Err(ConfigError::UnknownKey {
                key: name.to_owned(),
                origin,
                nearest,
            });
        };
        // DATABASE_URL may have come first.
        let wins = Origin::Variable(DATABASE_URL.to_owned());
        if key.starts_with("database.url") && self.origin("database.url") == wins {
            return Ok(());
        }
        let value = typed_like(&setting.value, text).map_err(|reason| ConfigError::Invalid {
            key: key.clone(),
            origin: origin.clone(),
            reason,
        })?;
        self.set(key, value, origin)
    }

    fn clear(&mut self, key: &str) {
        if let Some(setting) = self.0.get_mut(key) {
            *setting = Setting {
                value: Value::String(String::new()),
                origin: Origin::Default,
            };
        }
    }

    /// The setting that was probably meant: at most one letter in [`MISTYPED_ONE_IN`] is wrong.
    fn nearest(&self, wanted: &str) -> Option<String> {
        let known = self.0.keys().map(|known| (distance(known, wanted), known));
        let (edits, nearest) = known.min()?;
        (edits <= wanted.len() / MISTYPED_ONE_IN).then(|| nearest.clone())
    }

    /// Whether a setting was given at all: by file, environment or command.
    pub fn is_given(&self, key: &str) -> bool {
        self.origin(key) != Origin::Default
    }

    /// Whether a setting is `true`.
    pub fn is_true(&self, key: &str) -> bool {
        self.value(key)
            .is_ok_and(|value| value.as_bool() == Some(true))
    }

    /// Where a setting was given.
    pub(super) fn origin(&self, key: &str) -> Origin {
        self.0
            .get(key)
            .map_or(Origin::Default, |setting| setting.origin.clone())
    }

    /// An error about a setting.
    pub(super) fn invalid(&self, key: &str, reason: impl Display) -> ConfigError {
        ConfigError::Invalid {
            key: key.to_owned(),
            origin: self.origin(key),
            reason: reason.to_string(),
        }
    }

    fn value(&self, key: &str) -> Result<&Value, ConfigError> {
        match self.0.get(key) {
            Some(setting) => Ok(&setting.value),
            None => Err(self.invalid(key, "is missing from config.default.toml")),
        }
    }

    /// A text; `None` where it is empty.
    pub(super) fn text(&self, key: &str) -> Result<Option<String>, ConfigError> {
        match self.value(key)? {
            Value::String(text) if text.is_empty() => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            _ => Err(self.invalid(key, "must be a text")),
        }
    }

    /// A text that must be there, parsed.
    pub(super) fn parsed<T: FromStr>(&self, key: &str, expected: &str) -> Result<T, ConfigError> {
        let text = self.text(key)?.unwrap_or_default();
        text.parse()
            .map_err(|_| self.invalid(key, format_args!("must be {expected}")))
    }

    /// An IP address with a port.
    pub(crate) fn address(&self, key: &str) -> Result<SocketAddr, ConfigError> {
        self.parsed(
            key,
            "an IP address and a port, such as 127.0.0.1:7443 or [::1]:7443",
        )
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        choices: &[(&str, T)],
    ) -> Result<T, ConfigError> {
        let text = self.text(key)?.unwrap_or_default();
        let chosen = choices
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value);
        chosen.ok_or_else(|| {
            let words: Vec<_> = choices
                .iter()
                .map(|(word, _)| format!("{word:?}"))
                .collect();
            self.invalid(key, format_args!("must be one of {}", words.join(", ")))
        })
    }

    /// Yes or no.
    pub(super) fn flag(&self, key: &str) -> Result<bool, ConfigError> {
        let value = self.value(key)?.as_bool();
        value.ok_or_else(|| self.invalid(key, "must be true or false"))
    }

    /// A number in a range.
    pub(super) fn number<T: TryFrom<u64>>(
        &self,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Result<T, ConfigError> {
        let value = self
            .value(key)?
            .as_integer()
            .and_then(|number| u64::try_from(number).ok());
        let in_range = value.filter(|number| range.contains(number));
        in_range
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| {
                let (from, to) = (range.start(), range.end());
                self.invalid(
                    key,
                    format_args!("must be a whole number from {from} to {to}"),
                )
            })
    }

    /// A time in milliseconds.
    pub(super) fn millis(
        &self,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Duration, ConfigError> {
        self.number(key, range).map(Duration::from_millis)
    }

    /// A time in seconds.
    pub(super) fn seconds(
        &self,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Duration, ConfigError> {
        self.number(key, range).map(Duration::from_secs)
    }

    /// A secret, given itself or by the file that `<key>_file` names.
    pub(super) fn secret(&self, key: &str) -> Result<Option<Secret>, ConfigError> {
        let file_key = format!("{key}_file");
        match (self.text(key)?, self.text(&file_key)?) {
            (Some(_), Some(_)) => {
                Err(self.invalid(&file_key, format_args!("{key} is set too; set one of them")))
            }
            (Some(text), None) => Ok(Some(Secret::new(text))),
            (None, Some(path)) => {
                let text = read(&file_key, Path::new(&path))?;
                Ok(Some(Secret::new(text.trim())))
            }
            (None, None) => Ok(None),
        }
    }

    /// A list.
    pub(super) fn list(&self, key: &str) -> Result<&[Value], ConfigError> {
        let list = self.value(key)?.as_array().map(Vec::as_slice);
        list.ok_or_else(|| self.invalid(key, "must be a list"))
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, ConfigError> {
        let texts = self
            .list(key)?
            .iter()
            .map(|value| value.as_str().map(str::to_owned));
        let texts: Option<Vec<_>> = texts.collect();
        texts.ok_or_else(|| self.invalid(key, "must be a list of texts"))
    }
}

/// Reads a file that a setting or option names.
pub(super) fn read(key: &str, path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        key: key.to_owned(),
        path: path.to_owned(),
        source,
    })
}

/// The environment variable of a setting.
pub fn variable_name(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

fn parse_table(path: &Path, text: &str) -> Result<Table, ConfigError> {
    text.parse::<Table>().map_err(|error| {
        let before = error
            .span()
            .and_then(|span| text.get(..span.start))
            .unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ConfigError::Syntax {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            // Without its snippet of the file.
            message: error.message().to_owned(),
        }
    })
}

fn flatten(prefix: &str, table: Table, give: &mut impl FnMut(String, Value)) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}.{name}")
        };
        match value {
            Value::Table(inner) => flatten(&key, inner, give),
            value => give(key, value),
        }
    }
}

/// Reads the text of a variable as the type that the setting's default has.
fn typed_like(default: &Value, text: &str) -> Result<Value, String> {
    match default {
        Value::Integer(_) => text
            .trim()
            .parse()
            .map(Value::Integer)
            .map_err(|_| "must be a whole number".to_owned()),
        Value::Boolean(_) => text
            .trim()
            .parse()
            .map(Value::Boolean)
            .map_err(|_| "must be true or false".to_owned()),
        Value::Array(_) if text.trim_start().starts_with('[') => format!("list = {text}")
            .parse::<Table>()
            .ok()
            .and_then(|mut table| table.remove("list"))
            .ok_or_else(|| "is not a TOML list".to_owned()),
        Value::Array(_) => {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            Ok(Value::Array(
                items.map(|item| Value::String(item.to_owned())).collect(),
            ))
        }
        Value::String(_) | Value::Float(_) | Value::Datetime(_) | Value::Table(_) => {
            Ok(Value::String(text.to_owned()))
        }
    }
}

/// Levenshtein distance, to name the setting that was probably meant.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let substituted = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = substituted.min(*cell + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
        assert_eq!(distance("abc", ""), 3);
    }
}
