//! The directory of one server: its layout, its lock, its password.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, thread};

use rand::Rng;
use rand::distr::Alphanumeric;

use crate::Error;
use crate::identity::Identity;
use crate::leftovers::{SOCKET_PREFIX, THROW_AWAY_PREFIX, remove, remove_stale};

/// `sun_path` holds 104 bytes on macOS and 108 on Linux; the socket's own name needs some.
const MAX_SOCKET_DIR_BYTES: usize = 80;
/// An earlier server's last processes may hold the lock for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(10);
/// A new cluster takes 40 MiB, and the first WAL segments as much again.
const NEW_NEEDS_BYTES: u64 = 512 << 20;
const KEPT_NEEDS_BYTES: u64 = 128 << 20;
/// A kept log above this size is emptied at the next start.
const MAX_LOG_BYTES: u64 = 16 << 20;
const PASSWORD_LENGTH: usize = 32;

const DATA: &str = "data";
pub(crate) const LOG: &str = "server.log";
const PASSWORD: &str = "superuser-password";
const CONFIG: &str = "postgresql.conf";

/// The directory of one server, locked for as long as this value, the keeper or the server lives.
///
/// ```text
/// base/data                 PostgreSQL's own (data.new while it is made)
/// base/postgresql.conf      written at every start
/// base/server.log           the log, and the lock
/// base/superuser-password   of a kept directory only
/// base/.s.PGSQL.5432        the socket, where the path is short enough
/// ```
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) base: PathBuf,
    pub(crate) socket_dir: PathBuf,
    pub(crate) throw_away: bool,
    pub(crate) password: String,
    log: File,
    log_start: u64,
}

impl Directory {
    /// A new directory that is removed at the end, in the first usable temporary directory. Also
    /// removes what earlier runs could not.
    pub(crate) fn throw_away(identity: &Identity) -> Result<Self, Error> {
        let mut first_error = None;
        for root in temporary_roots() {
            remove_stale(&root, identity);
            match throw_away_in(&root, identity) {
                Ok(directory) => return Ok(directory),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| Error::SocketPathTooLong {
            directory: env::temp_dir(),
        }))
    }

    /// A directory that is kept. `base` must be new, empty, or made by an earlier call.
    pub(crate) fn kept(base: &Path, identity: &Identity) -> Result<Self, Error> {
        let existing = base.ancestors().find(|path| path.exists()).unwrap_or(base);
        identity.check_reach(existing)?;
        fs::create_dir_all(base).map_err(Error::io("create", base))?;
        check_recognized(base)?;
        let fresh = !base.join(DATA).exists();
        check_disk(
            base,
            if fresh {
                NEW_NEEDS_BYTES
            } else {
                KEPT_NEEDS_BYTES
            },
        )?;
        fs::set_permissions(base, fs::Permissions::from_mode(0o700))
            .map_err(Error::io("set permissions of", base))?;
        identity.own(base)?;
        // Again: with a strict umask, the directories just made on the way are closed.
        identity.check_reach(base)?;
        let (log, log_start) = lock(base, identity)?;
        let password = kept_password(base, fresh, identity)?;
        let socket_dir = if base.as_os_str().len() <= MAX_SOCKET_DIR_BYTES {
            base.to_owned()
        } else {
            separate_socket_dir(identity)?
        };
        Ok(Self {
            base: base.to_owned(),
            socket_dir,
            throw_away: false,
            password,
            log,
            log_start,
        })
    }

    /// PostgreSQL's data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.base.join(DATA)
    }

    /// The server's log.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.base.join(LOG)
    }

    /// The log, locked: whoever inherits it holds the lock.
    pub(crate) fn log_handle(&self) -> io::Result<File> {
        self.log.try_clone()
    }

    /// The socket directory, if it lies elsewhere and must be removed at the end.
    pub(crate) fn separate_socket_dir(&self) -> Option<&Path> {
        (self.socket_dir != self.base).then_some(self.socket_dir.as_path())
    }

    /// Writes the server's configuration.
    pub(crate) fn write_config(&self, text: &str, identity: &Identity) -> Result<(), Error> {
        let path = self.base.join(CONFIG);
        fs::write(&path, text).map_err(Error::io("write", &path))?;
        identity.own(&path)
    }

    /// The end of what this start has logged.
    pub(crate) fn log_tail(&self) -> String {
        const LINES: usize = 30;
        let text = fs::read(self.log_file()).unwrap_or_default();
        let start = usize::try_from(self.log_start).unwrap_or(0);
        let text = String::from_utf8_lossy(text.get(start..).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines
            .get(lines.len().saturating_sub(LINES)..)
            .unwrap_or_default()
            .join("\n")
    }

    /// Removes what the keeper would have removed, where it could not.
    pub(crate) fn clean_up(&self) {
        if let Some(sockets) = self.separate_socket_dir() {
            remove(sockets);
        }
        if self.throw_away {
            remove(&self.base);
        }
    }
}

/// The major version that wrote the data in `base`, if there is any.
pub(crate) fn data_major(base: &Path) -> Result<Option<u32>, Error> {
    let file = base.join(DATA).join("PG_VERSION");
    match fs::read_to_string(&file) {
        Ok(text) => {
            let major = text
                .trim()
                .split('.')
                .next()
                .and_then(|major| major.parse().ok());
            let invalid = || io::Error::from(io::ErrorKind::InvalidData);
            major
                .map(Some)
                .ok_or_else(invalid)
                .map_err(Error::io("understand", &file))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", &file)(error)),
    }
}

/// Bytes that an unprivileged user may still write on that disk.
pub(crate) fn free_bytes(path: &Path) -> Result<u64, Error> {
    let stat = rustix::fs::statvfs(path)
        .map_err(|errno| Error::io("ask for the free disk of", path)(errno.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn temporary_roots() -> Vec<PathBuf> {
    let mut roots = vec![env::temp_dir()];
    for fallback in ["/tmp", "/var/tmp"] {
        if !roots.iter().any(|root| root == Path::new(fallback)) {
            roots.push(PathBuf::from(fallback));
        }
    }
    roots.retain(|root| root.is_dir());
    roots
}

fn throw_away_in(root: &Path, identity: &Identity) -> Result<Directory, Error> {
    check_disk(root, NEW_NEEDS_BYTES)?;
    let base = temporary(root, THROW_AWAY_PREFIX, identity)?;
    let (log, log_start) = lock(&base, identity).inspect_err(|_| remove(&base))?;
    Ok(Directory {
        socket_dir: base.clone(),
        base,
        throw_away: true,
        password: random_password(),
        log,
        log_start,
    })
}

fn separate_socket_dir(identity: &Identity) -> Result<PathBuf, Error> {
    let mut first_error = None;
    for root in temporary_roots() {
        remove_stale(&root, identity);
        match temporary(&root, SOCKET_PREFIX, identity) {
            Ok(directory) => return Ok(directory),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| Error::SocketPathTooLong {
        directory: env::temp_dir(),
    }))
}

/// A new private directory that the server's user can reach and that is short enough for a socket.
fn temporary(root: &Path, prefix: &str, identity: &Identity) -> Result<PathBuf, Error> {
    let made = tempfile::Builder::new()
        .prefix(prefix)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(root)
        .map_err(Error::io("create a directory in", root))?;
    if made.path().as_os_str().len() > MAX_SOCKET_DIR_BYTES {
        return Err(Error::SocketPathTooLong {
            directory: made.path().to_owned(),
        });
    }
    identity.own(made.path())?;
    identity.check_reach(made.path())?;
    Ok(made.keep())
}

fn check_disk(directory: &Path, needed_bytes: u64) -> Result<(), Error> {
    let free_bytes = free_bytes(directory)?;
    if free_bytes < needed_bytes {
        let directory = directory.to_owned();
        return Err(Error::NotEnoughDisk {
            directory,
            free_bytes,
            needed_bytes,
        });
    }
    Ok(())
}

/// Refuses a directory with anything in it that is not ours: it will change hands and modes.
fn check_recognized(base: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(base).map_err(Error::io("list", base))? {
        let name = entry.map_err(Error::io("list", base))?.file_name();
        let name = name.to_string_lossy();
        let ours = [DATA, "data.new", LOG, PASSWORD, CONFIG].contains(&name.as_ref())
            || name.starts_with(".s.PGSQL.");
        if !ours {
            let found = name.into_owned();
            return Err(Error::NotEmpty {
                directory: base.to_owned(),
                found,
            });
        }
    }
    Ok(())
}

/// Opens and locks the log. The kernel releases the lock when the last process that inherited it
/// ends, so it never has to be cleaned up, and never lies.
pub(crate) fn lock(base: &Path, identity: &Identity) -> Result<(File, u64), Error> {
    let path = base.join(LOG);
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    identity.own(&path)?;
    let mut waited = Duration::ZERO;
    loop {
        match log.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if waited < LOCK_PATIENCE => {
                thread::sleep(POLL);
                waited += POLL;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::InUse {
                    directory: base.to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
        }
    }
    let length = log.metadata().map_err(Error::io("read", &path))?.len();
    if length > MAX_LOG_BYTES {
        log.set_len(0).map_err(Error::io("empty", &path))?;
        return Ok((log, 0));
    }
    Ok((log, length))
}

/// Reads the password of a kept directory; makes one, durably, where there is no data yet.
fn kept_password(base: &Path, fresh: bool, identity: &Identity) -> Result<String, Error> {
    let file = base.join(PASSWORD);
    match fs::read_to_string(&file) {
        Ok(text) if text.trim().len() == PASSWORD_LENGTH => return Ok(text.trim().to_owned()),
        Ok(_) if fresh => {} // cut short by a crash, and never used
        Ok(_) => return Err(Error::PasswordMissing { file }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !fresh {
                return Err(Error::PasswordMissing { file });
            }
        }
        Err(error) => return Err(Error::io("read", &file)(error)),
    }
    let password = random_password();
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let write = |mut out: File| -> io::Result<()> {
        writeln!(out, "{password}")?;
        out.sync_all()
    };
    options
        .open(&file)
        .and_then(write)
        .map_err(Error::io("write", &file))?;
    identity.own(&file)?;
    Ok(password)
}

fn random_password() -> String {
    rand::rng()
        .sample_iter(Alphanumeric)
        .take(PASSWORD_LENGTH)
        .map(char::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn leaves_a_directory_with_foreign_files_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("thesis.tex"), "").unwrap();
        let refused = check_recognized(root.path());
        assert!(matches!(refused, Err(Error::NotEmpty { found, .. }) if found == "thesis.tex"));
    }

    #[test]
    fn says_when_the_disk_is_too_full() {
        let refused = check_disk(Path::new("/"), u64::MAX);
        assert!(matches!(refused, Err(Error::NotEnoughDisk { .. })));
    }

    #[test]
    fn a_password_outlives_a_restart_and_is_missed() {
        let root = tempfile::tempdir().unwrap();
        let identity = Identity::choose().unwrap();
        let first = kept_password(root.path(), true, &identity).unwrap();
        assert_eq!(kept_password(root.path(), false, &identity).unwrap(), first);
        let mode = fs::metadata(root.path().join(PASSWORD)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::remove_file(root.path().join(PASSWORD)).unwrap();
        let missing = kept_password(root.path(), false, &identity);
        assert!(matches!(missing, Err(Error::PasswordMissing { .. })));
    }
}
