//! What the server does without being called.

mod gauges;
mod places;
mod recovery;
mod webhooks;

pub use gauges::Gauges;
pub use recovery::{RECOVERIES, Recovery, RecoveryParts};
pub use webhooks::{WebhookWorker, WebhookWorkerParts};
