//! Which node owns a key, who is next when it dies, and what moves when a node joins. No network, no runtime.
//!
//! ```text
//! cargo run -p examples --example pick
//! cargo run -p examples --example pick -- user-1 user-2 room/7
//! ```

#![allow(clippy::print_stdout)]

use std::env;

use anyhow::Result;
use ws_routing::{Key, Members, Node, rendezvous::Placement};

fn main() -> Result<()> {
    let mut keys = env::args().skip(1).map(Key::new).collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        keys = (1..=12).map(|n| Key::new(format!("user-{n}"))).collect::<Result<_, _>>()?;
    }

    let three = members(&["10.0.0.1:7400", "10.0.0.2:7400", "10.0.0.3:7400"])?;
    println!("members {}: everyone with the same list computes the same owners\n", three.fingerprint());
    println!("{:<12} {:<15} when that is dead, then", "key", "owner");
    for key in &keys {
        let mut ranked = three.walk(key, 3).map(|node| node.id.as_str());
        println!(
            "{:<12} {:<15} {}",
            key.as_str(),
            ranked.next().unwrap_or("-"),
            ranked.collect::<Vec<_>>().join(", ")
        );
    }

    let mut placement = Placement::new(three.candidates());
    for key in &keys {
        let _ = placement.insert(three.key_hash(key), key);
    }
    let four = members(&["10.0.0.1:7400", "10.0.0.2:7400", "10.0.0.3:7400", "10.0.0.5:7400"])?;
    println!("\n10.0.0.5:7400 joins. Only keys that it owns from now on move:");
    for moved in placement.update(four.candidates()) {
        let [from, to] = [moved.from, moved.to].map(|id| id.map_or("-", |id| id.as_str()));
        println!("{:<12} {from} → {to}", moved.token.as_str());
    }
    Ok(())
}

fn members(ids: &[&str]) -> Result<Members> {
    let nodes = ids.iter().map(|id| Ok(Node::new(id.parse()?))).collect::<Result<Vec<_>>>()?;
    Ok(Members::new(nodes, 0))
}
