//! Spans from a balancer and two sidecars to a collector: whose trace they are, what is their parent, what they are linked to.
#![cfg(feature = "proxy")]
// Without `otel` only one of the tests is there.
#![cfg_attr(not(feature = "otel"), allow(dead_code))]
#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async, client_async,
    tungstenite::{
        Message,
        client::IntoClientRequest as _,
        handshake::server::{Request, Response},
    },
};
use ws_routing::{
    Members, Node, NodeId, drain,
    membership::{self, View, Writer},
    metrics::Metrics,
    proxy::{Proxy, Settings},
    serve,
    session::{SendSettings, Sidecar, SidecarParts},
    trace::Tracer,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the client says: its trace and its span.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// A balancer before two sidecars with one app, which tells the `traceparent` of each handshake.
struct Ring {
    balancer: SocketAddr,
    sidecars: [SocketAddr; 2],
    api: SocketAddr,
    members: Writer,
    told: mpsc::UnboundedReceiver<String>,
    _signals: Vec<drain::Signal>,
    _tasks: JoinSet<()>,
}

impl Ring {
    async fn start(tracer: &Tracer) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let app = app(&mut tasks, tell).await;
        let (mut members, view) = membership::channel(0);
        let (mut sidecars, mut signals) = (Vec::new(), Vec::new());
        let mut api = None;
        for _ in 0..2 {
            let (listener, addr) = listen().await;
            let (sidecar, signal) = sidecar(addr, app, view.clone(), tracer);
            signals.push(signal);
            let asked = sidecar.clone();
            api.get_or_insert(serve_at(&mut tasks, listen().await, move |stream, peer| {
                let api = asked.api().clone();
                async move { api.serve(stream, peer).await }
            }));
            let runs = sidecar.clone();
            tasks.spawn(async move { runs.run().await });
            sidecars.push(serve_at(&mut tasks, (listener, addr), move |stream, peer| {
                let sidecar = sidecar.clone();
                async move { sidecar.serve(stream, peer).await }
            }));
        }
        let sidecars: [SocketAddr; 2] = sidecars.try_into().unwrap();
        members.publish(Members::new([node(sidecars[0])], 0));
        let proxy = Proxy::builder(view).tracer(tracer.clone()).build();
        let moves = proxy.clone();
        tasks.spawn(async move { moves.run().await });
        let balancer = serve_at(&mut tasks, listen().await, move |stream, peer| {
            let proxy = proxy.clone();
            async move { proxy.serve(stream, peer).await }
        });
        Self { balancer, sidecars, api: api.unwrap(), members, told, _signals: signals, _tasks: tasks }
    }

    async fn client(&self) -> WebSocketStream<TcpStream> {
        let mut request = format!("ws://{}/", self.balancer).into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("ws-user-id", "user-1".parse().unwrap());
        headers.insert("traceparent", format!("00-{TRACE}-{SPAN}-01").parse().unwrap());
        let stream = TcpStream::connect(self.balancer).await.unwrap();
        timeout(PATIENCE, client_async(request, stream)).await.unwrap().unwrap().0
    }

    /// What the app was told at the next handshake.
    async fn told(&mut self) -> String {
        timeout(PATIENCE, self.told.recv()).await.unwrap().unwrap()
    }
}

fn node(addr: SocketAddr) -> Node {
    Node::new(NodeId::from(addr))
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

fn serve_at<F: Future<Output = ()> + Send + 'static>(
    tasks: &mut JoinSet<()>,
    (listener, addr): (TcpListener, SocketAddr),
    handle: impl Fn(TcpStream, SocketAddr) -> F + Send + 'static,
) -> SocketAddr {
    tasks.spawn(serve::serve(listener, std::future::pending(), Metrics::new("test"), handle));
    addr
}

fn sidecar(addr: SocketAddr, app: SocketAddr, view: View, tracer: &Tracer) -> (Sidecar, drain::Signal) {
    let (metrics, sidecar_metrics) = Metrics::for_sidecar("test");
    let (signal, drain) = drain::channel();
    let parts = SidecarParts {
        node: addr.into(),
        app: Arc::new(format!("ws://{app}").parse::<ws_routing::app::WebSocketApp>().unwrap()),
        view,
        drain,
        metrics,
        sidecar_metrics,
        tokens: None,
        sends: SendSettings::default(),
        route_field: None,
        settings: Settings::default(),
        limits: Default::default(),
    };
    (Sidecar::new(parts, |builder| builder.tracer(tracer.clone())), signal)
}

/// An app that says again what it is told.
async fn app(tasks: &mut JoinSet<()>, tell: mpsc::UnboundedSender<String>) -> SocketAddr {
    let (listener, addr) = listen().await;
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let tell = tell.clone();
            connections.spawn(async move {
                #[expect(clippy::result_large_err, reason = "the library's own type")]
                let look = |request: &Request, answer: Response| {
                    let parent = request.headers().get("traceparent").map(|value| value.to_str().unwrap());
                    tell.send(parent.unwrap_or_default().to_owned()).unwrap();
                    Ok(answer)
                };
                let mut socket = accept_hdr_async(stream, look).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

async fn echoed(client: &mut WebSocketStream<TcpStream>, text: &str) {
    client.send(Message::text(text)).await.unwrap();
    loop {
        let message = timeout(PATIENCE, client.next()).await.unwrap().unwrap().unwrap();
        if message.is_text() {
            return assert_eq!(message.to_text().unwrap(), text);
        }
    }
}

#[tokio::test]
async fn untraced_the_clients_own_parent_reaches_the_app() {
    let mut ring = Ring::start(&Tracer::default()).await;
    let mut client = ring.client().await;
    echoed(&mut client, "hello").await;
    assert_eq!(ring.told().await, format!("00-{TRACE}-{SPAN}-01"));
}

#[cfg(feature = "otel")]
mod otel {
    use serde_json::{Value, json};
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio_util::sync::CancellationToken;
    use ws_routing::trace::{
        Sampler, channel,
        otlp::{Endpoint, Exporter},
    };

    use super::*;

    /// A collector: the head and the body of each request.
    async fn collector(tasks: &mut JoinSet<()>) -> (Endpoint, mpsc::UnboundedReceiver<(String, Value)>) {
        let ((listener, addr), (tell, told)) = (listen().await, mpsc::unbounded_channel());
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let (mut head, mut length) = (String::new(), 0);
                while !head.ends_with("\r\n\r\n") {
                    let mut line = String::new();
                    stream.read_line(&mut line).await.unwrap();
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    head.push_str(&line);
                }
                let mut body = vec![0; length];
                stream.read_exact(&mut body).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
                tell.send((head, serde_json::from_slice(&body).unwrap())).unwrap();
            }
        });
        let base: Endpoint = format!("http://{addr}").parse().unwrap();
        (base.of_traces(), told)
    }

    fn named<'s>(spans: &'s [Value], name: &str) -> &'s Value {
        spans.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("no {name} in {spans:?}"))
    }

    fn attribute<'s>(span: &'s Value, name: &str) -> &'s Value {
        let attributes = span["attributes"].as_array().unwrap();
        &attributes.iter().find(|one| one["key"] == name).unwrap_or_else(|| panic!("no {name} in {span}"))["value"]
    }

    #[tokio::test]
    async fn a_collector_is_told_of_handshakes_sends_and_moves() {
        let mut tasks = JoinSet::new();
        let (endpoint, mut collected) = collector(&mut tasks).await;
        let (tracer, spans) = channel(Sampler::default());
        let headers = [("x-tenant".parse().unwrap(), "a".parse().unwrap())].into_iter().collect();
        let exporter = Exporter::new(spans, endpoint, headers, [("service.name".into(), "ws".into())]);
        let stop = CancellationToken::new();
        tasks.spawn(exporter.run(stop.clone()));

        let mut ring = Ring::start(&tracer).await;
        let mut client = ring.client().await;
        echoed(&mut client, "hello").await;
        let first = ring.told().await;
        let post = format!(
            "POST /v1/keys/user-1/messages HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\
             content-type: text/plain\r\ntraceparent: 00-{}-{SPAN}-01\r\n\r\nhi",
            TRACE.replace('0', "1"),
        );
        let mut api = TcpStream::connect(ring.api).await.unwrap();
        api.write_all(post.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, api.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(timeout(PATIENCE, client.next()).await.unwrap().unwrap().unwrap(), Message::text("hi"));
        ring.members.publish(Members::new([node(ring.sidecars[1])], 0));
        ring.told().await;
        echoed(&mut client, "there").await;
        drop(client);

        stop.cancel();
        let (head, body) = timeout(PATIENCE, collected.recv()).await.unwrap().unwrap();
        assert!(
            head.starts_with("POST /v1/traces HTTP/1.1\r\n") && head.contains("x-tenant: a\r\n"),
            "{head}"
        );
        let resource = &body["resourceSpans"][0];
        assert_eq!(resource["resource"]["attributes"][0]["value"], json!({"stringValue": "ws"}));
        let spans = resource["scopeSpans"][0]["spans"].as_array().unwrap();

        let handshake = named(spans, "handshake");
        assert_eq!((&handshake["traceId"], &handshake["parentSpanId"]), (&json!(TRACE), &json!(SPAN)));
        assert_eq!((&handshake["kind"], &handshake["status"]), (&json!(2), &json!({})));
        assert_eq!(*attribute(handshake, "http.response.status_code"), json!({"intValue": "101"}));
        assert_eq!(*attribute(handshake, "ws.node"), json!({"stringValue": ring.sidecars[0].to_string()}));
        assert!(!body.to_string().contains("user-1"), "a key in plain: {body}");
        let leg = named(spans, "leg");
        assert_eq!((&leg["traceId"], &leg["parentSpanId"]), (&json!(TRACE), &handshake["spanId"]));
        assert_eq!(
            first,
            format!("00-{TRACE}-{}-01", leg["spanId"].as_str().unwrap()),
            "the app is told of its parent"
        );

        let send = named(spans, "send");
        assert_eq!(
            (&send["traceId"], &send["parentSpanId"]),
            (&json!(TRACE.replace('0', "1")), &json!(SPAN))
        );
        let moved = named(spans, "move");
        assert_eq!(moved["links"], json!([{"traceId": TRACE, "spanId": handshake["spanId"]}]));
        assert_ne!(moved["traceId"], TRACE);
        assert_eq!(*attribute(moved, "ws.reason"), json!({"stringValue": "removed"}));
        assert_eq!(*attribute(moved, "ws.result"), json!({"stringValue": "moved"}));
        let nanos = |name: &str| moved[name].as_str().unwrap().parse::<u128>().unwrap();
        assert!(nanos("startTimeUnixNano") < nanos("endTimeUnixNano"), "{moved}");
    }
}
