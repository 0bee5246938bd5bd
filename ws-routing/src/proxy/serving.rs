//! One client's connection as its task holds it: one box while its handshake lasts, another while it is relayed.
//!
//! A task's own memory is kept as long as the connection and has room for the largest moment of its future, so that
//! here has room for a pointer only; and what is relayed is one allocation with all that lasts as long as it does.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    connection::Connection,
    core::Dialed,
    drive::Drive,
    moves::{Registered, Registry},
    relay::End,
    service::Place,
};

/// Serves one client, from its first byte to its last.
///
/// Dropping it cuts the client.
pub(super) enum Serving<R, C> {
    /// Its handshake is read and answered.
    Receiving(Pin<Box<R>>),
    /// It was answered; or it is gone.
    Relaying(Relaying<C>),
}

impl<R, C> Future for Serving<R, C>
where
    R: Future<Output = Option<Joined<C>>>,
    C: AsyncRead + AsyncWrite + Unpin + 'static,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Receiving(receive) = &mut *self {
            let joined = ready!(receive.as_mut().poll(cx));
            // What the handshake took makes room for what the relay takes.
            *self = Self::Relaying(Relaying(None));
            if let Some(joined) = joined {
                *self = Self::Relaying(joined.relay());
            }
        }
        match &mut *self {
            Self::Relaying(relaying) => Pin::new(relaying).poll(cx),
            Self::Receiving(_) => Poll::Pending,
        }
    }
}

/// A client that has its answer, and is about to be relayed.
pub(crate) struct Joined<C> {
    pub(super) io: C,
    /// What it sent behind its handshake.
    pub(super) held: Bytes,
    pub(super) opened: Box<Opened>,
}

/// The leg that was opened for a client.
pub(crate) struct Opened {
    pub(super) connection: Arc<Connection>,
    pub(super) dialed: Dialed,
    pub(super) place: Place,
}

impl<C: AsyncRead + AsyncWrite + Unpin + 'static> Joined<C> {
    /// Relays the client until it ends. It counts as held from here on.
    pub(crate) fn relay(self) -> Relaying<C> {
        let Self { io, held, opened } = self;
        let Opened { connection, dialed, place } = *opened;
        let proxy = place.proxy();
        let core = proxy.core();
        core.metrics().opened().inc();
        let registered = Registry::register(core, &connection);
        let drive = Drive::new(Arc::clone(core), connection, io, &held, dialed);
        Relaying(Some(Box::new(Relayed { drive, registered, place })))
    }
}

/// Relays a client until it ends.
pub(crate) struct Relaying<C>(Option<Box<Relayed<C>>>);

/// All that is held as long as a client is relayed; dropped in this order.
struct Relayed<C> {
    drive: Drive<C>,
    registered: Registered,
    place: Place,
}

impl<C: AsyncRead + AsyncWrite + Unpin + 'static> Future for Relaying<C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(relayed) = &mut self.0 {
            let end = ready!(Pin::new(&mut relayed.drive).poll(cx));
            if let Some(relayed) = self.0.take() {
                relayed.ended(end);
            }
        }
        Poll::Ready(())
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin + 'static> Relayed<C> {
    /// Tells how it ended, when it is counted no longer.
    fn ended(self, end: End) {
        let Self { drive, registered, place } = self;
        let (connection, proxy) = (Arc::clone(drive.connection()), place.proxy().clone());
        drop(drive);
        drop(registered);
        let _guard = place.leave();
        proxy.metrics().closed(end.code).inc();
        proxy.log_end(&connection, end);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Ready;

    use tokio::net::TcpStream;

    use super::*;

    /// Each of these bytes is there as often as there are connections: whoever needs more may say so here, and has to
    /// measure again what README says of idle connections.
    #[test]
    fn what_an_idle_connection_holds_stays_small() {
        let task = size_of::<Serving<Ready<Option<Joined<TcpStream>>>, TcpStream>>();
        assert!(task <= 16, "the task's future takes {task} bytes");
        let relayed = size_of::<Relayed<TcpStream>>();
        assert!(relayed <= 576, "what is relayed takes {relayed} bytes");
        let known = size_of::<Connection>();
        assert!(known <= 224, "what the process knows of it takes {known} bytes");
    }
}
