//! A request's JSON body as fields: read one by one, each mistake named by its field, all mistakes at once. Fields that nobody asks
//! for are ignored, as clients of other versions send them; a field that is there twice is refused, because two readers could
//! take different ones.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::escaped::escaped;

/// A JSON object that is being read.
pub(super) struct Fields {
    object: Map<String, Value>,
    mistakes: Vec<String>,
}

impl Fields {
    /// Reads a body.
    ///
    /// # Errors
    /// A sentence: it is no JSON object, or one that can be read in two ways.
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        match serde_json::from_slice(body) {
            Ok(Unambiguous(Value::Object(object))) => Ok(Self {
                object,
                mistakes: Vec::new(),
            }),
            Ok(_) => Err("the body must be a JSON object".to_owned()),
            Err(error) => Err(format!("the body is no JSON that can be used: {error}")),
        }
    }

    /// Notes a mistake in a field.
    pub(super) fn mistake(&mut self, field: &str, why: impl fmt::Display) {
        self.mistakes.push(format!("{}: {why}", escaped(field)));
    }

    /// What was read, unless there was a mistake in it.
    ///
    /// # Errors
    /// All mistakes in one line.
    pub(super) fn finish<T>(self, read: T) -> Result<T, String> {
        if self.mistakes.is_empty() {
            Ok(read)
        } else {
            Err(self.mistakes.join("; "))
        }
    }

    /// A text; one that is missing, null or empty is none.
    pub(super) fn text(&mut self, field: &str) -> Option<String> {
        match self.take(field) {
            Value::Null => None,
            Value::String(text) => Some(text).filter(|text| !text.is_empty()),
            other => self.not_a(field, "a text", &other),
        }
    }

    /// A text that must be there.
    pub(super) fn required(&mut self, field: &str) -> String {
        let had = self.mistakes.len();
        let text = self.text(field);
        if text.is_none() && self.mistakes.len() == had {
            self.mistake(field, "is missing");
        }
        text.unwrap_or_default()
    }

    /// A whole number that is not negative.
    pub(super) fn count(&mut self, field: &str) -> Option<u64> {
        let value = self.take(field);
        match value.as_u64() {
            Some(count) => Some(count),
            None if value.is_null() => {
                self.mistake(field, "is missing");
                None
            }
            None => self.not_a(field, "a whole number, 0 or more", &value),
        }
    }

    /// A flag; missing or null is false.
    pub(super) fn flag(&mut self, field: &str) -> bool {
        match self.take(field) {
            Value::Null => false,
            Value::Bool(flag) => flag,
            other => self
                .not_a(field, "true or false", &other)
                .unwrap_or_default(),
        }
    }

    /// A list of texts; missing or null is empty.
    pub(super) fn texts(&mut self, field: &str) -> Vec<String> {
        let list = match self.take(field) {
            Value::Null => Vec::new(),
            Value::Array(list) => list,
            other => self
                .not_a(field, "a list of texts", &other)
                .unwrap_or_default(),
        };
        let mut texts = Vec::with_capacity(list.len());
        for (number, value) in list.into_iter().enumerate() {
            match value {
                Value::String(text) if text.is_empty() => {
                    self.mistake(&format!("{field}[{number}]"), "is empty");
                }
                Value::String(text) => texts.push(text),
                other => drop(self.not_a::<()>(&format!("{field}[{number}]"), "a text", &other)),
            }
        }
        texts
    }

    /// A list of anything; missing or null is empty.
    pub(super) fn list(&mut self, field: &str) -> Vec<Value> {
        match self.take(field) {
            Value::Null => Vec::new(),
            Value::Array(list) => list,
            other => self.not_a(field, "a list", &other).unwrap_or_default(),
        }
    }

    /// Texts by name; missing or null is empty.
    pub(super) fn text_map(&mut self, field: &str) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        for (name, value) in self.object(field) {
            match value {
                Value::String(text) => drop(texts.insert(name, text)),
                other => drop(self.not_a::<()>(&format!("{field}.{name}"), "a text", &other)),
            }
        }
        texts
    }

    /// An object; missing or null is empty.
    pub(super) fn object(&mut self, field: &str) -> Map<String, Value> {
        match self.take(field) {
            Value::Null => Map::new(),
            Value::Object(object) => object,
            other => self.not_a(field, "an object", &other).unwrap_or_default(),
        }
    }

    fn take(&mut self, field: &str) -> Value {
        self.object.remove(field).unwrap_or_default()
    }

    fn not_a<T>(&mut self, field: &str, wanted: &str, found: &Value) -> Option<T> {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        self.mistake(field, format!("must be {wanted}, and is {found}"));
        None
    }
}

/// JSON in which no object has a field twice. serde_json takes the last one silently, and bounds the depth.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Self)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number that is none"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unambiguous(value)) = seq.next_element()? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Unambiguous(value))) = map.next_entry::<String, _>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format!(
                    "the field '{}' is there twice",
                    escaped(&name)
                )));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(body: &str, read: impl FnOnce(&mut Fields)) -> String {
        let mut fields = Fields::parse(body.as_bytes()).unwrap();
        read(&mut fields);
        fields.finish(()).unwrap_err()
    }

    #[test]
    fn every_mistake_is_named_by_its_field() {
        let body = r#"{"service":5,"labels":{"a":1,"b":"x"},"secrets":["s",null],"flag":"yes","n":-1,"more":[1]}"#;
        let told = mistakes(body, |fields| {
            fields.required("service");
            fields.required("image");
            fields.text_map("labels");
            fields.texts("secrets");
            fields.flag("flag");
            fields.count("n");
        });
        let wanted = "service: must be a text, and is a number; image: is missing; labels.a: must be a text, and is a number; secrets[1]: must be a text, \
                      and is null; flag: must be true or false, and is a text; n: must be a whole number, 0 or more, and is a number";
        assert_eq!(told, wanted);
    }

    #[test]
    fn null_is_as_good_as_missing_and_unknown_fields_are_ignored() {
        let mut fields =
            Fields::parse(br#"{"labels":null,"namespace":"","novelty":{"deep":[1]}}"#).unwrap();
        assert!(
            fields.text_map("labels").is_empty()
                && fields.text("namespace").is_none()
                && !fields.flag("x")
        );
        assert!(fields.finish(()).is_ok());
    }

    #[test]
    fn a_body_that_can_be_read_in_two_ways_is_refused() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        for (body, says) in [
            (r#"{"a":1,"a":2}"#, "'a' is there twice"),
            (r#"{"x":{"b":1,"b":1}}"#, "'b' is there twice"),
            ("[]", "must be a JSON object"),
            ("", "no JSON"),
            ("{", "no JSON"),
            (r#"{"a":1e999}"#, "no JSON"),
            (deep.as_str(), "recursion limit"),
        ] {
            let told = Fields::parse(body.as_bytes()).err().unwrap();
            assert!(told.contains(says), "{told}");
        }
    }
}
