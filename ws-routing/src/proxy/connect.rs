//! Reaches a node or the app: one dial, one handshake, no second try.

use std::{io, net::SocketAddr, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::handshake::{
    Accepted, Handshake, Nonsense, ResponseHead,
    body::{BodyEnd, Piece},
};

/// Opens a TCP connection: no delay, and keepalive probes after 60 s of silence.
///
/// # Errors
///
/// [`DialError`], after `limit` at the latest.
///
/// # Cancel safety
///
/// Dropping the future closes the connection.
pub async fn dial(addr: SocketAddr, limit: Duration) -> Result<TcpStream, DialError> {
    let io = timeout(limit, TcpStream::connect(addr)).await.map_err(|_| DialError::TimedOut)??;
    settle(&io)?;
    Ok(io)
}

/// Sets what every long-lived connection of ours has, dialled or accepted: no delay, and keepalive probes after 60 s of
/// silence, every 10 s, so that the kernel finds a peer that has vanished.
///
/// # Errors
///
/// The kernel's.
pub fn settle(io: &TcpStream) -> io::Result<()> {
    settle_socket(&SockRef::from(io))
}

/// As [`settle`]; a listener's connections come with what it has.
pub(crate) fn settle_socket(io: &SockRef<'_>) -> io::Result<()> {
    io.set_tcp_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10));
    io.set_tcp_keepalive(&keepalive)
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The connect took longer than it may.
    #[error("connecting timed out")]
    TimedOut,
    /// Refused, reset, or not reachable.
    #[error("cannot connect")]
    Failed(#[from] io::Error),
}

/// How a handshake ended.
#[derive(Debug)]
pub enum Opened<I> {
    /// With a 101 that is right.
    Upgraded(Upgraded<I>),
    /// With another answer of the app.
    Answered(Answered<I>),
}

/// A leg that speaks WebSocket.
#[derive(Debug)]
pub struct Upgraded<I> {
    /// The connection.
    pub io: I,
    /// What was read beyond the head: the first frames.
    pub leftover: Bytes,
    /// The answer, and what it agrees.
    pub answer: Accepted,
}

/// Sends `head`, which is `handshake` as rendered for this far end, and reads the answer to it.
///
/// Interim answers (1xx) are skipped, ten at most. The head is held to [`ResponseHead::MAX_LEN`].
///
/// # Errors
///
/// [`OpenError`], after `limit` at the latest.
///
/// # Cancel safety
///
/// Dropping the future closes the connection.
pub async fn open<I>(
    mut io: I,
    head: &[u8],
    handshake: &Handshake,
    limit: Duration,
) -> Result<Opened<I>, OpenError>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let exchange = async {
        io.write_all(head).await?;
        io.flush().await?;
        final_answer(&mut io).await
    };
    let (answer, buffer) = timeout(limit, exchange).await.map_err(|_| OpenError::TimedOut)??;
    if answer.parts.status.as_u16() == 101 {
        let answer = handshake.accepted(answer)?;
        return Ok(Opened::Upgraded(Upgraded { io, leftover: buffer.freeze(), answer }));
    }
    Ok(Opened::Answered(Answered::new(answer, io, buffer)?))
}

/// Reads the head of the answer that is none of the interim ones (but for a 101), and what came behind it.
pub(crate) async fn final_answer(
    io: &mut (impl AsyncRead + Unpin),
) -> Result<(ResponseHead, BytesMut), OpenError> {
    const INTERIM: usize = 10;
    let mut buffer = BytesMut::with_capacity(4096);
    let mut interim = 0;
    loop {
        while let Some((answer, len)) = ResponseHead::parse(&buffer)? {
            buffer.advance(len);
            if !answer.parts.status.is_informational() || answer.parts.status.as_u16() == 101 {
                return Ok((answer, buffer));
            }
            interim += 1;
            if interim > INTERIM {
                return Err(Nonsense("more than ten interim answers").into());
            }
        }
        buffer.reserve(2048);
        if io.read_buf(&mut buffer).await? == 0 {
            return Err(OpenError::Lost(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Why a handshake has no answer for the client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No answer in time.
    #[error("the handshake timed out")]
    TimedOut,
    /// The connection ended before the answer was complete.
    #[error("the connection was lost in the handshake")]
    Lost(#[from] io::Error),
    /// The answer breaks the protocol.
    #[error("the answer to the handshake is nonsense")]
    Nonsense(#[from] Nonsense),
}

/// An answer other than a 101, its body not read yet.
#[derive(Debug)]
pub struct Answered<I> {
    /// The head.
    pub head: ResponseHead,
    io: I,
    buffer: BytesMut,
    end: BodyEnd,
}

impl<I> Answered<I> {
    /// Behind `head`, `io` goes on with `buffer`.
    pub(crate) fn new(head: ResponseHead, io: I, buffer: BytesMut) -> Result<Self, Nonsense> {
        let end = BodyEnd::new(head.framing()?);
        Ok(Self { head, io, buffer, end })
    }

    /// The same answer on a connection that is seen as another type.
    pub(crate) fn map<J>(self, f: impl FnOnce(I) -> J) -> Answered<J> {
        Answered { head: self.head, io: f(self.io), buffer: self.buffer, end: self.end }
    }

    /// The connection, if the whole answer was read and another request may follow.
    pub(crate) fn into_idle(mut self) -> Option<I> {
        let over = matches!(self.end.next(&[]), Ok(Piece::End)) && self.buffer.is_empty();
        (over && self.head.persists()).then_some(self.io)
    }
}

impl<I: AsyncRead + Unpin> Answered<I> {
    /// Passes the answer on to `client`, head and body, as it came. Holds 16 KiB at most, returns the bytes of the body.
    /// Then `client` is to be closed.
    ///
    /// # Errors
    ///
    /// [`PumpError`]: the client has part of an answer, and is to be cut.
    pub async fn forward(
        mut self,
        client: &mut (impl AsyncWrite + Unpin),
        stall: Duration,
    ) -> Result<u64, PumpError> {
        write(client, &self.head.render(), stall).await?;
        let mut sent = 0;
        while let Some((bytes, _)) = self.piece(stall).await? {
            write(client, &bytes, stall).await?;
            sent += bytes.len() as u64;
        }
        timeout(stall, client.flush()).await.map_err(|_| PumpError::Stalled)?.map_err(PumpError::Client)?;
        Ok(sent)
    }

    /// The next data of the body, free of its chunks' framing: `None` at its end.
    ///
    /// # Errors
    ///
    /// [`PumpError`], after `stall` without a byte at the latest.
    pub async fn data(&mut self, stall: Duration) -> Result<Option<Bytes>, PumpError> {
        while let Some((bytes, is_data)) = self.piece(stall).await? {
            if is_data {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// The next bytes of the body, and whether they are data.
    async fn piece(&mut self, stall: Duration) -> Result<Option<(Bytes, bool)>, PumpError> {
        while self.buffer.is_empty() && self.end.next(&[])? != Piece::End {
            self.buffer.reserve(16 * 1024);
            let read =
                timeout(stall, self.io.read_buf(&mut self.buffer)).await.map_err(|_| PumpError::Stalled)?;
            if read.map_err(PumpError::Upstream)? == 0 {
                let cut = || PumpError::Upstream(io::ErrorKind::UnexpectedEof.into());
                return if self.end.may_end() { Ok(None) } else { Err(cut()) };
            }
        }
        Ok(match self.end.next(&self.buffer)? {
            Piece::Data(len) => Some((self.buffer.split_to(len).freeze(), true)),
            Piece::Framing(len) => Some((self.buffer.split_to(len).freeze(), false)),
            Piece::End => None,
        })
    }
}

async fn write(
    client: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    stall: Duration,
) -> Result<(), PumpError> {
    timeout(stall, client.write_all(bytes)).await.map_err(|_| PumpError::Stalled)?.map_err(PumpError::Client)
}

/// Why an answer did not reach the client in full.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PumpError {
    /// No byte could be read or written for the stall timeout.
    #[error("the answer stalled")]
    Stalled,
    /// The app's side ended inside the body.
    #[error("the answer was cut short")]
    Upstream(#[source] io::Error),
    /// The client is gone.
    #[error("the client is gone")]
    Client(#[source] io::Error),
    /// The body breaks the protocol.
    #[error("the answer's body is nonsense")]
    Nonsense(#[from] Nonsense),
}
