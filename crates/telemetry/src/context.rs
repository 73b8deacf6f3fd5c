//! W3C trace context in and out of HTTP headers (gRPC metadata included), and the ids of the
//! current span. No baggage: nothing that a caller attaches travels on to a provider.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// Longest `tracestate` that is kept, in bytes; W3C Trace Context section 3.3.1.5 asks for at
/// least 512. A longer one is dropped, the trace continues.
pub const TRACESTATE_LIMIT: usize = 512;

/// Identity of a span, as stored in audit entries. All zero where there is no span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TraceIds {
    /// 16 bytes, big-endian as in `traceparent`.
    pub trace_id: [u8; 16],
    /// 8 bytes, big-endian as in `traceparent`.
    pub span_id: [u8; 8],
    /// W3C trace flags; bit 0: sampled.
    pub flags: u8,
}

impl TraceIds {
    /// Whether both ids are set: an all-zero id is invalid.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.trace_id != [0; 16] && self.span_id != [0; 8]
    }

    /// The trace id as 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn trace_id_hex(&self) -> String {
        TraceId::from_bytes(self.trace_id).to_string()
    }

    /// The span id as 16 lower-case hexadecimal digits.
    #[must_use]
    pub fn span_id_hex(&self) -> String {
        SpanId::from_bytes(self.span_id).to_string()
    }

    fn to_remote(self) -> SpanContext {
        SpanContext::new(
            TraceId::from_bytes(self.trace_id),
            SpanId::from_bytes(self.span_id),
            TraceFlags::new(self.flags),
            true,
            TraceState::default(),
        )
    }
}

impl From<&SpanContext> for TraceIds {
    fn from(context: &SpanContext) -> Self {
        Self {
            trace_id: context.trace_id().to_bytes(),
            span_id: context.span_id().to_bytes(),
            flags: context.trace_flags().to_u8(),
        }
    }
}

/// The two headers of a request, `tracestate` joined as W3C Trace Context section 3.3.1.1 says.
struct Headers {
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl Headers {
    fn read(headers: &HeaderMap) -> Self {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        // Two parents contradict each other: the trace restarts here.
        let traceparent = match (parents.next(), parents.next()) {
            (Some(parent), None) => parent.to_str().ok().map(str::to_owned),
            (_, _) => None,
        };
        let states: Option<Vec<&str>> = headers
            .get_all(TRACESTATE)
            .iter()
            .map(|state| state.to_str().ok())
            .collect();
        let tracestate = states
            .map(|states| states.join(","))
            .filter(|state| !state.is_empty() && state.len() <= TRACESTATE_LIMIT);
        Self {
            traceparent,
            tracestate,
        }
    }
}

impl Extractor for Headers {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => self.traceparent.as_deref(),
            TRACESTATE => self.tracestate.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

struct HeaderInjector<'a>(&'a mut HeaderMap);

impl Injector for HeaderInjector<'_> {
    fn set(&mut self, key: &str, value: String) {
        let name = HeaderName::try_from(key);
        let value = HeaderValue::try_from(value);
        if let (Ok(name), Ok(value)) = (name, value)
            && !value.is_empty()
        {
            self.0.insert(name, value);
        }
    }
}

/// Reads `traceparent` and `tracestate`. A missing or malformed `traceparent` gives an empty
/// context: the trace then begins here.
#[must_use]
pub fn trace_context_from_headers(headers: &HeaderMap) -> Context {
    if !headers.contains_key(TRACEPARENT) {
        return Context::new();
    }
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers::read(headers))
}

/// Writes the current span's `traceparent` and `tracestate`; writes nothing outside of a span.
pub fn inject(headers: &mut HeaderMap) {
    Context::map_current(|context| {
        TraceContextPropagator::new().inject_context(context, &mut HeaderInjector(headers));
    });
}

/// Makes `parent` the parent of `span`. Has an effect only before `span` is first entered, and
/// none if `parent` holds no valid span: `span` then keeps the parent that it has.
pub fn set_parent(span: &Span, parent: Context) {
    if parent.span().span_context().is_valid() {
        // Fails only where no layer records spans, or the span began already; neither concerns
        // the payment.
        let _ = span.set_parent(parent);
    }
}

/// Identity of the span that the current code runs in; all zero outside of any span.
#[must_use]
pub fn current_ids() -> TraceIds {
    Context::map_current(|context| TraceIds::from(context.span().span_context()))
}

/// Identity of `span`, entered or not. It begins if it has not begun: its parent is fixed then.
#[must_use]
pub fn span_ids(span: &Span) -> TraceIds {
    TraceIds::from(span.context().span().span_context())
}

/// Identity of the span that a caller sent, from [`trace_context_from_headers`]; `None` if it sent
/// none that is valid.
#[must_use]
pub fn remote_parent_ids(context: &Context) -> Option<TraceIds> {
    let span = context.span();
    let parent = span.span_context();
    (parent.is_valid() && parent.is_remote()).then(|| TraceIds::from(parent))
}

/// Links `span` to the span `to`, such as the one that accepted a transaction, when a recovery
/// run or a webhook starts a trace of its own. Invalid ids are ignored.
pub fn add_link(span: &Span, to: TraceIds) {
    if to.is_valid() {
        span.add_link(to.to_remote());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::test_pipeline;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_remote_parent_is_read_and_its_trace_continues_outwards() {
        let incoming = headers(&[
            (TRACEPARENT, PARENT),
            (TRACESTATE, "vendor=1"),
            (TRACESTATE, "other=2"),
            ("baggage", "customer=42"),
        ]);
        let parent = trace_context_from_headers(&incoming);
        let ids = remote_parent_ids(&parent).unwrap();
        assert_eq!(ids.trace_id_hex(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(ids.span_id_hex(), "00f067aa0ba902b7");
        assert_eq!(ids.flags, 1);

        let pipeline = test_pipeline();
        let mut outgoing = HeaderMap::new();
        let own = tracing::dispatcher::with_default(&pipeline.dispatch, || {
            let span = tracing::info_span!("authorize");
            set_parent(&span, parent);
            span.in_scope(|| {
                inject(&mut outgoing);
                current_ids()
            })
        });
        assert_eq!(own.trace_id, ids.trace_id);
        assert_ne!(own.span_id, ids.span_id);
        let expected = format!("00-{}-{}-01", own.trace_id_hex(), own.span_id_hex());
        assert_eq!(outgoing.get(TRACEPARENT).unwrap(), expected.as_str());
        assert_eq!(outgoing.get(TRACESTATE).unwrap(), "vendor=1,other=2");
        assert_eq!(outgoing.len(), 2, "no baggage");
    }

    #[test]
    fn a_remote_parents_not_sampled_does_not_suppress_the_span() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let parent = trace_context_from_headers(&headers(&[(TRACEPARENT, parent)]));
        let pipeline = test_pipeline();
        tracing::dispatcher::with_default(&pipeline.dispatch, || {
            let span = tracing::info_span!("authorize");
            set_parent(&span, parent);
            span.in_scope(|| assert_eq!(current_ids().flags, 1));
        });
        assert_eq!(pipeline.finished().len(), 1);
    }

    #[test]
    fn malformed_parents_start_a_new_trace() {
        for value in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            let context = trace_context_from_headers(&headers(&[(TRACEPARENT, value)]));
            assert_eq!(remote_parent_ids(&context), None, "{value}");
        }
        let two = headers(&[(TRACEPARENT, PARENT), (TRACEPARENT, PARENT)]);
        assert_eq!(remote_parent_ids(&trace_context_from_headers(&two)), None);
    }

    #[test]
    fn an_oversized_tracestate_is_dropped_and_the_trace_continues() {
        let mut incoming = headers(&[(TRACEPARENT, PARENT)]);
        let long = format!("vendor={}", "x".repeat(TRACESTATE_LIMIT));
        incoming.insert(TRACESTATE, HeaderValue::try_from(long).unwrap());
        let context = trace_context_from_headers(&incoming);
        assert!(remote_parent_ids(&context).is_some());
        assert_eq!(
            context.span().span_context().trace_state(),
            &TraceState::default()
        );
    }

    #[test]
    fn a_recovery_run_is_linked_to_the_accepting_span() {
        let accepted = TraceIds {
            trace_id: [7; 16],
            span_id: [9; 8],
            flags: 1,
        };
        let pipeline = test_pipeline();
        tracing::dispatcher::with_default(&pipeline.dispatch, || {
            let span = tracing::info_span!("recover");
            add_link(&span, accepted);
            add_link(&span, TraceIds::default());
            assert_ne!(span_ids(&span).trace_id, accepted.trace_id);
        });
        let spans = pipeline.finished();
        assert_eq!(spans[0].links.links.len(), 1);
        assert_eq!(
            TraceIds::from(&spans[0].links.links[0].span_context),
            accepted
        );
    }

    #[test]
    fn outside_of_a_span_there_are_no_ids() {
        let mut headers = HeaderMap::new();
        inject(&mut headers);
        assert!(headers.is_empty());
        assert!(!current_ids().is_valid());
    }
}
