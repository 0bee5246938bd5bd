//! What an installation consists of: pure, in the order in which it is applied.

mod permissions;
mod webhooks;
mod workload;

use k8s_openapi::serde::Serialize;
use serde_json::{Value, json};

use crate::{Settings, crd, names};

/// What an installation is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// What the operator is told.
    pub settings: Settings,
    /// The operator's own image.
    pub operator_image: String,
    /// How many operators there are: all serve, one leads.
    pub replicas: u16,
}

impl Installation {
    /// All objects.
    ///
    /// # Errors
    ///
    /// None that a test has not seen: the custom resource definition is a constant.
    pub fn objects(&self) -> serde_json::Result<Vec<Value>> {
        let mut objects = vec![namespace(&self.settings.namespace), definition()?];
        objects.extend(permissions::objects(&self.settings.namespace));
        objects.extend(workload::objects(self));
        // Last: nothing is asked before somebody can answer.
        objects.push(webhooks::configuration(&self.settings.namespace));
        Ok(objects)
    }

    /// All objects, as one YAML text.
    ///
    /// # Errors
    ///
    /// See [`Self::objects`].
    pub fn yaml(&self) -> anyhow::Result<String> {
        let documents = self.objects()?;
        let texts = documents.iter().map(|object| Ok(serde_saphyr::to_string(object)?));
        Ok(texts.collect::<anyhow::Result<Vec<String>>>()?.join("---\n"))
    }
}

impl Default for Installation {
    fn default() -> Self {
        Self { settings: Settings::default(), operator_image: Settings::image(names::OPERATOR), replicas: 2 }
    }
}

fn namespace(name: &str) -> Value {
    let level = |mode: &str| format!("pod-security.kubernetes.io/{mode}");
    let mut labels = labels();
    for mode in ["enforce", "audit", "warn"] {
        labels[level(mode)] = "restricted".into();
    }
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

fn definition() -> serde_json::Result<Value> {
    let mut definition = crd::definition().serialize(serde_json::value::Serializer)?;
    definition["metadata"]["labels"] = labels();
    Ok(definition)
}

/// The labels of everything that is installed. Not those of what the operator makes: that is not its own to remove.
fn labels() -> Value {
    json!({"app.kubernetes.io/name": names::OPERATOR, "app.kubernetes.io/part-of": "ws-routing"})
}

/// What selects the operator's pods.
fn selector() -> Value {
    json!({"app.kubernetes.io/name": names::OPERATOR})
}

/// The metadata of an object of ours in that namespace.
fn within(namespace: &str) -> Value {
    json!({"name": names::OPERATOR, "namespace": namespace, "labels": labels()})
}

/// The metadata of an object of ours in none.
fn everywhere() -> Value {
    json!({"name": names::OPERATOR, "labels": labels()})
}
