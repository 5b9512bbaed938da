//! Keys through the management API: made, listed, revoked. A key's secret is told once, to whoever makes it.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::caller::Caller;
use super::fields::Fields;
use super::manager::{Manager, invalid, noted};
use crate::auth::key::{Key, KeyId, Record, Wish};
use crate::auth::keys::{NotMade, seconds};
use crate::auth::{Gate, Scope};
use crate::discovery::operate::{Failed, Trouble};
use crate::duration;
use crate::function::FunctionName;
use crate::reply::{self, Body};
use crate::router::without_namespace;

/// The longest name of a key, in characters.
const MAX_NAME: usize = 64;
/// The most functions that a key can be for.
const MAX_FUNCTIONS: usize = 100;
/// The longest time until a key ends, in hours: some hundred years, still a date that everybody can write.
const MAX_HOURS: u64 = 1_000_000;

impl Manager {
    pub(super) fn list_keys(&self) -> Result<Response<Body>, Failed> {
        self.check_login()?;
        let keys = self.gate.keys().list();
        let list: Vec<_> = keys
            .iter()
            .map(|key| told(key.record(), key.last_used_at()))
            .collect();
        Ok(reply::json(StatusCode::OK, &list))
    }

    pub(super) async fn create_key(
        &self,
        fields: Fields,
        caller: &Caller,
    ) -> Result<Response<Body>, Failed> {
        self.check_login()?;
        let wish = self.wish(fields, caller).map_err(invalid)?;
        let made = Key::make(wish, seconds());
        let (record, text) = made.map_err(|error| not_kept(&error))?;
        let (name, kept) = (record.to_string(), record.clone());
        let added = self.on_disk(move |gate| {
            gate.keys().add(kept).map_err(|error| match error {
                NotMade::TooMany(most) => {
                    let told =
                        format!("there are {most} keys, as many as there may be: revoke some");
                    Failed::new(Trouble::Conflict, told)
                }
                NotMade::NotKept(error) => not_kept(&error),
            })
        });
        noted(caller, "create key", &name, Box::pin(added)).await?;
        let mut answer = told(&record, None);
        answer["key"] = text.into();
        answer["kept"] = self.gate.keys().are_kept().into();
        let mut response = reply::json(StatusCode::CREATED, &answer);
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    pub(super) async fn revoke_key(
        &self,
        id: &str,
        caller: &Caller,
    ) -> Result<Response<Body>, Failed> {
        self.check_login()?;
        let unknown = || Failed::new(Trouble::Unknown, "there is no key of this id");
        let id = KeyId::parse(id).ok_or_else(unknown)?;
        let removed = self.on_disk(move |gate| match gate.keys().remove(id) {
            Ok(true) => Ok(()),
            Ok(false) => Err(unknown()),
            Err(error) => Err(not_kept(&error)),
        });
        noted(caller, "revoke key", &id, Box::pin(removed)).await?;
        Ok(reply::text(StatusCode::OK, ""))
    }

    /// While everybody is an administrator, everybody could make a key that is still good when nobody else is one.
    fn check_login(&self) -> Result<(), Failed> {
        if self.gate.is_open() {
            let told = "keys are made and revoked behind a login only, and /system is open to everybody: set basic_auth=true, and log in with the login or a key of the scope admin";
            return Err(Failed::new(Trouble::Conflict, told));
        }
        Ok(())
    }

    /// Reading and writing files blocks: somewhere else than where calls and the cluster are looked after.
    async fn on_disk(
        &self,
        work: impl FnOnce(&Gate) -> Result<(), Failed> + Send + 'static,
    ) -> Result<(), Failed> {
        let gate = Arc::clone(&self.gate);
        let done = tokio::task::spawn_blocking(move || work(&gate)).await;
        done.unwrap_or_else(|error| Err(not_kept(&std::io::Error::other(error))))
    }

    fn wish(&self, mut fields: Fields, caller: &Caller) -> Result<Wish, String> {
        let name = fields.text("name").unwrap_or_default();
        // Nothing that could be read as more than a name in a line of the log.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" -_.@/:'".contains(&byte);
        if name.len() > MAX_NAME || !name.bytes().all(is_plain) {
            let rule = format!("has {MAX_NAME} letters, digits, blanks and - _ . @ / : ' at most");
            fields.mistake("name", rule);
        }
        let scopes = scopes(&mut fields);
        let functions = self.functions(&mut fields, &scopes);
        let expires_in = fields.text("expiresIn").and_then(|text| {
            match duration::parse(&text).map(|time| time.as_secs()) {
                Ok(0) => fields.mistake("expiresIn", "must be a second at least"),
                Ok(seconds) if seconds > MAX_HOURS * 3600 => {
                    fields.mistake("expiresIn", format!("must be {MAX_HOURS}h at most"));
                }
                Ok(seconds) => return Some(seconds),
                Err(why) => fields.mistake("expiresIn", why),
            }
            None
        });
        fields.finish(Wish {
            name,
            scopes,
            functions,
            created_by: caller.who.to_string(),
            expires_in,
        })
    }

    /// The full names of the functions that the key shall be for.
    fn functions(&self, fields: &mut Fields, scopes: &[Scope]) -> Vec<String> {
        let functions = fields.texts("functions");
        if functions.len() > MAX_FUNCTIONS {
            fields.mistake("functions", format!("names {MAX_FUNCTIONS} at most"));
        }
        let is_limited = scopes.contains(&Scope::Invoke) && !scopes.contains(&Scope::Admin);
        if !functions.is_empty() && !is_limited {
            fields.mistake(
                "functions",
                "limits the scope invoke: the key must have it, and not admin, which may call all",
            );
        }
        let mut names = Vec::with_capacity(functions.len());
        for (number, name) in functions.iter().enumerate() {
            let name = without_namespace(name, &self.pages.namespace);
            match FunctionName::new(name) {
                Ok(name) => names.push(name.to_string()),
                Err(error) => fields.mistake(&format!("functions[{number}]"), error),
            }
        }
        names
    }
}

fn scopes(fields: &mut Fields) -> Vec<Scope> {
    let texts = fields.texts("scopes");
    if texts.is_empty() {
        let all = Scope::ALL.map(Scope::name).join(", ");
        fields.mistake("scopes", format!("names one at least of {all}"));
    }
    let mut scopes = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        match Scope::named(text) {
            Some(scope) if scopes.contains(&scope) => {}
            Some(scope) => scopes.push(scope),
            None => {
                let all = Scope::ALL.map(Scope::name).join(", ");
                fields.mistake(&format!("scopes[{number}]"), format!("is none of {all}"));
            }
        }
    }
    scopes
}

fn not_kept(error: &std::io::Error) -> Failed {
    let told = format!("the keys could not be kept, and nothing was changed: {error}");
    Failed::new(Trouble::Away, told)
}

/// A key as clients see it.
fn told(record: &Record, last_used: Option<u64>) -> Value {
    let time = |seconds: u64| {
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        // Past the year 9999 there is no such text.
        let at = at
            .filter(|_| seconds < 253_402_300_800)
            .unwrap_or(UNIX_EPOCH);
        humantime::format_rfc3339_seconds(at).to_string()
    };
    let mut key = json!({
        "id": record.id, "name": record.name, "scopes": record.scopes, "functions": record.functions,
        "createdAt": time(record.created_at), "createdBy": record.created_by,
    });
    if let Some(end) = record.expires_at {
        key["expiresAt"] = time(end).into();
    }
    if let Some(at) = last_used {
        key["lastUsedAt"] = time(at).into();
    }
    key
}
