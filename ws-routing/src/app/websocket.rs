//! The application as a WebSocket server: one connection for each client's, bytes both ways.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use tokio::time::timeout;

use super::{App, AppError, Opening};
use crate::proxy::{
    LegStream,
    connect::{self, DialError},
    handshake::{Handshake, LegHeaders},
};

/// A WebSocket server beside this process, as `ws://HOST:PORT[/PREFIX]` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketApp {
    authority: String,
    prefix: String,
    /// The longest TCP connect.
    dial_timeout: Duration,
    /// The longest wait for the answer to the handshake.
    handshake_timeout: Duration,
}

impl WebSocketApp {
    /// Sets how long a connect and the answer to the handshake may take. Defaults: 1 s and 7 s, so that a balancer,
    /// which waits for 8 s, learns from the sidecar what is wrong.
    #[must_use]
    pub fn with_timeouts(self, dial_timeout: Duration, handshake_timeout: Duration) -> Self {
        Self { dial_timeout, handshake_timeout, ..self }
    }

    async fn dial(&self) -> Result<tokio::net::TcpStream, DialError> {
        if let Ok(addr) = self.authority.parse::<SocketAddr>() {
            return connect::dial(addr, self.dial_timeout).await;
        }
        let resolved = timeout(self.dial_timeout, tokio::net::lookup_host(&self.authority)).await;
        let mut addrs = resolved.map_err(|_| DialError::TimedOut)??;
        let addr = addrs.next().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?;
        connect::dial(addr, self.dial_timeout).await
    }
}

impl App for WebSocketApp {
    fn open<'a>(&'a self, handshake: &'a Handshake, leg: &'a LegHeaders) -> Opening<'a> {
        Box::pin(async move {
            let io = LegStream::Tcp(self.dial().await?);
            let head = handshake.to_app(leg, &self.prefix);
            connect::open(io, &head, handshake, self.handshake_timeout).await.map_err(AppError::from)
        })
    }
}

impl FromStr for WebSocketApp {
    type Err = InvalidApp;

    fn from_str(text: &str) -> Result<Self, InvalidApp> {
        let rest = text.strip_prefix("ws://").ok_or(InvalidApp(()))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let prefix = path.trim_end_matches('/');
        let printable =
            |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&b));
        if !is_host_and_port(authority) || !printable(prefix) {
            return Err(InvalidApp(()));
        }
        Ok(Self {
            authority: authority.into(),
            prefix: prefix.into(),
            dial_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(7),
        })
    }
}

/// An IP address (IPv6 in brackets) or a name, and a port that can be dialled.
fn is_host_and_port(text: &str) -> bool {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return addr.port() != 0;
    }
    let is_name = |name: &str| {
        (1..=253).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
            && name.bytes().any(|b| b.is_ascii_alphabetic())
    };
    text.rsplit_once(':')
        .is_some_and(|(name, port)| is_name(name) && port.parse().is_ok_and(|port: u16| port != 0))
}

impl fmt::Display for WebSocketApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ws://{}{}", self.authority, self.prefix)
    }
}

/// Text that names no application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected ws://HOST:PORT[/PREFIX], such as ws://127.0.0.1:3001")]
pub struct InvalidApp(());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_shown_as_it_is_used() {
        for (text, shown) in [
            ("ws://127.0.0.1:3001", "ws://127.0.0.1:3001"),
            ("ws://127.0.0.1:3001/", "ws://127.0.0.1:3001"),
            ("ws://localhost:3001/chat", "ws://localhost:3001/chat"),
            ("ws://[::1]:3001/a/b/", "ws://[::1]:3001/a/b"),
        ] {
            assert_eq!(text.parse::<WebSocketApp>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn an_app_needs_a_scheme_a_host_and_a_port() {
        for text in [
            "",
            "127.0.0.1:3001",
            "http://127.0.0.1:3001",
            "wss://127.0.0.1:3001",
            "ws://127.0.0.1",
            "ws://:3001",
            "ws://127.0.0.1:0",
            "ws://127.0.0.1:65536",
            "ws://::1:3001",
            "ws://300.0.0.1:3001",
            "ws://u@host:3001",
            "ws://host:3001?x=1",
            "ws://host:3001/a?x=1",
            "ws://host:3001/a b",
            "ws://host:3001/#a",
        ] {
            assert_eq!(text.parse::<WebSocketApp>(), Err(InvalidApp(())), "{text}");
        }
    }
}
