//! What the Secret has: CA, serving certificate, and how far the replacement of the CA is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;

use super::{
    pair::{Pair, Unmade},
    plan::Step,
};

const CA: [&str; 2] = ["ca.crt", "ca.key"];
const NEXT: [&str; 2] = ["next-ca.crt", "next-ca.key"];
const OLD: &str = "old-ca.crt";
/// What is shown to clients: chain and key.
pub(super) const LEAF: [&str; 2] = ["tls.crt", "tls.key"];

/// The content of the Secret, as far as it is of use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// It signs.
    pub(super) ca: Pair,
    /// It will sign, and is trusted already.
    pub(super) next: Option<Pair>,
    /// It does not sign any more, and is trusted still.
    pub(super) old: Option<String>,
    /// What is shown to clients, made by the CA for the right names.
    pub(super) leaf: Option<Pair>,
    /// How far the replacement of the CA is, and since when.
    pub(super) note: Option<(Stage, Timestamp)>,
}

/// How far the replacement of the CA is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The API server trusts the next one.
    Announced,
    /// The next one signs, and the old one is trusted still.
    Switched,
}

impl Held {
    /// Reads what the Secret has, and the note about it; `None` when there is no CA that could be used.
    #[must_use]
    pub fn read(data: &BTreeMap<String, ByteString>, note: Option<&str>, names: &[String]) -> Option<Self> {
        let text = |name: &str| String::from_utf8(data.get(name)?.0.clone()).ok();
        let pair = |[cert, key]: [&str; 2]| Pair::read(&text(cert)?, &text(key)?);
        let ca = pair(CA)?;
        let leaf = pair(LEAF).filter(|leaf| leaf.is_of(&ca) && leaf.has(names));
        Some(Self { leaf, next: pair(NEXT), old: text(OLD), note: note.and_then(parse), ca })
    }

    /// A CA and a certificate, where there was none.
    ///
    /// # Errors
    ///
    /// [`Unmade`], which a working system never sees.
    pub fn found(names: &[String], now: Timestamp) -> Result<Self, Unmade> {
        let ca = Pair::authority(now)?;
        let leaf = Some(ca.leaf(names, now)?);
        Ok(Self { ca, next: None, old: None, leaf, note: None })
    }

    /// What is to be held after that step.
    ///
    /// # Errors
    ///
    /// [`Unmade`], which a working system never sees.
    pub fn take(self, step: Step, names: &[String], now: Timestamp) -> Result<Self, Unmade> {
        let Self { ca, next, old, leaf, note } = self;
        Ok(match (step, next) {
            (Step::Found, _) => Self::found(names, now)?,
            (Step::Renew, next) => Self { leaf: Some(ca.leaf(names, now)?), ca, next, old, note },
            (Step::Prepare, _) => Self { next: Some(Pair::authority(now)?), note: None, ca, old, leaf },
            (Step::Switch, Some(next)) => Self {
                leaf: Some(next.leaf(names, now)?),
                old: Some(ca.cert),
                note: Some((Stage::Switched, now)),
                next: None,
                ca: next,
            },
            (Step::Keep, next) => Self { note: Some((Stage::Switched, now)), ca, next, old, leaf },
            (Step::Drop, next) => Self { old: None, note: None, ca, next, leaf },
            (Step::Switch, None) => Self { next: None, ca, old, leaf, note },
        })
    }

    /// Whether it is yet to be noted that the API server trusts the next CA.
    #[must_use]
    pub fn is_to_announce(&self) -> bool {
        self.next.is_some() && self.old.is_none() && !matches!(self.note, Some((Stage::Announced, _)))
    }

    /// The API server trusts what [`bundle`](Self::bundle) has.
    #[must_use]
    pub fn announced(self, now: Timestamp) -> Self {
        Self { note: Some((Stage::Announced, now)), ..self }
    }

    /// What the API server is to trust, PEM.
    #[must_use]
    pub fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|next| &next.cert);
        [Some(&self.ca.cert), next, self.old.as_ref()].into_iter().flatten().map(String::as_str).collect()
    }

    /// The Secret's data.
    #[must_use]
    pub fn data(&self) -> BTreeMap<String, ByteString> {
        let pairs = [(CA, Some(&self.ca)), (NEXT, self.next.as_ref()), (LEAF, self.leaf.as_ref())];
        let pairs = pairs.into_iter().filter_map(|(names, pair)| Some((names, pair?)));
        let texts = pairs.flat_map(|([cert, key], pair)| [(cert, &pair.cert), (key, &pair.key)]);
        let texts = texts.chain(self.old.as_ref().map(|old| (OLD, old)));
        texts.map(|(name, text)| (name.to_owned(), ByteString(text.clone().into_bytes()))).collect()
    }

    /// What is noted beside it, for [`read`](Self::read); `None`: nothing.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        self.note.map(|(stage, since)| match stage {
            Stage::Announced => format!("announced {since}"),
            Stage::Switched => format!("switched {since}"),
        })
    }
}

fn parse(note: &str) -> Option<(Stage, Timestamp)> {
    let (stage, since) = note.split_once(' ')?;
    let stage = match stage {
        "announced" => Stage::Announced,
        "switched" => Stage::Switched,
        _ => return None,
    };
    Some((stage, since.parse().ok()?))
}
