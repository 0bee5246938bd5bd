//! The table of families, and how one becomes handles.

use std::borrow::Cow;

use prometheus_client::{
    metrics::{counter, family, gauge},
    registry::{Metric, Registry, Unit},
};

use super::timing::{Exported, Timing};

/// One family: what it is called and what it says.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name, unit included.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

const fn family(
    name: &'static str,
    kind: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family { name, kind, labels, help }
}

/// All families, in the order in which they are documented.
pub const FAMILIES: &[Family] = &[
    family("ws_build_info", "gauge", &["version"], "1, and the version of the program"),
    family("ws_connections", "gauge", &[], "Client connections that are held now"),
    family("ws_connections_opened_total", "counter", &[], "Client connections that were answered 101"),
    family(
        "ws_connections_closed_total",
        "counter",
        &["code"],
        "Client connections that ended, by close code; 1006: without a Close",
    ),
    family(
        "ws_handshakes_refused_total",
        "counter",
        &["status"],
        "Handshakes refused by this process, by HTTP status",
    ),
    family("ws_handshake_duration_seconds", "histogram", &[], "Time from the client's request to its 101"),
    family(
        "ws_tls_handshakes_total",
        "counter",
        &["result"],
        "TLS handshakes of clients, by the HTTP that was agreed, or as failed or timed_out",
    ),
    family("ws_messages_total", "counter", &["direction"], "Messages relayed"),
    family("ws_bytes_total", "counter", &["direction"], "Bytes of frames relayed, frame headers included"),
    family(
        "ws_moves_total",
        "counter",
        &["reason", "result"],
        "Moves of a connection to another node that ended",
    ),
    family("ws_moves_pending", "gauge", &[], "Connections that are not at their owner yet"),
    family("ws_move_pause_seconds", "histogram", &[], "Time for which a move kept client messages waiting"),
    family(
        "ws_redelivered_messages_total",
        "counter",
        &[],
        "Client messages that were delivered again after a crash",
    ),
    family(
        "ws_unkept_messages_total",
        "counter",
        &[],
        "Client messages larger than the redelivery buffer, which a crash may lose",
    ),
    family("ws_members", "gauge", &["state"], "Members of the ring, by state"),
    family("ws_members_age_seconds", "gauge", &[], "Time since the source of members was last heard"),
    family(
        "ws_suspect_nodes",
        "gauge",
        &[],
        "Nodes that this process avoids because it found them unreachable",
    ),
    family(
        "ws_upstream_failures_total",
        "counter",
        &["kind"],
        "Failed dials, handshakes, legs and probes of nodes",
    ),
    family("ws_accept_errors_total", "counter", &[], "Connections that could not be accepted"),
];

/// Those that a sidecar has besides.
pub const SIDECAR_FAMILIES: &[Family] = &[
    family("ws_sends_total", "counter", &["ack", "result"], "Sends to clients that applications asked for"),
    family("ws_send_duration_seconds", "histogram", &[], "Time from a send's request to its answer"),
    family("ws_app_requests_total", "counter", &["type", "status"], "HTTP requests to the application"),
    family("ws_peer_requests_total", "counter", &["result"], "Requests to other sidecars"),
];

/// The family of that name.
fn lookup(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().chain(SIDECAR_FAMILIES).find(|family| family.name == name)
}

/// A number that only grows.
#[derive(Clone, Debug, Default)]
pub struct Counter(counter::Counter);

impl Counter {
    /// Counts one.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Counts `n`.
    pub fn inc_by(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// What was counted.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// A number that grows and shrinks.
#[derive(Clone, Debug, Default)]
pub struct Gauge(gauge::Gauge);

impl Gauge {
    /// One more.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// One less.
    pub fn dec(&self) {
        self.0.dec();
    }

    /// Exactly so many.
    pub fn set(&self, n: usize) {
        self.0.set(i64::try_from(n).unwrap_or(i64::MAX));
    }

    /// A part of them was so many and is so many now.
    pub(crate) fn changed(&self, before: usize, now: usize) {
        let number = |n| i64::try_from(n).unwrap_or(i64::MAX);
        self.0.inc_by(number(now) - number(before));
    }

    /// How many there are.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.get()
    }
}

/// The families that are being registered.
#[derive(Default)]
pub(super) struct Families {
    pub(super) registry: Registry,
}

impl Families {
    /// Registers a family of the table under its name, and returns a handle to it.
    pub(super) fn register<M: Metric + Clone>(&mut self, name: &'static str, metric: M) -> M {
        let help = lookup(name).map_or("", |family| family.help);
        match name.strip_suffix("_seconds") {
            Some(stem) => self.registry.register_with_unit(stem, help, Unit::Seconds, metric.clone()),
            // The encoder puts a counter's suffix back.
            None => self.registry.register(name.strip_suffix("_total").unwrap_or(name), help, metric.clone()),
        }
        metric
    }

    pub(super) fn info(&mut self, name: &'static str, version: &'static str) {
        let family: family::Family<[(&str, &str); 1], gauge::Gauge> =
            self.register(name, family::Family::default());
        family.get_or_create(&[("version", version)]).set(1);
    }

    pub(super) fn counter(&mut self, name: &'static str) -> Counter {
        Counter(self.register(name, counter::Counter::default()))
    }

    pub(super) fn gauge(&mut self, name: &'static str) -> Gauge {
        Gauge(self.register(name, gauge::Gauge::default()))
    }

    pub(super) fn timing(&mut self, name: &'static str) -> Timing {
        self.register(name, Exported(Timing::default())).0
    }

    pub(super) fn gauges<const N: usize>(
        &mut self,
        name: &'static str,
        values: [&'static str; N],
    ) -> Vec<Gauge> {
        let family: family::Family<[(&str, &str); 1], gauge::Gauge> =
            self.register(name, family::Family::default());
        let key = label_names::<1>(name)[0];
        values.iter().map(|value| Gauge(family.get_or_create_owned(&[(key, *value)]))).collect()
    }

    /// A family whose label values come as they come; those given start at zero.
    pub(super) fn labelled<const N: usize>(
        &mut self,
        name: &'static str,
        values: impl IntoIterator<Item = [Cow<'static, str>; N]>,
    ) -> Labelled<N> {
        let family = self.register(name, family::Family::default());
        let labelled = Labelled { family, names: label_names(name) };
        for value in values {
            labelled.get(value);
        }
        labelled
    }

    /// A family whose label values are all known: its counters in that order.
    pub(super) fn labels<const N: usize>(
        &mut self,
        name: &'static str,
        values: impl IntoIterator<Item = [Cow<'static, str>; N]>,
    ) -> Vec<Counter> {
        let labelled = self.labelled(name, []);
        values.into_iter().map(|value| labelled.get(value)).collect()
    }
}

/// The labels of a family of the table.
fn label_names<const N: usize>(name: &str) -> [&'static str; N] {
    let labels = lookup(name).map_or(&[][..], |family| family.labels);
    std::array::from_fn(|at| labels[at])
}

type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];

/// Counters that are told apart by `N` labels.
pub(super) struct Labelled<const N: usize> {
    family: family::Family<Labels<N>, counter::Counter>,
    names: [&'static str; N],
}

impl<const N: usize> Labelled<N> {
    pub(super) fn get(&self, values: [Cow<'static, str>; N]) -> Counter {
        let mut values = values.into_iter();
        let labels = self.names.map(|name| (name, values.next().unwrap_or_default()));
        Counter(self.family.get_or_create_owned(&labels))
    }
}

pub(super) fn each<T: Copy + Into<Cow<'static, str>>>(
    values: &[T],
) -> impl Iterator<Item = [Cow<'static, str>; 1]> {
    values.iter().map(|value| [(*value).into()])
}

pub(super) fn pairs<T, U>(first: &[T], second: &[U]) -> impl Iterator<Item = [Cow<'static, str>; 2]>
where
    T: Copy + Into<Cow<'static, str>>,
    U: Copy + Into<Cow<'static, str>>,
{
    first.iter().flat_map(move |a| second.iter().map(move |b| [(*a).into(), (*b).into()]))
}
