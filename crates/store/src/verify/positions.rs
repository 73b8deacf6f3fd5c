//! The positions from end to end: gapless, each of an entry that is there; and the tree that they make.

use std::sync::Arc;
use std::time::Duration;

use quittance_domain::ports::StoreError;
use quittance_domain::verification::{
    CheckpointRow, Mismatch, PositionWalk, Stage, TreeEnd, TreeWalk,
};
use quittance_evidence::note::VerifierKey;
use tokio::time::Instant;

use super::read::{PositionPage, Verifying};
use super::segments::Segments;
use super::{Events, PROGRESS_EVERY, VerifySettings};

/// The pause between two looks for a checkpoint that the signer has in mind, and that is not stored.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Both walks; they go from page to page, and each page is checked where it holds nobody up.
#[derive(Default)]
struct Walks {
    positions: PositionWalk,
    tree: TreeWalk,
    found: Vec<Mismatch>,
}

/// Walks all positions. Gives the largest checkpoint that is of their tree.
pub(super) async fn verify(
    connection: &mut Verifying,
    segments: &Segments,
    settings: &VerifySettings,
    events: &Events,
) -> Result<Option<CheckpointRow>, StoreError> {
    let witnesses: Arc<[VerifierKey]> = settings.trusted.witnesses.clone().into();
    let mut walks = Walks {
        tree: TreeWalk::new(settings.trusted.clone()),
        ..Walks::default()
    };
    let mut next = i64::MIN;
    let mut told: Option<Instant> = None;
    loop {
        let mut page = connection
            .positions(next, walks.tree.size(), &witnesses)
            .await?;
        let (head, end) = (page.head, page.end.take());
        if let Some(row) = page.rows.last() {
            next = row.position.saturating_add(1);
        }
        let checking = tokio::task::spawn_blocking(move || walks.check(&page));
        walks = checking.await.map_err(|_| StoreError::Unavailable)?;
        let last = end.is_some();
        if let Some(end) = end {
            let within = settings.signer_within;
            walks.await_signer(connection, &end, within).await?;
            // Stored after its page was read, and before the one that names it was.
            for (kind, sizes) in walks.tree.missing() {
                let stored = connection.stored(&kind, &sizes).await?;
                walks.tree.stored(&kind, &stored);
            }
            walks.finish(head, &end);
        }
        events.found(std::mem::take(&mut walks.found)).await?;
        if last || told.is_none_or(|told| told.elapsed() >= PROGRESS_EVERY) {
            told = Some(Instant::now());
            let checked = u64::try_from(next).unwrap_or_default();
            let total = u64::try_from(head).unwrap_or_default();
            events
                .progress(Stage::Tree, (checked, total), segments)
                .await?;
        }
        if last {
            return Ok(walks.tree.newest_signed().cloned());
        }
    }
}

impl Walks {
    fn check(mut self, page: &PositionPage) -> Self {
        let found = &mut self.found;
        let leaves: Vec<_> = page
            .rows
            .iter()
            .map(|row| (row.position, self.positions.push(row, found)))
            .collect();
        self.tree.push(&leaves, &page.tree, found);
        self
    }

    /// Gives the signer the time to store what it signed last. It is looked for once at least.
    async fn await_signer(
        &mut self,
        connection: &mut Verifying,
        end: &TreeEnd,
        within: Duration,
    ) -> Result<(), StoreError> {
        let until = Instant::now() + within;
        while let Some(signed) = self.tree.awaits(end) {
            let notes = connection.notes_from(signed).await?;
            self.tree.late(&notes);
            if self.tree.awaits(end).is_none() || Instant::now() >= until {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn finish(&mut self, head: i64, end: &TreeEnd) {
        self.positions.finish(head, &mut self.found);
        self.tree.finish(end, &mut self.found);
    }
}
