//! Bad configuration, in one line.

use clap::{
    Command,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::variable;

/// A flag, or the environment variable in its place, that a program cannot start with. Programs end with code 64.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadConfig(String);

impl BadConfig {
    /// That flag has a value which is not what was expected: `expected` says what was.
    #[must_use]
    pub fn new(flag: &str, value: &str, expected: impl std::fmt::Display) -> Self {
        Self(format!("{} {value:?}: {expected}", both_names(flag)))
    }

    /// That flag is required, and not there.
    #[must_use]
    pub fn missing(flag: &str, expected: impl std::fmt::Display) -> Self {
        Self(format!("{} is missing: {expected}", both_names(flag)))
    }

    pub(super) fn from_clap(error: &clap::Error, command: &Command) -> Self {
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.clone()),
            Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
            _ => None,
        };
        let arg = text(ContextKind::InvalidArg).unwrap_or_default();
        let value = text(ContextKind::InvalidValue).unwrap_or_default();
        let name = names(flag(&arg), command);
        Self(match error.kind() {
            ErrorKind::ValueValidation => {
                let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
                // Numbers that clap reads itself only say what they are not.
                match cause.contains("expected") {
                    true => format!("{name} {value:?}: {cause}"),
                    false => format!("{name} {value:?}: {}: {cause}", placeholder(&arg)),
                }
            }
            ErrorKind::InvalidValue => {
                let values = text(ContextKind::ValidValue).filter(|values| !values.is_empty());
                let expected = values.map(|values| format!("expected {values}"));
                format!("{name} {value:?}: {}", expected.unwrap_or_else(|| placeholder(&arg)))
            }
            ErrorKind::MissingRequiredArgument => missing(&arg),
            ErrorKind::UnknownArgument if arg.starts_with('-') => {
                let like = text(ContextKind::SuggestedArg).map(|like| format!("{like}, or "));
                let like = like.unwrap_or_default();
                format!("{arg} is no flag of this program: expected {like}one of those that --help lists")
            }
            ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand => {
                let word = text(ContextKind::InvalidSubcommand).unwrap_or(arg);
                format!("{word:?} is neither a flag nor a value of one: expected {}", usage(command))
            }
            ErrorKind::ArgumentConflict if arg.is_empty() => {
                let word = text(ContextKind::InvalidSubcommand).unwrap_or_default();
                format!("{word:?} stands after a flag: expected a subcommand first, or flags alone")
            }
            ErrorKind::ArgumentConflict => format!("{name} is given twice: expected once"),
            ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                let names = command.get_subcommands().map(Command::get_name);
                let names: Vec<_> = names.filter(|name| *name != "help").collect();
                format!("a subcommand is missing: expected one of {}", names.join(", "))
            }
            _ => first_line(&error.to_string()),
        })
    }
}

/// A flag of the program with its environment variable; of a hidden one the variable alone.
fn names(flag: &str, command: &Command) -> String {
    let commands = std::iter::once(command).chain(command.get_subcommands());
    let arg = commands.flat_map(Command::get_arguments).find(|arg| arg.get_long() == flag.strip_prefix("--"));
    let variable = arg.and_then(clap::Arg::get_env).map(|variable| variable.to_string_lossy());
    match variable {
        Some(variable) if arg.is_some_and(clap::Arg::is_hide_set) => variable.into(),
        Some(variable) => format!("{flag} ({variable})"),
        None => flag.into(),
    }
}

/// What a program's arguments look like.
fn usage(command: &Command) -> &'static str {
    if command.has_subcommands() { "flags, or one of the subcommands that --help lists" } else { "flags" }
}

fn missing(args: &str) -> String {
    let names: Vec<String> = args.split(", ").map(|arg| both_names(flag(arg))).collect();
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb} missing: expected {args}", names.join(", "))
}

/// `--dial-timeout` of `--dial-timeout <DURATION>`.
fn flag(arg: &str) -> &str {
    arg.split([' ', '=', '[']).next().unwrap_or(arg)
}

/// `expected DURATION` of `--dial-timeout <DURATION>`.
fn placeholder(arg: &str) -> String {
    let name = arg.split_once('<').and_then(|(_, name)| name.split_once('>'));
    name.map_or_else(|| "expected another value".into(), |(name, _)| format!("expected {name}"))
}

fn both_names(flag: &str) -> String {
    match flag.strip_prefix("--") {
        Some(name) => format!("{flag} ({})", variable(name)),
        None => flag.into(),
    }
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).into()
}
