//! How a connection reaches the application. Each way is one file that gives a stream which speaks WebSocket, as a
//! server does: what follows is the same for all.
//!
//! Reading order: `url` (what `--app` says), `websocket` (the plain way); for ways that speak something else `messages`
//! and `far` (a WebSocket server within this process), `row` (where a client's messages stand), `elsewhere` (what is
//! known of one that is lost), `event` (CloudEvents),
//! `verdict` (what an answer means), `insist` (handing over until it is taken); then those ways, `http` and `nats`.

mod answer;
mod elsewhere;
mod event;
mod far;
mod http;
mod insist;
mod messages;
#[cfg(feature = "nats")]
mod nats;
mod row;
mod url;
mod verdict;
mod websocket;

use std::{
    fmt::{self, Debug},
    future::Future,
    pin::Pin,
    time::Duration,
};

pub use elsewhere::Elsewhere;
pub(crate) use elsewhere::UNSURE;
pub(crate) use far::Far;
pub use http::{HttpApp, HttpSettings};
pub(crate) use messages::{Incoming, Message};
#[cfg(feature = "nats")]
pub use nats::{NatsApp, NatsError, NatsSettings};
pub use url::{AppUrl, HttpUrl, InvalidApp, NatsUrl};
pub use websocket::WebSocketApp;

use crate::proxy::{
    LegStream,
    connect::{DialError, OpenError, Opened},
    handshake::{Handshake, LegHeaders},
};

/// A way to the application.
pub trait App: Debug + Send + Sync {
    /// Opens the application's side of one connection.
    ///
    /// # Errors
    ///
    /// The future gives an [`AppError`] when the application has not answered; that it refuses is an answer.
    fn open<'a>(&'a self, handshake: &'a Handshake, leg: &'a LegHeaders) -> Opening<'a>;
}

/// What [`App::open`] returns.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Result<AppLeg, AppError>> + Send + 'a>>;

/// The application's side of one connection.
#[derive(Debug)]
pub struct AppLeg {
    /// The application's answer, and on a 101 the stream behind it.
    pub opened: Opened<LegStream>,
    /// What serves the stream's other end, where that is within this process.
    ///
    /// Our own pings and Closes reach it with their mark, so that it can tell them from the client's and the balancer's
    /// count from its own.
    pub far: Option<FarEnd>,
}

/// The other end of a stream that stays within this process. It runs in the connection's own task.
pub struct FarEnd {
    /// Completes when all is said to the application.
    pub run: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// How long it may go on when the leg has ended, to hand over what was read before.
    pub linger: Duration,
    /// A random number, by which the sidecar's own words are known: a ping of 17 bytes that begins with it. Its last 8
    /// bytes are 0 when the next message is not the client's, else they count messages of the client that went elsewhere.
    /// All numbers have their most significant byte first. No answer is expected.
    pub mark: u64,
    /// Whether the sidecar's keepalive pings reach something that may be dead.
    pub pinged: bool,
    /// By which `run` is told whether a leg which has ended without a Close was given up, as its connection is elsewhere.
    pub elsewhere: Elsewhere,
}

impl Debug for FarEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FarEnd").field("linger", &self.linger).finish_non_exhaustive()
    }
}

/// Why the application has not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// It cannot be connected to.
    #[error("the application cannot be reached")]
    Dial(#[from] DialError),
    /// It did not answer, or with nonsense.
    #[error("the application did not answer")]
    Open(#[from] OpenError),
}
