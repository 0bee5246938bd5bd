//! The process's own port: health, metrics and what it knows of the ring.
//!
//! Plain HTTP/1.1. Calls that change something are answered to loopback peers only. A program's own routes are added to
//! those of [`standard`] as values; the whole is served by [`Admin::connection`] under [`crate::serve::serve`].

mod connections;
mod events;
mod lifecycle;
mod readiness;
mod routes;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Request, header};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

pub use connections::connections;
pub use events::events;
pub use lifecycle::{drain, request, wait_empty};
pub use readiness::{Latch, Readiness};
pub(crate) use routes::authorize;
pub use routes::{Answer, Body, Call, Problem, Routes, answer, json};

use crate::{
    membership::{Members, Snapshot, View, members_stream},
    metrics::{Format, Metrics},
};

/// The routes that every program has: `/livez`, `/readyz`, `/metrics`, `/v1/members`, the stream of members at
/// `/v1/members/-/-`, and `/v1/owner/{key}`.
#[must_use]
pub fn standard(readiness: Readiness, metrics: Metrics, view: View) -> Routes {
    let (members, scraped, streamed, owned) = (view.clone(), view.clone(), view.clone(), view);
    health(readiness)
        .merge(scrapes(move |format| metrics.encode(format, &scraped.load(), scraped.age())))
        .get("/v1/members", move |_| {
            let members = describe(&members.load());
            async move { Ok(members) }
        })
        .get("/v1/members/-/-", move |_| {
            let answer = stream(members_stream(streamed.clone()).boxed_unsync());
            async move { Ok(answer) }
        })
        .merge(owner(owned))
}

/// `/livez` and `/readyz` alone: for a process that is no part of a ring.
#[must_use]
pub fn health(readiness: Readiness) -> Routes {
    Routes::new().get("/livez", |_| async { Ok(answer("text/plain", "alive\n")) }).get("/readyz", move |_| {
        let missing = readiness.missing();
        async move { ready(&missing) }
    })
}

/// `/metrics`: a page in the format that its scraper asks for.
#[must_use]
pub fn scrapes(page: impl Fn(Format) -> String + Send + Sync + 'static) -> Routes {
    Routes::new().get("/metrics", move |call| {
        let accept = call.head().headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        let format = Format::accepted(accept.unwrap_or_default());
        let page = answer(format.content_type(), page(format));
        async move { Ok(page) }
    })
}

/// 200 with lines of JSON that go on: a [`members_stream`].
#[must_use]
pub fn stream(body: Body) -> Answer {
    let mut answer = Answer::new(body);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    answer
}

/// `/v1/owner/{key}?n=3`: who owns a key, and who is next (3 nodes unless `n` says otherwise). Asks nobody.
#[must_use]
pub fn owner(view: View) -> Routes {
    Routes::new().get("/v1/owner/{}", move |call| {
        let found = rank(&call, &view.load());
        async move { found }
    })
}

fn ready(missing: &[&'static str]) -> Result<Answer, Problem> {
    if missing.is_empty() {
        return Ok(answer("text/plain", "ready\n"));
    }
    Err(Problem::new(503, "not-ready", format!("not ready: {}", missing.join(", "))).with("missing", missing))
}

/// The object of `/v1/members`: that of each line of the members stream.
fn describe(members: &Members) -> Answer {
    // Strings and numbers alone cannot fail.
    json(&serde_json::to_value(Snapshot::of(members)).unwrap_or_default())
}

fn rank(call: &Call, members: &Members) -> Result<Answer, Problem> {
    let key = call.key()?;
    let n = call.number("n", 1..=1000)?.unwrap_or(3);
    let ranked: Vec<&str> = members.ranked(&key, n).into_iter().map(|node| node.id.as_str()).collect();
    let Some(owner) = ranked.first() else {
        return Err(Problem::new(503, "no-members", "no member is known"));
    };
    Ok(json(&json!({"key": key.as_str(), "owner": owner, "ranked": ranked})))
}

/// Releases the latch once the source of members has given its first answer, be it empty.
///
/// # Cancel safety
///
/// A latch that is dropped unreleased keeps the process unready.
pub async fn release_on_members(view: View, latch: Latch) {
    if view.first().await.is_ok() {
        latch.release();
    }
}

/// Serves routes to connections.
#[derive(Clone, Debug)]
pub struct Admin {
    routes: Arc<Routes>,
    slots: Arc<Semaphore>,
    stop: CancellationToken,
}

/// How many connections are served at once; more are closed unanswered.
const CONNECTIONS: usize = 512;

/// How long a connection may say nothing, or take to say its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that a connection may have buffered.
const BUFFER: usize = 16 * 1024;

impl Admin {
    /// Serves those routes until `stop`; a call that is being answered then is still answered.
    #[must_use]
    pub fn new(routes: Routes, stop: CancellationToken) -> Self {
        Self { routes: Arc::new(routes), slots: Arc::new(Semaphore::new(CONNECTIONS)), stop }
    }

    /// Serves so many connections at once instead of 512; more are closed unanswered.
    #[must_use]
    pub fn at_most(mut self, connections: usize) -> Self {
        self.slots = Arc::new(Semaphore::new(connections));
        self
    }

    /// Serves one connection to its end. Cheap to call; nothing happens until the future is polled.
    pub fn connection(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
    ) -> impl Future<Output = ()> + Send + 'static {
        let Self { routes, slots, stop } = self.clone();
        async move {
            let Ok(_slot) = slots.try_acquire() else { return };
            let service = service_fn(move |request: Request<Incoming>| {
                let routes = Arc::clone(&routes);
                async move { Ok::<_, Infallible>(routes.answer(peer, request.into_parts().0).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(BUFFER)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                biased;
                ended = &mut connection => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "a connection to the admin port ended early");
            }
        }
    }
}
