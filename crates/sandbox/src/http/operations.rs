//! `/v1`: what a payment service calls.

use super::reply::{Authorized, Cut, deliver, hang, ok};
use super::{App, Outage};
use crate::error::ApiError;
use crate::fault::{Fault, RequestKind};
use crate::ledger::{Sent, Submission};
use crate::parse::{self, Command};
use crate::split_map::digest;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::sync::Arc;

type Body = Result<Bytes, BytesRejection>;

/// Proof that `/v1` is in order and that the request may use it.
pub(super) struct Open;

impl FromRequestParts<Arc<App>> for Open {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let outage = *app.outage.lock();
        match outage {
            Outage::None => {}
            Outage::Refuse => return Err(Cut::Reset.response()),
            Outage::Hang => return Err(hang(app).await),
        }
        match Authorized::from_request_parts(parts, app).await {
            Ok(Authorized) => Ok(Self),
            Err(error) => Err(error.into_response()),
        }
    }
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    _open: Open,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    submit(&app, &uri, &headers, body, parse::create).await
}

pub(super) async fn confirm(
    State(app): State<Arc<App>>,
    _open: Open,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    submit(&app, &uri, &headers, body, |body| {
        parse::confirm(parse::payment_id(&id)?, body)
    })
    .await
}

pub(super) async fn capture(
    State(app): State<Arc<App>>,
    _open: Open,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    submit(&app, &uri, &headers, body, |body| {
        parse::capture(parse::payment_id(&id)?, body)
    })
    .await
}

pub(super) async fn void(
    State(app): State<Arc<App>>,
    _open: Open,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    submit(&app, &uri, &headers, body, |body| {
        parse::void(parse::payment_id(&id)?, body)
    })
    .await
}

pub(super) async fn refund(
    State(app): State<Arc<App>>,
    _open: Open,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    submit(&app, &uri, &headers, body, |body| {
        parse::refund(parse::payment_id(&id)?, body)
    })
    .await
}

pub(super) async fn payment(
    State(app): State<Arc<App>>,
    _open: Open,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = parse::payment_id(&id)?;
    let view = app.ledger.lock().payment_view(id)?;
    Ok(ok(&view))
}

pub(super) async fn look_up(
    State(app): State<Arc<App>>,
    _open: Open,
    Path(reference): Path<String>,
) -> Response {
    let sent = {
        let mut ledger = app.ledger.lock();
        let fault: Fault = ledger
            .control()
            .take(RequestKind::Lookup, &reference)
            .unwrap_or_default();
        match Sent::spoiled(fault) {
            Some(sent) => sent,
            None => Sent::carried_out(ledger.look_up(&reference), fault),
        }
    };
    deliver(&app, sent).await
}

async fn submit(
    app: &App,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
    parse: impl FnOnce(&[u8]) -> Result<Command, ApiError>,
) -> Response {
    let submission = match read(uri, headers, body, parse) {
        Ok(submission) => submission,
        Err(error) => return error.into_response(),
    };
    let sent = app.ledger.lock().submit(&submission);
    deliver(app, sent).await
}

fn read(
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
    parse: impl FnOnce(&[u8]) -> Result<Command, ApiError>,
) -> Result<Submission, ApiError> {
    let key = headers.get("idempotency-key").map(HeaderValue::as_bytes);
    let key = parse::idempotency_key(key)?;
    let body = whole(body)?;
    let command = parse(&body)?;
    let digest_of_request = digest(&[uri.path().as_bytes(), &body]);
    Ok(Submission {
        key: digest(&[key]),
        digest: digest_of_request,
        command,
    })
}

/// The body, unless it was too large or broke off.
pub(super) fn whole(body: Body) -> Result<Bytes, ApiError> {
    body.map_err(|rejection| {
        if rejection.into_response().status() == StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::too_large()
        } else {
            ApiError::malformed("unreadable_body", "the body broke off")
        }
    })
}
