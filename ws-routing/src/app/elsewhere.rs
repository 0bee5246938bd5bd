//! A word to the far end of a leg that has ended without a Close.

use std::sync::Arc;

use tokio::sync::Notify;

/// The word that a leg's connection goes on at another node: a leg that has ended without a Close may have been cut, and
/// its client is not gone then. Cloning is a reference count.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere {
    word: Arc<Notify>,
}

impl Elsewhere {
    /// Waits for the word. It comes within moments after the leg has ended, or never.
    ///
    /// # Cancel safety
    ///
    /// May be cancelled and called again.
    pub async fn told(&self) {
        self.word.notified().await;
    }

    pub(crate) fn tell(&self) {
        self.word.notify_one();
    }
}
