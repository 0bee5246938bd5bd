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
        let answer = self.state.lock().unwrap().answer(&head.method, head.uri.path(), body);
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
    fn answer(&mut self, method: &Method, path: &str, body: Value) -> Result<Value, u16> {
        if method == Method::GET {
            return self.objects.get(path).cloned().ok_or(404);
        }
        let path = match (method, body["metadata"]["name"].as_str()) {
            (&Method::POST, Some(name)) => format!("{path}/{name}"),
            _ => path.to_owned(),
        };
        let there = self.objects.get(&path);
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
        let object = if method == Method::PATCH { applied(there, body) } else { body };
        self.writes.push(path.clone());
        Ok(self.store(&path, object))
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
