//! The table of settings: flag, variable, default, meaning. Help, `skep config` and the documents are made from it.

/// One setting, as `--help`, `skep config` and docs/configuration.md show it.
pub struct Setting {
    /// The long flag, without dashes.
    pub flag: &'static str,
    /// The environment variable.
    pub env: &'static str,
    /// What holds when nothing is said.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
}

/// Every setting there is.
pub const SETTINGS: &[Setting] = &[
    setting(
        "bind",
        "bind_address",
        "0.0.0.0",
        "address to listen on (`skep local`: 127.0.0.1)",
    ),
    setting(
        "port",
        "port",
        "8080",
        "port for calls and the management API; 0 takes a free one, `off`: `tls_port` alone",
    ),
    setting(
        "tls-port",
        "tls_port",
        "off",
        "port for the same by TLS, HTTP/1.1 and HTTP/2",
    ),
    setting(
        "tls-cert",
        "tls_cert",
        "",
        "file of the certificate and its chain (PEM); taken anew when it changes",
    ),
    setting(
        "tls-key",
        "tls_key",
        "",
        "file of the certificate's private key (PEM)",
    ),
    setting(
        "system-port",
        "system_port",
        "off",
        "port for /system, metrics, health and the page; then `port` and `tls_port` take calls alone",
    ),
    setting(
        "metrics-port",
        "metrics_port",
        "8082",
        "port for /metrics, /healthz and /readyz alone, or `off` (`skep local`: off)",
    ),
    setting(
        "network",
        "network",
        "functions",
        "overlay network that calls are routed on",
    ),
    setting(
        "docker-host",
        "DOCKER_HOST",
        "unix:///var/run/docker.sock",
        "the Swarm manager's engine: unix:///path or tcp://host:port",
    ),
    setting(
        "namespace",
        "function_namespace",
        "openfaas-fn",
        "namespace that a function's name may leave out",
    ),
    setting(
        "require-label",
        "require_label",
        "false",
        "true: only services that opt in by label are functions",
    ),
    setting(
        "basic-auth",
        "basic_auth",
        "true",
        "true: /system asks for a login or an API key; false: it is open to everybody who reaches the port (`skep local` on a loopback address: false)",
    ),
    setting(
        "secret-mount-path",
        "secret_mount_path",
        "/run/secrets/",
        "folder with the login's files, basic-auth-user and basic-auth-password",
    ),
    setting(
        "basic-auth-user",
        "basic_auth_user",
        "",
        "the login's user, instead of a file; without either: admin",
    ),
    setting(
        "basic-auth-password",
        "basic_auth_password",
        "",
        "the login's password, instead of a file; without either one is made and kept in `data_dir`: `skep password` shows it",
    ),
    setting(
        "hosts",
        "hosts",
        "off",
        "names under which the gateway is reached (faas.example.com); without a login /system and metrics answer to these, to addresses and to names without a dot alone",
    ),
    setting(
        "allow-system-from-functions",
        "allow_system_from_functions",
        "false",
        "true: functions may use /system, metrics and `system_port`, which are refused to addresses of their network",
    ),
    setting(
        "data-dir",
        "data_dir",
        "/var/lib/skep",
        "folder for what outlives the gateway, API keys, the password and counts of calls, or `off` (`skep local`: off)",
    ),
    setting(
        "upstream-timeout",
        "upstream_timeout",
        "60s",
        "from a request to the head of the function's answer; label skep.timeout overrides",
    ),
    setting(
        "idle-timeout",
        "idle_timeout",
        "60s",
        "between two chunks of an answer; label skep.idle-timeout overrides",
    ),
    setting(
        "connect-timeout",
        "connect_timeout",
        "250ms",
        "to connect to one replica, before the next is tried",
    ),
    setting(
        "patience",
        "patience",
        "10s",
        "how long a call waits for a replica that is on its way",
    ),
    setting(
        "read-timeout",
        "read_timeout",
        "60s",
        "for a request's head to arrive, and for a connection to lie idle",
    ),
    setting(
        "max-header-bytes",
        "max_header_bytes",
        "65536",
        "bytes that a request's head may have (431 past that)",
    ),
    setting(
        "max-headers",
        "max_headers",
        "90",
        "header fields that a request may have (431 past that); a watchdog takes 100, the gateway's own included",
    ),
    setting(
        "write-timeout",
        "write_timeout",
        "60s",
        "a caller who takes nothing of an answer for so long is cut off",
    ),
    setting(
        "max-body",
        "max_body",
        "off",
        "bytes of a request body (413 past that), such as 10Mi; label skep.max-body overrides",
    ),
    setting(
        "max-in-flight",
        "max_in_flight",
        "off",
        "calls of all functions side by side; as many more wait, for `patience`, and the rest gets 503",
    ),
    setting(
        "max-connections",
        "max_connections",
        "off",
        "connections of callers; one too many gets 503",
    ),
    setting(
        "trusted-proxies",
        "trusted_proxies",
        "off",
        "addresses and networks (10.0.0.0/8, fd00::1) of proxies whose X-Forwarded-* count, or `off`: nobody's",
    ),
    setting(
        "proxy-protocol",
        "proxy_protocol",
        "off",
        "on: every connection for calls begins with a PROXY header, version 2 only; off: none does",
    ),
    setting(
        "drain-delay",
        "drain_delay",
        "0s",
        "after TERM: how long /readyz says 503 before the port closes, for whoever looks there",
    ),
    setting(
        "drain-timeout",
        "drain_timeout",
        "60s",
        "after TERM: how long running calls may take to finish",
    ),
    setting(
        "handover",
        "handover",
        "off",
        "path of a Unix socket by which the next gateway takes the port over, or `off`",
    ),
    setting(
        "workers",
        "workers",
        "0",
        "threads that carry calls; 0: one for each processor",
    ),
    setting("log-format", "log_format", "text", "text or json"),
    setting(
        "log-level",
        "log_level",
        "info",
        "error, warn, info, debug, or a filter such as skep=debug",
    ),
];

const fn setting(
    flag: &'static str,
    env: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        flag,
        env,
        default,
        help,
    }
}

/// Which program the settings are for: local use has other defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The gateway of a Swarm.
    Swarm,
    /// Functions as local processes.
    Local,
}

impl Mode {
    /// The default of a setting in this mode: a laptop's functions are not for its neighbours.
    pub(super) fn default(self, setting: &Setting) -> &'static str {
        match (self, setting.flag) {
            (Mode::Local, "bind") => "127.0.0.1",
            (Mode::Local, "metrics-port" | "data-dir") => "off",
            (Mode::Local, "basic-auth") => "false",
            _ => setting.default,
        }
    }
}
