//! WebSocket frames (RFC 6455 §5) without I/O: where frames and messages begin and end, and control frames of our own.
//!
//! A proxy that forwards bytes as they came needs no more than frame headers. [`Decoder`] splits a byte stream into
//! [`Unit`]s and never looks at the payload of data; control frames, at most 125 bytes, are given whole.

/// The longest payload of a control frame, in bytes (RFC 6455 §5.5).
pub const MAX_CONTROL: usize = 125;

/// The longest frame header, in bytes.
pub const MAX_HEADER: usize = 14;

/// Splits the bytes of one direction into units. It keeps no bytes: what [`Decoder::next`] does not consume is to
/// be offered again, with more behind it.
#[derive(Clone, Debug)]
pub struct Decoder {
    masked: bool,
    compressed: bool,
    hold: u32,
    /// Payload bytes of the data frame that is passing through.
    left: u64,
    /// Whether the frame that is passing through is the last of its message.
    last: bool,
    /// Inside a message: after a frame without FIN, or within the message's only frame.
    open: bool,
}

impl Decoder {
    /// For the stream of a client (`masked`) or a server. `compressed` permits RSV1, for permessage-deflate.
    ///
    /// Data frames with a payload of at most `hold` bytes, 4 GiB at most, are given only when they are whole.
    #[must_use]
    pub fn new(masked: bool, compressed: bool, hold: usize) -> Self {
        let hold = hold.try_into().unwrap_or(u32::MAX);
        Self { masked, compressed, hold, left: 0, last: false, open: false }
    }

    /// The unit at the front of `bytes`, or `None` when more bytes are needed to tell.
    ///
    /// # Errors
    ///
    /// [`Violation`] when the peer breaks the protocol. The stream cannot be read on.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Option<Unit>, Violation> {
        if self.left > 0 {
            return Ok((!bytes.is_empty()).then(|| self.passing(0, bytes.len())));
        }
        let Some(header) = Header::parse(bytes)? else { return Ok(None) };
        self.check(&header)?;
        if header.opcode.is_control() {
            return Ok(header.control(bytes));
        }
        let whole = header.size as u64 + header.len;
        if header.len <= u64::from(self.hold) && (bytes.len() as u64) < whole {
            return Ok(None);
        }
        self.left = header.len;
        self.last = header.fin;
        self.open = true;
        Ok(Some(self.passing(header.size, bytes.len())))
    }

    /// Whether the next byte begins a frame.
    #[must_use]
    pub fn at_frame(&self) -> bool {
        self.left == 0
    }

    /// Whether the next byte begins a message, or a control frame between two messages.
    #[must_use]
    pub fn at_message(&self) -> bool {
        self.left == 0 && !self.open
    }

    /// Takes the next span of the passing frame: `header` bytes, then what there is of its payload.
    fn passing(&mut self, header: usize, have: usize) -> Unit {
        let span = self.left.min((have - header) as u64) as usize;
        self.left -= span as u64;
        let ends = self.left == 0 && self.last;
        self.open &= !ends;
        Unit { len: header + span, kind: Kind::Data { ends_message: ends } }
    }

    fn check(&self, header: &Header) -> Result<(), Violation> {
        let rsv1_fits =
            self.compressed && !header.opcode.is_control() && header.opcode != Opcode::Continuation;
        match header {
            h if h.mask.is_some() != self.masked => {
                Err(Violation("a client's frame must be masked, a server's not"))
            }
            h if h.rsv & 0b011 != 0 || (h.rsv != 0 && !rsv1_fits) => Err(Violation("a reserved bit is set")),
            h if h.opcode.is_control() && !h.fin => Err(Violation("a control frame is fragmented")),
            h if h.opcode.is_control() && h.len > MAX_CONTROL as u64 => {
                Err(Violation("a control frame is over 125 bytes"))
            }
            h if h.opcode == Opcode::Close && h.len == 1 => {
                Err(Violation("a Close has a payload of one byte"))
            }
            h if h.opcode == Opcode::Continuation && !self.open => {
                Err(Violation("a continuation continues nothing"))
            }
            h if !h.opcode.is_control() && h.opcode != Opcode::Continuation && self.open => {
                Err(Violation("a new message begins inside another"))
            }
            _ => Ok(()),
        }
    }
}

/// A piece of the stream: its first [`Unit::len`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// How many bytes it has.
    pub len: usize,
    /// What they are.
    pub kind: Kind,
}

/// What a [`Unit`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes of data frames, headers included.
    Data {
        /// The message ends with these bytes.
        ends_message: bool,
    },
    /// A whole control frame.
    Control(Control),
}

/// A control frame's kind and payload, unmasked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// Ping, pong or Close.
    pub opcode: Opcode,
    len: u8,
    payload: [u8; MAX_CONTROL],
}

impl Control {
    /// The payload, at most 125 bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload[..usize::from(self.len)]
    }

    /// A Close's code; 1005 when it has none (RFC 6455 §7.1.5).
    #[must_use]
    pub fn code(&self) -> u16 {
        match self.payload() {
            [high, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => 1005,
        }
    }
}

/// Whether a Close may have that code (RFC 6455 §7.4, and what is registered since).
#[must_use]
pub const fn may_travel(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}({:?})", self.opcode, String::from_utf8_lossy(self.payload()))
    }
}

/// The kinds of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A further frame of a message.
    Continuation = 0,
    /// The first frame of a text message.
    Text = 1,
    /// The first frame of a binary message.
    Binary = 2,
    /// The end.
    Close = 8,
    /// A question.
    Ping = 9,
    /// Its answer.
    Pong = 10,
}

impl Opcode {
    /// Whether it is Close, ping or pong.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self as u8 >= 8
    }

    fn new(bits: u8) -> Result<Self, Violation> {
        Ok(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return Err(Violation("a reserved opcode")),
        })
    }
}

/// A frame header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The last frame of its message.
    pub fin: bool,
    /// RSV1 to RSV3, as the bits 4, 2, 1.
    pub rsv: u8,
    /// The kind.
    pub opcode: Opcode,
    /// The masking key, in a client's frame.
    pub mask: Option<[u8; 4]>,
    /// The payload's length, in bytes.
    pub len: u64,
    /// The header's own size, in bytes.
    pub size: usize,
}

impl Header {
    /// Reads the header at the front of `bytes`; `None` when there is not enough of it.
    ///
    /// # Errors
    ///
    /// [`Violation`] for an opcode or a length that RFC 6455 does not permit.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        let opcode = Opcode::new(first & 0x0f)?;
        let Some((len, extended)) = length(second & 0x7f, rest)? else { return Ok(None) };
        let mask = match second & 0x80 {
            0 => None,
            _ => match rest.get(extended..).and_then(|r| r.first_chunk::<4>()) {
                Some(mask) => Some(*mask),
                None => return Ok(None),
            },
        };
        let size = 2 + extended + if mask.is_some() { 4 } else { 0 };
        Ok(Some(Self { fin: first & 0x80 != 0, rsv: (first >> 4) & 0b111, opcode, mask, len, size }))
    }

    /// The control frame whose header this is, once all its bytes are there. `check` has bounded its length.
    fn control(&self, bytes: &[u8]) -> Option<Unit> {
        let len = self.len as usize;
        let end = self.size + len;
        let source = bytes.get(self.size..end)?;
        let mut payload = [0; MAX_CONTROL];
        payload[..len].copy_from_slice(source);
        if let Some(mask) = self.mask {
            apply_mask(&mut payload[..len], mask);
        }
        Some(Unit { len: end, kind: Kind::Control(Control { opcode: self.opcode, len: len as u8, payload }) })
    }
}

/// The payload length that `short` stands for, and how many further bytes tell it.
fn length(short: u8, rest: &[u8]) -> Result<Option<(u64, usize)>, Violation> {
    match short {
        126 => Ok(rest.first_chunk().map(|b| (u64::from(u16::from_be_bytes(*b)), 2))),
        127 => match rest.first_chunk().map(|b| u64::from_be_bytes(*b)) {
            Some(len) if len >> 63 != 0 => Err(Violation("a frame's length has its highest bit set")),
            len => Ok(len.map(|len| (len, 8))),
        },
        short => Ok(Some((u64::from(short), 0))),
    }
}

/// Masks or unmasks `payload` (RFC 6455 §5.3).
pub fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    for (at, byte) in payload.iter_mut().enumerate() {
        *byte ^= mask[at % 4];
    }
}

/// Appends a whole frame with FIN to `out`, masked where `mask` is given.
pub fn write(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    write_header(out, opcode, payload.len(), mask);
    let start = out.len();
    out.extend(payload);
    if let Some(mask) = mask {
        apply_mask(&mut out[start..], mask);
    }
}

/// Appends the header of a whole frame with FIN, whose payload has `len` bytes.
pub(crate) fn write_header(out: &mut Vec<u8>, opcode: Opcode, len: usize, mask: Option<[u8; 4]>) {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    out.push(0x80 | opcode as u8);
    match len {
        len @ 0..=125 => out.push(bit | len as u8),
        len @ 126..=0xffff => {
            out.push(bit | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(bit | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(mask.into_iter().flatten());
}

/// The payload of a Close: the code and as much of `reason` as fits, cut at a character's end.
#[must_use]
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(MAX_CONTROL - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    [&code.to_be_bytes()[..], &reason.as_bytes()[..end]].concat()
}

/// How a peer broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(&'static str);

impl Violation {
    /// What was wrong, in a few words.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a stream consists of, however it is split: bytes of data, ends of messages, control frames.
    fn read(decoder: &mut Decoder, bytes: &[u8], chunk: usize) -> (usize, usize, Vec<Control>) {
        let (mut held, mut data, mut ends, mut controls) = (Vec::new(), 0, 0, Vec::new());
        for part in bytes.chunks(chunk) {
            held.extend_from_slice(part);
            let mut at = 0;
            while let Some(unit) = decoder.next(&held[at..]).unwrap() {
                at += unit.len;
                match unit.kind {
                    Kind::Data { ends_message } => {
                        data += unit.len;
                        ends += usize::from(ends_message);
                    }
                    Kind::Control(control) => controls.push(control),
                }
            }
            held.drain(..at);
        }
        assert!(held.is_empty(), "nothing is left over");
        (data, ends, controls)
    }

    #[test]
    fn every_split_gives_the_same_units() {
        let mut bytes = Vec::new();
        for len in [0, 1, 125, 126, 300, 70_000] {
            write(&mut bytes, Opcode::Text, &vec![7; len], None);
            write(&mut bytes, Opcode::Ping, b"ping", None);
        }
        for hold in [0, 100, 65_536] {
            let whole = read(&mut Decoder::new(false, false, hold), &bytes, bytes.len());
            assert_eq!((whole.1, whole.2.len()), (6, 6));
            for chunk in [1, 2, 3, 7, 13, 127, 4096] {
                assert_eq!(read(&mut Decoder::new(false, false, hold), &bytes, chunk), whole);
            }
        }
    }

    #[test]
    fn a_frame_within_the_hold_is_given_only_when_it_is_whole() {
        let mut bytes = Vec::new();
        write(&mut bytes, Opcode::Binary, &[1; 100], None);
        let mut decoder = Decoder::new(false, false, 100);
        for end in 0..bytes.len() {
            assert_eq!(decoder.next(&bytes[..end]), Ok(None));
        }
        let whole = Unit { len: bytes.len(), kind: Kind::Data { ends_message: true } };
        assert_eq!(decoder.next(&bytes), Ok(Some(whole)));
        let mut decoder = Decoder::new(false, false, 99);
        assert!(decoder.next(&bytes[..50]).unwrap().is_some());
        assert!(!decoder.at_frame());
    }

    #[test]
    fn a_message_of_70_000_fragments_is_one_message() {
        let mut bytes = Vec::new();
        for n in 0..70_000 {
            let start = bytes.len();
            let opcode = if n == 0 { Opcode::Text } else { Opcode::Continuation };
            write(&mut bytes, opcode, b"x", Some([1, 2, 3, 4]));
            bytes[start] &= if n == 69_999 { 0xff } else { 0x7f };
        }
        let mut decoder = Decoder::new(true, false, 0);
        let (data, ends, _) = read(&mut decoder, &bytes, 1000);
        assert_eq!((data, ends), (bytes.len(), 1));
        assert!(decoder.at_message());
    }

    #[test]
    fn what_breaks_the_protocol_is_refused() {
        let masked = |first: u8, len: u8| vec![first, 0x80 | len, 0, 0, 0, 0, 0, 0];
        let cases: [(&str, Vec<u8>); 10] = [
            ("not masked", vec![0x81, 0]),
            ("RSV1 without compression", masked(0xc1, 0)),
            ("RSV2", masked(0xa1, 0)),
            ("a reserved data opcode", masked(0x83, 0)),
            ("a reserved control opcode", masked(0x8b, 0)),
            ("a fragmented control frame", masked(0x09, 0)),
            ("a long control frame", vec![0x89, 0xfe, 0, 126, 0, 0, 0, 0]),
            ("a Close of one byte", masked(0x88, 1)),
            ("a continuation of nothing", masked(0x80, 0)),
            ("a length with its highest bit", vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ];
        for (what, bytes) in cases {
            assert!(Decoder::new(true, false, 0).next(&bytes).is_err(), "{what}");
        }
        let mut decoder = Decoder::new(true, false, 0);
        assert!(decoder.next(&masked(0x01, 0)[..6]).is_ok());
        assert!(decoder.next(&masked(0x81, 0)).is_err(), "a message inside another");
        assert!(Decoder::new(true, true, 0).next(&masked(0xc1, 0)).is_ok(), "RSV1 with compression");
    }
}
