//! Finds the server binaries that are installed on this machine.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fmt, fs};

use crate::Error;
use crate::identity::Identity;

/// The oldest major version of PostgreSQL that the service supports.
pub const MINIMUM_MAJOR: u32 = 15;

/// Where packages put the binaries outside PATH: `(parent, prefix of the entry, rest)`. Of several
/// entries the one with the highest number comes first.
const PLACES: [(&str, &str, &str); 9] = [
    ("/usr/lib/postgresql", "", "bin"),          // Debian, Ubuntu
    ("/usr", "pgsql-", "bin"),                   // postgresql.org's RPMs
    ("/usr/lib", "postgresql", "bin"),           // openSUSE
    ("/usr/libexec", "postgresql", ""),          // Alpine
    ("/opt/homebrew/opt", "postgresql@", "bin"), // Homebrew, Apple silicon
    ("/usr/local/opt", "postgresql@", "bin"),    // Homebrew, Intel
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"), // Homebrew, Linux
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ("/usr/local", "pgsql", "bin"), // built from source
];

/// A version of the PostgreSQL server, such as 15.6. Pre-releases count as minor version 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// For example 15; data directories are compatible within one major version.
    pub major: u32,
    /// For example 6.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Version {
    /// From `postgres --version`: `postgres (PostgreSQL) 15.6 (Debian 15.6-0+deb12u1)`.
    fn parse(output: &str) -> Option<Self> {
        let number = output
            .split_once("(PostgreSQL)")?
            .1
            .split_whitespace()
            .next()?;
        let digits = |text: &str| -> Option<u32> {
            let end = text
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(text.len());
            text.get(..end)?.parse().ok()
        };
        let minor = number
            .split_once('.')
            .and_then(|(_, minor)| digits(minor))
            .unwrap_or(0);
        Some(Self {
            major: digits(number)?,
            minor,
        })
    }
}

/// Server binaries that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installation {
    pub(crate) bin_dir: PathBuf,
    pub(crate) version: Version,
}

/// Finds the binaries: on PATH, where `pg_config` points, then in [`PLACES`]; the first that is new
/// enough, or, if `data` names a directory with data of some major version, the first of that one.
pub(crate) fn find(identity: &Identity, data: Option<(&Path, u32)>) -> Result<Installation, Error> {
    let mut looked_at = Vec::new();
    let mut usable = Vec::new();
    let mut too_old: Option<Installation> = None;
    for bin_dir in candidates(&mut looked_at) {
        let version = match identity.output(&bin_dir.join("postgres"), "--version") {
            Ok(output) => Version::parse(&output),
            Err(error) => {
                looked_at.push(format!("{} ({error})", bin_dir.display()));
                continue;
            }
        };
        let Some(version) = version else {
            looked_at.push(format!("{} (unknown version)", bin_dir.display()));
            continue;
        };
        let found = Installation { bin_dir, version };
        if version.major < MINIMUM_MAJOR {
            if too_old.as_ref().is_none_or(|other| other.version < version) {
                too_old = Some(found);
            }
        } else if data.is_none_or(|(_, major)| major == version.major) {
            return Ok(found);
        } else {
            usable.push(version);
        }
    }
    match (data, too_old) {
        (Some((directory, data_major)), _) if !usable.is_empty() => Err(Error::DataVersion {
            directory: directory.to_owned(),
            data_major,
            installed: usable,
        }),
        (_, Some(old)) => Err(Error::VersionTooOld {
            found: old.version,
            bin_dir: old.bin_dir,
        }),
        _ => Err(Error::BinariesMissing { looked_at }),
    }
}

/// Directories that hold both programs, best first; the others are noted in `looked_at`.
fn candidates(looked_at: &mut Vec<String>) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = Vec::new();
    let mut consider = |directory: PathBuf| {
        let complete = ["postgres", "initdb"]
            .iter()
            .all(|name| directory.join(name).is_file());
        if complete && !directories.contains(&directory) {
            directories.push(directory);
        }
    };
    looked_at.push("PATH".to_owned());
    for directory in env::split_paths(&env::var_os("PATH").unwrap_or_default()) {
        if directory.is_absolute() {
            consider(directory);
        }
    }
    looked_at.push("pg_config --bindir".to_owned());
    let pg_config = Command::new("pg_config")
        .arg("--bindir")
        .stdin(Stdio::null())
        .output();
    if let Ok(output) = pg_config
        && output.status.success()
    {
        consider(PathBuf::from(
            String::from_utf8_lossy(&output.stdout).trim(),
        ));
    }
    for (parent, prefix, rest) in PLACES {
        looked_at.push(format!("{parent}/{prefix}*/{rest}"));
        for entry in newest_first(Path::new(parent), prefix) {
            consider(entry.join(rest));
        }
    }
    directories
}

/// The entries of `parent` whose name is `prefix` and a number (or nothing), highest number first.
fn newest_first(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = number_after(&entry.file_name(), prefix)?;
            Some((number, entry.path()))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// 9.6 counts as 9: it is too old anyway.
fn number_after(name: &OsStr, prefix: &str) -> Option<u32> {
    let rest = name.to_str()?.strip_prefix(prefix)?;
    let major = rest.split('.').next().unwrap_or(rest);
    if major.is_empty() {
        Some(0)
    } else {
        major.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_versions_that_packages_print() {
        let parse = |text| Version::parse(text).map(|v| (v.major, v.minor));
        assert_eq!(
            parse("postgres (PostgreSQL) 15.6 (Debian 15.6-0+deb12u1)\n"),
            Some((15, 6))
        );
        assert_eq!(parse("postgres (PostgreSQL) 17.2"), Some((17, 2)));
        assert_eq!(parse("postgres (PostgreSQL) 18beta1"), Some((18, 0)));
        assert_eq!(parse("postgres (PostgreSQL) 9.6.24"), Some((9, 6)));
        assert_eq!(parse("postgres (PostgreSQL) devel"), None);
        assert_eq!(parse("something else"), None);
    }

    #[test]
    fn looks_at_the_newest_package_first() {
        let parent = tempfile::tempdir().unwrap();
        for name in [
            "postgresql@9.6",
            "postgresql@15",
            "postgresql@17",
            "postgresql",
            "other",
        ] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        let names: Vec<_> = newest_first(parent.path(), "postgresql@")
            .iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["postgresql@17", "postgresql@15", "postgresql@9.6"]);
        assert!(newest_first(Path::new("/does/not/exist"), "").is_empty());
    }
}
