//! The way to the application that `--app` names.

use std::sync::Arc;

use ws_routing::{
    NodeId,
    app::{App, AppUrl, HttpApp, NatsUrl},
    cli::BadConfig,
    metrics::SidecarMetrics,
};

use crate::args::RunArgs;

/// Opens it. Nothing is waited for: the application may come later.
pub(crate) async fn open(
    args: &RunArgs,
    node: &NodeId,
    metrics: SidecarMetrics,
) -> Result<Arc<dyn App>, BadConfig> {
    Ok(match &args.app {
        AppUrl::WebSocket(app) => Arc::new(app.clone()),
        AppUrl::Http(url) => Arc::new(HttpApp::new(url.clone(), node.clone(), args.http_settings(), metrics)),
        AppUrl::Nats(url) => nats(args, url, node, metrics).await?,
    })
}

#[cfg(feature = "nats")]
async fn nats(
    args: &RunArgs,
    url: &NatsUrl,
    node: &NodeId,
    metrics: SidecarMetrics,
) -> Result<Arc<dyn App>, BadConfig> {
    let app = ws_routing::app::NatsApp::new(url.clone(), node.clone(), args.nats_settings(), metrics).await;
    app.map(|app| Arc::new(app) as Arc<dyn App>)
        .map_err(|error| BadConfig::new("--app", &url.to_string(), error))
}

#[cfg(not(feature = "nats"))]
async fn nats(
    _args: &RunArgs,
    url: &NatsUrl,
    _node: &NodeId,
    _metrics: SidecarMetrics,
) -> Result<Arc<dyn App>, BadConfig> {
    let expected = "this build has no NATS support (feature `nats`): expected ws:// or http://";
    Err(BadConfig::new("--app", &url.to_string(), expected))
}
