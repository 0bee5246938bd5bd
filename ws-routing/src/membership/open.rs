//! From the text of `--members` to a source.

#[cfg(feature = "dns")]
use super::{Dns, InvalidDns, Nameserver};
use super::{File, FileError, MembersUri, Remote, Source};
#[cfg(feature = "kube")]
use super::{InvalidKubernetes, Kubernetes};

impl MembersUri {
    /// Opens the source. Only a file, or how to reach a cluster, is read here; what is on the network may be unreachable at start-up, and is then
    /// tried again by the source.
    ///
    /// `ring_seed` is that of the [`channel`](super::channel) which the source fills.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when what was configured cannot work, so that there is no use in waiting.
    pub async fn open(&self, ring_seed: u64) -> Result<Box<dyn Source>, OpenError> {
        match self {
            Self::Static(nodes) => Ok(Box::new(nodes.clone())),
            Self::File(path) => Ok(Box::new(File::open(path).await?)),
            #[cfg(feature = "dns")]
            Self::Dns { name, port } => Ok(Box::new(Dns::addresses(name, *port, Nameserver::System)?)),
            #[cfg(feature = "dns")]
            Self::DnsSrv { name } => Ok(Box::new(Dns::services(name, Nameserver::System)?)),
            #[cfg(not(feature = "dns"))]
            Self::Dns { .. } | Self::DnsSrv { .. } => {
                Err(OpenError::NotBuilt { support: "DNS", feature: "dns" })
            }
            #[cfg(feature = "kube")]
            Self::Kubernetes { namespace, service, port } => {
                Ok(Box::new(Kubernetes::infer(namespace, service, port.as_deref()).await?))
            }
            #[cfg(not(feature = "kube"))]
            Self::Kubernetes { .. } => Err(OpenError::NotBuilt { support: "Kubernetes", feature: "kube" }),
            Self::Remote { authority, namespace, service } => {
                Ok(Box::new(Remote::new(authority, namespace, service, ring_seed)))
            }
        }
    }
}

/// Why a source cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file is unreadable or has a bad line.
    #[error(transparent)]
    File(#[from] FileError),
    /// The name is none, or the system has no usable resolver configuration.
    #[cfg(feature = "dns")]
    #[error(transparent)]
    Dns(#[from] InvalidDns),
    /// Neither in a cluster nor with a usable kubeconfig.
    #[cfg(feature = "kube")]
    #[error(transparent)]
    Kubernetes(#[from] InvalidKubernetes),
    /// The source is one that this build was made without.
    #[error("this build has no {support} support (feature `{feature}`)")]
    NotBuilt {
        /// What is missing.
        support: &'static str,
        /// The cargo feature that brings it.
        feature: &'static str,
    },
}
