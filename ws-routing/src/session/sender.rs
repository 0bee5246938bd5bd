//! Sends from the program that the sidecar is part of, without the HTTP API.

use bytes::Bytes;
use tokio::time::Instant;

use super::deliver::{
    Deliver,
    here::{self, Op},
    plan::Verdict,
};
use crate::{
    api,
    key::Key,
    metrics::{Ack, SidecarMetrics},
    node::NodeId,
};

/// Sends messages to keys, wherever in the ring their clients are connected.
///
/// Use it in a program that has the [`Sidecar`](super::Sidecar) within itself; beside another process's sidecar its HTTP
/// API does the same, and its table of answers is the one of [`SendError`]. A cheap clone, from
/// [`Sidecar::sender`](super::Sidecar::sender).
///
/// A send to a client of this very node costs no request, one to another node a request over a kept connection. Sends
/// that each wait for the one before arrive in that order, also across a move.
///
/// ```
/// use ws_routing::{Key, session::{Ack, SendError, Sender}};
///
/// async fn start_charging(sender: &Sender, charger: &Key) -> Result<(), Box<dyn std::error::Error>> {
///     match sender.send(charger, r#"{"command":"start"}"#, Ack::Received).await {
///         Ok(_) => Ok(()),
///         Err(SendError::NotConnected { .. }) => Err("the charger is offline".into()),
///         Err(error) if error.is_undelivered() => Err("try again in a second".into()),
///         Err(error) => Err(error.into()),
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Sender {
    deliver: Deliver,
    metrics: SidecarMetrics,
}

/// A message to clients, or to an app: what WebSocket calls one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(String),
    /// Anything else.
    Binary(Bytes),
}

/// A message that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// The node whose connection took it; of several the first.
    pub node: NodeId,
    /// How many of the key's connections took it.
    pub delivered: usize,
    /// How many surely did not, as their clients take too slowly.
    pub slow: usize,
}

/// Why a message was not taken, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// Nobody is connected under the key, and no move is under way.
    #[error("nobody is connected under this key")]
    NotConnected {
        /// The node where a client with this key would be.
        owner: Option<NodeId>,
    },
    /// Surely not delivered: the client takes too slowly. Try again.
    #[error("the client takes too slowly: not delivered")]
    SlowConsumer,
    /// Surely not delivered: the connection is on its way, or a node cannot be reached. Try again in a second.
    #[error("the connection is moving, or a node cannot be reached: not delivered")]
    Moving,
    /// No confirmation came in time; it may have been delivered or not.
    #[error("no confirmation came in time: whether it was delivered is unknown")]
    Unknown,
    /// Surely not delivered: it is larger than [`SendSettings::max_message`](super::SendSettings::max_message).
    #[error("the message has {size} bytes: expected at most {limit}")]
    TooLarge {
        /// What it has, in bytes.
        size: usize,
        /// What it may have, in bytes.
        limit: usize,
    },
}

impl SendError {
    /// Whether the message was surely not delivered, so that it may be sent again without being there twice.
    #[must_use]
    pub fn is_undelivered(&self) -> bool {
        !matches!(self, Self::Unknown)
    }
}

impl Sender {
    pub(super) fn new(deliver: Deliver, metrics: SidecarMetrics) -> Self {
        Self { deliver, metrics }
    }

    /// Sends a message to every connection of `key`. Takes 5 s at the longest, or the configured wait for a receipt.
    ///
    /// # Errors
    ///
    /// [`SendError`], where no connection took it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves it unknown whether the message is delivered.
    pub async fn send(&self, key: &Key, message: impl Into<Message>, ack: Ack) -> Result<Sent, SendError> {
        let message = self.checked(message.into())?;
        self.call(key, &Op::Send { message, ack }, ack).await
    }

    /// Says a message to the app at the node that `key` is connected to, on the oldest of its connections, as if the
    /// client had said it.
    ///
    /// # Errors
    ///
    /// [`SendError`], where no app took it.
    ///
    /// # Cancel safety
    ///
    /// As of [`Sender::send`].
    pub async fn send_to_app(&self, key: &Key, message: impl Into<Message>) -> Result<Sent, SendError> {
        let message = self.checked(message.into())?;
        self.call(key, &Op::ToApp(message), Ack::Written).await
    }

    async fn call(&self, key: &Key, op: &Op, ack: Ack) -> Result<Sent, SendError> {
        let began = Instant::now();
        let verdict = self.deliver.call(key, op).await.verdict;
        self.metrics.sends(ack, api::send_result(&verdict)).inc();
        self.metrics.send_duration().observe(began.elapsed());
        match verdict {
            Verdict::Delivered { node, delivered, slow } => Ok(Sent { node, delivered, slow }),
            Verdict::NotConnected => Err(SendError::NotConnected { owner: self.owner(key) }),
            Verdict::Slow => Err(SendError::SlowConsumer),
            Verdict::Moving => Err(SendError::Moving),
            Verdict::Unknown => Err(SendError::Unknown),
        }
    }

    fn owner(&self, key: &Key) -> Option<NodeId> {
        self.deliver.here().view.load().owner(key).map(|owner| owner.id.clone())
    }

    fn checked(&self, message: Message) -> Result<here::Message, SendError> {
        let limit = self.deliver.here().settings.max_message;
        let (text, payload) = match message {
            Message::Text(text) => (true, Bytes::from(text)),
            Message::Binary(payload) => (false, payload),
        };
        match payload.len() {
            size if size > limit => Err(SendError::TooLarge { size, limit }),
            _ => Ok(here::Message { text, payload }),
        }
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
    }
}
