//! Whole messages out of a client's frames, without I/O.

use crate::{
    frame::{Control, Decoder, Header, Kind, Opcode, Violation, apply_mask},
    proxy::error::CloseReason,
};

/// Puts the frames of one client together. Holds at most one message.
#[derive(Debug)]
pub(crate) struct Assembly {
    decoder: Decoder,
    /// The longest message, in bytes.
    max: usize,
    message: Message,
    /// The passing frame's mask, turned to its next byte.
    mask: [u8; 4],
}

/// A message of a client, or for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) text: bool,
    pub(crate) payload: Vec<u8>,
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A message; one of text is UTF-8.
    Message(Message),
    Control(Control),
}

impl Assembly {
    pub(crate) fn new(max: usize) -> Self {
        Self { decoder: Decoder::new(true, false, 0), max, message: Message::default(), mask: [0; 4] }
    }

    /// Takes bytes up to the next whole thing: how many, and the thing, if they complete one.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Result<(usize, Option<Incoming>), Fault> {
        let mut taken = 0;
        loop {
            let rest = &bytes[taken..];
            let header = if self.decoder.at_frame() { Header::parse(rest)? } else { None };
            let Some(unit) = self.decoder.next(rest)? else { return Ok((taken, None)) };
            taken += unit.len;
            let ends_message = match unit.kind {
                Kind::Control(control) => return Ok((taken, Some(Incoming::Control(control)))),
                Kind::Data { ends_message } => ends_message,
            };
            let header_len = header.as_ref().map_or(0, |header| header.size);
            if let Some(header) = header {
                self.begin(&header)?;
            }
            self.take(&rest[header_len..unit.len]);
            if ends_message {
                return self.finish().map(|message| (taken, Some(Incoming::Message(message))));
            }
        }
    }

    fn begin(&mut self, header: &Header) -> Result<(), Fault> {
        // A length that cannot fit is refused before its bytes come.
        if header.len > (self.max - self.message.payload.len()) as u64 {
            return Err(Fault::TooBig);
        }
        if header.opcode != Opcode::Continuation {
            self.message.text = header.opcode == Opcode::Text;
        }
        self.mask = header.mask.unwrap_or_default();
        Ok(())
    }

    fn take(&mut self, masked: &[u8]) {
        let start = self.message.payload.len();
        self.message.payload.extend_from_slice(masked);
        apply_mask(&mut self.message.payload[start..], self.mask);
        self.mask.rotate_left(masked.len() % 4);
    }

    fn finish(&mut self) -> Result<Message, Fault> {
        let message = std::mem::take(&mut self.message);
        if message.text && std::str::from_utf8(&message.payload).is_err() {
            return Err(Fault::NotUtf8);
        }
        Ok(message)
    }
}

/// What is wrong with what a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Protocol(#[from] Violation),
    #[error("a text message is not UTF-8")]
    NotUtf8,
    #[error("a message is over the limit")]
    TooBig,
}

impl From<Fault> for CloseReason {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Protocol(violation) => Self::ClientProtocol(violation.reason()),
            Fault::NotUtf8 => Self::NotUtf8,
            Fault::TooBig => Self::TooBig,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::frame;

    /// One frame of a client.
    fn put(out: &mut Vec<u8>, fin: bool, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
        let at = out.len();
        frame::write(out, opcode, payload, Some(mask));
        if !fin {
            out[at] &= 0x7f;
        }
    }

    /// Everything in `bytes`, offered in pieces of those lengths, over and over.
    fn read(bytes: &[u8], pieces: &[usize], max: usize) -> Result<Vec<Incoming>, Fault> {
        let (mut assembly, mut held, mut all) = (Assembly::new(max), Vec::new(), Vec::new());
        let mut pieces = pieces.iter().copied().cycle();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(pieces.next().unwrap_or(1).clamp(1, rest.len()));
            rest = later;
            held.extend_from_slice(piece);
            loop {
                let (taken, incoming) = assembly.next(&held)?;
                held.drain(..taken);
                match incoming {
                    Some(incoming) => all.push(incoming),
                    None => break,
                }
            }
        }
        Ok(all)
    }

    prop_compose! {
        fn message()(text in any::<bool>(), words in "\\PC{0,60}", bytes in vec(any::<u8>(), 0..400)) -> Message {
            Message { text, payload: if text { words.into_bytes() } else { bytes } }
        }
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(
            messages in vec((message(), vec(any::<prop::sample::Index>(), 0..4), any::<bool>()), 1..6),
            pieces in vec(1usize..50, 1..8),
            mask in any::<[u8; 4]>(),
        ) {
            let (mut bytes, mut expected) = (Vec::new(), Vec::new());
            for (message, cuts, pinged) in &messages {
                let mut ends: Vec<usize> =
                    cuts.iter().map(|cut| cut.index(message.payload.len() + 1)).collect();
                ends.sort_unstable();
                ends.push(message.payload.len());
                let mut start = 0;
                for (i, &end) in ends.iter().enumerate() {
                    let first = if message.text { Opcode::Text } else { Opcode::Binary };
                    let opcode = if i == 0 { first } else { Opcode::Continuation };
                    put(&mut bytes, i + 1 == ends.len(), opcode, &message.payload[start..end], mask);
                    start = end;
                    if *pinged && i + 1 < ends.len() {
                        put(&mut bytes, true, Opcode::Ping, b"between", mask);
                        expected.push(None);
                    }
                }
                expected.push(Some(message.clone()));
            }
            let read = read(&bytes, &pieces, 1000).unwrap().into_iter();
            let read: Vec<Option<Message>> = read
                .map(|incoming| match incoming {
                    Incoming::Message(message) => Some(message),
                    Incoming::Control(control) => { assert_eq!(control.payload(), b"between"); None }
                })
                .collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn nothing_that_a_client_sends_makes_it_panic(
            bytes in vec(any::<u8>(), 0..300),
            pieces in vec(1usize..20, 1..4),
        ) {
            let _ = read(&bytes, &pieces, 100);
        }
    }

    #[test]
    fn text_is_utf8_also_over_frames() {
        let mut bytes = Vec::new();
        put(&mut bytes, false, Opcode::Text, &"é".as_bytes()[..1], [1, 2, 3, 4]);
        put(&mut bytes, true, Opcode::Continuation, &"é".as_bytes()[1..], [5, 6, 7, 8]);
        let message = Message { text: true, payload: "é".into() };
        assert_eq!(read(&bytes, &[3], 10), Ok(vec![Incoming::Message(message)]));
        let mut bytes = Vec::new();
        put(&mut bytes, true, Opcode::Text, b"\xff", [1, 2, 3, 4]);
        assert_eq!(read(&bytes, &[100], 10), Err(Fault::NotUtf8));
    }

    #[test]
    fn a_message_over_the_limit_is_refused_at_its_header() {
        let mut bytes = Vec::new();
        put(&mut bytes, false, Opcode::Binary, &[0; 8], [0; 4]);
        put(&mut bytes, true, Opcode::Continuation, &[0; 3], [0; 4]);
        assert_eq!(read(&bytes[..bytes.len() - 3], &[100], 10), Err(Fault::TooBig));
        assert!(read(&bytes, &[100], 11).is_ok());
    }
}
