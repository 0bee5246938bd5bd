//! What a leg's handshake says beyond the client's own: the `ws-routing-*` headers.

use std::{fmt::Display, io::Write, str::FromStr, sync::Arc};

use http::HeaderMap;

use crate::{Key, NodeId, contract, membership::Fingerprint, proxy::error::Refusal};

/// The `ws-routing-*` headers of one leg.
///
/// What a client sends under these names is never taken for one: its headers are dropped before a leg's are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegHeaders {
    /// The routing key.
    pub key: Key,
    /// The id of the client's connection, the same over moves: 1 to 128 visible ASCII characters.
    pub connection: Option<Arc<str>>,
    /// The number of client messages before the first that this leg carries. Absent: 0.
    pub sequence: u64,
    /// Marks our own pings and the move's Close on this leg: 1 to 64 visible ASCII characters. The app never sees it.
    pub nonce: Option<Arc<str>>,
    /// The node that a moved connection left.
    pub moved_from: Option<NodeId>,
    /// The fingerprint of the view that a move follows.
    pub view: Option<Fingerprint>,
    /// The first so many messages of this leg may be repeats. Absent: 0.
    pub redelivered: u64,
    /// The proof that a process with the peer token sent this, not checked yet. The app never sees it.
    pub proof: Option<Box<str>>,
}

impl LegHeaders {
    /// The headers of a connection's first leg.
    #[must_use]
    pub const fn new(key: Key) -> Self {
        Self {
            key,
            connection: None,
            sequence: 0,
            nonce: None,
            moved_from: None,
            view: None,
            redelivered: 0,
            proof: None,
        }
    }

    /// Reads the headers of a leg: `None` without `ws-routing-key`, as it comes from a client then.
    ///
    /// # Errors
    ///
    /// [`Refusal::BadLeg`] or [`Refusal::BadKey`] when one of them is there twice, or is not what it should be.
    pub fn read(headers: &HeaderMap) -> Result<Option<Self>, Refusal> {
        let Some(key) = one(headers, contract::KEY)? else { return Ok(None) };
        Ok(Some(Self {
            key: Key::decode(key)?,
            connection: label(headers, contract::CONNECTION, 128)?.map(Into::into),
            sequence: parsed(headers, contract::SEQUENCE)?.unwrap_or(0),
            nonce: label(headers, contract::NONCE, 64)?.map(Into::into),
            moved_from: parsed(headers, contract::MOVED_FROM)?,
            view: parsed(headers, contract::VIEW)?,
            redelivered: parsed(headers, contract::REDELIVERED)?.unwrap_or(0),
            proof: label(headers, contract::PROOF, 256)?.map(Into::into),
        }))
    }

    /// Writes the headers as the next sidecar reads them.
    pub(super) fn write_to_node(&self, out: &mut Vec<u8>) {
        self.write_to_app(out);
        field(out, contract::NONCE, self.nonce.as_ref());
        field(out, contract::PROOF, self.proof.as_ref());
    }

    /// Writes the headers that the app may see.
    pub(super) fn write_to_app(&self, out: &mut Vec<u8>) {
        field(out, contract::KEY, Some(self.key.encoded()));
        field(out, contract::CONNECTION, self.connection.as_ref());
        field(out, contract::SEQUENCE, Some(self.sequence));
        field(out, contract::MOVED_FROM, self.moved_from.as_ref());
        field(out, contract::VIEW, self.view);
        field(out, contract::REDELIVERED, (self.redelivered > 0).then_some(self.redelivered));
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: Option<impl Display>) {
    if let Some(value) = value {
        // Writing to a vector cannot fail.
        let _ = write!(out, "{name}: {value}\r\n");
    }
}

fn one<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Refusal::BadLeg(name)),
        (Some(_), Some(_)) => Err(Refusal::BadLeg(name)),
    }
}

fn parsed<T: FromStr>(headers: &HeaderMap, name: &'static str) -> Result<Option<T>, Refusal> {
    one(headers, name)?.map(|text| text.parse().map_err(|_| Refusal::BadLeg(name))).transpose()
}

fn label<'a>(headers: &'a HeaderMap, name: &'static str, most: usize) -> Result<Option<&'a str>, Refusal> {
    let valid =
        |text: &str| !text.is_empty() && text.len() <= most && text.bytes().all(|b| b.is_ascii_graphic());
    match one(headers, name)? {
        Some(text) if !valid(text) => Err(Refusal::BadLeg(name)),
        value => Ok(value),
    }
}
