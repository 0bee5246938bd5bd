//! Shell completions and man pages, generated from a program's arguments.

use std::{io, io::Write, path::PathBuf};

use clap::{Command, Parser};
use clap_complete::Shell;

/// Prints what makes a shell complete this program's flags.
///
/// For bash: ws-balancer completions bash > /etc/bash_completion.d/ws-balancer
#[derive(Clone, Debug, Parser)]
#[command(name = "completions")]
pub struct CompletionsArgs {
    /// The shell that is to complete.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl CompletionsArgs {
    /// Writes the script for a program, as [`command`](super::command) gives it, to stdout.
    ///
    /// # Errors
    ///
    /// When stdout is closed.
    pub fn print(&self, mut program: Command) -> io::Result<()> {
        let name = program.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, name, &mut script);
        io::stdout().lock().write_all(&script)
    }
}

/// Prints the manual page of this program.
#[derive(Clone, Debug, Parser)]
#[command(name = "man")]
pub struct ManArgs {
    /// Write it, and one for each subcommand, into this directory instead.
    #[arg(value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

impl ManArgs {
    /// Writes the pages of a program, as [`command`](super::command) gives it.
    ///
    /// # Errors
    ///
    /// When stdout is closed, or the directory cannot be written to.
    pub fn print(&self, program: Command) -> io::Result<()> {
        match &self.directory {
            Some(directory) => clap_mangen::generate_to(program, directory),
            None => clap_mangen::Man::new(program).render(&mut io::stdout().lock()),
        }
    }
}
