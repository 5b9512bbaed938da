//! The command line: subcommands and one flag for each setting, made from the settings' own table.

pub mod client;
pub mod command;
mod convergence;
mod credentials;
mod deploy;
mod doctor;
mod gateway;
mod invoke;
mod keys;
mod login;
mod logs;
mod table;
mod tls;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ContextKind;
use clap::{Arg, ArgAction, Command, FromArgMatches, Subcommand};

pub use self::command::Client;
use crate::config::SETTINGS;

const ABOUT: &str = "Functions as a service on Docker Swarm: finds functions through the Docker socket and routes calls to them.";
const AFTER: &str = "\
Without a command: serve the functions of the Swarm that the Docker socket leads to.
Every setting is a flag or an environment variable; a flag wins. `skep config` shows what is in force.";

/// What the person asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// Serve a Swarm's functions.
    Serve,
    /// Serve the functions of a stack file as local processes; without a name, of the one in the current folder.
    Local(Option<PathBuf>),
    /// Show the effective settings.
    Config,
    /// Show the password that the gateway has made.
    Password,
    /// Be a watchdog, with these arguments.
    Watchdog(Vec<OsString>),
    /// Ask a running gateway for something.
    Client(Client),
}

/// A command line, understood.
#[derive(Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The command.
    pub asked: Asked,
    /// The settings given as flags, by flag name.
    pub flags: HashMap<String, String>,
}

/// Understands a command line.
///
/// # Errors
/// What clap says: help and version too come this way.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<CommandLine, clap::Error> {
    let matches = command()
        .try_get_matches_from(args)
        .map_err(without_wrong_hints)?;
    let asked = match matches.subcommand() {
        Some(("local", local)) => Asked::Local(local.get_one::<PathBuf>("file").cloned()),
        Some(("config", _)) => Asked::Config,
        Some(("password", _)) => Asked::Password,
        Some(("watchdog", watchdog)) => Asked::Watchdog(
            watchdog
                .get_many("args")
                .map(|args| args.cloned().collect())
                .unwrap_or_default(),
        ),
        None => Asked::Serve,
        Some(_) => Asked::Client(Client::from_arg_matches(&matches)?),
    };
    // Settings may stand before or after the command.
    let innermost = matches.subcommand().map_or(&matches, |(_, inner)| inner);
    let flag = |name: &str| {
        innermost
            .try_get_one::<String>(name)
            .ok()
            .flatten()
            .or_else(|| matches.get_one::<String>(name))
            .cloned()
    };
    let flags = SETTINGS
        .iter()
        .filter_map(|setting| Some((setting.flag.to_owned(), flag(setting.flag)?)))
        .collect();
    Ok(CommandLine { asked, flags })
}

/// clap advises to pass an unknown flag behind `--`, which no command of ours takes as anything useful.
fn without_wrong_hints(mut error: clap::Error) -> clap::Error {
    error.remove(ContextKind::Suggested);
    error
}

fn command() -> Command {
    let skep = Command::new("skep")
        .version(concat!(env!("CARGO_PKG_VERSION"), " (", env!("SKEP_GIT_SHA"), ")"))
        .args(settings())
        .subcommand(
            Command::new("local")
                .about("Run the functions of a stack file as local processes behind real watchdogs; no Docker needed")
                .arg(Arg::new("file").value_name("FILE").value_parser(clap::value_parser!(PathBuf)).help("the stack file [default: stack.yml or stack.yaml in this folder]"))
                .args(settings()),
        )
        .subcommand(Command::new("config").about("Show every setting, its value and where that came from; secrets masked").args(settings()))
        .subcommand(
            Command::new("password")
                .about("Show the password that the gateway on this machine, or in this container, has made and kept")
                .args(settings()),
        )
        .subcommand(
            Command::new("watchdog").about("Be the watchdog of one function: what `skep local` starts for each replica").disable_help_flag(true).arg(
                Arg::new("args").action(ArgAction::Append).num_args(0..).trailing_var_arg(true).allow_hyphen_values(true).value_parser(clap::value_parser!(OsString)),
            ),
        );
    // The doctor looks at the engine and the network that the settings name.
    Client::augment_subcommands(skep)
        .mut_subcommand("doctor", |doctor| doctor.args(settings()))
        .about(ABOUT)
        .after_help(AFTER)
}

/// A flag for each setting. The client commands have none of them: they ask a gateway that has its own.
fn settings() -> impl Iterator<Item = Arg> {
    SETTINGS.iter().map(|setting| {
        let help = format!(
            "{} [env: {}] [default: {}]",
            setting.help, setting.env, setting.default
        );
        Arg::new(setting.flag)
            .long(setting.flag)
            .value_name("VALUE")
            .help(help)
            .help_heading("Settings")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> CommandLine {
        parse(line.split(' ').map(Into::into)).unwrap()
    }

    #[test]
    fn understands_commands_and_flags_on_either_side() {
        assert_eq!(asked("skep").asked, Asked::Serve);
        assert_eq!(asked("skep local").asked, Asked::Local(None));
        for line in [
            "skep local my.yml --port 9000",
            "skep --port 9000 local my.yml",
        ] {
            let parsed = asked(line);
            assert_eq!(parsed.asked, Asked::Local(Some("my.yml".into())), "{line}");
            assert_eq!(
                parsed.flags,
                HashMap::from([("port".to_owned(), "9000".to_owned())]),
                "{line}"
            );
        }
        assert_eq!(
            asked("skep watchdog -version").asked,
            Asked::Watchdog(vec!["-version".into()])
        );
    }

    #[test]
    fn client_commands_have_flags_of_their_own() {
        let Asked::Client(Client::Scale { name, replicas, at }) =
            asked("skep scale cat 3 --gateway http://host:1 --json").asked
        else {
            panic!("not scale")
        };
        assert_eq!((name.as_str(), replicas), ("cat", 3));
        assert!(at.json && at.gateway.as_deref() == Some("http://host:1"));
        for wrong in [
            "skep scale cat",
            "skep ls --port 1",
            "skep deploy --image i",
            "skep deploy cat -e a=b",
            "skep rm",
            "skep deploy -f x --image y",
            "skep keys create ci",
            "skep keys rm",
        ] {
            assert!(parse(wrong.split(' ').map(Into::into)).is_err(), "{wrong}");
        }
        let doctor = asked("skep doctor --network mine");
        assert_eq!(doctor.flags["network"], "mine");
    }

    #[test]
    fn the_help_lists_every_setting() {
        let help = command().render_long_help().to_string();
        assert!(help.starts_with(ABOUT), "{help}");
        for setting in SETTINGS {
            assert!(
                help.contains(&format!("--{}", setting.flag)) && help.contains(setting.env),
                "{}",
                setting.flag
            );
        }
    }
}
