//! Where the Lease is: in the cluster, or in a test.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, ResourceExt, api::PostParams};

use super::LEASE;
use crate::names;

/// A Lease, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Who holds it.
    pub holder: Option<String>,
    /// Its version; `None` of one that is not stored yet.
    pub version: Option<String>,
    /// How long the holder is waited for.
    pub lasts: Duration,
    /// How often the holder was another.
    pub transitions: i32,
}

/// Where it is stored.
pub trait Store: Send + Sync {
    /// Reads it.
    fn read(&self) -> impl Future<Output = anyhow::Result<Option<Stored>>> + Send;

    /// Writes it, if what is stored still is of the version that it names, or nothing where it names none. Answers
    /// with its version, or `None` when somebody else was first.
    fn write(&self, lease: Stored) -> impl Future<Output = anyhow::Result<Option<String>>> + Send;
}

impl Store for Api<Lease> {
    async fn read(&self) -> anyhow::Result<Option<Stored>> {
        let lease = self.get_opt(names::OPERATOR).await?;
        Ok(lease.map(|lease| {
            let version = lease.resource_version();
            let spec = lease.spec.unwrap_or_default();
            let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            Stored {
                holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
                version,
                lasts: seconds.map_or(LEASE, Duration::from_secs),
                transitions: spec.lease_transitions.unwrap_or_default(),
            }
        }))
    }

    async fn write(&self, lease: Stored) -> anyhow::Result<Option<String>> {
        let object = object(&lease);
        let params = PostParams { field_manager: Some(names::OPERATOR.into()), ..PostParams::default() };
        let written = match lease.version {
            Some(_) => self.replace(names::OPERATOR, &params, &object).await,
            None => self.create(&params, &object).await,
        };
        match written {
            Ok(lease) => Ok(lease.resource_version()),
            // 404: it was deleted meanwhile.
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn object(lease: &Stored) -> Lease {
    let now = Some(MicroTime(Timestamp::now()));
    let mut object = Lease {
        spec: Some(LeaseSpec {
            holder_identity: Some(lease.holder.clone().unwrap_or_default()),
            lease_duration_seconds: lease.lasts.as_secs().try_into().ok(),
            lease_transitions: Some(lease.transitions),
            renew_time: now,
            ..LeaseSpec::default()
        }),
        ..Lease::default()
    };
    object.metadata.name = Some(names::OPERATOR.into());
    object.metadata.resource_version.clone_from(&lease.version);
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_api::FakeApi;

    #[tokio::test]
    async fn of_two_who_write_at_once_one_is_told() {
        let api = FakeApi::default();
        let store: Api<Lease> = Api::namespaced(api.client(), "ws-system");
        assert_eq!(store.read().await.unwrap(), None);
        let mine = |version| Stored { holder: Some("me".into()), version, lasts: LEASE, transitions: 1 };
        let version = store.write(mine(None)).await.unwrap();
        assert!(version.is_some());
        assert_eq!(store.write(mine(None)).await.unwrap(), None, "it is there already");
        let read = store.read().await.unwrap().unwrap();
        assert_eq!(read, mine(version.clone()));
        let next = store.write(mine(version.clone())).await.unwrap();
        assert!(next.is_some() && next != version);
        assert_eq!(store.write(mine(version)).await.unwrap(), None, "somebody else was first");
        let free = Stored { holder: None, ..mine(next) };
        store.write(free).await.unwrap();
        assert_eq!(store.read().await.unwrap().unwrap().holder, None);
    }
}
