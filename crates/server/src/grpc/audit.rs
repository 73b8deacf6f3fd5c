//! `AuditService`. Every read is recorded before its first answer; what cannot be recorded is not read (R18).

mod export;
mod proofs;

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use prost::Message as _;
use quittance_domain::context::Caller;
use quittance_domain::error::FlowError;
use quittance_domain::flows::audit::AuditEvent;
use quittance_domain::ids::{EntryId, PaymentId, TenantId};
use quittance_proto::v1;
use quittance_proto::v1::audit_service_server::AuditService;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use super::call::{Call, streamed};
use super::facts::Facts;
use super::feed::{Feed, FeedSettings, Guard, StreamLimit, Until, listens};
use super::payments::{page_start, stream_start};
use super::reconcile::{self, ReconcileStream, Turns};
use super::status::{Failure, platform_role_required};
use super::verify_log::{self, VerifyLogStream};
use super::{Services, TokenKind, Tokens};
use crate::auth::Role;
use crate::convert;
use crate::convert::entry::{self, View};
use crate::convert::payment::timestamp;
use crate::convert::{SummaryQuery, TailQuery};

pub use self::proofs::PROOF_CHECK;

/// How often an access is recorded anew after another of the same process got in between.
const RECORD_TRIES: usize = 3;

/// `AuditService` on the log.
pub(super) struct AuditRpcs {
    services: Services,
    streams: StreamLimit,
    /// Turns to make an evidence bundle.
    exports: Arc<Semaphore>,
    turns: Turns,
}

/// What a caller may read.
struct Scope {
    /// Of which tenant; `None` for all.
    tenant: Option<TenantId>,
    /// With positions.
    platform: bool,
}

impl Scope {
    /// What the caller asks for, if it may. Only the platform's auditors read beyond their own tenant.
    fn of(caller: &Caller, platform: bool, named: Option<TenantId>) -> Result<Self, Failure> {
        let tenant = match (named, platform) {
            (Some(named), false) if named != caller.tenant => {
                return Err(platform_role_required(Role::PlatformAudit));
            }
            (None, false) => Some(caller.tenant.clone()),
            (named, _) => named,
        };
        Ok(Self { tenant, platform })
    }

    /// What tokens are bound to. A tenant's name is never empty, so that "all" is nobody's.
    fn bound(&self) -> &[u8] {
        self.tenant
            .as_ref()
            .map_or(&[], |tenant| tenant.as_str().as_bytes())
    }

    /// The caller as the log's reader: for the tenant that it reads.
    fn reader(&self, caller: &Caller) -> Caller {
        let tenant = self.tenant.clone().unwrap_or_else(|| caller.tenant.clone());
        Caller {
            tenant,
            ..caller.clone()
        }
    }

    fn across(&self) -> bool {
        self.tenant.is_none()
    }

    fn view(&self, leaf_data: bool) -> View {
        View {
            leaf_data,
            leaf_index: self.platform,
        }
    }
}

impl AuditRpcs {
    pub(super) fn new(services: Services, streams: StreamLimit) -> Self {
        Self {
            services,
            streams,
            exports: Arc::new(Semaphore::new(export::MAX_EXPORTS)),
            turns: Turns::default(),
        }
    }

    /// Records an access, under the tenant of whoever reads.
    async fn record(
        &self,
        caller: &Caller,
        scope: &Scope,
        event_type: &'static str,
        payment: Option<PaymentId>,
        facts: Facts,
    ) -> Result<(), Failure> {
        let mut facts = facts;
        if scope.tenant.as_ref() != Some(&caller.tenant) {
            let whose = scope.tenant.as_ref().map_or("*", TenantId::as_str);
            facts.add("tenant_id", whose);
        }
        let event = AuditEvent {
            payment,
            ..AuditEvent::done(event_type, facts.into_details())
        };
        for _ in 1..RECORD_TRIES {
            match self.services.audit.record(caller, event.clone()).await {
                Err(FlowError::ConcurrentChange) => {}
                other => return other.map_err(unrecorded),
            }
        }
        self.services
            .audit
            .record(caller, event)
            .await
            .map_err(unrecorded)
    }

    async fn list(
        &self,
        request: Request<v1::ListEntriesRequest>,
    ) -> Result<v1::ListEntriesResponse, Failure> {
        let Call {
            caller,
            platform,
            message,
            ..
        } = Call::of(request)?;
        let filters = filter_bytes(&message);
        let token = message.page_token.clone();
        let leaf_data = message.include_leaf_data;
        let query = convert::list_entries(message)?;
        let scope = Scope::of(&caller, platform, query.tenant)?;
        let bound = [scope.bound(), &filters];
        let tokens = &self.services.tokens;
        let after = page_start(tokens, TokenKind::Entries, &bound, &token)?.map(EntryId);
        let facts = Facts::of_filter(&query.filter);
        let about = query.filter.payment;
        self.record(&caller, &scope, "audit.entries_listed", about, facts)
            .await?;
        let reader = scope.reader(&caller);
        let (size, log) = (query.page_size, &self.services.audit);
        let mut stored = log
            .list(&reader, scope.across(), &query.filter, after, size + 1)
            .await?;
        let more = stored.len() > size;
        stored.truncate(size);
        let last = stored.last().map(|entry| entry.id).filter(|_| more);
        let view = scope.view(leaf_data);
        let entries = stored
            .iter()
            .filter_map(|one| entry::entry(one, scope.tenant.as_ref(), view).transpose());
        Ok(v1::ListEntriesResponse {
            entries: entries.collect::<Result<_, _>>()?,
            next_page_token: last
                .map(|id| tokens.seal(TokenKind::Entries, &bound, id.0.as_bytes()))
                .unwrap_or_default(),
        })
    }

    async fn get(
        &self,
        request: Request<v1::GetEntryRequest>,
    ) -> Result<v1::GetEntryResponse, Failure> {
        let Call {
            caller,
            platform,
            message,
            ..
        } = Call::of(request)?;
        let id = convert::get_entry(&message)?;
        let scope = Scope::of(&caller, platform, None)?;
        let mut facts = Facts::default();
        facts.add("entry_id", &id);
        self.record(&caller, &scope, "audit.entry_read", None, facts)
            .await?;
        let stored = self
            .services
            .audit
            .entry(&caller, scope.across(), id)
            .await?;
        let tenant = scope.tenant.as_ref();
        let shown = entry::entry(&stored, tenant, scope.view(true))?;
        let mut entry = shown.ok_or(FlowError::EntryNotFound)?;
        if let (Some(evidence), true) = (&self.services.evidence, entry.authentic) {
            let leaf = entry::decode(&stored, tenant)?;
            entry.receipt = evidence.receipts.of_entry(&leaf, &stored);
        }
        Ok(v1::GetEntryResponse { entry: Some(entry) })
    }

    async fn tail(
        &self,
        request: Request<v1::TailEntriesRequest>,
    ) -> Result<(EntryStream, String), Failure> {
        let Call {
            caller,
            platform,
            who,
            message,
        } = Call::of(request)?;
        let leaf_data = message.include_leaf_data;
        let TailQuery { start, tenant } = convert::tail(message)?;
        let scope = Scope::of(&caller, platform, tenant)?;
        let tokens = self.services.tokens.clone();
        let position = stream_start(&tokens, TokenKind::Tail, &[scope.bound()], &start)?;
        let permit = self.streams.open(&caller.tenant)?;
        let facts = Facts::default();
        self.record(&caller, &scope, "audit.entries_tailed", None, facts)
            .await?;
        let services = &self.services;
        let authenticator = Arc::clone(&services.authenticator);
        let settings = FeedSettings {
            guard: Guard::new(authenticator, who, services.stream_recheck),
            tenant: scope.tenant.clone(),
            position,
            until: Until::Closed,
            listens: listens(caller.deadline, self.services.clock.now()),
        };
        let store = Arc::clone(&self.services.store);
        let stop = self.services.stop.clone();
        let feed = Feed::open(store, settings, stop, permit).await?;
        let start = feed.position().to_be_bytes();
        let start = tokens.seal(TokenKind::Tail, &[scope.bound()], &start);
        let view = scope.view(leaf_data);
        let entries = Entries {
            feed,
            scope,
            tokens,
            view,
        };
        let entries = stream::unfold(Some(entries), |entries| async {
            let mut entries = entries?;
            match entries.next().await {
                Ok(Some(entry)) => Some((Ok(entry), Some(entries))),
                Ok(None) => None,
                Err(failure) => Some((Err(failure.nothing_moved().into()), None)),
            }
        });
        Ok((entries.boxed(), start))
    }

    async fn verify(
        &self,
        request: Request<v1::VerifyLogRequest>,
    ) -> Result<VerifyLogStream, Failure> {
        let Call {
            caller,
            platform,
            who,
            message,
        } = Call::of(request)?;
        let services = &self.services;
        let now = services.clock.now();
        let begun = verify_log::resume(&services.tokens, &message.resume_token, now)?;
        let scope = Scope::of(&caller, platform, None)?;
        let mut facts = Facts::default();
        let before = begun.at.begun.then_some(begun.at.entries);
        facts.add_if("entries_before", before);
        self.record(
            &caller,
            &scope,
            "audit.log_verification_started",
            None,
            facts,
        )
        .await?;
        let authenticator = Arc::clone(&services.authenticator);
        let parts = verify_log::Parts {
            guard: Guard::new(authenticator, who, services.stream_recheck),
            tokens: services.tokens.clone(),
            stop: services.stop.clone(),
        };
        let verifier = Arc::clone(&services.verifier);
        Ok(verify_log::run(verifier, begun, parts))
    }

    async fn summarize(
        &self,
        request: Request<v1::SummarizeFailuresRequest>,
    ) -> Result<v1::SummarizeFailuresResponse, Failure> {
        let Call {
            caller,
            platform,
            message,
            ..
        } = Call::of(request)?;
        let query = convert::summarize(message, self.services.clock.now())?;
        let SummaryQuery {
            from,
            to,
            max_buckets,
            tenant,
        } = query;
        let scope = Scope::of(&caller, platform, tenant)?;
        let mut facts = Facts::default();
        facts.add("from_time", &from.to_rfc3339());
        facts.add("to_time", &to.to_rfc3339());
        self.record(&caller, &scope, "audit.failures_summarized", None, facts)
            .await?;
        let store = &self.services.store;
        let tenant = scope.tenant.as_ref();
        let report = store
            .summarize_failures(tenant, from, to, max_buckets)
            .await?;
        let buckets = report.summaries.into_iter().map(entry::failure_bucket);
        Ok(v1::SummarizeFailuresResponse {
            buckets: buckets.collect(),
            from_time: Some(timestamp(report.from)),
            to_time: Some(timestamp(to)),
            entries_read: report.entries,
            entries_refused: report.refused,
        })
    }
}

/// Entries of the log, as they come.
struct Entries {
    feed: Feed,
    scope: Scope,
    tokens: Tokens,
    view: View,
}

impl Entries {
    async fn next(&mut self) -> Result<Option<v1::TailEntriesResponse>, Failure> {
        while let Some((stored, position)) = self.feed.next().await? {
            let tenant = self.scope.tenant.as_ref();
            if let Some(entry) = entry::entry(&stored, tenant, self.view)? {
                let (bound, next) = ([self.scope.bound()], (position + 1).to_be_bytes());
                return Ok(Some(v1::TailEntriesResponse {
                    entry: Some(entry),
                    resume_token: self.tokens.seal(TokenKind::Tail, &bound, &next),
                }));
            }
        }
        Ok(None)
    }
}

type EntryStream = Pin<Box<dyn Stream<Item = Result<v1::TailEntriesResponse, Status>> + Send>>;

/// The access may be recorded or not; either way nothing was read, and no money is in question.
fn unrecorded(error: FlowError) -> Failure {
    match error {
        FlowError::AcceptanceUnknown => FlowError::DatabaseUnavailable.into(),
        other => other.into(),
    }
}

/// The filters of a page, as bytes: a page token is good for these only.
fn filter_bytes(request: &v1::ListEntriesRequest) -> Vec<u8> {
    let mut filters = request.clone();
    filters.page_token.clear();
    filters.page_size = 0;
    filters.include_leaf_data = false;
    filters.encode_to_vec()
}

#[tonic::async_trait]
impl AuditService for AuditRpcs {
    async fn list_entries(
        &self,
        request: Request<v1::ListEntriesRequest>,
    ) -> Result<Response<v1::ListEntriesResponse>, Status> {
        let page = self.list(request).await;
        Ok(Response::new(page.map_err(Failure::nothing_moved)?))
    }

    async fn get_entry(
        &self,
        request: Request<v1::GetEntryRequest>,
    ) -> Result<Response<v1::GetEntryResponse>, Status> {
        let entry = self.get(request).await;
        Ok(Response::new(entry.map_err(Failure::nothing_moved)?))
    }

    type TailEntriesStream = EntryStream;

    async fn tail_entries(
        &self,
        request: Request<v1::TailEntriesRequest>,
    ) -> Result<Response<EntryStream>, Status> {
        let entries = self.tail(request).await.and_then(streamed);
        Ok(entries.map_err(Failure::nothing_moved)?)
    }

    async fn summarize_failures(
        &self,
        request: Request<v1::SummarizeFailuresRequest>,
    ) -> Result<Response<v1::SummarizeFailuresResponse>, Status> {
        let summary = self.summarize(request).await;
        Ok(Response::new(summary.map_err(Failure::nothing_moved)?))
    }

    async fn get_checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        let checkpoint = self.checkpoint(request).await;
        Ok(Response::new(checkpoint.map_err(Failure::nothing_moved)?))
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<v1::GetInclusionProofRequest>,
    ) -> Result<Response<v1::GetInclusionProofResponse>, Status> {
        let proof = self.inclusion(request).await;
        Ok(Response::new(proof.map_err(Failure::nothing_moved)?))
    }

    async fn get_consistency_proof(
        &self,
        request: Request<v1::GetConsistencyProofRequest>,
    ) -> Result<Response<v1::GetConsistencyProofResponse>, Status> {
        let proof = self.consistency(request).await;
        Ok(Response::new(proof.map_err(Failure::nothing_moved)?))
    }

    async fn export_evidence(
        &self,
        request: Request<v1::ExportEvidenceRequest>,
    ) -> Result<Response<v1::ExportEvidenceResponse>, Status> {
        let bundle = self.export(request).await;
        Ok(Response::new(bundle.map_err(Failure::nothing_moved)?))
    }

    type VerifyLogStream = VerifyLogStream;

    async fn verify_log(
        &self,
        request: Request<v1::VerifyLogRequest>,
    ) -> Result<Response<VerifyLogStream>, Status> {
        let told = self.verify(request).await;
        Ok(Response::new(told.map_err(Failure::nothing_moved)?))
    }

    type ReconcileStream = ReconcileStream;

    async fn reconcile(
        &self,
        request: Request<Streaming<v1::ReconcileRequest>>,
    ) -> Result<Response<ReconcileStream>, Status> {
        let told = reconcile::run(&self.services, &self.turns, request).await;
        Ok(Response::new(told.map_err(Failure::nothing_moved)?))
    }
}
