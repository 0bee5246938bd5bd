//! The command line that the programs share: arguments, their groups and units, logging, and how bad ones are refused.
//!
//! A program's arguments are a clap `Parser` that flattens the groups of [`args`]. [`parse`] gives every flag an
//! environment variable, `WS_` and its name in capitals, and turns each of clap's errors into one line.

pub mod args;
pub mod logging;
#[cfg(feature = "otel")]
mod otel;
pub mod pages;
mod refusal;
pub mod trace;
pub mod units;

use std::{env, error::Error, ffi::OsString, io::Write, process::ExitCode, thread::available_parallelism};

use clap::{ArgAction, Command, CommandFactory, FromArgMatches};
use tokio::runtime::Builder;

pub use refusal::BadConfig;

/// The exit code of bad configuration: sysexits' `EX_USAGE`.
const BAD_CONFIG: u8 = 64;

/// A program's `main`: parses its arguments, runs it, and reports the error that it ends with.
///
/// It has a thread for each core that it may use. With one core there is one thread in all: the kernel's work on a
/// socket costs a process of one thread less.
pub fn main<A, F, E>(run: impl FnOnce(A) -> F) -> ExitCode
where
    A: CommandFactory + FromArgMatches,
    F: Future<Output = Result<(), E>>,
    E: AsRef<dyn Error + 'static>,
{
    let args = match parse() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let alone = available_parallelism().is_ok_and(|cores| cores.get() == 1);
    let mut builder = if alone { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&error),
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(error.as_ref()),
    }
}

/// Parses the process's arguments and environment.
///
/// # Errors
///
/// The code with which the program ends now: 0 after `--help` and `--version`, 64 after the one line on stderr that
/// names the flag, the value and what was expected.
pub fn parse<A: CommandFactory + FromArgMatches>() -> Result<A, ExitCode> {
    try_parse(command::<A>(), env::args_os()).map_err(|error| {
        if !error.use_stderr() {
            // Nobody is left to be told when stdout is closed.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        refuse(&BadConfig::from_clap(&error, &command::<A>()))
    })
}

/// Parses `arguments`, the first of which is the program's name.
fn try_parse<A: FromArgMatches>(
    mut command: Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<A, clap::Error> {
    let matches = command.try_get_matches_from_mut(arguments)?;
    A::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// The program's command with the environment variables of all flags.
#[must_use]
pub fn command<A: CommandFactory>() -> Command {
    variables(A::command())
}

fn variables(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
        match arg.get_long() {
            Some(name) if takes_value && arg.get_env().is_none() => {
                let variable = variable(name);
                // A value such as -1s is a bad value, not an unknown flag.
                arg.env(variable).allow_hyphen_values(true)
            }
            _ => arg,
        }
    });
    command.mut_subcommands(variables)
}

/// The environment variable of a flag.
fn variable(flag: &str) -> String {
    format!("WS_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// Reports the error with which a program ends, in one line on stderr, and returns its exit code: 64 when it is a
/// [`BadConfig`], else 1.
pub fn report(error: &(dyn Error + 'static)) -> ExitCode {
    let causes: Vec<_> = std::iter::successors(Some(error), |error| (*error).source()).collect();
    if let Some(bad) = causes.iter().find_map(|error| error.downcast_ref()) {
        return refuse(bad);
    }
    let line: Vec<String> = causes.iter().map(ToString::to_string).collect();
    print_line(&line.join(": "));
    ExitCode::FAILURE
}

fn refuse(bad: &BadConfig) -> ExitCode {
    print_line(&bad.to_string());
    ExitCode::from(BAD_CONFIG)
}

/// Nobody is left to be told when stderr is closed.
fn print_line(line: &str) {
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let program = env::args_os().next().unwrap_or_default();
    let program = std::path::Path::new(&program).file_name().unwrap_or_default().to_string_lossy();
    let _ = writeln!(std::io::stderr().lock(), "{program}: {line}");
}

/// Logs a warning for each `WS_` variable in the environment that no flag has: it is ignored.
pub fn warn_unknown_variables<A: CommandFactory>() {
    let command = command::<A>();
    for name in unknown(&command, env::vars_os().map(|(name, _)| name)) {
        tracing::warn!(name, "this environment variable belongs to no flag and is ignored");
    }
}

fn unknown(command: &Command, names: impl Iterator<Item = OsString>) -> Vec<String> {
    let known = |name: &str| {
        let commands = std::iter::once(command).chain(command.get_subcommands());
        commands.flat_map(Command::get_arguments).any(|arg| arg.get_env().is_some_and(|env| env == name))
    };
    let ours = names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with("WS_"));
    let ours: Vec<String> = ours.collect();
    let services: Vec<&str> = ours.iter().filter_map(|name| name.strip_suffix("_SERVICE_HOST")).collect();
    let unknown = |name: &&String| !known(name) && !is_service_link(name, &services);
    ours.iter().filter(unknown).cloned().collect()
}

/// Whether Kubernetes sets that variable because one of the Services has a name that begins with `ws-`.
fn is_service_link(name: &str, services: &[&str]) -> bool {
    services.iter().filter_map(|service| name.strip_prefix(service)).any(|rest| {
        rest == "_PORT"
            || ["_PORT_", "_SERVICE_HOST", "_SERVICE_PORT"].iter().any(|link| rest.starts_with(link))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Args {
        #[arg(long)]
        dial_timeout: Option<String>,
    }

    #[test]
    fn every_flag_has_its_variable() {
        let command = command::<Args>();
        let arg = command.get_arguments().find(|arg| arg.get_id() == "dial_timeout").unwrap();
        assert_eq!(arg.get_env().unwrap(), "WS_DIAL_TIMEOUT");
    }

    #[test]
    fn variables_of_no_flag_are_found() {
        let names = [
            "WS_DIAL_TIMEOUT",
            "WS_DAIL_TIMEOUT",
            "HOME",
            "WS_BALANCER_SERVICE_HOST",
            "WS_BALANCER_SERVICE_PORT_HTTP",
            "WS_BALANCER_PORT",
            "WS_BALANCER_PORT_7400_TCP",
            "WS_LISTEN_PORT",
        ];
        let unknown = unknown(&command::<Args>(), names.map(OsString::from).into_iter());
        assert_eq!(unknown, ["WS_DAIL_TIMEOUT", "WS_LISTEN_PORT"]);
    }

    #[derive(Debug, Parser)]
    enum Verb {
        Run {
            #[arg(long, value_name = "NUMBER", default_value_t = 1)]
            replicas: u16,
        },
        Show,
    }

    fn refused(arguments: &[&str]) -> String {
        let error = Verb::try_parse_from([&["program"], arguments].concat()).unwrap_err();
        BadConfig::from_clap(&error, &Verb::command()).to_string()
    }

    #[test]
    fn what_was_expected_is_said_of_subcommands_and_of_numbers() {
        assert_eq!(refused(&[]), "a subcommand is missing: expected one of run, show");
        for (value, why) in [("many", "invalid digit"), ("70000", "not in 0..=65535"), ("-1", "")] {
            let line = refused(&["run", &format!("--replicas={value}")]);
            let words = ["--replicas", value, "expected NUMBER", why];
            assert!(words.iter().all(|word| line.contains(word)), "{line}");
        }
    }
}
