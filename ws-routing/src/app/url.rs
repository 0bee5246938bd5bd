//! What `--app` names: a place on the network, and the way in which the application is spoken to there.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};

use super::WebSocketApp;
use crate::proxy::connect::{self, DialError};

/// Where and how the application is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppUrl {
    /// `ws://HOST:PORT[/PREFIX]`: a WebSocket for each client.
    WebSocket(WebSocketApp),
    /// `http://HOST:PORT[/PATH]`: a CloudEvent for each message.
    Http(HttpUrl),
    /// `nats://HOST:PORT/SUBJECT-PREFIX`: the same through a NATS server. Only a build with the feature `nats` has a way there.
    Nats(NatsUrl),
}

impl FromStr for AppUrl {
    type Err = InvalidApp;

    fn from_str(text: &str) -> Result<Self, InvalidApp> {
        match text.split_once("://") {
            Some(("ws", _)) => text.parse().map(Self::WebSocket),
            Some(("http", _)) => text.parse().map(Self::Http),
            Some(("nats", _)) => text.parse().map(Self::Nats),
            _ => Err(InvalidApp(())),
        }
    }
}

impl fmt::Display for AppUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WebSocket(app) => app.fmt(f),
            Self::Http(url) => url.fmt(f),
            Self::Nats(url) => url.fmt(f),
        }
    }
}

/// An address for HTTP requests, as `http://HOST:PORT[/PATH]` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    pub(super) authority: Authority,
    /// At least `/`.
    pub(super) path: String,
}

impl FromStr for HttpUrl {
    type Err = InvalidApp;

    fn from_str(text: &str) -> Result<Self, InvalidApp> {
        let (authority, path) = split(text, "http://")?;
        Ok(Self { authority, path: if path.is_empty() { "/".into() } else { path.into() } })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// Subjects at a NATS server, as `nats://HOST:PORT/SUBJECT-PREFIX` names them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "nats"), allow(dead_code))] // it can be told, and refused
pub struct NatsUrl {
    pub(super) authority: Authority,
    /// Words of letters, digits, `-` and `_`, with points between.
    pub(super) prefix: String,
}

impl NatsUrl {
    /// The longest prefix, in bytes: with a key behind it, a server's limit for a line of its protocol is far away.
    pub const MAX_PREFIX: usize = 256;
}

impl FromStr for NatsUrl {
    type Err = InvalidApp;

    fn from_str(text: &str) -> Result<Self, InvalidApp> {
        let (authority, path) = split(text, "nats://")?;
        let prefix = path.strip_prefix('/').unwrap_or_default();
        let is_word = |word: &str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if prefix.len() > Self::MAX_PREFIX || !prefix.split('.').all(is_word) {
            return Err(InvalidApp(()));
        }
        Ok(Self { authority, prefix: prefix.into() })
    }
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nats://{}/{}", self.authority, self.prefix)
    }
}

/// Takes a URL apart, behind its `scheme`: the authority, and a path without query.
pub(super) fn split<'a>(text: &'a str, scheme: &str) -> Result<(Authority, &'a str), InvalidApp> {
    let rest = text.strip_prefix(scheme).ok_or(InvalidApp(()))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let printable = |b: u8| b.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&b);
    if !path.bytes().all(printable) {
        return Err(InvalidApp(()));
    }
    Ok((authority.parse()?, path))
}

/// A host and a port that can be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority(String);

impl Authority {
    /// Connects to the first of the host's addresses that accepts, within `limit` for all of them.
    pub(super) async fn dial(&self, limit: Duration) -> Result<TcpStream, DialError> {
        if let Ok(addr) = self.0.parse::<SocketAddr>() {
            return connect::dial(addr, limit).await;
        }
        let end = Instant::now() + limit;
        let resolved = timeout_at(end, lookup_host(&self.0)).await;
        let addrs: Vec<SocketAddr> = resolved.map_err(|_| DialError::TimedOut)??.collect();
        let mut failure = DialError::from(std::io::Error::from(std::io::ErrorKind::NotFound));
        for (at, addr) in addrs.iter().enumerate() {
            // One address that swallows packets must leave time for the others.
            let share = (end - Instant::now()) / (addrs.len() - at) as u32;
            match connect::dial(*addr, share).await {
                Ok(io) => return Ok(io),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

impl FromStr for Authority {
    type Err = InvalidApp;

    fn from_str(text: &str) -> Result<Self, InvalidApp> {
        if is_host_and_port(text) { Ok(Self(text.into())) } else { Err(InvalidApp(())) }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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

/// Text that names no application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected ws://HOST:PORT[/PREFIX], http://HOST:PORT[/PATH] or nats://HOST:PORT/SUBJECT-PREFIX, such as \
     ws://127.0.0.1:3001, http://127.0.0.1:3001/events or nats://127.0.0.1:4222/chat"
)]
pub struct InvalidApp(pub(super) ());

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
            ("http://127.0.0.1:3001", "http://127.0.0.1:3001/"),
            ("http://app:80/events/", "http://app:80/events/"),
            ("nats://nats:4222/chat.eu-1", "nats://nats:4222/chat.eu-1"),
        ] {
            assert_eq!(text.parse::<AppUrl>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn an_app_needs_a_scheme_a_host_and_a_port() {
        for text in [
            "",
            "127.0.0.1:3001",
            "https://127.0.0.1:3001",
            "wss://127.0.0.1:3001",
            "ws://127.0.0.1",
            "http://127.0.0.1",
            "ws://:3001",
            "ws://127.0.0.1:0",
            "ws://127.0.0.1:65536",
            "ws://::1:3001",
            "ws://300.0.0.1:3001",
            "ws://u@host:3001",
            "http://u@host:3001",
            "ws://host:3001?x=1",
            "http://host:3001/a?x=1",
            "ws://host:3001/a b",
            "ws://host:3001/#a",
            "nats://host:4222",
            "nats://host:4222/",
            "nats://host:4222/a.",
            "nats://host:4222/a..b",
            "nats://host:4222/a/b",
            "nats://host:4222/a.*",
            "nats://host:4222/>",
        ] {
            assert_eq!(text.parse::<AppUrl>(), Err(InvalidApp(())), "{text}");
        }
    }

    #[tokio::test]
    async fn every_address_of_a_name_is_tried() {
        // `localhost` may have ::1 before 127.0.0.1; only the latter listens.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name: Authority = format!("localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
        name.dial(Duration::from_secs(5)).await.unwrap();
    }
}
