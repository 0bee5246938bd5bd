//! A ring: the pods of one group in one namespace, among which keys are shared out.

use std::{fmt, str::FromStr};

use crate::names;

/// The ring of a group in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ring {
    /// Whose pods.
    pub namespace: String,
    /// Which of them.
    pub group: Group,
}

/// The name of a group of pods: a DNS label of at most 45 characters, so that every name made of it still is one.
///
/// [`Group::default`] is the group of pods that name none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(Box<str>);

impl Group {
    /// The name as it stands in labels and annotations.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The headless Service whose EndpointSlices are the ring.
    #[must_use]
    pub fn headless_service(&self) -> String {
        self.name(names::HEADLESS_SERVICE)
    }

    /// The balancer's Deployment, its Service and its PodDisruptionBudget.
    #[must_use]
    pub fn balancer(&self) -> String {
        self.name(names::BALANCER)
    }

    /// What the ring's pods may have besides: an autoscaler, a network policy, a monitor.
    #[must_use]
    pub fn sidecar(&self) -> String {
        self.name(names::SIDECAR)
    }

    /// The group of which that is the headless Service.
    #[must_use]
    pub fn of_headless_service(service: &str) -> Option<Self> {
        match service.strip_prefix(names::HEADLESS_SERVICE)? {
            "" => Some(Self::default()),
            rest => rest.strip_prefix('-')?.parse().ok().filter(|group| *group != Self::default()),
        }
    }

    fn name(&self, base: &str) -> String {
        match &*self.0 {
            DEFAULT => base.into(),
            group => format!("{base}-{group}"),
        }
    }
}

const DEFAULT: &str = "default";

/// 63, the longest DNS label, without the longest name that stands before a group's.
const LONGEST: usize = 63 - names::HEADLESS_SERVICE.len() - 1;

impl Default for Group {
    fn default() -> Self {
        Self(DEFAULT.into())
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Group {
    type Err = InvalidGroup;

    fn from_str(text: &str) -> Result<Self, InvalidGroup> {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let good = (1..=LONGEST).contains(&text.len())
            && text.bytes().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if good { Ok(Self(text.into())) } else { Err(InvalidGroup(())) }
    }
}

/// A name that no group can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected lower-case letters, digits and inner dashes, {LONGEST} at most")]
pub struct InvalidGroup(());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_and_read_back() {
        let (plain, game): (Group, Group) = ("default".parse().unwrap(), "game".parse().unwrap());
        assert_eq!(plain.headless_service(), "ws-proxy-headless");
        assert_eq!(game.headless_service(), "ws-proxy-headless-game");
        assert_eq!((plain.balancer(), game.balancer()), ("ws-balancer".into(), "ws-balancer-game".into()));
        for group in [plain, game] {
            assert_eq!(Group::of_headless_service(&group.headless_service()), Some(group));
        }
        for other in ["ws-proxy", "ws-proxy-headlessly", "ws-proxy-headless-", "ws-proxy-headless-default"] {
            assert_eq!(Group::of_headless_service(other), None, "{other}");
        }
    }

    #[test]
    fn names_that_no_object_could_have_are_refused() {
        let longest = "g".repeat(LONGEST);
        assert_eq!(longest.parse::<Group>().unwrap().headless_service().len(), 63);
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ü", &"g".repeat(LONGEST + 1)] {
            assert!(bad.parse::<Group>().is_err(), "{bad}");
        }
    }
}
