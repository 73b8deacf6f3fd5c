//! Webhooks that name no payment of ours may be about anybody: what a provider tells of what is not handled, or cannot be
//! read. Those that mention a customer who is erased are found by what that customer is known by.

use std::collections::HashSet;

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ports::StoreError;
use serde_json::Value;
use uuid::Uuid;

use crate::inbox;
use crate::prepare::SealedCustomer;
use crate::schema::customers;
use crate::sealing::{self, CustomerKey, Place};
use crate::store::PgStore;

/// Payments, or bodies, that are read at once.
const PAGE: i64 = 200;
/// Shortest text that is looked for everywhere, in bytes. Shorter ones, and numbers, say too little: a customer's reference may be
/// `1000`, as is many an amount. They count in fields that are about a customer.
const LEAST_WITHIN: usize = 8;
/// What the names of such fields hold, in lower case.
const ABOUT_CUSTOMERS: [&str; 5] = ["customer", "shopper", "email", "name", "ip_address"];
/// How many characters of a reference of ours at a provider are the payment's id, where more follow (`docs/adyen.md`).
const SIMPLE_ID: usize = 32;

/// All by which a customer's payments are known.
const PAYMENTS: &str = "\
    select p.payment_id, p.customer_sealed, p.provider_token, array_remove(array_append(array( \
        select t.provider_reference from transactions t where t.payment_id = p.payment_id), \
        p.provider_reference), null) as names \
    from payments p \
    where p.customer_id = $1 and ($2 is null or p.payment_id > $2) order by p.payment_id limit $3";

const UNNAMED: &str = "\
    select webhook_id, body from webhook_inbox \
    where body is not null and payment_ids is null and next_step_at is null \
        and ($1 is null or webhook_id > $1) \
    order by webhook_id limit $2";

#[derive(QueryableByName)]
struct PaymentRow {
    #[diesel(sql_type = SqlUuid)]
    payment_id: Uuid,
    #[diesel(sql_type = Nullable<Binary>)]
    customer_sealed: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Binary>)]
    provider_token: Option<Vec<u8>>,
    #[diesel(sql_type = Array<Text>)]
    names: Vec<String>,
}

#[derive(QueryableByName)]
struct BodyRow {
    #[diesel(sql_type = SqlUuid)]
    webhook_id: Uuid,
    #[diesel(sql_type = Binary)]
    body: Vec<u8>,
}

impl PgStore {
    /// The finished webhooks that name no payment, and mention this customer or one of their payments. None once the key is
    /// gone, which opens what the customer is known by.
    pub(super) async fn unnamed_bodies_about(
        &self,
        customer: Uuid,
    ) -> Result<Vec<Uuid>, StoreError> {
        let Some(known) = self.customer_is_known_by(customer).await? else {
            return Ok(Vec::new());
        };
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let read = self
                .inner
                .reader
                .read("read unnamed webhooks", |connection| {
                    let query = diesel::sql_query(UNNAMED)
                        .bind::<Nullable<SqlUuid>, _>(after)
                        .bind::<BigInt, _>(PAGE);
                    async move { query.load::<BodyRow>(connection).await }.boxed()
                });
            let page = read.await?;
            let Some(last) = page.last() else {
                return Ok(found);
            };
            after = Some(last.webhook_id);
            for row in page {
                let place = inbox::place(row.webhook_id);
                // What cannot be opened tells nobody anything.
                let body = sealing::open(&self.inner.keys, None, place, &row.body);
                if body.is_ok_and(|body| known.is_mentioned_in(&body)) {
                    found.push(row.webhook_id);
                }
            }
        }
    }

    async fn customer_is_known_by(&self, customer: Uuid) -> Result<Option<Known>, StoreError> {
        let ring = &self.inner.keys;
        let read = self
            .inner
            .reader
            .read("read customer to erase", |connection| {
                let query = customers::table
                    .filter(customers::customer_id.eq(customer))
                    .select(customers::data_key);
                async move { query.first::<Vec<u8>>(connection).await.optional() }.boxed()
            });
        let Some(sealed) = read.await? else {
            return Ok(None);
        };
        // What cannot be opened says nothing, here and to anybody else: it does not keep the rest from being erased.
        let Ok(key) = CustomerKey::unwrap(ring, customer, &sealed) else {
            return Ok(None);
        };
        let (mut known, mut after) = (Known::default(), None);
        loop {
            let read = self
                .inner
                .reader
                .read("read payments to erase", |connection| {
                    let query = diesel::sql_query(PAYMENTS)
                        .bind::<SqlUuid, _>(customer)
                        .bind::<Nullable<SqlUuid>, _>(after)
                        .bind::<BigInt, _>(PAGE);
                    async move { query.load::<PaymentRow>(connection).await }.boxed()
                });
            let page = read.await?;
            let Some(last) = page.last() else {
                return Ok(Some(known));
            };
            after = Some(last.payment_id);
            for row in page {
                let id = row.payment_id;
                known.add_names([id.to_string(), id.simple().to_string()]);
                known.add_names(row.names);
                let place = Place::new("payments", "provider_token", id);
                let token = row
                    .provider_token
                    .map(|it| sealing::open(ring, None, place, &it));
                let token = token.and_then(Result::ok);
                known.add_names(token.map(|it| String::from_utf8_lossy(&it).into_owned()));
                let place = Place::new("payments", "customer_sealed", id);
                let sealed = row.customer_sealed;
                let plain = sealed.map(|it| sealing::open(ring, Some(&key), place, &it));
                let plain = plain.and_then(Result::ok);
                let customer =
                    plain.and_then(|it| serde_json::from_slice::<SealedCustomer>(&it).ok());
                known.add_personal(customer.into_iter().flat_map(SealedCustomer::known_by));
            }
        }
    }
}

/// What a customer, and the customer's payments, are known by; in lower case.
#[derive(Default)]
struct Known {
    /// Names of payments.
    names: HashSet<String>,
    /// What the customer is known by, where a field is about a customer.
    personal: HashSet<String>,
    /// Of that, what is looked for within every text.
    within: HashSet<String>,
}

impl Known {
    fn add_names(&mut self, names: impl IntoIterator<Item = String>) {
        let names = names.into_iter().map(|name| folded(&name));
        self.names.extend(names.filter(|name| !name.is_empty()));
    }

    fn add_personal(&mut self, values: impl IntoIterator<Item = String>) {
        let values = values.into_iter().map(|value| folded(&value));
        for value in values.filter(|value| !value.is_empty()) {
            let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
            if value.len() >= LEAST_WITHIN && !is_number {
                self.within.insert(value.clone());
            }
            self.personal.insert(value);
        }
    }

    fn is_mentioned_in(&self, body: &[u8]) -> bool {
        if let Ok(value) = serde_json::from_slice::<Value>(body) {
            return self.is_in(&value, false);
        }
        let text = folded(&String::from_utf8_lossy(body));
        let long = self.names.iter().filter(|name| name.len() >= LEAST_WITHIN);
        let mut sought = long.chain(&self.within);
        sought.any(|sought| text.contains(sought.as_str()))
    }

    /// Whether it is in a value, which may be one of a field that is about a customer.
    fn is_in(&self, value: &Value, about_customer: bool) -> bool {
        match value {
            Value::Null | Value::Bool(_) => false,
            Value::Number(number) => about_customer && self.personal.contains(&number.to_string()),
            Value::String(text) => {
                let text = folded(text);
                about_customer && self.personal.contains(&text) || self.is_in_text(&text)
            }
            Value::Array(values) => values.iter().any(|it| self.is_in(it, about_customer)),
            Value::Object(fields) => fields.iter().any(|(name, value)| {
                let name = name.to_lowercase();
                let about = ABOUT_CUSTOMERS.iter().any(|part| name.contains(part));
                self.is_in(value, about_customer || about)
            }),
        }
    }

    fn is_in_text(&self, text: &str) -> bool {
        let ours = text.get(..SIMPLE_ID);
        self.names.contains(text)
            || ours.is_some_and(|id| self.names.contains(id))
            || self
                .within
                .iter()
                .any(|value| text.contains(value.as_str()))
    }
}

fn folded(text: &str) -> String {
    text.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let mut known = Known::default();
        known.add_names(["pi_7".to_owned(), "0".repeat(32)]);
        let personal = [
            "17",
            "20261129",
            "Zaphod Beeblebrox",
            "zaphod@heartofgold.example",
        ];
        known.add_personal(personal.map(str::to_owned));
        known
    }

    #[test]
    fn what_mentions_a_customer_is_told_from_what_does_not() {
        let reference = format!(
            r#"{{"item": {{"merchantReference": "{}.P1"}}}}"#,
            "0".repeat(32)
        );
        for body in [
            r#"{"email": " Zaphod@HeartOfGold.example"}"#,
            r#"{"a": [{"b": "to Zaphod Beeblebrox, Betelgeuse"}]}"#,
            r#"{"a": "{\"email\":\"zaphod@heartofgold.example\"}"}"#,
            r#"{"shopperReference": "17"}"#,
            r#"{"shopperReference": 17}"#,
            r#"{"customer": {"id": "17"}}"#,
            r#"{"metadata": {"customer_number": "20261129"}}"#,
            r#"{"payment_intent": "pi_7"}"#,
            r#"{"a": "\u005aaphod Beeblebrox"}"#,
            reference.as_str(),
            "no JSON, about zaphod@heartofgold.example",
        ] {
            assert!(known().is_mentioned_in(body.as_bytes()), "{body}");
        }
        for body in [
            r#"{"email": "arthur@earth.example", "amount": 1700, "at": "17:00"}"#,
            r#"{"amount": {"value": 17}, "pending_webhooks": "17", "created": 20261129}"#,
            r#"{"eventDate": "20261129", "pspReference": "8820261129000001"}"#,
            r#"{"payment_intent": "pi_70"}"#,
            "no JSON, about 17 others",
            "",
        ] {
            assert!(!known().is_mentioned_in(body.as_bytes()), "{body}");
        }
        assert!(!Known::default().is_mentioned_in(br#"{"a": ""}"#));
    }
}
