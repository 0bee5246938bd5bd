//! Mistakes that can be switched on in tests, to prove that whoever looks for such mistakes finds them.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The client's first message after a switch is dropped.
    SkipAtSwitch,
    /// The next leg takes over as soon as it is open.
    SwitchEarly,
    /// The old leg is closed without asking whether its app is done.
    ForgetSettle,
    /// The answer to the settle ping of a move that was put off counts for the next.
    StaleSettle,
    /// The rest of a message that was cut off by a loss goes to the next leg.
    RestAfterLoss,
    /// What is delivered again is not announced.
    AnnounceNothing,
    /// A message counts as read once it was sent.
    ConfirmEarly,
    /// A move that was put off is due for ever.
    ForgetRetry,
    /// A node that is left without a Close is not told.
    NoFence,
    /// What is let go of still counts as kept.
    LeakBuffer,
    /// A send counts as delivered though the connection was gone before anybody took it.
    AnswerWithoutConnection,
    /// A receipt is given when the message was handed over, before the client has confirmed it.
    AcknowledgeEarly,
}

#[cfg(test)]
impl Bug {
    const ALL: [Self; 12] = [
        Self::SkipAtSwitch,
        Self::SwitchEarly,
        Self::ForgetSettle,
        Self::StaleSettle,
        Self::RestAfterLoss,
        Self::AnnounceNothing,
        Self::ConfirmEarly,
        Self::ForgetRetry,
        Self::NoFence,
        Self::LeakBuffer,
        Self::AnswerWithoutConnection,
        Self::AcknowledgeEarly,
    ];
}

/// Whether that mistake is made: never, but for tests and for programs built with `seeded-bugs`.
pub(crate) fn has(bug: Bug) -> bool {
    #[cfg(test)]
    return tests::BUG.get() == Some(bug);
    #[cfg(all(not(test), feature = "seeded-bugs"))]
    return process::has(bug);
    #[cfg(not(any(test, feature = "seeded-bugs")))]
    {
        let _ = bug;
        false
    }
}

/// The mistake of a whole process: `WS_SEEDED_BUG=SkipAtSwitch`, and so on.
#[cfg(all(not(test), feature = "seeded-bugs"))]
mod process {
    use std::sync::OnceLock;

    pub(super) fn has(bug: super::Bug) -> bool {
        static NAME: OnceLock<Option<String>> = OnceLock::new();
        let name = NAME.get_or_init(|| std::env::var("WS_SEEDED_BUG").ok());
        name.as_ref().is_some_and(|name| *name == format!("{bug:?}"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::Bug;
    use crate::{proxy::relay::explore, session::answer_tests};

    thread_local! {
        pub(super) static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Makes a mistake in this thread until what is returned is dropped.
    pub(crate) fn seed(bug: Bug) -> Seeded {
        BUG.set(Some(bug));
        Seeded
    }

    /// A mistake that is being made.
    #[derive(Debug)]
    pub(crate) struct Seeded;

    impl Drop for Seeded {
        fn drop(&mut self) {
            BUG.set(None);
        }
    }

    #[test]
    fn every_seeded_bug_is_found() {
        for bug in Bug::ALL {
            let seeded = seed(bug);
            let found = explore::counterexample(bug).or_else(|| answer_tests::wrong_answer().err());
            drop(seeded);
            println!("{bug:?}: {}", found.unwrap_or_else(|| panic!("{bug:?} was not found")));
        }
    }
}
