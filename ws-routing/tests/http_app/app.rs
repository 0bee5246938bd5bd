//! An application behind HTTP that keeps what it was asked, and answers as the test says, byte by byte.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

/// One request as it came.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub line: String,
    /// Names in lower case; of several fields of one name the last.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// The number of its connection.
    pub connection: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// `connect`, `message` or `disconnect`.
    pub fn kind(&self) -> &str {
        self.header("ce-type").strip_prefix("ws.routing.").unwrap_or_default()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// What the application does about a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Says this and waits for the next request.
    Say(Vec<u8>),
    /// Says this and cuts the connection.
    Cut(Vec<u8>),
    /// Says this, and then that without an end.
    Endless(Vec<u8>, Vec<u8>),
    /// Nothing.
    Hang,
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self::Say(format!("HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n\r\n").into())
    }

    /// With further header lines and a body.
    pub fn with(status: u16, fields: &str, body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 {status} Status\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
        Self::Say([head.as_bytes(), body].concat())
    }

    pub fn say(text: &str) -> Self {
        Self::Say(text.into())
    }

    /// The message back as it came, and yes to everything else.
    pub fn echo(request: &Request) -> Self {
        match request.kind() {
            "message" => {
                let fields = format!("Content-Type: {}\r\n", request.header("content-type"));
                Self::with(200, &fields, &request.body)
            }
            _ => Self::status(204),
        }
    }
}

/// A running application; dropping it ends it.
pub struct HttpApp {
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    task: AbortHandle,
}

type Manners = dyn Fn(&Request) -> Answer + Send + Sync;

impl HttpApp {
    pub async fn start(addr: &str, manners: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::default());
        let task = tokio::spawn(accept(listener, Arc::clone(&seen), Arc::new(manners))).abort_handle();
        Self { addr, seen, task }
    }

    /// What was asked, in order.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// The requests of one kind.
    pub fn of(&self, kind: &str) -> Vec<Request> {
        self.seen().into_iter().filter(|request| request.kind() == kind).collect()
    }
}

impl Drop for HttpApp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, seen: Arc<Mutex<Vec<Request>>>, manners: Arc<Manners>) {
    let mut connections = JoinSet::new();
    for connection in 0.. {
        let (io, _) = listener.accept().await.unwrap();
        let (seen, manners) = (Arc::clone(&seen), Arc::clone(&manners));
        connections.spawn(async move { serve(io, connection, &seen, &*manners).await });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut io: TcpStream, connection: usize, seen: &Mutex<Vec<Request>>, manners: &Manners) {
    io.set_nodelay(true).unwrap();
    let mut held = Vec::new();
    while let Some(mut request) = read(&mut io, &mut held).await {
        request.connection = connection;
        seen.lock().unwrap().push(request.clone());
        // Whoever asked may be gone.
        let said = match manners(&request) {
            Answer::Say(bytes) => io.write_all(&bytes).await,
            Answer::Cut(bytes) => return drop(io.write_all(&bytes).await),
            Answer::Endless(head, more) => {
                let mut said = io.write_all(&head).await;
                while said.is_ok() {
                    said = io.write_all(&more).await;
                }
                said
            }
            Answer::Hang => std::future::pending().await,
        };
        if said.is_err() {
            return;
        }
    }
}

async fn read(io: &mut TcpStream, held: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        match held.windows(4).position(|four| four == b"\r\n\r\n") {
            Some(at) => break at + 4,
            None => more(io, held).await?,
        }
    };
    let head = String::from_utf8(held[..end].to_vec()).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let mut request = Request { line: lines.next()?.into(), ..Request::default() };
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        request.headers.insert(name.to_ascii_lowercase(), value.into());
    }
    let length: usize = request.header("content-length").parse().unwrap();
    while held.len() < end + length {
        more(io, held).await?;
    }
    request.body = held[end..end + length].to_vec();
    held.drain(..end + length);
    Some(request)
}

async fn more(io: &mut TcpStream, held: &mut Vec<u8>) -> Option<()> {
    matches!(io.read_buf(held).await, Ok(n) if n > 0).then_some(())
}
