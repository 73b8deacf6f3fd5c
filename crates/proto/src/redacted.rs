//! `Debug` for messages that can hold a provider's token, personal data or unchecked free text (I10).
//!
//! Each shows an allow-list: numbers, enums and amounts, never text that a caller wrote. `build.rs` keeps the generator from
//! deriving `Debug` for exactly these messages, so a message listed there and missing here does not compile.

use std::fmt;

use crate::v1::{
    CapturePaymentRequest, ConfirmPaymentRequest, CreateNotificationEndpointRequest,
    CreateNotificationEndpointResponse, CreatePaymentRequest, Customer, ErasePersonalDataRequest,
    GetPaymentRequest, ListPaymentsRequest, NextAction, NotificationEndpoint, PaymentMethod,
    PostalAddress, RefundPaymentRequest, ReplayWebhookRequest, ResolveTransactionRequest,
    RetryTransactionRequest, RotateNotificationEndpointSecretResponse,
    UpdateNotificationEndpointRequest, VoidPaymentRequest,
};

impl fmt::Debug for PaymentMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaymentMethod")
            .field("type", &self.r#type())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Customer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Customer").finish_non_exhaustive()
    }
}

impl fmt::Debug for PostalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostalAddress").finish_non_exhaustive()
    }
}

impl fmt::Debug for NextAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextAction").finish_non_exhaustive()
    }
}

impl fmt::Debug for CreatePaymentRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatePaymentRequest")
            .field(
                "minor_units",
                &self.amount.as_ref().map(|amount| amount.minor_units),
            )
            .field("payment_method", &self.payment_method)
            .field("capture_method", &self.capture_method())
            .field("initiator", &self.initiator())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ConfirmPaymentRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfirmPaymentRequest")
            .field("parameters", &self.parameters.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CapturePaymentRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CapturePaymentRequest")
            .field(
                "minor_units",
                &self.amount.as_ref().map(|amount| amount.minor_units),
            )
            .field("final_capture", &self.final_capture)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for VoidPaymentRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VoidPaymentRequest").finish_non_exhaustive()
    }
}

impl fmt::Debug for RefundPaymentRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefundPaymentRequest")
            .field(
                "minor_units",
                &self.amount.as_ref().map(|amount| amount.minor_units),
            )
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for GetPaymentRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetPaymentRequest").finish_non_exhaustive()
    }
}

impl fmt::Debug for ListPaymentsRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListPaymentsRequest")
            .field("page_size", &self.page_size)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ResolveTransactionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResolveTransactionRequest")
            .field("resolution", &self.resolution())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RetryTransactionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryTransactionRequest")
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ErasePersonalDataRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErasePersonalDataRequest")
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ReplayWebhookRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayWebhookRequest")
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for NotificationEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotificationEndpoint")
            .field("state", &self.state())
            .field("event_types", &self.event_types.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CreateNotificationEndpointRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateNotificationEndpointRequest")
            .field("event_types", &self.event_types.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CreateNotificationEndpointResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateNotificationEndpointResponse")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for UpdateNotificationEndpointRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdateNotificationEndpointRequest")
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RotateNotificationEndpointSecretResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RotateNotificationEndpointSecretResponse")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
