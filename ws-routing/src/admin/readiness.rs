//! Readiness, made of latches.

use std::sync::{Arc, Mutex, PoisonError};

use crate::drain::Drain;

/// Whether the process should be sent traffic: all latches are released, and no drain has begun.
#[derive(Clone, Debug)]
pub struct Readiness {
    held: Arc<Mutex<Vec<&'static str>>>,
    drain: Drain,
}

impl Readiness {
    /// Ready until the first latch is taken or the drain begins.
    #[must_use]
    pub fn new(drain: Drain) -> Self {
        Self { held: Arc::default(), drain }
    }

    /// Something that must happen first. Who makes it happen holds the latch.
    pub fn latch(&self, name: &'static str) -> Latch {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(name);
        Latch { held: Arc::clone(&self.held), name }
    }

    /// What it still waits for; `draining` when it will not be ready again.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if self.drain.is_draining() {
            missing.push("draining");
        }
        missing
    }
}

/// Keeps the process unready. One that is dropped unreleased does so for good: what it stood for will not happen.
#[derive(Debug)]
#[must_use = "dropped unreleased, it keeps the process unready"]
pub struct Latch {
    held: Arc<Mutex<Vec<&'static str>>>,
    name: &'static str,
}

impl Latch {
    /// It has happened.
    pub fn release(self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = held.iter().position(|name| *name == self.name) {
            held.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::drain;

    #[test]
    fn it_takes_every_latch_and_no_drain() {
        let (signal, drain) = drain::channel();
        let readiness = Readiness::new(drain);
        let (listeners, members) = (readiness.latch("listeners"), readiness.latch("members"));
        assert_eq!(readiness.missing(), ["listeners", "members"]);
        listeners.release();
        assert_eq!(readiness.missing(), ["members"]);
        members.release();
        assert!(readiness.missing().is_empty());
        let _ = readiness.latch("lost");
        assert_eq!(readiness.missing(), ["lost"]);
        signal.begin(Duration::ZERO);
        assert_eq!(readiness.missing(), ["lost", "draining"]);
    }
}
