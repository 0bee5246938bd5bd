//! A caller of the API, over one kept connection.

use std::{io, net::SocketAddr};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::wait::{bounded, secs};

pub struct Api {
    addr: SocketAddr,
    stream: Option<TcpStream>,
}

#[derive(Debug)]
pub struct Sent {
    pub status: u16,
    head: String,
    body: Vec<u8>,
}

impl Sent {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn lines(&self) -> Vec<Value> {
        let lines = self.body.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

impl Api {
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, stream: None }
    }

    /// Sends a text message.
    pub async fn send(&mut self, key: &str, text: &str, query: &str) -> Sent {
        let path = format!("/v1/keys/{key}/messages{query}");
        self.call("POST", &path, &[("content-type", "text/plain")], text.as_bytes()).await
    }

    pub async fn call(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Sent {
        let call = self.try_call(method, path, headers, body);
        bounded(secs(20), "an answer of the API", call).await.unwrap()
    }

    /// As [`Api::call`], where the sidecar may go away.
    ///
    /// # Errors
    ///
    /// Whatever the connection says. With `ConnectionRefused` nothing was sent.
    pub async fn try_call(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Sent> {
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n", self.addr, body.len());
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => TcpStream::connect(self.addr).await?,
        };
        stream.set_nodelay(true)?;
        stream.write_all(&[head.as_bytes(), b"\r\n", body].concat()).await?;
        let sent = read(&mut stream).await?;
        if sent.header("connection") != Some("close") {
            self.stream = Some(stream);
        }
        Ok(sent)
    }
}

/// Reads one answer that has a length.
///
/// # Errors
///
/// Whatever the connection says.
pub async fn read(stream: &mut TcpStream) -> io::Result<Sent> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        more(stream, &mut bytes).await?;
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.get(9..12).unwrap().parse().unwrap();
    let mut sent = Sent { status, head, body: bytes[end..].to_vec() };
    let length: usize = sent.header("content-length").map_or(0, |length| length.parse().unwrap());
    while sent.body.len() < length {
        more(stream, &mut sent.body).await?;
    }
    Ok(sent)
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    match stream.read_buf(bytes).await? {
        0 => Err(io::Error::other("the API closed the connection")),
        _ => Ok(()),
    }
}
