//! The configuration: parsed once at start, every mistake named by its setting.
//!
//! [`Sources`] says where settings come from, [`Settings`] gathers them and refuses unknown ones,
//! and [`Config`] is what the rest of the server works with: values that cannot be invalid.

mod audit;
mod error;
mod notifications;
mod providers;
mod recovery;
mod secret;
mod sections;
mod settings;
mod signing;
#[cfg(test)]
mod tests;
mod webhooks;
mod witnesses;

pub use audit::AuditConfig;
pub use error::{ConfigError, Origin};
pub use notifications::{NotificationRetries, NotificationsConfig};
pub use quittance_providers::config::ProvidersConfig;
pub use recovery::RecoveryConfig;
pub use secret::Secret;
pub use sections::{
    AuthConfig, Config, DatabaseConfig, LimitsConfig, MasterKey, PaymentsConfig, ReflectionAccess,
    SecretsConfig, ServerConfig, TlsFiles, telemetry,
};
pub use settings::{COMMAND_VARIABLES, DEFAULTS, Settings, Sources, variable_name};
pub use signing::{ReceiptKeyConfig, SigningConfig};
pub use webhooks::{WebhookRetention, WebhookRetries, WebhooksConfig};
pub use witnesses::{WitnessConfig, WitnessesConfig};
