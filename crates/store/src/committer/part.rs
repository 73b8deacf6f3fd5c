//! Committing a part of a batch: executing it until its members' fates are known, and answering them.

use std::collections::HashSet;
use std::time::Duration;

use diesel_async::{AsyncPgConnection, RunQueryDsl};
use quittance_domain::ports::{Commit, StoreError};
use tokio::time::Instant;
use uuid::Uuid;

use super::Committer;
use super::execution::{Executed, Fate, doubt, pause, timed};
use super::member::Member;
use crate::batch::{BatchStatement, EntriesAt};
use crate::constraints::{self, Violation};
use crate::warning::Thinned;

/// How often a batch that fails for no known reason, on a connection that works, is tried again before
/// its members are tried apart, and one alone is set aside.
const MAX_UNEXPLAINED_RETRIES: u32 = 4;
/// How often a batch is tried again before a new connection is made: the database may have moved.
const RETRIES_PER_CONNECTION: u32 = 4;

static NUMBER_TAKEN: Thinned = Thinned::new();

/// When the first of them is given up.
fn first_deadline(part: &[Member]) -> Instant {
    let deadline = part.iter().map(|member| member.deadline).min();
    deadline.unwrap_or_else(Instant::now)
}

/// Gives up those whose time is up. The others came later, and have theirs.
fn give_up_late(part: &mut Vec<Member>) {
    let now = Instant::now();
    let (late, left): (Vec<_>, Vec<_>) = part.drain(..).partition(|member| member.deadline <= now);
    late.into_iter().for_each(Member::give_up);
    *part = left;
}

impl Committer {
    /// Executes a part until its fate is known or the time of each member is up; once only, where not told to `insist`,
    /// while it fails for no known reason. Answers and drains its members, or leaves them all.
    pub(super) async fn commit_part(
        &mut self,
        part: &mut Vec<Member>,
        connection: &mut Option<AsyncPgConnection>,
        insist: bool,
    ) -> Fate {
        let (mut tries, mut unexplained) = (0, 0);
        loop {
            let Some(ready) = self.connected(connection, first_deadline(part)).await else {
                give_up_late(part);
                if part.is_empty() {
                    return Fate::Answered;
                }
                continue;
            };
            // Of what was withdrawn in the meantime nothing is written any more.
            let (given, late): (Vec<_>, Vec<_>) =
                part.drain(..).partition(|member| member.give(self.limits));
            late.into_iter().for_each(Member::give_up);
            *part = given;
            if part.is_empty() {
                return Fate::Answered;
            }
            match self.execute(part, ready).await {
                Executed::Written(written) => {
                    self.settle(part, &written);
                    return Fate::Answered;
                }
                Executed::Refused(reason) => {
                    // Of one alone it is still to be judged whether an earlier call wrote it.
                    if part.len() > 1 {
                        part.iter().for_each(Member::not_written);
                    }
                    return Fate::Refused(reason);
                }
                Executed::Transient => {
                    part.iter().for_each(Member::not_written);
                    tries += 1;
                    if tries % RETRIES_PER_CONNECTION == 0 {
                        *connection = None;
                    }
                }
                Executed::Unexplained => {
                    part.iter().for_each(Member::not_written);
                    tries += 1;
                    unexplained += 1;
                    if !insist || unexplained > MAX_UNEXPLAINED_RETRIES {
                        return Fate::Troubled;
                    }
                }
                Executed::Lost => {
                    *connection = None;
                    tries = 0;
                    for member in part.iter_mut() {
                        member.doubt(self.limits);
                    }
                }
            }
            // Of now: doubt gives more time.
            let pause = tokio::time::sleep(pause(tries));
            self.meanwhile(pause, first_deadline(part)).await;
            give_up_late(part);
            if part.is_empty() {
                return Fate::Answered;
            }
        }
    }

    /// Executes the statement, and for members that it did not write, looks whether an earlier
    /// execution did.
    async fn execute(&mut self, part: &[Member], connection: &mut AsyncPgConnection) -> Executed {
        let limit = self.statement_limit();
        let rows: Vec<_> = part.iter().map(Member::rows).collect();
        let result = {
            let statement = BatchStatement::new(&rows);
            let running = async { timed(limit, statement.load::<Uuid>(connection)).await };
            self.attending(running).await
        };
        let mut written: HashSet<Uuid> = match result {
            Some(Ok(written)) => written.into_iter().collect(),
            Some(Err(error)) => return doubt(&error, connection).await,
            None => return Executed::Lost,
        };
        let missing: Vec<_> = part
            .iter()
            .filter(|member| !written.contains(&member.stream()))
            .collect();
        if missing.is_empty() {
            return Executed::Written(written);
        }
        match self.own_entries(&missing, connection).await {
            Ok(own) => {
                written.extend(own);
                Executed::Written(written)
            }
            // Others of the part may have been written: that this look failed says nothing about them.
            Err(_) => Executed::Lost,
        }
    }

    /// How long an answer is waited for. After that the callers have been told, and whether the database
    /// or only the connection is gone is seen on a new one.
    fn statement_limit(&self) -> Duration {
        self.connector
            .client_timeout()
            .min(self.limits.unavailable_after)
    }

    /// The streams of those members whose very entry the journal holds: they are committed.
    async fn own_entries(
        &mut self,
        members: &[&Member],
        connection: &mut AsyncPgConnection,
    ) -> Result<Vec<Uuid>, Executed> {
        let query = EntriesAt {
            streams: members.iter().map(|member| member.stream()).collect(),
            numbers: members
                .iter()
                .map(|member| member.rows().entry.entity_seq)
                .collect(),
        };
        let limit = self.statement_limit();
        let running = async { timed(limit, query.load::<Uuid>(connection)).await };
        match self.attending(running).await {
            Some(Ok(entries)) => {
                let own = |member: &&&Member| entries.contains(&member.rows().entry.entry_id);
                Ok(members
                    .iter()
                    .filter(own)
                    .map(|member| member.stream())
                    .collect())
            }
            Some(Err(error)) => Err(doubt(&error, connection).await),
            None => Err(Executed::Lost),
        }
    }

    /// Answers a change that was refused alone.
    pub(super) async fn judge(
        &mut self,
        guilty: Member,
        reason: &str,
        connection: &mut Option<AsyncPgConnection>,
    ) {
        let meaning = constraints::meaning(reason);
        // A row that exists may be this change's own, from an execution whose answer was lost.
        if meaning == Some(Violation::Exists) || guilty.doubtful {
            let deadline = Instant::now() + self.limits.resolution;
            let own = match self.connected(connection, deadline).await {
                Some(ready) => self.own_entries(&[&guilty], ready).await.ok(),
                None => None,
            };
            match own {
                Some(own) if !own.is_empty() => return self.committed(guilty),
                Some(_) if constraints::is_entry_key(reason) => self.number_taken(&guilty),
                Some(_) => {}
                None => {
                    *connection = None;
                    return guilty.answer(Err(StoreError::CommitUnknown));
                }
            }
        }
        match meaning {
            Some(Violation::IdempotencyKeyTaken) => guilty.answer(Ok(Commit::IdempotencyKeyTaken)),
            Some(Violation::Exists | Violation::NotAllowed) | None => {
                tracing::error!(constraint = reason, "the database refused a change");
                guilty.answer(Err(StoreError::Refused(reason.to_owned())));
            }
        }
    }
}

impl Committer {
    /// Answers the members of an executed part.
    fn settle(&self, part: &mut Vec<Member>, written: &HashSet<Uuid>) {
        for member in part.drain(..) {
            if written.contains(&member.stream()) {
                self.committed(member);
            } else {
                let fate = member.conflict();
                member.answer(Ok(fate));
            }
        }
    }

    /// Answers a member that was written. Its entry is looked for until it is in the tree.
    fn committed(&self, member: Member) {
        let entry = &member.rows().entry;
        self.signals.own.remember(entry);
        member.answer(Ok(Commit::Committed));
    }

    /// Tells that another entry has the number of a change whose payment was still at the version before. Both are written
    /// together, so it was put in past us; and until its row is removed, nothing that becomes of the payment can be recorded.
    fn number_taken(&self, guilty: &Member) {
        self.observer.verification_failed("entry", 1);
        if NUMBER_TAKEN.due().is_some() {
            tracing::error!(
                payment.id = %guilty.stream(),
                "a journal row that is not ours has the number of a payment's next entry: no change of the payment can be \
                 recorded until that row is removed"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quittance_test_support::entry_of_stream;
    use tokio::sync::oneshot;

    use super::super::member::{Job, Limits};
    use super::*;
    use crate::keys::KeyRing;
    use crate::prepare::entry_rows;

    #[tokio::test]
    async fn who_came_later_is_not_given_up_with_who_came_first() {
        const LIMITS: Limits = Limits {
            unavailable_after: Duration::from_secs(60),
            resolution: Duration::from_secs(60),
        };
        let ring = KeyRing::new([("test".to_owned(), [1; 32])]).unwrap();
        let member = |age: u64| {
            let entry = entry_of_stream("acme", Uuid::now_v7(), 1);
            let (reply, answer) = oneshot::channel();
            let job = Job {
                rows: entry_rows(entry, &ring).unwrap(),
                reply,
                since: Instant::now()
                    .checked_sub(Duration::from_secs(age))
                    .unwrap(),
                ticket: Arc::default(),
            };
            (Member::new(job, LIMITS), answer)
        };
        let ((first, told), (second, waiting)) = (member(60), member(0));
        let mut part = vec![first, second];
        give_up_late(&mut part);
        assert_eq!(told.await.unwrap(), Err(StoreError::Unavailable));
        assert_eq!(part.len(), 1);
        part.remove(0).answer(Ok(Commit::Committed));
        assert_eq!(waiting.await.unwrap(), Ok(Commit::Committed));
    }
}
