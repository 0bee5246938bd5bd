//! Legs that can be cut from outside: by a balancer that lost its connection to this node and went elsewhere.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::Method;
use tokio::sync::Notify;

use crate::{
    contract,
    proxy::{handshake::head::RequestHead, relay::Nonce},
};

/// The legs of a node, by connection and nonce. Cloning is a reference count.
///
/// The nonce is known to nobody but the balancer that opened the leg, and tells the legs of one connection apart: a
/// late order does not cut the leg that came back.
#[derive(Clone, Debug, Default)]
pub(super) struct Fences {
    legs: Arc<Mutex<HashMap<Leg, Arc<Notify>>>>,
}

type Leg = (Arc<str>, u64);

impl Fences {
    /// Takes a leg in until what is returned is dropped. Without a nonce it cannot be named.
    pub(super) fn take_in(&self, connection: &Arc<str>, nonce: Option<Nonce>) -> Fenced {
        let leg = nonce.map(|nonce| (Arc::clone(connection), nonce.0));
        let order = Arc::new(Notify::new());
        if let Some(leg) = leg.clone() {
            self.lock().insert(leg, Arc::clone(&order));
        }
        Fenced { fences: self.clone(), leg, order }
    }

    /// Cuts the leg that the request names; whether it was here. `None`: the request is another.
    pub(super) fn obey(&self, head: &RequestHead) -> Option<bool> {
        let connection = head.parts.uri.path().strip_prefix(contract::LEGS)?;
        if head.parts.method != Method::DELETE {
            return None;
        }
        let nonce = head.parts.headers.get(contract::NONCE).and_then(|value| value.to_str().ok());
        let nonce = nonce.and_then(|text| u64::from_str_radix(text, 16).ok());
        let order = nonce.and_then(|nonce| self.lock().get(&(connection.into(), nonce)).cloned());
        if let Some(order) = &order {
            order.notify_one();
        }
        Some(order.is_some())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Leg, Arc<Notify>>> {
        // Nothing is left half done in there by a panic.
        self.legs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A leg that can be cut.
#[derive(Debug)]
pub(super) struct Fenced {
    fences: Fences,
    leg: Option<Leg>,
    order: Arc<Notify>,
}

impl Fenced {
    /// Waits until the leg is to be cut.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn ordered(&self) {
        self.order.notified().await;
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        if let Some(leg) = &self.leg {
            self.fences.lock().remove(leg);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::proxy::handshake::head::{Arrived, Limits, read_request};

    async fn head(method: &str, connection: &str, nonce: u64) -> RequestHead {
        let (mut near, mut far) = tokio::io::duplex(1024);
        let (legs, name, nonce) = (contract::LEGS, contract::NONCE, contract::leg_nonce(nonce));
        let text = format!("{method} {legs}{connection} HTTP/1.1\r\nHost: n\r\n{name}: {nonce}\r\n\r\n");
        near.write_all(text.as_bytes()).await.unwrap();
        match read_request(&mut far, Limits::default()).await {
            Ok(Arrived::Http1(head)) => *head,
            _ => panic!("not read: {text}"),
        }
    }

    #[tokio::test]
    async fn a_leg_is_cut_by_its_connection_and_nonce_and_by_nothing_else() {
        let fences = Fences::default();
        let connection: Arc<str> = "c1".into();
        let fenced = fences.take_in(&connection, Some(Nonce(7)));
        assert_eq!(fences.obey(&head("GET", "c1", 7).await), None, "no order");
        assert_eq!(fences.obey(&head("DELETE", "c1", 8).await), Some(false), "another leg of the connection");
        assert_eq!(fences.obey(&head("DELETE", "c2", 7).await), Some(false), "another connection");
        assert_eq!(fences.obey(&head("DELETE", "c1", 7).await), Some(true));
        fenced.ordered().await;
        drop(fenced);
        assert_eq!(fences.obey(&head("DELETE", "c1", 7).await), Some(false), "it has gone");
    }
}
