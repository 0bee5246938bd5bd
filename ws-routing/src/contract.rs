//! Names that two processes share. Changing one breaks every deployment that runs two versions at once.

/// The routing key of a leg, percent-encoded. The app sees it.
pub const KEY: &str = "ws-routing-key";
/// The id of the client's connection, the same over moves. The app sees it.
pub const CONNECTION: &str = "ws-routing-connection";
/// The number of client messages before the first that this leg carries. The app sees it.
pub const SEQUENCE: &str = "ws-routing-sequence";
/// HMAC-SHA256 by the peer token over key, node and minute. The app never sees it.
pub const PROOF: &str = "ws-routing-proof";
/// Marks our own pings and the move's Close on this leg. The app never sees it.
pub const NONCE: &str = "ws-routing-nonce";
/// The node that a moved connection left. The app sees it.
pub const MOVED_FROM: &str = "ws-routing-moved-from";
/// The fingerprint of the view that a move follows. The app sees it.
pub const VIEW: &str = "ws-routing-view";
/// The first n messages of this leg may be repeats. The app sees it.
pub const REDELIVERED: &str = "ws-routing-redelivered";
/// In an answer: the sidecar's own refusal, not the app's, and why.
pub const ERROR: &str = "ws-routing-error";
/// In a sidecar's answer to a probe, and in its 101: `ready` or `draining`. Absent: a plain node.
pub const STATE: &str = "ws-routing-state";

/// How the reason of a move's Close begins; the new node's id follows.
pub const MOVED_TO: &str = "moved to ";
/// Between peers: the ids of connections that a send has reached already, comma-separated.
pub const SERVED: &str = "ws-routing-served";
/// Between peers: the nodes that a send has asked already, comma-separated.
pub const ASKED: &str = "ws-routing-asked";
/// Between peers: how much of a send's time is left, in milliseconds.
pub const LEFT: &str = "ws-routing-left";

/// Between peers: where many sends go in one request, and each is answered by a line with its number, the first being 0, as
/// soon as that is known.
pub const LINES: &str = "/v1/messages?order=any";

/// Between sidecars through NATS: the connection whose old node ends here, and whose new node begins.
pub const NATS_MOVED: &str = "ws-routing-moved";
/// In an application's answer through NATS: what the status of an HTTP answer is. Absent: 200.
pub const NATS_STATUS: &str = "ws-status";

/// Whether a header belongs to us, in either spelling that a server may read as ours: clients cannot send these.
#[must_use]
pub fn is_ours(header: &str) -> bool {
    let prefix = header.as_bytes().get(..11);
    prefix.is_some_and(|p| {
        p[..2].eq_ignore_ascii_case(b"ws")
            && matches!(p[2], b'-' | b'_')
            && p[3..10].eq_ignore_ascii_case(b"routing")
            && matches!(p[10], b'-' | b'_')
    })
}

/// How a leg's nonce is written in its header: 16 hex digits.
#[must_use]
pub fn leg_nonce(nonce: u64) -> String {
    format!("{nonce:016x}")
}

/// Where a node is told to cut a leg: `DELETE` with the connection's id behind it, and the leg's `ws-routing-nonce`.
pub const LEGS: &str = "/v1/legs/";
/// Where a node is asked to share a connection between legs, and the protocol that it is upgraded to.
pub const TRUNK: &str = "/v1/legs";
/// See [`TRUNK`].
pub const TRUNK_PROTOCOL: &str = "ws-routing-legs/1";
/// The path of a probe on a node's own port. Any answer means alive.
pub const PROBE: &str = "/livez";
