//! The members stream: one process's view, followed by another over one long-lived HTTP response.
//!
//! NDJSON, a whole [`Snapshot`] a line: a line that was missed is made up for by the next. The server repeats itself
//! while nothing changes, so that a follower knows a silent connection for a dead one.

use std::{convert::Infallible, io, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::{
    Request, StatusCode,
    body::{Body, Frame, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{Members, NextUpdate, Snapshot, Source, SourceError, Update, View, backoff::Backoff};
use crate::node::InvalidNode;

/// How often the server repeats an unchanged snapshot. The contract is 15 s at most.
const REPEAT: Duration = Duration::from_secs(10);

/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// After how long a silence the kernel asks whether the server's machine is still there, and how often again: one that
/// has vanished is found after 12 s.
const PROBE: Duration = Duration::from_secs(4);

/// How long a connection and the head of its answer may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a line may be: some 50,000 nodes.
const MAX_LINE: usize = 4 << 20;

/// The body of `GET /v1/members/NAMESPACE/SERVICE`: the members now, at every change, and every 10 s.
///
/// It begins with the view's first answer and ends when its writer is gone. A slow reader is sent the latest members
/// when it has taken those before: it holds one line and what the connection buffers.
pub fn members_stream(view: View) -> impl Body<Data = Bytes, Error = Infallible> + Send + 'static {
    StreamBody::new(stream::unfold((view, false), |(mut view, begun)| async move {
        let members = if !begun {
            view.first().await.ok()?
        } else if let Ok(changed) = timeout(REPEAT, view.changed()).await {
            changed?
        } else {
            view.load()
        };
        let line = Bytes::from(Snapshot::of(&members).line());
        Some((Ok(Frame::data(line)), (view, true)))
    }))
}

/// Follows the view of another process: `http://HOST:PORT/v1/members/NAMESPACE/SERVICE`.
///
/// A lost or silent (30 s) connection is opened again, after a wait that grows from half a second to 15 s. Costs one
/// connection, and at most 4 MiB for a line that arrives.
#[derive(Debug)]
pub struct Remote {
    authority: String,
    path: String,
    ring_seed: u64,
    lines: Option<Lines>,
    /// Whether there was a connection, or a try: the next one waits.
    tried: bool,
    backoff: Backoff,
    /// Whether somebody has been told that the other side computes another fingerprint.
    warned: bool,
}

impl Remote {
    /// Prepares to follow `namespace/service` at `authority`, a `host:port`; `-/-` is that process's own ring.
    ///
    /// The other process's fingerprints are compared with those that `ring_seed` gives: it must be the same there,
    /// and a difference is logged once.
    #[must_use]
    pub fn new(authority: &str, namespace: &str, service: &str, ring_seed: u64) -> Self {
        Self {
            authority: authority.into(),
            path: format!("/v1/members/{namespace}/{service}"),
            ring_seed,
            lines: None,
            tried: false,
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(15)),
            warned: false,
        }
    }

    async fn answer(&mut self) -> Result<Update, RemoteError> {
        let line = self.line().await?;
        let snapshot: Snapshot = serde_json::from_slice(&line).map_err(RemoteError::Json)?;
        let nodes = snapshot.nodes().map_err(RemoteError::Node)?;
        self.compare(&snapshot, &Members::new(nodes.iter().cloned(), self.ring_seed));
        self.backoff.reset();
        Ok(Update::Reset(nodes))
    }

    /// The next line. A stream that ends after it told something is no failure: servers restart.
    async fn line(&mut self) -> Result<BytesMut, RemoteError> {
        loop {
            let lines = self.lines().await?;
            let line = timeout(SILENCE, lines.next()).await.map_err(|_| RemoteError::Silent)??;
            if let Some(line) = line {
                return Ok(line);
            }
            if lines.count == 0 {
                return Err(RemoteError::Ended);
            }
            tracing::debug!(authority = self.authority, "the members stream ended");
            self.lines = None;
        }
    }

    async fn lines(&mut self) -> Result<&mut Lines, RemoteError> {
        match &mut self.lines {
            Some(lines) => Ok(lines),
            closed => {
                if self.tried {
                    sleep(self.backoff.wait()).await;
                }
                self.tried = true;
                Ok(closed.insert(Lines::open(&self.authority, &self.path).await?))
            }
        }
    }

    fn compare(&mut self, theirs: &Snapshot, ours: &Members) {
        if theirs.fingerprint() == ours.fingerprint().to_string() {
            self.warned = false;
        } else if !self.warned {
            self.warned = true;
            tracing::warn!(
                authority = self.authority,
                theirs = theirs.fingerprint(),
                ours = %ours.fingerprint(),
                "the members stream has another fingerprint: is the ring seed the same there?"
            );
        }
    }
}

impl Source for Remote {
    fn next(&mut self) -> NextUpdate<'_> {
        Box::pin(async {
            let answer = self.answer().await;
            if answer.is_err() {
                self.lines = None;
            }
            Some(answer.map_err(SourceError::new))
        })
    }
}

/// Why another process's view cannot be followed.
#[derive(Debug, thiserror::Error)]
enum RemoteError {
    #[error("cannot connect to {authority}: {problem}")]
    Connect { authority: String, problem: io::Error },
    #[error("{authority} answers {path} with {status}")]
    Status { authority: String, path: String, status: StatusCode },
    #[error("the members stream broke off: {0}")]
    Http(hyper::Error),
    #[error("the members stream ended before its first line")]
    Ended,
    #[error("the members stream has been silent for {} s", SILENCE.as_secs())]
    Silent,
    #[error("the members stream has a line of more than {MAX_LINE} bytes")]
    TooLong,
    #[error("the members stream has a line that is no snapshot: {0}")]
    Json(serde_json::Error),
    #[error("the members stream names a node that is none: {0}")]
    Node(InvalidNode),
}

/// The lines of a response that never ends.
#[derive(Debug)]
struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// Lines given so far.
    count: u64,
    _connection: AbortOnDropHandle<()>,
}

impl Lines {
    async fn open(authority: &str, path: &str) -> Result<Self, RemoteError> {
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let refused = |problem| RemoteError::Connect { authority: authority.into(), problem };
        timeout(CONNECT, Self::connect(authority, path)).await.map_err(late).map_err(refused)?
    }

    async fn connect(authority: &str, path: &str) -> Result<Self, RemoteError> {
        let stream = TcpStream::connect(authority)
            .await
            .map_err(|problem| RemoteError::Connect { authority: authority.into(), problem })?;
        let keepalive = TcpKeepalive::new().with_time(PROBE).with_interval(PROBE).with_retries(2);
        // Without it, silence is waited for.
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(RemoteError::Http)?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            // How it ended is seen in the body.
            let _ = connection.await;
        }));
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, header::HeaderValue::from_static("application/x-ndjson"));
        if let Ok(host) = authority.parse() {
            headers.insert(header::HOST, host);
        }
        let response = sender.send_request(request).await.map_err(RemoteError::Http)?;
        let status = response.status();
        if !status.is_success() {
            return Err(RemoteError::Status { authority: authority.into(), path: path.into(), status });
        }
        Ok(Self { body: response.into_body(), buffer: BytesMut::new(), count: 0, _connection: connection })
    }

    /// The next line that is not blank; `None` at the stream's end, whatever stands unfinished there.
    async fn next(&mut self) -> Result<Option<BytesMut>, RemoteError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(searched + at);
                self.buffer.advance(1);
                searched = 0;
                if !line.trim_ascii().is_empty() {
                    self.count += 1;
                    return Ok(Some(line));
                }
                continue;
            }
            searched = self.buffer.len();
            if searched > MAX_LINE {
                return Err(RemoteError::TooLong);
            }
            match self.body.frame().await {
                Some(frame) => {
                    let data = frame.map_err(RemoteError::Http)?.into_data();
                    self.buffer.extend_from_slice(&data.unwrap_or_default());
                }
                None => return Ok(None),
            }
        }
    }
}
