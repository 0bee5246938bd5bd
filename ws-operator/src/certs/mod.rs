//! The certificate of the webhooks, and the CA that the API server trusts for it.
//!
//! Both are in one Secret. `pair` makes and reads certificates, `held` is what the Secret has, [`plan`] what is done
//! next, without a clock of its own; `keep` does it, where the operator leads. `follow` is what every replica does: it
//! hands what the Secret has to [`Serving`](ws_routing::tls::Serving), which shows it to clients.

mod follow;
mod held;
mod keep;
mod pair;
mod plan;

pub(crate) use follow::{follow_files, follow_secret};
pub use held::Held;
pub(crate) use keep::Keeper;
pub use pair::Unmade;
pub use plan::{Step, plan};

/// The names under which the API server asks for the webhooks.
#[must_use]
pub fn names(namespace: &str) -> Vec<String> {
    let service = format!("{}.{namespace}", crate::names::OPERATOR);
    vec![format!("{service}.svc"), format!("{service}.svc.cluster.local"), service]
}
