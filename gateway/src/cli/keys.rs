//! `skep keys`: makes, lists and revokes API keys of a gateway.

use hyper::Method;
use serde_json::{Value, json};

use super::client::{gateway, get, tell, text};
use super::command::{At, Keys, NewKey};
use super::table::table;

const PATH: &str = "/system/keys";

/// Carries a command out.
///
/// # Errors
/// One sentence: what did not work.
pub(super) async fn keys(asked: &Keys) -> Result<(), String> {
    match asked {
        Keys::Create(wanted) => create(wanted).await,
        Keys::Ls { at } => ls(at).await,
        Keys::Rm { ids, at } => rm(ids, at).await,
    }
}

/// The key itself is all that stdout gets, so that it can be led to where it is to be kept.
async fn create(wanted: &NewKey) -> Result<(), String> {
    let body = json!({
        "name": wanted.name, "scopes": wanted.scope, "functions": wanted.function, "expiresIn": wanted.expires,
    });
    let answer = gateway(&wanted.at)?
        .manage(Method::POST, PATH, Some(&body))
        .await?;
    let key: Value = serde_json::from_slice(&answer)
        .map_err(|error| format!("the answer to {PATH} is no JSON: {error}"))?;
    if wanted.at.json {
        tell(&format!("{key}\n"));
        return Ok(());
    }
    tell(&format!("{}\n", text(&key["key"])));
    eprintln!(
        "key {} is made; this is the only time that it is shown",
        text(&key["id"])
    );
    if key["kept"] == false {
        eprintln!("it is good until this gateway ends: nothing is kept there (data_dir)");
    }
    Ok(())
}

async fn ls(at: &At) -> Result<(), String> {
    let keys = get(&gateway(at)?, PATH).await?;
    if at.json {
        tell(&format!("{keys}\n"));
        return Ok(());
    }
    let list = |value: &Value, none: &str| {
        let texts = value.as_array().into_iter().flatten().map(text);
        let all = texts.collect::<Vec<_>>().join(",");
        if all.is_empty() { none.to_owned() } else { all }
    };
    let time = |value: &Value| value.as_str().unwrap_or("never").to_owned();
    let row = |key: &Value| {
        [
            text(&key["id"]),
            text(&key["name"]),
            list(&key["scopes"], ""),
            list(&key["functions"], "all"),
            text(&key["createdBy"]),
            time(&key["expiresAt"]),
            time(&key["lastUsedAt"]),
        ]
    };
    let rows: Vec<_> = keys.as_array().into_iter().flatten().map(row).collect();
    let head = [
        "ID",
        "NAME",
        "SCOPES",
        "FUNCTIONS",
        "MADE BY",
        "EXPIRES",
        "LAST USED",
    ];
    tell(&table(head, &rows));
    Ok(())
}

async fn rm(ids: &[String], at: &At) -> Result<(), String> {
    let gateway = gateway(at)?;
    for id in ids {
        // Nothing else can stand in a path as it is.
        if !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(format!("'{id}' is no key's id: skep keys ls shows them"));
        }
        gateway
            .manage(Method::DELETE, &format!("{PATH}/{id}"), None)
            .await?;
        tell(&format!("key {id} is revoked\n"));
    }
    Ok(())
}
