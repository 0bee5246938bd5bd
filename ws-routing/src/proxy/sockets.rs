//! The sockets of one client's connection, and how the relay writes to them.

use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    leg::LegStream,
    relay::{Blocked, Outputs, Slot},
    wire::{Input, Wire},
};

/// The sockets of one connection.
pub(super) struct Sockets<C> {
    pub(super) client: Wire<C>,
    pub(super) current: Option<Wire<LegStream>>,
    /// Most have none.
    pub(super) next: Option<Box<Wire<LegStream>>>,
}

impl<C: AsyncRead + AsyncWrite + Unpin + 'static> Sockets<C> {
    /// The task has been woken, for whichever of them: [`Wire::woken`].
    pub(super) fn woken(&mut self, anew: bool) {
        self.client.woken(anew);
        for leg in self.current.iter_mut().chain(self.next.as_deref_mut()) {
            leg.woken(anew);
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
        Ports { sockets: self, cx, lent: None }
    }

    /// Reads what the client says: [`Wire::read`].
    pub(super) fn read_client(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        let input = self.client.read(cx);
        match &self.current {
            Some(leg) if leg.borrows() => input.map(Input::into_lent),
            _ => input,
        }
    }

    /// As [`Sockets::ports`], for a machine that is given `input`.
    pub(super) fn ports_for<'a, 'b>(
        &'a mut self,
        cx: &'a mut Context<'b>,
        input: &'a Input,
    ) -> Ports<'a, 'b, C> {
        Ports { sockets: self, cx, lent: input.lent() }
    }
}

/// The sockets as the machine writes to them.
pub(super) struct Ports<'a, 'b, C> {
    sockets: &'a mut Sockets<C>,
    cx: &'a mut Context<'b>,
    /// What is written may be a part of this.
    lent: Option<&'a Bytes>,
}

impl<C: AsyncRead + AsyncWrite + Unpin + 'static> Outputs for Ports<'_, '_, C> {
    fn client(&mut self, bytes: &[u8]) {
        self.sockets.client.put(self.cx, bytes);
    }

    fn leg(&mut self, slot: Slot, bytes: &[u8]) {
        let leg = match slot {
            Slot::Current => self.sockets.current.as_mut(),
            Slot::Next => self.sockets.next.as_deref_mut(),
        };
        if let Some(leg) = leg {
            leg.put_lent(self.cx, bytes, self.lent);
        }
    }
}
