//! The Kubernetes API, played by a server that lists and watches as it is told.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::{Full, StreamBody};
use hyper::{
    body::{Body, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use ws_routing::membership::{Kubernetes, Source, Update};

#[tokio::test]
async fn slices_are_listed_watched_and_listed_again_when_the_watch_is_too_old() {
    let api = Api::start(vec![slice("one", &["10.0.0.1"]), slice("two", &["10.0.0.2"])]).await;
    let mut source = api.source(Some("ws"));
    assert_eq!(next(&mut source).await, "10.0.0.1:7400 10.0.0.2:7400");
    api.event("MODIFIED", &slice("two", &["10.0.0.2", "10.0.0.3"]));
    assert_eq!(next(&mut source).await, "10.0.0.1:7400 10.0.0.2:7400 10.0.0.3:7400");
    api.event("DELETED", &slice("one", &["10.0.0.1"]));
    assert_eq!(next(&mut source).await, "10.0.0.2:7400 10.0.0.3:7400");

    // Pages of one slice each: none of them is the truth before the last.
    api.list(vec![slice("two", &["10.0.0.2"]), slice("three", &["10.0.0.4"])]);
    let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old"});
    api.event("ERROR", &gone);
    let error = next(&mut source).await;
    assert!(error.contains("too old"), "{error}");
    assert_eq!(next(&mut source).await, "10.0.0.2:7400 10.0.0.4:7400");
    assert!(
        api.asked()
            .iter()
            .all(|query| query.contains("labelSelector=kubernetes.io%2Fservice-name%3Dws-proxy"))
    );
}

#[tokio::test]
async fn a_service_without_that_port_is_an_error_that_names_the_others() {
    let api = Api::start(vec![slice("one", &["10.0.0.1"])]).await;
    let error = next(&mut api.source(Some("http"))).await;
    assert_eq!(
        error,
        r#"endpoints of service chat/ws-proxy have no single TCP port named "http", but {"ws"}"#
    );
}

#[tokio::test]
async fn an_api_that_refuses_is_asked_again_later() {
    let api = Api::start(vec![slice("one", &["10.0.0.1"])]).await;
    let mut source = api.source(None);
    *api.state.refuse.lock().unwrap() = true;
    let begin = Instant::now();
    for _ in 0..2 {
        assert!(next(&mut source).await.contains("list"), "an error of the list");
    }
    assert!(begin.elapsed() >= Duration::from_millis(500), "asked again after {:?}", begin.elapsed());
    *api.state.refuse.lock().unwrap() = false;
    assert_eq!(next(&mut source).await, "10.0.0.1:7400");
}

fn slice(name: &str, ips: &[&str]) -> Value {
    let endpoints: Vec<Value> = ips.iter().map(|ip| json!({"addresses": [ip], "conditions": {}})).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "chat", "resourceVersion": "7"},
        "addressType": "IPv4", "ports": [{"name": "ws", "port": 7400, "protocol": "TCP"}], "endpoints": endpoints,
    })
}

/// The nodes of the next update, or the error.
async fn next(source: &mut Kubernetes) -> String {
    match timeout(Duration::from_secs(30), source.next()).await.expect("nothing is told").unwrap() {
        Ok(Update::Reset(nodes)) => nodes.iter().map(|n| n.id.to_string()).collect::<Vec<_>>().join(" "),
        Ok(other) => format!("{other:?}"),
        Err(error) => error.to_string(),
    }
}

struct Api {
    uri: http::Uri,
    state: Arc<State>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct State {
    items: Mutex<Vec<Value>>,
    refuse: Mutex<bool>,
    watch: Mutex<Option<mpsc::UnboundedSender<String>>>,
    /// What was said before there was a watch to hear it.
    early: Mutex<Vec<String>>,
    asked: Mutex<Vec<String>>,
}

impl Api {
    async fn start(items: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let state = Arc::new(State { items: Mutex::new(items), ..State::default() });
        let mut task = JoinSet::new();
        task.spawn(serve(listener, state.clone()));
        Self { uri, state, _task: task }
    }

    fn source(&self, port: Option<&str>) -> Kubernetes {
        let mut config = kube::Config::new(self.uri.clone());
        config.default_retry = false;
        let client = kube::Client::try_from(config).unwrap();
        Kubernetes::new(client, "chat", "ws-proxy", port)
    }

    fn list(&self, items: Vec<Value>) {
        *self.state.items.lock().unwrap() = items;
    }

    fn event(&self, kind: &str, object: &Value) {
        let line = json!({"type": kind, "object": object}).to_string() + "\n";
        match &*self.state.watch.lock().unwrap() {
            Some(watch) => watch.send(line).unwrap(),
            None => self.state.early.lock().unwrap().push(line),
        }
    }

    fn asked(&self) -> Vec<String> {
        self.state.asked.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let state = state.clone();
        let answer = service_fn(move |request| {
            let answer = state.answer(&request);
            async { Ok::<_, Infallible>(answer) }
        });
        connections.spawn(async move {
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

type Answer = Response<Pin<Box<dyn Body<Data = Bytes, Error = Infallible> + Send>>>;

impl State {
    fn answer(&self, request: &Request<Incoming>) -> Answer {
        assert_eq!(request.uri().path(), "/apis/discovery.k8s.io/v1/namespaces/chat/endpointslices");
        let query = request.uri().query().unwrap_or_default();
        self.asked.lock().unwrap().push(query.into());
        if *self.refuse.lock().unwrap() {
            let mut answer = Response::new(Box::pin(Full::from("no")) as _);
            *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            return answer;
        }
        if query.contains("watch=true") { self.watch() } else { self.page(query) }
    }

    /// One slice a page.
    fn page(&self, query: &str) -> Answer {
        let from = query.split('&').find_map(|pair| pair.strip_prefix("continue="));
        let from: usize = from.map_or(0, |text| text.parse().unwrap());
        let items = self.items.lock().unwrap();
        let more = (from + 1 < items.len()).then(|| (from + 1).to_string());
        let list = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList",
            "metadata": {"resourceVersion": "7", "continue": more}, "items": items.get(from..=from).unwrap_or_default(),
        });
        Response::new(Box::pin(Full::from(list.to_string())))
    }

    fn watch(&self) -> Answer {
        let (say, lines) = mpsc::unbounded_channel();
        for line in self.early.lock().unwrap().drain(..) {
            say.send(line).unwrap();
        }
        *self.watch.lock().unwrap() = Some(say);
        Response::new(Box::pin(StreamBody::new(stream::unfold(lines, |mut lines| async {
            let line = lines.recv().await?;
            Some((Ok(Frame::data(Bytes::from(line))), lines))
        }))))
    }
}
