//! The books, the events, and the handles by which faults are asked for.

use super::operations::whole;
use super::reply::{Authorized, ok};
use super::{App, Outage};
use crate::error::ApiError;
use crate::fault::ControlRequest;
use crate::limits::{DEFAULT_PAGE, MAX_PAGE, MAX_REFUSAL};
use crate::parse;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tracing::error;

type Body = Result<Bytes, BytesRejection>;

/// A page: `after` is the `next` of the one before.
#[derive(Deserialize)]
pub(super) struct Page {
    after: Option<u64>,
    limit: Option<usize>,
}

impl Page {
    fn limit(&self) -> Result<usize, ApiError> {
        match self.limit.unwrap_or(DEFAULT_PAGE) {
            limit if (1..=MAX_PAGE).contains(&limit) => Ok(limit),
            _ => Err(ApiError::invalid(
                "limit",
                "invalid_limit",
                "limit is 1 to 1000",
            )),
        }
    }
}

type PageQuery = Result<Query<Page>, QueryRejection>;

fn page_of(query: PageQuery) -> Result<Page, ApiError> {
    let invalid = ApiError::malformed("malformed_query", "after and limit are whole numbers");
    query.map(|Query(page)| page).map_err(|_| invalid)
}

/// Totals; with `after` or `limit`, the operations themselves.
pub(super) async fn books(
    State(app): State<Arc<App>>,
    _caller: Authorized,
    query: PageQuery,
) -> Result<Response, ApiError> {
    let page = page_of(query)?;
    if page.after.is_none() && page.limit.is_none() {
        let books = app.ledger.lock().books();
        return Ok(ok(&books));
    }
    let limit = page.limit()?;
    let operations = app
        .ledger
        .lock()
        .operation_page(page.after.unwrap_or(0), limit);
    Ok(ok(&operations))
}

pub(super) async fn charged(
    State(app): State<Arc<App>>,
    _caller: Authorized,
    Path(reference): Path<String>,
) -> Response {
    let charged = app.ledger.lock().charged(&reference);
    ok(&charged)
}

pub(super) async fn events(
    State(app): State<Arc<App>>,
    _caller: Authorized,
    query: PageQuery,
) -> Result<Response, ApiError> {
    let page = page_of(query)?;
    let limit = page.limit()?;
    let events = app.ledger.lock().event_page(page.after.unwrap_or(0), limit);
    Ok(ok(&events))
}

pub(super) async fn arm(
    State(app): State<Arc<App>>,
    _caller: Authorized,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let request: ControlRequest = parse::json(&whole(body)?)?;
    app.ledger.lock().control().arm(request)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn disarm(State(app): State<Arc<App>>, _caller: Authorized) -> StatusCode {
    app.ledger.lock().control().clear();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutageRequest {
    mode: OutageMode,
    /// With `refuse`: close the listener for so long.
    for_ms: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutageMode {
    None,
    Refuse,
    Hang,
}

pub(super) async fn outage(
    State(app): State<Arc<App>>,
    _caller: Authorized,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let request: OutageRequest = parse::json(&whole(body)?)?;
    let mode = match request.mode {
        OutageMode::None => Outage::None,
        OutageMode::Refuse => Outage::Refuse,
        OutageMode::Hang => Outage::Hang,
    };
    let Some(span) = request.for_ms.map(Duration::from_millis) else {
        *app.outage.lock() = mode;
        return Ok(StatusCode::NO_CONTENT);
    };
    if mode != Outage::Refuse || span > MAX_REFUSAL {
        return Err(ApiError::invalid(
            "for_ms",
            "invalid_outage",
            "for_ms goes with mode refuse, up to 600000",
        ));
    }
    tokio::spawn(refuse_for(app, span));
    Ok(StatusCode::ACCEPTED)
}

/// On a task of its own: closing the door also closes the connection that asked for it.
async fn refuse_for(app: Arc<App>, span: Duration) {
    app.doorman.pause().await;
    tokio::time::sleep(span).await;
    if let Err(failure) = app.doorman.resume().await {
        error!(error = %failure, "the sandbox could not listen again");
    }
}

pub(super) async fn settle(
    State(app): State<Arc<App>>,
    _caller: Authorized,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = parse::payment_id(&id)?;
    let operation = app.ledger.lock().settle_now(id)?;
    Ok(ok(&operation))
}

pub(super) async fn fail_refund(
    State(app): State<Arc<App>>,
    _caller: Authorized,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = parse::payment_id(&id)?;
    let operation = app.ledger.lock().fail_refund(id)?;
    Ok(ok(&operation))
}

/// A refund in the dashboard.
pub(super) async fn refund(
    State(app): State<Arc<App>>,
    _caller: Authorized,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, ApiError> {
    let (id, asked) = (parse::payment_id(&id)?, or_default(body)?);
    let operation = app.ledger.lock().refund_in_dashboard(id, &asked)?;
    Ok(ok(&operation))
}

/// A capture in the dashboard.
pub(super) async fn capture(
    State(app): State<Arc<App>>,
    _caller: Authorized,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, ApiError> {
    let (id, asked) = (parse::payment_id(&id)?, or_default(body)?);
    let operation = app.ledger.lock().capture_in_dashboard(id, &asked)?;
    Ok(ok(&operation))
}

/// A void in the dashboard.
pub(super) async fn void(
    State(app): State<Arc<App>>,
    _caller: Authorized,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = parse::payment_id(&id)?;
    let operation = app.ledger.lock().void_in_dashboard(id)?;
    Ok(ok(&operation))
}

pub(super) async fn dispute(
    State(app): State<Arc<App>>,
    _caller: Authorized,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, ApiError> {
    let (id, asked) = (parse::payment_id(&id)?, or_default(body)?);
    let operation = app.ledger.lock().dispute(id, &asked)?;
    Ok(ok(&operation))
}

pub(super) async fn close_dispute(
    State(app): State<Arc<App>>,
    _caller: Authorized,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, ApiError> {
    let id = parse::payment_id(&id)?;
    let verdict = parse::json(&whole(body)?)?;
    let operation = app.ledger.lock().close_dispute(id, &verdict)?;
    Ok(ok(&operation))
}

/// A body that may be left out.
fn or_default<T: serde::de::DeserializeOwned + Default>(body: Body) -> Result<T, ApiError> {
    let body = whole(body)?;
    if body.is_empty() {
        return Ok(T::default());
    }
    parse::json(&body)
}

/// Where `next_action` sends the customer. Plain text, nothing of the request in it.
pub(super) async fn challenge() -> &'static str {
    "Sandbox authentication. Confirm the payment with the parameter challenge=passed or \
     challenge=failed.\n"
}

pub(super) async fn no_such_path() -> Response {
    ApiError::not_found("no such path").into_response()
}

pub(super) async fn no_such_method(_method: Method) -> Response {
    let mut error = ApiError::not_found("this path does not take this method");
    error.status = StatusCode::METHOD_NOT_ALLOWED.as_u16();
    error.into_response()
}
