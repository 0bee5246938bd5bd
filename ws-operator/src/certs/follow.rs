//! What every replica does: it shows the certificate that the Secret has, or that somebody else puts into files.

use std::{path::Path, pin::pin, time::Duration};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{Config, Event, watcher},
    },
};
use tokio::time::interval;
use ws_routing::tls::{CertificateFiles, Serving};

use super::{held::LEAF, pair::ends};
use crate::{metrics::Metrics, names};

/// How long one watch lasts, in seconds. A connection that died without a word is noticed when it is over.
const WATCH: u32 = 45;

/// How often files are read.
const AGAIN: Duration = Duration::from_secs(10);

/// Shows what the Secret has, as long as it is polled.
pub(crate) async fn follow_secret(client: Client, namespace: String, serving: Serving, metrics: Metrics) {
    let config =
        Config::default().fields(&format!("metadata.name={}", names::CERTIFICATE_SECRET)).timeout(WATCH);
    let api: Api<Secret> = Api::namespaced(client, &namespace);
    let mut told = pin!(watcher(api, config).default_backoff());
    while let Some(event) = told.next().await {
        match event {
            Ok(Event::Apply(secret) | Event::InitApply(secret)) => {
                let data = secret.data.unwrap_or_default();
                if let [Some(chain), Some(key)] = LEAF.map(|name| data.get(name)) {
                    show(&serving, &metrics, &chain.0, &key.0);
                }
            }
            // What is shown stays valid, and the leader makes another.
            Ok(Event::Delete(_) | Event::Init | Event::InitDone) => {}
            Err(error) => {
                metrics.failed("watch");
                tracing::warn!(%error, "the watch of the certificate failed, trying again");
            }
        }
    }
}

/// Shows what the files of that directory have, as long as it is polled.
pub(crate) async fn follow_files(folder: &Path, serving: Serving, metrics: Metrics) {
    let [chain, key] = LEAF.map(|name| folder.join(name));
    let mut files = CertificateFiles::new(&chain, key, serving);
    let mut again = interval(AGAIN);
    loop {
        again.tick().await;
        match files.look().await {
            Ok(true) => note(&metrics, &tokio::fs::read(&chain).await.unwrap_or_default()),
            Ok(false) => {}
            Err(error) => {
                metrics.failed("certificates");
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "the certificate stays as it is");
            }
        }
    }
}

fn show(serving: &Serving, metrics: &Metrics, chain: &[u8], key: &[u8]) {
    match serving.show(chain, key) {
        Ok(true) => note(metrics, chain),
        Ok(false) => {}
        Err(error) => {
            metrics.failed("certificates");
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, cause, "this certificate cannot be shown: the one before stays");
        }
    }
}

fn note(metrics: &Metrics, chain: &[u8]) {
    if let Some(end) = ends(chain) {
        metrics.certificate_ends(end.as_second());
        tracing::info!(%end, "the webhooks show another certificate");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::{Held, names};
    use ws_routing::metrics::Format;

    #[tokio::test]
    async fn files_are_shown_when_they_are_whole() {
        let folder = std::env::temp_dir().join(format!("ws-operator-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&folder).unwrap();
        let held = Held::found(&names("ws-system"), jiff::Timestamp::now()).unwrap();
        for name in LEAF {
            std::fs::write(folder.join(name), &held.data()[name].0).unwrap();
        }
        let (serving, metrics) = (Serving::default(), Metrics::new());
        // It is noted a moment after it is shown.
        let noted = async {
            serving.first().await;
            while metrics.page(Format::Text).contains("_expiry_timestamp_seconds 0\n") {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = follow_files(&folder, serving.clone(), metrics.clone()) => unreachable!(),
            noted = tokio::time::timeout(Duration::from_secs(20), noted) => noted.unwrap(),
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
