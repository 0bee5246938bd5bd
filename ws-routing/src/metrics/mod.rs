//! What a process counts and measures, for Prometheus.
//!
//! All families are there from the start, with zero for every label value that is known beforehand. [`FAMILIES`] is the
//! one source of their names and texts.

mod families;
mod labels;
mod sidecar;
mod timing;

use std::{borrow::Cow, collections::BTreeSet, fmt, sync::Arc, time::Duration};

use prometheus_client::{encoding::text, metrics::gauge, registry::Registry};

use crate::{membership::Members, node::NodeState};
pub use families::{Counter, FAMILIES, Family, Gauge, SIDECAR_FAMILIES};
use families::{Families, Labelled, each, pairs};
pub use labels::{
    Ack, AppRequest, Direction, MoveReason, MoveResult, PeerResult, SendResult, TlsResult, UpstreamFailure,
};
pub use sidecar::SidecarMetrics;
pub use timing::Timing;

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
    tls_handshakes: Vec<Counter>,
    messages: Vec<Counter>,
    bytes: Vec<Counter>,
    moves: Vec<Counter>,
    moves_pending: Gauge,
    move_pause: Timing,
    redelivered: Counter,
    unkept: Counter,
    members: Vec<Gauge>,
    members_age: gauge::Gauge<f64, std::sync::atomic::AtomicU64>,
    suspects: Gauge,
    failures: Vec<Counter>,
    accept_errors: Counter,
}

impl Metrics {
    /// Registers all families of a process of that version.
    #[must_use]
    pub fn new(version: &'static str) -> Self {
        Self::finish(version, Families::default())
    }

    /// As [`new`](Self::new), with what only a sidecar counts.
    #[must_use]
    pub fn for_sidecar(version: &'static str) -> (Self, SidecarMetrics) {
        let mut families = Families::default();
        let sidecar = SidecarMetrics::register(&mut families);
        (Self::finish(version, families), sidecar)
    }

    fn finish(version: &'static str, mut families: Families) -> Self {
        families.info("ws_build_info", version);
        let shared = Shared {
            connections: families.gauge("ws_connections"),
            opened: families.counter("ws_connections_opened_total"),
            closed: families.labelled("ws_connections_closed_total", CLOSE_CODES.map(|code| [code.into()])),
            refused: families.labelled("ws_handshakes_refused_total", STATUSES.map(|status| [status.into()])),
            handshake: families.timing("ws_handshake_duration_seconds"),
            tls_handshakes: families.labels("ws_tls_handshakes_total", each(TlsResult::ALL)),
            messages: families.labels("ws_messages_total", each(Direction::ALL)),
            bytes: families.labels("ws_bytes_total", each(Direction::ALL)),
            moves: families.labels("ws_moves_total", pairs(MoveReason::ALL, MoveResult::ALL)),
            moves_pending: families.gauge("ws_moves_pending"),
            move_pause: families.timing("ws_move_pause_seconds"),
            redelivered: families.counter("ws_redelivered_messages_total"),
            unkept: families.counter("ws_unkept_messages_total"),
            members: families.gauges("ws_members", STATES.map(NodeState::as_str)),
            members_age: families.register("ws_members_age_seconds", gauge::Gauge::default()),
            suspects: families.gauge("ws_suspect_nodes"),
            failures: families.labels("ws_upstream_failures_total", each(UpstreamFailure::ALL)),
            accept_errors: families.counter("ws_accept_errors_total"),
            registry: families.registry,
        };
        Self { shared: Arc::new(shared) }
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

    /// From the client's request to its 101.
    #[must_use]
    pub fn handshake(&self) -> &Timing {
        &self.shared.handshake
    }

    /// TLS handshakes of clients that ended so.
    #[must_use]
    pub fn tls_handshakes(&self, result: TlsResult) -> &Counter {
        &self.shared.tls_handshakes[result as usize]
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

    /// Client messages that were not kept because they are larger than the redelivery buffer.
    #[must_use]
    pub fn unkept(&self) -> &Counter {
        &self.shared.unkept
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

    /// Everything as text, with the members as they are now and the time since their source was last heard.
    #[must_use]
    pub fn encode(&self, format: Format, members: &Members, age: Duration) -> String {
        for (state, gauge) in STATES.iter().zip(&self.shared.members) {
            gauge.set(members.nodes().iter().filter(|node| node.state == *state).count());
        }
        self.shared.members_age.set(age.as_secs_f64());
        let mut page = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut page, &self.shared.registry);
        format.write(page)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// A line of OpenMetrics as the older format has it, if it has it: there a counter's own lines carry its full name.
fn plain(line: &str, counters: &BTreeSet<&str>) -> Option<String> {
    let Some(comment) = line.strip_prefix("# ") else { return Some(format!("{line}\n")) };
    let (keyword, rest) = comment.split_once(' ')?;
    let (name, rest) = rest.split_once(' ')?;
    let suffix = if counters.contains(name) { "_total" } else { "" };
    matches!(keyword, "HELP" | "TYPE").then(|| format!("# {keyword} {name}{suffix} {rest}\n"))
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

    /// A page of OpenMetrics, as `prometheus-client` writes it, in this format.
    #[must_use]
    pub fn write(self, page: String) -> String {
        if self == Self::OpenMetrics {
            return page;
        }
        let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let counters: BTreeSet<&str> = types.filter_map(|line| line.strip_suffix(" counter")).collect();
        page.lines().filter_map(|line| plain(line, &counters)).collect()
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

/// The states that members are counted by.
const STATES: [NodeState; 2] = [NodeState::Ready, NodeState::Draining];

/// The close codes that have zeros from the start.
const CLOSE_CODES: [&str; 14] = [
    "1000", "1001", "1002", "1003", "1005", "1006", "1007", "1008", "1009", "1011", "1012", "1013", "1014",
    "4xxx",
];

/// The statuses that have zeros from the start.
const STATUSES: [&str; 8] = ["400", "401", "403", "408", "426", "431", "502", "503"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Node;

    #[test]
    fn every_family_is_there_from_the_start() {
        let page = Metrics::new("1.2.3").encode(Format::Text, &Members::default(), Duration::ZERO);
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
            "ws_move_pause_seconds_bucket{le=\"+Inf\"} 0\n",
            "ws_members{state=\"draining\"} 0\n",
        ] {
            assert!(page.contains(series), "no {series} in\n{page}");
        }
        assert!(!page.contains("EOF") && !page.contains("UNIT"));
    }

    #[test]
    fn a_sidecar_has_its_own_besides() {
        let (metrics, sidecar) = Metrics::for_sidecar("1");
        sidecar.sends(Ack::Received, SendResult::Moving).inc();
        sidecar.app_requests(AppRequest::Message, None).inc();
        sidecar.peer_requests(PeerResult::Unreachable).inc();
        sidecar.send_duration().observe(Duration::from_millis(1));
        let page = metrics.encode(Format::Text, &Members::default(), Duration::ZERO);
        for Family { name, kind, help, .. } in FAMILIES.iter().chain(SIDECAR_FAMILIES) {
            assert!(
                page.contains(&format!("# HELP {name} {help}.\n# TYPE {name} {kind}\n")),
                "no {name} in\n{page}"
            );
        }
        for series in [
            "ws_sends_total{ack=\"received\",result=\"moving\"} 1\n",
            "ws_app_requests_total{type=\"message\",status=\"none\"} 1\n",
            "ws_peer_requests_total{result=\"unreachable\"} 1\n",
            "ws_send_duration_seconds_count 1\n",
        ] {
            assert!(page.contains(series), "no {series} in\n{page}");
        }
    }

    #[test]
    fn openmetrics_is_told_apart() {
        let format = Format::accepted("application/openmetrics-text;version=1.0.0,*/*;q=0.1");
        let page = Metrics::new("1").encode(format, &Members::default(), Duration::ZERO);
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
        let page = metrics.encode(Format::Text, &Members::default(), Duration::ZERO);
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

    #[test]
    fn members_are_told_as_they_are() {
        let members = Members::new([Node::new("10.0.0.1:7400".parse().unwrap())], 0);
        let page = Metrics::new("1").encode(Format::Text, &members, Duration::from_millis(1500));
        assert!(page.contains("ws_members{state=\"ready\"} 1\n"), "{page}");
        assert!(page.contains("ws_members_age_seconds 1.5\n"), "{page}");
    }
}
