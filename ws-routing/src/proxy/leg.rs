//! What an upstream leg's bytes travel in. Nothing above this file assumes a socket per leg.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
};

use super::trunk::SharedLeg;

/// What legs to nodes travel in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Legs {
    /// A TCP connection for each leg.
    #[default]
    Tcp,
    /// A few connections to each node, shared by its legs, with a window of 64 KiB each way for each leg. A node that
    /// does not agree to that within 1 s gets a connection for each leg, until it leaves.
    Shared,
}

/// One leg's byte stream.
#[derive(Debug)]
pub enum LegStream {
    /// A TCP connection of its own.
    Tcp(TcpStream),
    /// A part of a TCP connection.
    Shared(SharedLeg),
    /// Within this process: to its own sidecar, or to an app that speaks something else than WebSocket.
    Local(DuplexStream),
}

impl From<TcpStream> for LegStream {
    fn from(io: TcpStream) -> Self {
        Self::Tcp(io)
    }
}

impl From<DuplexStream> for LegStream {
    fn from(io: DuplexStream) -> Self {
        Self::Local(io)
    }
}

impl AsyncRead for LegStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Self::Shared(io) => Pin::new(io).poll_read(cx, buf),
            Self::Local(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for LegStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Shared(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Local(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_flush(cx),
            Self::Shared(io) => Pin::new(io).poll_flush(cx),
            Self::Local(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Self::Shared(io) => Pin::new(io).poll_shutdown(cx),
            Self::Local(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
