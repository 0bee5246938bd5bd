//! The numbered messages of the tests. Any other text or binary message is echoed as it is.

/// What a client says: its id and a number that counts its messages from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub client: u32,
    pub n: u64,
}

impl Call {
    pub fn text(self) -> String {
        format!("#{} {}", self.client, self.n)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let (client, n) = text.strip_prefix('#')?.split_once(' ')?;
        Some(Self { client: client.parse().ok()?, n: n.parse().ok()? })
    }
}

/// What an app says: on which of all legs of the test, its number there, and the call that it answers, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    pub leg: u64,
    pub serial: u64,
    pub answers: Option<u64>,
}

impl Word {
    pub fn text(self) -> String {
        let answers = self.answers.map_or_else(|| "-".to_owned(), |n| n.to_string());
        format!("={} {} {answers}", self.leg, self.serial)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix('=')?.split(' ');
        let (leg, serial) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { leg, serial, answers: parts.next()?.parse().ok() })
    }
}

/// What a caller of the API sends to a client: who calls, and a number that counts its sends from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Push {
    pub caller: u32,
    pub n: u64,
}

impl Push {
    pub fn text(self) -> String {
        format!("+{} {}", self.caller, self.n)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let (caller, n) = text.strip_prefix('+')?.split_once(' ')?;
        Some(Self { caller: caller.parse().ok()?, n: n.parse().ok()? })
    }
}
