//! From what was decided to what is sent.

use super::App;
use super::connection::ConnectionCut;
use crate::error::ApiError;
use crate::ledger::{Ending, Reply, ReplyBody, Sent};
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::sync::Arc;

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Tells the connection, as an extension of the response, how to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Close without an answer.
    Close,
    /// Reset without an answer.
    Reset,
    /// Reset in the middle of the answer.
    ResetInBody,
}

impl Cut {
    pub(super) fn response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(self);
        response
    }
}

/// Proof that the request carries the API key.
pub(super) struct Authorized;

impl FromRequestParts<Arc<App>> for Authorized {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let sent = parts.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let sent = sent.and_then(|value| value.strip_prefix(b"Bearer "));
        // Digests are compared, so that how long it takes says nothing about the key.
        match sent {
            Some(key) if Sha256::digest(key) == Sha256::digest(&app.api_key) => Ok(Self),
            _ => Err(ApiError::unauthorized()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        error_response(&self, None)
    }
}

fn error_response(error: &ApiError, authoritative: Option<bool>) -> Response {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json_response(status, error.to_json(authoritative));
    if status == StatusCode::TOO_MANY_REQUESTS {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// 200 with any of our shapes.
pub(super) fn ok(body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => json_response(StatusCode::OK, body),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn json_response(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Waits as long as was decided, then answers or breaks the connection.
pub(super) async fn deliver(app: &App, sent: Sent) -> Response {
    if !sent.after.is_zero() {
        tokio::time::sleep(sent.after).await;
    }
    match sent.ending {
        Ending::Answer(reply) => answer(&reply),
        Ending::Hang => hang(app).await,
        Ending::Drop => Cut::Close.response(),
        Ending::Reset(None) => Cut::Reset.response(),
        Ending::Reset(Some(reply)) => interrupted(&reply),
    }
}

pub(super) async fn hang(app: &App) -> Response {
    tokio::time::sleep(app.max_hang).await;
    Cut::Close.response()
}

fn answer(reply: &Reply) -> Response {
    let mut response = match &reply.body {
        ReplyBody::Operation(operation) if reply.malformed => {
            let mut body = serde_json::to_vec(operation).unwrap_or_default();
            body.truncate(body.len() / 2);
            json_response(StatusCode::OK, body)
        }
        ReplyBody::Operation(operation) => ok(operation),
        ReplyBody::Error(error) => error_response(error, None),
        ReplyBody::NotFound { authoritative } => {
            let error = ApiError::not_found("no operation has this reference");
            error_response(&error, Some(*authoritative))
        }
    };
    if reply.replayed {
        response
            .headers_mut()
            .insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// An answer that promises all of its body and breaks off after half of it.
fn interrupted(reply: &Reply) -> Response {
    let body = match &reply.body {
        ReplyBody::Operation(operation) => serde_json::to_vec(operation).unwrap_or_default(),
        ReplyBody::Error(error) => error.to_json(None),
        ReplyBody::NotFound { authoritative } => {
            ApiError::not_found("no operation has this reference").to_json(Some(*authoritative))
        }
    };
    let body = Bytes::from(body);
    let half = body.slice(..body.len() / 2);
    let rest = futures::stream::once(async {
        // One turn of the loop, in which the half is flushed to the client.
        tokio::task::yield_now().await;
        Err::<Bytes, _>(ConnectionCut)
    });
    let start = futures::stream::once(async move { Ok(half) });
    let mut response = Cut::ResetInBody.response();
    *response.body_mut() = Body::from_stream(futures::StreamExt::chain(start, rest));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    response
}
