//! How late a test itself is: its bounds on time give way by that.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::wait::millis;

/// How late this very process is woken: what the machine adds to every pause.
pub struct Lateness {
    longest: Arc<Mutex<Duration>>,
    task: AbortHandle,
}

impl Lateness {
    pub fn start() -> Self {
        let longest = Arc::new(Mutex::new(Duration::ZERO));
        let noted = longest.clone();
        let task = tokio::spawn(async move {
            const STEP: Duration = millis(10);
            loop {
                let due = Instant::now() + STEP;
                sleep(STEP).await;
                let late = Instant::now().saturating_duration_since(due);
                let mut longest = noted.lock().unwrap();
                *longest = late.max(*longest);
            }
        });
        Self { longest, task: task.abort_handle() }
    }

    pub fn longest(&self) -> Duration {
        *self.longest.lock().unwrap()
    }
}

impl Drop for Lateness {
    fn drop(&mut self) {
        self.task.abort();
    }
}
