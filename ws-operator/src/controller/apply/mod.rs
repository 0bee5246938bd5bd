//! One namespace, brought to what it should be.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Resource, ResourceExt,
    api::{DynamicObject, ListParams, Patch, PatchParams},
    runtime::events::{Event, EventType},
};
use serde_json::json;
use tokio::time::timeout;

use super::Controller;
use crate::{
    Group,
    desired::{Kind, Object, Plan},
    names,
    table::Place,
    tokens::{self, Tokens},
};

/// How long one namespace may take.
const LIMIT: Duration = Duration::from_secs(30);

/// What is noted of a group's tokens, as an annotation of their Secret.
fn note(group: &str) -> String {
    format!("{}tokens.{group}", names::PREFIX)
}

/// What was found in a namespace that is as it should be but for this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// What somebody else has made under a name that the ring of a group needs.
    pub(super) taken: Vec<(Group, String)>,
    /// Groups that are to be monitored, where the cluster does not know how.
    pub(super) unmonitored: Vec<Group>,
}

/// What became of an object.
enum Applied {
    Done,
    /// Somebody else has made it.
    Foreign,
    /// The cluster does not know its kind.
    Unknown,
}

impl Controller {
    pub(super) async fn reconcile(
        &self,
        namespace: &str,
        plans: &[Plan],
        mends: bool,
    ) -> anyhow::Result<Report> {
        timeout(LIMIT, async {
            // Pods wait for their token: it comes first.
            let mut report = Report::default();
            if !self.tokens(namespace, plans).await? {
                let name = format!("Secret {}", names::PEER_TOKEN);
                report.taken.extend(plans.iter().map(|plan| (plan.ring.group.clone(), name.clone())));
            }
            let mut objects = Vec::new();
            for plan in plans {
                let group = &plan.ring.group;
                for object in plan.objects(&self.settings) {
                    match self.apply(&object).await? {
                        Applied::Done => {}
                        Applied::Foreign => {
                            let name = format!("{:?} {}", object.kind, object.place.name);
                            report.taken.push((group.clone(), name));
                        }
                        Applied::Unknown => report.unmonitored.push(group.clone()),
                    }
                    objects.push(object);
                }
            }
            self.remove_others(namespace, &objects).await?;
            if mends {
                self.mend(namespace).await?;
            }
            Ok(report)
        })
        .await
        .context("it took too long")?
    }

    /// Applies an object, unless somebody else has made one of its name: that is reported.
    async fn apply(&self, object: &Object) -> anyhow::Result<Applied> {
        let api = self.api(object.kind, &object.place.namespace);
        let there = match api.get_opt(&object.place.name).await {
            // A resource that the cluster does not have is not there either.
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            there => there?,
        };
        if let Some(foreign) = there.as_ref().filter(|there| !is_ours(*there)) {
            self.report_foreign(object.kind, foreign).await?;
            return Ok(Applied::Foreign);
        }
        let mut params = PatchParams::apply(names::OPERATOR);
        // A field that somebody else has set is taken back only where the object is known to be ours.
        params.force = there.is_some();
        match api.patch(&object.place.name, &params, &Patch::Apply(&object.body)).await {
            Err(kube::Error::Api(status)) if status.code == 404 && !object.kind.is_everywhere() => {
                tracing::warn!(kind = ?object.kind, "the cluster does not know this kind of object");
                Ok(Applied::Unknown)
            }
            applied => Ok(applied.map(|_| Applied::Done)?),
        }
    }

    async fn report_foreign(&self, kind: Kind, foreign: &DynamicObject) -> anyhow::Result<()> {
        let resource = kind.resource();
        let note = format!(
            "{} {} was not made by {}: it is left alone, and its ring goes without",
            resource.kind,
            foreign.name_any(),
            names::OPERATOR
        );
        let event = Event {
            type_: EventType::Warning,
            reason: "NameTaken".into(),
            note: Some(note),
            action: "Apply".into(),
            secondary: None,
        };
        self.recorder.publish(&event, &foreign.object_ref(&resource)).await?;
        Ok(())
    }

    /// Deletes what is ours and no longer wanted.
    async fn remove_others(&self, namespace: &str, wanted: &[Object]) -> anyhow::Result<()> {
        let ours = ListParams::default().labels(&format!("{}={}", names::MANAGED_BY, names::OPERATOR));
        for kind in Kind::ALL {
            let api = self.api(kind, namespace);
            let names: BTreeSet<&Place> =
                wanted.iter().filter(|object| object.kind == kind).map(|object| &object.place).collect();
            let there = match api.list(&ours).await {
                Err(kube::Error::Api(status)) if status.code == 404 && !kind.is_everywhere() => continue,
                there => there?,
            };
            for object in there {
                let place = Place { namespace: namespace.into(), name: object.name_any() };
                // What the operator's own installation is made of has the same label, and no ring.
                if is_of_a_ring(&object) && !names.contains(&place) {
                    tracing::info!(
                        namespace,
                        name = place.name,
                        ?kind,
                        "removed: no pod or workload needs it"
                    );
                    let params = kube::api::DeleteParams::background();
                    ignore_gone(api.delete(&place.name, &params).await.map(drop))?;
                }
            }
        }
        Ok(())
    }

    /// Keeps the Secret of the peer tokens; false when somebody else has made it: it is left alone.
    async fn tokens(&self, namespace: &str, plans: &[Plan]) -> anyhow::Result<bool> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let there = api.get_opt(names::PEER_TOKEN).await?;
        let is_foreign = there.as_ref().is_some_and(|there| !is_ours(there));
        if plans.is_empty() {
            if there.is_some() && !is_foreign {
                let params = kube::api::DeleteParams::default();
                ignore_gone(api.delete(names::PEER_TOKEN, &params).await.map(drop))?;
            }
            return Ok(true);
        }
        if is_foreign {
            return Ok(false);
        }
        let (mut data, mut notes) = (BTreeMap::new(), BTreeMap::new());
        for plan in plans {
            let group = plan.ring.group.as_str();
            let tokens = next_tokens(there.as_ref(), group, Timestamp::now());
            data.insert(group.to_owned(), k8s_openapi::ByteString(tokens.file().into_bytes()));
            notes.insert(note(group), tokens.note());
        }
        let body = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {
                "namespace": namespace, "name": names::PEER_TOKEN, "annotations": notes,
                "labels": {names::MANAGED_BY: names::OPERATOR, "app.kubernetes.io/part-of": "ws-routing"},
            },
            "data": data,
        });
        let params = PatchParams::apply(names::OPERATOR).force();
        api.patch(names::PEER_TOKEN, &params, &Patch::Apply(&body)).await?;
        Ok(true)
    }

    fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &kind.resource())
    }
}

fn next_tokens(secret: Option<&Secret>, group: &str, now: Timestamp) -> Tokens {
    let file = secret.and_then(|secret| secret.data.as_ref()?.get(group));
    let note = secret.and_then(|secret| secret.annotations().get(&note(group)));
    let had =
        file.and_then(|file| Tokens::read(&String::from_utf8_lossy(&file.0), note.map(String::as_str), now));
    Tokens::next(had, now, tokens::random)
}

fn is_ours(object: &impl Resource) -> bool {
    let labels = object.meta().labels.as_ref();
    labels.and_then(|labels| labels.get(names::MANAGED_BY)).is_some_and(|by| by == names::OPERATOR)
}

fn is_of_a_ring(object: &impl Resource) -> bool {
    let labels = object.meta().labels.as_ref();
    labels
        .is_some_and(|labels| [names::RING, names::BALANCER_OF].iter().any(|mark| labels.contains_key(*mark)))
}

fn ignore_gone(deleted: kube::Result<()>) -> kube::Result<()> {
    match deleted {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        deleted => deleted,
    }
}

#[cfg(test)]
mod tests;
