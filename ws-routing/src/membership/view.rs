//! The latest members: one writer, cheap readers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::Members;

/// Makes a view that is still empty, and the one writer that fills it.
///
/// `ring_seed` is 0 unless the ring was given a secret one; all members that are published must have been made with
/// it.
#[must_use]
pub fn channel(ring_seed: u64) -> (Writer, View) {
    let members = Arc::new(Members::new([], ring_seed));
    let (sender, receiver) = watch::channel(Shown { members: members.clone(), answered: false });
    let age = Arc::new(Age { start: Instant::now(), confirmed: AtomicU64::new(0) });
    (Writer { sender, members, answered: false, age: age.clone() }, View { receiver, age, fixed: None })
}

/// The writing half. There is one, and it is no `Clone`.
#[derive(Debug)]
pub struct Writer {
    sender: watch::Sender<Shown>,
    /// What the readers see: only this half changes it, so it needs no lock to be read here.
    members: Arc<Members>,
    answered: bool,
    age: Arc<Age>,
}

impl Writer {
    /// Publishes `members` as one snapshot, unless they are empty and the view is not: the last good set is kept.
    /// Returns whether readers see something new.
    ///
    /// The first call is the first full answer, which [`View::first`] waits for, even when it is empty.
    pub fn publish(&mut self, members: Members) -> bool {
        debug_assert_eq!(members.ring_seed(), self.members.ring_seed(), "members of another ring seed");
        if members.is_empty() && !self.members.is_empty() {
            return false;
        }
        self.age.confirm();
        if members == *self.members && self.answered {
            return false;
        }
        self.answered = true;
        self.members = Arc::new(members);
        self.sender.send_replace(Shown { members: self.members.clone(), answered: true });
        true
    }

    /// Notes that what the readers see has been found to be still true: the view's age starts again.
    pub fn confirm(&mut self) {
        self.age.confirm();
    }

    /// Notes that what the readers see stays true for ever: the view has no age from now on.
    pub fn confirm_for_ever(&mut self) {
        self.age.confirmed.store(Age::FOR_EVER, Ordering::Relaxed);
    }

    /// What the readers see.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Waits until no reader is left, and there can never be one again.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }
}

/// The reading half: a cheap clone, always a whole snapshot.
#[derive(Clone, Debug)]
pub struct View {
    receiver: watch::Receiver<Shown>,
    age: Arc<Age>,
    /// The writer of a view that nobody writes to: without it the readers would be told that theirs is gone.
    fixed: Option<Arc<Writer>>,
}

impl View {
    /// A view of members that never change, for tests and for programs without a source.
    #[must_use]
    pub fn fixed(members: Members) -> Self {
        let (mut writer, mut view) = channel(members.ring_seed());
        writer.publish(members);
        writer.confirm_for_ever();
        view.receiver.mark_unchanged();
        view.fixed = Some(Arc::new(writer));
        view
    }

    /// The latest members: empty until the source's first answer. Costs a shared lock and a reference count, never a
    /// copy.
    #[must_use]
    pub fn load(&self) -> Arc<Members> {
        self.receiver.borrow().members.clone()
    }

    /// Waits for the first full answer of the source and gives the latest members. They may be empty: a service
    /// without a single pod is an answer too.
    ///
    /// # Errors
    ///
    /// [`WriterGone`] when there was no answer and none can come.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn first(&self) -> Result<Arc<Members>, WriterGone> {
        let mut receiver = self.receiver.clone();
        let shown = receiver.wait_for(|shown| shown.answered).await.map_err(|_| WriterGone(()))?;
        Ok(shown.members.clone())
    }

    /// Waits for members that this reader has not been told of; `None` once the writer is gone.
    ///
    /// # Cancel safety
    ///
    /// Nothing is missed when it is cancelled and called again.
    pub async fn changed(&mut self) -> Option<Arc<Members>> {
        self.receiver.changed().await.ok()?;
        Some(self.receiver.borrow_and_update().members.clone())
    }

    /// How long ago the source last stood by these members; before its first answer, how long it has been waited for.
    /// Zero for members that are fixed.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.age.get()
    }
}

/// The writer was dropped before it published anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the membership source ended before its first answer")]
pub struct WriterGone(());

#[derive(Debug)]
struct Shown {
    members: Arc<Members>,
    /// Whether the source has answered: until then the members are empty because nothing is known.
    answered: bool,
}

/// When the members were last confirmed, apart from them: a confirmation must wake no reader.
#[derive(Debug)]
struct Age {
    start: Instant,
    /// Milliseconds since `start`.
    confirmed: AtomicU64,
}

impl Age {
    const FOR_EVER: u64 = u64::MAX;

    fn confirm(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(Self::FOR_EVER - 1);
        self.confirmed.store(now, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        match self.confirmed.load(Ordering::Relaxed) {
            Self::FOR_EVER => Duration::ZERO,
            confirmed => self.start.elapsed().saturating_sub(Duration::from_millis(confirmed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Node;

    fn members(ports: &[u16]) -> Members {
        Members::new(
            ports.iter().map(|port| Node::new(std::net::SocketAddr::from(([10, 0, 0, 1], *port)).into())),
            7,
        )
    }

    /// Ambiguous, and so no longer compiling, if `Writer` ever became `Clone`.
    #[test]
    fn readers_are_cloned_and_sent_and_the_writer_is_one() {
        trait UnlessClone<A> {
            fn ok() {}
        }
        impl<T> UnlessClone<()> for T {}
        impl<T: Clone> UnlessClone<u8> for T {}
        <Writer as UnlessClone<_>>::ok();

        fn shared<T: Clone + Send + Sync + 'static>() {}
        shared::<View>();
    }

    #[test]
    fn an_empty_set_never_replaces_one_that_was_not() {
        let (mut writer, view) = channel(7);
        assert!(writer.publish(members(&[1, 2])));
        assert!(!writer.publish(members(&[])));
        assert_eq!(*view.load(), members(&[1, 2]));
    }

    #[tokio::test]
    async fn the_same_set_again_wakes_nobody() {
        let (mut writer, mut view) = channel(7);
        assert!(writer.publish(members(&[1])));
        assert!(!writer.publish(members(&[1])));
        assert_eq!(*view.changed().await.unwrap(), members(&[1]));
        drop(writer);
        assert_eq!(view.changed().await, None);
        assert_eq!(*view.load(), members(&[1]), "the last good set outlives the writer");
    }

    #[tokio::test]
    async fn the_first_answer_may_be_empty() {
        let (mut writer, view) = channel(7);
        let first = tokio::spawn({
            let view = view.clone();
            async move { view.first().await }
        });
        writer.publish(members(&[]));
        assert!(first.await.unwrap().unwrap().is_empty());
    }

    #[tokio::test]
    async fn waiting_for_the_first_answer_fails_with_the_writer() {
        let (writer, view) = channel(0);
        drop(writer);
        assert_eq!(view.first().await, Err(WriterGone(())));
    }

    #[tokio::test(start_paused = true)]
    async fn the_age_counts_from_the_last_confirmation() {
        let second = Duration::from_secs(1);
        let (mut writer, view) = channel(7);
        tokio::time::advance(second).await;
        assert_eq!(view.age(), second, "waited for");
        writer.publish(members(&[1]));
        assert_eq!(view.age(), Duration::ZERO);
        tokio::time::advance(second * 2).await;
        writer.publish(members(&[]));
        assert_eq!(view.age(), second * 2, "a set that is not taken confirms nothing");
        writer.confirm();
        assert_eq!(view.age(), Duration::ZERO);
        writer.confirm_for_ever();
        tokio::time::advance(second).await;
        assert_eq!(view.age(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fixed_view_never_changes_and_never_ends() {
        let mut view = View::fixed(members(&[1]));
        assert_eq!(*view.first().await.unwrap(), members(&[1]));
        assert!(tokio::time::timeout(Duration::from_secs(60), view.changed()).await.is_err());
        assert_eq!(view.age(), Duration::ZERO);
    }
}
