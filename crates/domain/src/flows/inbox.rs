//! The inbox of webhooks as operators see it: what waits, what was given up, and trying it again.
//!
//! A body never leaves the service: it is the provider's, and may hold what we do not know of. What is shown of it is
//! what the adapter reads from it by signed fields, its size and its digest.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::context::Caller;
use crate::error::FlowError;
use crate::ids::{ProviderAccount, WebhookId};
use crate::ports::Providers;
use crate::text::Text;
use crate::webhook::{
    Inbox, Replay, StoredBody, StoredWebhook, Unreadable, WebhookFact, WebhookFilter, WebhookState,
};

use super::audit::{AuditEvent, AuditLog};
use super::read_error;

/// How often a replay is offered anew to the journal after another entry of the same stream got in between.
const RECORD_TRIES: usize = 3;

/// A webhook, and what may be seen of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenWebhook {
    /// What the inbox keeps of it.
    pub stored: StoredWebhook,
    /// Its body.
    pub body: SeenBody,
}

/// What may be seen of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeenBody {
    /// It is there.
    Kept {
        /// How long it is, in bytes.
        bytes: usize,
        /// Its SHA-256, to compare it with what the provider shows.
        digest: [u8; 32],
        /// What it says; `None` where its account is not configured any more.
        says: Option<Result<Vec<WebhookFact>, Unreadable>>,
    },
    /// It was wiped.
    Wiped,
    /// It cannot be decrypted.
    NotOpened,
}

/// The inbox for operators. Cheap to clone.
#[derive(Clone)]
pub struct InboxDesk {
    inbox: Arc<dyn Inbox>,
    providers: Arc<dyn Providers>,
    log: AuditLog,
}

impl fmt::Debug for InboxDesk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboxDesk").finish_non_exhaustive()
    }
}

impl InboxDesk {
    /// The desk of this inbox; what is done at it is recorded in this log.
    pub fn new(inbox: Arc<dyn Inbox>, providers: Arc<dyn Providers>, log: AuditLog) -> Self {
        Self {
            inbox,
            providers,
            log,
        }
    }

    /// Lists webhooks, newest first, those before `before` (exclusive).
    pub async fn list(
        &self,
        filter: &WebhookFilter,
        before: Option<WebhookId>,
        limit: usize,
    ) -> Result<Vec<StoredWebhook>, FlowError> {
        let listed = self.inbox.list_webhooks(filter, before, limit).await;
        listed.map_err(read_error)
    }

    /// Reads a webhook.
    pub async fn get(&self, id: WebhookId) -> Result<SeenWebhook, FlowError> {
        let (stored, body) = self.read(id).await?;
        let body = match body {
            StoredBody::Wiped => SeenBody::Wiped,
            StoredBody::NotOpened => SeenBody::NotOpened,
            StoredBody::Kept(body) => SeenBody::Kept {
                bytes: body.expose().len(),
                digest: Sha256::digest(body.expose()).into(),
                says: self.says(&stored.account, body.expose()),
            },
        };
        Ok(SeenWebhook { stored, body })
    }

    /// Has a parked webhook or a dead letter tried again now. Who and why is on record before it is done: what cannot
    /// be recorded is not done.
    pub async fn replay(
        &self,
        caller: &Caller,
        id: WebhookId,
        why: &Text<500>,
    ) -> Result<StoredWebhook, FlowError> {
        let (stored, body) = self.read(id).await?;
        if body == StoredBody::Wiped {
            return Err(FlowError::WebhookWiped);
        }
        match stored.state {
            WebhookState::Parked | WebhookState::Dead => {}
            state @ (WebhookState::Received | WebhookState::Applied | WebhookState::Ignored) => {
                return Err(FlowError::WebhookNotReplayable { state });
            }
        }
        self.record(caller, &stored, why).await?;
        let replayed = self.inbox.replay_webhook(id).await.map_err(read_error)?;
        match (replayed, self.read(id).await?) {
            (Replay::NotReplayable, (_, StoredBody::Wiped)) => Err(FlowError::WebhookWiped),
            // What was parked or dead a moment ago has been taken up: by somebody else, or by this very call, whose
            // first answer was lost.
            (Replay::Due | Replay::NotReplayable, (stored, _)) => Ok(stored),
        }
    }

    async fn read(&self, id: WebhookId) -> Result<(StoredWebhook, StoredBody), FlowError> {
        let found = self.inbox.webhook(id).await.map_err(read_error)?;
        found.ok_or(FlowError::WebhookNotFound)
    }

    fn says(
        &self,
        account: &ProviderAccount,
        body: &[u8],
    ) -> Option<Result<Vec<WebhookFact>, Unreadable>> {
        let provider = self.providers.account(account)?;
        Some(provider.webhook(body))
    }

    async fn record(
        &self,
        caller: &Caller,
        webhook: &StoredWebhook,
        why: &Text<500>,
    ) -> Result<(), FlowError> {
        let mut details = BTreeMap::from([
            ("webhook_id", webhook.id.to_string()),
            ("provider_account", webhook.account.to_string()),
            ("event_id", webhook.event.to_string()),
            ("state", webhook.state.name().to_owned()),
            ("reason", why.as_str().to_owned()),
        ]);
        if let Some(reason) = webhook.reason {
            let _ = details.insert("webhook_reason", reason.name().to_owned());
        }
        let details = details
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        let event = AuditEvent::done("webhook.replay_requested", details.collect());
        for _ in 1..RECORD_TRIES {
            match self.log.record(caller, event.clone()).await {
                Err(FlowError::ConcurrentChange) => {}
                other => return other,
            }
        }
        self.log.record(caller, event).await
    }
}
