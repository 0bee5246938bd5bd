//! The demo without eyes: scales 3 → 4 → 2 under a crowd, and prints what the crowd noticed.

use std::{process::ExitCode, time::Duration};

use tokio::time::{Instant, sleep};

use examples::deployment::Deployment;

use crate::crowd::Crowd;

/// How long a step may take until every client is answered by its owner.
const STEP: Duration = Duration::from_secs(20);

/// 0 only if nothing was closed, lost, repeated or reordered, and every client ended at its owner.
pub(crate) async fn run(clients: usize) -> anyhow::Result<ExitCode> {
    let mut deployment = Deployment::start(3, 8080, &[]).await?;
    let mut crowd = Crowd::connect(deployment.addr, clients).await?;
    let mut settled = step("3 pods", &mut deployment, &crowd).await?;
    deployment.add().await?;
    settled &= step("4 pods", &mut deployment, &crowd).await?;
    for (node, _) in deployment.pods().into_iter().take(2) {
        deployment.drain(&node).await?;
    }
    settled &= step("2 pods", &mut deployment, &crowd).await?;
    crowd.leave().await;
    let table = crowd.table();
    println!("\n{table}");
    Ok(if settled && table.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until every client was answered by its owner and drained pods have ended.
async fn step(name: &str, deployment: &mut Deployment, crowd: &Crowd) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let owners = deployment.owners()?;
    loop {
        deployment.reap()?;
        let leaving = deployment.pods().iter().filter(|(_, state)| state.name() != "ready").count();
        let misplaced = crowd.misplaced(&owners);
        if leaving + misplaced == 0 {
            println!("{name}: all clients at their owners after {} ms", begun.elapsed().as_millis());
            return Ok(talk(crowd).await);
        }
        if begun.elapsed() > STEP {
            println!(
                "{name}: {misplaced} clients not at their owners, {leaving} pods not gone after {STEP:?}"
            );
            return Ok(false);
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Lets everybody say a few things more, so that the next change meets a busy crowd.
async fn talk(crowd: &Crowd) -> bool {
    let (begun, goal) = (Instant::now(), crowd.table().messages + 10 * crowd.table().connections as u64);
    while crowd.table().messages < goal && begun.elapsed() < STEP {
        sleep(Duration::from_millis(50)).await;
    }
    crowd.table().messages >= goal
}
