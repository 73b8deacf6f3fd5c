//! The payment model, decided purely; the ports that it needs; and the flows that execute decisions.
//!
//! Nothing here names a runtime, a database, a wire format or a provider: see `ARCHITECTURE.md`.

pub mod amounts;
pub mod card_number;
pub mod cases;
pub mod change;
pub mod command;
pub mod context;
pub mod contradictions;
pub mod decide;
pub mod decline;
pub mod erasure;
pub mod error;
pub mod failures;
pub mod fingerprint;
pub mod flows;
pub mod ids;
pub mod journal;
pub mod left_alone;
pub mod money;
mod named;
pub mod notification;
pub mod payment;
pub mod ports;
pub mod reconciliation;
pub mod retry;
pub mod text;
pub mod transaction;
pub mod transition;
pub mod unconfirmed;
pub mod verification;
pub mod webhook;
