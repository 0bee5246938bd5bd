//! Takes the API server's requests: TLS, HTTP/1 or HTTP/2, a body of limited size, an answer.

use std::{convert::Infallible, fmt, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::Value;
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;
use ws_routing::tls::{Serving, TlsStream};

use super::{decide, review};
use crate::{
    Settings,
    metrics::{Admission, Metrics},
    names::{PODS_PATH, WORKLOADS_PATH},
};

/// Bytes that a review may have: the API server's objects are smaller, and it sends the old one and the new one.
const BODY: usize = 8 << 20;

/// How long a handshake, a head, and a body may take. The API server waits for 5 s in all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections at once; more are closed. An API server has one or few.
const CONNECTIONS: usize = 256;

/// Serves the webhooks to connections. Cloning is a reference count.
#[derive(Clone)]
pub struct Webhooks {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    metrics: Metrics,
    tls: Serving,
    slots: Semaphore,
    stop: CancellationToken,
}

impl Webhooks {
    /// Serves with that TLS until `stop`; what is asked by then is answered.
    #[must_use]
    pub fn new(settings: Settings, tls: Serving, metrics: Metrics, stop: CancellationToken) -> Self {
        let slots = Semaphore::new(CONNECTIONS);
        Self { shared: Arc::new(Shared { settings, metrics, tls, slots, stop }) }
    }

    /// Serves one connection to its end. Cheap to call; nothing happens until the future is polled.
    pub fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> impl Future<Output = ()> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        async move {
            let Ok(_slot) = shared.slots.try_acquire() else { return };
            let stream = match timeout(PATIENCE, shared.tls.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    return tracing::debug!(%peer, %error, "no TLS with a client of the webhooks");
                }
                Err(_) => return tracing::debug!(%peer, "a client of the webhooks did not begin TLS"),
            };
            if let Err(error) = serve(&shared, stream).await {
                tracing::debug!(%peer, %error, "a connection to the webhooks ended early");
            }
        }
    }
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks").finish_non_exhaustive()
    }
}

/// The protocol is what TLS agreed on.
async fn serve(shared: &Arc<Shared>, stream: TlsStream) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let shared = Arc::clone(shared);
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    let is_http2 = stream.is_http2();
    let stream = TokioIo::new(stream);
    if is_http2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(PATIENCE * 6))
            .keep_alive_timeout(PATIENCE)
            .max_concurrent_streams(256)
            .serve_connection(stream, service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = &mut connection => return ended,
            () = shared.stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        return connection.await;
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE * 18)
        .serve_connection(stream, service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = &mut connection => return ended,
        () = shared.stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match decided(shared, request).await {
        Ok(review) => {
            let mut answer = Response::new(Full::from(review.to_string()));
            let json = HeaderValue::from_static("application/json");
            answer.headers_mut().insert(header::CONTENT_TYPE, json);
            answer
        }
        Err(refused) => {
            let mut answer = Response::new(Full::from(format!("{}\n", refused.why)));
            *answer.status_mut() = refused.status;
            answer
        }
    }
}

async fn decided(shared: &Shared, request: Request<Incoming>) -> Result<Value, Refused> {
    let webhook = Webhook::at(request.uri().path())?;
    if request.method() != Method::POST {
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "expected POST"));
    }
    let body = body(request.into_body()).await?;
    let request =
        review::read(&body).map_err(|error| Refused::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    let uid = request.uid.clone();
    let namespace = request.namespace.clone();
    let decision = match webhook {
        Webhook::Pods => decide::pods(request, &shared.settings),
        Webhook::Workloads => decide::workloads(request, &shared.settings),
    };
    let (result, reason) = decision.verdict.labels();
    shared.metrics.admitted(Admission { webhook: webhook.name(), result, reason });
    tracing::debug!(webhook = webhook.name(), namespace, result, reason, "decided");
    Ok(decision.review(&uid))
}

async fn body(body: Incoming) -> Result<Bytes, Refused> {
    match timeout(PATIENCE, Limited::new(body, BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "expected 8 MiB at most"))
        }
        Ok(Err(_)) => Err(Refused::new(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
    }
}

#[derive(Clone, Copy, Debug)]
enum Webhook {
    Pods,
    Workloads,
}

impl Webhook {
    fn at(path: &str) -> Result<Self, Refused> {
        match path {
            PODS_PATH => Ok(Self::Pods),
            WORKLOADS_PATH => Ok(Self::Workloads),
            _ => Err(Refused::new(StatusCode::NOT_FOUND, "there is nothing here")),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Workloads => "workloads",
        }
    }
}

/// A request that is not one of the API server's.
struct Refused {
    status: StatusCode,
    why: String,
}

impl Refused {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}
