//! Identifiers: each its own type, so that one can never stand where another belongs.

use std::fmt;

use uuid::Uuid;

use crate::text::{self, TextError};

/// Declares a `UUIDv7` identifier.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    };
}

uuid_id!(
    /// A payment (`UUIDv7`, so ordered by the time of its creation).
    PaymentId
);
uuid_id!(
    /// A transaction of a payment; also its idempotency key at the provider (I2).
    TransactionId
);
uuid_id!(
    /// One call to a provider.
    AttemptId
);
uuid_id!(
    /// One entry of the journal.
    EntryId
);
uuid_id!(
    /// One webhook as it was received (`UUIDv7`, so ordered by the time of its receipt).
    WebhookId
);
uuid_id!(
    /// One erasure of a customer's personal data (`UUIDv7`, so ordered by the time it was asked for).
    ErasureId
);
uuid_id!(
    /// A customer of a tenant's, whose data is encrypted under one key (`UUIDv7`). It says nothing about who that is.
    CustomerId
);
uuid_id!(
    /// Where a tenant is told of its events (`UUIDv7`).
    EndpointId
);
uuid_id!(
    /// One event for one endpoint: what the receiver knows the notification by.
    NotificationId
);

/// Declares a short printable identifier.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(String);

        impl $name {
            #[doc = concat!("Parses 1 to ", stringify!($max), " printable ASCII characters without spaces.")]
            pub fn parse(value: impl Into<String>) -> Result<Self, TextError> {
                text::identifier(value.into(), $max).map(Self)
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A tenant: who owns a payment.
    TenantId,
    64
);
text_id!(
    /// A configured account at a provider, such as `sandbox` or `stripe-eu`.
    ProviderAccount,
    64
);
text_id!(
    /// The provider's own name for a payment or an operation.
    ProviderReference,
    255
);
text_id!(
    /// What a provider calls one of its events: the same however often it is delivered.
    EventId,
    255
);

/// The caller's idempotency key: 1 to 255 printable ASCII characters (space included).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Parses 1 to 255 characters between space and tilde.
    pub fn parse(value: impl Into<String>) -> Result<Self, TextError> {
        let value = value.into();
        match value.len() {
            0 => Err(TextError::Empty),
            1..=255 if value.bytes().all(|b| (b' '..=b'~').contains(&b)) => Ok(Self(value)),
            1..=255 => Err(TextError::NotPrintableAscii),
            _ => Err(TextError::TooLong { max: 255 }),
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
