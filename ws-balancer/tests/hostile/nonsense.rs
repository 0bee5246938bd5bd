//! An application that answers nonsense, and what its client is told.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use crate::support::raw::ACCEPT;

/// What the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Status(u16),
    /// 101, then a Close of this code.
    Code(u16),
    /// The beginning of an answer, then the end.
    Cut,
}

/// Name, the app's bytes, what the client is told of them. The app closes after them.
pub fn table() -> Vec<Case> {
    [switches(), answers(), frames()].concat()
}

type Case = (&'static str, Vec<u8>, Told);

const BAD: Told = Told::Status(502);

/// A 101 without the empty line at its end.
fn good() -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-accept: {ACCEPT}\r\n"
    )
}

/// A 101 that is none for this client.
fn switches() -> Vec<Case> {
    let good = good();
    let head = |from: &str, to: &str| (good.replace(from, to) + "\r\n").into_bytes();
    let plus = |line: &str| format!("{good}{line}\r\n\r\n").into_bytes();
    let accept = format!("sec-websocket-accept: {ACCEPT}\r\n");
    vec![
        ("a wrong accept", head(ACCEPT, "bm90IHRoZSByaWdodCBvbmU="), BAD),
        ("no accept", head(&accept, ""), BAD),
        ("two accepts", head(&accept, &accept.repeat(2)), BAD),
        ("no upgrade", head("upgrade: websocket\r\n", ""), BAD),
        ("another upgrade", head("upgrade: websocket", "upgrade: h2c"), BAD),
        ("no connection", head("connection: upgrade\r\n", ""), BAD),
        ("HTTP/1.0", head("HTTP/1.1", "HTTP/1.0"), BAD),
        ("an unasked subprotocol", plus("sec-websocket-protocol: v9"), BAD),
        ("two subprotocols", plus("sec-websocket-protocol: a\r\nsec-websocket-protocol: a"), BAD),
        ("an unknown extension", plus("sec-websocket-extensions: x-unknown"), BAD),
        ("an unasked extension", plus("sec-websocket-extensions: permessage-deflate"), BAD),
        (
            "a doubled extension",
            plus("sec-websocket-extensions: permessage-deflate, permessage-deflate"),
            BAD,
        ),
        ("a NUL in a field", plus("x: a\0b"), BAD),
        ("a folded field", plus("x: a\r\n b"), BAD),
        ("a space before the colon", plus("x : a"), BAD),
        ("200 fields", plus(vec!["x: a"; 200].join("\r\n").as_str()), BAD),
        ("100 KB of head", plus(&format!("x: {}", "a".repeat(100_000))), BAD),
    ]
}

/// Other answers, or what is none.
fn answers() -> Vec<Case> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("another protocol", text("SSH-2.0-OpenSSH_9.9\r\n\r\n"), BAD),
        ("a TLS alert", b"\x15\x03\x03\x00\x02\x02\x46".to_vec(), BAD),
        ("no status", text("HTTP/1.1 abc OK\r\n\r\n"), BAD),
        ("a status of four digits", text("HTTP/1.1 1010 OK\r\n\r\n"), BAD),
        ("HTTP/2 in text", text("HTTP/2 101 Switching Protocols\r\n\r\n"), BAD),
        ("a hundred interim answers", b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100), BAD),
        (
            "a redirect",
            text("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n"),
            Told::Status(302),
        ),
        ("two lengths", text("HTTP/1.1 403 No\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"), BAD),
        ("a negative length", text("HTTP/1.1 403 No\r\ncontent-length: -1\r\n\r\n"), BAD),
        (
            "a length and chunks",
            text("HTTP/1.1 403 No\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            BAD,
        ),
        ("an unknown coding", text("HTTP/1.1 403 No\r\ntransfer-encoding: gzip\r\n\r\nx"), BAD),
        ("broken chunks", text("HTTP/1.1 403 No\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc"), Told::Cut),
        (
            "a chunk of 16 digits and more",
            text("HTTP/1.1 403 No\r\ntransfer-encoding: chunked\r\n\r\n10000000000000000\r\na"),
            Told::Cut,
        ),
        ("a body cut short", text("HTTP/1.1 403 No\r\ncontent-length: 100\r\n\r\nshort"), Told::Cut),
    ]
}

/// A good 101, and then no frames of a server.
fn frames() -> Vec<Case> {
    let good = good();
    let then = |frames: &[u8]| [good.as_bytes(), b"\r\n", frames].concat();
    let broken = Told::Code(1014);
    vec![
        ("a 101 with a body", then(b"hello, this is a body"), broken),
        ("a second answer", then(b"HTTP/1.1 200 OK\r\n\r\n"), broken),
        ("a masked frame", then(b"\x81\x82\x01\x02\x03\x04ab"), broken),
        ("a reserved bit", then(b"\xc1\x02hi"), broken),
        ("a reserved opcode", then(b"\x83\x02hi"), broken),
        ("a fragmented ping", then(b"\x09\x02hi"), broken),
        ("a long ping", then(&[&[0x89, 126, 0, 126][..], &[0; 126]].concat()), broken),
        ("a continuation of nothing", then(b"\x80\x02hi"), broken),
        ("a text inside a text", then(b"\x01\x02hi\x81\x02hi"), broken),
        ("a close of one byte", then(b"\x88\x01x"), broken),
        ("a length beyond 63 bits", then(b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff"), broken),
    ]
}

/// A server that answers `/NUMBER` with the bytes of that case, `/silence` never, `/endless` with a refusal that has no end,
/// and a probe with one that has.
pub struct Nonsense {
    task: AbortHandle,
    connections: Arc<AtomicUsize>,
}

impl Nonsense {
    pub async fn start(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap_or_else(|e| panic!("{addr}: {e}"));
        let count = Arc::new(AtomicUsize::new(0));
        let open = count.clone();
        let task = async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => drop(connections.spawn(serve(stream))),
                    Some(ended) = connections.join_next() => ended.unwrap(),
                }
                open.store(connections.len(), Ordering::Relaxed);
            }
        };
        Self { task: tokio::spawn(task).abort_handle(), connections: count }
    }

    /// How many connections it has now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Nonsense {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut head).await, Ok(1..)) {
            return;
        }
    }
    let head = String::from_utf8(head).unwrap();
    if head.starts_with("GET /silence ") {
        // Until the other side has enough of it.
        return drop(stream.read_to_end(&mut Vec::new()).await);
    }
    if head.starts_with("GET /endless ") {
        let mut said = stream.write_all(b"HTTP/1.1 403 No\r\n\r\n").await;
        while said.is_ok() {
            said = stream.write_all(&[b'x'; 16 * 1024]).await;
        }
        return;
    }
    let case = head.strip_prefix("GET /").and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    let answer = case.map_or_else(
        || b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
        |case| table().swap_remove(case).1,
    );
    drop(stream.write_all(&answer).await);
    drop(stream.shutdown().await);
    // What is closed with bytes unread is reset, and the answer may be lost with it.
    let mut rest = Vec::new();
    drop(timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await);
}
