//! The log on stderr. Names, targets, messages of Docker and of functions stand in it: none of them can begin a line or command a
//! terminal.

use std::fmt::{self, Write as _};

use tracing::field::Field;
use tracing_subscriber::fmt::format::{self, Writer};

use crate::config::{Config, LogFormat};
use crate::escaped::Escaped;

/// Sets the log up, as configured. What h2 warns of is what clients do, and some of it each frame anew: nobody is to fill a disk with
/// that, unless it is asked for by name.
pub(super) fn start(config: &Config) {
    use std::io::{IsTerminal, stderr};

    use tracing_subscriber::field::MakeExt as _;
    let log = tracing_subscriber::fmt()
        .with_env_filter(format!("h2=error,{}", config.log_level))
        .with_writer(stderr)
        .with_target(false);
    // Fails only when a log is set up already, as in a test that starts two gateways.
    let _ = match config.log_format {
        LogFormat::Text => log
            .with_ansi(stderr().is_terminal())
            .fmt_fields(format::debug_fn(field).delimited(" "))
            .try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
}

/// Writes a field of an event: the message alone, anything else behind its name.
fn field(to: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    match field.name() {
        "message" => write!(Escaped(to), "{value:?}"),
        // What the log crate adds for itself.
        name if name.starts_with("log.") => Ok(()),
        name => {
            write!(to, "{name}=")?;
            write!(Escaped(to), "{value:?}")
        }
    }
}
