//! Looks up the names of receivers, which tenants choose: never so many at once that whoever else needs the process's
//! blocking threads has to wait.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most names that are looked up at once. The operating system's resolver holds a thread until it has an answer or gives
/// up, however long ago whoever asked has gone; the process has 512 of them, and the connections to providers need some.
const MAX_LOOKUPS: usize = 32;

/// Most of them for one asker: a tenant whose names nobody answers for leaves places to all others.
const MAX_LOOKUPS_PER_ASKER: usize = 8;
/// Longest wait for a place.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Looks names up.
#[async_trait]
pub trait Names: Send + Sync + 'static {
    /// The addresses of a name that this asker wants to know.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where as many are looked up as are allowed, which says nothing of the name; whatever the
    /// resolver says.
    async fn addresses(&self, asker: &str, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// What asks and waits.
type Lookup = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// The operating system's resolver.
pub struct SystemNames {
    places: Arc<Semaphore>,
    /// The places of each asker that has or wants one.
    own_places: Mutex<HashMap<String, Arc<Semaphore>>>,
    wait: Duration,
    lookup: Arc<Lookup>,
}

impl SystemNames {
    /// One whose askers have so long until they are connected: half of it is the longest wait for a place.
    pub fn within(connect_timeout: Duration) -> Self {
        Self::asking(MAX_WAIT.min(connect_timeout / 2), |name| {
            let found = (name, 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }

    fn asking(
        wait: Duration,
        lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            own_places: Mutex::default(),
            wait,
            lookup: Arc::new(lookup),
        }
    }

    /// The places of this asker. Those of whoever holds and wants none any more are forgotten.
    fn places_of(&self, asker: &str) -> Arc<Semaphore> {
        let mut all = self.own_places.lock();
        all.retain(|_, places| Arc::strong_count(places) > 1);
        let places = all.entry(asker.to_owned());
        let places = places.or_insert_with(|| Arc::new(Semaphore::new(MAX_LOOKUPS_PER_ASKER)));
        Arc::clone(places)
    }

    /// One of the asker's places, and one of all: its own first, so that none of all is held while it waits.
    async fn place(&self, asker: &str) -> io::Result<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let both = async {
            let own = self.places_of(asker).acquire_owned().await;
            let place = Arc::clone(&self.places).acquire_owned().await;
            own.and_then(|own| Ok((own, place?)))
        };
        let both = tokio::time::timeout(self.wait, both).await;
        both.map_err(|_| io::ErrorKind::WouldBlock)?
            .map_err(io::Error::other)
    }
}

#[async_trait]
impl Names for SystemNames {
    async fn addresses(&self, asker: &str, name: &str) -> io::Result<Vec<IpAddr>> {
        let place = self.place(asker).await?;
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

    use tokio::sync::mpsc::UnboundedReceiver;
    use tokio::task::JoinHandle;

    use super::*;

    /// A resolver that nobody answers.
    struct Silent {
        names: Arc<SystemNames>,
        begun: Arc<AtomicUsize>,
        starts: UnboundedReceiver<()>,
        let_go: mpsc::Sender<()>,
    }

    impl Silent {
        fn new(wait: Duration) -> Self {
            let (let_go, gate) = mpsc::channel::<()>();
            let (gate, begun) = (Mutex::new(gate), Arc::new(AtomicUsize::new(0)));
            let (started, starts) = tokio::sync::mpsc::unbounded_channel();
            let counted = Arc::clone(&begun);
            let names = SystemNames::asking(wait, move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
                started.send(()).unwrap();
                let _ = gate.lock().recv();
                Ok(Vec::new())
            });
            Self {
                names: Arc::new(names),
                begun,
                starts,
                let_go,
            }
        }

        fn ask(&self, asker: usize) -> JoinHandle<io::Result<Vec<IpAddr>>> {
            let names = Arc::clone(&self.names);
            let ask = async move {
                names
                    .addresses(&asker.to_string(), "receiver.example")
                    .await
            };
            tokio::spawn(ask)
        }

        async fn begin(&mut self, lookups: usize) {
            for _ in 0..lookups {
                self.starts.recv().await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn i12_lookups_that_nobody_waits_for_any_more_count_until_they_end() {
        let mut silent = Silent::new(Duration::from_secs(60));
        let asker = |number| number / MAX_LOOKUPS_PER_ASKER;
        let waiting: Vec<_> = (0..=MAX_LOOKUPS).map(|n| silent.ask(asker(n))).collect();
        silent.begin(MAX_LOOKUPS).await;
        for one in waiting {
            one.abort();
            assert!(one.await.is_err());
        }
        assert_eq!(silent.names.places.available_permits(), 0);
        let next = silent.ask(MAX_LOOKUPS);
        assert_eq!(silent.begun.load(Ordering::SeqCst), MAX_LOOKUPS);
        // One that ends makes room for the next.
        silent.let_go.send(()).unwrap();
        silent.begin(1).await;
        assert_eq!(silent.begun.load(Ordering::SeqCst), MAX_LOOKUPS + 1);
        drop(silent.let_go);
        assert_eq!(next.await.unwrap().unwrap(), Vec::<IpAddr>::new());
    }

    #[tokio::test]
    async fn i12_whose_names_nobody_answers_for_leaves_places_to_others() {
        let mut silent = Silent::new(Duration::ZERO);
        let dead: Vec<_> = (0..MAX_LOOKUPS_PER_ASKER).map(|_| silent.ask(0)).collect();
        silent.begin(MAX_LOOKUPS_PER_ASKER).await;
        // What waits for a place says nothing of the name.
        let refused = silent.ask(0).await.unwrap().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        let other = silent.ask(1);
        silent.begin(1).await;
        drop(silent.let_go);
        for one in dead.into_iter().chain([other]) {
            assert!(one.await.unwrap().is_ok());
        }
        // Nobody is remembered who asks for nothing.
        silent.names.places_of("2");
        assert_eq!(silent.names.own_places.lock().len(), 1);
    }
}
