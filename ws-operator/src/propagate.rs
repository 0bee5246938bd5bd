//! What a labelled workload's pod template is told: the label and our annotations, and nothing of its `spec`.
//!
//! What was copied is listed in the template, under [`PROPAGATED`]. What is not listed there is the author's own: it
//! counts more than the workload's, and is left alone.

use std::collections::{BTreeMap, BTreeSet};

use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, jsonptr::PointerBuf};
use k8s_openapi::{api::core::v1::PodTemplateSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    annotations,
    names::{ENABLE, ENABLED, PREFIX, PROPAGATED},
};

/// What matters of a Deployment, StatefulSet or DaemonSet: all three have it in the same places.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Workload {
    /// Its own.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Where its template is.
    #[serde(default)]
    pub spec: WorkloadSpec,
}

impl Workload {
    /// A workload with that metadata and that template.
    #[must_use]
    pub fn of(metadata: ObjectMeta, template: Option<&PodTemplateSpec>) -> Self {
        let told = template.and_then(|template| template.metadata.clone());
        Self { metadata, spec: WorkloadSpec { template: Template { metadata: told } } }
    }
}

/// The part of a workload that has its template.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct WorkloadSpec {
    /// What its pods are made from.
    #[serde(default)]
    pub template: Template,
}

/// The part of a template that may be told something.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Template {
    /// Labels and annotations of its pods.
    #[serde(default)]
    pub metadata: Option<ObjectMeta>,
}

/// What a workload's template is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Propagation {
    /// `add` and `remove` operations below `/spec/template/metadata`; none where all is as it should be.
    pub patch: Patch,
    /// What its author should be told, a line each.
    pub warnings: Vec<String>,
}

/// Decides about a workload that is to be created or updated. Of the outcome it would change nothing again.
#[must_use]
pub fn propagate(workload: &Workload) -> Propagation {
    let none = BTreeMap::new();
    let labels = workload.metadata.labels.as_ref().unwrap_or(&none);
    let annotations = workload.metadata.annotations.as_ref().unwrap_or(&none);
    let template = workload.spec.template.metadata.as_ref();
    let told = template.and_then(|metadata| metadata.annotations.as_ref()?.get(PROPAGATED));
    let told: BTreeSet<&str> = told.into_iter().flat_map(|names| names.split(',')).collect();
    let asked = annotations::asked(Some(labels)) == Some(true);
    let wanted = |all: &BTreeMap<String, String>, copied: fn(&str) -> bool| -> BTreeMap<String, String> {
        let all = all.iter().filter(|(key, _)| asked && copied(key));
        all.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let mut side_labels = Side::new(template.and_then(|metadata| metadata.labels.as_ref()));
    let mut side_annotations = Side::new(template.and_then(|metadata| metadata.annotations.as_ref()));
    let mut list = side_labels.settle(&wanted(labels, is_label), &told, is_label);
    list.extend(side_annotations.settle(&wanted(annotations, is_annotation), &told, is_annotation));
    side_annotations.list(&list);
    let mut operations = Vec::new();
    if template.is_none() && !list.is_empty() {
        operations.push(add(&[], json!({})));
    }
    operations.extend(side_labels.operations("labels"));
    operations.extend(side_annotations.operations("annotations"));
    Propagation { patch: Patch(operations), warnings: warnings(asked, labels, annotations) }
}

fn is_label(key: &str) -> bool {
    key == ENABLE || key == ENABLED
}

fn is_annotation(key: &str) -> bool {
    key.starts_with(PREFIX) && key != PROPAGATED && !is_label(key)
}

fn warnings(
    asked: bool,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Vec<String> {
    if !asked {
        return Vec::new();
    }
    let read = annotations::read(annotations);
    let refused = read.faults.into_iter().map(|fault| format!("pods will be refused: {fault}"));
    annotations::label_warnings(labels).into_iter().chain(read.warnings).chain(refused).collect()
}

/// The labels, or the annotations, of a template.
struct Side<'a> {
    is: Option<&'a BTreeMap<String, String>>,
    ought: BTreeMap<String, String>,
}

impl<'a> Side<'a> {
    fn new(is: Option<&'a BTreeMap<String, String>>) -> Self {
        Self { is, ought: is.cloned().unwrap_or_default() }
    }

    /// Takes out what was told and is no longer wanted, puts in what is wanted and not the author's own, and returns
    /// what it has been told now.
    fn settle(
        &mut self,
        wanted: &BTreeMap<String, String>,
        told: &BTreeSet<&str>,
        ours: fn(&str) -> bool,
    ) -> BTreeSet<String> {
        let name = |key: &str| key.strip_prefix(PREFIX).unwrap_or_default().to_owned();
        self.ought.retain(|key, _| !(ours(key) && told.contains(name(key).as_str())));
        let mut list = BTreeSet::new();
        for (key, value) in wanted {
            if !self.ought.contains_key(key) {
                self.ought.insert(key.clone(), value.clone());
                list.insert(name(key));
            }
        }
        list
    }

    fn list(&mut self, list: &BTreeSet<String>) {
        let names: Vec<&str> = list.iter().map(String::as_str).collect();
        if names.is_empty() {
            self.ought.remove(PROPAGATED);
        } else {
            self.ought.insert(PROPAGATED.into(), names.join(","));
        }
    }

    fn operations(&self, side: &str) -> Vec<PatchOperation> {
        let none = BTreeMap::new();
        let is = self.is.unwrap_or(&none);
        if *is == self.ought {
            return Vec::new();
        }
        if self.ought.is_empty() {
            return vec![remove(&[side])];
        }
        if self.is.is_none() {
            return vec![add(&[side], json!(self.ought))];
        }
        let gone = is.keys().filter(|key| !self.ought.contains_key(*key)).map(|key| remove(&[side, key]));
        let new = self.ought.iter().filter(|(key, value)| is.get(*key) != Some(value));
        gone.chain(new.map(|(key, value)| add(&[side, key], json!(value)))).collect()
    }
}

fn path(tokens: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(["spec", "template", "metadata"].iter().chain(tokens).copied())
}

fn add(tokens: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: path(tokens), value })
}

fn remove(tokens: &[&str]) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation { path: path(tokens) })
}
