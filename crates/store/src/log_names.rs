//! Which logs were signed here, by the names that their checkpoints state.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ports::StoreError;
use quittance_evidence::note::KeyName;

use crate::store::PgStore;

/// Checkpoints that are looked at by one statement, and all others of the last one's size.
const AT_ONCE: i64 = 10_000;

/// The first line of a checkpoint is the name of its log.
const OF_LOG: &str = "\
    with page as ( \
        select tree_size, note from checkpoints where tree_size > $1 \
        order by tree_size fetch first $2 rows with ties \
    ) \
    select max(tree_size) as last, coalesce(bool_or(starts_with(note, $3)), false) as found from page";

#[derive(QueryableByName)]
struct Page {
    #[diesel(sql_type = Nullable<BigInt>)]
    last: Option<i64>,
    #[diesel(sql_type = Bool)]
    found: bool,
}

impl PgStore {
    /// Whether a checkpoint of a log of this name is stored, whoever signed it. Looks at all of them: for commands.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn has_checkpoint_of(&self, log: &KeyName) -> Result<bool, StoreError> {
        let first_line = format!("{log}\n");
        let mut behind = -1;
        loop {
            let read = self
                .inner
                .reader
                .scan("find checkpoints of a log", |connection| {
                    let query = diesel::sql_query(OF_LOG)
                        .bind::<BigInt, _>(behind)
                        .bind::<BigInt, _>(AT_ONCE)
                        .bind::<Text, _>(first_line.clone());
                    async move { query.get_result::<Page>(connection).await }.boxed()
                });
            let page = read.await?;
            match page.last {
                Some(last) if !page.found => behind = last,
                Some(_) | None => return Ok(page.found),
            }
        }
    }
}
