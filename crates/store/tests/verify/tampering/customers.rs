//! Customers, under whose keys personal data are.

use super::{Kind, kind};

/// Payments of customers.
const OF_CUSTOMER: &str = "j.entity_seq = 1 and exists (select from payments where payment_id = j.stream_id and customer_id is not null)";

/// The customer of the payment.
macro_rules! customer {
    ($name:expr, $sql:literal, $codes:expr $(,)?) => {
        kind(
            $name,
            OF_CUSTOMER,
            concat!(
                $sql,
                " where customer_id = (select customer_id from payments where payment_id = $stream)"
            ),
            $codes,
        )
    };
}

/// Every kind of tampering with them.
pub const KINDS: &[Kind] = &[
    customer!(
        "customers.data_key",
        "update customers set data_key = sha256(data_key)",
        &["PAYMENT_UNREADABLE"],
    ),
    customer!(
        "customers.data_key, made long",
        "update customers set data_key = data_key || decode(repeat('00', 1000000), 'hex')",
        &["PAYMENT_UNREADABLE"],
    ),
    customer!(
        "a customer deleted without an erasure",
        "delete from customers",
        &["PAYMENT_UNREADABLE"],
    ),
    customer!(
        "customers.tenant_id",
        "update customers set tenant_id = 'other'",
        &["PAYMENT_COLUMN_DIFFERS"],
    ),
    customer!(
        "customers.reference_mac, by which an erasure finds the customer",
        "update customers set reference_mac = sha256(reference_mac)",
        &["PAYMENT_COLUMN_DIFFERS"],
    ),
    customer!(
        "a customer said to be erased, so that nothing is stored",
        "update customers set erasing_since = now()",
        &["PAYMENT_COLUMN_DIFFERS"],
    ),
    kind(
        "a customer deleted, and an erasure invented",
        OF_CUSTOMER,
        "insert into erasures (erasure_id, tenant_id, reference_mac, customer_id, payments, finished_at) \
         select gen_random_uuid(), c.tenant_id, c.reference_mac, c.customer_id, 1, now() from customers c \
         join payments p on p.customer_id = c.customer_id where p.payment_id = $stream; \
         delete from customers where customer_id = (select customer_id from payments where payment_id = $stream)",
        &["PAYMENT_UNREADABLE"],
    ),
    kind(
        "the keys of two customers swapped",
        OF_CUSTOMER,
        "select swap_keys((select customer_id from payments where payment_id = $stream))",
        &["PAYMENT_UNREADABLE"],
    ),
    kind(
        "a payment given to another customer",
        OF_CUSTOMER,
        "update payments set customer_id = (select customer_id from customers c where c.customer_id <> payments.customer_id limit 1) \
         where payment_id = $stream",
        &["PAYMENT_UNREADABLE"],
    )
    .local(),
    kind(
        "a payment taken from its customer",
        OF_CUSTOMER,
        "update payments set customer_id = null, customer_sealed = null where payment_id = $stream",
        &["PAYMENT_COLUMN_DIFFERS"],
    )
    .local(),
];
