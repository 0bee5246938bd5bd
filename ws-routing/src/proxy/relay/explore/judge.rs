//! What must hold in the explorer's world (DESIGN §7).

use std::collections::BTreeMap;

use super::{app::App, world::World};

impl World {
    /// What must hold at any time.
    pub(super) fn check(&self) -> Result<(), String> {
        let words = &self.client.words;
        if let Some(pair) = words.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(format!("the client hears {:?} after {:?} (leg, message)", pair[1], pair[0]));
        }
        if let Some((leg, _)) = words.last()
            && self.current.is_some_and(|current| usize::from(*leg) > current)
        {
            return Err(format!("leg {leg} is heard before it took over"));
        }
        if self.client.pongs > 1 {
            return Err("the client's one ping is answered twice".into());
        }
        let astray = |app: &App| app.zombie && !app.lost && !app.fenced;
        // Where the client goes too, its legs are closed, and nobody is left to be sent to.
        let goes_on = self.edge.ending.is_none() && self.edge.parting.is_none();
        if self.budget.sidecars && goes_on && self.legs.iter().any(astray) {
            return Err("a leg is left without a Close, and its node is not told".into());
        }
        if let Some(kept) = &self.edge.kept
            && kept.bytes != kept.size()
        {
            return Err(format!("{} bytes are kept, and {} count", kept.size(), kept.bytes));
        }
        if self.due().is_some_and(|due| due < self.now) {
            return Err(format!("{:?} is overdue: the relay spins", self.edge.phase()));
        }
        Ok(())
    }

    /// The application behind that leg handles the next message that it has.
    pub(super) fn handles(&mut self, leg: usize) -> Result<(), String> {
        let app = &mut self.legs[leg];
        let n = app.inbox.remove(0);
        app.reply(leg as u8, n);
        let repeated = self.handled.iter().any(|(_, seen)| *seen == n);
        let may_repeat = app.announced > 0;
        app.announced = app.announced.saturating_sub(1);
        // What a pod does that was given up is nobody's any more; where it is repeated, that was announced.
        let astray = app.zombie && self.settings.redelivery.is_some();
        if repeated && !may_repeat && !astray {
            return Err(format!("message {n} is repeated unannounced"));
        }
        // What was announced begins again on its leg; everything else goes on.
        let before = self.handled.iter().filter(|(at, _)| !repeated || *at == leg).map(|(_, n)| *n).max();
        if before.is_some_and(|before| n <= before) && !app.zombie && !self.led_astray(n) {
            return Err(format!("message {n} comes after message {before:?}"));
        }
        self.handled.push((leg, n));
        Ok(())
    }

    /// Whether what came after that message was handled by a pod that was given up.
    fn led_astray(&self, n: u8) -> bool {
        self.handled.iter().filter(|(_, other)| *other >= n).all(|(leg, _)| self.legs[*leg].zombie)
    }

    /// What does not hold when nothing more can happen.
    pub(super) fn end(&self) -> Result<(), String> {
        if !self.finished && (!self.edge.reads_client() || self.current.is_none()) {
            return Err(format!("the connection hangs in {:?}", self.edge.phase()));
        }
        if !self.finished && !self.client.wire.is_empty() {
            return Err("bytes of the client are never read".into());
        }
        self.ends_for_a_reason()?;
        self.loses_no_message()?;
        self.loses_no_reply()
    }

    fn ends_for_a_reason(&self) -> Result<(), String> {
        let app_closed = self.client.close.is_some_and(|code| code >= 4000);
        if self.finished && !self.client.began && !app_closed && !self.lossy && !self.client_silent {
            return Err(format!("closed without need: {:?}", self.client.close));
        }
        if self.finished && self.client.close.is_none() && !self.lossy && !self.client_silent {
            return Err("cut without a Close".into());
        }
        Ok(())
    }

    fn loses_no_message(&self) -> Result<(), String> {
        let mut counts = BTreeMap::new();
        self.handled.iter().for_each(|(_, n)| *counts.entry(*n).or_insert(0) += 1);
        let lost = (1..=self.budget.messages - self.client.unsent()).find(|n| !counts.contains_key(n));
        let safe = !self.lossy || self.settings.redelivery.is_some();
        let to_be_had = !self.finished || (self.client.began && self.client.close == Some(1000));
        match lost {
            Some(n) if safe && to_be_had => Err(format!("message {n} is lost")),
            _ => Ok(()),
        }
    }

    fn loses_no_reply(&self) -> Result<(), String> {
        if self.lossy || self.finished {
            return Ok(());
        }
        let mut replies = self.handled.iter().map(|(leg, n)| (*leg as u8, *n));
        match replies.find(|reply| !self.client.words.contains(reply)) {
            Some((leg, n)) => Err(format!("the reply of leg {leg} to message {n} is lost")),
            None => Ok(()),
        }
    }
}
