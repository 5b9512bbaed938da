//! What the person who started the gateway is told: settings, a greeting, the log.

use crate::api::types::Port;
use crate::config::{Config, LogFormat, Shown};
use crate::discovery::local::stack::{Run, Stack};

/// Prints the effective settings.
///
/// # Errors
/// None: it has the type of the other commands.
pub fn show(settings: &[Shown]) -> Result<(), String> {
    let width = settings
        .iter()
        .map(|shown| shown.env.len())
        .max()
        .unwrap_or_default();
    let line =
        |Shown { env, value, source }: &Shown| format!("{env:width$}  {value}  ({source})\n");
    tell(&settings.iter().map(line).collect::<String>());
    Ok(())
}

/// Prints to stdout; a reader that is gone is no reason to end.
pub(super) fn tell(text: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
}

/// What a person who typed `skep local` wants to know.
pub(super) fn greeting(stack: &Stack, ports: &[Port]) -> String {
    let calls = ports.iter().filter(|port| port.serves.calls());
    let urls: Vec<_> = calls.map(|port| port.url.as_str()).collect();
    let base = urls[0];
    let names = stack.functions.keys().chain(stack.skipped.keys());
    let width = names
        .map(|name| name.as_str().len())
        .max()
        .unwrap_or_default();
    let all = urls.join(" and ");
    let mut lines = vec![format!("skep {} listens on {all}", crate::VERSION)];
    let others = ports.iter().filter(|port| !port.serves.calls());
    lines.extend(others.map(|port| format!("  {port}")));
    for (name, function) in &stack.functions {
        let what = match &function.run {
            Run::Command { replicas: 1, .. } => {
                function.spec.env_process.clone().unwrap_or_default()
            }
            Run::Command { replicas, .. } => format!(
                "{} ({replicas} replicas)",
                function.spec.env_process.as_deref().unwrap_or_default()
            ),
            Run::Upstream(authority) => format!("runs at {authority}"),
        };
        lines.push(format!(
            "  {:width$}  {base}/function/{name}  {what}",
            name.as_str()
        ));
    }
    for (name, why) in &stack.skipped {
        lines.push(format!("  {:width$}  skipped: {why}", name.as_str()));
    }
    if let Some(name) = stack
        .functions
        .keys()
        .find(|name| name.as_str() == "catservice")
        .or_else(|| stack.functions.keys().next())
    {
        lines.push(format!("try: curl -d hello {base}/function/{name}"));
    }
    lines.push("Ctrl-C ends it and everything it started\n".to_owned());
    lines.join("\n")
}

/// Sets up the log on stderr, as configured. What h2 warns of is what clients do, and some of it each frame anew: nobody is to fill a
/// disk with that, unless it is asked for by name.
pub(super) fn start_log(config: &Config) {
    use std::io::{IsTerminal, stderr};
    let log = tracing_subscriber::fmt()
        .with_env_filter(format!("h2=error,{}", config.log_level))
        .with_writer(stderr)
        .with_target(false);
    // Fails only when a log is set up already, as in a test that starts two gateways.
    let _ = match config.log_format {
        LogFormat::Text => log.with_ansi(stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
}
