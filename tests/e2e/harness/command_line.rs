//! The command line as a client of a running server.

use std::path::PathBuf;
use std::process::Output;

use quittance_server::auth::Role;
use tempfile::TempDir;

use super::World;
use super::process::command;
use super::site::TENANT;
use super::tls::pki;

/// One command of the command line, such as `payments`, called as an operator calls it.
pub struct CommandLine {
    name: &'static str,
    address: String,
    pub key_file: PathBuf,
    _directory: TempDir,
}

impl CommandLine {
    pub async fn new(world: &World, name: &'static str, roles: &[Role]) -> Self {
        let directory = TempDir::new().unwrap();
        let key_file = directory.path().join("key");
        let key = world.api_key(TENANT, roles).await;
        std::fs::write(&key_file, format!("{key}\n")).unwrap();
        Self {
            name,
            address: format!("https://localhost:{}", world.address().port()),
            key_file,
            _directory: directory,
        }
    }

    pub async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = command(&[self.name]);
        command
            .args(arguments)
            .env("QUITTANCE_ADDRESS", &self.address)
            .env("QUITTANCE_CA_FILE", &pki().ca_file)
            .env("QUITTANCE_API_KEY_FILE", &self.key_file);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    /// What a command that worked has printed.
    pub async fn prints(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        assert_eq!(errors, "");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command that failed with this exit code has said.
    pub async fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        errors
    }
}
