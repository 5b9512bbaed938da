//! `input_mode=args`: the body as arguments of the command.

use hyper::body::Incoming;
use tokio::time::Instant;

use crate::deadline::within;
use crate::fork::Call;
use crate::gather::gather;
use crate::json::Reader;
use crate::limits::Limits;
use crate::refusal::Refusal;
use crate::strings::Strings;

/// The most that a body may have: what the kernel takes as one argument, so that none of them can be too long.
const LARGEST_BODY: usize = 128 * 1024;

/// The command's own arguments and, behind them, those of this request.
pub(crate) async fn receive(call: &Call, body: &mut Incoming) -> Result<Strings, Refusal> {
    let config = &call.watchdog.config;
    let limits = Limits::before_run(Instant::now(), config);
    let gathered = within(
        &call.connection,
        &limits,
        || false,
        gather(body, LARGEST_BODY, "input_mode"),
    );
    let body = match gathered.await {
        Ok(gathered) => gathered?,
        Err(limit) => return Err(limit.refusal(config)),
    };
    let mut words = call.watchdog.command.arguments().clone();
    read(&body, &mut words).map_err(|mistake| Refusal::NotArguments { mistake })?;
    Ok(words)
}

/// Adds what stands in `[…]`, or in `{"args": […]}` beside whatever else.
fn read(body: &[u8], words: &mut Strings) -> Result<(), String> {
    let text = std::str::from_utf8(body)
        .map_err(|error| format!("byte {} is not UTF-8", error.valid_up_to()))?;
    let mut reader = Reader::new(text);
    match reader.peek() {
        Some(b'[') => read_list(&mut reader, words)?,
        Some(b'{') => read_object(&mut reader, words)?,
        Some(_) => return Err("it is neither an array nor an object".to_owned()),
        None => return Err("it is empty".to_owned()),
    }
    reader.end()
}

fn read_object(reader: &mut Reader<'_>, words: &mut Strings) -> Result<(), String> {
    let mut has_args = false;
    reader.members(|reader, name| {
        if name != "args" {
            return reader.skip();
        }
        if std::mem::replace(&mut has_args, true) {
            return Err("it has args twice".to_owned());
        }
        match reader.peek() {
            Some(b'[') => read_list(reader, words),
            _ => Err("args is not an array".to_owned()),
        }
    })?;
    has_args
        .then_some(())
        .ok_or_else(|| "the object has no args".to_owned())
}

fn read_list(reader: &mut Reader<'_>, words: &mut Strings) -> Result<(), String> {
    let mut number = 0;
    reader.elements(|reader| {
        number += 1;
        match reader.peek() {
            Some(b'"') => {
                let word = reader.string()?;
                if word.contains('\0') {
                    return Err(format!("argument {number} contains a NUL character"));
                }
                words.push(&[word.as_bytes()]);
            }
            Some(b'[' | b'{') => return Err(odd(number, "an array or an object")),
            _ => match reader.literal()? {
                "null" => return Err(odd(number, "null")),
                word => words.push(&[word.as_bytes()]),
            },
        }
        Ok(())
    })
}

fn odd(number: usize, what: &str) -> String {
    format!("argument {number} is {what}; only strings, numbers, true and false can be arguments")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(body: &str) -> Result<Vec<String>, String> {
        let mut words = Strings::default();
        read(body.as_bytes(), &mut words)?;
        let text = |word: &[u8]| String::from_utf8(word.to_vec()).unwrap();
        Ok(words.iter().map(text).collect())
    }

    #[test]
    fn an_array_or_an_objects_args_become_words() {
        assert_eq!(words("[]").unwrap(), [""; 0]);
        assert_eq!(
            words(r#" ["a b", "", "ä\n\u00e4\ud83d\ude00", 1.50e+3, -0, true, false] "#).unwrap(),
            ["a b", "", "ä\nä😀", "1.50e+3", "-0", "true", "false"]
        );
        let object = r#"{"x": [{"args": [1]}, null], "args": ["-l", 2], "y": {}}"#;
        assert_eq!(words(object).unwrap(), ["-l", "2"]);
    }

    #[test]
    fn anything_else_is_told_what_is_wrong_with_it() {
        for (body, mistake) in [
            ("", "empty"),
            (" \n", "empty"),
            ("\"a\"", "neither an array nor an object"),
            ("{}", "no args"),
            (r#"{"args": "a"}"#, "args is not an array"),
            (r#"{"args": [], "args": []}"#, "args twice"),
            ("[1, null]", "argument 2 is null"),
            ("[[1]]", "argument 1 is an array or an object"),
            (r#"["a", {"b": 1}]"#, "argument 2 is an array or an object"),
            (r#"["\u0000"]"#, "argument 1 contains a NUL"),
            ("[1,]", "byte 3"),
            ("[1] 2", "byte 4"),
        ] {
            let said = words(body).unwrap_err();
            assert!(said.contains(mistake), "{body}: {said}");
        }
        let mut none = Strings::default();
        assert!(
            read(b"[\"\xff\"]", &mut none)
                .unwrap_err()
                .contains("byte 2 is not UTF-8")
        );
    }
}
