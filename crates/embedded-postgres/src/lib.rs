//! A private PostgreSQL for development, the demo and the tests, from the server binaries that are
//! installed on the machine.
//!
//! ```no_run
//! # fn main() -> Result<(), quittance_embedded_postgres::Error> {
//! use quittance_embedded_postgres::{EmbeddedPostgres, Options};
//!
//! let server = EmbeddedPostgres::start(Options::default())?;
//! let url = server.url("postgres"); // for tokio-postgres, diesel-async, psql, pgbench
//! # drop(url);
//! server.stop() // or drop it
//! # }
//! ```
//!
//! - It listens on a Unix socket in a directory that only its user can enter, on 127.0.0.1 if asked
//!   to, and wants a random password (SCRAM) on both.
//! - It is as durable as a real one: `fsync`, `synchronous_commit` and data checksums are on.
//! - As root it runs as user `postgres` or `nobody`, because PostgreSQL refuses to run as root.
//! - No server outlives its owner, whether that returns, panics, is interrupted or is killed: see
//!   `keeper.sh`. There is no clean-up by a signal handler, and nothing to configure.
//!
//! Not for production: a machine with payments in it has a PostgreSQL with replicas and backups.
#![allow(clippy::doc_markdown, reason = "PostgreSQL is a name, not code")]

mod config;
mod directory;
mod error;
mod identity;
mod install;
mod keeper;
mod leftovers;

use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use config::Surroundings;
use directory::Directory;
use identity::Identity;
use install::Installation;
use keeper::Keeper;

pub use error::Error;
pub use install::{MINIMUM_MAJOR, Version};

const SUPERUSER: &str = "postgres";
/// Only a part of the socket's name, unless the server listens on TCP.
const DEFAULT_PORT: u16 = 5432;
/// What a server that cannot listen logs.
const PORT_TAKEN: &str = "could not create any TCP/IP sockets";
/// Somebody else may take a free port before the server does.
const PORT_ATTEMPTS: u32 = 3;

/// How to start a server. The default is a throw-away one on a Unix socket.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where the data is kept: a directory that does not exist, is empty, or was used before.
    /// It changes its mode to 0700 and, as root, its owner. `None`: in a temporary directory, which is
    /// removed at the end.
    pub data_dir: Option<PathBuf>,
    /// Listen on 127.0.0.1 too, on a free port (or on setting `port`).
    pub tcp: bool,
    /// Settings of `postgresql.conf` that override the defaults, such as `("work_mem", "8MB")`.
    /// Nothing is refused that a test may want, so `fsync` can be turned off here, and only here.
    pub settings: Vec<(String, String)>,
}

/// A running server. Stops when it is dropped.
pub struct EmbeddedPostgres {
    directory: Directory,
    installation: Installation,
    keeper: Keeper,
    port: u16,
    tcp: bool,
}

impl EmbeddedPostgres {
    /// Starts a server and returns when it accepts connections: after one to two seconds for a new
    /// one. Blocks the thread, and needs no async runtime; [`Self::start_async`] blocks none.
    ///
    /// # Errors
    /// [`Error`] says what is missing and what to do about it.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "callers make the options in place"
    )]
    pub fn start(options: Options) -> Result<Self, Error> {
        let wanted_port = config::port(&options.settings)?;
        let mut attempt = 1;
        loop {
            let port = match wanted_port {
                Some(port) => port,
                None if options.tcp => free_port()?,
                None => DEFAULT_PORT,
            };
            match start_once(&options, port) {
                Err(Error::PortTaken { .. })
                    if wanted_port.is_none() && attempt < PORT_ATTEMPTS =>
                {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// [`Self::start`] on a thread where blocking is allowed.
    ///
    /// # Errors
    /// As [`Self::start`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start_async(options: Options) -> Result<Self, Error> {
        match tokio::task::spawn_blocking(|| Self::start(options)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(cancelled) => Err(Error::io(
                    "start a server in",
                    Path::new("a runtime that stops"),
                )(cancelled.into())),
            },
        }
    }

    /// The URL of a database, over the Unix socket, with user and password:
    /// `postgres://postgres:…@%2Ftmp%2Fquittance-pg-a1b2c3:5432/name`. Of a kept directory it is
    /// the same after a restart, if the directory's path is at most 80 bytes long and `tcp` is off.
    pub fn url(&self, dbname: &str) -> String {
        self.url_at(
            &percent_encode(&self.directory.socket_dir.to_string_lossy()),
            dbname,
        )
    }

    /// The URL of a database over TCP, if the server listens on it.
    pub fn tcp_url(&self, dbname: &str) -> Option<String> {
        self.tcp
            .then(|| self.url_at(&Ipv4Addr::LOCALHOST.to_string(), dbname))
    }

    fn url_at(&self, host: &str, dbname: &str) -> String {
        let dbname = percent_encode(dbname);
        format!(
            "postgres://{SUPERUSER}:{}@{host}:{}/{dbname}",
            self.directory.password, self.port
        )
    }

    /// The directory of the Unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.directory.socket_dir
    }

    /// The port on 127.0.0.1 if the server listens there, and the number in the socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's name.
    pub fn superuser(&self) -> &'static str {
        SUPERUSER
    }

    /// The superuser's password: 32 letters and digits.
    pub fn password(&self) -> &str {
        &self.directory.password
    }

    /// The server's version.
    pub fn version(&self) -> Version {
        self.installation.version
    }

    /// Where the server's programs are; `pgbench` and `psql` usually lie there too.
    pub fn bin_dir(&self) -> &Path {
        &self.installation.bin_dir
    }

    /// PostgreSQL's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.data()
    }

    /// The server's log. It holds no statements and no values.
    pub fn log_file(&self) -> PathBuf {
        self.directory.log_file()
    }

    /// The process id of the server (for measuring its CPU time).
    pub fn process_id(&self) -> Option<u32> {
        self.keeper
            .server()
            .and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok())
    }

    /// Whether the server has not ended by itself.
    pub fn is_running(&self) -> bool {
        self.keeper.is_running()
    }

    /// Stops the server, closing open connections: within a second or so; a kept one writes a
    /// checkpoint first. Blocks the thread, as dropping does.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if it would not end; the keeper goes on trying.
    pub fn stop(mut self) -> Result<(), Error> {
        self.keeper.stop(&self.directory)
    }
}

impl Drop for EmbeddedPostgres {
    fn drop(&mut self) {
        if let Err(error) = self.keeper.stop(&self.directory) {
            tracing::error!(%error, "the embedded PostgreSQL did not stop");
        }
    }
}

impl fmt::Debug for EmbeddedPostgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedPostgres")
            .field("base", &self.directory.base)
            .field("version", &self.installation.version)
            .field("port", &self.port)
            .field("tcp", &self.tcp)
            .finish_non_exhaustive()
    }
}

fn start_once(options: &Options, port: u16) -> Result<EmbeddedPostgres, Error> {
    let identity = Identity::choose()?;
    let (directory, installation, identity) = match &options.data_dir {
        None => {
            let installation = install::find(&identity, None)?;
            (Directory::throw_away(&identity)?, installation, identity)
        }
        Some(base) => {
            let base = std::path::absolute(base).map_err(Error::io("find", base))?;
            let data = base.join("data");
            let identity = if data.exists() {
                identity.or_owner_of(&data, true)?
            } else {
                identity.or_owner_of(&base, false)?
            };
            let major = directory::data_major(&base)?;
            let installation =
                install::find(&identity, major.map(|major| (base.as_path(), major)))?;
            (Directory::kept(&base, &identity)?, installation, identity)
        }
    };
    let surroundings = Surroundings {
        socket_dir: &directory.socket_dir,
        port,
        tcp: options.tcp,
        free_bytes: directory::free_bytes(&directory.base)?,
        shared_memory_bytes: directory::free_bytes(Path::new("/dev/shm")).ok(),
    };
    let config = config::render(&surroundings, &options.settings)
        .and_then(|text| directory.write_config(&text, &identity))
        .and_then(|()| Keeper::start(&directory, &installation.bin_dir, &identity));
    match config {
        Ok(keeper) => Ok(EmbeddedPostgres {
            directory,
            installation,
            keeper,
            port,
            tcp: options.tcp,
        }),
        Err(error) => {
            directory.clean_up();
            Err(match error {
                // lc_messages is C, so the wording is PostgreSQL's own.
                Error::NotStarted { log } if options.tcp && log.contains(PORT_TAKEN) => {
                    Error::PortTaken { port }
                }
                other => other,
            })
        }
    }
}

fn free_port() -> Result<u16, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(Error::io("find a free port on", Path::new("127.0.0.1")))
}

/// RFC 3986: everything but unreserved characters is escaped.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::{Duration, Instant};

    use rustix::process::{Signal, kill_process, test_kill_process};

    #[test]
    fn stops_the_server_even_if_its_keeper_was_killed() {
        let server = EmbeddedPostgres::start(Options::default()).unwrap();
        let (keeper, postgres) = (server.keeper.id().unwrap(), server.keeper.server().unwrap());
        let base = server.directory.base.clone();
        kill_process(keeper, Signal::KILL).unwrap();
        server.stop().unwrap();
        assert!(!base.exists());
        let deadline = Instant::now() + Duration::from_secs(30);
        // An orphan that nobody waits for stays a zombie where init does not reap: it has no
        // socket any more, and that is what counts; its directory is gone as well.
        while test_kill_process(postgres).is_ok() && Instant::now() < deadline {
            let status =
                std::fs::read_to_string(format!("/proc/{}/stat", postgres.as_raw_nonzero()));
            if status.is_ok_and(|text| text.contains(") Z ")) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert!(test_kill_process(postgres).is_err());
    }

    #[test]
    fn escapes_what_urls_reserve() {
        assert_eq!(percent_encode("/tmp/a b@c:1"), "%2Ftmp%2Fa%20b%40c%3A1");
        assert_eq!(percent_encode("quittance_test-1.x~"), "quittance_test-1.x~");
    }

    #[test]
    fn debug_output_has_no_password() {
        let server = EmbeddedPostgres::start(Options::default()).unwrap();
        assert!(!format!("{server:?}").contains(server.password()));
    }
}
