//! The application as a WebSocket server: one connection for each client's, bytes both ways.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use tokio::time::timeout;

use super::{App, AppError, Opening};
use crate::proxy::{
    connect::{self, DialError},
    handshake::{Handshake, LegHeaders},
    leg::LegStream,
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
        let invalid = || InvalidApp(text.into());
        let rest = text.strip_prefix("ws://").ok_or_else(invalid)?;
        let (authority, prefix) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = authority.rsplit_once(':').ok_or_else(invalid)?;
        let is_host = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b);
        let is_path = |b: u8| b.is_ascii_graphic() && !b"?#".contains(&b);
        let valid = !host.is_empty()
            && host.bytes().all(is_host)
            && port.parse::<u16>().is_ok_and(|port| port > 0)
            && prefix.bytes().all(is_path);
        if !valid {
            return Err(invalid());
        }
        Ok(Self {
            authority: authority.into(),
            prefix: prefix.into(),
            dial_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(7),
        })
    }
}

impl fmt::Display for WebSocketApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ws://{}{}", self.authority, self.prefix)
    }
}

/// Text that names no application.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no application: expected ws://HOST:PORT[/PREFIX]")]
pub struct InvalidApp(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_a_host_a_port_and_perhaps_a_prefix() {
        for good in ["ws://127.0.0.1:3001", "ws://localhost:1/", "ws://[::1]:3001/chat/v2"] {
            assert_eq!(good.parse::<WebSocketApp>().unwrap().to_string(), good);
        }
        for bad in
            ["", "ws://", "ws://host", "ws://host:0", "ws://:1", "wss://h:1", "ws://h:1/a?b", "ws://a b:1"]
        {
            assert_eq!(bad.parse::<WebSocketApp>(), Err(InvalidApp(bad.into())));
        }
    }
}
