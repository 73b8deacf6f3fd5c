//! Writing an entry: canonical JSON (RFC 8785), keys in ascending order.

use std::borrow::Cow;

use chrono::{DateTime, Datelike as _, SecondsFormat, Utc};

use super::{
    Actor, Amounts, Cause, Leaf, LeafData, LeafError, MAX_LEAF_BYTES, SCHEMA_VERSION, Source,
    StreamId,
};
use crate::{
    canonical_json::ObjectWriter,
    text::{clean_text, is_field_name},
};

impl Leaf {
    /// Writes the canonical bytes.
    ///
    /// Amounts and 64-bit integers become decimal strings, small integers JSON numbers; hashes and
    /// trace ids lower-case hexadecimal; UUIDs hyphenated; the salt unpadded base64url; times RFC 3339
    /// with exactly six digits and `Z` (finer parts are cut off).
    ///
    /// # Errors
    /// Every [`LeafError`] but `Malformed` and `NotCanonical`; each is a defect of the caller or a
    /// size that the edge should have refused.
    pub fn encode(&self) -> Result<LeafData, LeafError> {
        self.check()?;
        let mut writer = ObjectWriter::new();
        self.write_actor_to_grpc_status(&mut writer);
        self.write_idempotency_to_provider(&mut writer)?;
        self.write_recorded_to_transaction(&mut writer)?;
        let (bytes, (largest_field, largest_bytes)) = writer.finish();
        if bytes.len() > MAX_LEAF_BYTES {
            return Err(LeafError::TooLarge {
                size: bytes.len(),
                largest_field,
                largest_bytes,
            });
        }
        Ok(LeafData(bytes))
    }

    fn check(&self) -> Result<(), LeafError> {
        if self.schema_version != SCHEMA_VERSION {
            return Err(LeafError::UnknownVersion(self.schema_version.into()));
        }
        let filled = [
            ("tenant_id", &self.tenant_id),
            ("event_type", &self.event_type),
            ("actor.type", &self.actor.kind),
        ];
        if let Some((field, _)) = filled.into_iter().find(|(_, text)| text.is_empty()) {
            return Err(LeafError::Empty(field));
        }
        if self.entity_seq == 0 || (self.entity_seq == 1) != self.prev_leaf_hash.is_none() {
            return Err(LeafError::ChainStart);
        }
        match &self.stream_id {
            StreamId::Payment(payment) if self.payment_id != Some(*payment) => {
                return Err(LeafError::StreamOfOtherPayment);
            }
            StreamId::Named { name, .. } if !is_field_name(name) => {
                return Err(LeafError::InvalidName("stream_id"));
            }
            StreamId::Payment(_) | StreamId::Named { .. } => {}
        }
        let has_amount = self.amount_minor.is_some() || self.amounts.is_some();
        if has_amount && (self.currency.is_none() || self.currency_exponent.is_none()) {
            return Err(LeafError::AmountWithoutCurrency);
        }
        if !self.details.keys().all(|name| is_field_name(name)) {
            return Err(LeafError::InvalidName("details"));
        }
        if !self.personal_data.keys().all(|name| is_field_name(name)) {
            return Err(LeafError::InvalidName("personal_data"));
        }
        Ok(())
    }

    fn write_actor_to_grpc_status(&self, w: &mut ObjectWriter) {
        w.object("actor", |w| write_actor(w, &self.actor));
        w.opt_plain("amount_minor", self.amount_minor);
        if let Some(amounts) = &self.amounts {
            w.object("amounts", |w| write_amounts(w, amounts));
        }
        w.opt_number("attempt", self.attempt);
        w.opt_text("capture_method", self.capture_method.as_deref());
        if let Some(cause) = &self.cause {
            w.object("cause", |w| write_cause(w, cause));
        }
        w.opt_text("currency", self.currency.as_deref());
        w.opt_number("currency_exponent", self.currency_exponent);
        w.opt_text("decline_code", self.decline_code.as_deref());
        w.texts("details", &self.details, |value| clean_text(value));
        w.plain("entity_seq", self.entity_seq);
        w.plain("entry_id", self.entry_id);
        w.text("event_type", &self.event_type);
        w.opt_text("grpc_status", self.grpc_status.as_deref());
    }

    fn write_idempotency_to_provider(&self, w: &mut ObjectWriter) -> Result<(), LeafError> {
        w.opt_hex("idempotency_key_digest", self.idempotency_key_digest);
        w.base64url("leaf_salt", &self.leaf_salt);
        w.opt_number("max_attempts", self.max_attempts);
        w.opt_text("merchant_reference", self.merchant_reference.as_deref());
        if let Some(at) = self.next_retry_at {
            w.plain("next_retry_at", rfc3339("next_retry_at", at)?);
        }
        w.plain("occurred_at", rfc3339("occurred_at", self.occurred_at)?);
        w.opt_plain("payment_id", self.payment_id);
        w.opt_hex("payment_row_digest", self.payment_row_digest);
        w.texts("personal_data", &self.personal_data, |digest| {
            Cow::Owned(digest.to_string())
        });
        w.opt_hex("prev_leaf_hash", self.prev_leaf_hash);
        w.opt_text("provider_account", self.provider_account.as_deref());
        w.opt_text("provider_reference", self.provider_reference.as_deref());
        w.opt_hex("provider_request_digest", self.provider_request_digest);
        w.opt_hex("provider_response_digest", self.provider_response_digest);
        Ok(())
    }

    fn write_recorded_to_transaction(&self, w: &mut ObjectWriter) -> Result<(), LeafError> {
        w.plain("recorded_at", rfc3339("recorded_at", self.recorded_at)?);
        w.opt_hex("remote_span_id", self.remote_span_id);
        w.opt_hex("remote_trace_id", self.remote_trace_id);
        w.opt_text("request_id", self.request_id.as_deref());
        w.plain("result", self.result.as_str());
        w.number("schema_version", self.schema_version);
        w.object("source", |w| write_source(w, &self.source));
        w.hex("span_id", &self.span_id);
        w.opt_text("state_from", self.state_from.as_deref());
        w.opt_text("state_to", self.state_to.as_deref());
        w.plain("stream_id", &self.stream_id);
        w.text("tenant_id", &self.tenant_id);
        w.number("trace_flags", self.trace_flags);
        w.hex("trace_id", &self.trace_id);
        w.opt_plain("transaction_id", self.transaction_id);
        Ok(())
    }
}

fn write_actor(w: &mut ObjectWriter, actor: &Actor) {
    w.opt_text("auth_method", actor.auth_method.as_deref());
    w.text("id", &actor.id);
    w.text("type", &actor.kind);
}

fn write_amounts(w: &mut ObjectWriter, amounts: &Amounts) {
    w.plain("authorized", amounts.authorized);
    w.plain("capture_pending", amounts.capture_pending);
    w.plain("captured", amounts.captured);
    w.plain("charged_back", amounts.charged_back);
    w.plain("excess", amounts.excess);
    w.plain("refund_pending", amounts.refund_pending);
    w.plain("refunded", amounts.refunded);
    w.plain("void_pending", amounts.void_pending);
    w.plain("voided", amounts.voided);
}

fn write_cause(w: &mut ObjectWriter, cause: &Cause) {
    w.text("code", &cause.code);
    w.boolean("retryable", cause.retryable);
}

fn write_source(w: &mut ObjectWriter, source: &Source) {
    w.text("instance", &source.instance);
    w.opt_text("peer", source.peer.as_deref());
    w.opt_text("rpc_method", source.rpc_method.as_deref());
    w.text("service", &source.service);
    w.text("version", &source.version);
}

/// RFC 3339 with six digits. Goes by whole microseconds since the epoch, so that finer digits and a
/// leap second's `:60`, which most readers refuse, cannot appear.
fn rfc3339(field: &'static str, at: DateTime<Utc>) -> Result<String, LeafError> {
    DateTime::from_timestamp_micros(at.timestamp_micros())
        // There is no year 0 in most calendars, Python's among them.
        .filter(|at| (1..=9999).contains(&at.year()))
        .map(|at| at.to_rfc3339_opts(SecondsFormat::Micros, true))
        .ok_or(LeafError::TimeOutOfRange(field))
}
