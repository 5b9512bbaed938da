//! The `fwatchdog` program: everything is in the library, because the gateway offers it as `skep watchdog` too.

use std::process::ExitCode;

fn main() -> ExitCode {
    fwatchdog::main(std::env::args_os().skip(1))
}
