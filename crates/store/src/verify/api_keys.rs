//! API keys: each row by itself, and what entries say of them against their rows.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Binary, Bool, Nullable, Text, Timestamptz};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ports::StoreError;
use quittance_domain::verification::{
    ApiKeyRow, CheckedEntry, Mismatch, check_api_key, compare_api_key,
};

use super::Events;
use super::read::Verifying;
use crate::keys::{ApiKeyFacts, KeyRing};
use crate::statement::statement;

/// Keys of one page.
const PAGE: i64 = 1_024;

/// Columns as those of entries: cut behind what the service writes. A time that no program reads is none.
const COLUMNS: &str = "select left(key_id, 1024), left(tenant_id, 1024), left(name, 1024), \
    left(array_to_string(roles, ' ', ''), 4096), substr(secret_mac, 1, 33), left(mac_key_id, 1024), \
    case when created_at between '2000-01-01' and '3000-01-01' then created_at end, \
    substr(row_mac, 1, 33), revoked_at is not null from api_keys where ";

type Types = (
    Text,
    Text,
    Text,
    Text,
    Binary,
    Text,
    Nullable<Timestamptz>,
    Nullable<Binary>,
    Bool,
);

type Row = (
    String,
    String,
    String,
    String,
    Vec<u8>,
    String,
    Option<DateTime<Utc>>,
    Option<Vec<u8>>,
    bool,
);

/// Keys behind one, in the order of their ids.
struct ReadPage {
    after: String,
}

statement!(ReadPage, ReadPage, Types, |self, out| {
    out.push_sql(COLUMNS);
    out.push_sql("key_id > ");
    out.push_bind_param::<Text, _>(&self.after)?;
    out.push_sql(" order by key_id limit ");
    out.push_bind_param::<BigInt, _>(&PAGE)?;
});

/// Keys by their ids.
struct ReadNamed {
    ids: Vec<String>,
    /// Most rows.
    most: i64,
}

statement!(ReadNamed, ReadNamed, Types, |self, out| {
    out.push_sql(COLUMNS);
    out.push_sql("key_id = any(");
    out.push_bind_param::<Array<Text>, _>(&self.ids)?;
    // There is one of each.
    out.push_sql(") limit ");
    out.push_bind_param::<BigInt, _>(&self.most)?;
});

/// Whether an entry is about a key, and the service's.
pub(super) fn is_about_key(entry: &CheckedEntry) -> bool {
    let said = entry.leaf.as_ref().and_then(|leaf| leaf.api_key.as_ref());
    entry.genuine && said.is_some()
}

/// Holds the rows to what these entries say. A key is made before its entry and revoked before its entry, and neither is
/// ever undone: so the rows may be read after the entries.
pub(super) async fn compare(
    connection: &mut Verifying,
    entries: &[CheckedEntry],
) -> Result<Vec<Mismatch>, StoreError> {
    let said = |entry: &CheckedEntry| Some(entry.leaf.as_ref()?.api_key.as_ref()?.key_id.clone());
    let ids: Vec<String> = entries.iter().filter_map(said).collect();
    let mut found = Vec::new();
    if ids.is_empty() {
        return Ok(found);
    }
    let rows = connection.read(|connection| {
        let query = ReadNamed {
            ids: ids.clone(),
            most: i64::try_from(ids.len()).unwrap_or(i64::MAX),
        };
        async move { query.load::<Row>(connection).await }.boxed()
    });
    let rows = rows.await?.into_iter();
    let rows: Vec<ApiKeyRow> = rows.map(|row| key_row(row, connection.keys())).collect();
    for entry in entries {
        let id = said(entry);
        let row = rows.iter().find(|row| Some(&row.key_id) == id.as_ref());
        compare_api_key(entry, row, &mut found);
    }
    Ok(found)
}

/// Looks at every row by itself.
pub(super) async fn verify(connection: &mut Verifying, events: &Events) -> Result<(), StoreError> {
    let mut after = String::new();
    loop {
        let page = connection.read(|connection| {
            let query = ReadPage {
                after: after.clone(),
            };
            async move { query.load::<Row>(connection).await }.boxed()
        });
        let page = page.await?;
        let last = i64::try_from(page.len()).is_ok_and(|rows| rows < PAGE);
        if let Some((id, ..)) = page.last() {
            after.clone_from(id);
        }
        let mut found = Vec::new();
        for row in page {
            check_api_key(&key_row(row, connection.keys()), &mut found);
        }
        events.found(found).await?;
        if last {
            return Ok(());
        }
    }
}

fn key_row(row: Row, ring: &KeyRing) -> ApiKeyRow {
    let (key_id, tenant_id, name, roles, secret_mac, mac_key_id, created_at, row_mac, revoked) =
        row;
    let genuine = created_at.zip(row_mac.as_ref()).is_some_and(|(at, mac)| {
        let facts = ApiKeyFacts {
            key_id: &key_id,
            tenant: &tenant_id,
            name: &name,
            roles: &roles,
            created_at: at,
            secret_mac: &secret_mac,
        };
        ring.verify_api_key_row(&facts, &mac_key_id, mac)
    });
    ApiKeyRow {
        key_id,
        tenant_id,
        roles,
        revoked,
        has_mac: row_mac.is_some(),
        genuine,
    }
}
