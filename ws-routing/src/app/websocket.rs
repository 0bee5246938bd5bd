//! The application as a WebSocket server: one connection for each client's, bytes both ways.

use std::{fmt, str::FromStr, time::Duration};

use super::{
    App, AppLeg, InvalidApp, Opening,
    url::{Authority, split},
};
use crate::proxy::{
    LegStream, connect,
    handshake::{Handshake, LegHeaders},
};

/// A WebSocket server beside this process, as `ws://HOST:PORT[/PREFIX]` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketApp {
    authority: Authority,
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
}

impl App for WebSocketApp {
    fn open<'a>(&'a self, handshake: &'a Handshake, leg: &'a LegHeaders) -> Opening<'a> {
        Box::pin(async move {
            let io = LegStream::Tcp(self.authority.dial(self.dial_timeout).await?);
            let head = handshake.to_app(leg, &self.prefix);
            let opened = connect::open(io, &head, handshake, self.handshake_timeout).await?;
            Ok(AppLeg { opened, far: None })
        })
    }
}

impl FromStr for WebSocketApp {
    type Err = InvalidApp;

    fn from_str(text: &str) -> Result<Self, InvalidApp> {
        let (authority, path) = split(text, "ws://")?;
        Ok(Self {
            authority,
            prefix: path.trim_end_matches('/').into(),
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
