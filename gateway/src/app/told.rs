//! What the person who started the gateway is told: settings, a greeting, the log.

use super::kept::Unkept;
use crate::api::types::Port;
use crate::auth::{GivenLogin, password};
use crate::config::{Config, Shown};
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

/// Prints the password that a gateway of these settings has made and kept.
///
/// # Errors
/// One sentence: why there is none to be shown.
pub fn show_password(config: &Config) -> Result<(), String> {
    let Some(login) = &config.login else {
        return Err("basic_auth=false: the management API asks for no password".to_owned());
    };
    let (user, password) = (login.user.as_deref(), login.password.as_deref());
    let given = GivenLogin::read(&login.folder, login.is_named, user, password)?;
    if given.password.is_some() {
        return Err(format!(
            "the password was given to the gateway (basic_auth_password, or a file in {}), and is not shown",
            login.folder.display()
        ));
    }
    let folder = config.data_dir.as_deref();
    let folder = folder.ok_or("data_dir=off: no password is kept")?;
    let password = password::look(folder)?;
    tell(&format!("{password}\n"));
    Ok(())
}

/// Prints to stdout; a reader that is gone is no reason to end.
pub(super) fn tell(text: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
}

/// What a person who typed `skep local` wants to know.
pub(super) fn greeting(stack: &Stack, ports: &[Port], login: Option<&Unkept>) -> String {
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
    if let Some(Unkept { user, password, .. }) = login {
        lines.push(format!(
            "/system asks for a login, since others reach this address: user {user}, password {password} until it ends"
        ));
    }
    lines.push("Ctrl-C ends it and everything it started\n".to_owned());
    lines.join("\n")
}
