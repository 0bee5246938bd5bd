//! A small HTTP server: what the API server's proxy to a pod can ask.

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Answers requests without bodies, for ever; 404 where `answer` has nothing.
pub async fn serve<F>(
    listener: TcpListener,
    answer: impl Fn(String, String) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Option<Value>> + Send + 'static,
{
    let mut calls = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        calls.spawn(call(stream, answer.clone()));
    }
}

async fn call<F>(stream: TcpStream, answer: impl Fn(String, String) -> F) -> Option<()>
where
    F: Future<Output = Option<Value>>,
{
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut header = String::from("-");
    while !header.trim().is_empty() {
        header.clear();
        stream.read_line(&mut header).await.ok()?;
    }
    let (status, body) = match answer(method, path).await {
        Some(value) => ("200 OK", value.to_string()),
        None => ("404 Not Found", "{}".to_owned()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.get_mut().write_all((head + &body).as_bytes()).await.ok()?;
    stream.get_mut().shutdown().await.ok()
}
