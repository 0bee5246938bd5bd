//! One upstream leg, as the machine knows it.

use std::time::Duration;

use super::{
    BUFFER, Nonce, Outputs, PingBook, PingKind, Settings, Slot,
    clocks::{Liveness, Patience},
    run::control,
};
use crate::frame::{Decoder, Opcode};

/// One upstream leg.
#[derive(Clone, Debug)]
pub(crate) struct Leg {
    pub(super) decoder: Decoder,
    pub(super) book: PingBook,
    pub(super) life: Liveness,
    /// Its node is draining, gone or suspect: a Close of 1001 or 1012 means the node, not the client.
    pub(super) leaving: bool,
    /// App messages still to be dropped.
    pub(super) skip: u32,
    /// Its node has a sidecar, which answers our keepalive pings in place of its app.
    pub(super) sidecar: bool,
    /// It takes the place of another leg.
    pub(super) moved: bool,
    /// Its node is this very process.
    pub(super) own: bool,
}

/// What a leg's handshake has settled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LegShape {
    /// Marks our pings.
    pub(crate) nonce: Nonce,
    /// Its node has a sidecar, which answers our keepalive pings in place of its app.
    pub(crate) sidecar: bool,
    /// It takes the place of another leg.
    pub(crate) moved: bool,
    /// Its node is this very process.
    pub(crate) own: bool,
    /// permessage-deflate was agreed.
    pub(crate) compressed: bool,
}

impl Leg {
    /// A leg whose handshake is done.
    pub(crate) fn new(now: Duration, settings: &Settings, shape: LegShape) -> Self {
        let LegShape { nonce, sidecar, moved, own, compressed } = shape;
        Self {
            decoder: Decoder::new(false, compressed, BUFFER),
            book: PingBook::new(nonce, sidecar),
            life: Liveness::new(now),
            leaving: false,
            skip: if moved && !sidecar { settings.skip_on_move } else { 0 },
            sidecar,
            moved,
            own,
        }
    }

    /// How long its silence is borne, if it is in the middle of a frame: there a sidecar cannot answer, and its app is
    /// waited for.
    pub(super) fn patience(&self, settings: &Settings, within_frame: bool) -> Patience {
        match self.sidecar && !within_frame {
            true => Patience::with_peer(settings),
            false => Patience::with_app(settings),
        }
    }

    /// Tells it, as the next leg, that it is live and so many client messages came before.
    pub(super) fn live(&mut self, sequence: u64, out: &mut impl Outputs) {
        let payload = self.book.own(PingKind::Live, sequence);
        out.leg(Slot::Next, &self.control(Opcode::Ping, &payload));
    }

    /// A masked control frame of ours. The mask hides nothing from anybody: the payload is ours.
    pub(super) fn control(&self, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        control(opcode, payload, Some((self.book.nonce().0 as u32).to_be_bytes()))
    }
}
