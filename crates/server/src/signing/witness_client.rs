//! The HTTP client that calls witnesses.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use rustls::crypto::{CryptoProvider, ring};

/// What witnesses see as our name.
const USER_AGENT: &str = concat!("quittance/", env!("CARGO_PKG_VERSION"));

/// A client with the platform's roots, without redirects, retries and proxies. Which URLs may be plain HTTP the
/// configuration has said.
pub(super) fn client(timeout: Duration) -> Result<Client, Box<dyn Error + Send + Sync>> {
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new(Arc::clone(&provider))?;
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .connect_timeout(timeout)
        .timeout(timeout)
        .user_agent(USER_AGENT)
        .build()?;
    Ok(client)
}
