//! How nodes are reached.

use std::{fmt::Debug, io, pin::Pin, time::Duration};

use super::{
    LegStream,
    connect::{self, DialError},
};
use crate::node::NodeId;

/// What connections to nodes are made of: legs, probes, and what sidecars ask one another.
///
/// Programs have no need of another than [`Tcp`], unless nodes are reached through something else than the network of
/// their addresses: a tunnel, a namespace, or, in tests, no network at all.
pub trait Network: Debug + Send + Sync {
    /// Connects to that node's port.
    ///
    /// # Errors
    ///
    /// The future gives a [`DialError`], after `limit` at the latest.
    fn connect<'a>(&'a self, node: &'a NodeId, limit: Duration) -> Connecting<'a>;
}

/// What [`Network::connect`] returns. Dropping it gives up.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = Result<LegStream, DialError>> + Send + 'a>>;

/// TCP to the address that a node is named by, as [`connect::dial`] opens it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Network for Tcp {
    fn connect<'a>(&'a self, node: &'a NodeId, limit: Duration) -> Connecting<'a> {
        Box::pin(async move {
            // One that is named otherwise is reached by whoever knows its address.
            let addr = node.addr().ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
            Ok(LegStream::Tcp(connect::dial(addr, limit).await?))
        })
    }
}
