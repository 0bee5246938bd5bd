//! Clients that come by TLS.

use std::net::SocketAddr;

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{Arrival, Proxy, Via, handshake::head::Limits, http2};
use crate::{
    metrics::TlsResult,
    tls::{Serving, TlsStream},
};

impl Proxy {
    /// Serves one TCP connection behind TLS, from its first byte to its last: a client that speaks HTTP/1.1, or up to 256
    /// as streams of HTTP/2 (RFC 8441), as it was agreed.
    ///
    /// The handshakes of TLS and of the first WebSocket have one time between them, that of [`Limits::timeout`].
    pub async fn serve_tls(&self, io: TcpStream, peer: SocketAddr, tls: &Serving) {
        let limits = self.limits();
        let until = Instant::now() + limits.timeout;
        // What is needed only for a while, or by few, does not stay with every client.
        let Some(io) = Box::pin(self.secure(io, peer, tls, until)).await else { return };
        if io.is_http2() {
            Box::pin(http2::serve(self, io, peer, until)).await;
        } else {
            let timeout = until.saturating_duration_since(Instant::now());
            self.serve_http1(io, Arrival { peer, via: Via::Tls }, Limits { timeout, ..limits }).await;
        }
    }

    async fn secure(
        &self,
        io: TcpStream,
        peer: SocketAddr,
        tls: &Serving,
        until: Instant,
    ) -> Option<TlsStream> {
        let (result, io) = match timeout_at(until, tls.accept(io)).await {
            Ok(Ok(io)) if io.is_http2() => (TlsResult::Http2, Some(io)),
            Ok(Ok(io)) => (TlsResult::Http1, Some(io)),
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "no TLS with a client");
                (TlsResult::Failed, None)
            }
            Err(_) => {
                tracing::debug!(%peer, "a client did not finish its TLS handshake in time");
                (TlsResult::TimedOut, None)
            }
        };
        self.metrics().tls_handshakes(result).inc();
        io
    }
}
