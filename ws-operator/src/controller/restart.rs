//! Restarts workloads that ask for it, one at a time.

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    api::apps::v1::{DaemonSet, Deployment, StatefulSet},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Controller;
use crate::{
    names,
    table::Place,
    watchdog::{Candidates, Notice, Progress, RESTARTED, due},
    world::{Asks, Rolled, WorkloadKind},
};

/// How many workloads are looked at at once.
const AT_ONCE: usize = 8;

impl Controller {
    /// Restarts the one that is due. None is when one cannot be looked at: it may be on its way.
    pub(super) async fn restart(&self, mut candidates: Candidates) -> anyhow::Result<()> {
        let unwatched = candidates.iter().filter(|(_, candidate)| candidate.progress.is_none());
        let unwatched: Vec<_> = unwatched.map(|(owner, _)| owner.clone()).collect();
        let looks = unwatched.into_iter().map(|owner| look_at(self.client.clone(), owner));
        let seen: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).try_collect().await?;
        for (owner, progress) in seen {
            candidates.entry(owner).and_modify(|candidate| candidate.progress = progress);
        }
        let Some((kind, place)) = due(&candidates, Timestamp::now()) else { return Ok(()) };
        self.begin(*kind, place).await.with_context(|| told(*kind, place))
    }

    /// As `kubectl rollout restart` does it.
    async fn begin(&self, kind: WorkloadKind, place: &Place) -> kube::Result<()> {
        let Place { namespace, name } = place;
        let annotations = json!({RESTARTED: Timestamp::now().to_string()});
        let patch = Patch::Merge(json!({"spec": {"template": {"metadata": {"annotations": annotations}}}}));
        let params = PatchParams { field_manager: Some(names::OPERATOR.into()), ..PatchParams::default() };
        let client = self.client.clone();
        match kind {
            WorkloadKind::Deployment => {
                Api::<Deployment>::namespaced(client, namespace).patch(name, &params, &patch).await.map(drop)
            }
            WorkloadKind::StatefulSet => {
                Api::<StatefulSet>::namespaced(client, namespace).patch(name, &params, &patch).await.map(drop)
            }
            WorkloadKind::DaemonSet => {
                Api::<DaemonSet>::namespaced(client, namespace).patch(name, &params, &patch).await.map(drop)
            }
        }?;
        let text = "restarted: its pods had no sidecar, or an older one";
        tracing::info!(?kind, namespace, name, text);
        let (kind, place, text) = (kind.name(), place.clone(), text.into());
        self.notify(Notice { kind, place, uid: None, reason: "Restarted", text, warns: false }).await
    }
}

/// A workload that nobody watches; `None` where it is gone, or its template asks for nothing any more.
async fn look_at(
    client: Client,
    (kind, place): (WorkloadKind, Place),
) -> anyhow::Result<((WorkloadKind, Place), Option<Progress>)> {
    let progress = match kind {
        WorkloadKind::Deployment => progress::<Deployment>(client, &place).await,
        WorkloadKind::StatefulSet => progress::<StatefulSet>(client, &place).await,
        WorkloadKind::DaemonSet => progress::<DaemonSet>(client, &place).await,
    };
    let progress = progress.with_context(|| told(kind, &place))?;
    Ok(((kind, place), progress))
}

async fn progress<K>(client: Client, place: &Place) -> kube::Result<Option<Progress>>
where
    K: Rolled + kube::Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client, &place.namespace);
    Ok(api.get_opt(&place.name).await?.and_then(|object| Progress::of(&Asks::of(&object))))
}

fn told(kind: WorkloadKind, place: &Place) -> String {
    format!("{} {} of {}", kind.name(), place.name, place.namespace)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{Settings, fake_api::FakeApi, members::Rings, metrics::Metrics, watchdog::Candidate};

    /// A Deployment that is as it should be, and of which only the template is labelled.
    fn put(api: &FakeApi, name: &str, annotations: &Value) {
        let template = json!({"labels": {"ws.operator/enable": "true"}, "annotations": annotations});
        let object = json!({
            "metadata": {"namespace": "chat", "name": name, "generation": 2},
            "spec": {"selector": {}, "template": {"metadata": template}},
            "status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1},
        });
        api.put(&path(name), object);
    }

    fn path(name: &str) -> String {
        format!("/apis/apps/v1/namespaces/chat/deployments/{name}")
    }

    /// What is restarted of those of which nothing is known but that their pods ask for it.
    async fn restarted(api: &FakeApi, names: &[&str]) -> Vec<String> {
        let controller = Controller::new(api.client(), Settings::default(), Rings::default(), Metrics::new());
        let place = |name: &str| Place { namespace: "chat".into(), name: name.into() };
        let stale = Candidate { is_stale: true, progress: None };
        let all = names.iter().map(|name| ((WorkloadKind::Deployment, place(name)), stale.clone()));
        controller.restart(all.collect()).await.unwrap();
        let writes = api.writes().into_iter();
        writes.filter_map(|path| path.split_once("/deployments/").map(|(_, name)| name.to_owned())).collect()
    }

    #[tokio::test]
    async fn who_is_not_watched_is_looked_at_and_one_at_a_time() {
        let api = FakeApi::default();
        let asks = json!({"ws.operator/auto-restart": "true"});
        put(&api, "a", &json!({}));
        put(&api, "b", &asks);
        put(&api, "c", &asks);
        let all = ["a", "b", "c", "gone"];
        assert_eq!(restarted(&api, &all).await, ["b"], "the template of a does not ask any more");
        let begun = api.get(&path("b")).unwrap()["spec"]["template"]["metadata"]["annotations"].clone();
        assert!(begun[RESTARTED].is_string(), "{begun}");
        // As the API server merges it, while there is no new pod yet.
        let both = json!({"ws.operator/auto-restart": "true", RESTARTED: begun[RESTARTED]});
        put(&api, "b", &both);
        let mut rolling = api.get(&path("b")).unwrap();
        rolling["metadata"]["generation"] = 3.into();
        api.put(&path("b"), rolling);
        assert_eq!(restarted(&api, &all).await, Vec::<String>::new());
        put(&api, "b", &both);
        assert_eq!(restarted(&api, &all).await, ["c"]);
    }
}
