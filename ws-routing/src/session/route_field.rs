//! `--route-field`: client messages that name a recipient go to that key's app instead of their own.
//!
//! Somebody must read the payload for that, so it stands between a leg and its app and puts messages together, which
//! costs the longest message of each connection and declines permessage-deflate.

use std::{fmt::Debug, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, split},
    sync::oneshot,
    time::{Instant, sleep},
};

use super::deliver::{
    Deliver,
    here::{self, Op},
    plan::Verdict,
};
use crate::{
    app::{AppLeg, Elsewhere, Far, FarEnd, Incoming, Message},
    frame::{Control, Decoder, Opcode, close_payload},
    key::Key,
    proxy::{
        LegStream,
        connect::{Opened, Upgraded},
        error::CloseReason,
        handshake::LegHeaders,
        relay::{BUFFER, Nonce, Ping, PingKind, control},
    },
};

/// Who brings a message to the app of a key.
pub(crate) trait Recipients: Debug + Send + Sync {
    /// Brings `message` to the app that has `key`'s oldest connection, once.
    fn deliver<'a>(
        &'a self,
        key: &'a Key,
        message: &'a Message,
    ) -> Pin<Box<dyn Future<Output = Delivery> + Send + 'a>>;
}

impl Recipients for Deliver {
    fn deliver<'a>(
        &'a self,
        key: &'a Key,
        message: &'a Message,
    ) -> Pin<Box<dyn Future<Output = Delivery> + Send + 'a>> {
        let payload = Bytes::copy_from_slice(&message.payload);
        let op = Op::ToApp(here::Message { text: message.text, payload });
        Box::pin(async move {
            match self.call(key, &op).await.verdict {
                Verdict::NotConnected => Delivery::NotConnected,
                Verdict::Slow | Verdict::Moving => Delivery::NotNow,
                Verdict::Delivered { .. } | Verdict::Unknown => Delivery::Done,
            }
        })
    }
}

/// What became of a message for somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It was delivered, or nobody knows: it is not sent again.
    Done,
    /// Nobody holds the key.
    NotConnected,
    /// Surely not delivered; it may be later.
    NotNow,
}

/// Which messages are for somebody else, and who brings them there.
#[derive(Clone, Debug)]
pub(crate) struct RouteField {
    name: Arc<str>,
    max_message: usize,
    recipients: Arc<dyn Recipients>,
}

/// How long a message is tried again that cannot be delivered now: then its sender's app is told. Longer than it takes
/// until a node that hangs is found out and its connections are elsewhere; not by much, as what the sender says next,
/// and a move of the sender's, wait for it.
const RETRY: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(100);

impl RouteField {
    pub(crate) fn new(name: &str, max_message: usize, recipients: Arc<dyn Recipients>) -> Self {
        Self { name: name.into(), max_message, recipients }
    }

    /// Stands between a leg and its app.
    pub(crate) fn between(&self, opened: AppLeg, leg: &LegHeaders) -> AppLeg {
        match opened {
            AppLeg { opened: Opened::Upgraded(upgraded), far } => {
                let (io, far) = self.stand(upgraded.io, far, leg);
                AppLeg { opened: Opened::Upgraded(Upgraded { io, ..upgraded }), far: Some(far) }
            }
            answered => answered,
        }
    }

    /// The leg's new stream before `app`, and what serves it. `far` serves `app` where that is within this process.
    fn stand(&self, app: LegStream, far: Option<FarEnd>, leg: &LegHeaders) -> (LegStream, FarEnd) {
        let (near, other) = tokio::io::duplex(BUFFER);
        let ((client, to_client), (from_app, app)) = (split(other), split(app));
        let (fault, faulted) = oneshot::channel();
        let mark = Nonce(far.as_ref().map_or_else(rand::random, |far| far.mark));
        let up = Up {
            route: self.clone(),
            client: Far::new(client, self.max_message),
            app,
            own: leg.key.clone(),
            within: far.is_some(),
            nonce: Nonce::of(leg),
            mark,
            marked: false,
            fault: Some(fault),
        };
        let (linger, pinged, elsewhere) = far.as_ref().map_or((RETRY, true, Elsewhere::default()), |far| {
            (far.linger, far.pinged, far.elsewhere.clone())
        });
        let run = async move {
            let inner = async {
                if let Some(far) = far {
                    far.run.await;
                }
            };
            tokio::join!(up.run(), down(from_app, to_client, faulted), inner);
        };
        (LegStream::Local(near), FarEnd { run: Box::pin(run), linger, mark: mark.0, pinged, elsewhere })
    }

    /// Whom a message is for, if that is somebody else.
    fn recipient(&self, message: &Message) -> Option<Key> {
        if !message.text || message.payload.trim_ascii_start().first() != Some(&b'{') {
            return None;
        }
        let object: Value = serde_json::from_slice(&message.payload).ok()?;
        Key::new(object.get(&*self.name)?.as_str()?).ok()
    }

    /// Brings a message to its recipient. What the sender's app is to be told, if that fails.
    async fn deliver(&self, key: &Key, message: &Message) -> Option<Message> {
        let until = Instant::now() + RETRY;
        let error = loop {
            match self.recipients.deliver(key, message).await {
                Delivery::Done => return None,
                Delivery::NotConnected => break "not-connected",
                Delivery::NotNow if Instant::now() + PAUSE >= until => break "not-delivered",
                Delivery::NotNow => sleep(PAUSE).await,
            }
        };
        let text = json!({"error": error, "recipient": key.as_str()}).to_string();
        Some(Message { text: true, payload: text.into() })
    }
}

/// From the client to its app, message by message.
struct Up {
    route: RouteField,
    client: Far<ReadHalf<DuplexStream>>,
    app: WriteHalf<LegStream>,
    /// The client's own key.
    own: Key,
    /// The app's end is within this process too, and understands our marks.
    within: bool,
    nonce: Option<Nonce>,
    mark: Nonce,
    /// The next message is not the client's: it is where it belongs.
    marked: bool,
    fault: Option<oneshot::Sender<CloseReason>>,
}

impl Up {
    async fn run(mut self) {
        loop {
            match self.client.next().await {
                Ok(Some(Incoming::Message(message))) => self.message(&message).await,
                Ok(Some(Incoming::Control(control))) => self.control(&control).await,
                Ok(None) => break,
                Err(fault) => {
                    // Whoever would close is gone already when this fails.
                    let _ = self.fault.take().map(|tell| tell.send(fault.into()));
                    self.put(Opcode::Close, &close_payload(1001, "the client's connection ends")).await;
                    self.client.drain().await;
                    break;
                }
            }
        }
        // It is closed in any case.
        let _ = self.app.shutdown().await;
    }

    async fn message(&mut self, message: &Message) {
        let recipient = if std::mem::take(&mut self.marked) { None } else { self.route.recipient(message) };
        // Whom a client names by its own key is itself. Brought there as another's message, it would be said on this very
        // leg, which is not read before that is done, and not in its place among the client's others.
        let Some(key) = recipient.filter(|key| *key != self.own) else {
            return self.put_message(message).await;
        };
        self.put_mark(1).await;
        if let Some(report) = self.route.deliver(&key, message).await {
            self.put_mark(0).await;
            self.put_message(&report).await;
        }
    }

    /// Tells an end within this process that this many of the client's messages went elsewhere; 0: that the next message
    /// is not the client's.
    async fn put_mark(&mut self, number: u64) {
        if self.within {
            let mark = Ping { kind: PingKind::Keepalive, number }.payload(self.mark);
            self.put(Opcode::Ping, &mark).await;
        }
    }

    /// Passes a control frame on; to an app outside without what only we understand.
    async fn control(&mut self, control: &Control) {
        let is = |nonce: Nonce| Ping::parse(control.payload(), nonce).map(|ping| ping.kind);
        let marked = control.opcode == Opcode::Ping && is(self.mark).is_some();
        self.marked |= marked;
        match control.opcode {
            _ if self.within => self.put(control.opcode, control.payload()).await,
            _ if marked => {}
            Opcode::Ping if self.nonce.and_then(is) == Some(PingKind::Live) => {}
            Opcode::Close => {
                let text = String::from_utf8_lossy(control.payload().get(2..).unwrap_or_default());
                match self.nonce.and_then(|nonce| nonce.unmark(&text)) {
                    Some(reason) => self.put(Opcode::Close, &close_payload(control.code(), reason)).await,
                    None => self.put(Opcode::Close, control.payload()).await,
                }
            }
            opcode => self.put(opcode, control.payload()).await,
        }
    }

    async fn put_message(&mut self, message: &Message) {
        self.put(if message.text { Opcode::Text } else { Opcode::Binary }, &message.payload).await;
    }

    async fn put(&mut self, opcode: Opcode, payload: &[u8]) {
        let bytes = control(opcode, payload, Some((self.mark.0 as u32).to_be_bytes()));
        // That the app is gone is found out by reading from it.
        let _ = self.app.write_all(&bytes).await;
    }
}

/// From the app to its client, as it comes, until either is gone or the client is to be closed.
async fn down(
    mut app: impl AsyncRead + Unpin,
    mut client: impl AsyncWrite + Unpin,
    mut faulted: oneshot::Receiver<CloseReason>,
) {
    let (mut decoder, mut held) = (Decoder::new(false, false, 0), Vec::new());
    let mut close = None;
    loop {
        let mut end = 0;
        // What breaks the protocol is for the session to judge: it passes.
        while let Ok(Some(unit)) = decoder.next(&held[end..]) {
            end += unit.len;
        }
        if let Some(reason) = close.filter(|_| decoder.at_frame()) {
            return say_last(&mut client, &held[..end], reason).await;
        }
        let broken = decoder.next(&held[end..]).is_err();
        let passing = if broken { held.len() } else { end };
        if client.write_all(&held[..passing]).await.is_err() {
            return;
        }
        held.drain(..passing);
        tokio::select! {
            read = app.read_buf(&mut held) => if !matches!(read, Ok(n) if n > 0) { break },
            told = &mut faulted, if close.is_none() && !faulted.is_terminated() => close = told.ok(),
        }
    }
    // It is closed in any case.
    let _ = client.shutdown().await;
}

async fn say_last(client: &mut (impl AsyncWrite + Unpin), before: &[u8], reason: CloseReason) {
    let close = control(Opcode::Close, &close_payload(reason.code(), &reason.reason()), None);
    // The client may be gone.
    let _ = client.write_all(&[before, &close].concat()).await;
}

#[cfg(test)]
#[path = "route_field_tests.rs"]
mod tests;
