//! Connections of the API's callers, and which resource answers what.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Version, header, request::Parts};
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Semaphore, oneshot, watch},
    time::timeout,
};

use super::{
    body::{self, RequestBody},
    bulk, holders,
    idempotency::Idempotency,
    keys, messages, openapi,
    rewind::Rewind,
};
use crate::{
    admin::{self, Answer, Problem, Routes, answer, authorize},
    contract,
    drain::{self, Drain},
    key::Key,
    metrics::SidecarMetrics,
    node::{NodeId, NodeState},
    peer::PeerTokens,
    proxy::{
        error::{Refusal, render},
        handshake::head::{Arrived, HeadError, Limits, read_request},
        hashed,
    },
    session::deliver::{Deliver, SendSettings, Tasks},
    trace::{Span, Tracer},
};

/// The API of one sidecar. A cheap clone.
#[derive(Clone, Debug)]
pub struct Api {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    deliver: Deliver,
    tokens: Option<PeerTokens>,
    metrics: SidecarMetrics,
    drain: Drain,
    idempotency: Idempotency,
    tasks: Tasks,
    places: Places,
    /// What shows something and asks nobody.
    routes: Routes,
    tracer: Tracer,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The node's own app: its calls reach every node.
    App,
    /// Another sidecar: it is told of what this node holds itself.
    Peer,
}

/// Room for connections, apart for each kind of caller: anybody reaches the peers' port, and must not take the app's
/// own away.
#[derive(Debug)]
struct Places {
    app: Semaphore,
    peers: Semaphore,
}

/// How many connections of each kind are served at once; more are closed unanswered.
const CONNECTIONS: usize = 4096;

/// How long a kept connection of the app may say nothing.
const IDLE: Duration = Duration::from_secs(300);

/// How long a connection may take to say its first request.
const FIRST: Duration = Duration::from_secs(60);

/// How long a peer's connection may be silent before it is asked.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// How long a caller may say nothing on a connection that was closed to it, and how long it may go on.
const FAREWELL: Duration = Duration::from_millis(500);
const FAREWELLS: Duration = Duration::from_secs(5);

/// The most bytes of a request's head between peers: the ids of many connections may travel in one.
const HEAD: u32 = 256 * 1024;

/// Bytes that are read at a time, and the longest head, of a connection of HTTP/1.
const BUFFER: usize = 64 * 1024;

/// Waits until a peer's connection turns out to be a stranger's, who keeps no place of a peer's: its request is refused,
/// or none comes.
async fn is_stranger(known: &mut watch::Receiver<Option<bool>>) {
    let first = timeout(FIRST, known.wait_for(Option::is_some)).await;
    if first.is_ok_and(|known| known.is_ok_and(|known| *known == Some(true))) {
        // What serves the connection has the sender.
        let _ = known.wait_for(|known| *known == Some(false)).await;
    }
}

impl Api {
    pub(crate) fn new(
        deliver: Deliver,
        tokens: Option<PeerTokens>,
        metrics: SidecarMetrics,
        drain: Drain,
        tracer: Tracer,
    ) -> Self {
        let routes = admin::owner(deliver.here().view.clone()).get("/openapi.json", |_| async {
            Ok(answer("application/json", Bytes::from_static(openapi::DESCRIPTION.as_bytes())))
        });
        let shared = Shared {
            deliver,
            tokens,
            metrics,
            drain,
            idempotency: Idempotency::default(),
            tasks: Tasks::default(),
            places: Places { app: Semaphore::new(CONNECTIONS), peers: Semaphore::new(CONNECTIONS) },
            routes,
            tracer,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Serves a connection of the node's own app, from its first byte to its last.
    pub async fn serve(&self, mut io: impl AsyncRead + AsyncWrite + Unpin, peer: SocketAddr) {
        let limits = Limits { timeout: FIRST, ..Limits::default() };
        match read_request(&mut io, limits).await {
            Ok(Arrived::Http1(head)) => self.http1(io, head.into_buffer(), peer, Caller::App).await,
            Ok(Arrived::Http2(read)) => self.http2(io, read, peer, Caller::App).await,
            // Whoever asked is gone when this fails.
            Err(HeadError::Refused(refusal)) => drop(io.write_all(&refused(&refusal)).await),
            Err(_) => {}
        }
    }

    /// Takes over a connection of which `read` was read, an HTTP/1 request's head first.
    pub(crate) async fn http1<S>(&self, mut io: S, read: Bytes, peer: SocketAddr, caller: Caller)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Ok(_place) = self.shared.places.of(caller).try_acquire() else { return };
        let service = service_fn(|request| self.answer(request, peer, caller));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(Rewind::new(read, &mut io)), service);
        let ended = {
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                biased;
                ended = &mut connection => ended,
                () = self.shared.drain.closed() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        };
        see_off(&mut io, peer, ended).await;
    }

    /// Takes over a connection of which `read` was read, HTTP/2's preface first.
    pub(crate) async fn http2<S>(&self, mut io: S, read: Bytes, peer: SocketAddr, caller: Caller)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Ok(_place) = self.shared.places.of(caller).try_acquire() else { return };
        let (api, known) = (self.clone(), watch::Sender::new(None));
        let mut strange = known.subscribe();
        let service = service_fn(move |request| {
            let (api, known) = (api.clone(), known.clone());
            async move {
                let answer = api.answer(request, peer, caller).await;
                known.send_replace(
                    answer.as_ref().ok().map(|answer| answer.status() != StatusCode::UNAUTHORIZED),
                );
                answer
            }
        });
        let connection = http2::Builder::new(self.shared.tasks.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE)
            .max_header_list_size(HEAD)
            .max_concurrent_streams(1000)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .serve_connection(TokioIo::new(Rewind::new(read, &mut io)), service);
        let ended = {
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                biased;
                ended = &mut connection => ended,
                () = self.shared.drain.closed() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
                () = is_stranger(&mut strange), if caller == Caller::Peer => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        };
        see_off(&mut io, peer, ended).await;
    }

    pub(crate) fn deliver(&self) -> &Deliver {
        &self.shared.deliver
    }

    pub(crate) fn metrics(&self) -> &SidecarMetrics {
        &self.shared.metrics
    }

    /// Keeps the process from ending before what was asked is answered.
    pub(super) fn guard(&self) -> drain::Guard {
        self.shared.drain.guard()
    }

    pub(super) fn settings(&self) -> SendSettings {
        self.shared.deliver.here().settings
    }

    pub(super) fn idempotency(&self) -> &Idempotency {
        &self.shared.idempotency
    }

    /// Finishes what must not end with its caller's connection.
    pub(super) async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Problem> {
        let (done, waiting) = oneshot::channel();
        self.shared.tasks.spawn(async move {
            // Who asked may have gone.
            let _ = done.send(work.await);
        });
        // A fault of ours says nothing of what was delivered.
        let unknown = "the call was given up; whether it was delivered is unknown";
        waiting.await.map_err(|_| Problem::new(504, "ack-timeout", unknown))
    }

    /// Who owns a key, by this node's view.
    pub(super) fn owner(&self, key: &Key) -> Option<NodeId> {
        self.deliver().here().view.load().owner(key).map(|owner| owner.id.clone())
    }

    pub(super) async fn answer(
        &self,
        request: Request<impl RequestBody>,
        peer: SocketAddr,
        caller: Caller,
    ) -> Result<Answer, Infallible> {
        // A process that drains ends when what it was asked is answered.
        let _guard = self.guard();
        let (parts, mut body) = request.into_parts();
        let version = parts.version;
        let mut span = self.send_span(caller, &parts);
        let mut answer = match self.route(parts, &mut body, peer, caller).await {
            Ok(answer) => answer,
            Err(problem) => problem.into_answer(),
        };
        if let Some(span) = &mut span {
            span.answered(answer.status().as_u16());
        }
        // A stranger keeps no place of a peer's; what is left of a body would be taken for the next request.
        let stranger = answer.status() == StatusCode::UNAUTHORIZED;
        if version < Version::HTTP_2 && (!body::discard(&mut body).await || stranger) {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if caller == Caller::Peer {
            let state = if self.shared.drain.is_draining() { NodeState::Draining } else { NodeState::Ready };
            answer.headers_mut().insert(contract::STATE, HeaderValue::from_static(state.as_str()));
        }
        Ok(answer)
    }

    /// A span for what an app sends, alone or many at once.
    fn send_span(&self, caller: Caller, parts: &Parts) -> Option<Span> {
        let key = match resource(parts.uri.path()) {
            Some(Resource::Messages(key)) => Some(key),
            Some(Resource::Bulk) => None,
            _ => return None,
        };
        if caller == Caller::Peer || parts.method != Method::POST {
            return None;
        }
        let (_, mut span) = self.shared.tracer.enter("send", parts);
        if let (Some(span), Some(Ok(key))) = (&mut span, key.map(Key::decode)) {
            span.set("ws.key", hashed(&key));
        }
        span
    }

    async fn route(
        &self,
        parts: Parts,
        body: impl RequestBody,
        peer: SocketAddr,
        caller: Caller,
    ) -> Result<Answer, Problem> {
        let path = parts.uri.path().to_owned();
        if caller == Caller::Peer {
            if path == contract::PROBE {
                return Ok(answer("text/plain", "ok\n"));
            }
            if !path.starts_with("/v1/") && path != "/openapi.json" {
                return Ok(not_upgrade());
            }
            self.authorize(&parts)?;
        }
        match (resource(&path), &parts.method) {
            (Some(Resource::Messages(key)), &Method::POST) => {
                messages::send(self, caller, decode(key)?, parts, body).await
            }
            (Some(Resource::Bulk), &Method::POST) => bulk::send(self, caller, &parts, body).await,
            (Some(Resource::Holders), &Method::POST) if caller == Caller::Peer => {
                holders::note(self, body).await
            }
            (Some(Resource::Key(key)), &Method::GET | &Method::HEAD) => {
                Ok(keys::show(self, caller, &decode(key)?, &parts).await)
            }
            (Some(Resource::Key(key)), &Method::DELETE) => {
                keys::close(self, caller, &decode(key)?, &parts).await
            }
            (Some(Resource::Key(_)), _) => Err(wrong_method("GET, HEAD, DELETE")),
            (Some(Resource::Messages(_) | Resource::Bulk), _) => Err(wrong_method("POST")),
            _ => Ok(self.shared.routes.answer(peer, parts).await),
        }
    }

    /// Checks that a caller has the peer token, where there is one.
    fn authorize(&self, parts: &Parts) -> Result<(), Problem> {
        let Some(tokens) = &self.shared.tokens else { return Ok(()) };
        authorize(tokens, parts)
    }
}

impl Places {
    fn of(&self, caller: Caller) -> &Semaphore {
        match caller {
            Caller::App => &self.app,
            Caller::Peer => &self.peers,
        }
    }
}

/// The answer to a request whose head is none, as all errors of the API are told.
fn refused(refusal: &Refusal) -> Bytes {
    let mut response = refusal.response();
    let problem = Problem::new(response.status().as_u16(), "bad-request", refusal.to_string()).json();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(problem.len()));
    render(&response.map(|_| problem))
}

/// Takes what a caller goes on to say where nobody listens: it must not keep it from reading what it was answered.
async fn see_off(io: &mut (impl AsyncRead + Unpin), peer: SocketAddr, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection to the API ended early");
    }
    let mut buffer = [0; 1024];
    let rest = async { while matches!(timeout(FAREWELL, io.read(&mut buffer)).await, Ok(Ok(1..))) {} };
    // It is closed in any case.
    let _ = timeout(FAREWELLS, rest).await;
}

/// What a path is about.
enum Resource<'a> {
    Key(&'a str),
    Messages(&'a str),
    Bulk,
    Holders,
}

fn resource(path: &str) -> Option<Resource<'_>> {
    match path {
        "/v1/messages" => return Some(Resource::Bulk),
        "/v1/holders" => return Some(Resource::Holders),
        _ => {}
    }
    let rest = path.strip_prefix("/v1/keys/")?;
    match rest.split_once('/') {
        None => Some(Resource::Key(rest)),
        Some((key, "messages")) => Some(Resource::Messages(key)),
        Some(_) => None,
    }
}

fn decode(key: &str) -> Result<Key, Problem> {
    Key::decode(key).map_err(|error| Problem::new(400, "bad-key", error.to_string()))
}

fn wrong_method(allowed: &'static str) -> Problem {
    Problem::new(405, "method-not-allowed", format!("expected {allowed}")).header(header::ALLOW, allowed)
}

/// Anything else at the port where WebSockets arrive.
fn not_upgrade() -> Answer {
    use http_body_util::{BodyExt, Full};
    let mut answer = Refusal::NotUpgrade.response().map(|body| Full::new(body).boxed_unsync());
    // HTTP/2 has no such header; HTTP/1 puts its own.
    answer.headers_mut().remove(header::CONNECTION);
    answer
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
