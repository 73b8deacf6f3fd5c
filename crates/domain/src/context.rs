//! Who asks, from where, and in which trace: what the journal records beside each change.

use chrono::{DateTime, Utc};

use crate::ids::TenantId;
use crate::named::named_enum;

named_enum! {
    /// What kind of actor caused something.
    pub enum ActorKind {
        /// A caller with an API key or a certificate.
        Service = "service",
        /// A person, through the command line.
        Operator = "operator",
        /// A payment provider, through an answer or a webhook.
        Provider = "provider",
        /// The service itself.
        System = "system",
    }
}

/// Who caused something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actor {
    /// What kind.
    pub kind: ActorKind,
    /// Its name: an API key's id, an operator's name, a component.
    pub id: String,
    /// How it proved who it is, such as `api_key`; empty for the service itself.
    pub auth_method: &'static str,
}

/// Where something came in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// The caller's network address, without the port; empty inside the service.
    pub peer: String,
    /// The RPC, such as `quittance.v1.PaymentService/CreatePayment`, or the component.
    pub rpc_method: String,
    /// The caller's `x-request-id`, or one made for it.
    pub request_id: String,
}

/// The ids of a W3C trace context.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TraceIds {
    /// The trace; all zero where there is none.
    pub trace_id: [u8; 16],
    /// The span.
    pub span_id: [u8; 8],
    /// The flags, bit 0 = sampled.
    pub flags: u8,
}

/// Who asks, from where, in which trace, and until when they wait.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// For which tenant.
    pub tenant: TenantId,
    /// Who.
    pub actor: Actor,
    /// From where.
    pub origin: Origin,
    /// The caller's own span, if they sent one.
    pub remote: Option<TraceIds>,
    /// When they stop waiting; an answer is given before.
    pub deadline: Option<DateTime<Utc>>,
}

/// This running service, as journal entries name it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instance {
    /// The service's name.
    pub service: &'static str,
    /// Its version.
    pub version: &'static str,
    /// This process: host name and start id.
    pub instance: String,
}
