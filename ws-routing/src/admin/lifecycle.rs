//! The end of a process, asked for over HTTP.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};

use super::routes::{Answer, Call, Problem, Routes, json};
use crate::drain::{Drain, Signal};

/// `POST /v1/drain?percent=&rate=`: has clients leave.
///
/// Without `percent`, or with 100, the process drains as it does after SIGTERM, but goes on until a signal ends it. With
/// less, that part of the present connections is closed and the process stays ready: for a balancer with more than its
/// share. They are spread over `window`, or leave at `rate` connections a second.
#[must_use]
pub fn drain(signal: Signal, drain: Drain, window: Duration) -> Routes {
    Routes::new().post("/v1/drain", move |call| {
        let begun = begin(&call, &signal, &drain, window);
        async move { begun }
    })
}

fn begin(call: &Call, signal: &Signal, drain: &Drain, window: Duration) -> Result<Answer, Problem> {
    let percent = call.number("percent", 1..=100)?.unwrap_or(100_u8);
    let leaving = (drain.count() * usize::from(percent)).div_ceil(100);
    let window = match call.number("rate", 1..=1_000_000_u32)? {
        Some(rate) => {
            Duration::from_secs_f64(u32::try_from(leaving).map_or(f64::MAX, f64::from) / f64::from(rate))
        }
        None => window,
    };
    tracing::info!(percent, leaving, ?window, "asked to have connections leave");
    if percent == 100 {
        signal.begin(window);
    } else {
        signal.shed(percent, window);
    }
    Ok(json(&json!({"percent": percent, "leaving": leaving, "seconds": window.as_secs_f64()})))
}

/// `GET /v1/wait-empty`: answers when the process drains and holds no connection, when the drain's window is over, and
/// after `longest` in any case: a hook that asks must not hold up its container for ever where nothing drains.
#[must_use]
pub fn wait_empty(drain: Drain, longest: Duration) -> Routes {
    Routes::new().get("/v1/wait-empty", move |_| {
        let drain = drain.clone();
        async move {
            let gone = async {
                drain.began().await;
                tokio::select! {
                    () = drain.empty() => {}
                    () = drain.ended() => {}
                }
            };
            // Late or not: the answer says how many are left.
            let _ = timeout(longest, gone).await;
            Ok(json(&json!({"connections": drain.count()})))
        }
    })
}

/// Sends a request without a body to another process's port, and returns its answer once it is whole. It may take as
/// long as it takes.
///
/// # Errors
///
/// When nobody listens there, or the connection breaks before the answer is whole.
pub async fn request(addr: SocketAddr, method: http::Method, path: &str) -> io::Result<Response<Bytes>> {
    let stream = TcpStream::connect(addr).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, addr.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let answer = async {
        let (head, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => {
            ended.map_err(io::Error::other)?;
            answer.await
        }
    }
}
