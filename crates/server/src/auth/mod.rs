//! Who calls: API keys, what they allow, and how that is remembered for a few seconds.

mod api_key;
mod authenticator;
mod cache;
pub mod permissions;
mod role;

use std::net::IpAddr;
use std::sync::Arc;

use quittance_domain::context::{Actor, ActorKind};
use quittance_domain::ids::TenantId;

pub use api_key::{ApiKey, KeyHash, KeyId};
pub use authenticator::{AuthFailure, Authenticator, KeyDirectory, StoredKey};
pub use permissions::{Access, Rpc};
pub use role::{Role, Roles, UnknownRole};

/// How a caller with an API key proved who it is, as audit entries say it.
pub const AUTH_METHOD_API_KEY: &str = "api_key";

/// A caller that proved who it is. In the extensions of every request to an RPC that is not open.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Authenticated {
    /// For which tenant it acts.
    pub tenant: TenantId,
    /// The id of its API key: names it in audit entries.
    pub key_id: Arc<str>,
    /// The name that an operator gave the key.
    pub name: Arc<str>,
    /// What it may do.
    pub roles: Roles,
    /// How it proved who it is.
    pub auth_method: &'static str,
}

impl Authenticated {
    /// The caller as audit entries name it.
    pub fn actor(&self) -> Actor {
        Actor {
            kind: ActorKind::Service,
            id: self.key_id.to_string(),
            auth_method: self.auth_method,
        }
    }
}

/// An address as audit entries record it: IPv4 addresses that came in over an IPv6 socket as IPv4.
pub(crate) fn peer_text(address: IpAddr) -> String {
    address.to_canonical().to_string()
}
