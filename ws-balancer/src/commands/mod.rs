//! What the balancer's program does besides balancing.

mod check;
mod owner;
mod plan;

use std::{io, io::Write, sync::Arc, time::Duration};

use anyhow::Context;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use tokio::time::timeout;
use tracing::level_filters::LevelFilter;
use ws_routing::{
    Members,
    cli::{
        self,
        args::MembersArgs,
        logging::{self, LogFormat},
        pages::{CompletionsArgs, ManArgs},
    },
};

pub use self::{check::CheckArgs, owner::OwnerArgs, plan::PlanArgs};
use crate::Args;

/// What the program is asked to do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Invocation {
    /// Without a subcommand: balance.
    Run(Box<Args>),
    /// `check`.
    Check(Box<CheckArgs>),
    /// `owner`.
    Owner(OwnerArgs),
    /// `plan`.
    Plan(PlanArgs),
    /// `completions`.
    Completions(CompletionsArgs),
    /// `man`.
    Man(ManArgs),
}

/// Does what the program is asked to.
///
/// # Errors
///
/// As of [`run`](crate::run); for the others what they are told is wrong.
pub async fn invoke(invocation: Invocation) -> anyhow::Result<()> {
    match invocation {
        Invocation::Run(args) => crate::run(*args).await,
        Invocation::Check(args) => check::run(&args).await,
        Invocation::Owner(args) => owner::run(&args).await,
        Invocation::Plan(args) => plan::run(&args).await,
        Invocation::Completions(args) => Ok(args.print(cli::command::<Invocation>())?),
        Invocation::Man(args) => Ok(args.print(cli::command::<Invocation>())?),
    }
}

impl CommandFactory for Invocation {
    fn command() -> Command {
        // Names and texts are those of the arguments' own types.
        Args::command()
            .subcommand(CheckArgs::command())
            .subcommand(OwnerArgs::command())
            .subcommand(PlanArgs::command())
            .subcommand(CompletionsArgs::command())
            .subcommand(ManArgs::command())
            .subcommand_negates_reqs(true)
            .args_conflicts_with_subcommands(true)
    }

    fn command_for_update() -> Command {
        Self::command()
    }
}

impl FromArgMatches for Invocation {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand() {
            Some(("check", matches)) => Ok(Self::Check(Box::new(CheckArgs::from_arg_matches(matches)?))),
            Some(("owner", matches)) => OwnerArgs::from_arg_matches(matches).map(Self::Owner),
            Some(("plan", matches)) => PlanArgs::from_arg_matches(matches).map(Self::Plan),
            Some(("completions", matches)) => {
                CompletionsArgs::from_arg_matches(matches).map(Self::Completions)
            }
            Some((_, matches)) => ManArgs::from_arg_matches(matches).map(Self::Man),
            None => Ok(Self::Run(Box::new(Args::from_arg_matches(matches)?))),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The members as their source gives them first.
async fn resolve(args: &MembersArgs) -> anyhow::Result<Arc<Members>> {
    const PATIENCE: Duration = Duration::from_secs(5);
    // Why a source gives none is what it logs.
    logging::start(LogFormat::Text, LevelFilter::WARN);
    let (view, follow) = args.open().await?;
    let first = async {
        tokio::select! {
            first = view.first() => first,
            // A list that never changes is followed to its end at once.
            () = follow => view.first().await,
        }
    };
    let first = timeout(PATIENCE, first).await;
    Ok(first.with_context(|| format!("{} told no members within 5s", args.members))??)
}

/// Writes text to stdout.
fn print(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(text.as_bytes())
}
