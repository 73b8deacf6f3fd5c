//! What the server does without being called.

mod erasures;
mod gauges;
mod places;
mod recovery;
mod webhooks;

pub use erasures::ErasureWorker;
pub use gauges::Gauges;
pub use recovery::{RECOVERIES, Recovery, RecoveryParts};
pub use webhooks::{WebhookWorker, WebhookWorkerParts};
