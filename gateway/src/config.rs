//! Every setting: one row each, read from flag or environment, all mistakes reported at once. Nothing else reads the environment.

mod settings;

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use self::settings::{Mode, SETTINGS, Setting};
use crate::auth::HostNames;
use crate::certificate::{Files, Mistakes};
use crate::discovery::swarm::engine::DockerHost;
use crate::function::is_name;
use crate::proxies::Proxies;
use crate::{duration, quantity};

/// The one setting that is never shown.
const PASSWORD: &str = "basic-auth-password";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where a login comes from: a folder of files, and what is given without one.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginFrom {
    /// The folder.
    pub folder: PathBuf,
    /// Whether the operator names the folder: then both files must be there.
    pub is_named: bool,
    /// The user, if given.
    pub user: Option<String>,
    /// The password, if given.
    pub password: Option<String>,
}

impl fmt::Debug for LoginFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoginFrom({})", self.folder.display())
    }
}

/// A port for TLS, and what is shown there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The port.
    pub port: u16,
    /// The certificate's files.
    pub files: Files,
}

/// The effective configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address to listen on.
    pub bind: IpAddr,
    /// Port for calls, unless they come by TLS alone.
    pub port: Option<u16>,
    /// Port for calls by TLS, if any.
    pub tls: Option<Tls>,
    /// Port for operators alone, if they have one.
    pub system_port: Option<u16>,
    /// Port for metrics, if any.
    pub metrics_port: Option<u16>,
    /// Overlay network to route on.
    pub network: String,
    /// The manager's engine.
    pub docker_host: DockerHost,
    /// Namespace that names may leave out.
    pub namespace: String,
    /// Whether services must opt in.
    pub require_label: bool,
    /// The login of the management API, if it asks for one.
    pub login: Option<LoginFrom>,
    /// The names under which it is reached.
    pub hosts: HostNames,
    /// Whether functions may use the management API and see metrics.
    pub allow_system_from_functions: bool,
    /// The folder for what outlives the gateway, if anything shall.
    pub data_dir: Option<PathBuf>,
    /// To the response head.
    pub upstream_timeout: Duration,
    /// Between two chunks.
    pub idle_timeout: Duration,
    /// To connect to one endpoint.
    pub connect_timeout: Duration,
    /// For a copy that is on its way.
    pub patience: Duration,
    /// For a request head.
    pub read_timeout: Duration,
    /// Bytes of a request head.
    pub max_header_bytes: usize,
    /// Fields of a request head.
    pub max_headers: usize,
    /// After TERM, before the port closes.
    pub drain_delay: Duration,
    /// For a caller that takes nothing of its answer.
    pub write_timeout: Duration,
    /// Connections of callers.
    pub max_connections: Option<usize>,
    /// Calls of all functions side by side.
    pub max_in_flight: Option<usize>,
    /// Bytes of a request body.
    pub max_body: Option<u64>,
    /// Whose word about callers counts.
    pub trusted_proxies: Proxies,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: bool,
    /// For running calls after that.
    pub drain_timeout: Duration,
    /// The socket by which the next gateway takes over.
    pub handover: Option<PathBuf>,
    /// Threads that carry calls.
    pub workers: usize,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines there are.
    pub log_level: String,
}

/// A setting's effective value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The environment variable's name.
    pub env: &'static str,
    /// The value, secrets masked.
    pub value: String,
    /// `flag`, `environment` or `default`.
    pub source: &'static str,
}

impl Config {
    /// Reads the configuration from flags and environment.
    ///
    /// # Errors
    /// Every mistake, a line each, that names the setting and says what it takes.
    pub fn read(
        mode: Mode,
        flags: &HashMap<String, String>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<String>> {
        let mut reader = Reader {
            mode,
            flags,
            env,
            mistakes: Vec::new(),
        };
        let config = reader.config();
        if reader.mistakes.is_empty() {
            Ok(config)
        } else {
            Err(reader.mistakes)
        }
    }

    /// Every setting as `skep config` shows it.
    #[must_use]
    pub fn show(
        mode: Mode,
        flags: &HashMap<String, String>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Vec<Shown> {
        let show = |setting: &'static Setting| {
            let (value, source) = lookup(mode, flags, &env, setting);
            Shown {
                env: setting.env,
                value: if setting.flag == PASSWORD && !value.is_empty() {
                    "***".to_owned()
                } else {
                    masked(&value)
                },
                source,
            }
        };
        SETTINGS.iter().map(show).collect()
    }
}

fn lookup(
    mode: Mode,
    flags: &HashMap<String, String>,
    env: &impl Fn(&str) -> Option<String>,
    setting: &Setting,
) -> (String, &'static str) {
    if let Some(value) = flags.get(setting.flag) {
        return (value.clone(), "flag");
    }
    match env(setting.env) {
        Some(value) if !value.is_empty() => (value, "environment"),
        _ => (mode.default(setting).to_owned(), "default"),
    }
}

/// Hides the password of an address that has one.
fn masked(value: &str) -> String {
    let hidden = value.split_once("://").and_then(|(scheme, rest)| {
        let (user, host) = rest.rsplit_once('@')?;
        let user = user.split_once(':').map_or(user, |(name, _)| name);
        Some(format!("{scheme}://{user}:***@{host}"))
    });
    hidden.unwrap_or_else(|| value.to_owned())
}

struct Reader<'a, E> {
    mode: Mode,
    flags: &'a HashMap<String, String>,
    env: E,
    mistakes: Vec<String>,
}

impl<E: Fn(&str) -> Option<String>> Reader<'_, E> {
    fn config(&mut self) -> Config {
        let (port, tls) = self.doors();
        let bind = self.get("bind", |text| {
            text.parse()
                .map_err(|_| "write an IP address such as 0.0.0.0 or ::")
        });
        Config {
            bind,
            port,
            tls,
            system_port: self.get("system-port", port_or_off),
            metrics_port: self.get("metrics-port", port_or_off),
            network: self.get("network", |text| {
                network_name(text).ok_or("write a network's name or id")
            }),
            docker_host: self.get("docker-host", DockerHost::parse),
            namespace: self.get("namespace", |text| {
                if is_name(text) {
                    Ok(text.to_owned())
                } else {
                    Err("write a name")
                }
            }),
            require_label: self.get("require-label", |text| {
                text.parse().map_err(|_| "write true or false")
            }),
            login: self.login(bind),
            hosts: self.get("hosts", HostNames::parse),
            allow_system_from_functions: self.get("allow-system-from-functions", |text| {
                text.parse().map_err(|_| "write true or false")
            }),
            data_dir: self.get("data-dir", |text| {
                Ok::<_, &str>((text != "off").then(|| text.into()))
            }),
            upstream_timeout: self.get("upstream-timeout", positive),
            idle_timeout: self.get("idle-timeout", positive),
            connect_timeout: self.get("connect-timeout", positive),
            patience: self.get("patience", duration::parse),
            read_timeout: self.get("read-timeout", positive),
            max_header_bytes: self.get("max-header-bytes", |text| match text.parse() {
                Ok(bytes @ 8192..=1_048_576) => Ok(bytes),
                _ => Err("write a number of bytes from 8192 to 1048576"),
            }),
            max_headers: self.get("max-headers", |text| match text.parse() {
                Ok(fields @ 10..=1000) => Ok(fields),
                _ => Err("write a number from 10 to 1000"),
            }),
            write_timeout: self.get("write-timeout", positive),
            max_connections: self.get("max-connections", count),
            max_in_flight: self.get("max-in-flight", count),
            max_body: self.get("max-body", |text| match text {
                "off" => Ok(None),
                text => quantity::bytes(text).map(Some),
            }),
            trusted_proxies: self.get("trusted-proxies", Proxies::parse),
            proxy_protocol: self.get("proxy-protocol", |text| match text {
                "on" => Ok(true),
                "off" => Ok(false),
                _ => Err("write on, which means version 2, or off"),
            }),
            drain_delay: self.get("drain-delay", duration::parse),
            drain_timeout: self.get("drain-timeout", duration::parse),
            handover: self.get("handover", |text| match text {
                "off" => Ok(None),
                path if path.contains('/') => Ok(Some(PathBuf::from(path))),
                _ => Err("write the path of a socket, or off"),
            }),
            workers: self.get("workers", |text| match text.parse() {
                Ok(0) => Ok(std::thread::available_parallelism().map_or(1, Into::into)),
                Ok(count @ 1..=256) => Ok(count),
                _ => Err("write a number from 0 to 256"),
            }),
            log_format: self.get("log-format", |text| match text {
                "text" => Ok(LogFormat::Text),
                "json" => Ok(LogFormat::Json),
                _ => Err("write text or json"),
            }),
            log_level: self.get("log-level", |text| {
                match text.parse::<tracing_subscriber::EnvFilter>() {
                    Ok(_) => Ok(text.to_owned()),
                    Err(_) => Err("write error, warn, info, debug or trace"),
                }
            }),
        }
    }

    /// The ports for calls: there is one at least.
    fn doors(&mut self) -> (Option<u16>, Option<Tls>) {
        let plain = self.get("port", port_or_off);
        let mut file = |flag| self.get(flag, |text| Ok::<_, &str>(PathBuf::from(text)));
        let files = Files {
            cert: file("tls-cert"),
            key: file("tls-key"),
        };
        let tls = self
            .get("tls-port", port_or_off)
            .map(|port| Tls { port, files });
        match &tls {
            Some(tls) => self.check(&tls.files),
            None if plain.is_none() => self.mistake("port", "there is no tls_port either"),
            None => {}
        }
        (plain, tls)
    }

    fn check(&mut self, files: &Files) {
        let Mistakes { cert, key } = files.check().err().unwrap_or_default();
        for (flag, why) in [("tls-cert", cert), ("tls-key", key)] {
            if let Some(why) = why {
                self.mistake(flag, why);
            }
        }
    }

    fn login(&mut self, bind: IpAddr) -> Option<LoginFrom> {
        let is_asked = self.get("basic-auth", |text| {
            text.parse::<bool>().map_err(|_| "write true or false")
        });
        // On a laptop the others of its network are kept out by the loopback address, or by a login.
        let is_exposed = self.is_default("basic-auth") && !bind.to_canonical().is_loopback();
        let is_asked = is_asked || is_exposed;
        let is_named = !self.is_default("secret-mount-path");
        let mut given = |flag| {
            let text = self.get(flag, |text| Ok::<_, &str>(text.to_owned()));
            Some(text).filter(|text| !text.is_empty())
        };
        let (folder, user, password) = (
            given("secret-mount-path").unwrap_or_default().into(),
            given("basic-auth-user"),
            given("basic-auth-password"),
        );
        is_asked.then_some(LoginFrom {
            folder,
            is_named,
            user,
            password,
        })
    }

    fn is_default(&self, flag: &str) -> bool {
        lookup(self.mode, self.flags, &self.env, row(flag)).1 == "default"
    }

    /// The value of a setting. A mistake is noted, and the default stands in until all mistakes are reported.
    fn get<T, W: Display>(&mut self, flag: &str, parse: impl Fn(&str) -> Result<T, W>) -> T {
        let setting = row(flag);
        let (value, _) = lookup(self.mode, self.flags, &self.env, setting);
        parse(&value).unwrap_or_else(|why| {
            self.mistake(flag, why);
            let default = self.mode.default(setting);
            parse(default).unwrap_or_else(|_| unreachable!("the default of {flag} is valid"))
        })
    }

    fn mistake(&mut self, flag: &str, why: impl Display) {
        let setting = row(flag);
        let (value, source) = lookup(self.mode, self.flags, &self.env, setting);
        let name = if source == "flag" {
            format!("--{flag}")
        } else {
            setting.env.to_owned()
        };
        self.mistakes
            .push(format!("{name}={}: {why}", masked(&value)));
    }
}

fn row(flag: &str) -> &'static Setting {
    SETTINGS
        .iter()
        .find(|setting| setting.flag == flag)
        .expect("every setting has its row")
}

/// A port, or none.
fn port_or_off(text: &str) -> Result<Option<u16>, &'static str> {
    match text {
        "off" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| "write a port from 0 to 65535, or off"),
    }
}

fn positive(text: &str) -> Result<Duration, String> {
    duration::parse(text).and_then(|time| {
        if time.is_zero() {
            Err("must be more than nothing".to_owned())
        } else {
            Ok(time)
        }
    })
}

/// A number of something, or no limit.
fn count(text: &str) -> Result<Option<usize>, &'static str> {
    match (text, text.parse()) {
        ("off", _) => Ok(None),
        (_, Ok(count @ 1..=1_000_000)) => Ok(Some(count)),
        _ => Err("write a number from 1 to 1000000, or off"),
    }
}

/// A name that can stand in a URL as it is.
fn network_name(text: &str) -> Option<String> {
    let fits = !text.is_empty()
        && text.len() <= 128
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
