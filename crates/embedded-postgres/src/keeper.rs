//! Our end of the keeper, the process that outlives us just long enough to stop the server.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::Error;
use crate::directory::Directory;
use crate::identity::Identity;

const SCRIPT: &str = include_str!("keeper.sh");
const SHELL: &str = "/bin/sh";
/// initdb takes about a second; on a slow disk a few.
const INITDB_PATIENCE: Duration = Duration::from_secs(120);
/// After a crash, PostgreSQL first replays up to `max_wal_size` of WAL.
const READY_PATIENCE: Duration = Duration::from_secs(120);
/// A fast shutdown writes a checkpoint; the keeper itself escalates after 60 s.
const STOP_PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(5);

/// What the keeper says.
enum Event {
    InitdbFailed,
    Started(i32),
    Exited,
}

/// The keeper process and the lifeline to it. Dropping it lets go of the lifeline.
#[derive(Debug)]
pub(crate) struct Keeper {
    child: Child,
    /// The only writing end: close-on-exec, so that no other child of ours can keep it open.
    lifeline: Option<ChildStdin>,
    server: Option<Pid>,
    exited: Arc<AtomicBool>,
}

impl Keeper {
    /// Starts the keeper, which makes the database where there is none and starts the server;
    /// returns when the server accepts connections.
    pub(crate) fn start(
        directory: &Directory,
        bin_dir: &Path,
        identity: &Identity,
    ) -> Result<Self, Error> {
        let mut keeper = Self::spawn(directory, bin_dir, identity)?;
        match keeper.wait_until_ready(directory) {
            Ok(()) => Ok(keeper),
            Err(error) => {
                keeper.stop(directory)?;
                Err(error)
            }
        }
    }

    fn spawn(directory: &Directory, bin_dir: &Path, identity: &Identity) -> Result<Self, Error> {
        let shell = Path::new(SHELL);
        let log = directory
            .log_handle()
            .map_err(Error::io("use", &directory.log_file()))?;
        let mut command = Command::new(shell);
        command
            .args(["-c", SCRIPT, "quittance-postgres-keeper"])
            .arg(&directory.base)
            .arg(bin_dir)
            .arg(if directory.throw_away { "yes" } else { "no" })
            .arg(directory.separate_socket_dir().unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // Of its own, so that Ctrl-C in the terminal reaches neither it nor the server.
            .process_group(0)
            .current_dir("/")
            .env("LC_ALL", "C");
        // PGDATA, PGOPTIONS and the like are about somebody else's server.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        let mut child = identity
            .apply(&mut command)
            .spawn()
            .map_err(Error::io("start", shell))?;
        let lifeline = child.stdin.take();
        Ok(Self {
            child,
            lifeline,
            server: None,
            exited: Arc::default(),
        })
    }

    fn wait_until_ready(&mut self, directory: &Directory) -> Result<(), Error> {
        let events = self.listen()?;
        if let Some(lifeline) = &mut self.lifeline {
            // In the pipe rather than in an argument or a file, which others could read.
            writeln!(lifeline, "{}", directory.password)
                .map_err(Error::io("talk to", Path::new(SHELL)))?;
        }
        match events.recv_timeout(INITDB_PATIENCE) {
            Ok(Event::Started(pid)) => self.server = Pid::from_raw(pid),
            Ok(Event::InitdbFailed) => {
                return Err(Error::Initdb {
                    log: directory.log_tail(),
                });
            }
            Ok(Event::Exited) | Err(RecvTimeoutError::Disconnected) => {
                return Err(not_started(directory));
            }
            Err(RecvTimeoutError::Timeout) => {
                return Err(timed_out("initdb", INITDB_PATIENCE, directory));
            }
        }
        let deadline = Instant::now() + READY_PATIENCE;
        let pid_file = directory.data().join("postmaster.pid");
        while !self.is_ready(&pid_file) {
            match events.recv_timeout(POLL) {
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(timed_out("starting PostgreSQL", READY_PATIENCE, directory));
                }
                Ok(_) | Err(RecvTimeoutError::Disconnected) => return Err(not_started(directory)),
            }
        }
        Ok(())
    }

    /// Listens to the keeper on a thread, which ends with the keeper.
    fn listen(&mut self) -> Result<Receiver<Event>, Error> {
        let (sender, receiver) = channel();
        let Some(output) = self.child.stdout.take() else {
            return Ok(receiver);
        };
        let exited = Arc::clone(&self.exited);
        thread::Builder::new()
            .name("postgres-keeper".to_owned())
            .spawn(move || relay(output, &exited, &sender))
            .map_err(Error::io("start a thread to listen to", Path::new(SHELL)))?;
        Ok(receiver)
    }

    /// PostgreSQL writes its process id in line 1 and its status in line 8 (`pg_ctl` reads the
    /// same).
    fn is_ready(&self, pid_file: &Path) -> bool {
        let status = self.status(pid_file);
        status.is_some_and(|status| status == "ready")
    }

    /// What our server says of itself (`starting`, `ready`, `stopping` …; nothing at first); `None` where the
    /// file is not there, or another's.
    fn status(&self, pid_file: &Path) -> Option<String> {
        let text = fs::read_to_string(pid_file).ok()?;
        let mut lines = text.lines();
        let pid = lines.next()?.parse().ok().and_then(Pid::from_raw)?;
        let status = lines.nth(6).unwrap_or_default();
        (Some(pid) == self.server).then(|| status.trim().to_owned())
    }

    /// The server's process id.
    pub(crate) fn server(&self) -> Option<Pid> {
        self.server
    }

    /// Has the server not ended by itself?
    pub(crate) fn is_running(&self) -> bool {
        !self.exited.load(Ordering::Acquire)
    }

    /// Lets go of the lifeline and waits until the keeper has stopped the server and cleaned up.
    /// A second call does nothing.
    pub(crate) fn stop(&mut self, directory: &Directory) -> Result<(), Error> {
        drop(self.lifeline.take());
        let deadline = Instant::now() + STOP_PATIENCE;
        loop {
            match self.child.try_wait() {
                Ok(Some(_)) => break,
                Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
                Ok(None) => {
                    return Err(timed_out("stopping PostgreSQL", STOP_PATIENCE, directory));
                }
                Err(error) => return Err(Error::io("wait for", Path::new(SHELL))(error)),
            }
        }
        self.stop_orphan(directory);
        directory.clean_up();
        Ok(())
    }

    /// If somebody killed the keeper, the server is still there.
    fn stop_orphan(&self, directory: &Directory) {
        let Some(server) = self.server else { return };
        let pid_file = directory.data().join("postmaster.pid");
        // The file tells that this process id is still the server's, which may be stopping already: what is left of
        // the keeper tells it to.
        if self.status(&pid_file).is_none() {
            return;
        }
        let polite = if directory.throw_away {
            Signal::QUIT
        } else {
            Signal::INT
        };
        for (signal, patience) in [(polite, 30), (Signal::KILL, 5)] {
            if kill_process(server, signal).is_err() {
                return;
            }
            let deadline = Instant::now() + Duration::from_secs(patience);
            while pid_file.exists() && test_kill_process(server).is_ok() {
                if Instant::now() >= deadline {
                    break;
                }
                thread::sleep(POLL);
            }
            if !pid_file.exists() {
                return;
            }
        }
    }

    /// The keeper's process id.
    #[cfg(test)]
    pub(crate) fn id(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }
}

fn relay(output: ChildStdout, exited: &AtomicBool, events: &Sender<Event>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let event = match line.split_once(' ') {
            Some(("started", pid)) => pid.parse().map(Event::Started).ok(),
            Some(("failed", _)) => Some(Event::InitdbFailed),
            Some(("exited", status)) => {
                tracing::debug!(status, "the embedded PostgreSQL has ended");
                exited.store(true, Ordering::Release);
                Some(Event::Exited)
            }
            _ => None,
        };
        // Nobody listens any more once the server runs; the flag above is still wanted.
        if let Some(event) = event {
            drop(events.send(event));
        }
    }
    exited.store(true, Ordering::Release);
}

fn timed_out(step: &'static str, patience: Duration, directory: &Directory) -> Error {
    Error::TimedOut {
        step,
        seconds: patience.as_secs(),
        log: directory.log_tail(),
    }
}

fn not_started(directory: &Directory) -> Error {
    let log = directory.log_tail();
    // lc_messages is C, so the wording is PostgreSQL's own.
    if log.contains("lock file \"postmaster.pid\" already exists") {
        return Error::InUse {
            directory: directory.base.clone(),
        };
    }
    Error::NotStarted { log }
}
