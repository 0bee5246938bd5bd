//! A WebSocket client made of bytes: says what no library would say, and sees every frame.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    http::{self, Answer},
    wait,
};

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The key of RFC 6455's example; its accept value is known.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const PATIENCE: Duration = Duration::from_secs(20);

/// A socket after its handshake.
pub struct Raw {
    pub stream: TcpStream,
    pub answer: Answer,
}

/// One frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub rsv: u8,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a close frame.
    pub fn code(&self) -> Option<u16> {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        Some(u16::from_be_bytes(self.payload.get(..2)?.try_into().unwrap()))
    }
}

/// The bytes of a good handshake; `more` holds whole header lines, each ended with CRLF.
pub fn handshake(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: test\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n{more}\r\n"
    )
}

impl Raw {
    /// Shakes hands; whatever the answer is.
    pub async fn connect(addr: SocketAddr, path: &str, more: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        stream.write_all(handshake(path, more).as_bytes()).await?;
        let answer =
            wait::bounded(PATIENCE, "an answer to the handshake", http::read_answer(&mut stream)).await?;
        Ok(Self { stream, answer })
    }

    /// A connection that was accepted, for `key`.
    pub async fn open(addr: SocketAddr, key: &str) -> Self {
        let raw = Self::connect(addr, "/", &format!("ws-user-id: {key}\r\n")).await.unwrap();
        assert_eq!(raw.answer.status, 101, "{:?}", raw.answer);
        assert_eq!(raw.answer.header("sec-websocket-accept"), Some(ACCEPT));
        raw
    }

    /// Sends one masked frame.
    pub async fn frame(&mut self, fin: bool, opcode: u8, payload: &[u8]) -> io::Result<()> {
        self.bytes(&masked(fin, opcode, payload)).await
    }

    /// Sends bytes as they are.
    pub async fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next frame; an error when the connection ended or nothing came in time.
    pub async fn read(&mut self) -> io::Result<Frame> {
        tokio::time::timeout(PATIENCE, read_frame(&mut self.stream)).await?
    }

    /// The next whole message, pings answered by nobody: its opcode and payload.
    pub async fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let (mut opcode, mut payload) = (CONTINUATION, Vec::new());
        loop {
            let frame = self.read().await?;
            match frame.opcode {
                CLOSE => return Ok((CLOSE, frame.payload)),
                PING | PONG => continue,
                CONTINUATION => {}
                first => opcode = first,
            }
            payload.extend(frame.payload);
            if frame.fin {
                return Ok((opcode, payload));
            }
        }
    }
}

/// A client's frame.
pub fn masked(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x5a, 0x00, 0xff, 0x31];
    let mut frame = vec![opcode | if fin { 0x80 } else { 0 }];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | u8::try_from(short).unwrap()),
        middle @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The next frame of a server, whenever it comes.
pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let [first, second] = [stream.read_u8().await?, stream.read_u8().await?];
    if second & 0x80 != 0 {
        return Err(io::Error::other("a server must not mask"));
    }
    let length = match second & 0x7f {
        126 => stream.read_u16().await?.into(),
        127 => stream.read_u64().await?,
        short => short.into(),
    };
    let mut payload = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    stream.read_exact(&mut payload).await?;
    Ok(Frame { fin: first & 0x80 != 0, rsv: (first >> 4) & 7, opcode: first & 15, payload })
}
