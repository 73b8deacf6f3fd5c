//! What earlier runs left behind in the temporary directories.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;

use crate::directory::LOG;
use crate::identity::Identity;

/// What throw-away directories are called.
pub(crate) const THROW_AWAY_PREFIX: &str = "quittance-pg-";
/// What socket directories of kept ones are called.
pub(crate) const SOCKET_PREFIX: &str = "quittance-pgsock-";
/// Below this age a directory may still be in the making.
const STALE_AFTER: Duration = Duration::from_secs(60);
/// How often a directory is tried to be removed that others still write into.
const REMOVE_ATTEMPTS: u32 = 50;
const REMOVE_PAUSE: Duration = Duration::from_millis(20);

/// Removes directories of earlier runs whose owner, keeper and server are all gone, which happens
/// when the machine stops or all three are killed.
pub(crate) fn remove_stale(root: &Path, identity: &Identity) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = entry.path();
        let is_stale = if name.starts_with(THROW_AWAY_PREFIX) {
            is_stale_throw_away
        } else if name.starts_with(SOCKET_PREFIX) {
            is_stale_socket_dir
        } else {
            continue;
        };
        if is_old_and_ours(&path, identity) && is_stale(&path) {
            tracing::debug!(path = %path.display(), "removing what an earlier run left");
            remove(&path);
        }
    }
}

/// A directory (no link) that belongs to us, or to the user we run servers as, and is not new.
fn is_old_and_ours(path: &Path, identity: &Identity) -> bool {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return false;
    };
    let ours = [identity.uid(), rustix::process::geteuid().as_raw()].contains(&metadata.uid());
    let age = metadata
        .modified()
        .ok()
        .and_then(|time| time.elapsed().ok());
    metadata.is_dir() && ours && age.is_some_and(|age| age >= STALE_AFTER)
}

fn is_stale_throw_away(path: &Path) -> bool {
    // Neither a link nor a pipe that somebody put there may be followed or waited for.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let Ok(flags) = i32::try_from(flags) else {
        return false;
    };
    match OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path.join(LOG))
    {
        Ok(log) => log.try_lock().is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn is_stale_socket_dir(path: &Path) -> bool {
    fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .all(|entry| {
            let is_socket = entry.file_type().is_ok_and(|file| file.is_socket());
            !is_socket
                || UnixStream::connect(entry.path())
                    .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        })
}

/// Removes a temporary directory, whatever is in it; it may be gone already.
pub(crate) fn remove(path: &Path) {
    for attempt in 1.. {
        match fs::remove_dir_all(path) {
            // A process that is just about to end wrote into it in the meantime.
            Err(error)
                if error.kind() == io::ErrorKind::DirectoryNotEmpty
                    && attempt < REMOVE_ATTEMPTS =>
            {
                thread::sleep(REMOVE_PAUSE);
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "cannot remove a temporary directory");
                return;
            }
            Ok(()) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::net::UnixListener;
    use std::time::SystemTime;

    use crate::directory::lock;

    fn old(path: &Path) {
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        File::open(path).unwrap().set_modified(long_ago).unwrap();
    }

    #[test]
    fn removes_what_earlier_runs_left_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let identity = Identity::choose().unwrap();
        let make = |name: &str| {
            let path = root.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let dead = make("quittance-pg-dead");
        File::create(dead.join(LOG)).unwrap();
        let alive = make("quittance-pg-alive");
        let (_lock, _) = lock(&alive, &identity).unwrap();
        let without_log = make("quittance-pg-nolog");
        let other = make("other-pg-dead");
        let sockets = make("quittance-pgsock-dead");
        drop(UnixListener::bind(sockets.join(".s.PGSQL.5432")).unwrap());
        let listening = make("quittance-pgsock-alive");
        let _listener = UnixListener::bind(listening.join(".s.PGSQL.5432")).unwrap();
        for path in [&dead, &alive, &without_log, &other, &sockets, &listening] {
            old(path);
        }
        let young = make("quittance-pg-young");

        remove_stale(root.path(), &identity);

        let left: Vec<bool> = [
            &dead,
            &alive,
            &without_log,
            &other,
            &sockets,
            &listening,
            &young,
        ]
        .iter()
        .map(|path| path.exists())
        .collect();
        assert_eq!(left, [false, true, false, true, false, true, true]);
    }
}
