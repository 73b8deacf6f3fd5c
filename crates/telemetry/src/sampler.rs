//! Which traces are recorded.

use opentelemetry_sdk::trace::{ParentBasedSampler, Sampler, ShouldSample};

use crate::config::Environment;
use crate::error::Error;

const SAMPLER_VARIABLE: &str = "OTEL_TRACES_SAMPLER";
const RATIO_VARIABLE: &str = "OTEL_TRACES_SAMPLER_ARG";

/// The sampler that `OTEL_TRACES_SAMPLER` asks for; by default every trace is recorded.
///
/// In contrast to the SDK's own samplers, a remote parent's "not sampled" is no decision for us:
/// the trace of a payment is evidence, and a caller must not be able to switch it off. Such a
/// trace is treated as if it began here. Spans below one of our own follow that one, so that a
/// trace is recorded as a whole or not at all.
///
/// # Errors
/// [`Error::InvalidSetting`] for an unknown sampler, or a ratio outside 0 to 1.
pub(crate) fn from_environment(
    environment: Environment<'_>,
) -> Result<Box<dyn ShouldSample>, Error> {
    let name = environment(SAMPLER_VARIABLE);
    let (local, follow_sampled_remote) = match name.as_deref().map(str::trim) {
        None | Some("always_on" | "parentbased_always_on") => (Sampler::AlwaysOn, true),
        Some("always_off") => (Sampler::AlwaysOff, false),
        Some("parentbased_always_off") => (Sampler::AlwaysOff, true),
        Some("traceidratio") => (Sampler::TraceIdRatioBased(ratio(environment)?), false),
        Some("parentbased_traceidratio") => (Sampler::TraceIdRatioBased(ratio(environment)?), true),
        Some(other) => {
            return Err(Error::setting(
                SAMPLER_VARIABLE,
                format!(
                    "{other:?} is unknown; use always_on, always_off, traceidratio or one of \
                     their parentbased_ forms"
                ),
            ));
        }
    };
    let sampled_remote = if follow_sampled_remote {
        Sampler::AlwaysOn
    } else {
        local.clone()
    };
    Ok(Box::new(
        ParentBasedSampler::new(local.clone())
            .with_remote_parent_sampled(sampled_remote)
            .with_remote_parent_not_sampled(local),
    ))
}

fn ratio(environment: Environment<'_>) -> Result<f64, Error> {
    let Some(text) = environment(RATIO_VARIABLE) else {
        return Ok(1.0);
    };
    match text.trim().parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        Ok(_) | Err(_) => Err(Error::setting(
            RATIO_VARIABLE,
            "must be a number from 0 to 1",
        )),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::Context;
    use opentelemetry::trace::{
        SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState,
    };
    use opentelemetry_sdk::trace::SamplingDecision;

    use super::*;

    fn decision(sampler: Option<&str>, ratio: &str, parent: Option<(bool, bool)>) -> bool {
        let environment = |name: &str| match name {
            SAMPLER_VARIABLE => sampler.map(str::to_owned),
            RATIO_VARIABLE => Some(ratio.to_owned()),
            _ => None,
        };
        let trace = TraceId::from(0x1234_5678_9abc_def0_1234_5678_9abc_def0);
        let context = parent.map_or_else(Context::new, |(remote, sampled)| {
            Context::new().with_remote_span_context(SpanContext::new(
                trace,
                SpanId::from(7),
                TraceFlags::default().with_sampled(sampled),
                remote,
                TraceState::default(),
            ))
        });
        let result = from_environment(&environment).unwrap().should_sample(
            Some(&context),
            trace,
            "authorize",
            &SpanKind::Server,
            &[],
            &[],
        );
        result.decision == SamplingDecision::RecordAndSample
    }

    #[test]
    fn a_remote_parents_not_sampled_does_not_suppress_a_trace() {
        let remote_not_sampled = Some((true, false));
        assert!(decision(None, "1", remote_not_sampled));
        assert!(decision(
            Some("parentbased_always_on"),
            "1",
            remote_not_sampled
        ));
        assert!(decision(
            Some("parentbased_traceidratio"),
            "1.0",
            remote_not_sampled
        ));
    }

    #[test]
    fn our_own_decision_holds_for_the_whole_trace() {
        assert!(!decision(None, "1", Some((false, false))));
        assert!(decision(
            Some("parentbased_traceidratio"),
            "0",
            Some((false, true))
        ));
    }

    #[test]
    fn a_local_ratio_decides_where_the_operator_asked_for_one() {
        assert!(!decision(Some("traceidratio"), "0", None));
        assert!(!decision(Some("traceidratio"), "0", Some((true, true))));
        assert!(decision(
            Some("parentbased_traceidratio"),
            "0",
            Some((true, true))
        ));
        assert!(!decision(
            Some("parentbased_traceidratio"),
            "0",
            Some((true, false))
        ));
        assert!(!decision(Some("always_off"), "1", None));
    }

    #[test]
    fn unknown_samplers_and_ratios_are_refused() {
        assert!(from_environment(&|_| Some("xray".to_owned())).is_err());
        for ratio in ["2", "-1", "NaN", "half"] {
            let environment = |name: &str| {
                Some(
                    if name == SAMPLER_VARIABLE {
                        "traceidratio"
                    } else {
                        ratio
                    }
                    .to_owned(),
                )
            };
            assert!(from_environment(&environment).is_err(), "{ratio}");
        }
    }
}
