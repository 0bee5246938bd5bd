//! What became of a case, as a row of the table and as complaints.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::{cases::Permits, support::answers::Answers};

/// One run of one case.
#[derive(Debug, Default)]
pub struct Row {
    pub name: &'static str,
    pub redelivery: bool,
    /// Messages of clients, and words of apps.
    pub sent: usize,
    pub moves: usize,
    /// Lost by connections that stay, from and to clients.
    pub lost_up: usize,
    pub lost_down: usize,
    /// Of those the ones that the contract does not excuse.
    pub inexcusable: usize,
    pub repeated: usize,
    pub announced: usize,
    pub reordered: usize,
    pub late: usize,
    pub invented: usize,
    pub wrong: usize,
    pub closed: BTreeMap<String, usize>,
    pub wrongly_closed: usize,
    /// Of each client that stays the longest, in order.
    pub pauses: Vec<Duration>,
    pub answers: Answers,
    pub lateness: Duration,
    /// What the contract does not permit.
    pub broken: Vec<String>,
}

/// A close code; a cut has none.
pub fn show_code(code: Option<u16>) -> String {
    code.map_or_else(|| "cut".to_owned(), |code| code.to_string())
}

impl Row {
    /// Notes what the contract does not permit.
    pub fn require(&mut self, permits: &Permits) {
        let none = [
            ("lost without excuse", self.inexcusable),
            ("repeated unannounced", self.repeated),
            ("reordered", self.reordered),
            ("invented", self.invented),
            ("wrong answers", self.wrong),
            ("wrongly closed", self.wrongly_closed),
            ("late", if permits.crash { 0 } else { self.late }),
        ];
        let counted = none.into_iter().filter(|(_, count)| *count > 0);
        self.broken.extend(counted.map(|(what, count)| format!("{count} {what}")));
        let pause = self.percentile(99);
        // A machine that is busy with something else delays each of the steps that a client has to wait for.
        if pause > permits.pause + 4 * self.lateness {
            self.broken.push(format!("a pause of {pause:?}, {:?} is permitted", permits.pause));
        }
        if self.sent == 0 || self.answers.statuses.get(&200).is_none_or(|count| *count == 0) {
            self.broken.push("nothing was sent".to_owned());
        }
    }

    pub fn complaint(&self) -> String {
        format!("{}: {}\n{self}", self.name, self.broken.join(", "))
    }

    fn percentile(&self, percent: usize) -> Duration {
        let at = (self.pauses.len() * percent).div_ceil(100).saturating_sub(1);
        self.pauses.get(at).copied().unwrap_or_default()
    }

    fn cells(&self) -> [String; 11] {
        let closed: Vec<String> = self.closed.iter().map(|(code, n)| format!("{n} × {code}")).collect();
        let pause = |percent| match self.pauses.is_empty() {
            true => "–".to_owned(),
            false => format!("{:.2} s", self.percentile(percent).as_secs_f64()),
        };
        [
            self.name.to_owned(),
            if self.redelivery { "on" } else { "off" }.to_owned(),
            self.sent.to_string(),
            self.lost_up.to_string(),
            self.lost_down.to_string(),
            self.announced.to_string(),
            self.repeated.to_string(),
            self.reordered.to_string(),
            self.wrong.to_string(),
            if closed.is_empty() { "0".to_owned() } else { closed.join(", ") },
            format!("{} / {}", pause(99), pause(100)),
        ]
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {}", self.cells()[2..].join(" | "))?;
        writeln!(f, "  moves {}, late {}, machine late by {:?}", self.moves, self.late, self.lateness)?;
        write!(f, "  {}", self.answers)?;
        match self.broken.is_empty() {
            true => Ok(()),
            false => write!(f, "\n  NOT PERMITTED: {}", self.broken.join(", ")),
        }
    }
}

/// The rows as the README has them.
pub fn table(rows: &[Row]) -> String {
    const HEAD: [&str; 11] = [
        "fault",
        "redelivery",
        "messages",
        "lost from clients",
        "lost to clients",
        "announced repeats",
        "other repeats",
        "reordered",
        "wrong answers",
        "closed",
        "pause p99 / longest",
    ];
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut table = line(&HEAD.map(str::to_owned)) + &line(&HEAD.map(|_| "---".to_owned()));
    rows.iter().for_each(|row| table += &line(&row.cells()));
    table
}
