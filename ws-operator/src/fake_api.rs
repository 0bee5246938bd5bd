//! An API server in memory, as far as tests need one: objects by path, versions and conflicts.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};

/// Kinds that can be listed. Another kind is one that the cluster does not know.
const COLLECTIONS: [&str; 8] = [
    "services",
    "deployments",
    "statefulsets",
    "daemonsets",
    "poddisruptionbudgets",
    "horizontalpodautoscalers",
    "networkpolicies",
    "pods",
];

/// Cloning is a reference count.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    writes: Vec<String>,
}

impl FakeApi {
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "default")
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    /// As somebody else writes it.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state.lock().unwrap().store(path, object);
    }

    /// The paths that were written through a client since the last call.
    pub(crate) fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().writes)
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let query = head.uri.query().unwrap_or_default();
        let answer = self.state.lock().unwrap().answer(&head.method, head.uri.path(), query, body);
        let (code, answer) = match answer {
            Ok(object) => (200, object),
            Err(code) => {
                let reason = if code == 404 { "NotFound" } else { "Conflict" };
                (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason}))
            }
        };
        Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap()
    }
}

impl State {
    fn answer(&mut self, method: &Method, path: &str, query: &str, body: Value) -> Result<Value, u16> {
        if method == Method::GET {
            let is_collection = path.rsplit('/').next().is_some_and(|last| COLLECTIONS.contains(&last));
            return if is_collection {
                Ok(self.list(path, query))
            } else {
                self.objects.get(path).cloned().ok_or(404)
            };
        }
        if method == Method::DELETE {
            self.writes.push(format!("-{path}"));
            return self.objects.remove(path).ok_or(404);
        }
        let path = match (method, body["metadata"]["name"].as_str()) {
            (&Method::POST, Some(name)) => format!("{path}/{name}"),
            _ => path.to_owned(),
        };
        let there = self.objects.get(&path);
        if path.contains("/podmonitors") {
            return Err(404);
        }
        if method == Method::POST && there.is_some() {
            return Err(409);
        }
        if method == Method::PUT && there.is_none() {
            return Err(404);
        }
        let version = &body["metadata"]["resourceVersion"];
        if !version.is_null() && there.is_none_or(|there| there["metadata"]["resourceVersion"] != *version) {
            return Err(409);
        }
        let object = match (method, there) {
            (&Method::PATCH, Some(there)) if body.is_array() => {
                let mut object = there.clone();
                let patch: json_patch::Patch = serde_json::from_value(body).unwrap();
                json_patch::patch(&mut object, &patch).map_err(|_| 422_u16)?;
                object
            }
            (&Method::PATCH, there) => applied(there, body),
            _ => body,
        };
        self.writes.push(path.clone());
        Ok(self.store(&path, object))
    }

    /// All objects there, or those with the label that a query asks for.
    fn list(&self, path: &str, query: &str) -> Value {
        let asked = query.split('&').find_map(|part| part.strip_prefix("labelSelector="));
        let asked = asked.map(|label| label.replace("%2F", "/").replace("%3D", "="));
        let has = |object: &Value| {
            asked
                .as_ref()
                .and_then(|asked| asked.split_once('='))
                .is_none_or(|(key, value)| object["metadata"]["labels"][key] == value)
        };
        let there =
            self.objects.iter().filter(|(at, _)| at.rsplit_once('/').is_some_and(|(at, _)| at == path));
        let items: Vec<&Value> = there.map(|(_, object)| object).filter(|object| has(object)).collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items})
    }

    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path.into(), object.clone());
        object
    }
}

/// Server-side apply by the only manager that there is: data and annotations are replaced, hooks merged by name.
fn applied(there: Option<&Value>, body: Value) -> Value {
    let Some(there) = there else { return body };
    let mut object = there.clone();
    for (key, value) in body.as_object().unwrap() {
        if key != "webhooks" {
            object[key] = value.clone();
            continue;
        }
        for hook in value.as_array().unwrap() {
            let hooks = object["webhooks"].as_array_mut().unwrap();
            let same = hooks.iter_mut().find(|there| there["name"] == hook["name"]).unwrap();
            same["clientConfig"]["caBundle"] = hook["clientConfig"]["caBundle"].clone();
        }
    }
    object
}
