//! Refused calls, counted until they are put on record: one entry each would let anybody fill a log that cannot be
//! emptied.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use quittance_domain::ids::ProviderAccount;

use crate::auth::Authenticated;

/// Most callers without a valid key that are told apart between two flushes.
const UNKNOWN_CALLERS_MAX: usize = 100;
/// Most callers with a valid key that are told apart between two flushes. Apart from the unknown ones, so that those
/// cannot crowd them out.
const KNOWN_CALLERS_MAX: usize = 100;

/// Whose calls were refused, and why.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RefusedCaller {
    /// The caller, where its key is valid.
    pub caller: Option<Authenticated>,
    /// The provider account that a refused webhook was for.
    pub account: Option<ProviderAccount>,
    /// From where it called; `None`: counted together, because there were too many callers.
    pub peer: Option<IpAddr>,
    /// Why: the name of an error reason.
    pub cause: &'static str,
}

/// How often, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedCalls {
    /// How many calls.
    pub count: u64,
    /// The RPC of the last one.
    pub rpc: &'static str,
    /// When the first one was refused.
    pub first: DateTime<Utc>,
    /// When the last one was refused.
    pub last: DateTime<Utc>,
}

impl RefusedCalls {
    fn and(self, later: Self) -> Self {
        Self {
            count: self.count.saturating_add(later.count),
            rpc: later.rpc,
            first: self.first.min(later.first),
            last: self.last.max(later.last),
        }
    }
}

/// The refused calls since the last flush. Cheap to clone; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<Mutex<HashMap<RefusedCaller, RefusedCalls>>>);

impl Refusals {
    /// Counts calls. Callers beyond the limits are counted together, by cause.
    pub fn count(&self, who: RefusedCaller, calls: RefusedCalls) {
        let mut counts = self.0.lock();
        let known = who.caller.is_some();
        let max = if known {
            KNOWN_CALLERS_MAX
        } else {
            UNKNOWN_CALLERS_MAX
        };
        let alike = |other: &&RefusedCaller| other.caller.is_some() == known;
        let who = if counts.contains_key(&who) || counts.keys().filter(alike).count() < max {
            who
        } else {
            RefusedCaller {
                caller: None,
                peer: None,
                ..who
            }
        };
        let counted = counts.entry(who);
        counted
            .and_modify(|known| *known = known.and(calls))
            .or_insert(calls);
    }

    /// Takes what was counted; counting begins anew.
    pub fn take(&self) -> HashMap<RefusedCaller, RefusedCalls> {
        std::mem::take(&mut *self.0.lock())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use quittance_domain::ids::TenantId;

    use super::*;

    fn who(peer: u32, key: Option<&str>) -> RefusedCaller {
        RefusedCaller {
            caller: key.map(|key| Authenticated {
                tenant: TenantId::parse("shop").unwrap(),
                key_id: key.into(),
                name: "till".into(),
                roles: crate::auth::Roles::default(),
                auth_method: "api_key",
            }),
            account: None,
            peer: Some(Ipv4Addr::from_bits(peer).into()),
            cause: "INVALID_CREDENTIALS",
        }
    }

    fn calls(rpc: &'static str, second: i64) -> RefusedCalls {
        let at = DateTime::from_timestamp(second, 0).unwrap();
        RefusedCalls {
            count: 1,
            rpc,
            first: at,
            last: at,
        }
    }

    #[test]
    fn calls_of_one_caller_are_one_count() {
        let refusals = Refusals::default();
        refusals.count(who(1, None), calls("a", 5));
        refusals.clone().count(who(1, None), calls("b", 9));
        refusals.count(who(2, None), calls("c", 7));
        let taken = refusals.take();
        assert_eq!(taken.len(), 2);
        let expected = RefusedCalls {
            count: 2,
            last: calls("b", 9).last,
            rpc: "b",
            ..calls("a", 5)
        };
        assert_eq!(taken[&who(1, None)], expected);
        assert!(refusals.take().is_empty());
    }

    #[test]
    fn i12_however_many_call_the_counts_stay_bounded_and_complete() {
        let refusals = Refusals::default();
        for peer in 0..10_000 {
            refusals.count(who(peer, None), calls("a", 1));
        }
        refusals.count(who(0, None), calls("a", 1));
        refusals.count(who(1, Some("key")), calls("a", 1));
        let taken = refusals.take();
        assert_eq!(taken.len(), UNKNOWN_CALLERS_MAX + 2);
        assert_eq!(taken.values().map(|calls| calls.count).sum::<u64>(), 10_002);
        assert_eq!(taken[&who(0, None)].count, 2);
        assert_eq!(taken[&who(1, Some("key"))].count, 1, "not crowded out");
    }
}
