//! The webhooks as an API server meets them: over TLS, with HTTP/1 and HTTP/2.
#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use ws_operator::{Settings, metrics::Metrics, webhook::Webhooks};
use ws_routing::{metrics::Format, serve, tls::Serving};

const NAME: &str = "ws-operator.ws-system.svc";

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn leaf(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new([NAME.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (leaf.pem(), key.serialize_pem())
    }
}

struct Served {
    addr: SocketAddr,
    serving: Serving,
    metrics: Metrics,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

fn served() -> Served {
    let (serving, metrics, stop) = (Serving::default(), Metrics::new(), CancellationToken::new());
    let settings = Settings { proxy_image: "ws-proxy:test".into(), ..Settings::default() };
    let webhooks = Webhooks::new(settings, serving.clone(), metrics.clone(), stop.clone());
    let listener = serve::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = listener.local_addr().unwrap();
    let stopped = stop.clone().cancelled_owned();
    let counted = ws_routing::metrics::Metrics::new("test");
    let task = tokio::spawn(async move {
        serve::serve(listener, stopped, counted, |stream, peer| webhooks.connection(stream, peer)).await;
    });
    Served { addr, serving, metrics, stop, task: AbortOnDropHandle::new(task) }
}

async fn tls(addr: SocketAddr, authority: &Authority, alpn: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let name = ServerName::try_from(NAME).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(addr).await?).await
}

fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(path).header("host", NAME).body(Full::new(body.into())).unwrap()
}

/// One request on a connection of its own.
async fn ask(
    served: &Served,
    authority: &Authority,
    alpn: &str,
    request: Request<Full<Bytes>>,
) -> (StatusCode, Bytes) {
    let stream = tls(served.addr, authority, alpn).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
    let stream = TokioIo::new(stream);
    let (answer, _connection) = if alpn == "h2" {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        let connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
        (sender.send_request(request).await, connection)
    } else {
        let (mut sender, connection) = http1::handshake(stream).await.unwrap();
        let connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
        (sender.send_request(request).await, connection)
    };
    let answer = answer.unwrap();
    (answer.status(), answer.into_body().collect().await.unwrap().to_bytes())
}

fn review(object: &Value) -> String {
    review_in("chat", object)
}

fn review_in(namespace: &str, object: &Value) -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "7", "namespace": namespace, "operation": "CREATE", "dryRun": true,
            "kind": {"group": "", "version": "v1", "kind": "Pod"}, "object": object,
        },
    })
    .to_string()
}

fn pod(annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"labels": {"ws.operator/enable": "true"}, "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    })
}

async fn response(served: &Served, authority: &Authority, path: &str, object: &Value) -> Value {
    let (status, body) = ask(served, authority, "h2", post(path, review(object))).await;
    assert_eq!(status, StatusCode::OK);
    let review: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(review["kind"], "AdmissionReview");
    assert_eq!(review["response"]["uid"], "7");
    review["response"].clone()
}

fn patch(response: &Value) -> json_patch::Patch {
    assert_eq!(response["patchType"], "JSONPatch");
    let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&patch).unwrap()
}

#[tokio::test]
async fn pods_get_their_sidecar_with_http1_and_http2() {
    let (served, authority) = (served(), Authority::new());
    let (chain, key) = authority.leaf();
    assert!(served.serving.show(chain.as_bytes(), key.as_bytes()).unwrap());
    for alpn in ["http/1.1", "h2"] {
        let (status, body) = ask(&served, &authority, alpn, post("/pods", review(&pod(&json!({}))))).await;
        assert_eq!(status, StatusCode::OK);
        let review: Value = serde_json::from_slice(&body).unwrap();
        let mut object = pod(&json!({}));
        json_patch::patch(&mut object, &patch(&review["response"])).unwrap();
        assert_eq!(object["spec"]["initContainers"][0]["image"], "ws-proxy:test", "{alpn}");
        let members = object["spec"]["initContainers"][0]["args"].to_string();
        assert!(members.contains("/v1/members/chat/ws-proxy-headless"), "the review's namespace: {members}");
        let again = response(&served, &authority, "/pods", &object).await;
        assert_eq!((&again["allowed"], &again["patch"]), (&json!(true), &Value::Null));
        assert_eq!(again["warnings"], Value::Null, "it has its sidecar: there is nothing to warn of");
    }
    let page = served.metrics.page(Format::Text);
    let counted = "ws_operator_admissions_total{webhook=\"pods\",result=\"patched\",reason=\"\"} 2";
    assert!(page.contains(counted), "{page}");
}

#[tokio::test]
async fn warnings_and_denials_name_the_annotation() {
    let (served, authority) = (served(), Authority::new());
    let (chain, key) = authority.leaf();
    served.serving.show(chain.as_bytes(), key.as_bytes()).unwrap();
    let warned = pod(&json!({"ws.operator/grupo": "x"}));
    let told = response(&served, &authority, "/pods", &warned).await;
    assert_eq!(told["warnings"], json!(["ws.operator/grupo is no annotation of ours and is ignored"]));
    let denied = pod(&json!({"ws.operator/weight": "0"}));
    let told = response(&served, &authority, "/pods", &denied).await;
    assert_eq!(told["allowed"], json!(false));
    let why = told["status"]["message"].as_str().unwrap();
    assert_eq!(why, "ws.operator/weight \"0\": expected a whole number from 1 to 1000");
    let told = response(&served, &authority, "/pods", &json!({"spec": []})).await;
    assert_eq!((&told["allowed"], &told["status"]["code"]), (&json!(false), &json!(400)));
}

#[tokio::test]
async fn templates_are_told_what_their_workload_is() {
    let (served, authority) = (served(), Authority::new());
    let (chain, key) = authority.leaf();
    served.serving.show(chain.as_bytes(), key.as_bytes()).unwrap();
    let mut object = json!({
        "metadata": {"name": "chat", "labels": {"ws.operator/enable": "true"}},
        "spec": {"template": {"metadata": {}, "spec": {"containers": []}}},
    });
    let told = response(&served, &authority, "/workloads", &object).await;
    json_patch::patch(&mut object, &patch(&told)).unwrap();
    assert_eq!(object["spec"]["template"]["metadata"]["labels"]["ws.operator/enable"], "true");
    let told = response(&served, &authority, "/workloads", &object).await;
    assert_eq!(told["patch"], Value::Null);
}

#[tokio::test]
async fn nothing_is_changed_in_namespaces_that_are_left_alone() {
    let (served, authority) = (served(), Authority::new());
    let (chain, key) = authority.leaf();
    served.serving.show(chain.as_bytes(), key.as_bytes()).unwrap();
    let workload = json!({
        "metadata": {"name": "dns", "labels": {"ws.operator/enable": "true"}},
        "spec": {"template": {"spec": {"containers": []}}},
    });
    for (path, object) in [("/pods", pod(&json!({}))), ("/workloads", workload)] {
        for namespace in ["kube-system", "ws-system"] {
            let request = post(path, review_in(namespace, &object));
            let (_, body) = ask(&served, &authority, "h2", request).await;
            let told: Value = serde_json::from_slice(&body).unwrap();
            let told = &told["response"];
            assert_eq!(
                (&told["allowed"], &told["patch"]),
                (&json!(true), &Value::Null),
                "{path} {namespace}"
            );
        }
    }
    let page = served.metrics.page(Format::Text);
    let counted = "{webhook=\"pods\",result=\"skipped\",reason=\"SystemNamespace\"} 2";
    assert!(page.contains(counted), "{page}");
}

#[tokio::test]
async fn what_no_api_server_sends_is_refused() {
    let (served, authority) = (served(), Authority::new());
    let (chain, key) = authority.leaf();
    served.serving.show(chain.as_bytes(), key.as_bytes()).unwrap();
    let old = review(&json!({})).replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    let cases = [
        (post("/", "{}"), StatusCode::NOT_FOUND),
        (
            Request::get("/pods").header("host", NAME).body(Full::default()).unwrap(),
            StatusCode::METHOD_NOT_ALLOWED,
        ),
        (post("/pods", "{"), StatusCode::BAD_REQUEST),
        (post("/pods", old), StatusCode::BAD_REQUEST),
        (post("/pods", vec![b' '; (8 << 20) + 1]), StatusCode::PAYLOAD_TOO_LARGE),
    ];
    for (request, expected) in cases {
        let told = format!("{} {}", request.method(), request.uri());
        assert_eq!(ask(&served, &authority, "h2", request).await.0, expected, "{told}");
    }
    let large = review(&pod(&json!({"example.com/large": "x".repeat(7 << 20)})));
    assert_eq!(ask(&served, &authority, "http/1.1", post("/pods", large)).await.0, StatusCode::OK);
}

#[tokio::test]
async fn certificates_are_exchanged_while_connections_go_on() {
    let (served, authority, next) = (served(), Authority::new(), Authority::new());
    assert!(tls(served.addr, &authority, "h2").await.is_err(), "there is no certificate yet");
    let (chain, key) = authority.leaf();
    served.serving.show(chain.as_bytes(), key.as_bytes()).unwrap();
    served.serving.first().await;
    assert!(!served.serving.show(chain.as_bytes(), key.as_bytes()).unwrap(), "the same is no change");
    let stream = TokioIo::new(tls(served.addr, &authority, "http/1.1").await.unwrap());
    let (mut sender, connection) = http1::handshake(stream).await.unwrap();
    let _connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));

    let (new_chain, new_key) = next.leaf();
    assert!(served.serving.show(new_chain.as_bytes(), key.as_bytes()).is_err(), "not its key");
    assert!(served.serving.show(b"", key.as_bytes()).is_err());
    assert!(served.serving.show(new_chain.as_bytes(), new_key.as_bytes()).unwrap());
    assert!(tls(served.addr, &authority, "h2").await.is_err(), "new connections see the new one");
    assert!(tls(served.addr, &next, "h2").await.is_ok());
    let answer = sender.send_request(post("/pods", review(&pod(&json!({}))))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "old connections go on");
}

#[tokio::test]
async fn it_ends_when_it_is_told_to() {
    let Served { addr, serving, metrics: _, stop, task } = served();
    let authority = Authority::new();
    let (chain, key) = authority.leaf();
    serving.show(chain.as_bytes(), key.as_bytes()).unwrap();
    let _idle = tls(addr, &authority, "http/1.1").await.unwrap();
    stop.cancel();
    task.await.unwrap();
}
