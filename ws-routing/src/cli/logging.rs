//! Logs: lines on stderr, as text or JSON.

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Begins to log to stderr. Does nothing when something logs already.
pub fn start(format: LogFormat, level: LevelFilter) {
    let builder =
        tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    // Only one subscriber can be set, which is what somebody wanted who has set another.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
