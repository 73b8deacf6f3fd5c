//! What a sandbox is started with.

use crate::limits;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Settings of one sandbox. [`SandboxConfig::new`] gives the defaults.
#[derive(Clone)]
pub struct SandboxConfig {
    /// Where to listen. Default `127.0.0.1:0`: loopback, a free port.
    pub listen: SocketAddr,
    /// The key that every request must carry as `Authorization: Bearer <api_key>`. Not empty.
    pub api_key: String,
    /// Where events are posted. Default: nowhere; they can still be read with `GET /events`.
    pub webhook: Option<WebhookConfig>,
    /// How long a request that is left hanging keeps its connection before it is cut without an
    /// answer. Default 60 s.
    pub max_hang: Duration,
    /// How long `tok_slow` takes to answer. Default 1500 ms.
    pub slow: Duration,
    /// How long a pending operation stays pending at least. It becomes final at the first lookup
    /// after that. Default zero; a token's `settle_after_ms` overrides it.
    pub settle_after: Duration,
    /// How long after `settle_after` a pending operation that nobody looked up settles by itself.
    /// Only with a webhook, which is how it is then told. Default 2 s.
    pub settle_unasked: Duration,
    /// How long a charged operation stays invisible to lookups: the lag of a provider that is not
    /// read-after-write. While not zero, "not found" is never authoritative. Default zero.
    pub lookup_window: Duration,
    /// Most operations kept; after that requests are refused with 503 `books_full`, because
    /// forgetting one would hide a double charge. Default 5,000,000.
    pub max_stored_operations: usize,
    /// A file (JSON lines, append-only) to which every change is written before it is answered,
    /// and from which the books are rebuilt at start. It survives a crash of the process, not of
    /// the machine (no fsync). Default: none, the books live as long as the process.
    pub persist: Option<PathBuf>,
}

impl SandboxConfig {
    /// The default settings with the given API key.
    pub fn new(api_key: impl Into<String>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            api_key: api_key.into(),
            webhook: None,
            max_hang: Duration::from_secs(60),
            slow: Duration::from_millis(1500),
            settle_after: Duration::ZERO,
            settle_unasked: Duration::from_secs(2),
            lookup_window: Duration::ZERO,
            max_stored_operations: limits::MAX_STORED_OPERATIONS,
            persist: None,
        }
    }
}

/// Hand-written: the API key stays out.
impl fmt::Debug for SandboxConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxConfig")
            .field("listen", &self.listen)
            .field("webhook", &self.webhook)
            .field("max_hang", &self.max_hang)
            .field("slow", &self.slow)
            .field("settle_after", &self.settle_after)
            .field("settle_unasked", &self.settle_unasked)
            .field("lookup_window", &self.lookup_window)
            .field("max_stored_operations", &self.max_stored_operations)
            .field("persist", &self.persist)
            .finish_non_exhaustive()
    }
}

/// Where the sandbox posts its events.
#[derive(Clone)]
pub struct WebhookConfig {
    /// An `http` or `https` URL.
    pub url: String,
    /// Standard Webhooks secret: `whsec_` and the base64 of 24 to 64 bytes.
    pub secret: String,
    /// Certificates (PEM) to trust instead of the platform's, for a receiver with a CA of its own.
    pub ca_pem: Option<Vec<u8>>,
}

/// Hand-written: the secret stays out.
impl fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookConfig")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}
