//! `AdminService`.

mod webhooks;

use prost::Message as _;
use quittance_domain::context::Caller;
use quittance_domain::erasure::Erasure;
use quittance_domain::flows::Answer;
use quittance_domain::ids::{EntryId, TenantId};
use quittance_proto::v1;
use quittance_proto::v1::admin_service_server::AdminService;
use tonic::{Request, Response, Status};

use super::call::{Call, answer};
use super::erasures;
use super::payments::{page_start, parts, respond};
use super::status::{Failure, of_existing_payment, platform_role_required};
use super::{Services, TokenKind};
use crate::auth::{Authenticated, Role};
use crate::convert;
use crate::convert::ForTenant;
use crate::signing::Command;

/// `AdminService` on the flows.
pub(super) struct AdminRpcs {
    pub(super) services: Services,
}

/// Whether the caller administers every tenant.
pub(super) fn administers_all(who: &Authenticated) -> bool {
    who.roles.contains(Role::PlatformAdmin)
}

/// The caller, acting for the tenant that it names: its own, unless it administers all. The journal names the caller
/// by its key whichever tenant it acts for.
pub(super) fn acting_for(
    caller: Caller,
    who: &Authenticated,
    named: Option<TenantId>,
) -> Result<Caller, Failure> {
    let Some(tenant) = named else {
        return Ok(caller);
    };
    if tenant != caller.tenant && !administers_all(who) {
        return Err(platform_role_required(Role::PlatformAdmin));
    }
    Ok(Caller { tenant, ..caller })
}

impl AdminRpcs {
    pub(super) fn new(services: Services) -> Self {
        Self { services }
    }

    async fn list(
        &self,
        request: Request<v1::ListOperatorActionsRequest>,
    ) -> Result<v1::ListOperatorActionsResponse, Failure> {
        let Call {
            caller,
            who,
            message,
            ..
        } = Call::of(request)?;
        let filters = filter_bytes(&message);
        let token = message.page_token.clone();
        let query = convert::list_operator_actions(message)?;
        let across = query.tenant.is_none() && administers_all(&who);
        let tenant = acting_for(caller, &who, query.tenant)?.tenant;
        let tenant = Some(&tenant).filter(|_| !across);
        // A tenant's name is never empty, so that "all" is nobody's.
        let bound = [tenant.map_or("", TenantId::as_str).as_bytes(), &filters];
        let tokens = &self.services.tokens;
        let after = page_start(tokens, TokenKind::OperatorActions, &bound, &token)?.map(EntryId);
        let (size, flows) = (query.page_size, &self.services.flows);
        let mut cases = flows.cases(tenant, &query.filter, after, size + 1).await?;
        let more = cases.len() > size;
        cases.truncate(size);
        let last = cases.last().map(|case| case.id).filter(|_| more);
        Ok(v1::ListOperatorActionsResponse {
            operator_actions: cases.iter().map(convert::operator_action).collect(),
            next_page_token: last
                .map(|id| tokens.seal(TokenKind::OperatorActions, &bound, id.0.as_bytes()))
                .unwrap_or_default(),
        })
    }
}

impl AdminRpcs {
    async fn erase(
        &self,
        request: Request<v1::ErasePersonalDataRequest>,
    ) -> Result<Erasure, Failure> {
        let Call {
            caller,
            who,
            message,
            ..
        } = Call::of(request)?;
        let wanted = convert::erase_personal_data(message)?;
        let caller = acting_for(caller, &who, wanted.tenant.clone())?;
        erasures::erase(&self.services, &caller, wanted).await
    }

    async fn erasure(&self, request: Request<v1::GetErasureRequest>) -> Result<Erasure, Failure> {
        let Call {
            caller,
            who,
            message,
            ..
        } = Call::of(request)?;
        let (id, tenant) = convert::get_erasure(message)?;
        let caller = acting_for(caller, &who, tenant)?;
        erasures::get(&self.services, &caller, id).await
    }
}

/// The filters of a page, as bytes: a page token is good for these only.
fn filter_bytes(request: &v1::ListOperatorActionsRequest) -> Vec<u8> {
    let mut filters = request.clone();
    filters.page_token.clear();
    filters.page_size = 0;
    filters.encode_to_vec()
}

#[tonic::async_trait]
impl AdminService for AdminRpcs {
    async fn list_operator_actions(
        &self,
        request: Request<v1::ListOperatorActionsRequest>,
    ) -> Result<Response<v1::ListOperatorActionsResponse>, Status> {
        let page = self.list(request).await;
        Ok(Response::new(page.map_err(Failure::nothing_moved)?))
    }

    async fn resolve_transaction(
        &self,
        request: Request<v1::ResolveTransactionRequest>,
    ) -> Result<Response<v1::ResolveTransactionResponse>, Status> {
        respond!(self.services, ResolveTransactionResponse, async {
            let Call {
                caller,
                who,
                message,
                ..
            } = Call::of(request)?;
            let ForTenant { command, tenant } = convert::resolve(message)?;
            let caller = acting_for(caller, &who, tenant)?;
            let answered = self.services.flows.resolve(&caller, command).await;
            Ok((answered.map_err(of_existing_payment)?, Command::Unkeyed))
        })
    }

    async fn retry_transaction(
        &self,
        request: Request<v1::RetryTransactionRequest>,
    ) -> Result<Response<v1::RetryTransactionResponse>, Status> {
        respond!(self.services, RetryTransactionResponse, async {
            let Call {
                caller,
                who,
                message,
                ..
            } = Call::of(request)?;
            let ForTenant { command, tenant } = convert::retry(message)?;
            let caller = acting_for(caller, &who, tenant)?;
            let answered = self.services.flows.retry(&caller, command).await;
            Ok((answered.map_err(of_existing_payment)?, Command::Unkeyed))
        })
    }

    async fn erase_personal_data(
        &self,
        request: Request<v1::ErasePersonalDataRequest>,
    ) -> Result<Response<v1::ErasePersonalDataResponse>, Status> {
        let erasure = self.erase(request).await.map_err(Failure::nothing_moved)?;
        Ok(Response::new(v1::ErasePersonalDataResponse {
            erasure: Some(convert::erasure(&erasure)),
        }))
    }

    async fn get_erasure(
        &self,
        request: Request<v1::GetErasureRequest>,
    ) -> Result<Response<v1::GetErasureResponse>, Status> {
        let erasure = self.erasure(request).await;
        let erasure = erasure.map_err(Failure::nothing_moved)?;
        Ok(Response::new(v1::GetErasureResponse {
            erasure: Some(convert::erasure(&erasure)),
        }))
    }

    async fn list_webhooks(
        &self,
        request: Request<v1::ListWebhooksRequest>,
    ) -> Result<Response<v1::ListWebhooksResponse>, Status> {
        let page = self.webhooks(request).await;
        Ok(Response::new(page.map_err(Failure::nothing_moved)?))
    }

    async fn get_webhook(
        &self,
        request: Request<v1::GetWebhookRequest>,
    ) -> Result<Response<v1::GetWebhookResponse>, Status> {
        let found = self.webhook(request).await;
        Ok(Response::new(found.map_err(Failure::nothing_moved)?))
    }

    async fn replay_webhook(
        &self,
        request: Request<v1::ReplayWebhookRequest>,
    ) -> Result<Response<v1::ReplayWebhookResponse>, Status> {
        let replayed = self.replay(request).await;
        Ok(Response::new(replayed.map_err(Failure::nothing_moved)?))
    }

    async fn create_notification_endpoint(
        &self,
        request: Request<v1::CreateNotificationEndpointRequest>,
    ) -> Result<Response<v1::CreateNotificationEndpointResponse>, Status> {
        let answer = self.create_endpoint(request).await;
        Ok(Response::new(answer.map_err(Failure::nothing_moved)?))
    }

    async fn list_notification_endpoints(
        &self,
        request: Request<v1::ListNotificationEndpointsRequest>,
    ) -> Result<Response<v1::ListNotificationEndpointsResponse>, Status> {
        let answer = self.list_endpoints(request).await;
        Ok(Response::new(answer.map_err(Failure::nothing_moved)?))
    }

    async fn update_notification_endpoint(
        &self,
        request: Request<v1::UpdateNotificationEndpointRequest>,
    ) -> Result<Response<v1::UpdateNotificationEndpointResponse>, Status> {
        let answer = self.update_endpoint(request).await;
        Ok(Response::new(answer.map_err(Failure::nothing_moved)?))
    }

    async fn delete_notification_endpoint(
        &self,
        request: Request<v1::DeleteNotificationEndpointRequest>,
    ) -> Result<Response<v1::DeleteNotificationEndpointResponse>, Status> {
        let answer = self.delete_endpoint(request).await;
        Ok(Response::new(answer.map_err(Failure::nothing_moved)?))
    }

    async fn test_notification_endpoint(
        &self,
        request: Request<v1::TestNotificationEndpointRequest>,
    ) -> Result<Response<v1::TestNotificationEndpointResponse>, Status> {
        let answer = self.test_endpoint(request).await;
        Ok(Response::new(answer.map_err(Failure::nothing_moved)?))
    }

    async fn rotate_notification_endpoint_secret(
        &self,
        request: Request<v1::RotateNotificationEndpointSecretRequest>,
    ) -> Result<Response<v1::RotateNotificationEndpointSecretResponse>, Status> {
        let answer = self.rotate_endpoint_secret(request).await;
        Ok(Response::new(answer.map_err(Failure::nothing_moved)?))
    }

    async fn list_notifications(
        &self,
        request: Request<v1::ListNotificationsRequest>,
    ) -> Result<Response<v1::ListNotificationsResponse>, Status> {
        let answer = self.list_notifications_of(request).await;
        Ok(Response::new(answer.map_err(Failure::nothing_moved)?))
    }

    async fn get_notification(
        &self,
        request: Request<v1::GetNotificationRequest>,
    ) -> Result<Response<v1::GetNotificationResponse>, Status> {
        let answer = self.read_notification(request).await;
        Ok(Response::new(answer.map_err(Failure::nothing_moved)?))
    }

    async fn replay_notifications(
        &self,
        request: Request<v1::ReplayNotificationsRequest>,
    ) -> Result<Response<v1::ReplayNotificationsResponse>, Status> {
        let answer = self.replay_dead(request).await;
        Ok(Response::new(answer.map_err(Failure::nothing_moved)?))
    }
}
