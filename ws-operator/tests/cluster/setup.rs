//! A cluster with the images and the operator in it.

use std::{env, ops::Deref, path::PathBuf, process::Command, time::Duration};

use serde_json::Value;
use tokio::time::Instant;
use ws_operator::{Settings, manifests::Installation};

use crate::kubectl::{Cluster, WORKSPACE, eventually, finished};

/// The images' names before the programs', and their tag.
const REPOSITORY: &str = "ws.local";
const TAG: &str = "test";

/// A cluster in which the operator runs. Dropping it takes down what was started for it.
pub struct Installed {
    cluster: Cluster,
    keep: bool,
}

impl Deref for Installed {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Installed {
    /// Builds the images, starts the cluster, and installs.
    pub fn new(cluster: Cluster) -> Self {
        let began = Instant::now();
        let archives = images();
        eprintln!("images: {:.0?}", began.elapsed());
        let keep = env::var_os("WS_CLUSTER_KEEP").is_some();
        let installed = Self { cluster, keep };
        installed.up();
        for archive in &archives {
            installed.load(archive);
        }
        let objects = installation().objects().unwrap();
        installed.apply(&objects);
        installed.operator_is_ready();
        eprintln!("images, cluster and installation: {:.0?}", began.elapsed());
        installed
    }

    pub fn operator_is_ready(&self) {
        self.kubectl(&["rollout", "status", "-n", "ws-system", "deployment/ws-operator", "--timeout=90s"]);
        if env::var_os("WS_OFFLINE").is_some() {
            self.kubectl(&["delete", "mutatingwebhookconfiguration", "ws-operator", "--ignore-not-found"]);
            return;
        }
        // Admission answers with a certificate that the API server was told to trust.
        eventually(Duration::from_secs(30), "the webhooks are trusted", || {
            let hooks = self.get(&["mutatingwebhookconfiguration", "ws-operator"]);
            let trusted = |hook: &Value| hook["clientConfig"]["caBundle"].is_string();
            match hooks["webhooks"].as_array().unwrap().iter().all(trusted) {
                true => Ok(()),
                false => Err("no caBundle".into()),
            }
        });
    }

    /// Applies what an author has written.
    pub fn create(&self, objects: &[Value]) {
        if env::var_os("WS_OFFLINE").is_none() {
            return self.apply(objects);
        }
        let text: String = objects.iter().map(|object| format!("{object}\n---\n")).collect();
        let injected = ws_operator::offline::inject_all(&text, "default", &installation().settings).unwrap();
        self.try_kubectl(&["apply", "-f", "-"], &injected.manifests).unwrap_or_else(|why| panic!("{why}"));
    }

    /// What the API server would make of it.
    pub fn written(&self, object: &Value) -> Value {
        let told =
            self.try_kubectl(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &object.to_string());
        serde_json::from_str(&told.unwrap_or_else(|why| panic!("{why}"))).unwrap()
    }

    /// Deletes a namespace. Nobody waits for the end of its pods.
    pub fn gone(&self, namespace: &str) {
        self.kubectl(&["delete", "namespace", namespace, "--wait=false"]);
    }

    pub fn can_crash_nodes(&self) -> bool {
        matches!(self.cluster, Cluster::Own(_)) || env::var_os("WS_NODE_STOP").is_some()
    }

    /// Ends a node as if its plug were pulled.
    pub fn stop_node(&self, name: &str) {
        self.node("stop", "WS_NODE_STOP", name);
    }

    pub fn start_node(&self, name: &str) {
        self.node("start", "WS_NODE_START", name);
        self.kubectl(&["wait", "--for=condition=Ready", &format!("node/{name}"), "--timeout=90s"]);
    }

    fn node(&self, verb: &str, variable: &str, name: &str) {
        if let Cluster::Own(_) = self.cluster {
            self.script(&["node", verb, name]);
        } else {
            let command = env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set"));
            sh(&format!("{command} {name}"));
        }
    }

    /// What may say why a case has failed; and time to look around, where that was asked for.
    fn show(&self) {
        let tell = |args: &[&str]| eprintln!("{}", self.try_kubectl(args, "").unwrap_or_else(|why| why));
        tell(&["get", "pods", "-A", "-o", "wide"]);
        let ours = self.get(&["pods", "-A", "-l", "app.kubernetes.io/part-of=ws-routing"]);
        for pod in ours["items"].as_array().into_iter().flatten() {
            let [namespace, name] =
                ["namespace", "name"].map(|part| pod["metadata"][part].as_str().unwrap_or_default());
            tell(&["logs", "-n", namespace, name, "--tail=40", "--prefix"]);
            let metrics = format!("/api/v1/namespaces/{namespace}/pods/{name}:7402/proxy/metrics");
            let metrics = self.try_kubectl(&["get", "--raw", &metrics], "").unwrap_or_default();
            let told = ["ws_connections ", "ws_moves", "ws_members", "ws_suspect", "ws_upstream"];
            let lines = metrics.lines().filter(|line| told.iter().any(|name| line.starts_with(name)));
            eprintln!("{}", lines.collect::<Vec<_>>().join("\n"));
        }
        if let Ok(seconds) = env::var("WS_STOP_AT_FAULT") {
            eprintln!("left as it is for {seconds} s");
            std::thread::sleep(Duration::from_secs(seconds.parse().unwrap_or(600)));
        }
    }

    fn up(&self) {
        if let Cluster::Own(_) = self.cluster {
            let running = self.try_kubectl(&["get", "--raw", "/readyz"], "").is_ok();
            if !(self.keep && running) {
                self.script(&["down"]);
                let version = env::var("WS_KUBERNETES").unwrap_or_else(|_| "1.36".into());
                self.script(&["up", "2", &version]);
            }
        }
        eprintln!("Kubernetes {}", self.raw("/version").unwrap()["gitVersion"]);
    }

    fn load(&self, archive: &str) {
        match (&self.cluster, env::var("WS_LOAD")) {
            (Cluster::Own(_), _) => drop(self.script(&["load", archive])),
            (Cluster::Given(_), Ok(command)) => {
                sh(&format!("{command} {archive}"));
            }
            (Cluster::Given(_), Err(_)) => {
                panic!(
                    "WS_LOAD is to be a command that puts an image archive into the cluster, such as 'kind load image-archive'"
                )
            }
        }
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show();
        }
        if !self.keep && matches!(self.cluster, Cluster::Own(_)) {
            self.script(&["down"]);
        }
    }
}

fn sh(command: &str) {
    finished(Command::new("sh").args(["-c", command]), "").unwrap_or_else(|why| panic!("{why}"));
}

/// What is installed: the images that were just built.
fn installation() -> Installation {
    Installation {
        settings: Settings {
            proxy_image: image("ws-proxy"),
            balancer_image: image("ws-balancer"),
            ..Settings::default()
        },
        operator_image: image("ws-operator"),
        replicas: 2,
    }
}

/// The name of an image of ours.
pub fn image(program: &str) -> String {
    format!("{REPOSITORY}/{program}:{TAG}")
}

/// Builds all images; says where they are.
fn images() -> Vec<String> {
    let script = WORKSPACE.join("ws-operator/deploy/images");
    let mut command = Command::new(script);
    // What Cargo tells this test of its own package would have dependencies built again that look at it.
    let told = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_"];
    for (name, _) in env::vars().filter(|(name, _)| told.iter().any(|start| name.starts_with(start))) {
        command.env_remove(name);
    }
    command.args(["--profile", "cluster", "--repository", REPOSITORY, "--tag", TAG, "--example", "pod"]);
    let told = finished(&mut command, "").unwrap_or_else(|why| panic!("{why}"));
    let archive = |line: &str| {
        let path: PathBuf = WORKSPACE.join(line.split(' ').nth(1).unwrap());
        path.to_str().unwrap().to_owned()
    };
    told.lines().map(archive).collect()
}
