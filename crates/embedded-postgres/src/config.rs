//! The server's configuration file, written anew at each start.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::Error;

const GIB: u64 = 1 << 30;
/// Below this much free shared memory, PostgreSQL's is put into files (containers often have 64 MB,
/// and parallel queries then fail).
const MIN_SHARED_MEMORY_BYTES: u64 = 256 << 20;

/// What the configuration depends on.
pub(crate) struct Surroundings<'a> {
    pub(crate) socket_dir: &'a Path,
    pub(crate) port: u16,
    pub(crate) tcp: bool,
    /// Bytes free on the disk of the data directory.
    pub(crate) free_bytes: u64,
    /// Bytes free in /dev/shm; `None` where there is none.
    pub(crate) shared_memory_bytes: Option<u64>,
}

/// The text of `postgresql.conf`: our defaults, overridden by `settings`.
pub(crate) fn render(
    surroundings: &Surroundings<'_>,
    settings: &[(String, String)],
) -> Result<String, Error> {
    let mut all = defaults(surroundings);
    for (name, value) in settings {
        all.insert(checked_name(name)?, value.clone());
    }
    let mut text = String::from("# Written at every start: edits are lost.\n");
    for (name, value) in &all {
        if value.contains(['\n', '\r', '\0']) {
            return Err(invalid(name, "a value is one line"));
        }
        let quoted = value.replace('\\', "\\\\").replace('\'', "''");
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name} = '{quoted}'");
    }
    Ok(text)
}

fn defaults(surroundings: &Surroundings<'_>) -> BTreeMap<String, String> {
    // A list, so the one path in it is quoted once more.
    let socket_dir = format!(
        "\"{}\"",
        surroundings
            .socket_dir
            .display()
            .to_string()
            .replace('"', "\"\"")
    );
    let (min_wal, max_wal) = wal_sizes(surroundings.free_bytes);
    let small_shm = cfg!(target_os = "linux")
        && surroundings
            .shared_memory_bytes
            .is_none_or(|free| free < MIN_SHARED_MEMORY_BYTES);
    let port = surroundings.port.to_string();
    [
        ("cluster_name", "quittance"),
        (
            "listen_addresses",
            if surroundings.tcp { "127.0.0.1" } else { "" },
        ),
        ("port", port.as_str()),
        ("unix_socket_directories", socket_dir.as_str()),
        ("unix_socket_permissions", "0700"),
        ("max_connections", "200"),
        ("shared_buffers", "128MB"),
        (
            "dynamic_shared_memory_type",
            if small_shm { "mmap" } else { "posix" },
        ),
        // What a caller was told to be stored must be stored.
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("wal_compression", "on"),
        // Making new WAL segments stalls commits; keeping old ones for reuse does not.
        ("min_wal_size", min_wal),
        ("max_wal_size", max_wal),
        // Compiling a plan takes longer than any query of ours.
        ("jit", "off"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("lc_messages", "C"),
        ("log_line_prefix", "%m [%p] %q%u@%d "),
        ("log_checkpoints", "off"),
        // Statements and DETAIL lines can show what customers sent.
        ("log_min_error_statement", "panic"),
        ("log_error_verbosity", "terse"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

/// (min, max): at most about a tenth of the free disk is kept for reuse.
fn wal_sizes(free_bytes: u64) -> (&'static str, &'static str) {
    if free_bytes >= 10 * GIB {
        ("1GB", "4GB")
    } else if free_bytes >= 3 * GIB {
        ("256MB", "1GB")
    } else {
        ("80MB", "256MB")
    }
}

/// The port that the settings ask for, if they do.
pub(crate) fn port(settings: &[(String, String)]) -> Result<Option<u16>, Error> {
    settings
        .iter()
        .rfind(|(name, _)| name.eq_ignore_ascii_case("port"))
        .map(|(name, value)| {
            let port = value.parse().ok().filter(|&port| port != 0);
            port.ok_or_else(|| invalid(name, "a port is a number from 1 to 65535"))
        })
        .transpose()
}

fn checked_name(name: &str) -> Result<String, Error> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if name.is_empty() || !name.chars().all(fine) {
        return Err(invalid(name, "a name is letters, digits, `_` and `.`"));
    }
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "unix_socket_directories"
        | "listen_addresses"
        | "data_directory"
        | "config_file"
        | "hba_file"
        | "logging_collector"
        | "external_pid_file" => Err(invalid(&name, "is chosen by the embedded server")),
        _ => Ok(name),
    }
}

fn invalid(name: &str, reason: &'static str) -> Error {
    Error::InvalidSetting {
        name: name.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(free_bytes: u64, settings: &[(&str, &str)]) -> Result<String, Error> {
        let settings: Vec<_> = settings
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        let surroundings = Surroundings {
            socket_dir: Path::new("/tmp/it's, \"here\""),
            port: 5432,
            tcp: false,
            free_bytes,
            shared_memory_bytes: Some(64 << 20),
        };
        render(&surroundings, &settings)
    }

    #[test]
    fn is_durable_and_overridable() {
        let text = rendered(100 * GIB, &[("Max_Connections", "7")]).unwrap();
        for line in [
            "fsync = 'on'",
            "synchronous_commit = 'on'",
            "full_page_writes = 'on'",
            "min_wal_size = '1GB'",
            "max_connections = '7'",
            "listen_addresses = ''",
            r#"unix_socket_directories = '"/tmp/it''s, ""here"""'"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
        }
        assert!(
            rendered(GIB, &[])
                .unwrap()
                .contains("min_wal_size = '80MB'")
        );
    }

    #[test]
    fn refuses_settings_that_would_escape_the_file_or_the_directory() {
        for (name, value) in [
            ("a b", "1"),
            ("", "1"),
            ("work_mem", "1\nfsync = off"),
            ("LISTEN_ADDRESSES", "*"),
            ("data_directory", "/"),
        ] {
            let refused = rendered(GIB, &[(name, value)]);
            assert!(
                matches!(refused, Err(Error::InvalidSetting { .. })),
                "{name}"
            );
        }
        assert!(port(&[("port".into(), "0".into())]).is_err());
        assert_eq!(port(&[("port".into(), "5433".into())]).unwrap(), Some(5433));
        assert_eq!(port(&[]).unwrap(), None);
    }
}
