//! Clients in the cluster, from which all they and the applications have seen can be asked.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    app::restricted,
    kubectl::{Cluster, eventually},
    setup::image,
};

/// Clients that are connected and send.
pub struct Fleet<'a> {
    cluster: &'a Cluster,
    namespace: String,
}

impl<'a> Fleet<'a> {
    /// Connects `count` clients to the Service `to`, and waits until all are answered. One fleet a namespace at a time.
    pub fn start(cluster: &'a Cluster, namespace: &str, to: &str, count: u32) -> Self {
        let fleet = Self { cluster, namespace: namespace.to_owned() };
        fleet.remove();
        cluster.apply(&[fleet.service(), fleet.pod(to, count)]);
        cluster.wait(namespace, "condition=Ready", "pod/clients");
        fleet.flows(count);
        fleet.mark();
        fleet
    }

    /// Waits until all clients are connected and heard, each within the last half second.
    pub fn flows(&self, count: u32) -> Value {
        eventually(Duration::from_secs(60), format!("{count} clients are heard"), || {
            let state = self.ask("state")?;
            let heard = state["silent_ms"].as_u64().is_some_and(|silent| silent < 500);
            if state["connected"] == count && heard { Ok(state) } else { Err(state.to_string()) }
        })
    }

    /// How it goes since the mark.
    pub fn state(&self) -> Value {
        self.ask("state").unwrap_or_else(|why| panic!("{why}"))
    }

    /// From now on silences are measured, and pods are counted.
    pub fn mark(&self) {
        self.ask("mark").unwrap_or_else(|why| panic!("{why}"));
    }

    /// Ends the clients, and says what went wrong.
    pub fn finish(self) -> Value {
        let verdict = self.ask("finish").unwrap_or_else(|why| panic!("{why}"));
        eprintln!("{}", verdict["text"].as_str().unwrap());
        self.remove();
        verdict
    }

    fn ask(&self, what: &str) -> Result<Value, String> {
        self.cluster.raw(&format!("/api/v1/namespaces/{}/pods/clients:9001/proxy/{what}", self.namespace))
    }

    fn remove(&self) {
        let namespace = &self.namespace;
        self.cluster.kubectl(&[
            "delete",
            "pod",
            "clients",
            "-n",
            namespace,
            "--ignore-not-found",
            "--grace-period=1",
        ]);
    }

    /// By which applications find it.
    fn service(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": self.namespace, "name": "clients"},
            "spec": {
                "clusterIP": "None", "publishNotReadyAddresses": true, "selector": {"role": "clients"},
                "ports": [{"port": 9000}],
            },
        })
    }

    fn pod(&self, to: &str, count: u32) -> Value {
        static FLEETS: AtomicU32 = AtomicU32::new(1);
        let first = FLEETS.fetch_add(1, Ordering::Relaxed) * 1000;
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": self.namespace, "name": "clients", "labels": {"role": "clients"}},
            "spec": {
                "containers": [{
                    "name": "clients", "image": image("pod"), "args": ["clients"],
                    "env": [
                        {"name": "TO", "value": format!("{to}.{}.svc:8080", self.namespace)},
                        {"name": "FIRST", "value": first.to_string()},
                        {"name": "COUNT", "value": count.to_string()},
                    ],
                    "readinessProbe": {"tcpSocket": {"port": 9001}, "periodSeconds": 1},
                    "securityContext": restricted(),
                }],
            },
        })
    }
}

/// Panics unless nothing was closed, lost, repeated or reordered.
pub fn assert_clean(verdict: &Value) {
    let none = json!({"lost": 0, "repeated": 0, "announced": 0, "reordered": 0, "late": 0, "invented": 0});
    let clean = verdict["closed"] == json!([]) && verdict["up"] == none && verdict["down"] == none;
    assert!(clean && verdict["sent"].as_u64() > Some(0), "{verdict:#}");
}
