//! The circuit breaker of one account, as a pure state machine: time and chance come in as arguments.
//!
//! Closed, it watches the last calls. Open, it refuses all for a while. Half-open, it lets a few try.

use std::collections::VecDeque;
use std::time::Duration;

use quittance_domain::ports::Circuit;

use super::settings::CircuitSettings;

/// What a call told about the account's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// The provider works: it answered, even if with a refusal.
    Working,
    /// The provider is out of reach, or fails.
    Failing,
    /// Nothing: the call was given up, or the answer speaks of something else.
    Unclear,
}

/// That a call was admitted. To be handed to [`Breaker::finish`], whatever became of the call: a probe
/// that is never finished would keep its place forever.
#[derive(Debug)]
#[must_use]
pub(super) struct Ticket {
    epoch: u64,
}

/// One circuit. Times are those of one monotonic clock, whose origin does not matter.
#[derive(Debug)]
pub(super) struct Breaker {
    settings: CircuitSettings,
    state: State,
    /// Counts changes of state. What a call tells that began in an earlier epoch is old news.
    epoch: u64,
    /// How often it has opened since it was last closed.
    openings: u32,
}

#[derive(Debug)]
enum State {
    Closed(Window),
    Open { until: Duration },
    HalfOpen { running: u32, succeeded: u32 },
}

impl Breaker {
    /// A closed circuit.
    pub(super) fn new(settings: CircuitSettings) -> Self {
        Self {
            settings,
            state: State::Closed(Window::default()),
            epoch: 0,
            openings: 0,
        }
    }

    /// The state. An open circuit whose pause has passed is half-open: its next call is a probe.
    pub(super) fn circuit(&self, now: Duration) -> Circuit {
        match &self.state {
            State::Closed(_) => Circuit::Closed,
            State::Open { until } if now < *until => Circuit::Open,
            State::Open { .. } | State::HalfOpen { .. } => Circuit::HalfOpen,
        }
    }

    /// Whether a call would be admitted now.
    pub(super) fn admits(&self, now: Duration) -> bool {
        match &self.state {
            State::Closed(_) => true,
            State::Open { until } => now >= *until,
            State::HalfOpen { running, succeeded } => {
                running.saturating_add(*succeeded) < self.settings.half_open_probes()
            }
        }
    }

    /// How much of the pause is left: zero unless open.
    pub(super) fn pause_left(&self, now: Duration) -> Duration {
        match &self.state {
            State::Open { until } => until.saturating_sub(now),
            State::Closed(_) | State::HalfOpen { .. } => Duration::ZERO,
        }
    }

    /// Admits a call, or refuses it: `None`.
    pub(super) fn admit(&mut self, now: Duration) -> Option<Ticket> {
        if !self.admits(now) {
            return None;
        }
        match &mut self.state {
            State::Closed(_) => {}
            State::Open { .. } => self.enter(State::HalfOpen {
                running: 1,
                succeeded: 0,
            }),
            State::HalfOpen { running, .. } => *running = running.saturating_add(1),
        }
        Some(Ticket { epoch: self.epoch })
    }

    /// Takes in what a call told, and how long it took. `chance` is drawn evenly from all of `u32`, and
    /// shortens the pause if this opens the circuit.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a ticket is good for one call"
    )]
    pub(super) fn finish(
        &mut self,
        ticket: Ticket,
        health: Health,
        took: Duration,
        now: Duration,
        chance: u32,
    ) {
        let Ticket { epoch } = ticket;
        if epoch != self.epoch {
            return;
        }
        let slow = self.settings.is_slow(took);
        match &mut self.state {
            State::Closed(window) => {
                let failed = match health {
                    Health::Unclear => return,
                    Health::Working => false,
                    Health::Failing => true,
                };
                window.push(Call { failed, slow }, self.settings.window_calls());
                if self
                    .settings
                    .opens(window.calls(), window.failed, window.slow)
                {
                    self.open(now, chance);
                }
            }
            State::HalfOpen { running, succeeded } => {
                *running = running.saturating_sub(1);
                match (health, slow) {
                    (Health::Unclear, _) => {}
                    // A probe as slow as what may have opened the circuit does not close it.
                    (Health::Failing, _) | (Health::Working, true) => self.open(now, chance),
                    (Health::Working, false) => {
                        *succeeded = succeeded.saturating_add(1);
                        if *succeeded >= self.settings.half_open_probes() {
                            self.openings = 0;
                            self.enter(State::Closed(Window::default()));
                        }
                    }
                }
            }
            // Every ticket of this epoch was refused: there is none.
            State::Open { .. } => {}
        }
    }

    fn open(&mut self, now: Duration, chance: u32) {
        self.openings = self.openings.saturating_add(1);
        let until = now.saturating_add(self.settings.pause(self.openings, chance));
        self.enter(State::Open { until });
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// The state as last entered: unlike [`Breaker::circuit`] it does not change by time alone.
    pub(super) fn entered(&self) -> Circuit {
        match &self.state {
            State::Closed(_) => Circuit::Closed,
            State::Open { .. } => Circuit::Open,
            State::HalfOpen { .. } => Circuit::HalfOpen,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Call {
    failed: bool,
    slow: bool,
}

/// The last calls, and how many of them failed or were slow.
#[derive(Debug, Default)]
struct Window {
    last: VecDeque<Call>,
    failed: u32,
    slow: u32,
}

impl Window {
    fn push(&mut self, call: Call, limit: u32) {
        if self.calls() >= limit
            && let Some(oldest) = self.last.pop_front()
        {
            self.failed -= u32::from(oldest.failed);
            self.slow -= u32::from(oldest.slow);
        }
        self.failed += u32::from(call.failed);
        self.slow += u32::from(call.slow);
        self.last.push_back(call);
    }

    fn calls(&self) -> u32 {
        // Never more than the window's limit, which is a u32.
        u32::try_from(self.last.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
