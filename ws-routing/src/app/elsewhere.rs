//! A word to the far end of a leg that has ended without a Close.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

/// How long nobody is told that a client is gone whose leg was lost without a word: its balancer may be opening another,
/// and says so to the node that it left.
pub(crate) const UNSURE: Duration = Duration::from_secs(2);

/// The word on where a leg's connection is: a leg that has ended without a Close may have been cut because its connection
/// goes on at another node, and its client is not gone then. Cloning is a reference count.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    word: Arc<watch::Sender<Option<bool>>>,
}

impl Default for Elsewhere {
    fn default() -> Self {
        Self { word: Arc::new(watch::Sender::new(None)) }
    }
}

impl Elsewhere {
    /// Waits for the word: whether the connection is at another node. It comes within moments after the leg has ended, or
    /// never.
    ///
    /// # Cancel safety
    ///
    /// May be cancelled and called again.
    pub async fn told(&self) -> bool {
        let mut word = self.word.subscribe();
        // The sender lives as long as `self`.
        word.wait_for(Option::is_some).await.is_ok_and(|word| *word == Some(true))
    }

    /// The first word counts.
    pub(crate) fn tell(&self, elsewhere: bool) {
        self.word.send_if_modified(|word| word.replace(word.unwrap_or(elsewhere)).is_none());
    }
}
