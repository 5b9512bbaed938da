//! Secrets through the management API (wire contract §4, §7): values come in and never go out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::{Response, StatusCode};
use serde_json::json;

use super::caller::Caller;
use super::fields::Fields;
use super::manager::{Manager, invalid, noted};
use crate::discovery::operate::{Failed, SecretValue};
use crate::function::SecretName;
use crate::reply::{self, Body};

impl Manager {
    pub(super) async fn list_secrets(&self) -> Result<Response<Body>, Failed> {
        let names = self.operator.secrets().await?;
        let namespace = &self.pages.namespace;
        let list: Vec<_> = names
            .iter()
            .map(|name| json!({ "name": name, "namespace": namespace.as_ref() }))
            .collect();
        Ok(reply::json(StatusCode::OK, &list))
    }

    /// Makes a secret, or gives one that exists another value.
    pub(super) async fn set_secret(
        &self,
        is_new: bool,
        fields: Fields,
        caller: &Caller,
    ) -> Result<Response<Body>, Failed> {
        let (name, value) = self.secret(fields)?;
        let (what, status, doing) = if is_new {
            let doing = self.operator.create_secret(name.clone(), value);
            ("create secret", StatusCode::CREATED, doing)
        } else {
            let doing = self.operator.update_secret(name.clone(), value);
            ("update secret", StatusCode::OK, doing)
        };
        noted(caller, what, &name, doing).await?;
        if !is_new {
            // The functions that have it were changed.
            self.seen().await;
        }
        Ok(reply::text(status, ""))
    }

    /// 200 and never 204: clients take that for a failure (wire contract §7.2).
    pub(super) async fn remove_secret(
        &self,
        mut fields: Fields,
        caller: &Caller,
    ) -> Result<Response<Body>, Failed> {
        let name = self.secret_name(&mut fields);
        let name = fields
            .finish(name)
            .map_err(invalid)?
            .ok_or_else(|| invalid("name: is missing"))?;
        noted(
            caller,
            "remove secret",
            &name,
            self.operator.remove_secret(name.clone()),
        )
        .await?;
        Ok(reply::text(StatusCode::OK, ""))
    }

    fn secret(&self, mut fields: Fields) -> Result<(SecretName, SecretValue), Failed> {
        let name = self.secret_name(&mut fields);
        let value = value(&mut fields);
        match fields.finish((name, value)).map_err(invalid)? {
            (Some(name), Some(value)) => Ok((name, value)),
            _ => Err(invalid("name: is missing")),
        }
    }

    fn secret_name(&self, fields: &mut Fields) -> Option<SecretName> {
        self.home().check_namespace(fields);
        let text = fields.required("name");
        let name = SecretName::new(&text);
        if name.is_none() && !text.is_empty() {
            fields.mistake("name", "has 1 to 54 letters, digits, - _ and ., and begins and ends with a letter or digit");
        }
        name
    }
}

/// `rawValue`, in base64, comes before `value`: clients send both, the latter without its last line's end (wire contract §4).
fn value(fields: &mut Fields) -> Option<SecretValue> {
    let (raw, text) = (fields.text("rawValue"), fields.text("value"));
    let (field, bytes) = match (raw, text) {
        (Some(raw), _) => (
            "rawValue",
            STANDARD.decode(raw).map_err(|_| "must be base64"),
        ),
        (None, Some(text)) => ("value", Ok(text.into_bytes())),
        (None, None) => ("value", Err("is missing")),
    };
    match bytes.map_err(str::to_owned).and_then(SecretValue::new) {
        Ok(value) => Some(value),
        Err(why) => {
            fields.mistake(field, why);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Vec<u8>, String> {
        let mut fields = Fields::parse(body.as_bytes()).unwrap();
        let value = value(&mut fields);
        fields
            .finish(value)
            .map(|value| value.unwrap().bytes().to_vec())
    }

    #[test]
    fn the_raw_value_comes_first_and_mistakes_do_not_show_it() {
        assert_eq!(read(r#"{"value":"a","rawValue":"YQo="}"#).unwrap(), b"a\n");
        assert_eq!(read(r#"{"value":"a b","rawValue":""}"#).unwrap(), b"a b");
        for (body, named) in [
            (r#"{"rawValue":"hunter2!"}"#, "rawValue:"),
            (r#"{"value":7}"#, "value:"),
            ("{}", "value: is missing"),
        ] {
            let told = read(body).unwrap_err();
            assert!(
                told.starts_with(named) && !told.contains("hunter"),
                "{told}"
            );
        }
        let long = format!(r#"{{"value":"{}"}}"#, "x".repeat(512_000));
        assert_eq!(
            read(&long).unwrap_err(),
            "value: must have 1 to 511999 bytes, and has 512000"
        );
    }
}
