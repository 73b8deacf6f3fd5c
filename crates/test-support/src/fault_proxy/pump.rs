//! Moves bytes from one side of a connection to the other, as the plan of the direction says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::plan::{Action, Finder, Lane, Mark, Progress};
use super::shared::{Control, Counters, Shared};
use super::{Cut, Direction};

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;
/// Bytes held of one connection before its sender has to wait.
const MAX_HELD: usize = 1024 * 1024;

/// Forwards both ways until both have ended, or the connection is to be cut; says how it is closed.
/// `cuts` is how often connections had been cut when this one was accepted.
pub(super) async fn relay<S>(
    client: &mut TcpStream,
    server: &mut S,
    shared: &Shared,
    counters: &Counters,
    cuts: u64,
) -> Cut
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let asked = Asked::default();
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = tokio::io::split(server);
    let up = Pump::new(Direction::ToServer, shared, counters, &asked);
    let down = Pump::new(Direction::ToClient, shared, counters, &asked);
    let both = async {
        tokio::try_join!(
            up.run(from_client, to_server),
            down.run(from_server, to_client)
        )
    };
    tokio::select! {
        ended = both => ended.err().unwrap_or(Cut::Close),
        how = cut_by_order(shared.control.subscribe(), cuts) => how,
    }
}

async fn cut_by_order(mut control: watch::Receiver<Control>, before: u64) -> Cut {
    match control.wait_for(|control| control.cuts != before).await {
        Ok(control) => control.cut,
        Err(_) => Cut::Close,
    }
}

/// For each direction the generation of its plan whose text the other direction has forwarded, plus 1.
#[derive(Default)]
struct Asked {
    to_server: AtomicU64,
    to_client: AtomicU64,
}

impl Asked {
    fn of(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}

struct Pump<'a> {
    direction: Direction,
    control: watch::Receiver<Control>,
    shared: &'a Shared,
    counters: &'a Counters,
    asked: &'a Asked,
    /// How far this connection is with the plan of that generation.
    generation: u64,
    progress: Progress,
    /// Looks for what the other direction wants to hold the answer to.
    question: (u64, Finder),
}

/// Counts a connection as held while it is.
struct Holding<'a>(&'a Shared, Direction);

impl<'a> Holding<'a> {
    fn new(shared: &'a Shared, direction: Direction) -> Self {
        shared.held.send_modify(|held| *held.of(direction) += 1);
        Self(shared, direction)
    }
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        self.0.held.send_modify(|held| *held.of(self.1) -= 1);
    }
}

impl<'a> Pump<'a> {
    fn new(
        direction: Direction,
        shared: &'a Shared,
        counters: &'a Counters,
        asked: &'a Asked,
    ) -> Self {
        let control = shared.control.subscribe();
        let lane = control.borrow().lane(direction).clone();
        Self {
            direction,
            control,
            shared,
            counters,
            asked,
            generation: lane.generation,
            progress: Progress::of(&lane.plan),
            question: (0, Finder::default()),
        }
    }

    /// Until the end of the stream, which is forwarded; or until the connection is to be cut.
    async fn run<R, W>(mut self, mut from: R, mut to: W) -> Result<(), Cut>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = from.read(&mut buffer).await.map_err(|_| Cut::Reset)?;
            let chunk = buffer.get(..read).unwrap_or_default();
            let lane = self.lane();
            if !lane.delay.is_zero() {
                tokio::time::sleep(lane.delay).await;
            }
            if chunk.is_empty() {
                self.until_not_swallowing().await?;
                return to.shutdown().await.map_err(|_| Cut::Close);
            }
            match self.due(chunk) {
                None => self.forward(chunk, &mut to).await?,
                Some((at, action)) => {
                    let (before, rest) = chunk.split_at(at);
                    self.forward(before, &mut to).await?;
                    match action {
                        Action::Pass => self.forward(rest, &mut to).await?,
                        Action::Swallow => self.shared.swallowed.add(self.direction, rest.len()),
                        Action::Cut(how) => return Err(how),
                        Action::Hold => {
                            let held = self.hold(rest.to_vec(), &mut from).await?;
                            self.forward(&held, &mut to).await?;
                        }
                    }
                }
            }
        }
    }

    fn lane(&self) -> Lane {
        self.control.borrow().lane(self.direction).clone()
    }

    async fn forward<W: AsyncWrite + Unpin>(
        &mut self,
        bytes: &[u8],
        to: &mut W,
    ) -> Result<(), Cut> {
        if bytes.is_empty() {
            return Ok(());
        }
        // Before they are forwarded: the answer, and who looks at the counters after it, may be there at once.
        self.note_question(bytes);
        self.counters.add(self.direction, bytes.len());
        self.shared.total.add(self.direction, bytes.len());
        to.write_all(bytes).await.map_err(|_| Cut::Close)?;
        to.flush().await.map_err(|_| Cut::Close)
    }

    /// Tells the other direction if these bytes hold what it wants to act on the answer to.
    fn note_question(&mut self, bytes: &[u8]) {
        let other = self.direction.other();
        let (generation, text) = {
            let control = self.control.borrow();
            let lane = control.lane(other);
            let Mark::AnswerTo(text) = &lane.plan.mark else {
                return;
            };
            (lane.generation, Arc::clone(text))
        };
        if self.question.0 != generation {
            self.question = (generation, Finder::default());
        }
        if self.question.1.find(bytes, &text).is_some() {
            self.asked
                .of(other)
                .store(generation + 1, Ordering::Release);
        }
    }

    /// The place in the chunk where something is to be done, and what.
    fn due(&mut self, chunk: &[u8]) -> Option<(usize, Action)> {
        let lane = self.lane();
        if self.generation != lane.generation {
            self.generation = lane.generation;
            self.progress = Progress::of(&lane.plan);
        }
        let swallowing = matches!(self.progress, Progress::Swallowing);
        let asked = self.asked.of(self.direction);
        let is_asked = asked.load(Ordering::Acquire) == lane.generation + 1;
        let at = self.progress.due(&lane.plan, is_asked, chunk)?;
        if swallowing {
            return Some((at, Action::Swallow));
        }
        let mine = self.take(&lane);
        let again = match (lane.plan.action, &lane.plan.mark) {
            (Action::Swallow, _) if mine => Progress::Swallowing,
            _ if lane.plan.once => Progress::Done,
            (_, Mark::Next) => Progress::Done,
            (_, Mark::Text(_) | Mark::AnswerTo(_)) => Progress::of(&lane.plan),
        };
        self.progress = again;
        asked.store(0, Ordering::Release);
        mine.then_some((at, lane.plan.action))
    }

    /// Whether the plan's action is for this connection: of a plan for once, only the first gets it.
    fn take(&self, lane: &Lane) -> bool {
        if !lane.plan.once {
            return true;
        }
        self.shared.control.send_if_modified(|control| {
            let now = control.lane_mut(self.direction);
            let free = now.generation == lane.generation && !now.used;
            now.used |= free;
            free
        })
    }

    /// Keeps bytes back, those included that are still coming, until they are released or discarded.
    async fn hold<R: AsyncRead + Unpin>(
        &mut self,
        mut held: Vec<u8>,
        from: &mut R,
    ) -> Result<Vec<u8>, Cut> {
        let begun = self.lane();
        let _holding = Holding::new(self.shared, self.direction);
        let mut buffer = vec![0; CHUNK];
        let mut ended = false;
        loop {
            let now = self.lane();
            if now.discards != begun.discards {
                return Err(now.discard);
            }
            if now.releases != begun.releases {
                return Ok(held);
            }
            tokio::select! {
                changed = self.control.changed() => changed.map_err(|_| Cut::Close)?,
                // Read on, so that nothing is lost if the sender is killed.
                read = from.read(&mut buffer), if !ended && held.len() < MAX_HELD => {
                    let read = read.unwrap_or(0);
                    ended = read == 0;
                    held.extend_from_slice(buffer.get(..read).unwrap_or_default());
                }
            }
        }
    }

    /// A direction that swallows does not end until it has another plan.
    async fn until_not_swallowing(&mut self) -> Result<(), Cut> {
        loop {
            // A chunk of nothing: sees to it that the newest plan is the one that counts.
            let lane = self.lane();
            if lane.generation != self.generation {
                self.generation = lane.generation;
                self.progress = Progress::of(&lane.plan);
            }
            let swallows = match self.progress {
                Progress::Swallowing => true,
                Progress::Counting(0) => lane.plan.action == Action::Swallow && !lane.used,
                Progress::Counting(_) | Progress::Watching(_) | Progress::Done => false,
            };
            if !swallows {
                return Ok(());
            }
            self.control.changed().await.map_err(|_| Cut::Close)?;
        }
    }
}
