//! Requests to other sidecars: HTTP/2 without TLS, one connection to each, kept.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, timeout_at};

use super::{
    batch::{Batch, Carrier, Place, Queue, Waiting},
    call,
    here::{Op, Told},
    plan::Reply,
    tasks::Tasks,
};
use crate::{
    key::Key,
    metrics::{PeerResult, SidecarMetrics},
    node::NodeId,
    peer::PeerTokens,
    proxy::Network,
};

/// The connections to other sidecars. Cloning is a reference count.
#[derive(Clone)]
pub(crate) struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    network: Arc<dyn Network>,
    tokens: Option<PeerTokens>,
    metrics: SidecarMetrics,
    tasks: Tasks,
    nodes: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
}

/// One node.
#[derive(Default)]
struct Peer {
    link: tokio::sync::Mutex<Link>,
    queue: Arc<Queue>,
}

/// The connection to it.
#[derive(Default)]
struct Link {
    sender: Option<SendRequest<Full<Bytes>>>,
    /// Nobody accepted: it is passed over until then.
    avoided: Option<Instant>,
}

/// How long a peer may take to accept a connection.
const CONNECT: Duration = Duration::from_millis(300);

/// How long a peer that did not is passed over.
const AVOIDED: Duration = Duration::from_secs(5);

/// The largest answer that is taken, in bytes.
const ANSWER: usize = 16 << 20;

/// How many nodes' connections are kept; more than that only while a ring changes.
const KEPT: usize = 4096;

impl Peers {
    pub(crate) fn new(
        network: Arc<dyn Network>,
        tokens: Option<PeerTokens>,
        metrics: SidecarMetrics,
    ) -> Self {
        let (tasks, nodes) = (Tasks::default(), Mutex::default());
        Self { shared: Arc::new(Shared { network, tokens, metrics, tasks, nodes }) }
    }

    /// Asks one node about one key.
    pub(crate) async fn ask(&self, node: &NodeId, key: &Key, op: &Op, told: &Told, end: Instant) -> Reply {
        if let Some(line) = short_line(key, op, told) {
            return self.ask_with_others(node, line, end).await;
        }
        match self.exchange(node, call::request(key, op, told), end).await {
            Ok((_, body)) => call::reply(&body),
            Err(reply) => reply,
        }
    }

    /// Asks in a request that others share who ask the same node now.
    async fn ask_with_others(&self, node: &NodeId, line: String, end: Instant) -> Reply {
        let peer = self.peer(node);
        let (Place { number, reply }, carrier) = peer.queue.push(line, end);
        if let Some(carrier) = carrier {
            self.shared.tasks.spawn(self.clone().carry(node.clone(), carrier));
        }
        match timeout_at(end, reply).await {
            Ok(Ok(reply)) => reply,
            Err(_) if peer.queue.withdraw(number) => Reply::Unreachable,
            Ok(Err(_)) | Err(_) => Reply::Lost,
        }
    }

    async fn carry(self, node: NodeId, mut carrier: Carrier) {
        while let Some(batch) = carrier.take() {
            self.send_batch(&node, batch).await;
        }
    }

    /// Sends one request, up to the beginning of its answer: its lines may take their time.
    async fn send_batch(&self, node: &NodeId, batch: Batch) {
        match self.begin(node, call::lines_request(batch.body()), batch.end()).await {
            Ok(response) if response.status() == StatusCode::OK => {
                self.shared.tasks.spawn(batch.tell(response.into_body()));
            }
            // It refused the request as such: it has done nothing.
            Ok(_) => batch.fail(&Reply::Unreachable),
            Err(reply) => batch.fail(&reply),
        }
    }

    /// Asks one node many things in one request; the replies are in the order of the calls.
    pub(crate) async fn ask_many(
        &self,
        node: &NodeId,
        calls: impl Iterator<Item = (&Key, &Op, Told)>,
        end: Instant,
    ) -> Vec<Reply> {
        let lines = calls.map(|(key, op, told)| call::line(key, op, &told).unwrap_or_default());
        let waiting = lines.enumerate().map(|(n, line)| Waiting::new(n as u64, line, end));
        let (waiting, replies): (Vec<_>, Vec<_>) = waiting.unzip();
        self.send_batch(node, Batch::new(waiting)).await;
        join_all(replies).await.into_iter().map(|reply| reply.unwrap_or(Reply::Lost)).collect()
    }

    /// Tells an owner which of its keys are held here; whether it has taken that.
    pub(crate) async fn tell_holders(&self, owner: &NodeId, body: String) -> bool {
        const PATIENCE: Duration = Duration::from_secs(2);
        let request = Request::builder()
            .method(Method::POST)
            .uri("/v1/holders")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)));
        let Ok(request) = request else { return false };
        let told = self.exchange(owner, request, Instant::now() + PATIENCE).await;
        told.is_ok_and(|(status, _)| status.is_success())
    }

    /// One request and its answer, which comes by `end` or not at all.
    async fn exchange(
        &self,
        node: &NodeId,
        request: Request<Full<Bytes>>,
        end: Instant,
    ) -> Result<(StatusCode, Bytes), Reply> {
        collect(self.begin(node, request, end).await?, end).await
    }

    /// One request and the beginning of its answer.
    async fn begin(
        &self,
        node: &NodeId,
        request: Request<Full<Bytes>>,
        end: Instant,
    ) -> Result<Response<Incoming>, Reply> {
        let answer = self.send(node, request, end).await;
        let (result, answer) = match answer {
            Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
                tracing::warn!(%node, "a peer does not know our token");
                (PeerResult::Unauthorized, Err(Reply::Unreachable))
            }
            Ok(answer) => (PeerResult::Answered, Ok(answer)),
            Err(Reply::Unreachable) => (PeerResult::Unreachable, Err(Reply::Unreachable)),
            Err(reply) => (PeerResult::Unanswered, Err(reply)),
        };
        self.shared.metrics.peer_requests(result).inc();
        answer
    }

    async fn send(
        &self,
        node: &NodeId,
        mut request: Request<Full<Bytes>>,
        end: Instant,
    ) -> Result<Response<Incoming>, Reply> {
        let uri = format!("http://{node}{}", request.uri());
        *request.uri_mut() = uri.parse().map_err(|_| Reply::Unreachable)?;
        if let Some(tokens) = &self.shared.tokens
            && let Ok(bearer) = tokens.bearer().try_into()
        {
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        loop {
            let (mut sender, fresh) = self.sender(node, end).await.ok_or(Reply::Unreachable)?;
            match timeout_at(end, sender.try_send_request(request.clone())).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(mut error)) => {
                    let unsent = error.take_message().is_some() || was_refused(error.error());
                    if !unsent {
                        tracing::debug!(%node, error = ?error.error(), "a peer gave no answer");
                        return Err(Reply::Lost);
                    }
                    // The kept connection was closed before anything was taken.
                    if fresh {
                        return Err(Reply::Unreachable);
                    }
                    self.forget(node).await;
                }
                Err(_) => {
                    // A peer that is silent for so long may be gone without a word.
                    self.forget(node).await;
                    return Err(Reply::Lost);
                }
            }
        }
    }

    /// A connection to `node`, and whether it is a new one; `None` when nobody accepts.
    async fn sender(&self, node: &NodeId, end: Instant) -> Option<(SendRequest<Full<Bytes>>, bool)> {
        let peer = self.peer(node);
        let mut link = timeout_at(end, peer.link.lock()).await.ok()?;
        if let Some(sender) = link.sender.as_ref().filter(|sender| !sender.is_closed()) {
            return Some((sender.clone(), false));
        }
        if link.avoided.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        link.sender = self.connect(node).await;
        link.avoided = link.sender.is_none().then(|| Instant::now() + AVOIDED);
        link.sender.clone().map(|sender| (sender, true))
    }

    /// Lets go of the connection to `node`: the next request makes a new one.
    async fn forget(&self, node: &NodeId) {
        self.peer(node).link.lock().await.sender = None;
    }

    async fn connect(&self, node: &NodeId) -> Option<SendRequest<Full<Bytes>>> {
        let stream = self.shared.network.connect(node, CONNECT).await.ok()?;
        let handshake = hyper::client::conn::http2::Builder::new(self.shared.tasks.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.ok()?;
        self.shared.tasks.spawn(async move {
            // Its requests are told what became of them.
            let _ = connection.await;
        });
        Some(sender)
    }

    fn peer(&self, node: &NodeId) -> Arc<Peer> {
        // Nothing is left half done in there by a panic.
        let mut nodes = self.shared.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if nodes.len() > KEPT {
            nodes.retain(|_, peer| Arc::strong_count(peer) > 1);
        }
        match nodes.get(node) {
            Some(peer) => Arc::clone(peer),
            None => Arc::clone(nodes.entry(node.clone()).or_default()),
        }
    }
}

/// A call as a line, if that is short: what is long goes alone, and keeps nobody waiting.
fn short_line(key: &Key, op: &Op, told: &Told) -> Option<String> {
    const PAYLOAD: usize = 16 * 1024;
    const SERVED: usize = 256;
    let payload = op.message()?.payload.len();
    if payload > PAYLOAD || told.served.len() > SERVED { None } else { call::line(key, op, told) }
}

/// Whether a peer that is about to close has said that it did not look at the request (RFC 9113 §6.8, §8.7).
fn was_refused(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        cause.is_remote()
            && match cause.reason() {
                Some(h2::Reason::NO_ERROR) => cause.is_go_away(),
                Some(h2::Reason::REFUSED_STREAM) => true,
                _ => false,
            }
    })
}

async fn collect(response: Response<Incoming>, end: Instant) -> Result<(StatusCode, Bytes), Reply> {
    let (head, body) = response.into_parts();
    match timeout_at(end, Limited::new(body, ANSWER).collect()).await {
        Ok(Ok(body)) => Ok((head.status, body.to_bytes())),
        error => {
            tracing::debug!(?error, "a peer gave no whole answer");
            Err(Reply::Lost)
        }
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("tokens", &self.shared.tokens).finish_non_exhaustive()
    }
}
