//! Tasks that HTTP connections want: they end with their owner.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

/// Where tasks live. Cloning is a reference count; when the last one is dropped the tasks are aborted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    set: Arc<Mutex<JoinSet<()>>>,
}

impl Tasks {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // Nothing is left half done in there by a panic.
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        while set.try_join_next().is_some() {}
        set.spawn(task);
    }
}

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.spawn(async move {
            task.await;
        });
    }
}
