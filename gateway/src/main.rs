//! `skep`: understand the command line, do what it asks, turn the one start-up error into an exit code.

use std::process::ExitCode;

use skep::app;
use skep::cli::{self, Asked};
use skep::config::{Config, Mode};

/// What `sysexits.h` calls a usage error.
const EX_USAGE: u8 = 64;

fn main() -> ExitCode {
    let line = match cli::parse(std::env::args_os()) {
        Ok(line) => line,
        Err(told) => {
            let failed = told.use_stderr();
            // Nowhere to report to if the terminal is gone.
            let _ = told.print();
            return if failed {
                EX_USAGE.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let env = |name: &str| std::env::var(name).ok();
    let mode = if matches!(line.asked, Asked::Local(_)) {
        Mode::Local
    } else {
        Mode::Swarm
    };
    if let Asked::Watchdog(args) = line.asked {
        return fwatchdog::main(args.into_iter());
    }
    let config = match Config::read(mode, &line.flags, env) {
        Ok(config) => config,
        Err(mistakes) => {
            mistakes
                .iter()
                .for_each(|mistake| eprintln!("skep: {mistake}"));
            return EX_USAGE.into();
        }
    };
    let ended = match line.asked {
        Asked::Config => app::show(&Config::show(mode, &line.flags, env)),
        Asked::Local(file) => app::local(&config, file),
        Asked::Password => app::show_password(&config),
        Asked::Client(command) => cli::client::run(command, &config),
        _ => app::swarm(&config),
    };
    ended.map_or_else(
        |error| {
            eprintln!("skep: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
