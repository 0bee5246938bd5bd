//! The description at `/openapi.json`, held to what the API answers.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, missing_debug_implementations)]

#[path = "sends/listener.rs"]
mod listener;
#[path = "../../ws-balancer/tests/support/mod.rs"]
mod support;

use listener::Listener;
use serde_json::{Value, json};
use support::{
    Setup,
    api::{Api, Sent},
    range::API,
};

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
    for response in description["components"]["responses"].as_object().unwrap().values() {
        let content = &response["content"]["application/problem+json"];
        assert_fits(&description, &content["schema"], &content["example"]);
    }
    assert_eq!(description["servers"], json!([{"url": "http://127.0.0.1:7401"}]));
}
