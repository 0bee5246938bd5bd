//! Where the body of an answer ends, without I/O: its bytes pass as they came.

use super::{Framing, Nonsense};

/// Follows a body and tells its data from what frames it.
#[derive(Debug)]
pub struct BodyEnd(State);

#[derive(Debug)]
enum State {
    Length(u64),
    UntilClose,
    Chunked(Chunk),
}

/// A piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes of data.
    Data(usize),
    /// So many bytes of chunk sizes, line ends and trailers.
    Framing(usize),
    /// The body is over: what follows is not part of it.
    End,
}

impl BodyEnd {
    /// At the beginning of a body.
    #[must_use]
    pub const fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Empty => State::Length(0),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(Chunk::START),
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// Whether the body may end here, if the connection does.
    #[must_use]
    pub const fn may_end(&self) -> bool {
        matches!(self.0, State::UntilClose | State::Length(0) | State::Chunked(Chunk::Done))
    }

    /// What the first of `bytes` are. Pieces are never empty, unless `bytes` is.
    ///
    /// # Errors
    ///
    /// [`Nonsense`] when chunks are not framed as they must be.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Piece, Nonsense> {
        match &mut self.0 {
            State::Length(0) | State::Chunked(Chunk::Done) => Ok(Piece::End),
            State::Length(left) => Ok(Piece::Data(take(left, bytes))),
            State::UntilClose => Ok(Piece::Data(bytes.len())),
            State::Chunked(Chunk::Data(left)) if *left > 0 => Ok(Piece::Data(take(left, bytes))),
            State::Chunked(chunk) => chunk.framing(bytes).map(Piece::Framing),
        }
    }
}

fn take(left: &mut u64, bytes: &[u8]) -> usize {
    let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= taken as u64;
    taken
}

/// Where in a chunked body we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// In the digits of a size.
    Size { size: u64, digits: u8 },
    /// In what follows the digits, so many bytes of it.
    Extension { size: u64, len: u16 },
    /// Behind the CR of a size line.
    SizeEnd { size: u64 },
    /// In a chunk's data, so many bytes before its end.
    Data(u64),
    /// Behind the CR of a chunk's data.
    DataEnd,
    /// In a trailer line, so many bytes in and so many bytes of all trailers.
    Trailer { line: u16, all: u16 },
    /// Behind the CR of a trailer line.
    TrailerEnd { line: u16, all: u16 },
    /// Behind the last chunk.
    Done,
}

impl Chunk {
    const START: Self = Self::Size { size: 0, digits: 0 };
    /// The most bytes of a chunk's extension, and of all trailers.
    const MOST: u16 = 4096;

    /// Takes the bytes up to the next data or the end.
    fn framing(&mut self, bytes: &[u8]) -> Result<usize, Nonsense> {
        for (i, &byte) in bytes.iter().enumerate() {
            if *self == Self::Done || matches!(self, Self::Data(1..)) {
                return Ok(i);
            }
            *self = self.after(byte).ok_or(Nonsense("a chunked body with broken chunks"))?;
        }
        Ok(bytes.len())
    }

    fn after(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Size { size, digits }, b'\r') if digits > 0 => Some(Self::SizeEnd { size }),
            (Self::Size { size, digits }, b';' | b' ' | b'\t') if digits > 0 => {
                Some(Self::Extension { size, len: 0 })
            }
            (Self::Size { size, digits: digits @ ..=15 }, digit) => {
                let value = char::from(digit).to_digit(16)?;
                Some(Self::Size { size: size << 4 | u64::from(value), digits: digits + 1 })
            }
            (Self::Extension { size, .. }, b'\r') => Some(Self::SizeEnd { size }),
            (Self::Extension { size, len: len @ ..Self::MOST }, b'\t' | b' '..) => {
                Some(Self::Extension { size, len: len + 1 })
            }
            (Self::SizeEnd { size: 0 }, b'\n') => Some(Self::Trailer { line: 0, all: 0 }),
            (Self::SizeEnd { size }, b'\n') => Some(Self::Data(size)),
            (Self::Data(0), b'\r') => Some(Self::DataEnd),
            (Self::DataEnd, b'\n') => Some(Self::START),
            (Self::Trailer { line, all }, b'\r') => Some(Self::TrailerEnd { line, all }),
            (Self::Trailer { line, all: all @ ..Self::MOST }, b'\t' | b' '..) => {
                Some(Self::Trailer { line: line + 1, all: all + 1 })
            }
            (Self::TrailerEnd { line: 0, .. }, b'\n') => Some(Self::Done),
            (Self::TrailerEnd { all, .. }, b'\n') => Some(Self::Trailer { line: 0, all }),
            _ => None,
        }
    }
}
