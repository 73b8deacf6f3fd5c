//! Tests of endpoints: few at once, because each holds a call open for as long as its receiver likes.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use quittance_domain::ids::EndpointId;

/// Most endpoints that one server tests at once, each once.
const MAX_TRIALS: usize = 8;

/// The endpoints that are being tested.
#[derive(Debug, Clone, Default)]
pub struct Trials(Arc<Mutex<HashSet<EndpointId>>>);

/// The right to test an endpoint; given back when dropped.
#[derive(Debug)]
pub struct Trial {
    endpoint: EndpointId,
    running: Trials,
}

impl Trials {
    /// Begins a test, unless the endpoint is tested already or too many others are.
    pub fn begin(&self, endpoint: EndpointId) -> Option<Trial> {
        let mut running = self.0.lock();
        let free = running.len() < MAX_TRIALS && running.insert(endpoint);
        free.then(|| Trial {
            endpoint,
            running: self.clone(),
        })
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.running.0.lock().remove(&self.endpoint);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn i12_an_endpoint_is_tested_once_at_a_time_and_few_are_at_once() {
        let endpoint =
            |number: usize| EndpointId(Uuid::from_u64_pair(0, u64::try_from(number).unwrap()));
        let trials = Trials::default();
        let first = trials.begin(endpoint(0)).unwrap();
        assert!(trials.begin(endpoint(0)).is_none(), "it is tested already");
        let mut others: Vec<_> = (1..MAX_TRIALS)
            .map(|number| trials.begin(endpoint(number)).unwrap())
            .collect();
        assert!(trials.begin(endpoint(MAX_TRIALS)).is_none(), "too many");
        drop(first);
        others.push(trials.begin(endpoint(MAX_TRIALS)).unwrap());
        assert!(trials.begin(endpoint(0)).is_none());
        others.clear();
        assert!(trials.begin(endpoint(0)).is_some());
    }
}
