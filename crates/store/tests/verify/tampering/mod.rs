//! What somebody with every right on the database does to it, in SQL.

mod attacker;
mod attempts;
mod customers;
mod entries;
mod payments;
mod records;
mod tree;

use tokio_postgres::Client;
use uuid::Uuid;

pub use attacker::{put_all_back, put_back_after, setup};

/// How far the effects of a tampering reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// They stay with the payment, so that several kinds can be tried at once, with different payments.
    Payment,
    /// They may show elsewhere, too: it is tried alone.
    Log,
    /// It can only be said of the log as a whole.
    Whole,
}

/// A kind of tampering.
#[derive(Debug)]
pub struct Kind {
    /// What is done.
    pub name: &'static str,
    /// Which entries it can be done to: a condition on the journal's row `j`.
    pub which: &'static str,
    /// What is done to the entry `$entry`, number `$seq` of stream `$stream`, at `$position`.
    pub sql: &'static str,
    /// One of these must be reported about the entry, its payment or its position.
    pub codes: &'static [&'static str],
    /// How far it reaches.
    pub reach: Reach,
    /// Whether a small log has nothing that it could be done to.
    pub large: bool,
}

/// Where it is done.
#[derive(Debug)]
pub struct Target {
    /// The stream.
    pub stream: Uuid,
    /// The number in it.
    pub seq: i64,
    /// The entry.
    pub entry: Uuid,
    /// Its position.
    pub position: i64,
}

const ANY: &str = "true";
/// Every payment's first and last entry, and one in between.
const FIRST: &str = "j.entity_seq = 1";
const LAST: &str = "j.entity_seq = (select version from payments where payment_id = j.stream_id)";
const MIDDLE: &str = "j.entity_seq > 1 and not (j.entity_seq = \
                      (select version from payments where payment_id = j.stream_id))";
/// The last entry of a payment that was changed since it was accepted.
const CHANGED: &str = "j.entity_seq > 1 and j.entity_seq = \
                       (select version from payments where payment_id = j.stream_id)";

/// The last entry of a payment with several transactions, which is not about its opening.
const SEVERAL: &str = "j.entity_seq = (select version from payments where payment_id = j.stream_id) \
                       and j.transaction_id <> (select transaction_id from journal o \
                       where o.stream_id = j.stream_id and o.entity_seq = 1)";
/// One entry of the log.
const ONCE: &str = "p.position = 3";

const fn kind(
    name: &'static str,
    which: &'static str,
    sql: &'static str,
    codes: &'static [&'static str],
) -> Kind {
    Kind {
        name,
        which,
        sql,
        codes,
        reach: Reach::Log,
        large: false,
    }
}

const fn whole(
    name: &'static str,
    which: &'static str,
    sql: &'static str,
    codes: &'static [&'static str],
) -> Kind {
    Kind {
        reach: Reach::Whole,
        ..kind(name, which, sql, codes)
    }
}

impl Kind {
    const fn local(self) -> Self {
        Self {
            reach: Reach::Payment,
            ..self
        }
    }

    const fn large(self) -> Self {
        Self {
            large: true,
            ..self
        }
    }
}

/// Every kind of tampering.
pub fn kinds() -> impl Iterator<Item = &'static Kind> {
    [
        entries::KINDS,
        payments::KINDS,
        payments::TRANSACTION_KINDS,
        attempts::KINDS,
        records::KINDS,
        customers::KINDS,
        tree::KINDS,
    ]
    .into_iter()
    .flatten()
}

/// The kinds whose names hold one of the pieces that `QUITTANCE_TAMPER_KINDS` lists, with commas between; all without it.
pub fn chosen() -> Vec<&'static Kind> {
    let Ok(pieces) = std::env::var("QUITTANCE_TAMPER_KINDS") else {
        return kinds().collect();
    };
    let pieces: Vec<&str> = pieces.split(',').map(str::trim).collect();
    for piece in &pieces {
        let known = !piece.is_empty() && kinds().any(|kind| kind.name.contains(piece));
        assert!(
            known,
            "QUITTANCE_TAMPER_KINDS: no kind has {piece:?} in its name"
        );
    }
    kinds()
        .filter(|kind| pieces.iter().any(|piece| kind.name.contains(piece)))
        .collect()
}

/// Random entries of different payments, none of them of `others`.
pub async fn pick(client: &Client, kind: &Kind, count: usize, others: &[Uuid]) -> Vec<Target> {
    let others: Vec<String> = others.iter().map(Uuid::to_string).collect();
    let sql = format!(
        "select stream_id::text, entity_seq, entry_id::text, position from ( \
             select distinct on (j.stream_id) j.stream_id, j.entity_seq, j.entry_id, p.position \
             from journal j join journal_positions p on p.arrival = j.arrival \
             where j.stream_id = j.payment_id and j.stream_id::text <> all($1) and {} order by j.stream_id, random()) t \
         order by random() limit {count}",
        kind.which
    );
    let rows = client.query(&sql, &[&others]).await.unwrap();
    let target = |row: tokio_postgres::Row| Target {
        stream: id(&row, 0),
        seq: row.get(1),
        entry: id(&row, 2),
        position: row.get(3),
    };
    rows.into_iter().map(target).collect()
}

fn id(row: &tokio_postgres::Row, column: usize) -> Uuid {
    row.get::<_, String>(column).parse().unwrap()
}

/// Does it.
pub async fn tamper(client: &Client, kind: &Kind, target: &Target) {
    let sql = kind
        .sql
        .replace("$stream", &format!("'{}'::uuid", target.stream))
        .replace("$entry", &format!("'{}'::uuid", target.entry))
        .replace("$position", &target.position.to_string())
        .replace("$seq", &target.seq.to_string());
    client
        .batch_execute(&sql)
        .await
        .unwrap_or_else(|error| panic!("{}: {error:?}", kind.name));
}
