//! What happens to every call before and after its RPC: the server span, limits, deadlines,
//! credentials, metrics.

mod call;
mod edge;
mod end;
mod rates;
mod refusal;
mod refusals;
#[cfg(test)]
mod tests;

pub(crate) use call::domain_ids;
pub use call::{CallContext, REQUEST_ID_HEADER, TRACE_ID_HEADER};
pub use edge::{Edge, EdgeSettings, Methods};
pub use rates::TenantRates;
pub use refusal::Refusal;
pub use refusals::{Refusals, RefusedCaller, RefusedCalls};
