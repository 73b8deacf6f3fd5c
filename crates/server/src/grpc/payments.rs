//! `PaymentService`.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use prost::Message as _;
use quittance_domain::command::PaymentLookup;
use quittance_domain::context::Caller;
use quittance_domain::flows::Answer;
use quittance_domain::ids::{PaymentId, TenantId};
use quittance_proto::v1;
use quittance_proto::v1::payment_service_server::PaymentService;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::call::{Call, answer, streamed};
use super::feed::{Feed, FeedSettings, Guard, StreamLimit, Until, listens};
use super::status::{Failure, of_existing_payment};
use super::{Services, TokenKind, Tokens};
use crate::convert;
use crate::convert::{Start, entry, payment};
use crate::signing::Command;

/// `PaymentService` on the flows.
pub(super) struct PaymentRpcs {
    services: Services,
    streams: StreamLimit,
}

impl PaymentRpcs {
    pub(super) fn new(services: Services, streams: StreamLimit) -> Self {
        Self { services, streams }
    }

    async fn list(
        &self,
        request: Request<v1::ListPaymentsRequest>,
    ) -> Result<v1::ListPaymentsResponse, Failure> {
        let Call {
            caller, message, ..
        } = Call::of(request)?;
        let bound = filter_bytes(&message);
        let bound = [caller.tenant.as_str().as_bytes(), &bound];
        let tokens = &self.services.tokens;
        let after = page_start(tokens, TokenKind::Payments, &bound, &message.page_token);
        let query = convert::list_payments(message)?;
        let after = after?.map(PaymentId);
        let size = query.page_size;
        let flows = &self.services.flows;
        let page = flows.list(&caller, &query.filter, after, size + 1).await?;
        let mut records = page.payments;
        let more = page.ended_early || records.len() > size;
        records.truncate(size);
        let last = records
            .last()
            .map(|record| record.payment.id)
            .filter(|_| more);
        Ok(v1::ListPaymentsResponse {
            payments: records.iter().map(payment::payment).collect(),
            next_page_token: last
                .map(|id| tokens.seal(TokenKind::Payments, &bound, id.0.as_bytes()))
                .unwrap_or_default(),
        })
    }

    async fn watch(
        &self,
        request: Request<v1::WatchPaymentsRequest>,
    ) -> Result<(EventStream, String), Failure> {
        let Call {
            caller,
            who,
            message,
            ..
        } = Call::of(request)?;
        let query = convert::watch(message)?;
        let tokens = self.services.tokens.clone();
        let tenant = caller.tenant;
        let bound = [tenant.as_str().as_bytes()];
        let position = stream_start(&tokens, TokenKind::Watch, &bound, &query.start)?;
        let permit = self.streams.open(&tenant)?;
        let services = &self.services;
        let authenticator = Arc::clone(&services.authenticator);
        let settings = FeedSettings {
            guard: Guard::new(authenticator, who, services.stream_recheck),
            tenant: Some(tenant.clone()),
            position,
            until: if query.follow {
                Until::Closed
            } else {
                Until::Newest
            },
            listens: listens(caller.deadline, self.services.clock.now()),
        };
        let store = Arc::clone(&self.services.store);
        let stop = self.services.stop.clone();
        let feed = Feed::open(store, settings, stop, permit).await?;
        let start = feed.position().to_be_bytes();
        let start = tokens.seal(TokenKind::Watch, &bound, &start);
        let events = Events {
            feed,
            tenant,
            tokens,
        };
        let events = stream::unfold(Some(events), |events| async {
            let mut events = events?;
            match events.next().await {
                Ok(Some(event)) => Some((Ok(event), Some(events))),
                Ok(None) => None,
                Err(failure) => Some((Err(failure.nothing_moved().into()), None)),
            }
        });
        Ok((events.boxed(), start))
    }
}

/// The events of a tenant's payments.
struct Events {
    feed: Feed,
    tenant: TenantId,
    tokens: Tokens,
}

impl Events {
    async fn next(&mut self) -> Result<Option<v1::WatchPaymentsResponse>, Failure> {
        while let Some((stored, position)) = self.feed.next().await? {
            // What concerns no payment's state, or was not written by this service, is for the audit log's readers.
            if let Some(event) = entry::event(&stored, &self.tenant)? {
                let bound = [self.tenant.as_str().as_bytes()];
                let next = (position + 1).to_be_bytes();
                return Ok(Some(v1::WatchPaymentsResponse {
                    event: Some(event),
                    resume_token: self.tokens.seal(TokenKind::Watch, &bound, &next),
                }));
            }
        }
        Ok(None)
    }
}

pub(super) type EventStream =
    Pin<Box<dyn Stream<Item = Result<v1::WatchPaymentsResponse, Status>> + Send>>;

/// The filters of a page, as bytes: a page token is good for these only.
fn filter_bytes(request: &v1::ListPaymentsRequest) -> Vec<u8> {
    let mut filters = request.clone();
    filters.page_token.clear();
    filters.page_size = 0;
    filters.encode_to_vec()
}

/// Behind which item a page starts; `None` for the first.
pub(super) fn page_start(
    tokens: &Tokens,
    kind: TokenKind,
    bound: &[&[u8]],
    token: &str,
) -> Result<Option<Uuid>, Failure> {
    if token.is_empty() {
        return Ok(None);
    }
    match tokens.open::<16>(kind, bound, token) {
        Some(bytes) => Ok(Some(Uuid::from_bytes(bytes))),
        None => Err(Failure::invalid_page_token()),
    }
}

/// At which position a stream starts; `None` for what comes next.
pub(super) fn stream_start(
    tokens: &Tokens,
    kind: TokenKind,
    bound: &[&[u8]],
    start: &Start,
) -> Result<Option<u64>, Failure> {
    match start {
        Start::Oldest => Ok(Some(0)),
        Start::Now => Ok(None),
        Start::After(token) => match tokens.open::<8>(kind, bound, token) {
            Some(bytes) => Ok(Some(u64::from_be_bytes(bytes))),
            None => Err(Failure::invalid_resume_token()),
        },
    }
}

/// Payment and transaction of an answer.
pub(super) fn parts(answer: &Answer) -> (Option<v1::Payment>, Option<v1::Transaction>) {
    let transaction = payment::transaction_of(&answer.record, answer.transaction);
    (Some(payment::payment(&answer.record)), transaction)
}

/// Answers a command with its response message, and the receipt of its acceptance.
macro_rules! respond {
    ($services:expr, $response:ident, $answered:expr) => {{
        let answered: Result<(Answer, Command), Failure> = $answered.await;
        let (given, command) = answered.map_err(Status::from)?;
        let (payment, transaction) = parts(&given);
        let receipt = match &$services.evidence {
            Some(evidence) => evidence.receipts.of_answer(&given, &command).await,
            None => None,
        };
        let message = v1::$response {
            payment,
            transaction,
            receipt,
        };
        Ok(answer(message, given.replayed))
    }};
}
pub(super) use respond;

/// The command of a caller under a key.
fn keyed(caller: &Caller, key: &str) -> Command {
    Command::Keyed {
        tenant: caller.tenant.clone(),
        key: key.to_owned(),
    }
}

#[tonic::async_trait]
impl PaymentService for PaymentRpcs {
    async fn create_payment(
        &self,
        request: Request<v1::CreatePaymentRequest>,
    ) -> Result<Response<v1::CreatePaymentResponse>, Status> {
        respond!(self.services, CreatePaymentResponse, async {
            let Call {
                caller, message, ..
            } = Call::of(request)?;
            let receipt = keyed(&caller, &message.idempotency_key);
            let command = convert::create(message, self.services.clock.now())?;
            let answered = self.services.flows.create(&caller, command).await?;
            Ok((answered, receipt))
        })
    }

    async fn confirm_payment(
        &self,
        request: Request<v1::ConfirmPaymentRequest>,
    ) -> Result<Response<v1::ConfirmPaymentResponse>, Status> {
        respond!(self.services, ConfirmPaymentResponse, async {
            let Call {
                caller, message, ..
            } = Call::of(request)?;
            let receipt = keyed(&caller, &message.idempotency_key);
            let command = convert::confirm(message)?;
            let answered = self.services.flows.confirm(&caller, command).await;
            Ok((answered.map_err(of_existing_payment)?, receipt))
        })
    }

    async fn capture_payment(
        &self,
        request: Request<v1::CapturePaymentRequest>,
    ) -> Result<Response<v1::CapturePaymentResponse>, Status> {
        respond!(self.services, CapturePaymentResponse, async {
            let Call {
                caller, message, ..
            } = Call::of(request)?;
            let receipt = keyed(&caller, &message.idempotency_key);
            let command = convert::capture(message, self.services.clock.now())?;
            let answered = self.services.flows.capture(&caller, command).await;
            Ok((answered.map_err(of_existing_payment)?, receipt))
        })
    }

    async fn void_payment(
        &self,
        request: Request<v1::VoidPaymentRequest>,
    ) -> Result<Response<v1::VoidPaymentResponse>, Status> {
        respond!(self.services, VoidPaymentResponse, async {
            let Call {
                caller, message, ..
            } = Call::of(request)?;
            let receipt = keyed(&caller, &message.idempotency_key);
            let command = convert::void(message)?;
            let answered = self.services.flows.void(&caller, command).await;
            Ok((answered.map_err(of_existing_payment)?, receipt))
        })
    }

    async fn refund_payment(
        &self,
        request: Request<v1::RefundPaymentRequest>,
    ) -> Result<Response<v1::RefundPaymentResponse>, Status> {
        respond!(self.services, RefundPaymentResponse, async {
            let Call {
                caller, message, ..
            } = Call::of(request)?;
            let receipt = keyed(&caller, &message.idempotency_key);
            let command = convert::refund(message, self.services.clock.now())?;
            let answered = self.services.flows.refund(&caller, command).await;
            Ok((answered.map_err(of_existing_payment)?, receipt))
        })
    }

    async fn sync_payment(
        &self,
        request: Request<v1::SyncPaymentRequest>,
    ) -> Result<Response<v1::SyncPaymentResponse>, Status> {
        respond!(self.services, SyncPaymentResponse, async {
            let Call {
                caller, message, ..
            } = Call::of(request)?;
            let payment = convert::sync(&message)?;
            let answered = self.services.flows.sync(&caller, payment).await;
            Ok((answered.map_err(of_existing_payment)?, Command::Unkeyed))
        })
    }

    async fn get_payment(
        &self,
        request: Request<v1::GetPaymentRequest>,
    ) -> Result<Response<v1::GetPaymentResponse>, Status> {
        let found = async {
            let Call {
                caller, message, ..
            } = Call::of(request)?;
            let lookup = convert::get(message)?;
            // A key is looked up to learn what an earlier call did: whatever keeps it from being found disproves nothing.
            let by_key = matches!(lookup, PaymentLookup::IdempotencyKey(_));
            let found = self.services.flows.get(&caller, lookup).await;
            let record = found.map_err(|error| {
                let failure = Failure::from(error);
                if by_key {
                    failure
                } else {
                    failure.nothing_moved()
                }
            })?;
            Ok::<_, Failure>(v1::GetPaymentResponse {
                payment: Some(payment::payment(&record)),
            })
        };
        Ok(Response::new(found.await?))
    }

    async fn list_payments(
        &self,
        request: Request<v1::ListPaymentsRequest>,
    ) -> Result<Response<v1::ListPaymentsResponse>, Status> {
        let page = self.list(request).await;
        Ok(Response::new(page.map_err(Failure::nothing_moved)?))
    }

    type WatchPaymentsStream = EventStream;

    async fn watch_payments(
        &self,
        request: Request<v1::WatchPaymentsRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let events = self.watch(request).await.and_then(streamed);
        Ok(events.map_err(Failure::nothing_moved)?)
    }
}
