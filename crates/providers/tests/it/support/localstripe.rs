//! PyPI's `localstripe`, a server that behaves as Stripe does. Both test binaries that need it include this file.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use super::python::{python, script};

/// Stripe's own library, and the server; pinned.
pub const STRIPE: [&str; 2] = ["stripe==16.1.0", "localstripe==1.15.10"];

/// A running localstripe; it stops when dropped.
pub struct LocalStripe {
    process: Child,
    port: u16,
}

impl Drop for LocalStripe {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl LocalStripe {
    /// Starts one, which trusts this file of certificates; `None` where there is no Python.
    pub fn start(trusts: Option<&Path>) -> Option<Self> {
        let mut command = script(&python(&STRIPE)?, "localstripe_server.py");
        if let Some(file) = trusts {
            command.env("SSL_CERT_FILE", file);
        }
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = pipes.spawn().unwrap();
        let mut line = String::new();
        let said = BufReader::new(process.stdout.take().unwrap()).read_line(&mut line);
        let port = said.ok().and_then(|_| line.trim().parse().ok());
        let port = port.unwrap_or_else(|| panic!("localstripe did not start: {line:?}"));
        Some(Self { process, port })
    }

    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}
