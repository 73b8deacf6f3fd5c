use proptest::prelude::*;

use super::super::settings::CircuitConfig;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn config() -> CircuitConfig {
    CircuitConfig {
        window_calls: 10,
        min_calls: 4,
        failure_rate_percent: 50,
        slow_call_ms: 1_000,
        slow_rate_percent: 75,
        open_ms: 1_000,
        open_growth: 2,
        max_open_ms: 3_000,
        jitter_percent: 0,
        half_open_probes: 2,
    }
}

fn breaker(config: &CircuitConfig) -> Breaker {
    Breaker::new(config.checked().unwrap())
}

fn call(breaker: &mut Breaker, health: Health, took: Duration, now: Duration) {
    let ticket = breaker.admit(now).unwrap();
    breaker.finish(ticket, health, took, now, 0);
}

/// A breaker that has just opened, at time zero.
fn opened() -> Breaker {
    let mut breaker = breaker(&config());
    for _ in 0..4 {
        call(
            &mut breaker,
            Health::Failing,
            Duration::ZERO,
            Duration::ZERO,
        );
    }
    assert_eq!(breaker.circuit(Duration::ZERO), Circuit::Open);
    breaker
}

#[test]
fn s70_it_opens_at_the_failure_rate_and_not_before_enough_calls() {
    let mut breaker = breaker(&config());
    let now = Duration::ZERO;
    for health in [Health::Failing, Health::Failing, Health::Working] {
        call(&mut breaker, health, now, now);
        assert_eq!(breaker.circuit(now), Circuit::Closed);
    }
    call(&mut breaker, Health::Working, now, now);
    assert_eq!(breaker.circuit(now), Circuit::Open, "two of four failed");
}

#[test]
fn s70_it_opens_when_most_calls_are_slow_though_none_fails() {
    let mut breaker = breaker(&config());
    let now = Duration::ZERO;
    call(&mut breaker, Health::Working, SECOND / 2, now);
    for _ in 0..3 {
        assert_eq!(breaker.circuit(now), Circuit::Closed);
        call(&mut breaker, Health::Working, SECOND, now);
    }
    assert_eq!(
        breaker.circuit(now),
        Circuit::Open,
        "three of four were slow"
    );
}

#[test]
fn only_the_last_calls_count() {
    let mut breaker = breaker(&config());
    let now = Duration::ZERO;
    for _ in 0..6 {
        call(&mut breaker, Health::Working, now, now);
    }
    for _ in 0..4 {
        call(&mut breaker, Health::Failing, now, now);
    }
    assert_eq!(breaker.circuit(now), Circuit::Closed, "four of ten failed");
    call(&mut breaker, Health::Failing, now, now);
    assert_eq!(breaker.circuit(now), Circuit::Open, "five of the last ten");
}

#[test]
fn calls_that_tell_nothing_are_not_counted() {
    let mut breaker = breaker(&config());
    let now = Duration::ZERO;
    for _ in 0..100 {
        call(&mut breaker, Health::Unclear, SECOND, now);
    }
    for _ in 0..3 {
        call(&mut breaker, Health::Failing, now, now);
    }
    assert_eq!(breaker.circuit(now), Circuit::Closed);
}

#[test]
fn s70_it_lets_so_many_probes_try_and_closes_when_all_succeed() {
    let mut breaker = opened();
    let almost = Duration::from_micros(999_999);
    assert!(breaker.admit(almost).is_none());
    assert_eq!(breaker.pause_left(almost), Duration::from_micros(1));
    assert_eq!(breaker.circuit(SECOND), Circuit::HalfOpen);
    let first = breaker.admit(SECOND).unwrap();
    let second = breaker.admit(SECOND).unwrap();
    assert!(breaker.admit(SECOND).is_none(), "two probes are enough");
    breaker.finish(first, Health::Working, Duration::ZERO, SECOND, 0);
    assert!(breaker.admit(SECOND).is_none(), "one succeeded, one runs");
    breaker.finish(second, Health::Working, Duration::ZERO, SECOND, 0);
    assert_eq!(breaker.circuit(SECOND), Circuit::Closed);
    // What opened it is forgotten.
    call(&mut breaker, Health::Failing, Duration::ZERO, SECOND);
    assert_eq!(breaker.circuit(SECOND), Circuit::Closed);
}

#[test]
fn s70_one_probe_that_fails_or_is_slow_opens_it_again_for_longer() {
    for (health, took) in [(Health::Failing, Duration::ZERO), (Health::Working, SECOND)] {
        let mut breaker = opened();
        let mut now = Duration::ZERO;
        for pause in [1, 2, 3, 3] {
            assert_eq!(breaker.pause_left(now), SECOND * pause);
            now += SECOND * pause;
            call(&mut breaker, health, took, now);
            assert_eq!(breaker.circuit(now), Circuit::Open);
        }
        // Closed in between, it begins with the shortest pause again.
        now += SECOND * 3;
        for _ in 0..2 {
            call(&mut breaker, Health::Working, Duration::ZERO, now);
        }
        for _ in 0..4 {
            call(&mut breaker, Health::Failing, Duration::ZERO, now);
        }
        assert_eq!(breaker.pause_left(now), SECOND);
    }
}

#[test]
fn a_probe_that_is_given_up_frees_its_place() {
    let mut breaker = opened();
    for _ in 0..10 {
        call(&mut breaker, Health::Unclear, SECOND * 60, SECOND);
        assert_eq!(breaker.circuit(SECOND), Circuit::HalfOpen);
    }
}

#[test]
fn what_began_before_a_change_of_state_does_not_count_after_it() {
    let mut breaker = breaker(&config());
    let now = Duration::ZERO;
    let tickets: Vec<_> = (0..20).map(|_| breaker.admit(now).unwrap()).collect();
    let mut tickets = tickets.into_iter();
    for ticket in tickets.by_ref().take(4) {
        breaker.finish(ticket, Health::Failing, now, now, 0);
    }
    let probe = breaker.admit(SECOND).unwrap();
    for (ticket, health) in tickets.zip([Health::Failing, Health::Working].into_iter().cycle()) {
        breaker.finish(ticket, health, now, SECOND, 0);
        assert_eq!(breaker.circuit(SECOND), Circuit::HalfOpen);
    }
    breaker.finish(probe, Health::Working, now, SECOND, 0);
    call(&mut breaker, Health::Working, now, SECOND);
    assert_eq!(breaker.circuit(SECOND), Circuit::Closed);
}

/// One thing that happens to a breaker.
#[derive(Debug, Clone)]
enum Event {
    Begin,
    /// The call with this number, counted around those that run, ends.
    End {
        which: usize,
        health: Health,
        took: Duration,
        chance: u32,
    },
    Pass(Duration),
}

fn event() -> impl Strategy<Value = Event> {
    let health = prop_oneof![
        Just(Health::Working),
        Just(Health::Failing),
        Just(Health::Unclear)
    ];
    let took = (0u64..2_000).prop_map(Duration::from_millis);
    let end =
        (any::<usize>(), health, took, any::<u32>()).prop_map(|(which, health, took, chance)| {
            Event::End {
                which,
                health,
                took,
                chance,
            }
        });
    prop_oneof![
        4 => Just(Event::Begin),
        4 => end,
        1 => (0u64..2_000).prop_map(|ms| Event::Pass(Duration::from_millis(ms))),
    ]
}

fn any_config() -> impl Strategy<Value = CircuitConfig> {
    let rates = (1u32..=100, 1u32..=100);
    let pauses = (100u64..3_000, 1u32..=4, 0u64..5_000, 0u32..=50);
    (1u32..=12, 1u32..=12, rates, pauses, 1u32..=4).prop_map(
        |(window, min, rates, pauses, probes)| CircuitConfig {
            window_calls: window,
            min_calls: min.min(window),
            failure_rate_percent: rates.0,
            slow_call_ms: 1_000,
            slow_rate_percent: rates.1,
            open_ms: pauses.0,
            open_growth: pauses.1,
            max_open_ms: pauses.0 + pauses.2,
            jitter_percent: pauses.3,
            half_open_probes: probes,
        },
    )
}

/// The same rules told another way: everything that happened since the last change of state is kept,
/// and counted anew each time.
struct Model {
    config: CircuitConfig,
    state: ModelState,
    changes: u64,
    openings: u32,
}

enum ModelState {
    Closed(Vec<(bool, bool)>),
    Open {
        earliest: Duration,
        latest: Duration,
    },
    HalfOpen(Vec<Option<Health>>),
}

impl Model {
    fn change(&mut self, state: ModelState) {
        self.state = state;
        self.changes += 1;
    }

    fn open(&mut self, now: Duration) {
        let grown = f64::from(self.config.open_growth).powi(i32::try_from(self.openings).unwrap());
        self.openings += 1;
        let max = Duration::from_millis(self.config.max_open_ms).as_secs_f64();
        let whole = (Duration::from_millis(self.config.open_ms).as_secs_f64() * grown).min(max);
        let least = whole * f64::from(100 - self.config.jitter_percent) / 100.0;
        let rounding = Duration::from_micros(1);
        self.change(ModelState::Open {
            earliest: now + Duration::from_secs_f64(least).saturating_sub(rounding),
            latest: now + Duration::from_secs_f64(whole) + rounding,
        });
    }

    /// A call was admitted: the change it began in, and its number among the probes.
    fn begun(&mut self, now: Duration) -> (u64, usize) {
        if let ModelState::Open { earliest, .. } = &self.state {
            assert!(now >= *earliest, "admitted during the pause");
            self.change(ModelState::HalfOpen(Vec::new()));
        }
        let mut number = 0;
        if let ModelState::HalfOpen(probes) = &mut self.state {
            number = probes.len();
            probes.push(None);
            let counting = |probe: &&Option<Health>| **probe != Some(Health::Unclear);
            let counting = probes.iter().filter(counting).count();
            let most = usize::try_from(self.config.half_open_probes).unwrap();
            assert!(counting <= most, "{counting} probes at once");
        }
        (self.changes, number)
    }

    fn refused(&self, now: Duration) {
        match &self.state {
            ModelState::Closed(_) => panic!("refused while closed"),
            ModelState::Open { latest, .. } => assert!(now <= *latest, "refused after the pause"),
            ModelState::HalfOpen(probes) => {
                let counting = |probe: &&Option<Health>| **probe != Some(Health::Unclear);
                let counting = probes.iter().filter(counting).count();
                let most = usize::try_from(self.config.half_open_probes).unwrap();
                assert_eq!(counting, most, "refused though a probe's place is free");
            }
        }
    }

    fn ended(&mut self, begun: (u64, usize), health: Health, took: Duration, now: Duration) {
        if begun.0 != self.changes {
            return;
        }
        let slow = took >= Duration::from_millis(self.config.slow_call_ms);
        match &mut self.state {
            ModelState::Closed(calls) => {
                if health == Health::Unclear {
                    return;
                }
                calls.push((health == Health::Failing, slow));
                let window = usize::try_from(self.config.window_calls).unwrap();
                let last = &calls[calls.len().saturating_sub(window)..];
                let percent = |bad: usize| bad * 100 / last.len();
                let failed = percent(last.iter().filter(|(failed, _)| *failed).count());
                let slow = percent(last.iter().filter(|(_, slow)| *slow).count());
                let reaches = |rate: usize, limit: u32| rate >= usize::try_from(limit).unwrap();
                if last.len() >= usize::try_from(self.config.min_calls).unwrap()
                    && (reaches(failed, self.config.failure_rate_percent)
                        || reaches(slow, self.config.slow_rate_percent))
                {
                    self.open(now);
                }
            }
            ModelState::HalfOpen(probes) => {
                probes[begun.1] = Some(health);
                let worked = probes
                    .iter()
                    .filter(|probe| **probe == Some(Health::Working));
                let worked = worked.count();
                let failed = health == Health::Failing || (health == Health::Working && slow);
                if failed {
                    self.open(now);
                } else if worked == usize::try_from(self.config.half_open_probes).unwrap() {
                    self.openings = 0;
                    self.change(ModelState::Closed(Vec::new()));
                }
            }
            ModelState::Open { .. } => panic!("a call of an open circuit"),
        }
    }
}

proptest! {
    /// Whatever happens in whatever order, the breaker does what the plain rules say.
    #[test]
    fn s70_it_keeps_its_rules_in_any_order_of_events(
        config in any_config(),
        events in prop::collection::vec(event(), 1..300),
    ) {
        let mut breaker = breaker(&config);
        let mut model = Model {
            config,
            state: ModelState::Closed(Vec::new()),
            changes: 0,
            openings: 0,
        };
        let mut now = Duration::ZERO;
        let mut running = Vec::new();
        for event in events {
            match event {
                Event::Begin => {
                    let admits = breaker.admits(now);
                    let ticket = breaker.admit(now);
                    prop_assert_eq!(admits, ticket.is_some());
                    match ticket {
                        Some(ticket) => running.push((ticket, model.begun(now))),
                        None => model.refused(now),
                    }
                }
                Event::End { which, health, took, chance } => {
                    if running.is_empty() {
                        continue;
                    }
                    let (ticket, begun) = running.swap_remove(which % running.len());
                    breaker.finish(ticket, health, took, now, chance);
                    model.ended(begun, health, took, now);
                }
                Event::Pass(time) => now += time,
            }
            let entered = breaker.entered();
            let expected = match &model.state {
                ModelState::Closed(_) => Circuit::Closed,
                ModelState::Open { .. } => Circuit::Open,
                ModelState::HalfOpen(_) => Circuit::HalfOpen,
            };
            prop_assert_eq!(entered, expected);
        }
    }

    /// However badly it went: once the account works again and the pause is over, the circuit closes.
    #[test]
    fn s70_it_always_comes_back(
        config in any_config(),
        events in prop::collection::vec(event(), 1..100),
    ) {
        let mut breaker = breaker(&config);
        let mut now = Duration::ZERO;
        let mut running = Vec::new();
        for event in events {
            match event {
                Event::Begin => running.extend(breaker.admit(now)),
                Event::End { which, health, took, chance } if !running.is_empty() => {
                    let ticket = running.swap_remove(which % running.len());
                    breaker.finish(ticket, health, took, now, chance);
                }
                Event::End { .. } => {}
                Event::Pass(time) => now += time,
            }
        }
        for ticket in running {
            breaker.finish(ticket, Health::Unclear, Duration::ZERO, now, 0);
        }
        now += Duration::from_millis(config.max_open_ms);
        for _ in 0..config.window_calls.max(config.half_open_probes) {
            if let Some(ticket) = breaker.admit(now) {
                breaker.finish(ticket, Health::Working, Duration::ZERO, now, 0);
            }
            now += Duration::from_millis(config.max_open_ms);
        }
        // Old failures that are still in the window may open it once more; the next probes close it.
        for _ in 0..config.half_open_probes {
            if let Some(ticket) = breaker.admit(now) {
                breaker.finish(ticket, Health::Working, Duration::ZERO, now, 0);
            }
        }
        prop_assert_eq!(breaker.circuit(now), Circuit::Closed);
    }
}
