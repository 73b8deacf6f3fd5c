//! The inbox of webhooks, for who administers the platform.

use prost::Message as _;
use quittance_domain::ids::WebhookId;
use quittance_proto::v1;
use tonic::Request;

use super::AdminRpcs;
use crate::convert;
use crate::grpc::TokenKind;
use crate::grpc::call::Call;
use crate::grpc::payments::page_start;
use crate::grpc::status::Failure;

impl AdminRpcs {
    pub(super) async fn webhooks(
        &self,
        request: Request<v1::ListWebhooksRequest>,
    ) -> Result<v1::ListWebhooksResponse, Failure> {
        let Call { message, .. } = Call::of(request)?;
        let filters = filter_bytes(&message);
        let token = message.page_token.clone();
        let query = convert::list_webhooks(message)?;
        let tokens = &self.services.tokens;
        let bound: [&[u8]; 1] = [&filters];
        let before = page_start(tokens, TokenKind::Webhooks, &bound, &token)?.map(WebhookId);
        let (size, inbox) = (query.page_size, &self.services.inbox);
        let mut webhooks = inbox.list(&query.filter, before, size + 1).await?;
        let more = webhooks.len() > size;
        webhooks.truncate(size);
        let last = webhooks.last().map(|webhook| webhook.id).filter(|_| more);
        Ok(v1::ListWebhooksResponse {
            webhooks: webhooks.iter().map(convert::webhook).collect(),
            next_page_token: last
                .map(|id| tokens.seal(TokenKind::Webhooks, &bound, id.0.as_bytes()))
                .unwrap_or_default(),
        })
    }

    pub(super) async fn webhook(
        &self,
        request: Request<v1::GetWebhookRequest>,
    ) -> Result<v1::GetWebhookResponse, Failure> {
        let Call { message, .. } = Call::of(request)?;
        let id = convert::get_webhook(&message)?;
        let seen = self.services.inbox.get(id).await?;
        Ok(v1::GetWebhookResponse {
            webhook: Some(convert::seen_webhook(&seen)),
        })
    }

    pub(super) async fn replay(
        &self,
        request: Request<v1::ReplayWebhookRequest>,
    ) -> Result<v1::ReplayWebhookResponse, Failure> {
        let Call {
            caller, message, ..
        } = Call::of(request)?;
        let asked = convert::replay_webhook(message)?;
        let inbox = &self.services.inbox;
        let stored = inbox.replay(&caller, asked.id, &asked.reason).await?;
        Ok(v1::ReplayWebhookResponse {
            webhook: Some(convert::webhook(&stored)),
        })
    }
}

/// The filters of a page, as bytes: a page token is good for these only.
fn filter_bytes(request: &v1::ListWebhooksRequest) -> Vec<u8> {
    let mut filters = request.clone();
    filters.page_token.clear();
    filters.page_size = 0;
    filters.encode_to_vec()
}
