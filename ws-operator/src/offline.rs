//! Injection into manifests, before a cluster sees them: what the webhooks would do, done to YAML.
//!
//! For those who want to read what they apply, or whose cluster runs no webhook. Of a cluster that injects too nothing
//! is changed a second time.

use json_patch::PatchError;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::{
    Settings,
    inject::{Denied, Outcome, inject},
    names::{ENABLE, ENABLED, PROPAGATED},
    propagate::{Workload, propagate},
};

/// Manifests that were looked through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// All documents. One in which nothing is changed is as it was, byte for byte; of another, only the comments
    /// before its first line are kept.
    pub manifests: String,
    /// What their author should be told, a line each.
    pub warnings: Vec<String>,
}

/// Injects into every labelled workload and pod of a text of YAML documents. Objects that name no namespace are taken
/// to be in `namespace`.
///
/// # Errors
///
/// [`Fault`] in the first document that is no YAML, or whose annotations cannot be followed.
pub fn inject_all(text: &str, namespace: &str, settings: &Settings) -> Result<Injected, Fault> {
    let mut all = Injected { manifests: String::with_capacity(text.len()), warnings: Vec::new() };
    for (index, document) in documents(text).into_iter().enumerate() {
        let mut told = Telling { namespace, settings, warnings: &mut all.warnings };
        let given = told.document(document);
        all.manifests += &given.map_err(|cause| Fault { document: index + 1, cause })?;
    }
    Ok(all)
}

/// A document that nothing can be put into.
#[derive(Debug, thiserror::Error)]
#[error("document {document}")]
pub struct Fault {
    document: usize,
    #[source]
    cause: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("it cannot be read")]
    Read(#[source] Box<serde_saphyr::Error>),
    #[error("it is no object of its kind")]
    Object(#[source] serde_json::Error),
    #[error("its annotations cannot be followed")]
    Denied(#[from] Denied),
    #[error("it cannot be changed")]
    Patch(#[from] PatchError),
    #[error("it cannot be written")]
    Write(#[from] serde_saphyr::SerializeError),
}

/// The documents of a text, each with the line that separates it from the one before. Together they are the text.
fn documents(text: &str) -> Vec<&str> {
    let mut starts = vec![0];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if at > 0 && is_separator(line) {
            starts.push(at);
        }
        at += line.len();
    }
    starts.push(text.len());
    starts.windows(2).map(|ends| &text[ends[0]..ends[1]]).collect()
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

/// What stands before a document's first line: separator, comments, empty lines.
fn head(document: &str) -> &str {
    let is_head = |line: &str| line.trim() == "---" || line.starts_with('#') || line.trim().is_empty();
    let lines = document.split_inclusive('\n').take_while(|line| is_head(line));
    &document[..lines.map(str::len).sum()]
}

/// A document as kubectl reads it: a number that begins with 0 is octal, as the modes of files are written.
fn read(text: &str) -> Result<Value, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, serde_saphyr::options! { legacy_octal_numbers: true })
}

/// Whether an object or its template has the label, or is listed to have been told of it. Of others nothing more is
/// read: they need not be what we take them for.
fn concerns_us(object: &Value, template: &str) -> bool {
    let has = |place: &str, part: &str, key: &str| {
        object.pointer(&format!("{place}/metadata/{part}")).is_some_and(|all| all.get(key).is_some())
    };
    let is_labelled = |place| [ENABLE, ENABLED].iter().any(|label| has(place, "labels", label));
    is_labelled("") || is_labelled(template) || has(template, "annotations", PROPAGATED)
}

struct Telling<'a> {
    namespace: &'a str,
    settings: &'a Settings,
    warnings: &'a mut Vec<String>,
}

impl Telling<'_> {
    fn document(&mut self, text: &str) -> Result<String, Cause> {
        if head(text) == text {
            return Ok(text.into());
        }
        let object: Value = read(text).map_err(|error| Cause::Read(Box::new(error)))?;
        let mut given = object.clone();
        self.object(&mut given)?;
        if given == object {
            return Ok(text.into());
        }
        let separator = if is_separator(text) && !head(text).starts_with("---") { "---\n" } else { "" };
        Ok(format!("{separator}{}{}", head(text), serde_saphyr::to_string(&given)?))
    }

    fn object(&mut self, object: &mut Value) -> Result<(), Cause> {
        let (template, is_workload) = match object["kind"].as_str() {
            Some("Pod") => ("", false),
            Some("Deployment" | "StatefulSet" | "DaemonSet") => ("/spec/template", true),
            Some("ReplicaSet" | "Job") => ("/spec/template", false),
            Some("CronJob") => ("/spec/jobTemplate/spec/template", false),
            Some("List") => {
                let mut items = object["items"].as_array_mut().into_iter().flatten();
                return items.try_for_each(|item| self.object(item));
            }
            _ => return Ok(()),
        };
        if !concerns_us(object, template) {
            return Ok(());
        }
        let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
        let namespace = namespace.unwrap_or(self.namespace).to_owned();
        let mut given = object.clone();
        if is_workload {
            self.propagate(&mut given)?;
        }
        self.inject(&mut given, template, &namespace)?;
        // There the webhooks are not asked: its author is told why, and that is all.
        if !self.settings.leaves_alone(&namespace) {
            *object = given;
        }
        Ok(())
    }

    fn propagate(&mut self, object: &mut Value) -> Result<(), Cause> {
        let workload: Workload = serde_json::from_value(object.clone()).map_err(Cause::Object)?;
        let told = propagate(&workload);
        self.warn(object, told.warnings);
        Ok(json_patch::patch(object, &told.patch)?)
    }

    /// Into the template at that path, or the object itself.
    fn inject(&mut self, object: &mut Value, template: &str, namespace: &str) -> Result<(), Cause> {
        let Some(template) = object.pointer_mut(template) else { return Ok(()) };
        let pod = json!({"metadata": template["metadata"], "spec": template["spec"]});
        let pod: Pod = serde_json::from_value(pod).map_err(Cause::Object)?;
        let given = inject(&pod, namespace, self.settings)?;
        if let Outcome::Injected(patch) = given.outcome {
            json_patch::patch(template, &patch)?;
        }
        self.warn(object, given.warnings);
        Ok(())
    }

    fn warn(&mut self, object: &Value, warnings: Vec<String>) {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let name = format!("{} {}", text("/kind"), text("/metadata/name"));
        let told = warnings.into_iter().map(|warning| format!("{name}: {warning}"));
        for warning in told {
            // What is wrong with a workload's label is wrong with its template's, too.
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }
}
