//! Templates that are not told what their workload is: the webhook was not asked, or not there.

use json_patch::{Patch, PatchOperation, TestOperation, jsonptr::PointerBuf};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use kube::{
    Api, ResourceExt,
    api::{ListParams, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Controller;
use crate::{
    names,
    propagate::{Workload, propagate},
    world::Rolled,
};

impl Controller {
    /// Looks through all workloads of a namespace, labelled or not: of those whose label went, the templates still
    /// have what they were told.
    pub(super) async fn mend(&self, namespace: &str) -> anyhow::Result<()> {
        self.mend_kind::<Deployment>(namespace).await?;
        self.mend_kind::<StatefulSet>(namespace).await?;
        self.mend_kind::<DaemonSet>(namespace).await
    }

    async fn mend_kind<K>(&self, namespace: &str) -> anyhow::Result<()>
    where
        K: Rolled
            + kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        // What the API server has at hand is new enough.
        for object in api.list(&ListParams::default().match_any()).await? {
            let Some(patch) = missed(&object) else { continue };
            let kind = K::kind(&());
            let name = object.name_any();
            let params =
                PatchParams { field_manager: Some(names::OPERATOR.into()), ..PatchParams::default() };
            match api.patch(&name, &params, &kube::api::Patch::<()>::Json(patch)).await {
                Ok(_) => tracing::info!(namespace, %kind, name, "told a template what the webhook did not"),
                // It has changed meanwhile: then the webhook saw it, or it is looked at again.
                Err(kube::Error::Api(status)) if [404, 409, 422].contains(&status.code) => {
                    tracing::debug!(namespace, %kind, name, %status, "a template is not told anything now");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// What its template is yet to be told, unless it has changed by then.
fn missed<K: Rolled>(object: &K) -> Option<Patch> {
    let workload = Workload::of(object.meta().clone(), object.template());
    let Patch(mut operations) = propagate(&workload).patch;
    if operations.is_empty() {
        return None;
    }
    let path = PointerBuf::from_tokens(["metadata", "resourceVersion"]);
    let value = object.meta().resource_version.clone().map_or(Value::Null, Value::from);
    operations.insert(0, PatchOperation::Test(TestOperation { path, value }));
    Some(Patch(operations))
}
