//! A thousand pods and ten million keys: how even the load is, and how many keys move when pods come and go, with
//! rendezvous hashing, a hash ring and a Maglev table.
//!
//! ```text
//! cargo run --profile bench -p examples --example scale
//! cargo run --profile bench -p examples --example scale -- --pods 100 --keys 1000000 --svg scale.svg
//! ```
//!
//! *Needed* is what no scheme can do without: the keys of pods that left, and a fair share for those that joined.

#![allow(clippy::print_stdout)]

mod chart;
mod schemes;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use schemes::{Maglev, Pod, Rendezvous, Ring, Scheme};

#[derive(Debug, Parser)]
struct Args {
    /// Pods at the start.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=50_000))]
    pods: u32,
    /// Keys.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Pods that the rolling update replaces, one after another: the new one joins, then the old one leaves.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=20))]
    replaced: u32,
    /// Where the chart goes.
    #[arg(long, default_value = "target/scale.svg")]
    svg: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let events = events(&args);
    let steps = events.iter().map(|event| 1 + event.steps.len() as u64).sum::<u64>();
    let bar = ProgressBar::new(3 * (1 + steps)).with_style(ProgressStyle::with_template(
        "{msg:<44} {wide_bar} {pos}/{len} [{elapsed}, {eta} left]",
    )?);

    let start: Vec<Pod> = (0..args.pods).map(Pod::new).collect();
    let reports = vec![
        run(&mut Rendezvous::new(args.keys), &start, &events, &bar),
        run(&mut Ring::new(args.keys), &start, &events, &bar),
        run(&mut Maglev::new(args.keys, args.pods), &start, &events, &bar),
    ];
    bar.finish_and_clear();

    print(&args, &events, &reports);
    chart::draw(&args.svg, &events, &reports)?;
    println!("\nChart: {}", args.svg.display());
    Ok(())
}

/// Something that happens to the pods that there are at the start, step by step.
struct Event {
    name: String,
    steps: Vec<Vec<Pod>>,
}

fn events(args: &Args) -> Vec<Event> {
    let start: Vec<Pod> = (0..args.pods).map(Pod::new).collect();
    let without = |gone: u32| start.iter().filter(|pod| pod.number >= gone).copied().collect::<Vec<_>>();
    let with = |new: Pod| start.iter().copied().chain([new]).collect::<Vec<_>>();

    let mut rolling = Vec::new();
    let mut pods = start.clone();
    for number in 0..args.replaced {
        pods.push(Pod::new(args.pods + number));
        rolling.push(pods.clone());
        pods.retain(|pod| pod.number != number);
        rolling.push(pods.clone());
    }
    let heavier =
        start.iter().map(|pod| if pod.number % 10 == 0 { Pod { weight: 200, ..*pod } } else { *pod });
    let event = |name: &str, steps| Event { name: name.to_owned(), steps };
    vec![
        event("one pod joins", vec![with(Pod::new(args.pods))]),
        event("one pod leaves", vec![without(1)]),
        event("ten pods leave", vec![without(10)]),
        event(&format!("rolling update of {}", args.replaced), rolling),
        event("a tenth gets weight 200", vec![heavier.collect()]),
    ]
}

/// What one scheme came to.
struct Report {
    name: &'static str,
    /// The fullest pod's keys, and the standard deviation, as shares of the mean.
    fullest: f64,
    deviation: f64,
    outcomes: Vec<Outcome>,
}

/// Of one event, as shares of all keys.
#[derive(Default)]
struct Outcome {
    moved: f64,
    needed: f64,
    took: Duration,
}

fn run(scheme: &mut dyn Scheme, start: &[Pod], events: &[Event], bar: &ProgressBar) -> Report {
    let name = scheme.name();
    bar.set_message(format!("{name}: placing the keys"));
    scheme.change(start);
    bar.inc(1);
    let (fullest, deviation) = balance(&scheme.loads(), start);

    let mut outcomes = Vec::new();
    for event in events {
        bar.set_message(format!("{name}: {}", event.name));
        let mut outcome = Outcome::default();
        let mut before = start;
        for after in &event.steps {
            outcome.needed += needed(&scheme.loads(), before, after);
            let began = Instant::now();
            outcome.moved += scheme.change(after);
            outcome.took += began.elapsed();
            before = after;
            bar.inc(1);
        }
        outcomes.push(outcome);
        scheme.change(start);
        bar.inc(1);
    }
    Report { name, fullest, deviation, outcomes }
}

fn balance(loads: &[f64], pods: &[Pod]) -> (f64, f64) {
    let mean = loads.iter().sum::<f64>() / pods.len() as f64;
    let of = |pod: &Pod| loads.get(pod.number as usize).copied().unwrap_or(0.0) / mean;
    let variance = pods.iter().map(|pod| (of(pod) - 1.0).powi(2)).sum::<f64>() / pods.len() as f64;
    (pods.iter().map(of).fold(0.0, f64::max), variance.sqrt())
}

/// The keys of pods that left, and what pods that joined or gained weight are due.
fn needed(loads: &[f64], before: &[Pod], after: &[Pod]) -> f64 {
    let share = |pod: &Pod, among: &[Pod]| {
        f64::from(pod.weight) / among.iter().map(|pod| f64::from(pod.weight)).sum::<f64>()
    };
    let was = |pod: &Pod| before.iter().find(|other| other.number == pod.number);
    let stays = |pod: &Pod| after.iter().any(|other| other.number == pod.number);
    let left: f64 = before.iter().filter(|pod| !stays(pod)).map(|pod| loads[pod.number as usize]).sum();
    let gained: f64 = after
        .iter()
        .filter(|pod| was(pod).is_none_or(|was| was.weight < pod.weight))
        .map(|pod| share(pod, after) - was(pod).map_or(0.0, |was| share(was, before)))
        .sum();
    left + gained
}

fn print(args: &Args, events: &[Event], reports: &[Report]) {
    println!("{} pods, {} keys\n", args.pods, args.keys);
    println!("{:<26}{}", "", reports.iter().map(|report| format!("{:>32}", report.name)).collect::<String>());
    let row = |name: &str, cell: &dyn Fn(&Report) -> String| {
        println!(
            "{name:<26}{}",
            reports.iter().map(|report| format!("{:>32}", cell(report))).collect::<String>()
        );
    };
    row("fullest pod, of the mean", &|report| format!("{:.1} %", report.fullest * 100.0));
    row("standard deviation", &|report| format!("{:.1} %", report.deviation * 100.0));
    println!("\nKeys moved, of all · of what is needed · time for each change");
    for (at, event) in events.iter().enumerate() {
        row(&event.name, &|report| {
            let Outcome { moved, needed, took } = &report.outcomes[at];
            let each = took.as_secs_f64() * 1e3 / event.steps.len() as f64;
            format!("{:.3} % · {:.2} × · {each:.0} ms", moved * 100.0, moved / needed)
        });
    }
}
