//! Every interleaving of a send with two moving connections, three nodes that change their view, one lost answer and one
//! node that cannot be reached.

use std::collections::HashSet;

use super::*;

/// Everything that a call can see or change. Node 0 owns the key by the old view, node 1 by the new one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// Whether each node has the new view.
    new_view: [bool; 3],
    /// 0: live at node 0. 1: also opened at node 1. 2: closed at node 0. 3: live at node 1.
    stage: [u8; 2],
    delivered: [u8; 2],
    asks: u8,
    lost: bool,
    cut_off: bool,
    /// Whether what is held where another owns is told to the owner.
    naming: bool,
}

fn node(n: usize) -> NodeId {
    format!("10.0.0.{n}:1").parse().unwrap()
}

fn number(node: &NodeId) -> usize {
    (0..3).find(|n| self::node(*n) == *node).unwrap()
}

fn id(c: usize) -> Id {
    ["x", "y"][c].into()
}

fn fingerprint(new: bool) -> Fingerprint {
    if new { "2".parse().unwrap() } else { "1".parse().unwrap() }
}

impl World {
    /// The worlds in which something has happened besides the call.
    fn events(&self) -> Vec<Self> {
        let mut worlds = Vec::new();
        for n in 0..3 {
            if !self.new_view[n] {
                let mut world = self.clone();
                world.new_view[n] = true;
                worlds.push(world);
            }
        }
        for c in 0..2 {
            if self.stage[c] < 3 {
                let mut world = self.clone();
                world.stage[c] += 1;
                worlds.push(world);
            }
        }
        worlds
    }

    fn live_at(&self, c: usize, n: usize) -> bool {
        match self.stage[c] {
            0 | 1 => n == 0,
            3 => n == 1,
            _ => false,
        }
    }

    /// What node `n` may answer, and the worlds after it.
    fn answers(&self, n: usize, asking: &Asking) -> Vec<(Self, Heard)> {
        let mut worlds = vec![(self.clone(), Heard::nothing(fingerprint(self.new_view[n])))];
        let knows_source = n == 0 || asking.asked().any(|asked| *asked == node(0));
        for c in 0..2 {
            let served = asking.served().any(|served| *served == id(c));
            let mut next = Vec::new();
            for (mut world, mut heard) in worlds {
                let pending = n == 1 && matches!(world.stage[c], 1 | 2);
                if world.stage[c] >= 2 && n == 0 && !served {
                    heard.names.push(node(1));
                }
                if !served && pending && knows_source {
                    // It is held back, and its time may be over before the leg is live.
                    let mut late = (world.clone(), heard.clone());
                    late.1.moving.push(id(c));
                    next.push(late);
                    world.stage[c] = 3;
                } else if !served && pending {
                    heard.pending.push((id(c), node(0)));
                }
                if !served && world.live_at(c, n) {
                    world.delivered[c] += 1;
                    heard.served.push(id(c));
                }
                next.push((world, heard));
            }
            worlds = next;
        }
        for (world, heard) in &mut worlds {
            let told = |holder: usize, owner: usize| world.new_view[holder] == (owner == 1);
            for holder in (0..3).filter(|holder| *holder != n) {
                if self.naming && n < 2 && told(holder, n) && (0..2).any(|c| world.live_at(c, holder)) {
                    heard.names.push(node(holder));
                }
            }
        }
        worlds
    }
}

struct Search {
    seen: HashSet<(World, Asking)>,
    verdicts: HashSet<&'static str>,
}

impl Search {
    #[allow(clippy::needless_pass_by_value)] // a state of its own
    fn explore(&mut self, world: World, asking: Asking) {
        if !self.seen.insert((world.clone(), asking.clone())) {
            return;
        }
        for later in world.events() {
            self.explore(later, asking.clone());
        }
        let mut asking = asking;
        match asking.next() {
            Step::Done(verdict) => self.judge(&world, &asking, &verdict),
            Step::Ask(asked) => self.ask(&world, &asking, &asked),
        }
    }

    fn ask(&mut self, world: &World, asking: &Asking, asked: &NodeId) {
        let mut world = world.clone();
        world.asks += 1;
        assert!(world.asks <= 2 * 3, "it goes in circles: {asking:?}");
        if !world.cut_off {
            let cut_off = World { cut_off: true, ..world.clone() };
            self.reply(cut_off, asking, asked, Reply::Unreachable);
        }
        if !world.lost {
            self.reply(World { lost: true, ..world.clone() }, asking, asked, Reply::Lost);
        }
        for (after, heard) in world.answers(number(asked), asking) {
            if !world.lost {
                self.reply(World { lost: true, ..after.clone() }, asking, asked, Reply::Lost);
            }
            self.reply(after, asking, asked, Reply::Heard(heard));
        }
    }

    fn reply(&mut self, world: World, asking: &Asking, asked: &NodeId, reply: Reply) {
        let mut asking = asking.clone();
        asking.answered(asked.clone(), reply);
        self.explore(world, asking);
    }

    fn judge(&mut self, world: &World, asking: &Asking, verdict: &Verdict) {
        let total: u8 = world.delivered.iter().sum();
        let context = || format!("{verdict:?} after {world:?} {asking:?}");
        assert!(world.delivered.iter().all(|times| *times <= 1), "twice: {}", context());
        match verdict {
            Verdict::NotConnected => panic!("both are connected: {}", context()),
            Verdict::Delivered { delivered, slow, .. } => {
                assert_eq!(*delivered, usize::from(total), "{}", context());
                assert!(world.cut_off || delivered + slow == 2, "left out: {}", context());
            }
            Verdict::Moving | Verdict::Slow => assert_eq!(total, 0, "{}", context()),
            Verdict::Unknown => assert!(world.lost, "{}", context()),
        }
        self.verdicts.insert(match verdict {
            Verdict::Delivered { .. } => "delivered",
            Verdict::Moving => "moving",
            Verdict::Unknown => "unknown",
            Verdict::NotConnected | Verdict::Slow => "other",
        });
    }
}

fn unasked(asker: usize, new_view: bool) -> Asking {
    // By the new view the old owner was one within the last minute.
    let mut first = vec![node(0)];
    if new_view {
        first.push(node(1));
    }
    if !first.contains(&node(asker)) {
        first.insert(0, node(asker));
    }
    let fallback = if new_view { [node(2), node(0)] } else { [node(1), node(2)] };
    Asking::new(fingerprint(new_view), Reach::All, first, fallback)
}

#[test]
fn in_every_interleaving_nobody_is_missed_or_served_twice_and_no_404_is_false() {
    let mut search = Search { seen: HashSet::new(), verdicts: HashSet::new() };
    for asker in 0..3 {
        for views in 0..8_u8 {
            let new_view = [0, 1, 2].map(|n| views & (1 << n) != 0);
            for stage in (0..4).flat_map(|x| (0..4).map(move |y| [x, y])) {
                let world = World {
                    new_view,
                    stage,
                    delivered: [0; 2],
                    asks: 0,
                    lost: false,
                    cut_off: false,
                    naming: true,
                };
                search.explore(world, unasked(asker, new_view[asker]));
            }
        }
    }
    let mut verdicts: Vec<_> = search.verdicts.into_iter().collect();
    verdicts.sort_unstable();
    assert_eq!(verdicts, ["delivered", "moving", "unknown"]);
    assert!(search.seen.len() > 10_000, "{}", search.seen.len());
}

#[test]
fn a_key_that_nobody_holds_is_missing_after_one_round() {
    let mut asking = unasked(0, false);
    let mut order = Vec::new();
    let verdict = loop {
        match asking.next() {
            Step::Ask(asked) => {
                order.push(number(&asked));
                asking.answered(asked, Reply::Heard(Heard::nothing(fingerprint(false))));
            }
            Step::Done(verdict) => break verdict,
        }
    };
    assert_eq!((order, verdict), (vec![0, 1, 2], Verdict::NotConnected));
}

#[test]
fn a_node_that_sees_other_members_or_cannot_be_reached_makes_404_impossible() {
    let other = Heard::nothing(fingerprint(true));
    for reply in [Reply::Heard(other), Reply::Unreachable] {
        let mut asking = unasked(0, false);
        let verdict = loop {
            match asking.next() {
                Step::Ask(asked) if asked == node(2) => asking.answered(asked, reply.clone()),
                Step::Ask(asked) => {
                    asking.answered(asked, Reply::Heard(Heard::nothing(fingerprint(false))));
                }
                Step::Done(verdict) => break verdict,
            }
        };
        assert_eq!(verdict, Verdict::Moving);
    }
}

#[test]
fn one_that_takes_it_is_enough_for_the_app() {
    let mut asking = Asking::new(fingerprint(false), Reach::One, [node(0), node(1)], []);
    assert_eq!(asking.next(), Step::Ask(node(0)));
    let heard = Heard { served: vec![id(0)], ..Heard::nothing(fingerprint(false)) };
    asking.answered(node(0), Reply::Heard(heard));
    let delivered = Verdict::Delivered { node: node(0), delivered: 1, slow: 0 };
    assert_eq!(asking.next(), Step::Done(delivered));
}
