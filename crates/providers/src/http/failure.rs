//! What a failed request proves: did it fail while connecting, or after bytes may have left?

use std::error::Error;
use std::io;

use crate::http::Verdict;
use crate::outcome::{NotSent, Unknown};

/// Classifies a request that got no status line.
///
/// The client reports an error as one of connecting only while no byte of the request can have
/// been written: the connector covers name resolution, TCP and the TLS handshake. Everything else,
/// a reused connection that dies included, may have been processed.
pub(super) fn verdict(error: &reqwest::Error, tls: bool) -> Verdict {
    if error.is_builder() {
        Verdict::NotSent(NotSent::RequestRefused)
    } else if error.is_connect() {
        Verdict::NotSent(while_connecting(error, tls))
    } else {
        Verdict::Unknown(after_connecting(error))
    }
}

/// The request may have left.
pub(super) fn after_connecting(error: &reqwest::Error) -> Unknown {
    if error.is_timeout() {
        Unknown::ResponseTimeout
    } else {
        Unknown::ConnectionLost
    }
}

/// No byte was written; which step failed is told for operators only.
fn while_connecting(error: &reqwest::Error, tls: bool) -> NotSent {
    if error.is_dns() {
        NotSent::NameResolution
    } else if error.is_timeout() {
        NotSent::ConnectTimeout
    } else if tls && is_handshake(error) {
        NotSent::TlsHandshake
    } else {
        NotSent::ConnectionRefused
    }
}

fn chain<'a>(error: &'a reqwest::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let first: &'a (dyn Error + 'static) = error;
    std::iter::successors(Some(first), |error| (*error).source())
}

/// TLS errors travel inside [`io::Error`]s, where `source` does not show them; a peer that closes
/// during the handshake shows as the end or reset of a connection that TCP had made.
fn is_handshake(error: &reqwest::Error) -> bool {
    chain(error).any(|error| {
        error.is::<rustls::Error>() || error.downcast_ref::<io::Error>().is_some_and(is_io_of_tls)
    })
}

fn is_io_of_tls(error: &io::Error) -> bool {
    let innermost = std::iter::successors(Some(error), |error| {
        error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<io::Error>())
    });
    innermost.into_iter().any(|error| {
        error
            .get_ref()
            .is_some_and(<dyn Error + Send + Sync>::is::<rustls::Error>)
            || matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::InvalidData
            )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::dns::{Name, Resolve, Resolving};
    use std::sync::Arc;

    struct NoNames;

    impl Resolve for NoNames {
        fn resolve(&self, _: Name) -> Resolving {
            Box::pin(async { Err(io::Error::other("no such name").into()) })
        }
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_told_from_a_refused_connection() {
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(config)
            .dns_resolver(Arc::new(NoNames))
            .build()
            .unwrap();
        let error = client
            .get("https://provider.invalid")
            .send()
            .await
            .unwrap_err();
        assert_eq!(
            verdict(&error, true),
            Verdict::NotSent(NotSent::NameResolution)
        );
    }
}
