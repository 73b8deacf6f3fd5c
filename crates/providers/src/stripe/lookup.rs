//! Asking Stripe: by its own references where they are known, else by ours in the metadata.

use quittance_domain::decline::Cause;
use quittance_domain::ids::{ProviderReference, TransactionId};
use quittance_domain::ports::{LookupQuery, Named};
use quittance_domain::transaction::{
    Fact, FactKind, LookupOutcome, TransactionKind, TransactionOrigin,
};
use quittance_domain::unconfirmed::Unconfirmed;
use quittance_domain::webhook::WebhookFact;
use serde::de::DeserializeOwned;

use super::map::{self, CAPTURE, TRANSACTION};
use super::webhook::{self, disputed};
use super::wire::{Charge, Dispute, ErrorBody, IntentStatus, Page, PaymentIntent, Refund};
use crate::http::{Exchange, HttpClient, Query, Verdict, path_segment};
use crate::unreadable::{Unreadable, parsed, reference};

/// Payment intents, and the charges of payments that were made without one.
const INTENT: &str = "pi_";
/// Most objects of a page; Stripe gives no more.
const PAGE: &str = "100";
/// Most pages of a payment's refunds that are read: as many refunds as a payment can have transactions.
const MAX_PAGES: usize = 10;
/// With the charge: whether it succeeded, and until when it can be captured.
const WITH_CHARGE: Query<'static> = &[("expand[]", "latest_charge")];

/// Not to find it proves nothing: a search lags behind, and what is under way may still arrive.
const NOT_FOUND: LookupOutcome = LookupOutcome::NotFound {
    authoritative: false,
};

/// What an outcome is, where nothing else was found out first.
type Asked<T> = Result<T, LookupOutcome>;

/// Asks what became of a transaction.
pub(super) async fn look_up(http: &HttpClient, query: &LookupQuery) -> LookupOutcome {
    let found = match query.kind {
        TransactionKind::Purchase | TransactionKind::Authorization => opening(http, query).await,
        TransactionKind::Capture => capture(http, query).await,
        TransactionKind::Void => void(http, query).await,
        TransactionKind::Refund => refund(http, query).await,
        TransactionKind::Chargeback | TransactionKind::ChargebackReversal => {
            dispute(http, query).await
        }
    };
    match found {
        Ok(fact) => LookupOutcome::Found(fact),
        Err(outcome) => outcome,
    }
}

/// Asks which payment of ours a payment intent, or a charge, is.
pub(super) async fn payment_named(
    http: &HttpClient,
    reference: &ProviderReference,
) -> Result<Named, Unconfirmed> {
    let metadata = if reference.as_str().starts_with(INTENT) {
        let intent = get::<PaymentIntent>(http, INTENTS, reference, &[]).await;
        intent.map(|intent| intent.metadata)
    } else {
        let charge = get::<Charge>(http, CHARGES, reference, &[]).await;
        charge.map(|charge| charge.metadata)
    };
    // Every one of ours has our metadata from its beginning: what is there without is somebody else's.
    let named = |metadata| map::payment_id(&metadata).map_or(Named::NotOurs, Named::Ours);
    Ok(held(metadata)?.map_or(Named::NotFound, named))
}

/// What was asked for; `None` where Stripe does not hold it.
fn held<T>(asked: Asked<T>) -> Result<Option<T>, Unconfirmed> {
    match asked {
        Ok(it) => Ok(Some(it)),
        Err(LookupOutcome::NotFound { .. } | LookupOutcome::Found(_)) => Ok(None),
        Err(LookupOutcome::Unavailable { cause, retry_after }) => {
            Err(Unconfirmed { cause, retry_after })
        }
    }
}

async fn opening(http: &HttpClient, query: &LookupQuery) -> Asked<Fact> {
    let intent = match known_intent(query) {
        Some(reference) => get(http, INTENTS, reference, WITH_CHARGE).await?,
        None => searched(http, query.transaction).await?,
    };
    if !map::names(&intent.metadata, TRANSACTION, query.transaction) {
        return Err(Unreadable.into());
    }
    Ok(map::opening(&intent)?)
}

fn known_intent(query: &LookupQuery) -> Option<&ProviderReference> {
    let known = [&query.payment_reference, &query.provider_reference];
    let mut known = known.into_iter().flatten();
    known.find(|reference| reference.as_str().starts_with(INTENT))
}

/// The payment's intent; whatever follows upon a payment has one that is known.
async fn intent(http: &HttpClient, query: &LookupQuery) -> Asked<PaymentIntent> {
    let reference = known_intent(query).ok_or(NOT_FOUND)?;
    get(http, INTENTS, reference, WITH_CHARGE).await
}

/// A capture is ours where it left our id; one that the provider made is known by having happened. Every payment intent of
/// ours names the transaction that made it: where even that is missing, somebody has emptied its metadata, and our id
/// with it, so that its absence proves nothing.
async fn capture(http: &HttpClient, query: &LookupQuery) -> Asked<Fact> {
    let intent = intent(http, query).await?;
    let ours = map::names(&intent.metadata, CAPTURE, query.transaction);
    let emptied = map::id(&intent.metadata, TRANSACTION).is_none();
    match intent.status {
        IntentStatus::Succeeded | IntentStatus::Processing
            if ours || query.origin == TransactionOrigin::Provider =>
        {
            Ok(map::capture(&intent)?)
        }
        IntentStatus::Succeeded if emptied => Err(Unreadable.into()),
        // What is captured once, and not by ours, ours did not do.
        IntentStatus::Succeeded => failed(&intent, Cause::AlreadyCaptured),
        // What is canceled was not captured, and never will be.
        IntentStatus::Canceled if map::ran_out(&intent) => failed(&intent, Cause::Expired),
        IntentStatus::Canceled => failed(&intent, Cause::ProviderReportedFailure),
        IntentStatus::Processing
        | IntentStatus::RequiresPaymentMethod
        | IntentStatus::RequiresConfirmation
        | IntentStatus::RequiresAction
        | IntentStatus::RequiresCapture => Err(NOT_FOUND),
    }
}

async fn void(http: &HttpClient, query: &LookupQuery) -> Asked<Fact> {
    let intent = intent(http, query).await?;
    match intent.status {
        IntentStatus::Canceled => Ok(map::void(&intent)?),
        // What is captured cannot be canceled any more.
        IntentStatus::Succeeded => failed(&intent, Cause::AlreadyCaptured),
        IntentStatus::Processing
        | IntentStatus::RequiresPaymentMethod
        | IntentStatus::RequiresConfirmation
        | IntentStatus::RequiresAction
        | IntentStatus::RequiresCapture => Err(NOT_FOUND),
    }
}

fn failed(intent: &PaymentIntent, cause: Cause) -> Asked<Fact> {
    let intent = reference(intent.id.as_str())?;
    Ok(Fact {
        kind: FactKind::Failed(cause),
        provider_reference: None,
        payment_reference: Some(intent),
    })
}

async fn refund(http: &HttpClient, query: &LookupQuery) -> Asked<Fact> {
    let refund = match &query.provider_reference {
        Some(reference) => get(http, REFUNDS, reference, &[]).await?,
        None => listed(http, query).await?,
    };
    Ok(map::refund(&refund)?)
}

/// The refund among those of the payment that names our transaction.
async fn listed(http: &HttpClient, query: &LookupQuery) -> Asked<Refund> {
    let intent = known_intent(query).ok_or(NOT_FOUND)?;
    let mut after = None;
    for _ in 0..MAX_PAGES {
        let (page, more) = refunds_after(http, intent, after).await?;
        let ours = |refund: &&Refund| map::names(&refund.metadata, TRANSACTION, query.transaction);
        if let Some(found) = page.iter().find(ours) {
            return Ok(found.clone());
        }
        if !more {
            break;
        }
        after = page.last().map(|refund| refund.id.clone());
    }
    Err(NOT_FOUND)
}

/// A page of a payment's refunds, behind the one with this id, newest first; and whether there are more.
async fn refunds_after(
    http: &HttpClient,
    payment: &ProviderReference,
    after: Option<String>,
) -> Asked<(Vec<Refund>, bool)> {
    let intent = payment.as_str().starts_with(INTENT);
    let by = if intent { "payment_intent" } else { "charge" };
    let mut parameters = vec![(by, payment.as_str()), ("limit", PAGE)];
    parameters.extend(after.as_deref().map(|id| ("starting_after", id)));
    let exchange = http.get("/v1/refunds", "/v1/refunds", &parameters).await;
    let page: Page<Refund> = read(&exchange)?;
    let more = page.has_more && !page.data.is_empty();
    Ok((page.data, more))
}

/// What there is to tell of a payment's refunds, each as an event of its own would.
pub(super) async fn refunds(
    http: &HttpClient,
    payment: &ProviderReference,
) -> Result<Vec<WebhookFact>, Unconfirmed> {
    let mut facts = Vec::new();
    let mut after = None;
    for _ in 0..MAX_PAGES {
        let page = held(refunds_after(http, payment, after).await)?;
        let (page, more) = page.ok_or(Cause::NotProcessed)?;
        for refund in &page {
            let told = webhook::refund(refund).map_err(|_| Cause::UnreadableResponse)?;
            facts.extend(told);
        }
        if !more {
            break;
        }
        after = page.last().map(|refund| refund.id.clone());
    }
    // Oldest first, as events come.
    facts.reverse();
    Ok(facts)
}

/// Asks what a dispute is about now.
pub(super) async fn dispute_details(
    http: &HttpClient,
    query: &LookupQuery,
) -> Result<Option<quittance_domain::transaction::Dispute>, Unconfirmed> {
    let Some(dispute) = held(disputed_now(http, query).await)? else {
        return Ok(None);
    };
    let details = webhook::details(&dispute, query.kind);
    details.map_err(|_| Cause::UnreadableResponse.into())
}

async fn disputed_now(http: &HttpClient, query: &LookupQuery) -> Asked<Dispute> {
    let reference = query.provider_reference.as_ref().ok_or(NOT_FOUND)?;
    get(http, DISPUTES, reference, &[]).await
}

async fn dispute(http: &HttpClient, query: &LookupQuery) -> Asked<Fact> {
    let dispute = disputed_now(http, query).await?;
    let facts = disputed(&dispute)?;
    let mut facts = facts.into_iter().filter(|(kind, _)| *kind == query.kind);
    facts.next().map(|(_, fact)| fact).ok_or(NOT_FOUND)
}

/// Searches for the payment intent of a transaction.
async fn searched(http: &HttpClient, transaction: TransactionId) -> Asked<PaymentIntent> {
    const SEARCH: &str = "/v1/payment_intents/search";
    let wanted = format!("metadata['{TRANSACTION}']:'{transaction}'");
    let parameters = [
        ("query", wanted.as_str()),
        ("expand[]", "data.latest_charge"),
    ];
    let exchange = http.get(SEARCH, SEARCH, &parameters).await;
    let page: Page<PaymentIntent> = read(&exchange)?;
    page.data.into_iter().next().ok_or(NOT_FOUND)
}

/// Where objects of a kind are: their path, and the same for spans.
struct Place(&'static str, &'static str);

const INTENTS: Place = Place("/v1/payment_intents/", "/v1/payment_intents/{id}");
const CHARGES: Place = Place("/v1/charges/", "/v1/charges/{id}");
const REFUNDS: Place = Place("/v1/refunds/", "/v1/refunds/{id}");
const DISPUTES: Place = Place("/v1/disputes/", "/v1/disputes/{id}");

async fn get<T: DeserializeOwned>(
    http: &HttpClient,
    Place(path, route): Place,
    reference: &ProviderReference,
    query: Query<'_>,
) -> Asked<T> {
    let segment = path_segment(reference).ok_or(NOT_FOUND)?;
    let exchange = http.get(&format!("{path}{segment}"), route, query).await;
    read(&exchange)
}

/// What was found; or that nothing was, or could be asked.
fn read<T: DeserializeOwned>(exchange: &Exchange) -> Asked<T> {
    match exchange.verdict {
        Verdict::Success => Ok(parsed(exchange.body())?),
        Verdict::Refused(status) => {
            // Only Stripe's own "not found" is one: not that of a wrong URL, or of something in between.
            let error = parsed::<ErrorBody>(exchange.body());
            let code = error.map(|body| body.error.code);
            Err(match (status, code) {
                (404, Ok(Some(code))) if code == "resource_missing" => NOT_FOUND,
                (404, _) | (_, Err(Unreadable)) => Unreadable.into(),
                (_, Ok(_)) => exchange.unavailable(Cause::RequestRefused),
            })
        }
        Verdict::NotSent(not_sent) => Err(exchange.unavailable(not_sent.cause())),
        Verdict::Unknown(unknown) => Err(exchange.unavailable(unknown.cause())),
    }
}
