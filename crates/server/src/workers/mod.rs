//! What the server does without being called.

mod erasures;
mod gauges;
mod links;
mod notification_attempt;
mod notification_retention;
mod notifications;
pub(crate) mod pace;
mod places;
mod planning;
mod recovery;
mod retention;
mod shares;
mod verification;
mod webhooks;

pub use erasures::ErasureWorker;
pub use gauges::Gauges;
pub use notification_retention::NotificationRetention;
pub use notifications::{NotificationParts, Notifier};
pub use planning::plan;
pub use recovery::{RECOVERIES, Recovery, RecoveryParts};
pub use retention::Retention;
pub use verification::{SCHEDULED_CHECK, Schedule, Verification};
pub use webhooks::{WebhookWorker, WebhookWorkerParts};
