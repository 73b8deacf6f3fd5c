//! `AdminService` over an in-memory log: who sees which cases, and what a resolution must say.

use quittance_domain::change::OperatorActionKind;
use quittance_proto::v1::admin_service_server::AdminService as _;

use super::*;

fn administrator<T>(tenant: &str, message: T) -> Request<T> {
    asked(tenant, Role::Admin, message)
}

async fn listed(
    world: &World,
    request: Request<v1::ListOperatorActionsRequest>,
) -> Result<v1::ListOperatorActionsResponse, Status> {
    let answer = world.admin().list_operator_actions(request).await;
    answer.map(tonic::Response::into_inner)
}

fn ids(page: &v1::ListOperatorActionsResponse) -> Vec<String> {
    let actions = page.operator_actions.iter();
    actions.map(|one| one.operator_action_id.clone()).collect()
}

fn resolution() -> v1::ResolveTransactionRequest {
    v1::ResolveTransactionRequest {
        payment_id: past_id().to_string(),
        transaction_id: past_id().to_string(),
        resolution: v1::TransactionResolution::Succeeded.into(),
        provider_reference: "ch_1".to_owned(),
        reason: "seen in the provider's dashboard".to_owned(),
        evidence: "ticket 7".to_owned(),
        tenant_id: String::new(),
        amount: None,
        seen_version: 0,
        acknowledged_kind: 0,
    }
}

#[tokio::test]
async fn pages_of_operator_actions_hold_each_once_and_filters_let_through() {
    let world = World::new();
    let mut opened = Vec::new();
    for number in 0..7 {
        let kind = if number < 5 {
            OperatorActionKind::RecoveryExhausted
        } else {
            OperatorActionKind::AmountMismatch
        };
        opened.push(world.log.open_case("acme", kind));
        world.log.open_case("other", kind);
    }
    let mut seen = Vec::new();
    let mut request = v1::ListOperatorActionsRequest {
        page_size: 3,
        ..Default::default()
    };
    loop {
        let page = listed(&world, administrator("acme", request.clone()))
            .await
            .unwrap();
        seen.extend(ids(&page));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let expected: Vec<_> = opened.iter().map(|case| case.id.to_string()).collect();
    assert_eq!(seen, expected);

    let mismatches = v1::ListOperatorActionsRequest {
        kind: v1::OperatorActionKind::AmountMismatch.into(),
        ..Default::default()
    };
    let page = listed(&world, administrator("acme", mismatches.clone()))
        .await
        .unwrap();
    assert_eq!(ids(&page), expected[5..]);
    assert!(page.next_page_token.is_empty());
    let of_payment = v1::ListOperatorActionsRequest {
        payment_id: opened[2].payment.to_string(),
        ..Default::default()
    };
    let page = listed(&world, administrator("acme", of_payment))
        .await
        .unwrap();
    let [action] = &page.operator_actions[..] else {
        panic!("{page:?}")
    };
    assert_eq!(action.kind(), v1::OperatorActionKind::RecoveryExhausted);
    assert_eq!(action.tenant_id, "acme");
    assert_eq!(action.transaction_id, opened[2].transaction.to_string());
    assert!(action.open_time.is_some() && action.close_time.is_none());

    let other_filter = v1::ListOperatorActionsRequest {
        page_token: request.page_token,
        ..mismatches
    };
    let refused = listed(&world, administrator("acme", other_filter)).await;
    let refused = refused.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_PAGE_TOKEN");
    assert_eq!(moved(&refused), "false");
}

#[tokio::test]
async fn i11_only_the_platforms_administrators_look_beyond_their_tenant() {
    let world = World::new();
    let kind = OperatorActionKind::ContradictingFact;
    let ours = world.log.open_case("acme", kind).id.to_string();
    let theirs = world.log.open_case("other", kind).id.to_string();
    let of = |tenant_id: &str| v1::ListOperatorActionsRequest {
        tenant_id: tenant_id.to_owned(),
        ..Default::default()
    };
    for tenant in ["", "acme"] {
        let page = listed(&world, administrator("acme", of(tenant))).await;
        assert_eq!(ids(&page.unwrap()), std::slice::from_ref(&ours));
    }
    let refused = listed(&world, administrator("acme", of("other")))
        .await
        .unwrap_err();
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(
        (info.reason.as_str(), info.metadata["role"].as_str()),
        ("ROLE_REQUIRED", "platform.admin")
    );
    for (tenant, expected) in [
        ("", vec![ours.clone(), theirs.clone()]),
        ("other", vec![theirs]),
        ("ops", vec![]),
    ] {
        let request = asked("ops", Role::PlatformAdmin, of(tenant));
        assert_eq!(ids(&listed(&world, request).await.unwrap()), expected);
    }
    // Another tenant's page goes on for nobody else.
    let first = v1::ListOperatorActionsRequest {
        page_size: 1,
        ..Default::default()
    };
    let page = listed(&world, asked("ops", Role::PlatformAdmin, first)).await;
    let stolen = v1::ListOperatorActionsRequest {
        page_token: page.unwrap().next_page_token,
        ..Default::default()
    };
    let refused = listed(&world, administrator("acme", stolen)).await;
    assert_eq!(reason(&refused.unwrap_err()), "INVALID_PAGE_TOKEN");
}

#[tokio::test]
async fn i11_only_the_platforms_administrators_decide_beyond_their_tenant() {
    let world = World::new();
    let foreign = v1::ResolveTransactionRequest {
        tenant_id: "other".to_owned(),
        ..resolution()
    };
    let admin = world.admin();
    let refused = admin
        .resolve_transaction(administrator("acme", foreign.clone()))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "ROLE_REQUIRED");
    let platform = asked("ops", Role::PlatformAdmin, foreign);
    let refused = admin.resolve_transaction(platform).await.unwrap_err();
    assert_eq!(reason(&refused), "PAYMENT_NOT_FOUND", "it was let in");
    let foreign = v1::RetryTransactionRequest {
        payment_id: past_id().to_string(),
        transaction_id: past_id().to_string(),
        reason: "the provider is back".to_owned(),
        tenant_id: "other".to_owned(),
    };
    let refused = admin
        .retry_transaction(administrator("acme", foreign))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "ROLE_REQUIRED");
}

#[tokio::test]
async fn a_resolution_names_every_bad_field_and_no_payment_that_is_not_there() {
    let world = World::new();
    let admin = world.admin();
    let empty = administrator("acme", v1::ResolveTransactionRequest::default());
    let refused = admin.resolve_transaction(empty).await.unwrap_err();
    let fields = refused.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<_> = fields.iter().map(|bad| bad.field.as_str()).collect();
    assert_eq!(
        fields,
        ["payment_id", "transaction_id", "resolution", "reason"]
    );
    let empty = administrator("acme", v1::RetryTransactionRequest::default());
    let refused = admin.retry_transaction(empty).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_FIELD");

    let unknown = || administrator("acme", resolution());
    let refused = admin.resolve_transaction(unknown()).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::NotFound, "PAYMENT_NOT_FOUND")
    );
    *world.log.down.lock() = true;
    let refused = admin.resolve_transaction(unknown()).await.unwrap_err();
    assert_eq!(reason(&refused), "DATABASE_UNAVAILABLE");
    let list = v1::ListOperatorActionsRequest::default();
    let refused = listed(&world, administrator("acme", list)).await;
    assert_eq!(reason(&refused.unwrap_err()), "DATABASE_UNAVAILABLE");
}
