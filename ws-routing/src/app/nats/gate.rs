//! Which of the messages that are pushed to a moved connection are this node's to pass on, without I/O.
//!
//! Old and new node hear the same subject. The old one passes on all up to a word of its own there, which it says when it
//! is told to leave; the new one holds what it hears, drops it up to that word, and passes on what follows. A node that
//! has died says no such word: then what came before the leg was live is dropped, and lost if nobody passed it on.

/// Between a subscription and a client.
#[derive(Debug)]
pub(super) struct Gate<T> {
    shut: Option<Held<T>>,
}

#[derive(Debug)]
struct Held<T> {
    all: Vec<T>,
    /// How many of them came before the leg was live, once it is.
    before_live: Option<usize>,
}

impl<T> Gate<T> {
    pub(super) fn open() -> Self {
        Self { shut: None }
    }

    /// That of a connection which comes from another node.
    pub(super) fn shut() -> Self {
        Self { shut: Some(Held { all: Vec::new(), before_live: None }) }
    }

    /// Takes a message: passes it on, or holds it.
    pub(super) fn push(&mut self, message: T) -> Option<T> {
        match &mut self.shut {
            None => Some(message),
            Some(held) => {
                held.all.push(message);
                None
            }
        }
    }

    /// The old node's word: it has passed on what came before.
    pub(super) fn moved(&mut self) {
        self.shut = None;
    }

    /// The leg is live. Whether the old node's word is still to be waited for.
    pub(super) fn live(&mut self) -> bool {
        match &mut self.shut {
            None => false,
            Some(held) => {
                held.before_live.get_or_insert(held.all.len());
                true
            }
        }
    }

    /// No word will come. What is to be passed on.
    pub(super) fn give_up(&mut self) -> Vec<T> {
        let Some(mut held) = self.shut.take() else { return Vec::new() };
        held.all.drain(..held.before_live.unwrap_or(held.all.len()));
        held.all
    }

    /// What it holds.
    pub(super) fn held(&self) -> &[T] {
        self.shut.as_ref().map_or(&[], |held| &held.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_old_node_passed_on_is_dropped_whenever_its_word_comes() {
        for live_after in 0..4 {
            let (mut gate, mut passed) = (Gate::shut(), Vec::new());
            for n in 0..4 {
                if n == live_after {
                    gate.live();
                }
                if n == 2 {
                    gate.moved();
                }
                passed.extend(gate.push(n));
            }
            assert_eq!(passed, [2, 3], "live before {live_after}");
        }
    }

    #[test]
    fn without_a_word_what_came_since_live_is_passed_on() {
        let mut gate = Gate::shut();
        assert_eq!(gate.push(0), None);
        assert!(gate.live());
        assert_eq!(gate.push(1), None);
        assert_eq!(gate.give_up(), [1]);
        assert_eq!(gate.push(2), Some(2));
        assert!(!gate.live());
    }
}
