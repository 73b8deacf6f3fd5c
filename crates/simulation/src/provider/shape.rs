//! What kind of provider it is: each in the shape of an adapter, as that one declares it in its capabilities.

use std::time::Duration;

use quittance_domain::ports::{Capabilities, VoidBefore};

use crate::executor::Executor;

/// Whose ways it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// It answers at once, captures an authorization several times, and knows every operation by our name.
    Plain,
    /// As Stripe: it captures once, and releases the rest. It is asked by its own names, and where they are not known by a
    /// search that lags behind. What it cannot do is refused and leaves no trace. A key is answered as the first time.
    Stripe,
    /// As Adyen: it captures once. What follows upon an authorization is answered as received, and its result told by
    /// webhook. It cannot be asked. A key is answered as the first time.
    Adyen,
}

/// What kind of provider it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nature {
    /// Whose ways it has.
    pub shape: Shape,
    /// Whether its lookup sees every request that it has accepted.
    pub authoritative: bool,
    /// How long its lookup may miss one.
    pub window: Duration,
    /// Whether it gives operations references of its own.
    pub names: bool,
    /// How long it remembers a key; after that it carries the same request out again.
    pub keys_kept: Duration,
    /// Whether it captures an authorization several times.
    pub several_captures: bool,
}

impl Default for Nature {
    fn default() -> Self {
        Self {
            shape: Shape::Plain,
            authoritative: true,
            window: Duration::ZERO,
            names: true,
            keys_kept: Duration::from_secs(86_400),
            several_captures: true,
        }
    }
}

impl Nature {
    /// One of any shape.
    pub fn choose(executor: &Executor) -> Self {
        match executor.pick(0..10) {
            0..=2 => Self::stripe(executor),
            3..=5 => Self::adyen(executor),
            _ => Self::plain(executor),
        }
    }

    /// Most often one whose lookup can be trusted.
    fn plain(executor: &Executor) -> Self {
        let mut nature = Self::default();
        if executor.chance(300) {
            nature.authoritative = false;
            nature.keys_kept = keys_kept(executor, nature.keys_kept);
        }
        nature.names = executor.chance(800);
        if executor.chance(300) {
            nature.window = Duration::from_secs(executor.pick(1..40).into());
        }
        nature
    }

    fn stripe(executor: &Executor) -> Self {
        let nature = Self::default();
        Self {
            shape: Shape::Stripe,
            authoritative: false,
            // "In less than a minute", says its documentation of the search.
            window: Duration::from_secs(executor.pick(0..60).into()),
            keys_kept: keys_kept(executor, nature.keys_kept),
            several_captures: false,
            ..nature
        }
    }

    fn adyen(executor: &Executor) -> Self {
        Self {
            shape: Shape::Adyen,
            authoritative: false,
            keys_kept: keys_kept(executor, Duration::from_secs(7 * 86_400)),
            // Some accounts can.
            several_captures: executor.chance(200),
            ..Self::default()
        }
    }

    /// Whether a lookup asks it at all.
    pub fn can_be_asked(self) -> bool {
        match self.shape {
            Shape::Plain | Shape::Stripe => true,
            Shape::Adyen => false,
        }
    }

    /// As the adapter of this shape declares it.
    pub(super) fn capabilities(self) -> Capabilities {
        let void_before_authorization = match self.shape {
            // What cannot be asked for sure what it holds is asked to release it by our name.
            Shape::Plain if self.authoritative => VoidBefore::Named,
            Shape::Plain | Shape::Adyen => VoidBefore::Ours,
            Shape::Stripe => VoidBefore::Named,
        };
        Capabilities {
            partial_capture: true,
            several_captures: self.several_captures,
            void_before_authorization,
            authoritative_lookup: self.authoritative,
            current_lookup: match self.shape {
                Shape::Plain => self.authoritative,
                Shape::Stripe => true,
                Shape::Adyen => false,
            },
            consistency_window: match self.shape {
                Shape::Plain => self.window,
                // Not to find something proves nothing, however long it is waited.
                Shape::Stripe | Shape::Adyen => Duration::ZERO,
            },
            idempotency_key_lifetime: self.keys_kept,
        }
    }
}

/// As long as the platform says, or shorter, so that keys are forgotten within a schedule.
fn keys_kept(executor: &Executor, usual: Duration) -> Duration {
    if executor.chance(500) {
        Duration::from_secs(7_200)
    } else {
        usual
    }
}
