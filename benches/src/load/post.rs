//! One HTTP/1.1 caller on a connection that it keeps, as cheap as it can be.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A caller that waits for each answer.
#[derive(Debug)]
pub struct Poster {
    io: TcpStream,
    read: Vec<u8>,
}

impl Poster {
    /// Connects.
    ///
    /// # Errors
    ///
    /// When nobody listens.
    pub async fn connect(addr: SocketAddr) -> Result<Self> {
        let io = TcpStream::connect(addr).await.context("connect")?;
        io.set_nodelay(true)?;
        Ok(Self { io, read: Vec::new() })
    }

    /// Posts `body` to `path`.
    ///
    /// # Errors
    ///
    /// When the answer is not 200, or does not say how long it is.
    pub async fn post(&mut self, path: &str, body: &str) -> Result<()> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.io.write_all(request.as_bytes()).await?;
        loop {
            if let Some(len) = message(&self.read)? {
                if !self.read.starts_with(b"HTTP/1.1 200") {
                    bail!("answered {}", String::from_utf8_lossy(&self.read));
                }
                self.read.drain(..len);
                return Ok(());
            }
            ensure!(self.io.read_buf(&mut self.read).await? > 0, "closed");
        }
    }
}

/// Gets a body.
///
/// # Errors
///
/// When the answer is not 200.
pub async fn get(addr: SocketAddr, path: &str) -> Result<String> {
    let mut io = TcpStream::connect(addr).await.context("connect")?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    io.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    io.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "answered {answer}");
    Ok(answer)
}

/// How long the message at the beginning is with its body, if it is whole.
pub(crate) fn message(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end])?.to_ascii_lowercase();
    let len: usize = match head.split("\r\ncontent-length:").nth(1) {
        Some(rest) => rest.lines().next().unwrap_or_default().trim().parse()?,
        None => 0,
    };
    let len = end + 4 + len;
    Ok((bytes.len() >= len).then_some(len))
}
