//! How a client came here.

use std::net::SocketAddr;

use super::handshake::Edge;

/// What a client's WebSocket travels in on its way here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Via {
    /// A TCP connection of its own, in clear.
    Tcp,
    /// A connection of its own, behind TLS.
    Tls,
    /// One stream of an HTTP/2 connection, behind TLS.
    Http2,
}

impl Via {
    /// `tcp`, `tls` or `http2`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Http2 => "http2",
        }
    }
}

/// Where a client comes from, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) peer: SocketAddr,
    pub(crate) via: Via,
}

impl Arrival {
    /// In clear, on a connection of its own.
    pub(crate) const fn tcp(peer: SocketAddr) -> Self {
        Self { peer, via: Via::Tcp }
    }

    /// What is added to its handshake.
    pub(super) fn edge(&self) -> Edge {
        Edge { client: self.peer.ip(), secure: self.via != Via::Tcp, trace: rand::random() }
    }
}
