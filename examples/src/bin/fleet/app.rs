//! The central system: a plain HTTP server in each pod, which speaks OCPP-J with its chargers and no WebSocket at all.
//!
//! | request | from | meaning |
//! | --- | --- | --- |
//! | `POST /events` | the pod's sidecar | a charger has come, says something, or has gone: CloudEvents |
//! | `POST /chargers/CP-7/Reset` | anybody | a command, to any pod; the answer is the charger's |
//! | `POST /answers/ID` | another pod | the charger's answer to a command that was given here |
//!
//! A command is sent to the charger by its key, through the pod's own sidecar, wherever the charger is. Its answer comes
//! out at the pod that has its socket. The command's id says which pod is waiting, so that pod is told.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use examples::pod;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use crate::http;

/// How long a command may take, from the operator's request to the charger's answer.
const COMMAND: Duration = Duration::from_secs(10);
/// The kinds of OCPP-J's messages: an array's first element.
const CALL: u64 = 2;
const CALL_RESULT: u64 = 3;

/// One pod: the central system beside its sidecar.
pub(crate) async fn run(args: pod::Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind((args.ip, pod::APP)).await?;
    let url = format!("http://{}/events", listener.local_addr()?);
    let system = Arc::new(System { ip: args.ip, next: AtomicU64::new(0), waiting: Mutex::default() });
    pod::run(&args, &url, serve(listener, system), &[]).await
}

async fn serve(listener: TcpListener, system: Arc<System>) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let system = system.clone();
        let service = service_fn(move |request| {
            let system = system.clone();
            async move { Ok::<_, Infallible>(system.answer(request).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// What a pod knows: who is waiting for an answer here. Chargers are nobody's state but the sidecar's.
struct System {
    ip: Ipv4Addr,
    next: AtomicU64,
    waiting: Mutex<HashMap<String, oneshot::Sender<Value>>>,
}

impl System {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else {
            return empty(StatusCode::BAD_REQUEST);
        };
        let kind = head.headers.get("ce-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let path: Vec<&str> = head.uri.path().split('/').skip(1).collect();
        match (&*path, kind) {
            (["events"], "ws.routing.connect") => agree_to_ocpp(),
            (["events"], "ws.routing.message") => self.hear(&body).await,
            (["events"], _) => empty(StatusCode::NO_CONTENT),
            (["chargers", charger, action], _) => self.command(charger, action).await,
            (["answers", id], _) => {
                self.deliver(id, serde_json::from_slice(&body).unwrap_or_default());
                empty(StatusCode::NO_CONTENT)
            }
            _ => empty(StatusCode::NOT_FOUND),
        }
    }

    /// A charger says something: it calls, or answers a call.
    async fn hear(&self, message: &[u8]) -> Response<Full<Bytes>> {
        let message: Value = serde_json::from_slice(message).unwrap_or_default();
        match (message[0].as_u64(), message[1].as_str()) {
            (Some(CALL), Some(id)) => json_answer(&json!([CALL_RESULT, id, {"status": "Accepted"}])),
            (Some(CALL_RESULT), Some(id)) => match self.pass(id, &message[2]).await {
                Ok(()) => empty(StatusCode::NO_CONTENT),
                // The sidecar tries again.
                Err(_) => empty(StatusCode::BAD_GATEWAY),
            },
            _ => empty(StatusCode::BAD_REQUEST),
        }
    }

    /// Passes a charger's answer to the pod that is waiting for it.
    async fn pass(&self, id: &str, answer: &Value) -> anyhow::Result<()> {
        let (ip, _) = id.split_once('-').context("an id of ours has an address")?;
        let ip: IpAddr = ip.parse()?;
        if ip == IpAddr::V4(self.ip) {
            self.deliver(id, answer.clone());
            return Ok(());
        }
        let (status, _) =
            http::post(SocketAddr::new(ip, pod::APP), &format!("/answers/{id}"), answer).await?;
        anyhow::ensure!(status.is_success(), "{ip} answers {status}");
        Ok(())
    }

    fn deliver(&self, id: &str, answer: Value) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        // Nobody waits any more: the command took too long, or was answered twice.
        drop(waiting.map(|waiting| waiting.send(answer)));
    }

    /// Sends a call to the charger, wherever it is, and waits for what it answers.
    async fn command(&self, charger: &str, action: &str) -> Response<Full<Bytes>> {
        let id = format!("{}-{}", self.ip, self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), sender);
        let end = Instant::now() + COMMAND;
        let call = json!([CALL, id, action, {"type": "Soft"}]);
        let outcome = timeout_at(end, async {
            if self.send(charger, &call).await == StatusCode::NOT_FOUND {
                return Err(StatusCode::NOT_FOUND);
            }
            answer.await.map_err(|_| StatusCode::GATEWAY_TIMEOUT)
        });
        let outcome = outcome.await.unwrap_or(Err(StatusCode::GATEWAY_TIMEOUT));
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        outcome.map_or_else(empty, |answer| json_answer(&answer))
    }

    /// Has the sidecar send it. What was surely not delivered, as while a charger moves, is sent again.
    async fn send(&self, charger: &str, call: &Value) -> StatusCode {
        let api = SocketAddr::from((self.ip, pod::API));
        let path = format!("/v1/keys/{charger}/messages");
        loop {
            match http::post(api, &path, call).await {
                Ok((StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS, _)) | Err(_) => {
                    sleep(Duration::from_millis(50)).await;
                }
                Ok((status, _)) => return status,
            }
        }
    }
}

fn agree_to_ocpp() -> Response<Full<Bytes>> {
    let mut response = empty(StatusCode::OK);
    response
        .headers_mut()
        .insert(header::SEC_WEBSOCKET_PROTOCOL, header::HeaderValue::from_static("ocpp1.6"));
    response
}

fn json_answer(body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
