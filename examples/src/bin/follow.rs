//! Follows who the members of a ring are, as balancers and sidecars do, and says what changes.
//!
//! ```text
//! cargo run -p examples --bin follow                               # a file of its own, changed a few times
//! cargo run -p examples --bin follow -- file:/etc/ws/members       # until interrupted
//! cargo run -p examples --bin follow -- dns:ws-proxy-headless.chat.svc.cluster.local:7400
//! cargo run -p examples --bin follow -- http://127.0.0.1:7402/v1/members/-/-      # as a balancer sees them
//! ```
//!
//! A view is one atomic snapshot: load it whenever a key is to be looked up. It is never empty again once it was not, and
//! a bad file or a source that is gone changes nothing.
#![allow(clippy::print_stdout)] // it is a program to look at

use std::{env, fs, time::Duration};

use anyhow::Context as _;
use tokio::time::timeout;
use ws_routing::{
    Key, Members, Node,
    membership::{self, FollowOptions, MembersUri, View},
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Some(uri) = env::args().nth(1) else { return demonstrate().await };
    let (mut view, following) = open(&uri).await?;
    let telling = async {
        let mut members = Members::default();
        loop {
            members = tell(&members, &mut view).await?;
        }
    };
    tokio::select! {
        () = following => Ok(()),
        told = telling => told,
    }
}

/// The members that `uri` names, and the future that follows them as long as it is polled.
async fn open(uri: &str) -> anyhow::Result<(View, impl Future<Output = ()> + use<>)> {
    let uri: MembersUri = uri.parse()?;
    let (writer, view) = membership::channel(0);
    let source = uri.open(0).await.context("the members cannot be read")?;
    Ok((view, membership::follow(source, writer, FollowOptions::default())))
}

/// Waits for a change and says what it is.
async fn tell(before: &Members, view: &mut View) -> anyhow::Result<Members> {
    let now = view.changed().await.context("nobody follows the members any more")?;
    for line in differences(before, &now) {
        println!("{line}");
    }
    let key = Key::new("user-42")?;
    let owner = now.owner(&key).map_or("nobody", |node| node.id.as_str());
    println!("  {} members, fingerprint {}: {key} is at {owner}", now.nodes().len(), now.fingerprint());
    Ok(Members::clone(&now))
}

fn differences(before: &Members, now: &Members) -> Vec<String> {
    let find = |members: &Members, node: &Node| members.nodes().iter().find(|n| n.id == node.id).cloned();
    let shown = |node: &Node| format!("{} {} weight={}", node.id, node.state, node.weight.get());
    let left = before.nodes().iter().filter(|node| find(now, node).is_none());
    let mut lines: Vec<String> = left.map(|node| format!("- {}", shown(node))).collect();
    for node in now.nodes() {
        match find(before, node) {
            None => lines.push(format!("+ {}", shown(node))),
            Some(old) if old != *node => lines.push(format!("~ {}", shown(node))),
            Some(_) => {}
        }
    }
    lines
}

/// A file that changes as soon as the last change has been told.
async fn demonstrate() -> anyhow::Result<()> {
    let path = env::temp_dir().join(format!("ws-routing-follow-{}", std::process::id()));
    let contents = [
        "10.0.0.1:7400\n10.0.0.2:7400\n",
        "10.0.0.1:7400\n10.0.0.2:7400\n10.0.0.3:7400 weight=200\n",
        "10.0.0.1:7400\n10.0.0.2:7400 state=draining\n10.0.0.3:7400 weight=200\n",
        "10.0.0.1:7400\n10.0.0.3:7400 weight=200\n",
    ];
    fs::write(&path, contents[0])?;
    let (mut view, following) = open(&format!("file:{}", path.display())).await?;
    let telling = async {
        let mut members = Members::default();
        for next in contents[1..].iter().map(Some).chain([None]) {
            members = timeout(Duration::from_secs(10), tell(&members, &mut view)).await??;
            next.map(|next| fs::write(&path, next)).transpose()?;
        }
        anyhow::Ok(())
    };
    let told = tokio::select! {
        () = following => Ok(()),
        told = telling => told,
    };
    fs::remove_file(&path)?;
    told
}
