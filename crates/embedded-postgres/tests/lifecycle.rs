//! A server's life: starting, keeping data, refusing what would go wrong.
#![allow(clippy::unwrap_used, reason = "a test may panic; its helpers too")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use quittance_embedded_postgres::{EmbeddedPostgres, Error, MINIMUM_MAJOR, Options};
use tokio_postgres::{Client, NoTls};

const NOBODY: u32 = 65534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn shown(client: &Client, setting: &str) -> String {
    client
        .query_one(&format!("SHOW {setting}"), &[])
        .await
        .unwrap()
        .get(0)
}

#[tokio::test]
async fn a_throw_away_server_answers_and_leaves_nothing() {
    let server = EmbeddedPostgres::start_async(Options::default())
        .await
        .unwrap();
    assert!(server.version().major >= MINIMUM_MAJOR);
    assert!(server.is_running());
    assert!(server.tcp_url("postgres").is_none());
    assert!(server.socket_dir().as_os_str().len() < 100);
    let client = connect(&server.url("postgres")).await;
    for (setting, value) in [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("max_connections", "200"),
        ("server_encoding", "UTF8"),
        ("timezone", "UTC"),
        ("listen_addresses", ""),
        ("lock_timeout", "0"),
    ] {
        assert_eq!(shown(&client, setting).await, value, "{setting}");
    }
    client
        .batch_execute("CREATE DATABASE \"odd name/%\"")
        .await
        .unwrap();
    let odd = connect(&server.url("odd name/%")).await;
    let name: String = odd
        .query_one("SELECT current_database()::text", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(name, "odd name/%");

    let base = server.socket_dir().to_owned();
    assert_eq!(
        fs::metadata(&base).unwrap().permissions().mode() & 0o777,
        0o700
    );
    server.stop().unwrap(); // with both connections open
    assert!(!base.exists());
}

#[tokio::test]
async fn tcp_wants_the_password_too() {
    let settings = vec![("work_mem".to_owned(), "9MB".to_owned())];
    let server = EmbeddedPostgres::start(Options {
        tcp: true,
        settings,
        ..Options::default()
    })
    .unwrap();
    let url = server.tcp_url("postgres").unwrap();
    assert!(url.contains(&format!("@127.0.0.1:{}/", server.port())));
    assert_eq!(shown(&connect(&url).await, "work_mem").await, "9MB");
    for url in [url, server.url("postgres")] {
        let wrong = url.replace(server.password(), "guess");
        let refused = tokio_postgres::connect(&wrong, NoTls).await.err().unwrap();
        assert_eq!(refused.code().unwrap().code(), "28P01");
    }
}

/// A parent for kept directories that the server's user can reach, whatever TMPDIR is.
fn open_parent() -> tempfile::TempDir {
    let parent = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
    parent
}

fn kept(directory: &Path) -> Options {
    Options {
        data_dir: Some(directory.to_owned()),
        ..Options::default()
    }
}

#[tokio::test]
async fn kept_data_survives_a_restart_at_the_same_url() {
    let parent = open_parent();
    let directory = parent.path().join("made/on/demand");
    let first = EmbeddedPostgres::start(kept(&directory)).unwrap();
    let url = first.url("postgres");
    connect(&url)
        .await
        .batch_execute("CREATE TABLE t AS SELECT 42 AS answer")
        .await
        .unwrap();

    let second = EmbeddedPostgres::start(kept(&directory));
    assert!(matches!(second, Err(Error::InUse { .. })), "{second:?}");
    first.stop().unwrap();

    let again = EmbeddedPostgres::start(kept(&directory)).unwrap();
    assert_eq!(again.url("postgres"), url);
    let row = connect(&url)
        .await
        .query_one("SELECT answer FROM t", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i32>(0), 42);
    drop(again);

    fs::remove_file(directory.join("superuser-password")).unwrap();
    let refused = EmbeddedPostgres::start(kept(&directory));
    assert!(
        matches!(refused, Err(Error::PasswordMissing { .. })),
        "{refused:?}"
    );
    fs::write(directory.join("data/PG_VERSION"), "9\n").unwrap();
    let refused = EmbeddedPostgres::start(kept(&directory));
    assert!(
        matches!(refused, Err(Error::DataVersion { data_major: 9, .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_long_path_gets_its_socket_elsewhere() {
    let parent = open_parent();
    let directory = parent.path().join("d".repeat(120));
    let server = EmbeddedPostgres::start(kept(&directory)).unwrap();
    let sockets = server.socket_dir().to_owned();
    assert!(!sockets.starts_with(&directory));
    connect(&server.url("postgres"))
        .await
        .batch_execute("SELECT 1")
        .await
        .unwrap();
    server.stop().unwrap();
    assert!(!sockets.exists());
    assert!(directory.join("data").exists());
}

#[test]
fn refuses_a_directory_with_other_things_in_it() {
    let parent = open_parent();
    fs::write(parent.path().join("letter.txt"), "dear").unwrap();
    let refused = EmbeddedPostgres::start(kept(parent.path()));
    assert!(
        matches!(refused, Err(Error::NotEmpty { .. })),
        "{refused:?}"
    );
    let mode = fs::metadata(parent.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755, "touched all the same");
}

#[test]
fn names_the_directory_that_blocks_the_servers_user() {
    if !is_root() {
        return; // only root starts the server as somebody else
    }
    let closed = tempfile::tempdir().unwrap();
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let refused = EmbeddedPostgres::start(kept(&closed.path().join("a/b")));
    let Err(Error::NotTraversable { blocked_at, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(blocked_at, closed.path());
    assert!(!closed.path().join("a").exists());
}

#[test]
fn a_bad_setting_says_why_and_leaves_nothing() {
    let settings = vec![("shared_buffers".to_owned(), "much".to_owned())];
    let refused = EmbeddedPostgres::start(Options {
        settings,
        ..Options::default()
    });
    let Err(Error::NotStarted { log }) = refused else {
        panic!("{refused:?}")
    };
    assert!(log.contains("shared_buffers"), "{log}");
}

#[test]
fn a_port_that_somebody_has_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let wanted = taken.local_addr().unwrap().port();
    let refused = EmbeddedPostgres::start(Options {
        tcp: true,
        settings: vec![("port".to_owned(), wanted.to_string())],
        ..Options::default()
    });
    let Err(Error::PortTaken { port }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(port, wanted);
}

/// The other direction, as root only: root with the data of an ordinary user runs as that user.
#[test]
fn root_runs_an_ordinary_users_data_as_that_user() {
    if !is_root() {
        return;
    }
    let parent = open_parent();
    let directory = parent.path().join("pg");
    fs::create_dir(&directory).unwrap();
    chown(&directory, Some(NOBODY), Some(NOBODY)).unwrap();
    let server = EmbeddedPostgres::start(kept(&directory)).unwrap();
    let pid = server.process_id().unwrap();
    let output = Command::new("ps")
        .args(["-o", "uid=", "-p", &pid.to_string()])
        .output();
    if let Ok(output) = output {
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            NOBODY.to_string()
        );
    }
    server.stop().unwrap();
}
