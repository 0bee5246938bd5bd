//! Does one thing so many times and ends, to have its instructions counted: `count pick|weigh|frames|relay N`. What is
//! around it is done in any case: the difference between two counts is what the things cost. `.ci/instructions` does that.

use std::hint::black_box;

use anyhow::{Result, bail};
use benches::memory::InMemory;
use ws_routing::{
    Key, Members, Node, NodeId,
    frame::{self, Decoder, Opcode},
    node::Weight,
};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(what), Some(times)) = (args.next(), args.next()) else {
        bail!("count pick|weigh|frames|relay N")
    };
    let times: u32 = times.parse()?;
    match what.as_str() {
        "pick" => pick(times, false),
        "weigh" => pick(times, true),
        "frames" => frames(times),
        "relay" => tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(relay(times)),
        _ => bail!("{what} is none of pick, weigh, frames, relay"),
    }
}

/// Owners among a hundred nodes.
fn pick(times: u32, weighted: bool) -> Result<()> {
    let node = |n: u16| {
        let id: NodeId = format!("10.0.0.{n}:7400").parse()?;
        Ok::<_, anyhow::Error>(Node {
            weight: Weight::new(if weighted { 100 + n } else { 100 })?,
            ..Node::new(id)
        })
    };
    let members = Members::new((1..=100).map(node).collect::<Result<Vec<_>>>()?, 0);
    let keys = (0..64).map(|n| Key::new(format!("client-{n}"))).collect::<Result<Vec<_>, _>>()?;
    for key in keys.iter().cycle().take(times as usize) {
        black_box(members.owner(black_box(key)));
    }
    Ok(())
}

/// Masked messages of 64 bytes, as they come from clients.
fn frames(times: u32) -> Result<()> {
    let mut bytes = Vec::new();
    frame::write(&mut bytes, Opcode::Binary, &[7; 64], Some([1, 2, 3, 4]));
    let mut decoder = Decoder::new(true, false, 0);
    for _ in 0..times {
        black_box(decoder.next(black_box(&bytes)))?;
    }
    Ok(())
}

/// Echoes of 64 bytes through a balancer, without a network: each is a message onwards and one back.
async fn relay(times: u32) -> Result<()> {
    let chain = InMemory::start(5000, 64)?;
    let mut client = chain.connect("client", 64).await?;
    for _ in 0..times + 100 {
        client.echo().await?;
    }
    Ok(())
}
