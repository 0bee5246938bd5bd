//! A watch that goes on whatever happens: what was known stays until something else is.

use std::fmt::Debug;

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{Config, Error, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use crate::metrics::Metrics;

/// How long one watch lasts, in seconds. A connection that died without a word is noticed when it is over.
const WATCH: u32 = 45;

/// Watches the objects of all namespaces that have those labels. Of a kind that the cluster does not know there are
/// none; it is asked again.
pub(crate) fn watch<K>(client: &Client, labels: &str, metrics: &Metrics) -> BoxStream<'static, Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = Config::default().labels(labels).timeout(WATCH);
    let metrics = metrics.clone();
    watcher(Api::<K>::all(client.clone()), config)
        .default_backoff()
        .flat_map(move |told| stream::iter(events(told, &metrics)))
        .boxed()
}

fn events<K: Resource<DynamicType = ()>>(told: Result<Event<K>, Error>, metrics: &Metrics) -> Vec<Event<K>> {
    match told {
        Ok(event) => vec![event],
        Err(Error::InitialListFailed(kube::Error::Api(status))) if status.code == 404 => {
            tracing::debug!(kind = %K::kind(&()), "the cluster does not know this kind");
            vec![Event::Init, Event::InitDone]
        }
        Err(error) => {
            metrics.failed("watch");
            tracing::warn!(kind = %K::kind(&()), %error, "a watch failed, trying again: what was known stays");
            Vec::new()
        }
    }
}
