//! The table of cases: what is started, what goes wrong, and what the contract permits then.

use std::{pin::Pin, time::Duration};

use crate::{
    faults,
    scene::Scene,
    support::{
        Setup,
        app::Answers,
        wait::{millis, secs},
    },
};

/// One fault.
pub struct Case {
    pub name: &'static str,
    pub setup: fn() -> Setup,
    /// Breaks it, and returns when everything is whole again as far as it can be.
    pub fault: Fault,
    pub permits: Permits,
    pub redelivery: Redelivery,
    /// Whether it runs by default, and with redelivery on or off.
    pub short: Option<bool>,
}

pub type Fault = for<'a> fn(&'a mut Scene) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// With which settings of `--redelivery` a case is run.
pub enum Redelivery {
    Off,
    Both,
}

/// What the contract lets happen.
#[derive(Clone, Copy, Debug)]
pub struct Permits {
    /// A pod is lost: what was on its way may be lost, client messages only with redelivery off; and what it had read
    /// may reach its app late.
    pub crash: bool,
    /// How a connection may be closed; `None` is a cut.
    pub closes: &'static [Option<u16>],
    /// The longest time in which a client's messages reach no app: the 99th percentile of all clients.
    pub pause: Duration,
}

const GRACEFUL: Permits = Permits { crash: false, closes: &[], pause: secs(1) };
const KILLED: Permits = Permits { crash: true, closes: &[], pause: secs(1) };
const HUNG: Permits = Permits { crash: true, closes: &[], pause: secs(5) };
/// Everybody is held, or gone: nothing is said about pauses.
const HELD: Permits = Permits { crash: true, closes: &[], pause: secs(60) };

/// A case by the name of its fault.
macro_rules! fault {
    ($name:ident $(, $argument:expr)*) => {
        |scene| Box::pin(faults::$name(scene $(, $argument)*))
    };
}

fn three() -> Setup {
    Setup::sidecars(3)
}

fn trusting() -> Setup {
    three().balancer(&["--suspect-for", "1s"])
}

/// Apps that talk unasked too, so that a pod which was given up has something to say.
fn talkative() -> Setup {
    trusting().manners(|app| app.ticks = Some(secs(1)))
}

fn linked() -> Setup {
    talkative().links()
}

pub const CASES: &[Case] = &[
    Case {
        name: "pod added",
        setup: three,
        fault: fault!(added),
        permits: GRACEFUL,
        redelivery: Redelivery::Both,
        short: None,
    },
    Case {
        name: "pod removed gracefully",
        setup: three,
        fault: fault!(removed),
        permits: GRACEFUL,
        redelivery: Redelivery::Off,
        short: None,
    },
    Case {
        name: "rolling update",
        setup: three,
        fault: fault!(rolled),
        permits: GRACEFUL,
        redelivery: Redelivery::Both,
        short: Some(false),
    },
    Case {
        name: "pod SIGKILL",
        setup: three,
        fault: fault!(pod_killed),
        permits: KILLED,
        redelivery: Redelivery::Both,
        short: Some(true),
    },
    Case {
        name: "sidecar SIGKILL",
        setup: three,
        fault: fault!(sidecar_killed),
        permits: KILLED,
        redelivery: Redelivery::Both,
        short: None,
    },
    Case {
        name: "app killed and started again beside its sidecar",
        setup: trusting,
        fault: fault!(app_killed),
        permits: KILLED,
        redelivery: Redelivery::Both,
        short: Some(false),
    },
    Case {
        name: "app stopped beside its sidecar (--app-timeout 3s)",
        setup: || trusting().sidecar(&["--ping-interval", "1s", "--app-timeout", "3s"]),
        fault: fault!(app_stopped),
        permits: Permits { pause: secs(15), ..KILLED },
        redelivery: Redelivery::Both,
        short: None,
    },
    Case {
        name: "two pods SIGKILL, one after the other",
        setup: || Setup::sidecars(4),
        fault: fault!(two_killed),
        permits: Permits { pause: secs(2), ..KILLED },
        redelivery: Redelivery::Both,
        short: None,
    },
    Case {
        name: "new pod SIGKILL in the middle of moves",
        setup: || three().balancer(&["--move-quiet", "500ms", "--move-rate", "20"]),
        fault: fault!(new_pod_killed),
        permits: Permits { pause: secs(3), ..KILLED },
        redelivery: Redelivery::Both,
        short: None,
    },
    Case {
        name: "pod SIGSTOP for 20 s, then SIGCONT",
        setup: talkative,
        fault: fault!(pod_stopped, secs(20)),
        permits: HUNG,
        redelivery: Redelivery::Both,
        short: Some(true),
    },
    Case {
        name: "link to a pod stalled for 5 s",
        setup: linked,
        fault: fault!(link_stalled, secs(5)),
        permits: HUNG,
        redelivery: Redelivery::Both,
        short: None,
    },
    Case {
        name: "link to a pod stalled for 20 s",
        setup: linked,
        fault: fault!(link_stalled, secs(20)),
        permits: HUNG,
        redelivery: Redelivery::Both,
        short: None,
    },
    Case {
        name: "link to a pod cut for 5 s",
        setup: linked,
        fault: fault!(link_cut),
        permits: KILLED,
        redelivery: Redelivery::Both,
        short: None,
    },
    Case {
        name: "links between sidecars cut for 10 s",
        setup: || three().links(),
        fault: fault!(peers_cut),
        permits: GRACEFUL,
        redelivery: Redelivery::Off,
        short: Some(false),
    },
    Case {
        name: "links between sidecars stalled for 10 s",
        setup: || three().links(),
        fault: fault!(peers_stalled),
        permits: GRACEFUL,
        redelivery: Redelivery::Off,
        short: None,
    },
    Case {
        name: "source of members gone, then pod SIGKILL",
        setup: three,
        fault: fault!(source_gone),
        permits: KILLED,
        redelivery: Redelivery::Off,
        short: None,
    },
    Case {
        name: "members flapping every 200 ms",
        setup: three,
        fault: fault!(flapping),
        permits: GRACEFUL,
        redelivery: Redelivery::Both,
        short: Some(false),
    },
    Case {
        name: "views that disagree for 30 s",
        setup: || three().own_views(),
        fault: fault!(views_disagree),
        permits: GRACEFUL,
        redelivery: Redelivery::Off,
        short: None,
    },
    Case {
        name: "balancer stopped for 10 s",
        setup: three,
        fault: fault!(balancer_stopped),
        permits: Permits { pause: secs(12), ..GRACEFUL },
        redelivery: Redelivery::Both,
        short: None,
    },
    Case {
        name: "balancer SIGTERM",
        setup: || three().balancer(&["--drain", "5s"]),
        fault: fault!(balancer_ended),
        permits: Permits { closes: &[Some(1012)], ..GRACEFUL },
        redelivery: Redelivery::Off,
        short: None,
    },
    Case {
        name: "balancer SIGKILL",
        setup: three,
        fault: fault!(balancer_killed),
        permits: Permits { closes: &[None], crash: true, ..GRACEFUL },
        redelivery: Redelivery::Off,
        short: None,
    },
    Case {
        name: "all pods gone for 5 s",
        setup: trusting,
        fault: fault!(all_gone, secs(5), true),
        permits: HELD,
        redelivery: Redelivery::Both,
        short: None,
    },
    Case {
        name: "all pods gone for 15 s",
        setup: trusting,
        fault: fault!(all_gone, secs(15), false),
        permits: Permits { closes: &[Some(1013)], ..HELD },
        redelivery: Redelivery::Off,
        short: None,
    },
    Case {
        name: "slow clients and slow apps, pod added",
        setup: || three().manners(|app| app.answers = Answers::Busy(millis(20))),
        fault: fault!(slow),
        permits: GRACEFUL,
        redelivery: Redelivery::Both,
        short: None,
    },
    Case {
        name: "hostile clients, pod added and removed",
        setup: three,
        fault: fault!(hostile),
        permits: GRACEFUL,
        redelivery: Redelivery::Off,
        short: None,
    },
];
