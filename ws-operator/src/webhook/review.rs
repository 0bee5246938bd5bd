//! `AdmissionReview` of `admission.k8s.io/v1`, as far as the webhooks need it.

use base64::{Engine, engine::general_purpose::STANDARD};
use json_patch::Patch;
use serde::Deserialize;
use serde_json::{Value, json};

/// What the API server asks.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Request {
    pub(super) uid: String,
    /// Of the object, which need not name one itself yet.
    #[serde(default)]
    pub(super) namespace: String,
    /// The object; `null` when one is deleted.
    #[serde(default)]
    pub(super) object: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Request,
}

/// Reads what the API server asks.
pub(super) fn read(body: &[u8]) -> Result<Request, BadReview> {
    let review: Review = serde_json::from_slice(body)?;
    if (review.api_version.as_str(), review.kind.as_str()) != (VERSION, KIND) {
        return Err(BadReview::Kind);
    }
    Ok(review.request)
}

const VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// A request that no API server sends.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadReview {
    #[error("expected an AdmissionReview")]
    Json(#[from] serde_json::Error),
    #[error("expected an AdmissionReview of {VERSION}")]
    Kind,
}

/// What the API server is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Decision {
    pub(super) verdict: Verdict,
    /// What the author is told, a line each.
    pub(super) warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// As it is.
    Unchanged,
    /// As it is, though it carries the label: why.
    Skipped(&'static str),
    /// With these changes.
    Patched(Patch),
    /// Not at all: why.
    Denied(String),
    /// Not at all, for it is not what the webhook is for.
    Unreadable(String),
}

impl Verdict {
    /// How it is counted: result and reason.
    pub(super) fn labels(&self) -> (&'static str, &'static str) {
        match self {
            Self::Unchanged => ("unchanged", ""),
            Self::Skipped(reason) => ("skipped", reason),
            Self::Patched(_) => ("patched", ""),
            Self::Denied(_) => ("denied", ""),
            Self::Unreadable(_) => ("unreadable", ""),
        }
    }
}

impl Decision {
    /// The review that answers the request of that uid.
    pub(super) fn review(&self, uid: &str) -> Value {
        let mut response = json!({"uid": uid, "allowed": true});
        match &self.verdict {
            Verdict::Unchanged | Verdict::Skipped(_) => {}
            Verdict::Patched(patch) => {
                response["patchType"] = "JSONPatch".into();
                response["patch"] = STANDARD.encode(json!(patch).to_string()).into();
            }
            Verdict::Denied(why) => refuse(&mut response, 422, "Invalid", why),
            Verdict::Unreadable(why) => refuse(&mut response, 400, "BadRequest", why),
        }
        if !self.warnings.is_empty() {
            response["warnings"] = json!(self.warnings);
        }
        json!({"apiVersion": VERSION, "kind": KIND, "response": response})
    }
}

fn refuse(response: &mut Value, code: u16, reason: &str, why: &str) {
    response["allowed"] = false.into();
    response["status"] = json!({"status": "Failure", "code": code, "reason": reason, "message": why});
}
