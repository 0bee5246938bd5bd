//! What is decided about a pod that is created, and a workload that is created or updated.

use json_patch::Patch;
use serde::de::DeserializeOwned;

use super::review::{Decision, Request, Verdict};
use crate::{
    Settings,
    inject::{Injection, Outcome, inject},
    propagate::{Propagation, propagate},
};

/// A pod gets its sidecar.
pub(super) fn pods(request: Request, settings: &Settings) -> Decision {
    let pod = match object(request.object) {
        Ok(pod) => pod,
        Err(why) => return why,
    };
    match inject(&pod, &request.namespace, settings) {
        Ok(Injection { outcome, warnings }) => {
            let verdict = match outcome {
                Outcome::Injected(patch) => patched(patch),
                Outcome::Skipped(skip) => Verdict::Skipped(skip.name()),
                Outcome::NotAsked => Verdict::Unchanged,
            };
            Decision { verdict, warnings }
        }
        Err(denied) => Decision { verdict: Verdict::Denied(denied.to_string()), warnings: Vec::new() },
    }
}

/// A workload's template is told what the workload is.
pub(super) fn workloads(request: Request, settings: &Settings) -> Decision {
    if settings.leaves_alone(&request.namespace) {
        return Decision { verdict: Verdict::Unchanged, warnings: Vec::new() };
    }
    match object(request.object) {
        Ok(workload) => {
            let Propagation { patch, warnings } = propagate(&workload);
            Decision { verdict: patched(patch), warnings }
        }
        Err(why) => why,
    }
}

fn patched(patch: Patch) -> Verdict {
    if patch.0.is_empty() { Verdict::Unchanged } else { Verdict::Patched(patch) }
}

fn object<K: DeserializeOwned>(object: serde_json::Value) -> Result<K, Decision> {
    serde_json::from_value(object).map_err(|error| Decision {
        verdict: Verdict::Unreadable(format!("the object is not what this webhook is for: {error}")),
        warnings: Vec::new(),
    })
}
