//! The page: one static file, the state as JSON, and three buttons.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use examples::deployment::{Deployment, free};
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Mutex, time::interval};

use crate::crowd::Crowd;

struct Demo {
    addr: SocketAddr,
    deployment: Mutex<Deployment>,
    crowd: Crowd,
}

/// Serves the page until a signal ends the balancer.
pub(crate) async fn run(clients: usize) -> anyhow::Result<()> {
    let deployment = Deployment::start(3, 8080, &[]).await?;
    let addr = deployment.addr;
    let crowd = Crowd::connect(addr, clients).await?;
    let demo = Arc::new(Demo { addr, deployment: Mutex::new(deployment), crowd });
    let listener = TcpListener::bind(free(8081)?).await?;
    println!(
        "chat at http://{} through the balancer at ws://{addr}; end with Ctrl-C",
        listener.local_addr()?
    );
    tokio::select! {
        ended = supervise(&demo) => ended,
        () = serve(listener, demo.clone()) => Ok(()),
    }
}

/// Keeps the members file true, until the balancer has ended.
async fn supervise(demo: &Demo) -> anyhow::Result<()> {
    let mut clock = interval(Duration::from_millis(200));
    loop {
        clock.tick().await;
        let mut deployment = demo.deployment.lock().await;
        deployment.reap()?;
        if deployment.has_ended() {
            return deployment.ended().await;
        }
    }
}

async fn serve(listener: TcpListener, demo: Arc<Demo>) {
    while let Ok((stream, _)) = listener.accept().await {
        let demo = demo.clone();
        let answer = service_fn(move |request| answer(request, demo.clone()));
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(connection);
    }
}

async fn answer(request: Request<Incoming>, demo: Arc<Demo>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => {
            (StatusCode::OK, "text/html; charset=utf-8", include_str!("page.html").to_owned())
        }
        (&Method::GET, "/state") => (StatusCode::OK, "application/json", demo.state().await.to_string()),
        // Another site's page cannot send this header: it cannot press the buttons.
        (&Method::POST, path) if request.headers().contains_key("x-chat") => match demo.press(path).await {
            Ok(()) => (StatusCode::OK, "text/plain", String::new()),
            Err(error) => (StatusCode::CONFLICT, "text/plain", format!("{error:#}")),
        },
        _ => (StatusCode::NOT_FOUND, "text/plain", "nothing here".to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(kind));
    Ok(response)
}

impl Demo {
    async fn press(&self, path: &str) -> anyhow::Result<()> {
        let mut deployment = self.deployment.lock().await;
        match path.trim_start_matches('/').split_once('/') {
            None if path == "/add" => deployment.add().await,
            Some(("drain", node)) => deployment.drain(node).await,
            Some(("kill", node)) => deployment.kill(node).await,
            _ => Err(anyhow::anyhow!("no such button")),
        }
        .context("that did not work")
    }

    async fn state(&self) -> Value {
        let (homes, table) = (self.crowd.homes(), self.crowd.table());
        let pods: Vec<Value> = self
            .deployment
            .lock()
            .await
            .pods()
            .into_iter()
            .map(|(id, state)| json!({ "id": id, "state": state.name(), "clients": homes.get(&id).unwrap_or(&0) }))
            .collect();
        json!({
            "socket": format!("ws://{}", self.addr),
            "pods": pods,
            "crowd": {
                "connections": table.connections, "messages": table.messages, "moved": table.moved,
                "closed": table.closed, "lost": table.lost, "repeated": table.repeated,
                "reordered": table.reordered, "pause_ms": table.pause.as_millis(),
            },
        })
    }
}
