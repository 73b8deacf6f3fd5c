//! Who calls, as the edge found out.

use quittance_domain::context::Caller;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response};

use super::status::Failure;
use super::{REPLAYED_HEADER, RESUME_TOKEN_HEADER};
use crate::auth::{Authenticated, Role};
use crate::layers::CallContext;

/// A request with its caller.
pub(super) struct Call<T> {
    /// Who asks, from where, and until when they wait.
    pub caller: Caller,
    /// Whether they may read across tenants.
    pub platform: bool,
    /// What they proved to be.
    pub who: Authenticated,
    /// What they ask.
    pub message: T,
}

impl<T> Call<T> {
    /// Takes the request apart. It is a defect if it did not come through the edge, which knows who calls.
    pub(super) fn of(request: Request<T>) -> Result<Self, Failure> {
        let extensions = request.extensions();
        let (Some(who), Some(context)) = (
            extensions.get::<Authenticated>(),
            extensions.get::<CallContext>(),
        ) else {
            return Err(Failure::defect("a call reached its RPC without a caller"));
        };
        Ok(Self {
            caller: context.caller(who),
            platform: who.roles.contains(Role::PlatformAudit),
            who: who.clone(),
            message: request.into_inner(),
        })
    }
}

/// A stream, with the token of where it starts before anything is sent on it: one that nothing came on can be resumed, too.
pub(super) fn streamed<T>((stream, token): (T, String)) -> Result<Response<T>, Failure> {
    let token = MetadataValue::try_from(token);
    let token = token.map_err(|error| Failure::defect(&error.to_string()))?;
    let mut response = Response::new(stream);
    response.metadata_mut().insert(RESUME_TOKEN_HEADER, token);
    Ok(response)
}

/// The answer to a command, marked if it had been given before.
pub(super) fn answer<T>(message: T, replayed: bool) -> Response<T> {
    let mut response = Response::new(message);
    if replayed {
        let value = MetadataValue::from_static("true");
        response.metadata_mut().insert(REPLAYED_HEADER, value);
    }
    response
}
