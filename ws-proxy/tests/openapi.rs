//! The description at `/openapi.json`, held to what the API answers.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, missing_debug_implementations)]

#[path = "sends/listener.rs"]
mod listener;
#[path = "../../ws-balancer/tests/support/mod.rs"]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use listener::Listener;
use serde_json::{Value, json};
use support::{
    Cluster, Setup,
    api::{self, Api, Sent},
    client::open,
    eventually,
    range::{API, LISTEN},
    wait::secs,
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

/// Checks an answer: its status is described for the call, with its content type, and its body fits the schema.
fn assert_described(description: &Value, path: &str, method: &str, answer: &Sent) {
    let operation = &description["paths"][path][method];
    let response = resolve(description, &operation["responses"][answer.status.to_string()]);
    assert!(!response.is_null(), "{method} {path} {} is not described", answer.status);
    let kind = answer.header("content-type").unwrap();
    let schema = resolve(description, &response["content"][kind]["schema"]);
    assert!(!schema.is_null(), "{method} {path} {} {kind} is not described", answer.status);
    let bodies = if kind == "application/x-ndjson" { answer.lines() } else { vec![answer.json()] };
    bodies.iter().for_each(|body| assert_fits(description, schema, body));
}

/// The schema language as far as the description uses it: types, required members, and no others than are named.
fn assert_fits(description: &Value, schema: &Value, value: &Value) {
    let schema = resolve(description, schema);
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().map(|one| one.as_str().unwrap()).collect(),
        _ => return,
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(types.contains(&is), "{value}: expected {types:?}");
    for item in value.as_array().into_iter().flatten() {
        assert_fits(description, &schema["items"], item);
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        assert!(value.get(required.as_str().unwrap()).is_some(), "{required} is not in {value}");
    }
    let (Some(properties), Some(members)) = (schema["properties"].as_object(), value.as_object()) else {
        return;
    };
    for (name, member) in members {
        let known = properties.get(name).unwrap_or_else(|| panic!("{name} of {value} is not described"));
        assert_fits(description, known, member);
    }
}

fn resolve<'a>(description: &'a Value, part: &'a Value) -> &'a Value {
    match part["$ref"].as_str() {
        Some(reference) => description.pointer(reference.strip_prefix('#').unwrap()).expect(reference),
        None => part,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_description_is_true() {
    let cluster = Setup::sidecars(1).sidecar(&["--max-message", "1KiB"]).start().await;
    let mut api = Api::new(cluster.range.addr(1, API));
    let _client = Listener::connect(cluster.addr(), "k").await;
    let answer = api.call("GET", "/openapi.json", &[], b"").await;
    let description = answer.json();
    assert_eq!(description["openapi"], "3.1.0");
    assert_described(&description, "/openapi.json", "get", &answer);
    let text = [("content-type", "text/plain")];
    let once = [("content-type", "text/plain"), ("idempotency-key", "1")];
    let (send, key) = ("/v1/keys/{key}/messages", "/v1/keys/{key}");
    let lines: &[u8] =
        b"{\"key\":\"k\",\"text\":\"x\"}\n{\"key\":\"n\",\"text\":\"x\"}\n{}\n{\"key\":\"k\"}\n";
    for (path, method, target, headers, body, status) in [
        (send, "POST", "/v1/keys/k/messages", &once[..], &b"one"[..], 200),
        (send, "POST", "/v1/keys/k/messages", &once, b"two", 409),
        (send, "POST", "/v1/keys/k/messages", &text, b"\xff", 400),
        (send, "POST", "/v1/keys/nobody/messages", &text, b"x", 404),
        (send, "POST", "/v1/keys/k/messages", &text, &[b'x'; 1025], 413),
        ("/v1/messages", "POST", "/v1/messages", &text, lines, 200),
        (key, "GET", "/v1/keys/k", &text, b"", 200),
        (key, "GET", "/v1/keys/nobody", &text, b"", 404),
        (key, "DELETE", "/v1/keys/k?code=1", &text, b"", 400),
        (key, "DELETE", "/v1/keys/k", &text, b"", 200),
        ("/v1/owner/{key}", "GET", "/v1/owner/k", &text, b"", 200),
        ("/v1/owner/{key}", "GET", "/v1/owner/k?n=0", &text, b"", 400),
        (send, "PUT", "/v1/keys/k/messages", &text, b"x", 405),
        (key, "PATCH", "/v1/keys/k", &text, b"", 405),
        ("/v1/messages", "GET", "/v1/messages", &text, b"", 405),
    ] {
        let answer = api.call(method, target, headers, body).await;
        assert_eq!(answer.status, status, "{method} {target} {answer:?}");
        let described = match (status, path) {
            (405, "/v1/keys/{key}") => "get".into(),
            (405, _) => "post".into(),
            _ => method.to_lowercase(),
        };
        assert_described(&description, path, &described, &answer);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_is_there_and_every_example_fits() {
    let cluster = Setup::sidecars(1).start().await;
    let mut api = Api::new(cluster.range.addr(1, API));
    let description = api.call("GET", "/openapi.json", &[], b"").await.json();
    for (path, operations) in description["paths"].as_object().unwrap() {
        let methods = ["get", "post", "delete"].iter().filter(|method| operations.get(**method).is_some());
        for method in methods {
            let target = path.replace("{key}", "nobody");
            let answer = api.call(&method.to_uppercase(), &target, &[], b"").await;
            assert_ne!(answer.status, 405, "{method} {path}");
            assert!(answer.status != 404 || answer.json()["type"] == "not-connected", "{method} {path}");
        }
    }
    for (kind, example) in examples(&description) {
        assert_eq!(example["type"], kind);
        assert_fits(&description, &description["components"]["schemas"]["Problem"], &example);
    }
    let lines = description.pointer("/paths/~1v1~1messages/post/responses/200/content").unwrap();
    for example in lines["application/x-ndjson"]["examples"].as_object().unwrap().values() {
        assert_fits(&description, &lines["application/x-ndjson"]["schema"], &example["value"]);
    }
    assert_eq!(description["servers"], json!([{"url": "http://127.0.0.1:7401"}]));
}

/// The examples of problems, by type.
fn examples(description: &Value) -> BTreeMap<String, Value> {
    let responses = description["components"]["responses"].as_object().unwrap().values();
    let examples = responses.flat_map(|response| {
        response["content"]["application/problem+json"]["examples"].as_object().unwrap()
    });
    examples.map(|(kind, example)| (kind.clone(), example["value"].clone())).collect()
}

/// What a test cannot bring about in a second: a stalled body (which has a test of its own), a table of 64 MiB that is
/// full, and no member at all.
const UNSEEN: [&str; 3] = ["body-timeout", "idempotency-full", "no-members"];

/// What is described, what was seen of it, and the node whose name stands in the answers.
struct Examples {
    described: BTreeMap<String, Value>,
    seen: BTreeSet<String>,
    node: String,
}

impl Examples {
    /// Checks that an answer is an example, but for the node that it names.
    fn told(&mut self, answer: &Sent) {
        let mut body = answer.json();
        if body["owner"] == *self.node {
            body["owner"] = "10.0.0.1:7400".into();
        }
        let kind = body["type"].as_str().unwrap().to_owned();
        assert_eq!(Some(&body), self.described.get(&kind), "{answer:?}");
        self.seen.insert(kind);
    }
}

const TEXT: (&str, &str) = ("content-type", "text/plain");
const SEND: &str = "/v1/keys/user-42/messages";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_of_problems_are_what_is_answered() {
    let token =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("token-{}", std::process::id()));
    std::fs::write(&token, "secret\n").unwrap();
    let flags = ["--peer-token-file", token.to_str().unwrap()];
    let waits = ["--ack-timeout", "300ms", "--send-timeout", "100ms"];
    let setup = Setup::sidecars(1).balancer(&flags).sidecar(&flags).sidecar(&waits).own_views();
    let mut cluster = setup.start().await;
    let addr = cluster.range.addr(1, API);
    let mut api = Api::new(addr);
    let described = examples(&api.call("GET", "/openapi.json", &[], b"").await.json());
    let node = cluster.pods[&1].id.clone();
    let mut examples = Examples { described, seen: UNSEEN.map(Into::into).into(), node };

    examples.told(&api.call("POST", SEND, &[TEXT], b"nobody").await);
    to_a_client_that_never_reads(&cluster, &mut api, &mut examples).await;
    let once = [("idempotency-key", "1")];
    let other = open(cluster.addr(), "/", &[("ws-user-id", "other")]).await.unwrap();
    api.call("POST", "/v1/keys/other/messages", &once, b"one").await;
    for (method, path, headers, body) in [
        ("POST", SEND, &[TEXT][..], &b"\xff"[..]),
        ("POST", SEND, &[TEXT], &vec![b'x'; (1 << 20) + 1]),
        ("POST", "/v1/keys/100%/messages", &[TEXT], b"x"),
        ("POST", "/v1/keys/user-42/messages?ack=maybe", &[TEXT], b"x"),
        ("POST", SEND, &[once[0], once[0]], b"x"),
        ("POST", "/v1/keys/other/messages", &once, b"two"),
        ("PUT", "/v1/keys/user-42", &[TEXT], b"x"),
        ("GET", "/v1/nothing", &[], b""),
    ] {
        examples.told(&api.call(method, path, headers, body).await);
    }
    drop(other);
    examples.told(&Api::new(cluster.pod_addr(1)).call("GET", "/v1/keys/user-42", &[], b"").await);
    examples.told(&unfinished(addr).await);
    examples.told(&said(addr, "GET / HTTP/1.1\r\n\r\n").await);
    // Nobody is at the other node.
    let stranger = cluster.range.addr(9, LISTEN).to_string();
    cluster.pods.get_mut(&1).unwrap().view.as_mut().unwrap().join(&stranger);
    eventually(secs(10), "the other node is asked", async || {
        let answer = api.call("POST", SEND, &[TEXT], b"x").await;
        let moving = answer.status == 503;
        if moving {
            examples.told(&answer);
        }
        moving
    })
    .await;
    let described: BTreeSet<String> = examples.described.into_keys().collect();
    assert_eq!(examples.seen, described, "each type has an example, and was seen");
    std::fs::remove_file(token).unwrap();
}

async fn to_a_client_that_never_reads(cluster: &Cluster, api: &mut Api, examples: &mut Examples) {
    let stuck = open(cluster.addr(), "/", &[("ws-user-id", "user-42")]).await.unwrap();
    // It answers no ping either.
    examples.told(&api.call("POST", "/v1/keys/user-42/messages?ack=received", &[TEXT], b"x").await);
    let block = vec![b'x'; 1 << 20];
    let refused = loop {
        let answer = api.call("POST", SEND, &[], &block).await;
        if answer.status != 200 {
            break answer;
        }
    };
    examples.told(&refused);
    // Whom it is, is known without a turn behind what it does not read.
    let shown = api.call("GET", "/v1/keys/user-42", &[], b"").await;
    assert_eq!(shown.status, 200, "{shown:?}");
    drop(stuck);
}

/// What is answered to a body that ends too early.
async fn unfinished(addr: SocketAddr) -> Sent {
    said(addr, &format!("POST {SEND} HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf")).await
}

/// What is answered to who says that and nothing more.
async fn said(addr: SocketAddr, request: &str) -> Sent {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    api::read(&mut stream).await.unwrap()
}
