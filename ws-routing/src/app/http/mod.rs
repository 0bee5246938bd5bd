//! The application as an HTTP server: CloudEvents 1.0 in binary mode, one POST for each event, one at a time for each
//! connection.
//!
//! Reading order: `request` (what is asked), `exchange` (one request and its answer, and the connections that are kept
//! for it), `conversation` (one client's events in order).

mod conversation;
mod exchange;
mod request;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;

use self::{
    conversation::Conversation,
    exchange::{Pool, Reply},
    request::Requests,
};
use super::{
    App, AppError, AppLeg, Elsewhere, FarEnd, HttpUrl, Opening, UNSURE, answer::switching_protocols, row::Row,
};
use crate::{
    metrics::{AppRequest, SidecarMetrics},
    node::NodeId,
    proxy::{
        LegStream,
        connect::{OpenError, Opened, Upgraded},
        handshake::{Handshake, LegHeaders, Nonsense},
        relay::{BUFFER, Nonce},
    },
};

/// An HTTP server beside this process that is told of each client's events.
///
/// It costs one connection to the application for each request that is open, and at most 64 idle ones.
#[derive(Clone)]
pub struct HttpApp {
    shared: Arc<Shared>,
}

/// What all connections share.
struct Shared {
    url: HttpUrl,
    node: NodeId,
    settings: HttpSettings,
    pool: Pool,
    metrics: SidecarMetrics,
}

/// What requests to the application may cost.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// The longest TCP connect. Default 1 s.
    pub dial_timeout: Duration,
    /// The longest wait for the answer to a connect event. Default 7 s, so that a balancer, which waits for 8 s, learns
    /// from the sidecar what is wrong.
    pub connect_timeout: Duration,
    /// The longest wait for the whole answer to one request. Default 30 s.
    pub request_timeout: Duration,
    /// How long one message is tried again before its client is closed 1011. Default 30 s.
    pub retry: Duration,
    /// The longest message of a client, and the longest answer, in bytes. Default 1 MiB.
    pub max_message: usize,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            dial_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(7),
            request_timeout: Duration::from_secs(10),
            retry: Duration::from_secs(30),
            max_message: 1024 * 1024,
        }
    }
}

impl HttpApp {
    /// The application at `url`, told of events at `node`.
    #[must_use]
    pub fn new(url: HttpUrl, node: NodeId, settings: HttpSettings, metrics: SidecarMetrics) -> Self {
        let pool = Pool::new(url.authority.clone(), settings.dial_timeout);
        Self { shared: Arc::new(Shared { url, node, settings, pool, metrics }) }
    }

    async fn connect(&self, handshake: &Handshake, leg: &LegHeaders) -> Result<AppLeg, AppError> {
        let shared = &self.shared;
        let requests = Requests::new(&shared.url, &shared.node, leg);
        let limit = shared.settings.connect_timeout;
        let asked = timeout(limit, shared.pool.ask(&requests.connect(handshake, leg))).await;
        let reply = asked.map_err(|_| OpenError::TimedOut.into()).flatten();
        shared.count(AppRequest::Connect, reply.as_ref().ok());
        let reply = reply?;
        match reply.status().as_u16() {
            101 => Err(OpenError::from(Nonsense("a 101 that nobody asked for")).into()),
            200..=299 => self.accepted(reply, requests, handshake, leg).await,
            _ => Ok(AppLeg { opened: Opened::Answered(reply.into_answer().map(LegStream::Tcp)), far: None }),
        }
    }

    async fn accepted(
        &self,
        reply: Reply,
        requests: Requests,
        handshake: &Handshake,
        leg: &LegHeaders,
    ) -> Result<AppLeg, AppError> {
        let head = switching_protocols(handshake, &reply.head().parts.headers)?;
        let answer = handshake.accepted(head).map_err(OpenError::from)?;
        // What an application says beside its yes is not for the client.
        self.shared.pool.give_back_soon(reply).await;
        let (near, far) = tokio::io::duplex(BUFFER);
        let (mark, elsewhere) = (rand::random(), Elsewhere::default());
        let row = Row::new(leg, Nonce(mark), elsewhere.clone());
        let conversation = Conversation::new(Arc::clone(&self.shared), requests, far, row);
        let upgraded = Upgraded { io: LegStream::Local(near), leftover: Bytes::new(), answer };
        let settings = &self.shared.settings;
        let linger = settings.retry + settings.request_timeout + UNSURE;
        let far = FarEnd { run: Box::pin(conversation.run()), linger, mark, pinged: false, elsewhere };
        Ok(AppLeg { opened: Opened::Upgraded(upgraded), far: Some(far) })
    }
}

impl App for HttpApp {
    fn open<'a>(&'a self, handshake: &'a Handshake, leg: &'a LegHeaders) -> Opening<'a> {
        Box::pin(self.connect(handshake, leg))
    }
}

impl Shared {
    fn count(&self, kind: AppRequest, reply: Option<&Reply>) {
        self.metrics.app_requests(kind, reply.map(|reply| reply.status().as_u16())).inc();
    }
}

impl fmt::Debug for HttpApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpApp").field("url", &self.shared.url).finish_non_exhaustive()
    }
}

impl fmt::Display for HttpApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.url.fmt(f)
    }
}
