//! The eight bytes before whatever a leg says on a trunk: its number, a kind, a length, all big-endian.

/// How long a header is.
pub(super) const HEADER: usize = 8;

/// The most bytes behind one header: what the three bytes of a length can say.
pub(super) const MAX_LEN: usize = (1 << 24) - 1;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) leg: u32,
    pub(super) kind: Kind,
    /// Of bytes that follow; of a window, how many more the other side may send.
    pub(super) len: u32,
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes of a leg.
    Data,
    /// A leg begins. Numbers go up: one is never used again.
    Open,
    /// This side says nothing more on the leg.
    End,
    /// The leg is gone: this side takes nothing either.
    Reset,
    /// This side takes `len` bytes more.
    Window,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER] {
        let [a, b, c, d] = self.leg.to_be_bytes();
        let [_, x, y, z] = self.len.to_be_bytes();
        [a, b, c, d, self.kind as u8, x, y, z]
    }

    /// The header at the beginning of `bytes`, if they are as long as one.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<Self>, UnknownKind> {
        let Some(&[a, b, c, d, kind, x, y, z]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::Open,
            2 => Kind::End,
            3 => Kind::Reset,
            4 => Kind::Window,
            _ => return Err(UnknownKind),
        };
        let (leg, len) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([0, x, y, z]));
        Ok(Some(Self { leg, kind, len }))
    }
}

/// The far end speaks something else.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownKind;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        for kind in [Kind::Data, Kind::Open, Kind::End, Kind::Reset, Kind::Window] {
            for (leg, len) in [(0, 0), (1, 1), (0x0102_0304, 0x0005_0607), (u32::MAX, MAX_LEN as u32)] {
                let header = Header { leg, kind, len };
                let bytes = header.encode();
                assert_eq!(Header::decode(&bytes), Ok(Some(header)));
                assert_eq!(Header::decode(&bytes[..7]), Ok(None));
            }
        }
        assert_eq!(Header::decode(&[0, 0, 0, 0, 5, 0, 0, 0]), Err(UnknownKind));
    }
}
