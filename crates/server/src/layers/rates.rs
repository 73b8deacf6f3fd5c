//! How many calls a tenant may make: one that makes too many does not take the service from the others.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use parking_lot::RwLock;
use quittance_domain::ids::TenantId;

/// Tenants remembered at once. A tenant that has not called for a while is as one that never did, and is forgotten.
/// Should more than this call at the same time, all are forgotten: each may make its burst again.
const TENANTS_MAX: usize = 10_000;

type Limiter = DefaultKeyedRateLimiter<TenantId>;

/// The rates of all tenants.
#[derive(Debug)]
pub struct TenantRates(Option<Limited>);

#[derive(Debug)]
struct Limited {
    quota: Quota,
    limiter: RwLock<Arc<Limiter>>,
    clock: DefaultClock,
    tenants_max: usize,
}

impl TenantRates {
    /// So many calls of a tenant each second (`None`: no limit), and so many at once after a pause.
    pub fn new(per_second: Option<NonZeroU32>, burst: NonZeroU32) -> Self {
        Self::remembering(TENANTS_MAX, per_second, burst)
    }

    fn remembering(tenants_max: usize, per_second: Option<NonZeroU32>, burst: NonZeroU32) -> Self {
        Self(per_second.map(|per_second| {
            let quota = Quota::per_second(per_second).allow_burst(burst);
            Limited {
                quota,
                limiter: RwLock::new(Arc::new(RateLimiter::hashmap(quota))),
                clock: DefaultClock::default(),
                tenants_max,
            }
        }))
    }

    /// Counts a call, or says how long to wait before the next one is let in.
    ///
    /// # Errors
    /// The wait.
    pub fn admit(&self, tenant: &TenantId) -> Result<(), Duration> {
        let Some(limited) = &self.0 else {
            return Ok(());
        };
        let counted = limited.limiter().check_key(tenant);
        counted.map_err(|not_until| not_until.wait_time_from(limited.clock.now()))
    }
}

impl Limited {
    fn limiter(&self) -> Arc<Limiter> {
        let limiter = Arc::clone(&self.limiter.read());
        if limiter.len() <= self.tenants_max {
            return limiter;
        }
        limiter.retain_recent();
        if limiter.len() <= self.tenants_max {
            return limiter;
        }
        let fresh = Arc::new(RateLimiter::hashmap(self.quota));
        *self.limiter.write() = Arc::clone(&fresh);
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    fn rates(tenants_max: usize, per_second: u32, burst: u32) -> TenantRates {
        let burst = NonZeroU32::new(burst).unwrap();
        TenantRates::remembering(tenants_max, NonZeroU32::new(per_second), burst)
    }

    #[test]
    fn s69_a_tenant_has_its_burst_and_then_waits_and_others_do_not() {
        let rates = rates(10, 1, 3);
        for _ in 0..3 {
            assert_eq!(rates.admit(&tenant("a")), Ok(()));
        }
        // Each second that the test's machine takes gives one more.
        let refused = (0..1_000).find_map(|_| rates.admit(&tenant("a")).err());
        let wait = refused.unwrap();
        assert!(
            wait > Duration::ZERO && wait <= Duration::from_secs(1),
            "{wait:?}"
        );
        assert_eq!(rates.admit(&tenant("b")), Ok(()));
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        let rates = rates(10, 0, 1);
        for _ in 0..1_000 {
            assert_eq!(rates.admit(&tenant("a")), Ok(()));
        }
    }

    #[test]
    fn i12_no_more_tenants_are_remembered_than_the_limit() {
        // None is forgotten for being idle: each takes an hour to be as new.
        let rates = rates(5, 1, 3_600);
        for number in 0..100 {
            assert_eq!(rates.admit(&tenant(&format!("t{number}"))), Ok(()));
            let limited = rates.0.as_ref().unwrap();
            assert!(limited.limiter.read().len() <= 6);
        }
    }
}
