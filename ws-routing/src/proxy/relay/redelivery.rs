//! Client messages that are kept until the app has surely had them, so that a crash loses none (DESIGN: "In flight when
//! a node dies").
//!
//! A message is kept from its first byte, as the raw frames that the client sent. It goes when a pong has confirmed
//! that the app read it, *and* the hold is over: what was read may not have been handled yet. Confirmed ones make room
//! early; for unconfirmed ones the client waits.

use std::{collections::VecDeque, time::Duration};

use crate::{
    frame::Header,
    seeded::{self, Bug},
};

/// How client messages are kept. Off by default: [`Settings::redelivery`](super::Settings::redelivery).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redelivery {
    /// How long a confirmed message is kept. Default 1 s.
    pub hold: Duration,
    /// The most that is kept for one connection, in bytes of frames. Default 256 KiB.
    pub buffer: usize,
}

impl Default for Redelivery {
    fn default() -> Self {
        Self { hold: Duration::from_secs(1), buffer: 256 * 1024 }
    }
}

/// How long a message may wait before the app is asked whether it has it.
const ASK_AFTER: Duration = Duration::from_millis(100);

/// How often a message is delivered again before it counts as the cause.
const TRIES: u8 = 2;

/// What is kept of one connection.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    settings: Redelivery,
    /// Whole messages, in order. The confirmed ones are in front.
    pub(super) messages: VecDeque<Message>,
    /// The message that is passing.
    open: Option<Open>,
    /// The bytes of all of them.
    pub(super) bytes: usize,
    pub(super) unasked: Unasked,
    /// The client is not read until there is room.
    full: bool,
    /// The client's Close waits until nothing is kept.
    close_waits: bool,
    counts: Counts,
}

#[derive(Clone, Debug)]
pub(super) struct Message {
    number: u64,
    frames: Vec<u8>,
    pub(super) confirmed: Option<Duration>,
    tries: u8,
}

#[derive(Clone, Debug)]
enum Open {
    Kept(Vec<u8>),
    /// It is larger than the buffer.
    TooLarge,
}

/// The messages that no ping has asked about.
#[derive(Clone, Debug, Default)]
pub(super) struct Unasked {
    pub(super) since: Option<Duration>,
    bytes: usize,
    last: u64,
}

/// What happened since it was counted last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages that were delivered again.
    pub(crate) redelivered: u64,
    /// Messages that were larger than the buffer.
    pub(crate) unkept: u64,
}

impl Kept {
    pub(super) fn new(settings: Redelivery) -> Self {
        Self {
            settings,
            messages: VecDeque::new(),
            open: None,
            bytes: 0,
            unasked: Unasked::default(),
            full: false,
            close_waits: false,
            counts: Counts::default(),
        }
    }

    /// Whether the frame that begins with `bytes` may pass now. If not, the client waits until there is room.
    pub(super) fn takes(&mut self, bytes: &[u8]) -> bool {
        // What breaks the protocol is found by who reads on.
        let Ok(Some(header)) = Header::parse(bytes) else { return true };
        if header.opcode.is_control() || matches!(self.open, Some(Open::TooLarge)) {
            return true;
        }
        let size = usize::try_from(header.len).unwrap_or(usize::MAX).saturating_add(header.size);
        let begun = match &self.open {
            Some(Open::Kept(frames)) => frames.len(),
            _ => 0,
        };
        if size.saturating_add(begun) > self.settings.buffer {
            self.bytes -= begun;
            self.open = Some(Open::TooLarge);
            self.counts.unkept += 1;
            return true;
        }
        while self.bytes + size > self.settings.buffer && self.drop_confirmed() {}
        self.full = self.bytes + size > self.settings.buffer;
        !self.full
    }

    /// Keeps bytes of the message that is passing. `number`: its own, when it ends with them.
    pub(super) fn keep(&mut self, now: Duration, bytes: &[u8], number: Option<u64>) {
        if let Open::Kept(frames) = self.open.get_or_insert_with(|| Open::Kept(Vec::new())) {
            frames.extend_from_slice(bytes);
            self.bytes += bytes.len();
        }
        let Some(number) = number else { return };
        if let Some(Open::Kept(frames)) = self.open.take() {
            self.unasked.since.get_or_insert(now);
            self.unasked.bytes += frames.len();
            self.unasked.last = number;
            self.messages.push_back(Message { number, frames, confirmed: None, tries: 0 });
        }
    }

    /// Whether the client has to wait, for room or with its Close.
    pub(super) fn holds_client(&self) -> bool {
        self.full || self.close_waits
    }

    /// Has the client's Close wait if anything is kept.
    pub(super) fn holds_close(&mut self) -> bool {
        self.close_waits = !self.messages.is_empty();
        self.close_waits
    }

    /// The number up to which the app is to be asked now, if it is.
    pub(super) fn ask(&mut self, now: Duration) -> Option<u64> {
        let since = self.unasked.since?;
        let due = self.full
            || self.close_waits
            || self.unasked.bytes >= self.settings.buffer / 4
            || now >= since + ASK_AFTER;
        due.then(|| std::mem::take(&mut self.unasked).last)
    }

    /// The app has read everything up to that number. Whether the client waits no longer.
    pub(super) fn confirmed(&mut self, now: Duration, number: u64) -> bool {
        for message in self.messages.iter_mut().take_while(|message| message.number <= number) {
            message.confirmed.get_or_insert(now);
        }
        // Confirmed ones make room: the frame that waits is tried again.
        std::mem::take(&mut self.full) | self.expire(now)
    }

    /// Lets go of what is surely handled. Whether the client waits no longer.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        let hold = self.settings.hold;
        let over = |message: &Message| message.confirmed.is_some_and(|at| now >= at + hold);
        while self.messages.front().is_some_and(over) {
            self.drop_confirmed();
        }
        self.messages.is_empty() && std::mem::take(&mut self.close_waits)
    }

    /// When [`Kept::ask`] is due, if a ping can be put now.
    pub(super) fn ask_at(&self) -> Option<Duration> {
        self.unasked.since.map(|since| since + ASK_AFTER)
    }

    /// When [`Kept::expire`] is due.
    pub(super) fn expire_at(&self) -> Option<Duration> {
        self.messages.front().and_then(|message| message.confirmed).map(|at| at + self.settings.hold)
    }

    /// How many messages the next leg is given again.
    pub(super) fn count(&self) -> u64 {
        self.messages.len() as u64
    }

    /// The number of the first of them.
    pub(super) fn first(&self) -> Option<u64> {
        self.messages.front().map(|message| message.number)
    }

    /// Whether the beginning of the message that is passing is kept too.
    pub(super) fn has_open(&self) -> bool {
        matches!(self.open, Some(Open::Kept(_)))
    }

    /// Whether a message was delivered again as often as may be.
    pub(super) fn is_poisoned(&self) -> bool {
        self.messages.iter().any(|message| message.tries >= TRIES)
    }

    /// Delivers the whole messages again, on a fresh leg: their numbers and frames. The highest number among them.
    pub(super) fn replay(&mut self, mut put: impl FnMut(u64, &[u8])) -> Option<u64> {
        for message in &mut self.messages {
            put(message.number, &message.frames);
            message.tries += 1;
            message.confirmed = None;
            self.counts.redelivered += 1;
        }
        self.unasked = Unasked::default();
        self.messages.back().map(|message| message.number)
    }

    /// Delivers the beginning of the message that is passing again.
    pub(super) fn replay_open(&self, put: impl FnOnce(&[u8])) {
        if let Some(Open::Kept(frames)) = &self.open {
            put(frames);
        }
    }

    /// A finished move: the app has had everything.
    pub(super) fn clear(&mut self) {
        *self = Self { counts: self.counts, ..Self::new(self.settings) };
    }

    pub(super) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// The bytes of all that is there.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        let open = match &self.open {
            Some(Open::Kept(frames)) => frames.len(),
            _ => 0,
        };
        self.messages.iter().map(|message| message.frames.len()).sum::<usize>() + open
    }

    fn drop_confirmed(&mut self) -> bool {
        match self.messages.front() {
            Some(message) if message.confirmed.is_some() => {
                if !seeded::has(Bug::LeakBuffer) {
                    self.bytes -= message.frames.len();
                }
                self.messages.pop_front();
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Opcode, write};

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn frame(len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, Opcode::Binary, &vec![0; len], Some([1, 2, 3, 4]));
        out
    }

    /// Offers one message of `len` bytes of payload.
    fn offer(kept: &mut Kept, at: Duration, number: u64, len: usize) -> bool {
        let frame = frame(len);
        let takes = kept.takes(&frame);
        if takes {
            kept.keep(at, &frame, Some(number));
        }
        takes
    }

    fn replayed(kept: &mut Kept) -> usize {
        let mut count = 0;
        kept.replay(|_, _| count += 1);
        count
    }

    #[test]
    fn a_message_goes_when_it_is_confirmed_and_its_hold_is_over() {
        let mut kept = Kept::new(Redelivery::default());
        assert!(offer(&mut kept, ms(0), 1, 10) && offer(&mut kept, ms(50), 2, 10));
        assert_eq!((kept.ask(ms(99)), kept.ask(ms(100)), kept.ask(ms(100))), (None, Some(2), None));
        kept.confirmed(ms(150), 1);
        kept.expire(ms(1149));
        assert_eq!((kept.count(), kept.expire_at()), (2, Some(ms(1150))));
        kept.expire(ms(1150));
        assert_eq!((kept.count(), kept.first(), kept.expire_at()), (1, Some(2), None));
    }

    #[test]
    fn a_quarter_full_is_asked_about_at_once() {
        let mut kept = Kept::new(Redelivery { buffer: 400, ..Redelivery::default() });
        assert!(offer(&mut kept, ms(0), 1, 50));
        assert_eq!(kept.ask(ms(0)), None);
        assert!(offer(&mut kept, ms(0), 2, 50));
        assert_eq!(kept.ask(ms(0)), Some(2));
    }

    #[test]
    fn confirmed_messages_make_room_early_and_unconfirmed_ones_never() {
        let mut kept = Kept::new(Redelivery { buffer: 250, ..Redelivery::default() });
        assert!(offer(&mut kept, ms(0), 1, 100) && offer(&mut kept, ms(0), 2, 100));
        assert!(!offer(&mut kept, ms(0), 3, 100), "the client waits");
        assert!(kept.holds_client());
        assert!(kept.confirmed(ms(10), 1), "it waits no longer");
        assert!(offer(&mut kept, ms(10), 3, 100));
        assert_eq!((kept.count(), kept.first()), (2, Some(2)));
    }

    #[test]
    fn a_message_larger_than_the_buffer_passes_unkept_and_is_counted() {
        let mut kept = Kept::new(Redelivery { buffer: 250, ..Redelivery::default() });
        assert!(offer(&mut kept, ms(0), 1, 100) && offer(&mut kept, ms(0), 2, 1000));
        assert!(!kept.has_open());
        assert!(offer(&mut kept, ms(0), 3, 100));
        assert_eq!(replayed(&mut kept), 2);
        assert_eq!(kept.take_counts(), Counts { redelivered: 2, unkept: 1 });
    }

    #[test]
    fn a_fragmented_message_that_grows_too_large_is_let_go_of() {
        let mut kept = Kept::new(Redelivery { buffer: 250, ..Redelivery::default() });
        for _ in 0..2 {
            assert!(kept.takes(&frame(100)));
            kept.keep(ms(0), &frame(100), None);
        }
        assert!(kept.has_open() && kept.takes(&frame(100)));
        kept.keep(ms(0), &frame(100), Some(1));
        assert_eq!((kept.count(), kept.bytes), (0, 0));
    }

    #[test]
    fn what_was_delivered_again_twice_is_poison() {
        let mut kept = Kept::new(Redelivery::default());
        assert!(offer(&mut kept, ms(0), 1, 10));
        for _ in 0..2 {
            assert!(!kept.is_poisoned());
            assert_eq!(replayed(&mut kept), 1);
        }
        assert!(kept.is_poisoned());
    }

    #[test]
    fn a_close_waits_for_what_is_kept() {
        let mut kept = Kept::new(Redelivery::default());
        assert!(!kept.holds_close());
        assert!(offer(&mut kept, ms(0), 1, 10) && kept.holds_close());
        assert_eq!(kept.ask(ms(0)), Some(1), "asked at once");
        assert!(!kept.confirmed(ms(5), 1) && kept.holds_client());
        assert!(kept.expire(ms(1005)) && !kept.holds_client());
    }
}
