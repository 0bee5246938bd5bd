//! What the operator counts, for Prometheus.

use std::{fmt, sync::Arc};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use ws_routing::metrics::{Family as Described, Format};

const ADMISSIONS: &str = "ws_operator_admissions_total";
const RECONCILES: &str = "ws_operator_reconciles_total";
const ERRORS: &str = "ws_operator_errors_total";
const LEADER: &str = "ws_operator_leader";
const MEMBERS: &str = "ws_operator_members";
const PODS: &str = "ws_operator_pods";
const FOREIGN: &str = "ws_operator_foreign_objects";
const EXPIRY: &str = "ws_operator_certificate_expiry_timestamp_seconds";

/// All families, in the order in which they are documented.
pub const FAMILIES: [Described; 8] = [
    Described {
        name: ADMISSIONS,
        kind: "counter",
        labels: &["webhook", "result", "reason"],
        help: "Objects that the webhooks decided about; reason: why a pod was skipped",
    },
    Described {
        name: RECONCILES,
        kind: "counter",
        labels: &["result"],
        help: "Namespaces brought to what they should be",
    },
    Described {
        name: ERRORS,
        kind: "counter",
        labels: &["operation"],
        help: "Faults, each of which is tried again",
    },
    Described { name: LEADER, kind: "gauge", labels: &[], help: "1 where this replica writes" },
    Described { name: MEMBERS, kind: "gauge", labels: &["state"], help: "Members of all rings" },
    Described {
        name: PODS,
        kind: "gauge",
        labels: &["state"],
        help: "Labelled pods that have not what new ones get: uninjected or outdated",
    },
    Described {
        name: FOREIGN,
        kind: "gauge",
        labels: &[],
        help: "Objects of a name that a ring needs and that somebody else made",
    },
    Described {
        name: EXPIRY,
        kind: "gauge",
        labels: &[],
        help: "When the certificate of the webhooks ends, in seconds since 1970",
    },
];

/// The handles of the operator's metrics. Cloning is a reference count.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Registry,
    admissions: Family<Admission, Counter>,
    reconciles: Family<Reconcile, Counter>,
    errors: Family<Failed, Counter>,
    leader: Gauge,
    members: Family<State, Gauge>,
    pods: Family<State, Gauge>,
    foreign: Gauge,
    expiry: Gauge,
}

/// What was decided about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Admission {
    /// `pods` or `workloads`.
    pub webhook: &'static str,
    /// `patched`, `unchanged`, `skipped`, `denied` or `unreadable`.
    pub result: &'static str,
    /// Why it was skipped, else empty.
    pub reason: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconcile {
    result: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    operation: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// What can go wrong, as the label `operation` of the errors has it.
const OPERATIONS: [&str; 7] = ["watch", "reconcile", "status", "certificates", "lease", "restart", "event"];

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers all families.
    #[must_use]
    pub fn new() -> Self {
        let mut shared = Shared {
            registry: Registry::default(),
            admissions: Family::default(),
            reconciles: Family::default(),
            errors: Family::default(),
            leader: Gauge::default(),
            members: Family::default(),
            pods: Family::default(),
            foreign: Gauge::default(),
            expiry: Gauge::default(),
        };
        shared.begin();
        shared.register();
        Self { shared: Arc::new(shared) }
    }

    /// An object was decided about.
    pub fn admitted(&self, admission: Admission) {
        self.shared.admissions.get_or_create(&admission).inc();
    }

    /// A namespace was brought to what it should be, or was not.
    pub fn reconciled(&self, done: bool) {
        let result = if done { "ok" } else { "error" };
        self.shared.reconciles.get_or_create(&Reconcile { result }).inc();
        if !done {
            self.failed("reconcile");
        }
    }

    /// Something went wrong, and is tried again: `watch`, `reconcile`, `status`, `certificates`, `lease`, `restart` or
    /// `event`.
    pub fn failed(&self, operation: &'static str) {
        self.shared.errors.get_or_create(&Failed { operation }).inc();
    }

    /// Whether this replica writes.
    pub fn leads(&self, leads: bool) {
        self.shared.leader.set(leads.into());
    }

    /// How many members all rings have.
    pub fn members(&self, ready: usize, draining: usize) {
        self.count(&self.shared.members, "ready", ready);
        self.count(&self.shared.members, "draining", draining);
    }

    /// How many labelled pods have no sidecar, or another than new pods get.
    pub fn pods(&self, uninjected: usize, outdated: usize) {
        self.count(&self.shared.pods, "uninjected", uninjected);
        self.count(&self.shared.pods, "outdated", outdated);
    }

    /// How many objects of a name that a ring needs were made by somebody else.
    pub fn foreign(&self, objects: usize) {
        self.shared.foreign.set(objects.try_into().unwrap_or(i64::MAX));
    }

    /// When the certificate of the webhooks ends, in seconds since 1970.
    pub fn certificate_ends(&self, second: i64) {
        self.shared.expiry.set(second);
    }

    /// The page for Prometheus.
    #[must_use]
    pub fn page(&self, format: Format) -> String {
        let mut page = String::new();
        // Writing into a string cannot fail.
        let _ = text::encode(&mut page, &self.shared.registry);
        format.write(page)
    }

    fn count(&self, family: &Family<State, Gauge>, state: &'static str, count: usize) {
        family.get_or_create(&State { state }).set(count.try_into().unwrap_or(i64::MAX));
    }
}

impl Shared {
    /// What can be known beforehand is there from the start, with zero.
    fn begin(&self) {
        for webhook in ["pods", "workloads"] {
            for result in ["patched", "unchanged", "denied", "unreadable"] {
                drop(self.admissions.get_or_create(&Admission { webhook, result, reason: "" }));
            }
        }
        for result in ["ok", "error"] {
            drop(self.reconciles.get_or_create(&Reconcile { result }));
        }
        for operation in OPERATIONS {
            drop(self.errors.get_or_create(&Failed { operation }));
        }
        for state in ["ready", "draining"] {
            drop(self.members.get_or_create(&State { state }));
        }
        for state in ["uninjected", "outdated"] {
            drop(self.pods.get_or_create(&State { state }));
        }
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        for family in FAMILIES {
            let (name, help) = (family.name.trim_end_matches("_total"), family.help);
            match family.name {
                ADMISSIONS => registry.register(name, help, self.admissions.clone()),
                RECONCILES => registry.register(name, help, self.reconciles.clone()),
                ERRORS => registry.register(name, help, self.errors.clone()),
                LEADER => registry.register(name, help, self.leader.clone()),
                MEMBERS => registry.register(name, help, self.members.clone()),
                PODS => registry.register(name, help, self.pods.clone()),
                FOREIGN => registry.register(name, help, self.foreign.clone()),
                _ => registry.register(name, help, self.expiry.clone()),
            }
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_there_from_the_start() {
        let metrics = Metrics::new();
        metrics.admitted(Admission { webhook: "pods", result: "skipped", reason: "HostNetwork" });
        metrics.reconciled(false);
        metrics.leads(true);
        let page = metrics.page(Format::Text);
        for line in [
            "ws_operator_admissions_total{webhook=\"workloads\",result=\"denied\",reason=\"\"} 0",
            "ws_operator_admissions_total{webhook=\"pods\",result=\"skipped\",reason=\"HostNetwork\"} 1",
            "ws_operator_reconciles_total{result=\"error\"} 1",
            "ws_operator_errors_total{operation=\"reconcile\"} 1",
            "ws_operator_errors_total{operation=\"lease\"} 0",
            "ws_operator_leader 1",
            "ws_operator_members{state=\"ready\"} 0",
            "ws_operator_pods{state=\"outdated\"} 0",
            "ws_operator_foreign_objects 0",
            "ws_operator_certificate_expiry_timestamp_seconds 0",
        ] {
            assert!(page.contains(&format!("{line}\n")), "{line} in {page}");
        }
    }

    #[test]
    fn counters_have_their_full_name_in_the_older_format_only() {
        let page = |format| Metrics::new().page(format);
        let (text, open) = (page(Format::Text), page(Format::OpenMetrics));
        assert!(text.contains("# TYPE ws_operator_errors_total counter\n"), "{text}");
        assert!(text.contains("# TYPE ws_operator_leader gauge\n"), "{text}");
        assert!(!text.contains("# EOF"), "{text}");
        assert!(open.contains("# TYPE ws_operator_errors counter\n") && open.ends_with("# EOF\n"), "{open}");
    }
}
