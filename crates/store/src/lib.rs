//! The store: PostgreSQL behind the domain's [`Store`](quittance_domain::ports::Store) port. All SQL is
//! here.
//!
//! - Writing: `prepare` turns a change into rows, `committer` gathers changes, `batch` is the one
//!   statement that writes them; `constraints` says what a violated constraint means.
//! - Reading: `payments`, `attempts`, `idempotency`, `journal`, `failures`, `cases`, `api_keys`, through
//!   the pool (`pool`).
//! - `recovery` claims the transactions whose next step is due; `clock` is the database's clock.
//! - `inbox` keeps webhooks until they are applied; `inbox_desk` shows them to operators, and wipes their bodies.
//! - `outbox` keeps notifications until they are delivered; `outbox_lists` shows them, `endpoints` says where they go.
//! - `bookings` reads what is compared with a provider's settlements.
//! - `verify` reads all of it again, and compares.
//! - `sequencer` gives committed journal entries their positions; `positions` waits for them; `tree` grows
//!   the Merkle tree over them, and makes proofs.
//! - `evidence` reads what a payment's evidence bundle is made of.
//! - `keys` and `sealing` hold the secrets and encrypt columns; `customers` has a key per customer.
#![allow(clippy::doc_markdown, reason = "PostgreSQL is a name, not code")]

mod acceptances;
mod api_keys;
mod attempts;
mod batch;
mod bookings;
mod cases;
mod clock;
mod committer;
mod config;
mod connection;
mod constraints;
mod customers;
mod durability;
mod endpoint_changes;
mod endpoints;
mod erasures;
mod evidence;
mod failure;
mod failures;
mod idempotency;
mod inbox;
mod inbox_desk;
mod journal;
mod keys;
mod log_names;
mod migrations;
mod observer;
mod outbox;
mod outbox_lists;
mod outbox_replay;
mod outbox_upkeep;
mod payment_row;
mod payments;
mod pool;
mod port;
mod positions;
mod prepare;
mod recovery;
mod rows;
mod schema;
mod sealing;
mod sequencer;
mod statement;
mod store;
mod timed;
mod tree;
mod verify;
mod warning;

pub use acceptances::Accepted;
pub use api_keys::{ApiKey, NewApiKey};
pub use clock::{DEFAULT_CLOCK_SAMPLE, DatabaseClock, MAX_STANDSTILL};
pub use committer::MAX_BATCH;
pub use config::{
    APPLICATION_ROLE, DEFAULT_COMMIT_RESOLUTION_TIMEOUT, DEFAULT_COMMITTERS,
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_CUSTOMER_KEYS_REMEMBERED, DEFAULT_POOL_SIZE,
    DEFAULT_QUEUE_LEN, DEFAULT_STATEMENT_TIMEOUT, DEFAULT_UNAVAILABLE_AFTER, DatabaseTls,
    MAX_COMMITTERS, StoreConfig, StoreStartError,
};
pub use constraints::constraint_names;
pub use durability::{MAX_CLOCK_DIFFERENCE_SECONDS, MINIMUM_POSTGRES};
pub use evidence::{MergedEntries, MergedEntry};
pub use inbox::MAX_INBOX_CLAIM;
pub use inbox_desk::MAX_WIPED;
pub use keys::{
    ApiKeyFacts, CheckpointFacts, CosignatureFacts, KEY_BYTES, KeyRing, KeyRingError, MAX_KEYS,
    TreeHeadFacts,
};
pub use observer::{StoreObserver, Unobserved, VERIFICATION_CHECKS};
pub use outbox::MAX_NOTIFICATION_CLAIM;
pub use payments::MAX_TRANSACTIONS_PER_PAGE;
pub use prepare::MAX_TRANSACTIONS_PER_CHANGE;
pub use recovery::MAX_CLAIM;
pub use sequencer::{
    LEASE as SEQUENCER_LEASE, MAX_PASS as SEQUENCER_MAX_PASS, Refusal, WorkerSettings,
};
pub use store::PgStore;
pub use tree::{
    INTEGRATE_EVERY, MAX_INTEGRATED, StoredCheckpoint, StoredCosignature, TreeDamage, TreeHead,
    TreeReadError, witness_id,
};
pub use verify::{
    MAX_VERIFY_LANES, SIGNER_WITHIN, VERIFY_PATIENCE, VerifyError, VerifyEvent, VerifyProgress,
    VerifySettings, VerifySummary, measured_columns,
};
