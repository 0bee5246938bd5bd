//! What a process counts and measures, for Prometheus.
//!
//! All families are there from the start, with zero for every label value that is known beforehand. [`FAMILIES`] is the
//! one source of their names and texts.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::text,
    metrics::{counter, family, gauge, histogram},
    registry::{Metric, Registry, Unit},
};
use tokio::{sync::watch, time::Instant};

use crate::{membership::Members, node::NodeState};

/// The handles of a process's metrics. Cloning is a reference count; using one is an atomic operation, for a label
/// that is looked up by number or status a short lock.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Registry,
    connections: Gauge,
    opened: Counter,
    closed: Labelled<1>,
    refused: Labelled<1>,
    handshake: Timing,
    messages: Vec<Counter>,
    bytes: Vec<Counter>,
    moves: Vec<Counter>,
    moves_pending: Gauge,
    move_pause: Timing,
    redelivered: Counter,
    members: Vec<Gauge>,
    members_age: gauge::Gauge<f64, std::sync::atomic::AtomicU64>,
    members_seen: watch::Sender<Option<Instant>>,
    suspects: Gauge,
    failures: Vec<Counter>,
    accept_errors: Counter,
}

impl Metrics {
    /// Registers all families of a process of that version.
    #[must_use]
    pub fn new(version: &'static str) -> Self {
        let mut families = Families::default();
        families.info("ws_build_info", version);
        let connections = families.gauge("ws_connections");
        let opened = families.counter("ws_connections_opened_total");
        let closed = families.labelled("ws_connections_closed_total", CLOSE_CODES.map(|code| [code.into()]));
        let refused =
            families.labelled("ws_handshakes_refused_total", STATUSES.map(|status| [status.into()]));
        let handshake = families.timing("ws_handshake_duration_seconds");
        let messages = families.labels("ws_messages_total", each(Direction::ALL));
        let bytes = families.labels("ws_bytes_total", each(Direction::ALL));
        let moves = families.labels("ws_moves_total", pairs(MoveReason::ALL, MoveResult::ALL));
        let moves_pending = families.gauge("ws_moves_pending");
        let move_pause = families.timing("ws_move_pause_seconds");
        let redelivered = families.counter("ws_redelivered_messages_total");
        let members =
            families.gauges("ws_members", [NodeState::Ready, NodeState::Draining].map(NodeState::as_str));
        let members_age = families.register("ws_members_age_seconds", gauge::Gauge::default());
        let suspects = families.gauge("ws_suspect_nodes");
        let failures = families.labels("ws_upstream_failures_total", each(UpstreamFailure::ALL));
        let accept_errors = families.counter("ws_accept_errors_total");
        let registry = families.registry;
        let members_seen = watch::Sender::new(None);
        Self {
            shared: Arc::new(Shared {
                registry,
                connections,
                opened,
                closed,
                refused,
                handshake,
                messages,
                bytes,
                moves,
                moves_pending,
                move_pause,
                redelivered,
                members,
                members_age,
                members_seen,
                suspects,
                failures,
                accept_errors,
            }),
        }
    }

    /// Clients' connections that are held.
    #[must_use]
    pub fn connections(&self) -> &Gauge {
        &self.shared.connections
    }

    /// Clients' connections that were opened: those answered 101.
    #[must_use]
    pub fn opened(&self) -> &Counter {
        &self.shared.opened
    }

    /// Clients' connections that ended with that close code; 1006 stands for those without a Close.
    ///
    /// An app's own codes count as `3xxx` or `4xxx`, so that no app can make metrics without bound.
    #[must_use]
    pub fn closed(&self, code: u16) -> Counter {
        let label = match code {
            1000..=1015 => Cow::Owned(code.to_string()),
            3000..=3999 => "3xxx".into(),
            4000..=4999 => "4xxx".into(),
            _ => "other".into(),
        };
        self.shared.closed.get([label])
    }

    /// Handshakes that this process itself refused with that status.
    #[must_use]
    pub fn refused(&self, status: u16) -> Counter {
        self.shared.refused.get([status.to_string().into()])
    }

    /// From the accepted connection to the 101.
    #[must_use]
    pub fn handshake(&self) -> &Timing {
        &self.shared.handshake
    }

    /// Messages that were relayed.
    #[must_use]
    pub fn messages(&self, direction: Direction) -> &Counter {
        &self.shared.messages[direction as usize]
    }

    /// Bytes of frames that were relayed, headers included.
    #[must_use]
    pub fn bytes(&self, direction: Direction) -> &Counter {
        &self.shared.bytes[direction as usize]
    }

    /// Moves that came to an end.
    #[must_use]
    pub fn moves(&self, reason: MoveReason, result: MoveResult) -> &Counter {
        &self.shared.moves[reason as usize * MoveResult::ALL.len() + result as usize]
    }

    /// Connections that are not at their owner yet.
    #[must_use]
    pub fn moves_pending(&self) -> &Gauge {
        &self.shared.moves_pending
    }

    /// How long a move kept the client's messages waiting.
    #[must_use]
    pub fn move_pause(&self) -> &Timing {
        &self.shared.move_pause
    }

    /// Client messages that were delivered again.
    #[must_use]
    pub fn redelivered(&self) -> &Counter {
        &self.shared.redelivered
    }

    /// Nodes that are avoided.
    #[must_use]
    pub fn suspects(&self) -> &Gauge {
        &self.shared.suspects
    }

    /// What went wrong with a node.
    #[must_use]
    pub fn failures(&self, kind: UpstreamFailure) -> &Counter {
        &self.shared.failures[kind as usize]
    }

    /// Connections that could not be accepted.
    #[must_use]
    pub fn accept_errors(&self) -> &Counter {
        &self.shared.accept_errors
    }

    /// Takes note of what the source of members has just said, be it news or not: their age counts from here.
    pub fn saw_members(&self, members: &Members) {
        for (state, gauge) in [NodeState::Ready, NodeState::Draining].iter().zip(&self.shared.members) {
            let count = members.nodes().iter().filter(|node| node.state == *state).count();
            gauge.set(count);
        }
        self.shared.members_seen.send_replace(Some(Instant::now()));
    }

    /// Everything as text.
    #[must_use]
    pub fn encode(&self, format: Format) -> String {
        let seen = *self.shared.members_seen.borrow();
        self.shared.members_age.set(seen.map_or(0.0, |seen| seen.elapsed().as_secs_f64()));
        let mut page = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut page, &self.shared.registry);
        match format {
            Format::OpenMetrics => page,
            Format::Text => page.lines().filter_map(plain).collect(),
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// A line of OpenMetrics as the older format has it: there a counter's own lines carry its full name.
fn plain(line: &str) -> Option<Cow<'_, str>> {
    let Some(comment) = line.strip_prefix("# ") else { return Some(format!("{line}\n").into()) };
    let (keyword, rest) = comment.split_once(' ')?;
    let (name, rest) = rest.split_once(' ')?;
    let counter = |family: &&Family| family.name.strip_suffix("_total") == Some(name);
    let suffix = if FAMILIES.iter().any(|family| counter(&family)) { "_total" } else { "" };
    matches!(keyword, "HELP" | "TYPE").then(|| format!("# {keyword} {name}{suffix} {rest}\n").into())
}

/// How metrics are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, version 0.0.4.
    #[default]
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What a scraper asks for in its `Accept` header.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }

    /// The content type of the answer.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
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

    /// How many there are.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.get()
    }
}

/// The distribution of a duration.
#[derive(Clone, Debug)]
pub struct Timing(histogram::Histogram);

impl Timing {
    /// Counts a duration. Takes a short lock.
    pub fn observe(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }
}

/// Seconds: from a loopback's handshake to the longest time that anything waits by default.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Declares the values of a label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$value_doc])* $value,)* }

        impl $name {
            const ALL: &[Self] = &[$(Self::$value,)*];

            /// The label's value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)* }
            }
        }

        impl From<$name> for Cow<'static, str> {
            fn from(value: $name) -> Self {
                value.as_str().into()
            }
        }
    };
}

label! {
    /// Which way a message goes.
    Direction {
        /// From the client to the app.
        ToApp = "to_app",
        /// From the app to the client.
        ToClient = "to_client",
    }
}

label! {
    /// Why a connection moves.
    MoveReason {
        /// A node joined, or its weight changed: the key has another owner.
        Joined = "joined",
        /// Its node drains.
        Draining = "draining",
        /// Its node left the members.
        Removed = "removed",
        /// Its node was found unreachable, or is trusted again.
        Suspect = "suspect",
        /// Its leg was lost.
        Lost = "lost",
    }
}

label! {
    /// How a move ended.
    MoveResult {
        /// The connection is at the other node.
        Moved = "moved",
        /// It stays where it was, and is tried again.
        Postponed = "postponed",
        /// The client was closed.
        Closed = "closed",
    }
}

label! {
    /// What goes wrong with a node.
    UpstreamFailure {
        /// It refused the TCP connection.
        Refused = "refused",
        /// The TCP connection was not there in time.
        DialTimeout = "dial_timeout",
        /// Its answer to the handshake did not come in time.
        HandshakeTimeout = "handshake_timeout",
        /// Its sidecar refused the leg.
        Declined = "declined",
        /// It answered the handshake with nonsense.
        Invalid = "invalid",
        /// A leg ended without a Close.
        Reset = "reset",
        /// A leg answered no ping.
        PingTimeout = "ping_timeout",
        /// It answered no probe.
        Probe = "probe",
    }
}

/// The close codes that have zeros from the start.
const CLOSE_CODES: [&str; 14] = [
    "1000", "1001", "1002", "1003", "1005", "1006", "1007", "1008", "1009", "1011", "1012", "1013", "1014",
    "4xxx",
];

/// The statuses that have zeros from the start.
const STATUSES: [&str; 8] = ["400", "401", "403", "408", "426", "431", "502", "503"];

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
    family("ws_handshake_duration_seconds", "histogram", &[], "Time from the accepted connection to the 101"),
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

/// The families that are being registered.
#[derive(Default)]
struct Families {
    registry: Registry,
}

impl Families {
    /// Registers a family of the table under its name, and returns a handle to it.
    fn register<M: Metric + Clone>(&mut self, name: &'static str, metric: M) -> M {
        let help = FAMILIES.iter().find(|family| family.name == name).map_or("", |family| family.help);
        match name.strip_suffix("_seconds") {
            Some(stem) => self.registry.register_with_unit(stem, help, Unit::Seconds, metric.clone()),
            // The encoder puts a counter's suffix back.
            None => self.registry.register(name.strip_suffix("_total").unwrap_or(name), help, metric.clone()),
        }
        metric
    }

    fn info(&mut self, name: &'static str, version: &'static str) {
        let family: family::Family<[(&str, &str); 1], gauge::Gauge> =
            self.register(name, family::Family::default());
        family.get_or_create(&[("version", version)]).set(1);
    }

    fn counter(&mut self, name: &'static str) -> Counter {
        Counter(self.register(name, counter::Counter::default()))
    }

    fn gauge(&mut self, name: &'static str) -> Gauge {
        Gauge(self.register(name, gauge::Gauge::default()))
    }

    fn timing(&mut self, name: &'static str) -> Timing {
        Timing(self.register(name, histogram::Histogram::new(BUCKETS)))
    }

    fn gauges<const N: usize>(&mut self, name: &'static str, values: [&'static str; N]) -> Vec<Gauge> {
        let family: family::Family<[(&str, &str); 1], gauge::Gauge> =
            self.register(name, family::Family::default());
        let key = label_names::<1>(name)[0];
        values.iter().map(|value| Gauge(family.get_or_create_owned(&[(key, *value)]))).collect()
    }

    /// A family whose label values come as they come; those given start at zero.
    fn labelled<const N: usize>(
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
    fn labels<const N: usize>(
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
    let labels = FAMILIES.iter().find(|family| family.name == name).map_or(&[][..], |family| family.labels);
    std::array::from_fn(|at| labels[at])
}

type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];

/// Counters that are told apart by `N` labels.
struct Labelled<const N: usize> {
    family: family::Family<Labels<N>, counter::Counter>,
    names: [&'static str; N],
}

impl<const N: usize> Labelled<N> {
    fn get(&self, values: [Cow<'static, str>; N]) -> Counter {
        let mut values = values.into_iter();
        let labels = self.names.map(|name| (name, values.next().unwrap_or_default()));
        Counter(self.family.get_or_create_owned(&labels))
    }
}

fn each<T: Copy + Into<Cow<'static, str>>>(values: &[T]) -> impl Iterator<Item = [Cow<'static, str>; 1]> {
    values.iter().map(|value| [(*value).into()])
}

fn pairs<T, U>(first: &[T], second: &[U]) -> impl Iterator<Item = [Cow<'static, str>; 2]>
where
    T: Copy + Into<Cow<'static, str>>,
    U: Copy + Into<Cow<'static, str>>,
{
    first.iter().flat_map(move |a| second.iter().map(move |b| [(*a).into(), (*b).into()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Node;

    #[test]
    fn every_family_is_there_from_the_start() {
        let page = Metrics::new("1.2.3").encode(Format::Text);
        for Family { name, kind, help, .. } in FAMILIES {
            assert!(page.contains(&format!("# HELP {name} {help}.\n")), "{name} has no HELP in\n{page}");
            assert!(page.contains(&format!("# TYPE {name} {kind}\n")), "{name} has no TYPE in\n{page}");
        }
        assert_eq!(page.matches("# TYPE ").count(), FAMILIES.len());
        for series in [
            "ws_build_info{version=\"1.2.3\"} 1\n",
            "ws_connections_opened_total 0\n",
            "ws_connections_closed_total{code=\"1012\"} 0\n",
            "ws_moves_total{reason=\"lost\",result=\"closed\"} 0\n",
            "ws_move_pause_seconds_count 0\n",
            "ws_members{state=\"draining\"} 0\n",
        ] {
            assert!(page.contains(series), "no {series} in\n{page}");
        }
        assert!(!page.contains("EOF") && !page.contains("UNIT"));
    }

    #[test]
    fn openmetrics_is_told_apart() {
        let page = Metrics::new("1")
            .encode(Format::accepted("application/openmetrics-text;version=1.0.0,*/*;q=0.1"));
        assert!(page.contains("# TYPE ws_connections_opened counter\n") && page.ends_with("# EOF\n"));
        assert_eq!(Format::accepted("*/*"), Format::Text);
    }

    #[test]
    fn handles_reach_their_series() {
        let metrics = Metrics::new("1");
        metrics.moves(MoveReason::Draining, MoveResult::Postponed).inc();
        metrics.messages(Direction::ToClient).inc_by(3);
        metrics.failures(UpstreamFailure::Probe).inc();
        metrics.closed(4321).inc();
        metrics.refused(503).inc();
        metrics.handshake().observe(Duration::from_millis(3));
        let page = metrics.encode(Format::Text);
        for series in [
            "ws_moves_total{reason=\"draining\",result=\"postponed\"} 1\n",
            "ws_messages_total{direction=\"to_client\"} 3\n",
            "ws_upstream_failures_total{kind=\"probe\"} 1\n",
            "ws_connections_closed_total{code=\"4xxx\"} 1\n",
            "ws_handshakes_refused_total{status=\"503\"} 1\n",
            "ws_handshake_duration_seconds_bucket{le=\"0.005\"} 1\n",
        ] {
            assert!(page.contains(series), "no {series} in\n{page}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_age_of_members_counts_from_their_last_sight() {
        let metrics = Metrics::new("1");
        metrics.saw_members(&Members::new([Node::new("10.0.0.1:7400".parse().unwrap())], 0));
        tokio::time::advance(Duration::from_millis(1500)).await;
        let page = metrics.encode(Format::Text);
        assert!(page.contains("ws_members{state=\"ready\"} 1\n"), "{page}");
        assert!(page.contains("ws_members_age_seconds 1.5\n"), "{page}");
    }
}
