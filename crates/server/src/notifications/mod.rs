//! What tenants are told by themselves: how a notification looks, where it may go, and how it is sent.

pub mod names;
pub mod network;
pub mod payload;
pub mod sender;
pub mod target;
pub mod trials;

pub use network::{AllowedNetworks, Network};
pub use sender::{Sender, SenderSettings, Sent};
pub use target::{Target, TargetProblem};
pub use trials::Trials;
