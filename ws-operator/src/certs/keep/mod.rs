//! What only the leader does: it makes and replaces what the Secret has, and tells the API server whom to trust.

use std::{pin::pin, time::Duration};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{
        WatchStreamExt,
        watcher::{Config, watcher},
    },
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Held, plan};
use crate::{metrics::Metrics, names};

/// How often it is looked at, changed or not.
const AGAIN: Duration = Duration::from_secs(60);

/// How long after a fault it is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The annotation of the Secret that says how far the replacement of the CA is.
const NOTE: &str = "ws.operator/ca";

/// Keeps the Secret, and what the API server trusts.
pub(crate) struct Keeper {
    client: Client,
    namespace: String,
    names: Vec<String>,
    metrics: Metrics,
}

impl Keeper {
    pub(crate) fn new(client: Client, namespace: String, metrics: Metrics) -> Self {
        Self { client, names: super::names(&namespace), namespace, metrics }
    }

    /// Goes on until it is dropped, which it may be at any time.
    pub(crate) async fn run(&self) {
        let mut changed = pin!(self.changes());
        loop {
            let next = match timeout(LIMIT, self.settle()).await {
                Ok(Ok(())) => AGAIN,
                failed => {
                    self.metrics.failed("certificates");
                    let error = match failed {
                        Ok(Err(error)) => format!("{error:#}"),
                        _ => format!("not done after {LIMIT:?}"),
                    };
                    tracing::warn!(error, "cannot keep the certificates, trying again");
                    RETRY
                }
            };
            let due = Instant::now() + next;
            tokio::select! {
                () = sleep_until(due) => {}
                // A fault is not answered by another try at once.
                Some(()) = changed.next(), if next == AGAIN => {}
            }
        }
    }

    /// Says when the Secret or the configuration of the webhooks is another.
    fn changes(&self) -> impl futures_util::Stream<Item = ()> + use<> {
        let named = |name: &str| Config::default().fields(&format!("metadata.name={name}")).timeout(45);
        let (secrets, configurations) = (self.secrets(), self.configurations());
        let secrets = watcher(secrets, named(names::CERTIFICATE_SECRET)).default_backoff();
        let configurations = watcher(configurations, named(names::OPERATOR)).default_backoff();
        let secrets = secrets.filter_map(|told| async move { told.ok().map(drop) });
        let configurations = configurations.filter_map(|told| async move { told.ok().map(drop) });
        stream::select(secrets.boxed(), configurations.boxed())
    }

    /// All steps that are due, and the bundle; then, what the API server was told is noted.
    async fn settle(&self) -> anyhow::Result<()> {
        let secret = self.secrets().get_opt(names::CERTIFICATE_SECRET).await.context("the Secret")?;
        let (mut held, mut version) = self.read(secret.as_ref());
        while let Some(step) = plan(Timestamp::now(), held.as_ref()) {
            let now = Timestamp::now();
            let next = match held {
                Some(held) => held.take(step, &self.names, now)?,
                None => Held::found(&self.names, now)?,
            };
            version = Some(self.write(&next, version).await?);
            tracing::info!(?step, "certificates");
            held = Some(next);
        }
        let Some(held) = held else { return Ok(()) };
        let trusts = self.trust(&held.bundle()).await.context("the webhook configuration")?;
        if trusts && held.is_to_announce() {
            self.write(&held.announced(Timestamp::now()), version).await?;
        }
        Ok(())
    }

    fn read(&self, secret: Option<&Secret>) -> (Option<Held>, Option<String>) {
        let data = secret.and_then(|secret| secret.data.as_ref());
        let note = secret.and_then(|secret| secret.annotations().get(NOTE)).map(String::as_str);
        let held = data.and_then(|data| Held::read(data, note, &self.names));
        (held, secret.and_then(ResourceExt::resource_version))
    }

    /// Writes the Secret, if it still is of that version; says of which it is then.
    async fn write(&self, held: &Held, version: Option<String>) -> anyhow::Result<String> {
        let body = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {
                "namespace": self.namespace, "name": names::CERTIFICATE_SECRET,
                "labels": {names::MANAGED_BY: names::OPERATOR, "app.kubernetes.io/part-of": "ws-routing"},
                "annotations": held.note().map(|note| json!({NOTE: note})),
                "resourceVersion": version,
            },
            "data": held.data(),
        });
        let params = PatchParams::apply(names::OPERATOR).force();
        let written = self.secrets().patch(names::CERTIFICATE_SECRET, &params, &Patch::Apply(body)).await;
        written.context("the Secret")?.resource_version().context("a Secret without a version")
    }

    /// Has the API server trust that bundle, unless it does; false when there is nothing for which it could.
    async fn trust(&self, bundle: &str) -> anyhow::Result<bool> {
        let api = self.configurations();
        let Some(configuration) = api.get_opt(names::OPERATOR).await? else {
            tracing::debug!("there is no webhook configuration");
            return Ok(false);
        };
        let hooks = configuration.webhooks.unwrap_or_default();
        let trusted = |hook: &_| is_trusted(hook, bundle);
        if hooks.iter().all(trusted) {
            return Ok(true);
        }
        let bundle = STANDARD.encode(bundle);
        let hooks: Vec<Value> = hooks
            .iter()
            .map(|hook| json!({"name": hook.name, "clientConfig": {"caBundle": bundle}}))
            .collect();
        let body = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": names::OPERATOR}, "webhooks": hooks,
        });
        let params = PatchParams::apply(names::OPERATOR).force();
        api.patch(names::OPERATOR, &params, &Patch::Apply(body)).await?;
        tracing::info!("the API server is told whom to trust");
        Ok(true)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn configurations(&self) -> Api<MutatingWebhookConfiguration> {
        Api::all(self.client.clone())
    }
}

fn is_trusted(hook: &k8s_openapi::api::admissionregistration::v1::MutatingWebhook, bundle: &str) -> bool {
    hook.client_config.ca_bundle.as_ref().is_some_and(|trusted| trusted.0 == bundle.as_bytes())
}

#[cfg(test)]
mod tests;
