//! One client's events, one after the other.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{DuplexStream, ReadHalf, split},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    Shared,
    down::{Pushes, Word},
    events::{Answer, Request, Subjects},
};
use crate::{
    app::{
        far::Far,
        insist::{Attempt, insist},
        messages::{Incoming, Message},
        row::{End, Pinged, Row},
        verdict::Verdict,
    },
    frame::{Control, Opcode, close_payload},
    metrics::AppRequest,
    proxy::error::CloseReason,
};

/// One connection, from the application's yes to its last event.
pub(super) struct Conversation {
    app: Arc<Shared>,
    subjects: Subjects,
    io: DuplexStream,
    row: Row,
}

/// How long the server may take to send back the word that ends this node's part.
const FAREWELL: Duration = Duration::from_millis(500);

/// The longest that a disconnect event may take to reach the server.
const DISCONNECT: Duration = Duration::from_secs(5);

impl Conversation {
    pub(super) fn new(app: Arc<Shared>, subjects: Subjects, io: DuplexStream, row: Row) -> Self {
        Self { app, subjects, io, row }
    }

    /// Serves the client until it is gone and the application knows, or the server has been away for too long.
    pub(super) async fn run(self, pushes: Pushes) {
        let Self { app, subjects, io, row } = self;
        let (reader, writer) = split(io);
        let (words, taken) = mpsc::channel(1);
        let (slow, is_slow) = oneshot::channel();
        let far = Far::new(reader, app.settings.max_message);
        let up = Up { app: Arc::clone(&app), subjects, far, row, words };
        let both = async { tokio::join!(up.run(is_slow), pushes.run(writer, taken, slow)) };
        tokio::select! {
            _ = both => {}
            // The leg ends without a Close: what follows is what follows when an application's connection is lost.
            () = app.link.is_lost(app.settings.retry) => {}
        }
    }
}

/// From the client to the application.
struct Up {
    app: Arc<Shared>,
    subjects: Subjects,
    far: Far<ReadHalf<DuplexStream>>,
    row: Row,
    words: mpsc::Sender<Word>,
}

impl Up {
    async fn run(mut self, slow: oneshot::Receiver<()>) {
        let end = tokio::select! {
            end = self.serve() => end,
            Ok(()) = slow => CloseReason::Policy("client reads too slowly").into(),
        };
        let Self { app, subjects, mut far, row, words } = self;
        let (code, reason, closing) = match end {
            End::Moved => {
                leave(&app, &subjects, &words).await;
                return close(&words, 1001, "").await;
            }
            // What was pushed since is the other node's to pass on: no word of this one's may end that.
            End::Elsewhere => return,
            End::Lost => (1006, "connection lost".into(), None),
            End::Closed { code, reason } => (code, reason, Some(String::new())),
            End::Close { code, reason } => (code, reason.clone(), Some(reason)),
        };
        let said = async {
            if let Some(reason) = closing {
                close(&words, code, &reason).await;
            }
            drop(words);
        };
        let told = app.disconnect(&subjects, row.missing(), code, &reason);
        tokio::join!(said, told, far.drain());
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
        let request = self.subjects.message(self.row.next(), message);
        if request.len() > self.app.link.most() {
            return Some(CloseReason::TooBig.into());
        }
        match self.app.hand_over(&request).await {
            Verdict::Reply(message) => {
                let opcode = if message.text { Opcode::Text } else { Opcode::Binary };
                self.say(Word::Frame(opcode, message.payload)).await;
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
            Opcode::Ping => match self.row.pinged(control.payload()) {
                Pinged::Asked => self.say(Word::Frame(Opcode::Pong, control.payload().to_vec())).await,
                Pinged::Live => self.say(Word::Live).await,
                Pinged::Noted => {}
            },
            Opcode::Close => return Some(self.row.closed(control)),
            _ => {}
        }
        None
    }

    async fn say(&self, word: Word) {
        // That the client is gone is found out by reading.
        let _ = self.words.send(word).await;
    }
}

/// Passes on what is pushed up to a word of ours; behind it is the part of the node that goes on.
async fn leave(app: &Shared, subjects: &Subjects, words: &mpsc::Sender<Word>) {
    let (left, has_left) = oneshot::channel();
    let leaving = async {
        // Without an answer, or without a server, nothing more is passed on here either.
        let _ = words.send(Word::Leave(left)).await;
        if app.link.tell(subjects.moved(), FAREWELL).await {
            let _ = has_left.await;
        }
    };
    let _ = timeout(FAREWELL, leaving).await;
}

async fn close(words: &mpsc::Sender<Word>, code: u16, reason: &str) {
    let payload = if code == 1005 { Vec::new() } else { close_payload(code, reason) };
    // Whoever would read it may be gone.
    let _ = words.send(Word::Frame(Opcode::Close, payload)).await;
}

impl Shared {
    /// Hands a message over, again and again if need be. [`Verdict::Again`]: the time for that is over.
    async fn hand_over(&self, request: &Request) -> Verdict {
        insist(self.settings.retry, self.settings.request_timeout, &HandOver { app: self, request }).await
    }

    /// Tells that a client is gone, as well as it can.
    async fn disconnect(&self, subjects: &Subjects, number: u64, code: u16, reason: &str) {
        let told = self.link.tell(subjects.disconnect(number, code, reason), DISCONNECT).await;
        self.count(AppRequest::Disconnect, told.then_some(200));
    }
}

/// A message on its way to the application.
struct HandOver<'a> {
    app: &'a Shared,
    request: &'a Request,
}

impl Attempt for HandOver<'_> {
    async fn attempt(&self, limit: Duration) -> Verdict {
        let answer = self.app.link.ask(self.request.clone(), limit).await.map(Answer::from);
        self.app.count(AppRequest::Message, answer.as_ref().ok().map(|answer| answer.status));
        match answer {
            Ok(answer) => answer.judge(self.app.settings.max_message),
            Err(error) => Verdict::from(&error),
        }
    }
}
