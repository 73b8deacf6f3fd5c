//! `ExportEvidence`: waits for a checkpoint that covers the payment, and hands the bundle out.

use std::sync::Arc;
use std::time::Duration;

use quittance_domain::context::Caller;
use quittance_domain::error::FlowError;
use quittance_domain::ids::PaymentId;
use quittance_evidence::Disclosure;
use quittance_proto::v1;
use quittance_proto::v1::ErrorReason;
use quittance_store::{StoredCheckpoint, TreeReadError};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tonic::Request;

use super::super::call::Call;
use super::super::facts::Facts;
use super::super::feed::listens;
use super::super::status::{Failure, overloaded};
use super::proofs::{checkpoint_message, not_merged, read_error, unproved};
use super::{AuditRpcs, Scope};
use crate::auth::Role;
use crate::convert;
use crate::convert::EvidenceQuery;
use crate::signing::{BundleError, Evidence, Exported, finish_bundle};

/// Most bundles that one process makes at a time. Each takes several times its size, at most some 300 MiB.
pub(super) const MAX_EXPORTS: usize = 4;
/// How long an export waits for a checkpoint that covers the payment: entries are merged and signed within about a
/// second, so that more means that nothing is signed at all.
const MAX_COVER_WAIT: Duration = Duration::from_secs(10);
/// How long before the caller's deadline the wait ends, so that the caller hears why.
const ANSWER_MARGIN: Duration = Duration::from_millis(250);
/// How often it is looked for the checkpoint.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What an export is about.
struct Export {
    query: EvidenceQuery,
    scope: Scope,
    /// By when it has a checkpoint and a turn.
    until: Instant,
    /// Whether the caller may see personal data of its own tenant's payments.
    discloses: bool,
}

/// What a bundle is made of.
struct Covered {
    checkpoint: StoredCheckpoint,
    /// The payment's newest entry when it was asked for: the checkpoint covers it.
    last: u64,
}

impl AuditRpcs {
    pub(super) async fn export(
        &self,
        request: Request<v1::ExportEvidenceRequest>,
    ) -> Result<v1::ExportEvidenceResponse, Failure> {
        let Call {
            caller,
            platform,
            who,
            message,
        } = Call::of(request)?;
        let evidence = self.evidence()?;
        let query = convert::export_evidence(&message)?;
        let left = listens(caller.deadline, self.services.clock.now());
        let left = left.map(|left| left.saturating_sub(ANSWER_MARGIN));
        let wanted = Export {
            query,
            scope: Scope::of(&caller, platform, None)?,
            until: Instant::now() + left.map_or(MAX_COVER_WAIT, |left| left.min(MAX_COVER_WAIT)),
            discloses: who.roles.contains(Role::PaymentsRead) && !query.omit_disclosures,
        };
        self.record_export(&caller, &wanted).await?;
        let covered = self.covering(evidence, &wanted).await?;
        let turn = self.turn(wanted.until).await?;
        let disclosures = disclosed(evidence, &caller, &wanted).await?;
        let exported = make(evidence, &wanted, &covered, disclosures, turn).await?;
        Ok(answer(
            evidence,
            query.payment,
            covered.checkpoint,
            exported,
        ))
    }

    async fn record_export(&self, caller: &Caller, wanted: &Export) -> Result<(), Failure> {
        let mut facts = Facts::default();
        facts.add("form", if wanted.query.page { "html" } else { "json" });
        let personal = if wanted.discloses {
            "disclosed"
        } else {
            "left_out"
        };
        facts.add("personal_data", personal);
        let about = Some(wanted.query.payment);
        let event = "audit.evidence_exported";
        self.record(caller, &wanted.scope, event, about, facts)
            .await
    }

    /// A checkpoint over every entry that the payment has now; waits until there is one.
    async fn covering(&self, evidence: &Evidence, wanted: &Export) -> Result<Covered, Failure> {
        let (store, payment) = (&evidence.store, wanted.query.payment);
        let tenant = wanted.scope.tenant.as_ref();
        let last = store.newest_entry(tenant, payment).await?;
        let last = last.ok_or(FlowError::PaymentNotFound)?;
        let unread = |error| read_error(evidence, error);
        loop {
            let next = Instant::now() + LOOK_EVERY;
            let is_last_look = next > wanted.until;
            // The place first: a checkpoint that is read afterwards is at least as new.
            let place = store.place_of(payment, last, is_last_look).await;
            if let Some(position) = place.map_err(unread)? {
                let covering = newest_covering(evidence, position).await;
                if let Some(checkpoint) = covering.map_err(unread)? {
                    return Ok(Covered { checkpoint, last });
                }
            }
            if is_last_look {
                return Err(not_merged(
                    "no signed checkpoint covers the payment's newest entry yet; repeat the call",
                ));
            }
            tokio::select! {
                () = self.services.stop.cancelled() => return Err(stopping()),
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// A turn to make a bundle.
    async fn turn(&self, until: Instant) -> Result<OwnedSemaphorePermit, Failure> {
        let turn = Arc::clone(&self.exports).acquire_owned();
        match tokio::time::timeout_at(until, turn).await {
            Ok(Ok(turn)) => Ok(turn),
            // Nobody closes the semaphore.
            Ok(Err(_)) | Err(_) => Err(overloaded()),
        }
    }
}

/// The newest checkpoint over a position: one that a witness dated rather than a newer one that none has yet.
async fn newest_covering(
    evidence: &Evidence,
    position: u64,
) -> Result<Option<StoredCheckpoint>, TreeReadError> {
    let covers = |checkpoint: &StoredCheckpoint| position < checkpoint.head.size;
    let (store, keys) = (&evidence.store, evidence.keys.verifiers());
    let cosigned = store
        .newest_cosigned_checkpoint(&keys, &evidence.witnesses)
        .await?;
    let cosigned = cosigned.filter(covers);
    if cosigned.is_some() {
        return Ok(cosigned);
    }
    Ok(store.newest_checkpoint(&keys).await?.filter(covers))
}

/// What the caller may see of the customer: of its own tenant only, whatever else it may read.
async fn disclosed(
    evidence: &Evidence,
    caller: &Caller,
    wanted: &Export,
) -> Result<Vec<Disclosure>, Failure> {
    if !wanted.discloses {
        return Ok(Vec::new());
    }
    let store = &evidence.store;
    Ok(store
        .disclosures(&caller.tenant, wanted.query.payment)
        .await?)
}

async fn make(
    evidence: &Evidence,
    wanted: &Export,
    covered: &Covered,
    disclosures: Vec<Disclosure>,
    turn: OwnedSemaphorePermit,
) -> Result<Exported, Failure> {
    let EvidenceQuery { payment, page, .. } = wanted.query;
    let Covered { checkpoint, last } = covered;
    let bundle = evidence
        .bundle(payment, *last, checkpoint, disclosures)
        .await;
    let bundle = bundle.map_err(|error| bundle_error(evidence, error))?;
    let keys = evidence.keys.published(&evidence.witnesses);
    let tenant = wanted.scope.tenant.clone();
    // Off the threads that serve; the turn lasts as long as the work, also where the caller has gone.
    let finished = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        finish_bundle(&bundle, &keys, tenant.as_ref(), page)
    });
    let finished = finished.await;
    let finished = finished.map_err(|_| Failure::defect("making a bundle was cut short"))?;
    finished.map_err(|error| bundle_error(evidence, error))
}

fn answer(
    evidence: &Evidence,
    payment: PaymentId,
    checkpoint: StoredCheckpoint,
    exported: Exported,
) -> v1::ExportEvidenceResponse {
    let (bundle, source_bundle, media_type, extension) = match exported.page {
        None => (exported.json, Vec::new(), "application/json", "json"),
        Some(page) => {
            let page = page.into_bytes();
            (page, exported.json, "text/html; charset=utf-8", "html")
        }
    };
    v1::ExportEvidenceResponse {
        bundle,
        media_type: media_type.to_owned(),
        file_name: format!("evidence-{payment}.{extension}"),
        checkpoint: Some(checkpoint_message(evidence, checkpoint)),
        last_entity_seq: exported.last_entity_seq,
        source_bundle,
        disclosures: u32::try_from(exported.disclosures).unwrap_or(u32::MAX),
    }
}

fn stopping() -> Failure {
    let message = "this replica is shutting down; repeat the call on another";
    Failure::new(ErrorReason::ShuttingDown, message)
}

fn bundle_error(evidence: &Evidence, error: BundleError) -> Failure {
    match error {
        BundleError::Store(error) => error.into(),
        BundleError::Tree(error) => read_error(evidence, error),
        BundleError::TooLarge => Failure::new(
            ErrorReason::EvidenceTooLarge,
            "the payment has more entries than one evidence bundle holds",
        )
        .precondition("ENTRIES"),
        error @ (BundleError::Note(_)
        | BundleError::NotProved(_)
        | BundleError::OtherTenant
        | BundleError::RowDiffers(_)
        | BundleError::Form(_)) => unproved(evidence, &error.to_string()),
        error @ BundleError::NoKey => Failure::defect(&error.to_string()),
    }
}
