//! HTTP by hand over a socket: for the admin port, for refusals, and for requests no library would send.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// An HTTP answer, read to the end of its body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// `GET path`, bounded by 5 s.
pub async fn get(addr: SocketAddr, path: &str) -> io::Result<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    exchange(addr, request.as_bytes(), Duration::from_secs(5)).await
}

/// Sends `request` as it is and reads one answer, bounded by `within`.
pub async fn exchange(addr: SocketAddr, request: &[u8], within: Duration) -> io::Result<Answer> {
    let work = async {
        let mut stream = TcpStream::connect(addr).await?;
        // A server may answer and close before it has read all of a bad request.
        drop(stream.write_all(request).await);
        read_answer(&mut stream).await
    };
    timeout(within, work).await?
}

/// Reads one answer's head and body; of a 101, the head alone.
pub async fn read_answer(stream: &mut TcpStream) -> io::Result<Answer> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(at) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        // One byte at a time: what follows a 101 belongs to somebody else.
        read.push(stream.read_u8().await?);
    };
    let mut answer = parse_head(&read[..end]).ok_or_else(|| io::Error::other("not an HTTP answer"))?;
    if answer.status != 101 {
        read_body(stream, &mut answer).await?;
    }
    Ok(answer)
}

async fn read_body(stream: &mut TcpStream, answer: &mut Answer) -> io::Result<()> {
    if let Some(length) = answer.header("content-length") {
        answer.body = vec![0; length.parse().map_err(io::Error::other)?];
        return stream.read_exact(&mut answer.body).await.map(drop);
    }
    if answer.header("transfer-encoding") != Some("chunked") {
        return stream.read_to_end(&mut answer.body).await.map(drop);
    }
    loop {
        let size = usize::from_str_radix(&read_line(stream).await?, 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; size];
        stream.read_exact(&mut chunk).await?;
        answer.body.extend(chunk);
        read_line(stream).await?;
        if size == 0 {
            return Ok(());
        }
    }
}

async fn read_line(stream: &mut TcpStream) -> io::Result<String> {
    let mut line = String::new();
    while !line.ends_with("\r\n") {
        line.push(stream.read_u8().await?.into());
    }
    Ok(line.trim_end().to_owned())
}

fn parse_head(head: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Some(Answer { status, headers, body: Vec::new() })
}
