//! One client's events, one after the other.

use std::{sync::Arc, time::Duration};

use tokio::io::DuplexStream;

use super::{HttpSettings, Shared, request::Requests};
use crate::{
    app::{
        far::Far,
        insist::{Attempt, insist, within},
        messages::{Incoming, Message},
        row::{End, Pinged, Row},
        verdict::{Verdict, is_text, judge},
    },
    frame::{Control, Opcode},
    metrics::AppRequest,
    proxy::error::CloseReason,
};

/// One connection, from the application's yes to its last event.
pub(super) struct Conversation {
    app: Arc<Shared>,
    requests: Requests,
    far: Far<DuplexStream>,
    row: Row,
}

impl Conversation {
    pub(super) fn new(app: Arc<Shared>, requests: Requests, io: DuplexStream, row: Row) -> Self {
        let far = Far::new(io, app.settings.max_message);
        Self { app, requests, far, row }
    }

    /// Serves the client until it is gone and the application knows.
    pub(super) async fn run(mut self) {
        let end = self.serve().await;
        let (code, reason) = match end {
            End::Moved => return self.far.close(1001, "").await,
            End::Elsewhere => return,
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
        tokio::join!(
            self.app.disconnect(&self.requests, self.row.missing(), code, &reason),
            self.far.drain()
        );
    }

    async fn serve(&mut self) -> End {
        loop {
            let end = match self.far.next().await {
                Ok(Some(Incoming::Message(message))) => self.message(&message).await,
                Ok(Some(Incoming::Control(control))) => self.control(&control).await,
                Ok(None) => Some(self.row.lost().await),
                Err(fault) => Some(CloseReason::from(fault).into()),
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    async fn message(&mut self, message: &Message) -> Option<End> {
        let request = self.requests.message(self.row.next(), message);
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

    async fn control(&mut self, control: &Control) -> Option<End> {
        match control.opcode {
            Opcode::Ping => {
                if self.row.pinged(control.payload()) == Pinged::Asked {
                    self.far.pong(control.payload()).await;
                }
                None
            }
            Opcode::Close => Some(self.row.closed(control)),
            _ => None,
        }
    }
}

/// A message on its way to the application.
struct HandOver<'a> {
    app: &'a Shared,
    request: &'a [u8],
}

impl Attempt for HandOver<'_> {
    async fn attempt(&self, limit: Duration) -> Verdict {
        self.app.attempt(AppRequest::Message, self.request, limit).await
    }
}

/// The longest wait for the answer to a disconnect event.
const DISCONNECT: Duration = Duration::from_secs(5);

impl Shared {
    /// Hands a message over, again and again if need be. [`Verdict::Again`]: the time for that is over.
    async fn hand_over(&self, request: &[u8]) -> Verdict {
        let HttpSettings { retry, request_timeout, .. } = self.settings;
        insist(retry, request_timeout, &HandOver { app: self, request }).await
    }

    /// Tells that a client is gone, as well as it can.
    async fn disconnect(&self, requests: &Requests, number: u64, code: u16, reason: &str) {
        let request = requests.disconnect(number, code, reason);
        let limit = self.settings.request_timeout.min(DISCONNECT);
        let verdict = self.attempt(AppRequest::Disconnect, &request, limit).await;
        if matches!(verdict, Verdict::Again | Verdict::Nonsense(_)) {
            tracing::debug!(?verdict, "the app was not told of a client's end");
        }
    }

    async fn attempt(&self, kind: AppRequest, request: &[u8], limit: Duration) -> Verdict {
        within(limit, self.request(kind, request), || self.count(kind, None)).await
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
        let verdict = judge(reply.status().as_u16(), is_text(reply.headers()), body);
        self.pool.give_back(reply);
        verdict
    }
}
