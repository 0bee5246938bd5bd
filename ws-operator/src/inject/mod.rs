//! What a pod is given: the sidecar, its token, the ring's label, and hooks that keep the app until its clients moved.
//!
//! Hooks before the stop of all containers start together; the sidecar, being native, is told to stop only after the
//! app is gone. So the sidecar's hook begins the drain, the app's hooks wait for it, and the app still serves what has
//! not moved yet.

mod patch;
mod sidecar;
mod skip;

use std::collections::BTreeMap;

use json_patch::Patch;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde_json::{Map, Value, json};

pub use skip::Skip;

use crate::{
    Ring, Settings,
    annotations::{self, Wishes},
    names::{ADMIN_PORT, PEER_TOKEN, RING, SIDECAR},
};
use patch::Additions;

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Injection {
    /// What was decided.
    pub outcome: Outcome,
    /// What its author should be told, a line each.
    pub warnings: Vec<String>,
}

/// The decision about a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It gets the sidecar, or what was not there yet when it got it: `add` operations only.
    Injected(Patch),
    /// It does not, though it carries the label.
    Skipped(Skip),
    /// It does not carry the label.
    NotAsked,
}

/// Decides about a pod that is to be created in `namespace`. Of what was injected before nothing is changed; containers
/// that were added since get their hooks.
///
/// # Errors
///
/// [`Denied`] when an annotation's value is bad; not for pods that would be skipped anyway.
pub fn inject(pod: &Pod, namespace: &str, settings: &Settings) -> Result<Injection, Denied> {
    let (labels, annotations) = (pod.metadata.labels.as_ref(), pod.metadata.annotations.as_ref());
    let Some(spec) = pod.spec.as_ref().filter(|_| annotations::asked(labels).is_some()) else {
        return Ok(Injection { outcome: Outcome::NotAsked, warnings: Vec::new() });
    };
    let read = annotations.map(annotations::read).unwrap_or_default();
    let mut warnings = labels.map(annotations::label_warnings).unwrap_or_default();
    warnings.extend(read.warnings);
    let skip = Skip::of(pod, spec, &read.wishes, settings.leaves_alone(namespace));
    if skip == Some(Skip::AlreadyInjected) && ours(labels, spec).is_some() {
        return Ok(Injection { outcome: again(spec), warnings });
    }
    if let Some(skip) = skip {
        warnings.push(format!("no sidecar is put into this pod: {skip}"));
        return Ok(Injection { outcome: Outcome::Skipped(skip), warnings });
    }
    if !read.faults.is_empty() {
        return Err(Denied(read.faults.join("; ")));
    }
    let ring = Ring { namespace: namespace.into(), group: read.wishes.group.clone() };
    let outcome = Outcome::Injected(additions(pod, spec, &read.wishes, &ring, settings));
    Ok(Injection { outcome, warnings })
}

/// The sidecar that was injected; `None` where a container only has its name.
fn ours<'a>(labels: Option<&BTreeMap<String, String>>, spec: &'a PodSpec) -> Option<&'a Container> {
    labels?.get(RING)?;
    spec.init_containers.iter().flatten().find(|container| container.name == SIDECAR)
}

/// What becomes of a pod that was injected: the API server asks again when another webhook has changed it.
fn again(spec: &PodSpec) -> Outcome {
    let mut patch = Additions::default();
    wait_empty_all(&mut patch, spec);
    match patch.into_patch() {
        Patch(missing) if missing.is_empty() => Outcome::Skipped(Skip::AlreadyInjected),
        missing => Outcome::Injected(missing),
    }
}

/// A pod whose annotations cannot be followed: which, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(String);

/// What a running pod that carries the label has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// No sidecar, though nothing speaks against one: it was made while nobody injected.
    Missing,
    /// No sidecar, for a reason.
    Skipped(Skip),
    /// A sidecar of another image than a new pod would get.
    Outdated,
    /// What a new pod would get.
    Current,
}

/// Looks for the sidecar in a pod; `None` when the pod does not carry the label.
#[must_use]
pub fn presence(pod: &Pod, settings: &Settings) -> Option<Presence> {
    annotations::asked(pod.metadata.labels.as_ref())?;
    let spec = pod.spec.as_ref()?;
    let wishes =
        pod.metadata.annotations.as_ref().map(|all| annotations::read(all).wishes).unwrap_or_default();
    let left_alone = pod.metadata.namespace.as_deref().is_some_and(|name| settings.leaves_alone(name));
    Some(match ours(pod.metadata.labels.as_ref(), spec) {
        Some(found) if found.image.as_deref() == Some(sidecar::image(&wishes, settings)) => Presence::Current,
        Some(_) => Presence::Outdated,
        None => Skip::of(pod, spec, &wishes, left_alone).map_or(Presence::Missing, Presence::Skipped),
    })
}

/// Seconds that a pod has after its drain: the app's own end, and the sidecar's.
const MARGIN: i64 = 5;

/// What Kubernetes gives a pod that asks for no other time.
const GRACE: i64 = 30;

fn additions(pod: &Pod, spec: &PodSpec, wishes: &Wishes, ring: &Ring, settings: &Settings) -> Patch {
    let mut patch = Additions::default();
    stamp(&mut patch, pod, ring);
    let sidecar = sidecar::container(spec, wishes, ring, settings);
    match spec.init_containers {
        Some(_) => patch.add(["spec", "initContainers", "0"], sidecar),
        None => patch.add(["spec", "initContainers"], json!([sidecar])),
    }
    let has_volume = spec.volumes.iter().flatten().any(|volume| volume.name == PEER_TOKEN);
    match spec.volumes {
        Some(_) if has_volume => {}
        Some(_) => patch.add(["spec", "volumes", "-"], sidecar::peer_token(ring)),
        None => patch.add(["spec", "volumes"], json!([sidecar::peer_token(ring)])),
    }
    wait_empty_all(&mut patch, spec);
    let least = i64::from(wishes.drain_seconds) + MARGIN;
    if spec.termination_grace_period_seconds.unwrap_or(GRACE) < least {
        patch.add(["spec", "terminationGracePeriodSeconds"], json!(least));
    }
    patch.into_patch()
}

/// The label by which the ring's Service selects.
fn stamp(patch: &mut Additions, pod: &Pod, ring: &Ring) {
    let group = Value::from(ring.group.as_str());
    match &pod.metadata.labels {
        Some(labels) if labels.get(RING).is_some_and(|stamped| stamped == ring.group.as_str()) => {}
        Some(_) => patch.add(["metadata", "labels", RING], group),
        None => patch.add(["metadata", "labels"], Map::from_iter([(RING.into(), group)]).into()),
    }
}

fn wait_empty_all(patch: &mut Additions, spec: &PodSpec) {
    for (index, container) in spec.containers.iter().enumerate() {
        wait_empty(patch, &index.to_string(), container);
    }
}

/// Keeps an app's container until its clients have moved, unless it has a hook of its own. By HTTP, since an image need
/// not hold anything that could be executed.
fn wait_empty(patch: &mut Additions, index: &str, container: &Container) {
    let hook = json!({ "httpGet": { "path": "/v1/wait-empty", "port": ADMIN_PORT } });
    match &container.lifecycle {
        Some(lifecycle) if lifecycle.pre_stop.is_some() => {}
        Some(_) => patch.add(["spec", "containers", index, "lifecycle", "preStop"], hook),
        None => patch.add(["spec", "containers", index, "lifecycle"], json!({ "preStop": hook })),
    }
}
