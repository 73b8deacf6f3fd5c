//! Faults: what can go wrong with one request, and how a fault is asked for.

use crate::error::ApiError;
use crate::limits::{MAX_CONTROL_FAULTS, MAX_FAULT_TIMES, MAX_LATENCY};
use serde::Deserialize;
use std::time::Duration;

/// On which side of the charge something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum When {
    /// The request leaves no trace: not charged, nothing stored.
    Before,
    /// The request was carried out and its answer stored under the key; only the client never
    /// reads it.
    After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// No answer and no end of the connection, until `max_hang` has passed.
    Hang(When),
    /// The connection is closed without an answer.
    Drop(When),
    /// The connection is reset (TCP RST); after the charge, in the middle of the answer.
    Reset(When),
    /// An error status; after the charge it is what the key's replays answer too.
    Status(u16, When),
    /// Charged, and answered 200 with half of the JSON; a replay answers the same bytes.
    Malformed,
}

/// What happens to one send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Time between the charge and the answer, or before the mishap.
    pub latency: Duration,
    pub mishap: Option<Mishap>,
}

/// A fault, and how many sends (per idempotency key) it spoils.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FaultRule {
    pub fault: Fault,
    pub times: u32,
}

impl FaultRule {
    pub(crate) const NONE: Self = Self {
        fault: Fault {
            latency: Duration::ZERO,
            mishap: None,
        },
        times: 0,
    };

    pub(crate) const fn once(mishap: Mishap) -> Self {
        Self {
            fault: Fault {
                latency: Duration::ZERO,
                mishap: Some(mishap),
            },
            times: 1,
        }
    }
}

/// A fault as it is written: in the control API's JSON, or as parameters of a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FaultSpec {
    latency_ms: Option<u64>,
    hang: Option<When>,
    drop: Option<When>,
    reset: Option<When>,
    status: Option<u16>,
    status_after: Option<u16>,
    #[serde(deserialize_with = "flag")]
    malformed: bool,
}

/// `true` or `1`: the control API's examples and the tokens' parameters read alike.
fn flag<'de, D: serde::Deserializer<'de>>(input: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Flag {
        Bool(bool),
        Number(u8),
    }
    Ok(match Flag::deserialize(input)? {
        Flag::Bool(value) => value,
        Flag::Number(value) => value != 0,
    })
}

const INVALID: ApiError = ApiError::invalid(
    "fault",
    "invalid_fault",
    "faults are latency_ms=0..600000 and at most one of hang|drop|reset=before|after, \
     status=400..599, status_after=400..599, malformed=1; times=1..1000000",
);

impl FaultSpec {
    /// Takes one parameter of a token; `false` if it has no such name.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<bool, ApiError> {
        match name {
            "latency_ms" => self.latency_ms = Some(value.parse().map_err(|_| INVALID)?),
            "hang" => self.hang = Some(when(value)?),
            "drop" => self.drop = Some(when(value)?),
            "reset" => self.reset = Some(when(value)?),
            "status" => self.status = Some(value.parse().map_err(|_| INVALID)?),
            "status_after" => self.status_after = Some(value.parse().map_err(|_| INVALID)?),
            "malformed" => self.malformed = matches!(value, "1" | "true"),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The rule, on top of what the token alone asks for.
    pub(crate) fn rule(self, base: FaultRule, times: Option<u32>) -> Result<FaultRule, ApiError> {
        let latency = match self.latency_ms.map(Duration::from_millis) {
            Some(latency) if latency > MAX_LATENCY => return Err(INVALID),
            Some(latency) => latency,
            None => base.fault.latency,
        };
        let mut asked = [
            self.hang.map(Mishap::Hang),
            self.drop.map(Mishap::Drop),
            self.reset.map(Mishap::Reset),
            self.status
                .map(|status| Mishap::Status(status, When::Before)),
            self.status_after
                .map(|status| Mishap::Status(status, When::After)),
            self.malformed.then_some(Mishap::Malformed),
        ]
        .into_iter()
        .flatten();
        let mishap = asked.next();
        if asked.next().is_some() {
            return Err(INVALID);
        }
        if let Some(Mishap::Status(status, _)) = mishap
            && !(400..600).contains(&status)
        {
            return Err(INVALID);
        }
        let fault = Fault {
            latency,
            mishap: mishap.or(base.fault.mishap),
        };
        let times = match times {
            Some(times) if times == 0 || times > MAX_FAULT_TIMES => return Err(INVALID),
            Some(times) => times,
            None if fault == Fault::default() => 0,
            None => base.times.max(1),
        };
        Ok(FaultRule { fault, times })
    }
}

fn when(value: &str) -> Result<When, ApiError> {
    match value {
        "before" => Ok(When::Before),
        "after" => Ok(When::After),
        _ => Err(INVALID),
    }
}

/// What a request is for, as faults name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RequestKind {
    Authorization,
    Purchase,
    Confirm,
    Capture,
    Void,
    Refund,
    Lookup,
}

/// `POST /control/faults`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ControlRequest {
    #[serde(default)]
    r#match: Match,
    fault: FaultSpec,
    times: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Match {
    kind: Option<RequestKind>,
    reference: Option<String>,
}

struct Armed {
    matches: Match,
    fault: Fault,
    left: u32,
}

/// The faults armed through the control API, oldest first.
#[derive(Default)]
pub(crate) struct ControlFaults {
    armed: Vec<Armed>,
}

impl ControlFaults {
    pub(crate) fn arm(&mut self, request: ControlRequest) -> Result<(), ApiError> {
        if self.armed.len() >= MAX_CONTROL_FAULTS {
            return Err(ApiError::invalid(
                "fault",
                "too_many_faults",
                "too many faults are armed: DELETE /control/faults first",
            ));
        }
        let rule = request
            .fault
            .rule(FaultRule::NONE, Some(request.times.unwrap_or(1)))?;
        let (matches, fault, left) = (request.r#match, rule.fault, rule.times);
        self.armed.push(Armed {
            matches,
            fault,
            left,
        });
        Ok(())
    }

    pub(crate) fn clear(&mut self) {
        self.armed.clear();
    }

    /// Takes one send off the oldest fault that matches.
    pub(crate) fn take(&mut self, kind: RequestKind, reference: &str) -> Option<Fault> {
        let position = self.armed.iter().position(|armed| {
            armed.matches.kind.is_none_or(|wanted| wanted == kind)
                && armed
                    .matches
                    .reference
                    .as_deref()
                    .is_none_or(|wanted| wanted == reference)
        })?;
        let armed = self.armed.get_mut(position)?;
        let fault = armed.fault;
        armed.left = armed.left.saturating_sub(1);
        if armed.left == 0 {
            self.armed.remove(position);
        }
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(parameters: &[(&str, &str)]) -> Result<FaultRule, ApiError> {
        let mut spec = FaultSpec::default();
        for (name, value) in parameters {
            assert!(spec.set(name, value)?, "{name}");
        }
        spec.rule(FaultRule::NONE, None)
    }

    #[test]
    fn parameters_make_one_mishap() {
        let rule = spec(&[("latency_ms", "200"), ("drop", "after")]).unwrap();
        assert_eq!(rule.fault.latency, Duration::from_millis(200));
        assert_eq!(rule.fault.mishap, Some(Mishap::Drop(When::After)));
        assert_eq!(rule.times, 1);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            vec![("drop", "sideways")],
            vec![("status", "200")],
            vec![("status", "70000")],
            vec![("latency_ms", "600001")],
            vec![("drop", "after"), ("malformed", "1")],
        ] {
            assert_eq!(spec(&bad).unwrap_err().code, "invalid_fault", "{bad:?}");
        }
    }

    #[test]
    fn armed_faults_are_used_up_oldest_first() {
        let mut faults = ControlFaults::default();
        let arm = |json: &str| serde_json::from_str::<ControlRequest>(json).unwrap();
        faults
            .arm(arm(
                r#"{"match":{"kind":"capture"},"fault":{"status":503},"times":2}"#,
            ))
            .unwrap();
        faults
            .arm(arm(
                r#"{"match":{"reference":"r1"},"fault":{"malformed":true}}"#,
            ))
            .unwrap();
        assert_eq!(faults.take(RequestKind::Refund, "r2"), None);
        for _ in 0..2 {
            let fault = faults.take(RequestKind::Capture, "r1").unwrap();
            assert_eq!(fault.mishap, Some(Mishap::Status(503, When::Before)));
        }
        let fault = faults.take(RequestKind::Capture, "r1").unwrap();
        assert_eq!(fault.mishap, Some(Mishap::Malformed));
        assert_eq!(faults.take(RequestKind::Capture, "r1"), None);
    }
}
