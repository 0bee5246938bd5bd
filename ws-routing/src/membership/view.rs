//! The latest members: one writer, cheap readers.

use std::sync::Arc;

use tokio::sync::watch;

use super::Members;

/// Makes a view that is still empty, and the one writer that fills it.
#[must_use]
pub fn channel(ring_seed: u64) -> (Writer, View) {
    let (sender, receiver) = watch::channel(Arc::new(Members::new([], ring_seed)));
    (Writer { sender }, View { receiver })
}

/// The writing half. There is one.
#[derive(Debug)]
pub struct Writer {
    sender: watch::Sender<Arc<Members>>,
}

impl Writer {
    /// Publishes `members`, unless they are empty and the view is not: the last good set is kept.
    /// Returns whether readers see something new.
    pub fn publish(&self, members: Members) -> bool {
        self.sender.send_if_modified(|now| {
            let keep = **now == members || (members.is_empty() && !now.is_empty());
            if !keep {
                *now = Arc::new(members);
            }
            !keep
        })
    }
}

/// The reading half: a cheap clone, always a whole snapshot.
#[derive(Clone, Debug)]
pub struct View {
    receiver: watch::Receiver<Arc<Members>>,
}

impl View {
    /// The latest members.
    #[must_use]
    pub fn load(&self) -> Arc<Members> {
        self.receiver.borrow().clone()
    }

    /// Waits for members that this reader has not been told of; `None` once the writer is gone.
    ///
    /// # Cancel safety
    ///
    /// Nothing is missed when it is cancelled and called again.
    pub async fn changed(&mut self) -> Option<Arc<Members>> {
        self.receiver.changed().await.ok()?;
        Some(self.receiver.borrow_and_update().clone())
    }
}
