//! Why an embedded server could not be started or stopped.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::install::{MINIMUM_MAJOR, Version};

/// Why an embedded PostgreSQL could not be started or stopped. Every message says what to do where
/// there is something to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No server binaries were found.
    #[error(
        "no PostgreSQL server binaries (initdb, postgres) found; run `make setup`, or install \
         PostgreSQL {MINIMUM_MAJOR} or newer; looked at: {}",
        looked_at.join(", ")
    )]
    BinariesMissing {
        /// Every place that was looked at, with what was wrong with it.
        looked_at: Vec<String>,
    },
    /// Only server binaries that are too old were found.
    #[error(
        "PostgreSQL {found} in {} is too old: {MINIMUM_MAJOR} or newer is needed; run `make setup`",
        bin_dir.display()
    )]
    VersionTooOld {
        /// The newest version found.
        found: Version,
        /// Where it is.
        bin_dir: PathBuf,
    },
    /// The directory holds data of a major version that is not installed.
    #[error(
        "{} holds data of PostgreSQL {data_major}, but installed is {}; install PostgreSQL \
         {data_major}, or move the directory away to start afresh",
        directory.display(), List(installed)
    )]
    DataVersion {
        /// The directory.
        directory: PathBuf,
        /// The major version that wrote it.
        data_major: u32,
        /// The usable versions that are installed.
        installed: Vec<Version>,
    },
    /// PostgreSQL refuses to run as root, and there is no user to run it as.
    #[error(
        "PostgreSQL refuses to run as root, and /etc/passwd has no user `postgres` or `nobody`"
    )]
    NoUnprivilegedUser,
    /// The user that the server runs as cannot reach its directory.
    #[error(
        "user {user}, as whom PostgreSQL is started, cannot reach {}: {} is closed to it; choose \
         another directory, or open that one (chmod o+x)",
        directory.display(), blocked_at.display()
    )]
    NotTraversable {
        /// The directory wanted.
        directory: PathBuf,
        /// The directory on the way to it that blocks.
        blocked_at: PathBuf,
        /// The user's name.
        user: String,
    },
    /// The directory belongs to another user.
    #[error(
        "{} belongs to user id {owner}; start as that user, or choose another directory",
        directory.display()
    )]
    NotOwner {
        /// The directory.
        directory: PathBuf,
        /// The owner's user id.
        owner: u32,
    },
    /// The directory has other things in it, which are left alone.
    #[error(
        "{} has files in it that no embedded server wrote ({found}); choose an empty directory or \
         one that does not exist",
        directory.display()
    )]
    NotEmpty {
        /// The directory.
        directory: PathBuf,
        /// The first such file.
        found: String,
    },
    /// Another server uses the directory.
    #[error("another server uses {}; stop it, or choose another directory", directory.display())]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// There is data, but its password is gone.
    #[error(
        "{} is missing, so nobody can log in to the data beside it; restore it, or move the \
         directory away to start afresh",
        file.display()
    )]
    PasswordMissing {
        /// The missing file.
        file: PathBuf,
    },
    /// Not enough free disk.
    #[error(
        "the disk of {} has {} MiB left; PostgreSQL needs {} MiB to start",
        directory.display(), free_bytes >> 20, needed_bytes >> 20
    )]
    NotEnoughDisk {
        /// The directory wanted.
        directory: PathBuf,
        /// Bytes free.
        free_bytes: u64,
        /// Bytes needed.
        needed_bytes: u64,
    },
    /// No temporary directory is short enough for a Unix socket.
    #[error("{} is too long for a Unix socket; set TMPDIR to a shorter path", directory.display())]
    SocketPathTooLong {
        /// The directory.
        directory: PathBuf,
    },
    /// A setting that cannot be written down.
    #[error("PostgreSQL setting `{name}`: {reason}")]
    InvalidSetting {
        /// The setting's name as given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `initdb` failed.
    #[error("initdb failed:\n{log}")]
    Initdb {
        /// The end of its output.
        log: String,
    },
    /// The chosen port was taken by somebody else.
    #[error("port {port} of 127.0.0.1 is taken")]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// The server ended instead of starting.
    #[error("PostgreSQL did not start:\n{log}")]
    NotStarted {
        /// The end of its log.
        log: String,
    },
    /// A step took too long.
    #[error("{step} took longer than {seconds} s:\n{log}")]
    TimedOut {
        /// The step.
        step: &'static str,
        /// The limit.
        seconds: u64,
        /// The end of the server's log.
        log: String,
    },
    /// The operating system refused something.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: names the action and the file that an I/O error is about.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

struct List<'a>(&'a [Version]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, version) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            version.fmt(f)?;
        }
        Ok(())
    }
}
