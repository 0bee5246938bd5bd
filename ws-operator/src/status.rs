//! How a ring is: the status of its `WebSocketApp`, pure, from what is known.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::{
    crd::{WebSocketAppStatus, conditions},
    world::Running,
};

/// What is known of the ring of a `WebSocketApp`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Facts {
    /// The specification's.
    pub(crate) generation: Option<i64>,
    /// Another, older one is about the same ring.
    pub(crate) superseded: bool,
    /// Pods, with a sidecar or without.
    pub(crate) pods: usize,
    pub(crate) uninjected: usize,
    pub(crate) outdated: usize,
    pub(crate) ready: usize,
    pub(crate) draining: usize,
    pub(crate) fingerprint: String,
    /// Connections that the balancers hold; `None`: nobody could be asked, and the last number stays.
    pub(crate) connections: Option<i64>,
    pub(crate) balancer: BalancerFact,
    /// What somebody else made under a name that the ring needs.
    pub(crate) taken: Vec<String>,
    /// Monitoring is asked for, and the cluster has no PodMonitors.
    pub(crate) unmonitored: bool,
}

/// How a ring's balancer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BalancerFact {
    /// It is to have none.
    #[default]
    Off,
    /// It is to have one, and there is none.
    Absent,
    /// There is one.
    There(Running),
}

/// The status that follows from the facts; times of conditions that did not change stay.
pub(crate) fn status(facts: &Facts, had: Option<&WebSocketAppStatus>, now: Timestamp) -> WebSocketAppStatus {
    let number = |count: usize| count.try_into().unwrap_or(i32::MAX);
    let told = [
        (conditions::READY, ready(facts)),
        (conditions::ENDPOINTS, endpoints(facts)),
        (conditions::INJECTION, injection(facts)),
        (conditions::BALANCER, balancer(facts)),
    ];
    let conditions = told.map(|(name, verdict)| verdict.condition(name, facts.generation, had, now)).to_vec();
    WebSocketAppStatus {
        observed_generation: facts.generation,
        conditions,
        pods: number(facts.pods),
        ready: number(facts.ready),
        draining: number(facts.draining),
        uninjected: number(facts.uninjected),
        outdated: number(facts.outdated),
        connections: facts.connections.or(had.map(|had| had.connections)).unwrap_or_default(),
        fingerprint: facts.fingerprint.clone(),
    }
}

struct Verdict {
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self { holds: true, reason, message: message.into() }
    }

    fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self { holds: false, reason, message: message.into() }
    }

    fn condition(
        self,
        name: &str,
        generation: Option<i64>,
        had: Option<&WebSocketAppStatus>,
        now: Timestamp,
    ) -> Condition {
        let status = if self.holds { "True" } else { "False" };
        let same =
            had.and_then(|had| had.conditions.iter().find(|had| had.type_ == name && had.status == status));
        Condition {
            type_: name.into(),
            status: status.into(),
            reason: self.reason.into(),
            message: self.message,
            last_transition_time: same.map_or(Time(now), |same| same.last_transition_time.clone()),
            observed_generation: generation,
        }
    }
}

fn ready(facts: &Facts) -> Verdict {
    if facts.superseded {
        return Verdict::no("Superseded", "an older WebSocketApp is about the same group: it counts");
    }
    if !facts.taken.is_empty() {
        return taken(facts);
    }
    let parts = [endpoints(facts), balancer(facts)];
    if let Some(fault) = parts.into_iter().find(|part| !part.holds) {
        return fault;
    }
    if facts.unmonitored {
        return Verdict::yes("MonitoringUnavailable", "clients are served; the cluster knows no PodMonitor");
    }
    Verdict::yes("Serving", "clients are served")
}

fn taken(facts: &Facts) -> Verdict {
    let names = facts.taken.join(", ");
    Verdict::no("NameTaken", format!("made by somebody else, and left alone: {names}"))
}

fn endpoints(facts: &Facts) -> Verdict {
    let Facts { ready, draining, .. } = facts;
    match (ready, draining) {
        (0, 0) => Verdict::no("NoMembers", "no pod of the ring is ready"),
        (0, _) => Verdict::yes("AllDraining", format!("{draining} members are leaving, and none is ready")),
        _ => Verdict::yes("MembersReady", format!("{ready} members are ready, {draining} are leaving")),
    }
}

fn injection(facts: &Facts) -> Verdict {
    let Facts { uninjected, outdated, .. } = facts;
    match (uninjected, outdated) {
        (0, 0) => Verdict::yes("AllInjected", "every pod has the current sidecar"),
        (0, _) => Verdict::no("Outdated", format!("{outdated} pods have another sidecar than new pods get")),
        _ => Verdict::no("Uninjected", format!("{uninjected} pods have no sidecar: restart their workload")),
    }
}

fn balancer(facts: &Facts) -> Verdict {
    if !facts.taken.is_empty() && !matches!(facts.balancer, BalancerFact::There(_) | BalancerFact::Off) {
        return taken(facts);
    }
    match facts.balancer {
        BalancerFact::Off => Verdict::yes("Off", "the ring is to have no balancer"),
        BalancerFact::Absent => Verdict::no("Absent", "the balancer is not there yet"),
        BalancerFact::There(Running { wanted, available }) if available >= wanted => {
            Verdict::yes("Available", format!("{available} of {wanted} balancers are available"))
        }
        // As long as one serves, clients are served.
        BalancerFact::There(Running { wanted, available: available @ 1.. }) => {
            Verdict::yes("Degraded", format!("{available} of {wanted} balancers are available"))
        }
        BalancerFact::There(Running { wanted, .. }) => {
            Verdict::no("Unavailable", format!("none of {wanted} balancers is available"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn serving() -> Facts {
        Facts {
            generation: Some(3),
            pods: 3,
            ready: 3,
            balancer: BalancerFact::There(Running { wanted: 2, available: 2 }),
            connections: Some(100),
            fingerprint: "0123456789abcdef".into(),
            ..Facts::default()
        }
    }

    fn told(facts: &Facts) -> Vec<String> {
        let status = status(facts, None, at(0));
        status
            .conditions
            .iter()
            .map(|told| format!("{} {} {}", told.type_, told.status, told.reason))
            .collect()
    }

    #[test]
    fn a_ring_that_serves_is_ready() {
        assert_eq!(
            told(&serving()),
            [
                "Ready True Serving",
                "EndpointsAvailable True MembersReady",
                "InjectionHealthy True AllInjected",
                "BalancerAvailable True Available"
            ]
        );
        let status = status(&serving(), None, at(0));
        assert_eq!((status.pods, status.ready, status.connections), (3, 3, 100));
        assert_eq!(status.observed_generation, Some(3));
    }

    #[test]
    fn ready_says_what_is_wrong_first() {
        let running = |available| BalancerFact::There(Running { wanted: 2, available });
        for (facts, ready) in [
            (Facts { ready: 0, ..serving() }, "Ready False NoMembers"),
            (Facts { ready: 0, draining: 2, ..serving() }, "Ready True Serving"),
            (Facts { balancer: running(0), ..serving() }, "Ready False Unavailable"),
            (Facts { balancer: running(1), ..serving() }, "Ready True Serving"),
            (Facts { balancer: BalancerFact::Absent, ..serving() }, "Ready False Absent"),
            (Facts { balancer: BalancerFact::Off, ..serving() }, "Ready True Serving"),
            (Facts { taken: vec!["Service x".into()], ..serving() }, "Ready False NameTaken"),
            (Facts { superseded: true, ..serving() }, "Ready False Superseded"),
            (Facts { unmonitored: true, ..serving() }, "Ready True MonitoringUnavailable"),
            (Facts { uninjected: 1, outdated: 1, ..serving() }, "Ready True Serving"),
        ] {
            assert_eq!(told(&facts)[0], ready, "{facts:?}");
        }
        assert_eq!(told(&Facts { uninjected: 1, ..serving() })[2], "InjectionHealthy False Uninjected");
        assert_eq!(told(&Facts { outdated: 1, ..serving() })[2], "InjectionHealthy False Outdated");
    }

    #[test]
    fn times_change_with_the_condition_and_connections_stay_when_nobody_answers() {
        let first = status(&serving(), None, at(0));
        let second = status(&Facts { connections: None, ..serving() }, Some(&first), at(9));
        assert_eq!(first, second, "nothing to write");
        let third = status(&Facts { ready: 0, ..serving() }, Some(&second), at(20));
        let times: Vec<_> = third.conditions.iter().map(|told| told.last_transition_time.0).collect();
        assert_eq!(times, [at(20), at(20), at(0), at(0)]);
    }
}
