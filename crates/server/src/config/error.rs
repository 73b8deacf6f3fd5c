//! What can be wrong with the configuration. No message repeats a value that may be secret.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// Where a setting was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: the built-in default.
    Default,
    /// By the command that runs, such as `quittance dev`.
    Command,
    /// In this file.
    File(PathBuf),
    /// In this environment variable.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("not set"),
            Self::Command => f.write_str("set by the command"),
            Self::File(path) => write!(f, "set in {}", path.display()),
            Self::Variable(name) => write!(f, "set by {name}"),
        }
    }
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"))
}

/// Why the configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("{key}: cannot read {}: {source}", path.display())]
    Unreadable {
        /// The setting or option that names the file.
        key: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not TOML. The offending line is not shown: it may hold a secret.
    #[error("{} line {line}, column {column}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What was expected.
        message: String,
    },
    /// There is no such setting.
    #[error("unknown setting {key} ({origin}){}", meant(nearest.as_deref()))]
    UnknownKey {
        /// What was given.
        key: String,
        /// Where.
        origin: Origin,
        /// The known setting whose name is like it, if there is one.
        nearest: Option<String>,
    },
    /// A setting has a value that it cannot have.
    #[error("{key} ({origin}): {reason}")]
    Invalid {
        /// The setting.
        key: String,
        /// Where it was given.
        origin: Origin,
        /// What is wrong, and what is expected.
        reason: String,
    },
}
