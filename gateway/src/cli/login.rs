//! `skep login` and `skep logout`: credentials that later commands find.

use std::io::{IsTerminal, Read, Write};

use hyper::{Method, StatusCode};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::json;

use super::client::{env, gateway, print};
use super::command::{At, Login};
use super::credentials::{Credentials, Saved};
use super::gateway::Gateway;

/// A longer password is refused.
const MAX_PASSWORD: u64 = 4096;

/// Checks credentials with the gateway, then saves them.
///
/// # Errors
/// One sentence; nothing was saved.
pub(super) async fn login(asked: &Login) -> Result<(), String> {
    let given = match &asked.at.key {
        Some(key) => Credentials::Key { key: key.clone() },
        None => Credentials::of_login(&asked.username, &password(asked)?),
    };
    let gateway = gateway(&asked.at)?.with(&given)?;
    check(&gateway).await?;
    let (owner, address) = (given.owner(), gateway.address());
    let file = Saved::load(env)?.set(&address, given)?;
    if asked.at.json {
        print(&format!(
            "{}\n",
            json!({ "gateway": address, "user": owner, "file": file, "status": "saved" })
        ));
        return Ok(());
    }
    print(&format!("Logged in to {address} as {owner}\n"));
    eprintln!("saved in {}", file.display());
    if gateway.is_overheard() {
        eprintln!("warning: without https the credentials cross the network in the clear");
    }
    Ok(())
}

/// Forgets the saved credentials of a gateway.
///
/// # Errors
/// One sentence.
pub(super) fn logout(at: &At) -> Result<(), String> {
    let address = gateway(at)?.address();
    if !Saved::load(env)?.remove(&address)? {
        return Err(format!("no login is saved for {address}"));
    }
    let text = if at.json {
        format!("{}\n", json!({ "gateway": address, "status": "removed" }))
    } else {
        format!("Logged out of {address}\n")
    };
    print(&text);
    Ok(())
}

/// A key without the scope for this question is good all the same.
async fn check(gateway: &Gateway) -> Result<(), String> {
    let answer = gateway.ask(Method::GET, "/system/info", None).await?;
    match answer.status {
        StatusCode::FORBIDDEN => Ok(()),
        StatusCode::UNAUTHORIZED => Err(format!(
            "{} refused this login: wrong user, password or key",
            gateway.address()
        )),
        _ => answer.success().map(drop),
    }
}

fn password(asked: &Login) -> Result<String, String> {
    let mut text = String::new();
    let read = if asked.password_stdin {
        std::io::stdin()
            .lock()
            .take(MAX_PASSWORD)
            .read_to_string(&mut text)
    } else if std::io::stdin().is_terminal() {
        hidden_line(&mut text)
    } else {
        return Err(
            "no terminal to ask for the password: pipe it in with --password-stdin, or give an API key with --key"
                .to_owned(),
        );
    };
    read.map_err(|error| format!("the password cannot be read: {error}"))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err("the password is empty".to_owned());
    }
    Ok(password.to_owned())
}

/// Reads a line from the terminal, which does not show it.
fn hidden_line(into: &mut String) -> std::io::Result<usize> {
    eprint!("Password: ");
    std::io::stderr().flush()?;
    let stdin = std::io::stdin();
    let shown = tcgetattr(&stdin)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    let read = stdin.read_line(into);
    tcsetattr(&stdin, OptionalActions::Flush, &shown)?;
    eprintln!();
    read
}
