//! SIGTERM and Ctrl-C.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// 128 + SIGINT, as shells report it.
const INTERRUPTED: i32 = 130;

/// A token that is cancelled at the first SIGTERM or SIGINT. At the second the process ends at
/// once: whoever sends it does not want to wait.
///
/// # Errors
/// That of the operating system, if it refuses a handler.
pub fn stop() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        stop.cancel();
        next().await;
        std::process::exit(INTERRUPTED);
    });
    Ok(token)
}
