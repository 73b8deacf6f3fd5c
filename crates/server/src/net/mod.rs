//! Connections: accepted within a limit, secured within a time, served until their last call is done.

mod listener;
mod open_calls;
mod preface;
mod serve;
#[cfg(test)]
mod tests;
mod tls;
mod write_limit;

pub use listener::{Connection, Listener, ListenerSettings};
pub use serve::{Http2Settings, serve_grpc, serve_http};
pub(crate) use serve::{TAKE_TIMEOUT, serve_http1};
pub use tls::{Alpn, TlsError, acceptor};
