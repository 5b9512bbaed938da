//! `skep keys`: makes, lists and revokes API keys of a gateway.

use hyper::Method;
use serde_json::{Value, json};

use super::client::{gateway, get, print, report, text};
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

/// Stdout gets the key and nothing else, so that it can be piped to where it is kept.
async fn create(wanted: &NewKey) -> Result<(), String> {
    let body = json!({
        "name": wanted.name, "scopes": wanted.scope, "functions": wanted.function, "expiresIn": wanted.expires,
    });
    let answer = gateway(&wanted.at)?
        .manage(Method::POST, PATH, Some(&body))
        .await?;
    let key: Value = serde_json::from_slice(&answer)
        .map_err(|error| format!("the answer to {PATH} is not JSON: {error}"))?;
    if wanted.at.json {
        print(&format!("{key}\n"));
        return Ok(());
    }
    print(&format!("{}\n", text(&key["key"])));
    eprintln!("Created key {}; it cannot be shown again", text(&key["id"]));
    if key["kept"] == false {
        eprintln!("it works until this gateway ends: without a data_dir nothing is kept");
    }
    Ok(())
}

async fn ls(at: &At) -> Result<(), String> {
    let keys = get(&gateway(at)?, PATH).await?;
    if at.json {
        print(&format!("{keys}\n"));
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
        "CREATED BY",
        "EXPIRES",
        "LAST USED",
    ];
    print(&table(head, &rows));
    Ok(())
}

async fn rm(ids: &[String], at: &At) -> Result<(), String> {
    let gateway = gateway(at)?;
    for id in ids {
        // Nothing else can stand in a path as it is.
        if !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(format!(
                "'{id}' is not the id of a key: skep keys ls lists them"
            ));
        }
        gateway
            .manage(Method::DELETE, &format!("{PATH}/{id}"), None)
            .await?;
        report(at, id, "revoked", &format!("Revoked key {id}"));
    }
    Ok(())
}
