//! Looks up the names of receivers, which tenants choose: never so many at once that whoever else needs the process's
//! blocking threads has to wait.

use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;

/// Most names that are looked up at once. The operating system's resolver holds a thread until it has an answer or gives
/// up, however long ago whoever asked has gone; the process has 512 of them, and the connections to providers need some.
const MAX_LOOKUPS: usize = 32;

/// Looks names up.
#[async_trait]
pub trait Names: Send + Sync + 'static {
    /// The addresses of a name.
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// What asks and waits.
type Lookup = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// The operating system's resolver.
pub struct SystemNames {
    places: Arc<Semaphore>,
    lookup: Arc<Lookup>,
}

impl Default for SystemNames {
    fn default() -> Self {
        Self::asking(|name| {
            let found = (name, 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

impl SystemNames {
    fn asking(lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            lookup: Arc::new(lookup),
        }
    }
}

#[async_trait]
impl Names for SystemNames {
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(io::Error::other)?;
        let (lookup, name) = (Arc::clone(&self.lookup), name.to_owned());
        let looked_up = tokio::task::spawn_blocking(move || {
            // Held for as long as the thread is, and not for as long as somebody waits for it.
            let _place = place;
            lookup(&name)
        });
        looked_up.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn i12_lookups_that_nobody_waits_for_any_more_count_until_they_end() {
        let (let_go, gate) = mpsc::channel::<()>();
        let (gate, begun) = (Mutex::new(gate), Arc::new(AtomicUsize::new(0)));
        let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
        let counted = Arc::clone(&begun);
        let names = Arc::new(SystemNames::asking(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            started.send(()).unwrap();
            // A resolver that nobody answers.
            let _ = gate.lock().recv();
            Ok(Vec::new())
        }));
        let ask = || {
            let names = Arc::clone(&names);
            tokio::spawn(async move { names.addresses("receiver.example").await })
        };
        let waiting: Vec<_> = (0..=MAX_LOOKUPS).map(|_| ask()).collect();
        for _ in 0..MAX_LOOKUPS {
            starts.recv().await.unwrap();
        }
        for one in waiting {
            one.abort();
            assert!(one.await.is_err());
        }
        assert_eq!(names.places.available_permits(), 0);
        let next = ask();
        assert_eq!(begun.load(Ordering::SeqCst), MAX_LOOKUPS);
        // One that ends makes room for the next.
        let_go.send(()).unwrap();
        starts.recv().await.unwrap();
        assert_eq!(begun.load(Ordering::SeqCst), MAX_LOOKUPS + 1);
        drop(let_go);
        assert_eq!(next.await.unwrap().unwrap(), Vec::<IpAddr>::new());
    }
}
