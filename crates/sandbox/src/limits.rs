//! Every limit of the sandbox, with the reason for its size where that is not obvious.

use std::time::Duration;

/// Largest request body in bytes; larger ones are refused with 413.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// Longest `Idempotency-Key`, in characters of printable ASCII.
pub const MAX_IDEMPOTENCY_KEY: usize = 255;
/// Longest `reference` and `payment_reference`, in characters of printable ASCII.
pub const MAX_REFERENCE: usize = 64;
/// Longest payment token with its parameters, in bytes.
pub const MAX_TOKEN: usize = 512;
/// Longest `description`, in characters.
pub const MAX_DESCRIPTION: usize = 1000;
/// Longest `return_url`, in characters.
pub const MAX_URL: usize = 2048;
/// Most `metadata` pairs of a payment, and most `parameters` of a confirmation.
pub const MAX_PAIRS: usize = 50;
/// Longest `mandate_reference`, in characters.
pub const MAX_MANDATE_REFERENCE: usize = 255;
/// Longest name of a metadata pair or confirmation parameter, in characters.
pub const MAX_PAIR_NAME: usize = 128;
/// Longest value of a metadata pair or confirmation parameter, in characters. Challenge results of
/// real issuers run to several kilobytes.
pub const MAX_PAIR_VALUE: usize = 16_384;
/// Most operations (captures, voids, refunds, disputes) of one payment.
pub const MAX_OPERATIONS_PER_PAYMENT: usize = 2000;
/// Default of [`crate::SandboxConfig::max_stored_operations`]; also bounds the idempotency keys.
pub const MAX_STORED_OPERATIONS: usize = 5_000_000;
/// Most distinct parameterized tokens that are remembered parsed; more are parsed again each time.
pub const MAX_CACHED_PLANS: usize = 1024;
/// Most faults armed at once through the control API.
pub const MAX_CONTROL_FAULTS: usize = 1000;
/// Most sends that one fault may spoil.
pub const MAX_FAULT_TIMES: u32 = 1_000_000;
/// Longest latency that a fault may add.
pub const MAX_LATENCY: Duration = Duration::from_secs(600);
/// Most events kept for `GET /events`; the oldest go first.
pub const MAX_EVENTS: usize = 100_000;
/// Webhook senders. A payment's events go through one of them, so they stay in order.
pub const WEBHOOK_SENDERS: usize = 4;
/// Webhooks waiting per sender; further ones are dropped and counted (they stay in `GET /events`).
pub const MAX_WEBHOOK_QUEUE: usize = 10_000;
/// Tries to deliver one webhook.
pub const WEBHOOK_TRIES: u32 = 5;
/// Wait before the second try; doubles for each further one.
pub const WEBHOOK_BACKOFF: Duration = Duration::from_millis(200);
/// Longest wait for the receiver's answer to one webhook.
pub const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Operations or events on a page unless the request says otherwise.
pub const DEFAULT_PAGE: usize = 100;
/// Most operations or events on a page.
pub const MAX_PAGE: usize = 1000;
/// Most connections served at once; further ones wait in the listen queue.
pub const MAX_CONNECTIONS: usize = 4096;
/// Longest wait for a request on an open connection. Longer than any client keeps an idle
/// connection (reqwest: 90 s), so that the sandbox never closes one that is just being reused.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long an authorization can be captured, as told in `expires_at`. Not enforced.
pub const AUTHORIZATION_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long evidence about a dispute can be handed in, as told in `due_at`. Not enforced.
pub const DISPUTE_EVIDENCE_TIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often pending operations are looked through for ones that settle without being asked.
pub const SETTLE_TICK: Duration = Duration::from_millis(100);
/// How long an outage with closed listener lasts at most.
pub const MAX_REFUSAL: Duration = Duration::from_secs(600);
