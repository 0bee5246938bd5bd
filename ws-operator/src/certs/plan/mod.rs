//! What is done next about the certificates: pure, from what is held and the time.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    held::{Held, Stage},
    pair::Pair,
};

/// How long the API servers are given to learn of a new CA before it signs.
const ANNOUNCED: Duration = Duration::from_secs(10 * 60);

/// How long an old CA is trusted after it has signed for the last time: until every replica shows another certificate.
const TRUSTED: Duration = Duration::from_secs(3600);

/// One step. Steps follow one another until there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A CA and a certificate are made: there is none that could be used.
    Found,
    /// The certificate is replaced.
    Renew,
    /// The next CA is made. It is trusted from now on, and does not sign yet.
    Prepare,
    /// The next CA signs, and the old one does no more.
    Switch,
    /// It is noted from when on the old CA is on its way out.
    Keep,
    /// The old CA is not trusted any more.
    Drop,
}

/// What is to be done now.
#[must_use]
pub fn plan(now: Timestamp, held: Option<&Held>) -> Option<Step> {
    let Some(held) = held.filter(|held| held.ca.until() > now) else { return Some(Step::Found) };
    // In the last weeks of a CA that could not be replaced, its last certificate is as good as any.
    let is_due = |leaf: &Pair| leaf.due() <= now && leaf.until() < held.ca.until();
    if held.leaf.as_ref().is_none_or(is_due) {
        return Some(Step::Renew);
    }
    let over = |since: Timestamp, time: Duration| since.checked_add(time).is_ok_and(|end| end <= now);
    match (&held.old, &held.next, held.note) {
        (Some(_), _, Some((Stage::Switched, since))) => over(since, TRUSTED).then_some(Step::Drop),
        (Some(_), _, _) => Some(Step::Keep),
        (None, Some(_), Some((Stage::Announced, since))) => over(since, ANNOUNCED).then_some(Step::Switch),
        (None, Some(_), _) => None,
        (None, None, _) => (held.ca.due() <= now).then_some(Step::Prepare),
    }
}

#[cfg(test)]
mod tests;
