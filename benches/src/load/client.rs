//! One WebSocket client, as cheap as it can be: what it costs must not hide what the proxy costs.

use std::{cell::Cell, mem, net::SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

/// A connected client.
#[derive(Debug)]
pub struct Client<I = TcpStream> {
    io: I,
    /// Read and not consumed.
    read: Vec<u8>,
    /// What the next frame is made in.
    frame: Vec<u8>,
    payload: Vec<u8>,
    count: u64,
}

/// Opcodes of RFC 6455, section 5.2.
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const PING: u8 = 9;

/// What payloads are masked with. Any value is legal; a varying one would cost time and show nothing.
const MASK: [u8; 4] = [0x9d, 0x21, 0x5e, 0xc3];

impl Client {
    /// Connects to `addr` with routing key `key` and sends payloads of `size` bytes, 8 at least.
    ///
    /// # Errors
    ///
    /// When the handshake is not answered 101.
    pub async fn connect(addr: SocketAddr, key: &str, size: usize) -> Result<Self> {
        let io = TcpStream::connect(addr).await.context("connect")?;
        io.set_nodelay(true)?;
        Self::over(io, &format!("ws-user-id: {key}\r\n"), size).await
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Client<I> {
    /// Shakes hands over `io`, with those lines in the head too.
    ///
    /// # Errors
    ///
    /// When the handshake is not answered 101.
    pub async fn over(mut io: I, lines: &str, size: usize) -> Result<Self> {
        ensure!(size >= 8, "a payload holds a number of 8 bytes");
        let head = format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{lines}\r\n"
        );
        io.write_all(head.as_bytes()).await?;
        let mut read = Vec::with_capacity(1024);
        let end = loop {
            if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(io.read_buf(&mut read).await? > 0, "closed in the handshake");
        };
        if !read.starts_with(b"HTTP/1.1 101") {
            bail!("answered {}", String::from_utf8_lossy(&read[..end]));
        }
        read.drain(..end);
        let payload = (0..size).map(|i| (i * 7 + 13) as u8).collect();
        Ok(Self { io, read, frame: Vec::new(), payload, count: 0 })
    }

    /// Sends one message and waits for its echo.
    ///
    /// # Errors
    ///
    /// When another payload comes back, or none.
    pub async fn echo(&mut self) -> Result<()> {
        self.send().await?;
        self.receive().await
    }

    /// Sends a message with the next number.
    ///
    /// # Errors
    ///
    /// When the connection is lost.
    pub async fn send(&mut self) -> Result<()> {
        self.count += 1;
        self.payload[..8].copy_from_slice(&self.count.to_be_bytes());
        self.frame.clear();
        self.frame.push(0x82);
        head(&mut self.frame, 0x80, self.payload.len());
        self.frame.extend_from_slice(&MASK);
        let start = self.frame.len();
        self.frame.extend_from_slice(&self.payload);
        mask(&mut self.frame[start..], MASK);
        Ok(self.io.write_all(&self.frame).await?)
    }

    /// Waits for the echo of the last message; pings are answered meanwhile.
    ///
    /// # Errors
    ///
    /// When another payload comes back, or a Close, or the connection is lost.
    pub async fn receive(&mut self) -> Result<()> {
        let payload = mem::take(&mut self.payload);
        let received = self.expect(BINARY, &payload).await;
        self.payload = payload;
        received
    }

    /// Waits for a text message, which has to be `text`; pings are answered meanwhile.
    ///
    /// # Errors
    ///
    /// When another message comes, or a Close, or the connection is lost.
    pub async fn receive_text(&mut self, text: &str) -> Result<()> {
        self.expect(TEXT, text.as_bytes()).await
    }

    async fn expect(&mut self, kind: u8, payload: &[u8]) -> Result<()> {
        loop {
            if let Some((opcode, start, end)) = frame(&self.read) {
                if opcode == PING {
                    self.pong(start, end).await?;
                    self.read.drain(..end);
                    continue;
                }
                ensure!(opcode == kind, "a frame with opcode {opcode}: {:?}", &self.read[start..end]);
                ensure!(self.read[start..end] == *payload, "another payload came");
                self.read.drain(..end);
                return Ok(());
            }
            ensure!(self.io.read_buf(&mut self.read).await? > 0, "closed");
        }
    }

    async fn pong(&mut self, start: usize, end: usize) -> Result<()> {
        let mut pong = vec![0x8a, 0x80 | (end - start) as u8];
        pong.extend_from_slice(&[0; 4]);
        pong.extend_from_slice(&self.read[start..end]);
        Ok(self.io.write_all(&pong).await?)
    }

    /// Reads messages and counts them, for ever; pings are answered.
    ///
    /// # Errors
    ///
    /// When a Close comes, or the connection is lost.
    pub async fn count(&mut self, count: &Cell<u64>) -> Result<()> {
        loop {
            let mut done = 0;
            while let Some((opcode, start, end)) = frame(&self.read[done..]) {
                match opcode {
                    TEXT | BINARY => count.set(count.get() + 1),
                    PING => self.pong(done + start, done + end).await?,
                    _ => bail!("a frame with opcode {opcode}"),
                }
                done += end;
            }
            self.read.drain(..done);
            ensure!(self.io.read_buf(&mut self.read).await? > 0, "closed");
        }
    }

    /// Says that it goes, and waits until the proxy has closed the connection.
    ///
    /// # Errors
    ///
    /// When it is not closed in an orderly way.
    pub async fn close(mut self) -> Result<()> {
        let mut close = vec![0x88, 0x82];
        close.extend_from_slice(&MASK);
        close.extend_from_slice(&[0x03 ^ MASK[0], 0xe8 ^ MASK[1]]);
        self.io.write_all(&close).await?;
        while self.io.read_buf(&mut self.read).await? > 0 {}
        Ok(())
    }
}

/// Appends the length of a frame's payload, with `flag` (the mask bit).
fn head(frame: &mut Vec<u8>, flag: u8, len: usize) {
    match len {
        0..126 => frame.push(flag | len as u8),
        126..65536 => {
            frame.push(flag | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            frame.push(flag | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// Masks or unmasks.
pub(crate) fn mask(bytes: &mut [u8], key: [u8; 4]) {
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// The opcode and the payload's bounds of the frame at the beginning, if it is whole and not masked.
fn frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (&first, &len) = (bytes.first()?, bytes.get(1)?);
    let (start, len) = match len & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        len => (2, usize::from(len)),
    };
    (bytes.len() >= start + len).then_some((first & 0x0f, start, start + len))
}
