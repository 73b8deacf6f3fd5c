//! A payment provider of our own that misbehaves on request, over real HTTP.
//!
//! It authorizes, captures, voids and refunds in memory, keeps its own idempotency store, sends
//! signed webhooks, and can be asked what it *really* charged, so that a test proves "charged
//! once" instead of believing it. Which fault a request meets is decided by its payment token
//! (see [`Token`]), by parameters behind the token, or by the control API; `docs/sandbox.md` has
//! the tables.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use quittance_sandbox::{Sandbox, SandboxConfig};
//!
//! let sandbox = Sandbox::start(SandboxConfig::new("sandbox-key")).await?;
//! let url = sandbox.base_url();
//! let charged = sandbox.charged("0198c5a2-0000-7000-8000-000000000001");
//! assert_eq!(charged.charges, 0);
//! # let _ = url;
//! sandbox.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod clock;
mod config;
mod error;
mod fault;
mod http;
mod idempotency;
mod ledger;
pub mod limits;
mod parse;
mod persist;
mod split_map;
mod token;
mod webhook;
mod wire;

pub use config::{SandboxConfig, WebhookConfig};
pub use http::{Sandbox, SandboxHandle};
pub use token::Token;
pub use wire::{
    Books, Charged, Counts, CurrencyTotals, Decline, Dispute, Event, EventPage, EventType,
    NextAction, Operation, OperationKind, OperationPage, OperationStatus, PaymentStatus,
    PaymentView,
};
