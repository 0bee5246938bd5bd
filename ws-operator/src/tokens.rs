//! Peer tokens: made, and replaced without a moment in which two pods of a ring do not know each other.
//!
//! Sidecars and balancers accept every token of their file and use the first. A new one is appended, comes first when
//! everybody has seen it, and the old one goes when nobody uses it any more.

use std::{fmt, time::Duration};

use jiff::Timestamp;

/// How long a token is used before the next one is made.
const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long everybody is given to see a change of the file. The kubelet takes up to a minute and a half.
const SEEN: Duration = Duration::from_secs(5 * 60);

/// The tokens of one group, and how far their replacement is.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens {
    lines: Vec<String>,
    step: Step,
    since: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// One token.
    Steady,
    /// The new one is last: accepted, not used.
    Appended,
    /// The new one is first: used, while the old one is still accepted.
    First,
}

impl Tokens {
    /// Reads what the Secret holds: the file, and the note about it. Whatever was changed by hand is taken as the
    /// middle of a replacement, the last token being the new one.
    #[must_use]
    pub fn read(file: &str, note: Option<&str>, now: Timestamp) -> Option<Self> {
        let lines: Vec<String> =
            file.lines().map(str::trim).filter(|line| !line.is_empty()).map(Into::into).collect();
        if lines.is_empty() {
            return None;
        }
        let told = note.and_then(Self::parse).filter(|(step, _)| match step {
            Step::Steady => lines.len() == 1,
            Step::Appended | Step::First => lines.len() == 2,
        });
        let guess = if lines.len() == 1 { Step::Steady } else { Step::Appended };
        let (step, since) = told.unwrap_or((guess, now));
        Some(Self { lines, step, since })
    }

    /// What is to be now: `had`, or its next step, or tokens where there were none.
    #[must_use]
    pub fn next(had: Option<Self>, now: Timestamp, make: impl FnOnce() -> String) -> Self {
        let Some(mut tokens) = had else {
            return Self { lines: vec![make()], step: Step::Steady, since: now };
        };
        if tokens.due() > now {
            return tokens;
        }
        tokens.since = now;
        tokens.step = match tokens.step {
            Step::Steady => {
                tokens.lines.push(make());
                Step::Appended
            }
            Step::Appended => {
                tokens.lines.rotate_right(1);
                Step::First
            }
            Step::First => {
                tokens.lines.truncate(1);
                Step::Steady
            }
        };
        tokens
    }

    /// When the next step is due.
    #[must_use]
    pub fn due(&self) -> Timestamp {
        let wait = match self.step {
            Step::Steady => LIFE,
            Step::Appended | Step::First => SEEN,
        };
        // A time that no clock reaches is as good as never.
        self.since.checked_add(wait).unwrap_or(Timestamp::MAX)
    }

    /// The file that sidecars and balancers read.
    #[must_use]
    pub fn file(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// What is noted beside it, for [`read`](Self::read).
    #[must_use]
    pub fn note(&self) -> String {
        let step = match self.step {
            Step::Steady => "steady",
            Step::Appended => "appended",
            Step::First => "first",
        };
        format!("{step} {}", self.since)
    }

    fn parse(note: &str) -> Option<(Step, Timestamp)> {
        let (step, since) = note.split_once(' ')?;
        let step = match step {
            "steady" => Step::Steady,
            "appended" => Step::Appended,
            "first" => Step::First,
            _ => return None,
        };
        Some((step, since.parse().ok()?))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lines, step, since } = self;
        write!(f, "{} tokens, {step:?} since {since}", lines.len())
    }
}

/// A token that nobody guesses: 256 bits from the system, as text.
#[must_use]
pub fn random() -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let mut bytes = [0_u8; 32];
    rand::Rng::fill(&mut rand::rng(), &mut bytes[..]);
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    const MONTH: i64 = 30 * 24 * 3600;

    #[test]
    fn a_replacement_is_three_steps_with_time_in_between() {
        let mut made = ["two", "one"].map(String::from).to_vec();
        let mut tokens = None;
        for (second, file) in [
            (0, "one\n"),
            (1, "one\n"),
            (MONTH - 1, "one\n"),
            (MONTH, "one\ntwo\n"),
            (MONTH + 299, "one\ntwo\n"),
            (MONTH + 300, "two\none\n"),
            (MONTH + 599, "two\none\n"),
            (MONTH + 600, "two\n"),
            (2 * MONTH + 599, "two\n"),
        ] {
            let next = Tokens::next(tokens, at(second), || made.pop().unwrap());
            assert_eq!(next.file(), file, "at {second} s");
            assert_eq!(Tokens::read(&next.file(), Some(&next.note()), at(second + 9)).as_ref(), Some(&next));
            tokens = Some(next);
        }
    }

    #[test]
    fn an_operator_that_slept_for_a_year_skips_no_step() {
        let tokens = Tokens::next(None, at(0), || "one".into());
        let late = at(365 * 24 * 3600);
        let tokens = Tokens::next(Some(tokens), late, || "two".into());
        assert_eq!(tokens.file(), "one\ntwo\n");
        assert_eq!(Tokens::next(Some(tokens.clone()), late, || unreachable!()), tokens);
    }

    #[test]
    fn what_somebody_changed_by_hand_is_not_thrown_away_at_once() {
        for (file, note, lines, due) in [
            ("a\n", None, "a\n", MONTH),
            ("a", Some("nonsense"), "a\n", MONTH),
            (" a \n\nb", None, "a\nb\n", 300),
            ("a\nb\n", Some("steady 2023-11-14T22:13:20Z"), "a\nb\n", 300),
            ("a\n", Some("first 2023-11-14T22:13:20Z"), "a\n", MONTH),
            ("a\nb\nc\n", Some("appended 2023-11-14T22:13:20Z"), "a\nb\nc\n", 300),
        ] {
            let tokens = Tokens::read(file, note, at(0)).unwrap();
            assert_eq!((tokens.file(), tokens.due()), (lines.into(), at(due)), "{file:?} {note:?}");
        }
        assert_eq!(Tokens::read("\n \n", None, at(0)), None);
    }

    #[test]
    fn random_tokens_are_long_and_never_the_same() {
        let (one, two) = (random(), random());
        assert!(one != two && one.len() == 43, "{one}");
    }

    #[test]
    fn no_log_line_shows_a_token() {
        assert!(!format!("{:?}", Tokens::next(None, at(0), || "secret".into())).contains("secret"));
    }
}
