//! What happens to a direction, and how far a connection is with it.

use std::sync::Arc;
use std::time::Duration;

/// How a connection is cut, on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It is closed, as by a program that ends.
    Close,
    /// It is reset (RST), as by a machine that knows nothing of it. On a Unix socket: closed.
    Reset,
}

/// From which byte on something happens.
#[derive(Debug, Clone)]
pub(super) enum Mark {
    /// The next one of each connection, counted from when the plan was set.
    Next,
    /// The first one of this text, every time it comes.
    Text(Arc<[u8]>),
    /// The next one after this text was forwarded in the other direction, every time.
    AnswerTo(Arc<[u8]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Pass,
    Hold,
    Cut(Cut),
    Swallow,
}

/// What happens to a direction: from a byte on, something is done with the bytes.
///
/// Where the byte is, is said by the constructor and moved by [`Plan::skip`]. Every connection is
/// concerned, each with a count of its own, unless the plan is for [`Plan::once`].
#[derive(Debug, Clone)]
pub struct Plan {
    pub(super) mark: Mark,
    pub(super) skip: u64,
    pub(super) action: Action,
    pub(super) once: bool,
}

impl Plan {
    /// Everything is forwarded.
    pub fn pass() -> Self {
        Self::new(Mark::Next, Action::Pass)
    }

    /// Bytes are accepted and go nowhere, and so does the end of the stream.
    pub fn swallow() -> Self {
        Self::new(Mark::Next, Action::Swallow)
    }

    /// A connection is cut as soon as this many bytes were forwarded on it since the plan was set. With 0:
    /// when the first one comes, which is not forwarded.
    pub fn cut_after(bytes: u64, how: Cut) -> Self {
        Self::new(Mark::Next, Action::Cut(how)).skip(bytes)
    }

    /// A connection is cut where this text begins. (What of it came in an earlier chunk has been forwarded.)
    pub fn cut_at(text: impl AsRef<[u8]>, how: Cut) -> Self {
        Self::new(Mark::Text(text.as_ref().into()), Action::Cut(how))
    }

    /// A connection is cut when the first byte comes after this text was forwarded in the other direction:
    /// the answer to it is lost.
    pub fn cut_answer_to(text: impl AsRef<[u8]>, how: Cut) -> Self {
        Self::new(Mark::AnswerTo(text.as_ref().into()), Action::Cut(how))
    }

    /// Everything from the next byte on is held.
    pub fn hold() -> Self {
        Self::new(Mark::Next, Action::Hold)
    }

    /// Everything is held from where this text begins. (What of it came in an earlier chunk has been
    /// forwarded.)
    pub fn hold_at(text: impl AsRef<[u8]>) -> Self {
        Self::new(Mark::Text(text.as_ref().into()), Action::Hold)
    }

    /// Everything is held that comes after this text was forwarded in the other direction: the answer to it.
    pub fn hold_answer_to(text: impl AsRef<[u8]>) -> Self {
        Self::new(Mark::AnswerTo(text.as_ref().into()), Action::Hold)
    }

    /// So many bytes later.
    #[must_use]
    pub fn skip(mut self, bytes: u64) -> Self {
        self.skip = bytes;
        self
    }

    /// It happens to the first connection that gets there, and to no other.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    fn new(mark: Mark, action: Action) -> Self {
        Self {
            mark,
            skip: 0,
            action,
            once: false,
        }
    }
}

/// A direction's plan and what else was said about it.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) plan: Plan,
    /// Which plan it is: counts begin anew with each.
    pub(super) generation: u64,
    /// Whether a plan for once has happened.
    pub(super) used: bool,
    pub(super) delay: Duration,
    /// How often what is held was released, and how often discarded.
    pub(super) releases: u64,
    pub(super) discards: u64,
    pub(super) discard: Cut,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            plan: Plan::pass(),
            generation: 0,
            used: false,
            delay: Duration::ZERO,
            releases: 0,
            discards: 0,
            discard: Cut::Close,
        }
    }
}

impl Lane {
    pub(super) fn set(&mut self, plan: Plan) {
        self.plan = plan;
        self.generation += 1;
        self.used = false;
    }

    pub(super) fn release(&mut self, plan: Plan) {
        self.set(plan);
        self.releases += 1;
    }

    pub(super) fn discard(&mut self, how: Cut) {
        self.set(Plan::pass());
        self.discards += 1;
        self.discard = how;
    }
}

/// Finds a text in a stream of chunks.
#[derive(Debug, Default)]
pub(super) struct Finder {
    /// The end of the chunks before, shorter than the text.
    tail: Vec<u8>,
}

/// Where a text begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// In the chunk.
    pub(super) at: usize,
    /// How much of the text was in earlier chunks.
    pub(super) before: usize,
}

impl Finder {
    pub(super) fn find(&mut self, chunk: &[u8], text: &[u8]) -> Option<Place> {
        let earlier = self.tail.len();
        self.tail.extend_from_slice(chunk);
        let found = self
            .tail
            .windows(text.len().max(1))
            .position(|window| window == text);
        let kept = text.len().saturating_sub(1).min(self.tail.len());
        self.tail.drain(..self.tail.len() - kept);
        let found = found?;
        // It is found once.
        self.tail.clear();
        Some(Place {
            at: found.saturating_sub(earlier),
            before: earlier.saturating_sub(found),
        })
    }
}

/// How far a connection is with the plan of a direction.
#[derive(Debug)]
pub(super) enum Progress {
    /// The mark has not come.
    Watching(Finder),
    /// So many bytes are left until the action.
    Counting(u64),
    /// It swallows.
    Swallowing,
    /// Nothing happens any more.
    Done,
}

impl Progress {
    pub(super) fn of(plan: &Plan) -> Self {
        match (&plan.mark, plan.action) {
            (_, Action::Pass) => Self::Done,
            (Mark::Next, _) => Self::Counting(plan.skip),
            (Mark::Text(_) | Mark::AnswerTo(_), _) => Self::Watching(Finder::default()),
        }
    }

    /// The place in the chunk where the plan's action is due. `asked`: whether the other direction has
    /// forwarded what an answer is waited for.
    pub(super) fn due(&mut self, plan: &Plan, asked: bool, chunk: &[u8]) -> Option<usize> {
        let mut from = 0;
        if let Self::Watching(finder) = self {
            let place = match &plan.mark {
                Mark::Text(text) => finder.find(chunk, text)?,
                Mark::AnswerTo(_) if asked => Place { at: 0, before: 0 },
                Mark::AnswerTo(_) | Mark::Next => return None,
            };
            from = place.at;
            let before = u64::try_from(place.before).unwrap_or(u64::MAX);
            *self = Self::Counting(plan.skip.saturating_sub(before));
        }
        match self {
            Self::Watching(_) | Self::Done => None,
            Self::Swallowing => Some(0),
            Self::Counting(left) => {
                let rest = chunk.len() - from;
                let due = usize::try_from(*left)
                    .ok()
                    .filter(|left| match plan.action {
                        // At once after the last byte: there may be no further one.
                        Action::Cut(_) => *left <= rest,
                        Action::Pass | Action::Hold | Action::Swallow => *left < rest,
                    });
                if due.is_none() {
                    *left = left.saturating_sub(u64::try_from(rest).unwrap_or(u64::MAX));
                }
                due.map(|due| from + due)
            }
        }
    }
}
