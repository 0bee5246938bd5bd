//! One client's events, one after the other.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::DuplexStream,
    time::{Instant, sleep, timeout},
};

use super::{
    Shared,
    event::Events,
    verdict::{Verdict, judge},
};
use crate::{
    app::{
        far::Far,
        messages::{Incoming, Message},
    },
    frame::{Control, Opcode},
    metrics::AppRequest,
    proxy::{
        error::CloseReason,
        handshake::LegHeaders,
        relay::{Nonce, Ping, PingKind},
    },
};

/// One connection, from the application's yes to its last event.
pub(super) struct Conversation {
    app: Arc<Shared>,
    events: Events,
    far: Far<DuplexStream>,
    /// By which the balancer's own frames are known.
    nonce: Option<Nonce>,
    /// By which the sidecar's own are.
    mark: Nonce,
    /// The next message is not the client's.
    marked: bool,
    /// How many client messages came before the next.
    sequence: u64,
    /// How many of the next messages may be repeats.
    redelivered: u64,
}

/// How a conversation ends.
enum End {
    /// The client is served by another node now.
    Moved,
    /// The leg was cut.
    Lost,
    /// The client, or whoever relays it, has closed.
    Closed { code: u16, reason: String },
    /// We close.
    Close { code: u16, reason: String },
}

impl From<CloseReason> for End {
    fn from(reason: CloseReason) -> Self {
        Self::Close { code: reason.code(), reason: reason.reason() }
    }
}

impl Conversation {
    pub(super) fn new(
        app: Arc<Shared>,
        events: Events,
        io: DuplexStream,
        leg: &LegHeaders,
        mark: Nonce,
    ) -> Self {
        let far = Far::new(io, app.settings.max_message);
        let (nonce, sequence, redelivered) = (Nonce::of(leg), leg.sequence, leg.redelivered);
        Self { app, events, far, nonce, mark, marked: false, sequence, redelivered }
    }

    /// Serves the client until it is gone and the application knows.
    pub(super) async fn run(mut self) {
        let end = self.serve().await;
        let (code, reason) = match end {
            End::Moved => return self.far.close(1001, "").await,
            End::Lost => (1006, "connection lost".into()),
            End::Closed { code, reason } => {
                self.far.close(code, "").await;
                (code, reason)
            }
            End::Close { code, reason } => {
                self.far.close(code, &reason).await;
                (code, reason)
            }
        };
        tokio::join!(self.app.disconnect(&self.events, self.sequence + 1, code, &reason), self.far.drain());
    }

    async fn serve(&mut self) -> End {
        loop {
            let end = match self.far.next().await {
                Ok(Some(Incoming::Message(message))) => self.message(&message).await,
                Ok(Some(Incoming::Control(control))) => self.control(&control).await,
                Ok(None) => Some(End::Lost),
                Err(fault) => Some(CloseReason::from(fault).into()),
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    async fn message(&mut self, message: &Message) -> Option<End> {
        let request = self.request(message);
        match self.app.hand_over(&request).await {
            Verdict::Reply(message) => {
                self.far.send(&message).await;
                None
            }
            Verdict::Handled | Verdict::Dropped => None,
            Verdict::Again => Some(CloseReason::AppFailed.into()),
            Verdict::Gone => Some(End::Close { code: 1000, reason: String::new() }),
            Verdict::Nonsense(what) => {
                tracing::warn!(what, "the app answers nonsense");
                Some(CloseReason::AppNonsense.into())
            }
        }
    }

    fn request(&mut self, message: &Message) -> Vec<u8> {
        if std::mem::take(&mut self.marked) {
            return self.events.foreign_message(message);
        }
        self.sequence += 1;
        let redelivered = self.redelivered > 0;
        self.redelivered = self.redelivered.saturating_sub(1);
        self.events.message(self.sequence, redelivered, message)
    }

    async fn control(&mut self, control: &Control) -> Option<End> {
        match control.opcode {
            Opcode::Ping => {
                self.ping(control.payload()).await;
                None
            }
            Opcode::Close => Some(self.closed(control)),
            _ => None,
        }
    }

    async fn ping(&mut self, payload: &[u8]) {
        if let Some(mark) = Ping::parse(payload, self.mark) {
            self.marked = mark.number == 0;
            self.sequence += mark.number;
            self.redelivered = self.redelivered.saturating_sub(mark.number);
            return;
        }
        match self.nonce.and_then(|nonce| Ping::parse(payload, nonce)) {
            // The sidecar has answered it. What came before the move was counted elsewhere.
            Some(Ping { kind: PingKind::Live, number }) => self.sequence = number,
            _ => self.far.pong(payload).await,
        }
    }

    fn closed(&self, control: &Control) -> End {
        let reason = String::from_utf8_lossy(control.payload().get(2..).unwrap_or_default());
        match self.nonce.and_then(|nonce| nonce.unmark(&reason)) {
            Some(_) => End::Moved,
            None => End::Closed { code: control.code(), reason: reason.into_owned() },
        }
    }
}

/// The pause before the second attempt, doubled before each further one up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The longest wait for the answer to a disconnect event.
const DISCONNECT: Duration = Duration::from_secs(5);

impl Shared {
    /// Hands a message over, again and again if need be. [`Verdict::Again`]: the time for that is over.
    async fn hand_over(&self, request: &[u8]) -> Verdict {
        let until = Instant::now() + self.settings.retry;
        let (mut limit, mut pause) = (self.settings.request_timeout, FIRST_PAUSE);
        loop {
            match self.attempt(AppRequest::Message, request, limit).await {
                Verdict::Again if Instant::now() + pause < until => sleep(jittered(pause)).await,
                verdict => return verdict,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            let left = until.saturating_duration_since(Instant::now());
            limit = limit.min(left.max(Duration::from_secs(1)));
        }
    }

    /// Tells that a client is gone, as well as it can.
    async fn disconnect(&self, events: &Events, number: u64, code: u16, reason: &str) {
        let request = events.disconnect(number, code, reason);
        let limit = self.settings.request_timeout.min(DISCONNECT);
        let verdict = self.attempt(AppRequest::Disconnect, &request, limit).await;
        if matches!(verdict, Verdict::Again | Verdict::Nonsense(_)) {
            tracing::debug!(?verdict, "the app was not told of a client's end");
        }
    }

    async fn attempt(&self, kind: AppRequest, request: &[u8], limit: Duration) -> Verdict {
        timeout(limit, self.request(kind, request)).await.unwrap_or_else(|_| {
            self.count(kind, None);
            Verdict::Again
        })
    }

    /// One request. Counted here unless it is given up on the way.
    async fn request(&self, kind: AppRequest, request: &[u8]) -> Verdict {
        let mut reply = match self.pool.ask(request).await {
            Ok(reply) => reply,
            Err(error) => {
                self.count(kind, None);
                return Verdict::from(&error);
            }
        };
        let body = match reply.body(self.settings.max_message).await {
            Ok(body) => body,
            Err(error) => {
                self.count(kind, None);
                return Verdict::from(&error);
            }
        };
        self.count(kind, Some(&reply));
        let verdict = judge(reply.status(), reply.headers(), body);
        self.pool.give_back(reply);
        verdict
    }
}

/// Between half and the whole of it, so that what failed together is not tried again together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..1.0))
}
