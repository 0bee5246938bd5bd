//! One client's connection: what all of the process may know of it.

use std::{fmt, net::SocketAddr, sync::Arc, time::SystemTime};

use super::{
    arrival::Arrival,
    handshake::{Agreed, Handshake},
    moves::Ticket,
};
use crate::{key::Key, trace::SpanContext};

/// One client's connection, as it stays over moves.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) key: Key,
    /// Where the client came from, where that is known.
    pub(super) arrival: Option<Arrival>,
    pub(super) since: SystemTime,
    pub(super) handshake: Handshake,
    pub(super) agreed: Agreed,
    pub(super) ticket: Ticket,
    /// The span of its handshake, if that is recorded.
    pub(super) trace: Option<Box<SpanContext>>,
}

impl Connection {
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// The same over moves.
    pub(crate) fn id(&self) -> ConnectionId {
        self.id
    }

    /// The client's address.
    pub(super) fn remote(&self) -> Option<SocketAddr> {
        self.arrival.map(|arrival| arrival.peer)
    }

    /// What the client's bytes travel in.
    pub(super) fn via(&self) -> Option<&'static str> {
        self.arrival.map(|arrival| arrival.via.as_str())
    }

    pub(crate) fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Whether permessage-deflate was agreed.
    pub(crate) fn compressed(&self) -> bool {
        self.agreed.deflate.is_some()
    }
}

/// A connection's id, the same over moves: a random number, shown in 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionId([u8; 16]);

impl ConnectionId {
    pub(super) fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl From<ConnectionId> for Arc<str> {
    fn from(id: ConnectionId) -> Self {
        id.to_string().into()
    }
}
