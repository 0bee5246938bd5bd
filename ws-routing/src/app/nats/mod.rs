//! The application behind a NATS server: an event for each message, as a request that the application answers, and
//! messages for clients by subject, from wherever they come.
//!
//! Reading order: `link` (the server, and whether it is there), `events` (what is asked, and what an answer means),
//! `conversation` (one client's events in order), `gate` and `down` (what is pushed to a client).

mod conversation;
mod down;
mod events;
mod gate;
mod link;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;

use self::{
    conversation::Conversation,
    down::Pushes,
    events::{Answer, Subjects},
    gate::Gate,
    link::Link,
};
use super::{
    App, AppError, AppLeg, Elsewhere, FarEnd, NatsUrl, Opening, UNSURE,
    answer::{refused, switching_protocols},
    row::Row,
};
use crate::{
    metrics::{AppRequest, SidecarMetrics},
    node::NodeId,
    proxy::{
        LegStream,
        connect::{DialError, OpenError, Opened, Upgraded},
        handshake::{Handshake, LegHeaders, Nonsense},
        relay::{BUFFER, Nonce},
    },
};

/// An application that is told of each client's events through a NATS server, and pushes messages to clients through it.
///
/// All clients share one connection to the server, which is made again when it is lost. Each client costs a subscription
/// and holds up to `max_message` bytes of what is pushed to it, and one message more.
#[derive(Clone)]
pub struct NatsApp {
    shared: Arc<Shared>,
}

/// What all connections share.
struct Shared {
    url: NatsUrl,
    node: NodeId,
    settings: NatsSettings,
    link: Link,
    metrics: SidecarMetrics,
}

/// What requests to the application may cost.
#[derive(Clone, Debug)]
pub struct NatsSettings {
    /// How long a new connection waits for the server when it is away. Default 1 s.
    pub dial_timeout: Duration,
    /// The longest wait for the answer to a connect event. Default 7 s, so that a balancer, which waits for 8 s, learns
    /// from the sidecar what is wrong.
    pub connect_timeout: Duration,
    /// The longest wait for the answer to one message. Default 30 s.
    pub request_timeout: Duration,
    /// How long one message is tried again before its client is closed 1011, and how long the server may be away before
    /// every connection counts as lost. Default 30 s.
    pub retry: Duration,
    /// The longest message either way, in bytes. Default 1 MiB.
    pub max_message: usize,
}

impl Default for NatsSettings {
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

impl NatsApp {
    /// The application behind `url`, told of events at `node`. Does not wait for the server.
    ///
    /// # Errors
    ///
    /// [`NatsError`] when the client cannot be made of what was configured.
    pub async fn new(
        url: NatsUrl,
        node: NodeId,
        settings: NatsSettings,
        metrics: SidecarMetrics,
    ) -> Result<Self, NatsError> {
        let link = Link::new(&url, &node, settings.dial_timeout).await.map_err(NatsError)?;
        Ok(Self { shared: Arc::new(Shared { url, node, settings, link, metrics }) })
    }

    async fn connect(&self, handshake: &Handshake, leg: &LegHeaders) -> Result<AppLeg, AppError> {
        let shared = &self.shared;
        if timeout(shared.settings.dial_timeout, shared.link.is_there()).await.is_err() {
            shared.count(AppRequest::Connect, None);
            return Err(DialError::TimedOut.into());
        }
        let subjects = Subjects::new(&shared.url.prefix, &shared.node, leg);
        // What is pushed as soon as the application has said yes must find its way.
        let pushes = shared.link.subscribe(subjects.out()).await.ok_or(DialError::TimedOut)?;
        let asked = shared.link.ask(subjects.connect(handshake, leg), shared.settings.connect_timeout).await;
        let answer = asked.map(Answer::from);
        shared.count(AppRequest::Connect, answer.as_ref().ok().map(|answer| answer.status));
        let answer = answer?;
        match answer.status {
            200..=299 => self.accepted(&answer, subjects, pushes, handshake, leg),
            300..=599 => {
                let answered = refused(answer.status, &answer.headers, &answer.payload)?;
                Ok(AppLeg { opened: Opened::Answered(answered), far: None })
            }
            _ => Err(OpenError::from(Nonsense("a status that is no answer")).into()),
        }
    }

    fn accepted(
        &self,
        answer: &Answer,
        subjects: Subjects,
        pushes: async_nats::Subscriber,
        handshake: &Handshake,
        leg: &LegHeaders,
    ) -> Result<AppLeg, AppError> {
        let head = switching_protocols(handshake, &answer.headers)?;
        let answer = handshake.accepted(head).map_err(OpenError::from)?;
        let (near, far) = tokio::io::duplex(BUFFER);
        let (mark, elsewhere) = (rand::random(), Elsewhere::default());
        let row = Row::new(leg, Nonce(mark), elsewhere.clone());
        let gate = if leg.moved_from.is_some() { Gate::shut() } else { Gate::open() };
        let pushes = Pushes::new(pushes, gate, subjects.connection(), self.shared.settings.max_message);
        let shared = Arc::clone(&self.shared);
        let conversation = Conversation::new(shared, subjects, far, row);
        let upgraded = Upgraded { io: LegStream::Local(near), leftover: Bytes::new(), answer };
        let settings = &self.shared.settings;
        let linger = settings.retry + settings.request_timeout + UNSURE;
        let run = Box::pin(conversation.run(pushes));
        let far = FarEnd { run, linger, mark, pinged: false, elsewhere };
        Ok(AppLeg { opened: Opened::Upgraded(upgraded), far: Some(far) })
    }
}

impl App for NatsApp {
    fn open<'a>(&'a self, handshake: &'a Handshake, leg: &'a LegHeaders) -> Opening<'a> {
        Box::pin(self.connect(handshake, leg))
    }
}

impl Shared {
    fn count(&self, kind: AppRequest, status: Option<u16>) {
        self.metrics.app_requests(kind, status).inc();
    }
}

impl fmt::Debug for NatsApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsApp").field("url", &self.shared.url).finish_non_exhaustive()
    }
}

/// A NATS client that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("no NATS client for this address")]
pub struct NatsError(#[source] async_nats::ConnectError);
