//! No server outlives its owner, however that ends.
#![allow(clippy::unwrap_used, reason = "a test may panic; its helpers too")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use quittance_embedded_postgres::{EmbeddedPostgres, Options};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio_postgres::NoTls;

const PROGRAM: &str = env!("CARGO_BIN_EXE_embedded-postgres");
/// More than making a server may take.
const PATIENCE: Duration = Duration::from_secs(300);
const NOBODY: u32 = 65534;

/// A process that owns a server, and what it told about it.
struct Owner {
    process: Child,
    output: BufReader<ChildStdout>,
    url: String,
}

impl Owner {
    fn spawn(command: &mut Command) -> Self {
        let mut process = command
            .env_remove("DATABASE_URL")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut owner = Self {
            process,
            output,
            url: String::new(),
        };
        owner.url = owner.line_after("url=");
        owner
    }

    /// The program, running a shell that prints `DATABASE_URL` and then waits for the end of its input.
    /// The shell does both itself: a child that it is just about to run (`cat`) can lose a SIGINT for good, for dash
    /// catches it, and its child swallows what comes before it is another program.
    fn program(program: &Path) -> Command {
        let mut command = Command::new(program);
        command.args([
            "run",
            "--",
            "sh",
            "-c",
            "echo \"url=$DATABASE_URL\"; while read -r line; do :; done",
        ]);
        command
    }

    fn line_after(&mut self, prefix: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "no {prefix}");
            if let Some((_, rest)) = line.trim_end().split_once(prefix) {
                return rest.to_owned();
            }
        }
    }

    fn base(&self) -> PathBuf {
        let (_, rest) = self.url.split_once('@').unwrap();
        PathBuf::from(rest.split_once(':').unwrap().0.replace("%2F", "/"))
    }

    fn postmaster(&self) -> Pid {
        let text = fs::read_to_string(self.base().join("data/postmaster.pid")).unwrap();
        Pid::from_raw(text.lines().next().unwrap().parse().unwrap()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Does `end` to the owner, then waits until the server and its directory are gone.
    fn ends_cleanly(mut self, end: impl FnOnce(&mut Self)) -> ExitStatus {
        let (base, postmaster) = (self.base(), self.postmaster());
        assert!(test_kill_process(postmaster).is_ok());
        end(&mut self);
        // At the end of its input the command exits by itself: it stays open until the signal is heard.
        let input = self.process.stdin.take();
        let mut status = None;
        wait_until("the owner has ended", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        drop(input);
        wait_until("the server is gone", || !is_alive(postmaster));
        wait_until("the directory is gone", || !base.exists());
        status.unwrap()
    }
}

/// A zombie, where nobody reaps orphans, counts as gone.
fn is_alive(process: Pid) -> bool {
    test_kill_process(process).is_ok()
        && !fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()))
            .is_ok_and(|stat| stat.contains(") Z "))
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn sigkill() {
    let owner = Owner::spawn(&mut Owner::program(Path::new(PROGRAM)));
    let status = owner.ends_cleanly(|owner| owner.signal(Signal::KILL));
    assert!(!status.success());
}

#[test]
fn sigterm_and_sigint_reach_the_command() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let owner = Owner::spawn(&mut Owner::program(Path::new(PROGRAM)));
        let status = owner.ends_cleanly(|owner| owner.signal(signal));
        assert_eq!(status.code(), Some(code));
    }
}

/// Ctrl-C in a terminal is a SIGINT to the whole process group.
#[test]
fn a_signal_to_the_whole_process_group() {
    let mut command = Owner::program(Path::new(PROGRAM));
    let owner = Owner::spawn(command.process_group(0));
    owner.ends_cleanly(|owner| {
        let group = Pid::from_raw(i32::try_from(owner.process.id()).unwrap()).unwrap();
        rustix::process::kill_process_group(group, Signal::KILL).unwrap();
    });
}

#[test]
fn the_commands_exit_code_is_passed_on() {
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137)] {
        let status = Command::new(PROGRAM)
            .args(["run", "--", "sh", "-c", script])
            .env("DATABASE_URL", "postgres://elsewhere/")
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(code), "{script}");
    }
    let owner = Owner::spawn(&mut Owner::program(Path::new(PROGRAM)));
    let status = owner.ends_cleanly(|owner| drop(owner.process.stdin.take()));
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_given_database_url_starts_no_server() {
    let output = Command::new(PROGRAM)
        .args(["run", "--", "sh", "-c", "echo $DATABASE_URL"])
        .env("DATABASE_URL", "postgres://elsewhere/db")
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "postgres://elsewhere/db\n"
    );
}

/// Run by the tests below in a process of its own.
const HOW_TO_DIE: &str = "EMBEDDED_POSTGRES_TEST_DIE_BY";

#[test]
fn owner_process() {
    let Ok(how) = std::env::var(HOW_TO_DIE) else {
        return;
    };
    let server = EmbeddedPostgres::start(Options::default()).unwrap();
    println!("url={}", server.url("postgres"));
    std::io::stdin().read_line(&mut String::new()).unwrap();
    match how.as_str() {
        "panic" => panic!("a test fails"),
        "abort" => std::process::abort(),
        "exit" => std::process::exit(3),
        "leak" => std::mem::forget(server), // what a static does
        other => panic!("unknown: {other}"),
    }
}

#[test]
fn panic_abort_exit_and_a_static() {
    for how in ["panic", "abort", "exit", "leak"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "owner_process", "--nocapture"])
            .env(HOW_TO_DIE, how);
        let owner = Owner::spawn(command.stderr(Stdio::null()));
        let status = owner.ends_cleanly(|owner| drop(owner.process.stdin.take()));
        assert_eq!(status.success(), how == "leak", "{how}");
    }
}

/// Killed at any moment while the server is being made, the owner leaves nothing either.
#[test]
fn sigkill_while_starting() {
    for delay in [0, 100, 400, 900] {
        let temporary = tempfile::Builder::new()
            .prefix("t")
            .tempdir_in("/tmp")
            .unwrap();
        fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let mut process = Owner::program(Path::new(PROGRAM))
            .env_remove("DATABASE_URL")
            .env("TMPDIR", temporary.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let made = || fs::read_dir(temporary.path()).unwrap().next().is_some();
        wait_until("it has begun", made);
        let until = Instant::now() + Duration::from_millis(delay);
        while Instant::now() < until {
            thread::yield_now();
        }
        process.kill().unwrap();
        process.wait().unwrap();
        // Killed before it made a keeper, it leaves an empty shell to the next start's cleaning.
        wait_until("no process and no data is left", || {
            fs::read_dir(temporary.path())
                .unwrap()
                .flatten()
                .all(|entry| {
                    let log = fs::File::open(entry.path().join("server.log"));
                    log.map_or(true, |log| log.try_lock().is_ok())
                        && !entry.path().join("data").exists()
                        && !entry.path().join("data.new").exists()
                })
        });
    }
}

#[tokio::test]
async fn works_for_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        return; // then all other tests show it
    }
    // Where that user comes, whatever TMPDIR is.
    let open = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = open.path().join("embedded-postgres");
    // By another process: what another test starts at this moment would keep the copy open for writing, if it were
    // ours, and a program that is being written cannot be run.
    let copied = Command::new("cp").arg(PROGRAM).arg(&program).status();
    assert!(copied.unwrap().success());
    let mut command = Owner::program(&program);
    let owner = Owner::spawn(command.uid(NOBODY).gid(NOBODY).current_dir("/"));
    let (client, connection) = tokio_postgres::connect(&owner.url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let row = client.query_one("SELECT 40 + 2", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 42);
    owner.ends_cleanly(|owner| owner.signal(Signal::KILL));
}
