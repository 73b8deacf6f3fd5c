//! A single-threaded executor: one seed decides which task runs next, and time passes only when none can.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use quittance_domain::ports::{Clock, Saturated, Spawn, Task};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Which process a task belongs to; a crash drops all tasks of one.
pub type Process = usize;

/// The process of what never crashes: the database, the provider and the network.
pub const WORLD: Process = usize::MAX;

/// Most polls of one schedule: more than any that ends needs.
const MAX_POLLS: u64 = 2_000_000;

/// In the past of every real clock, so that what is due in a world is due to a real database as well.
fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap_or_default()
}

struct Running {
    process: Process,
    on_demand: bool,
    future: Option<Task>,
}

struct State {
    now: DateTime<Utc>,
    rng: StdRng,
    tasks: BTreeMap<u64, Running>,
    next_task: u64,
    timers: BinaryHeap<Reverse<(DateTime<Utc>, u64)>>,
    sleepers: BTreeMap<u64, Waker>,
    next_timer: u64,
    /// Whether the task that runs belongs to what somebody asked for.
    on_demand: bool,
    /// Tasks that would run if their process were not stopped.
    stopped: BTreeMap<Process, Vec<u64>>,
}

impl State {
    /// A task to be run now; `None` where it has ended, runs, or belongs to a process that is stopped.
    fn take(&mut self, id: u64) -> Option<Task> {
        let task = self.tasks.get_mut(&id)?;
        self.on_demand = task.on_demand;
        if let Some(waiting) = self.stopped.get_mut(&task.process) {
            waiting.push(id);
            return None;
        }
        task.future.take()
    }
}

/// The executor; also the clock. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    state: Arc<Mutex<State>>,
    woken: Arc<Mutex<Vec<u64>>>,
}

impl Executor {
    /// An executor whose every choice follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let state = State {
            now: start(),
            rng: StdRng::seed_from_u64(seed),
            tasks: BTreeMap::new(),
            next_task: 0,
            timers: BinaryHeap::new(),
            sleepers: BTreeMap::new(),
            next_timer: 0,
            on_demand: false,
            stopped: BTreeMap::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            woken: Arc::default(),
        }
    }

    /// Starts a task of a process; it belongs to what somebody asked for where the task does that starts it.
    pub fn spawn(&self, process: Process, future: impl Future<Output = ()> + Send + 'static) {
        let on_demand = self.on_demand();
        self.start_task(process, on_demand, future);
    }

    /// Starts a task of a process for what somebody asks for, or tells.
    pub fn spawn_on_demand(
        &self,
        process: Process,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        self.start_task(process, true, future);
    }

    /// Whether the task that runs belongs to what somebody asked for, or told; rather than to what a server does by itself.
    pub fn on_demand(&self) -> bool {
        self.state.lock().on_demand
    }

    fn start_task(
        &self,
        process: Process,
        on_demand: bool,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut state = self.state.lock();
        let id = state.next_task;
        state.next_task += 1;
        state.tasks.insert(
            id,
            Running {
                process,
                on_demand,
                future: Some(Box::pin(future)),
            },
        );
        self.woken.lock().push(id);
    }

    /// Drops every task of a process, wherever it awaits.
    pub fn crash(&self, process: Process) {
        let dropped: Vec<_> = {
            let mut state = self.state.lock();
            let ids: Vec<_> = state
                .tasks
                .iter()
                .filter(|(_, task)| task.process == process && task.future.is_some())
                .map(|(id, _)| *id)
                .collect();
            ids.iter().filter_map(|id| state.tasks.remove(id)).collect()
        };
        drop(dropped);
    }

    /// Stops a process where it awaits: none of its tasks runs until it goes on.
    pub fn stop(&self, process: Process) {
        self.state.lock().stopped.entry(process).or_default();
    }

    /// Lets a process go on that was stopped.
    pub fn go_on(&self, process: Process) {
        let waiting = self.state.lock().stopped.remove(&process);
        self.woken.lock().extend(waiting.unwrap_or_default());
    }

    /// Drops every task, and with them all that they hold: tasks that never end hold their executor.
    pub fn end(&self) {
        let tasks = std::mem::take(&mut self.state.lock().tasks);
        drop(tasks);
        self.woken.lock().clear();
    }

    /// A number from the seed, in `range`.
    pub fn pick(&self, range: std::ops::Range<u32>) -> u32 {
        self.state.lock().rng.random_range(range)
    }

    /// Whether something with this chance in a thousand happens.
    pub fn chance(&self, per_mille: u32) -> bool {
        self.pick(0..1_000) < per_mille
    }

    /// Random bits from the seed.
    pub fn bits(&self) -> u128 {
        self.state.lock().rng.random()
    }

    /// Waits a random while, up to `limit`.
    pub async fn wait_up_to(&self, limit: Duration) {
        let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).max(1);
        let wait = self.pick(0..millis);
        self.wait(Duration::from_millis(wait.into())).await;
    }

    /// Waits.
    pub async fn wait(&self, duration: Duration) {
        let until = self.now() + TimeDelta::from_std(duration).unwrap_or_default();
        Sleep {
            executor: self.clone(),
            until,
            timer: None,
        }
        .await;
    }

    /// The virtual time at which every world begins.
    pub fn start(&self) -> DateTime<Utc> {
        start()
    }

    /// The virtual time.
    pub fn now(&self) -> DateTime<Utc> {
        self.state.lock().now
    }

    /// Runs until nothing can ever run again. False where that takes more than two million polls.
    pub fn run(&self) -> bool {
        let mut ready: Vec<u64> = Vec::new();
        for _ in 0..MAX_POLLS {
            ready.append(&mut self.woken.lock());
            if ready.is_empty() {
                if !self.pass_time() {
                    return true;
                }
                continue;
            }
            let at =
                usize::try_from(self.pick(0..u32::try_from(ready.len()).unwrap_or(1))).unwrap_or(0);
            let id = ready.swap_remove(at);
            ready.retain(|other| *other != id);
            self.poll(id);
        }
        false
    }

    fn poll(&self, id: u64) {
        let Some(mut future) = self.state.lock().take(id) else {
            return;
        };
        let waker = Waker::from(Arc::new(TaskWaker {
            id,
            woken: Arc::clone(&self.woken),
        }));
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        self.state.lock().on_demand = false;
        match polled {
            Poll::Ready(()) => drop(self.state.lock().tasks.remove(&id)),
            Poll::Pending => {
                if let Some(task) = self.state.lock().tasks.get_mut(&id) {
                    task.future = Some(future);
                }
            }
        }
    }

    /// Moves time on to the next timer; false where there is none.
    fn pass_time(&self) -> bool {
        let mut state = self.state.lock();
        let Some(Reverse((until, timer))) = state.timers.pop() else {
            return false;
        };
        state.now = state.now.max(until);
        let waker = state.sleepers.remove(&timer);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }
}

struct TaskWaker {
    id: u64,
    woken: Arc<Mutex<Vec<u64>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.woken.lock().push(self.id);
    }
}

struct Sleep {
    executor: Executor,
    until: DateTime<Utc>,
    timer: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let executor = self.executor.clone();
        let mut state = executor.state.lock();
        // The first poll always waits, so that even a wait of nothing lets others run.
        if let Some(timer) = self.timer {
            if state.now >= self.until && !state.sleepers.contains_key(&timer) {
                return Poll::Ready(());
            }
            state.sleepers.insert(timer, context.waker().clone());
            return Poll::Pending;
        }
        let timer = state.next_timer;
        state.next_timer += 1;
        state.timers.push(Reverse((self.until, timer)));
        state.sleepers.insert(timer, context.waker().clone());
        self.timer = Some(timer);
        Poll::Pending
    }
}

#[async_trait]
impl Clock for Executor {
    fn now(&self) -> DateTime<Utc> {
        Self::now(self)
    }

    async fn sleep(&self, duration: Duration) {
        self.wait(duration).await;
    }
}

/// Starts tasks of one process.
pub struct Spawner {
    /// The executor.
    pub executor: Executor,
    /// Whose tasks.
    pub process: Process,
}

impl Spawn for Spawner {
    fn spawn(&self, task: Task) -> Result<(), Saturated> {
        self.executor.spawn(self.process, task);
        Ok(())
    }
}
