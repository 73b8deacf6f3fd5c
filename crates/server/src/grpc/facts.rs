//! What the record says of a call beside who made it and what it was.

use std::collections::BTreeMap;

use quittance_domain::ids::EndpointId;
use quittance_domain::notification::EventPattern;
use quittance_domain::ports::EntryFilter;

/// Facts, by name.
#[derive(Debug, Default)]
pub(super) struct Facts(BTreeMap<String, String>);

impl Facts {
    /// Those of an endpoint: never its URL, whose path may hold a token.
    pub fn of_endpoint(endpoint: EndpointId) -> Self {
        Self::default().with("endpoint_id", &endpoint)
    }

    /// The filters that were given.
    pub fn of_filter(filter: &EntryFilter) -> Self {
        let mut facts = Self::default();
        facts.add_if("payment_id", filter.payment);
        facts.add_if("transaction_id", filter.transaction);
        facts.add_if("trace_id", filter.trace_id.map(hex::encode));
        facts.add_if("actor_id", filter.actor.as_ref());
        facts.add_if("event_type", filter.event_type.as_ref());
        facts.add_if("source", filter.source.as_ref());
        facts.add_if("result", filter.result.as_ref());
        facts.add_if("cause", filter.cause.as_ref());
        facts.add_if("occurred_from", filter.from.map(|time| time.to_rfc3339()));
        facts.add_if("occurred_to", filter.to.map(|time| time.to_rfc3339()));
        facts
    }

    pub fn add(&mut self, name: &str, value: &(impl ToString + ?Sized)) {
        self.0.insert(name.to_owned(), value.to_string());
    }

    pub fn add_if(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.add(name, &value);
        }
    }

    pub fn with(mut self, name: &str, value: &(impl ToString + ?Sized)) -> Self {
        self.add(name, value);
        self
    }

    pub fn with_events(self, events: &[EventPattern]) -> Self {
        let names: Vec<_> = events.iter().map(EventPattern::as_str).collect();
        self.with("event_types", &names.join(" "))
    }

    /// As an entry holds them.
    pub fn into_details(self) -> BTreeMap<String, String> {
        self.0
    }
}
