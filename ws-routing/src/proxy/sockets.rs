//! The sockets of one client's connection, and how the relay writes to them.

use std::task::Context;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    leg::LegStream,
    relay::{Blocked, Outputs, Slot},
    wire::Wire,
};

/// The sockets of one connection.
pub(super) struct Sockets<C> {
    pub(super) client: Wire<C>,
    pub(super) current: Option<Wire<LegStream>>,
    /// Most have none.
    pub(super) next: Option<Box<Wire<LegStream>>>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Sockets<C> {
    /// The task has been woken, for whichever of them.
    pub(super) fn woken(&mut self) {
        self.client.woken();
        for leg in self.current.iter_mut().chain(self.next.as_deref_mut()) {
            leg.woken();
        }
    }

    pub(super) fn blocked(&self) -> Blocked {
        Blocked { client: self.client.blocked(), leg: self.current.as_ref().is_some_and(Wire::blocked) }
    }

    /// Whether anything waits to be written.
    pub(super) fn waits(&self) -> bool {
        self.blocked() != Blocked::default() || self.next.as_deref().is_some_and(Wire::blocked)
    }

    pub(super) fn ports<'a, 'b>(&'a mut self, cx: &'a mut Context<'b>) -> Ports<'a, 'b, C> {
        Ports { sockets: self, cx }
    }
}

/// The sockets as the machine writes to them.
pub(super) struct Ports<'a, 'b, C> {
    sockets: &'a mut Sockets<C>,
    cx: &'a mut Context<'b>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Outputs for Ports<'_, '_, C> {
    fn client(&mut self, bytes: &[u8]) {
        self.sockets.client.put(self.cx, bytes);
    }

    fn leg(&mut self, slot: Slot, bytes: &[u8]) {
        let leg = match slot {
            Slot::Current => self.sockets.current.as_mut(),
            Slot::Next => self.sockets.next.as_deref_mut(),
        };
        if let Some(leg) = leg {
            leg.put(self.cx, bytes);
        }
    }
}
