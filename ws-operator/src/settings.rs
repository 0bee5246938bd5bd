//! What an installation decides once, for all that the operator makes.

use clap::Args;

use crate::{args, names};

/// The images that the operator puts into pods, and where it lives itself.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Settings {
    /// The sidecar's image.
    #[arg(long, value_name = "IMAGE", default_value_t = Self::image("ws-proxy"), value_parser = args::image)]
    pub proxy_image: String,

    /// The balancer's image.
    #[arg(long, value_name = "IMAGE", default_value_t = Self::image("ws-balancer"), value_parser = args::image)]
    pub balancer_image: String,

    /// The operator's own namespace.
    #[arg(long, value_name = "NAME", default_value = names::NAMESPACE, value_parser = args::namespace)]
    pub namespace: String,
}

impl Settings {
    /// The released image of this version's program.
    #[must_use]
    pub fn image(program: &str) -> String {
        format!("ghcr.io/ws-routing/{program}:{}", env!("CARGO_PKG_VERSION"))
    }

    /// Whether nothing is done in that namespace: a webhook that Kubernetes or the operator itself waits for could keep
    /// both from starting.
    #[must_use]
    pub fn leaves_alone(&self, namespace: &str) -> bool {
        namespace == names::KUBE_SYSTEM || namespace == self.namespace
    }

    /// Where sidecars and balancers follow the members of a ring: the stream that the operator serves.
    #[must_use]
    pub fn members_uri(&self, ring: &crate::Ring) -> String {
        let (operator, port) = (names::OPERATOR, names::MEMBERS_PORT);
        let (namespace, service) = (&ring.namespace, ring.group.headless_service());
        format!("http://{operator}.{}.svc:{port}/v1/members/{namespace}/{service}", self.namespace)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            proxy_image: Self::image("ws-proxy"),
            balancer_image: Self::image("ws-balancer"),
            namespace: names::NAMESPACE.into(),
        }
    }
}
