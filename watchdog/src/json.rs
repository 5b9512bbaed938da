//! JSON, as far as the watchdog needs it: strings are written, and arrays and objects read piece by piece.
//!
//! Read by hand and to the letter of RFC 8259: a library's number types would lose how a number was written, and its
//! trees would make some bytes of body into many of memory. `Cargo.toml` has the sizes.

use std::fmt::Write;

/// How deep values may be nested.
const DEEPEST: usize = 64;

/// A string as JSON has it; `<`, `>` and `&` are escaped too, so that it may stand in a page.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '<' | '>' | '&' | '\0'..='\x1f' | '\u{2028}' | '\u{2029}' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Reads a text from its beginning to its end; an error says what is wrong, and where.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// Before the first value.
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
        }
    }

    /// The first byte of what comes next, which tells what it is; `None` at the end.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    /// Nothing may follow.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.wrong("the end")),
        }
    }

    /// An array, each of whose elements is to be read by `each`.
    pub(crate) fn elements(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        self.items([b'[', b']'], &mut each)
    }

    /// An object, each of whose values is to be read by `each`, which is given the name.
    pub(crate) fn members(
        &mut self,
        mut each: impl FnMut(&mut Self, &str) -> Result<(), String>,
    ) -> Result<(), String> {
        self.items([b'{', b'}'], &mut |reader| {
            if reader.peek() != Some(b'"') {
                return Err(reader.wrong("a name"));
            }
            let name = reader.string()?;
            reader.take(b':')?;
            each(reader, &name)
        })
    }

    /// Any value, which nobody wants.
    pub(crate) fn skip(&mut self) -> Result<(), String> {
        match self.peek() {
            Some(b'[') => self.items([b'[', b']'], &mut Self::skip),
            Some(b'{') => self.members(|reader, _| reader.skip()),
            Some(b'"') => self.string().map(drop),
            _ => self.literal().map(drop),
        }
    }

    /// A number, `true`, `false` or `null`, as it is written.
    pub(crate) fn literal(&mut self) -> Result<&'a str, String> {
        self.peek();
        let rest = &self.text[self.at..];
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '+' | '.'))
            .unwrap_or(rest.len());
        let word = &rest[..end];
        if !matches!(word, "true" | "false" | "null") && !is_number(word) {
            return Err(self.wrong("a value"));
        }
        self.at += end;
        Ok(word)
    }

    /// A string, without its quotes and escapes.
    pub(crate) fn string(&mut self) -> Result<String, String> {
        self.take(b'"')?;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|c| c < ' ' || matches!(c, '"' | '\\'));
            let Some(plain) = plain else {
                self.at = self.text.len();
                return Err(self.wrong("the end of a string"));
            };
            out.push_str(&rest[..plain]);
            self.at += plain;
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                _ => return Err(self.wrong("a character that may stand in a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let sign = self.text.as_bytes().get(self.at + 1).copied();
        let plain = match sign {
            Some(sign @ (b'"' | b'\\' | b'/')) => char::from(sign),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.wrong("an escape")),
        };
        self.at += 2;
        Ok(plain)
    }

    /// `\u` and four digits, or two of these for a character beyond them.
    fn unicode(&mut self) -> Result<char, String> {
        let unit = |at: usize| {
            let digits = self.text.get(at..at + 6)?.strip_prefix("\\u")?;
            let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_hex
                .then(|| u16::from_str_radix(digits, 16).ok())
                .flatten()
        };
        let units = [unit(self.at), unit(self.at + 6)].map(|unit| unit.unwrap_or(0));
        let found = match unit(self.at) {
            Some(_) => char::decode_utf16(units).next().and_then(Result::ok),
            None => None,
        };
        let character = found.ok_or_else(|| self.wrong("a character"))?;
        self.at += 6 * character.len_utf16();
        Ok(character)
    }

    fn items(
        &mut self,
        [open, close]: [u8; 2],
        each: &mut dyn FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        self.take(open)?;
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("it is nested deeper than {DEEPEST}"));
        }
        if self.peek() != Some(close) {
            each(self)?;
            while self.peek() == Some(b',') {
                self.at += 1;
                each(self)?;
            }
        }
        self.depth -= 1;
        self.take(close)
    }

    fn take(&mut self, wanted: u8) -> Result<(), String> {
        if self.peek() != Some(wanted) {
            return Err(self.wrong(&format!("a {}", char::from(wanted))));
        }
        self.at += 1;
        Ok(())
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn wrong(&self, wanted: &str) -> String {
        format!("{wanted} is missing at byte {}", self.at)
    }
}

/// `-12.5e+3`: no zero in front of other digits, and no point without digits on both sides.
fn is_number(word: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let word = word.strip_prefix('-').unwrap_or(word);
    let (word, exponent) = match word.split_once(['e', 'E']) {
        Some((word, exponent)) => (word, exponent.strip_prefix(['+', '-']).unwrap_or(exponent)),
        None => (word, "0"),
    };
    let (whole, fraction) = word.split_once('.').unwrap_or((word, "0"));
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && digits(fraction)
        && digits(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_json(text: &str) -> bool {
        let mut reader = Reader::new(text);
        reader.skip().and_then(|()| reader.end()).is_ok()
    }

    #[test]
    fn what_is_json_is_read_and_nothing_else() {
        for text in [
            "0",
            "-0",
            "-1.5e-7",
            "1E9",
            "123",
            "true",
            "null",
            " [ ] ",
            "{ }",
            "[1,[2,{\"a\":[]}]]",
            r#""\"\\\/\b\f\n\r\t\u0000\ud83d\ude00ä""#,
            r#"{"":{"":0},"":1}"#,
            "\t\r\n1",
            "\"\u{7f}\"",
        ] {
            assert!(is_json(text), "{text}");
        }
        for text in [
            "",
            "01",
            "-",
            "+1",
            ".5",
            "1.",
            "1e",
            "1e+",
            "0x1",
            "1.2.3",
            "--1",
            "1 2",
            "True",
            "nul",
            "nulls",
            "NaN",
            "-Infinity",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1",
            "]",
            "{",
            "{1:2}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a" 1}"#,
            "\"",
            "\"a\n\"",
            r#""\x""#,
            r#""\u12""#,
            r#""\u12g4""#,
            r#""\u+123""#,
            r#""\ud800""#,
            r#""\ud800\u0041""#,
            r#""\ude00\ud83d""#,
            "'a'",
            "1//",
            "\u{feff}1",
            "\u{a0}1",
            "[1}",
            r#""\"#,
            r#""\u"#,
        ] {
            assert!(!is_json(text), "{text}");
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(is_json(&nested(DEEPEST)));
        assert!(!is_json(&nested(DEEPEST + 1)));
        assert!(!is_json(&"[".repeat(100_000)));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text: String = (0..0x2100).filter_map(char::from_u32).collect();
        assert_eq!(Reader::new(&quoted(&text)).string().unwrap(), text);
    }

    #[test]
    fn no_bytes_make_it_panic_or_stand_still() {
        // Pseudo-random texts of the characters that matter.
        let letters: Vec<char> = "[]{}:,\"\\u0dD8e-+.1tnäf \n".chars().collect();
        let mut state = 1_u64;
        for _ in 0..200_000 {
            let mut text = String::new();
            for _ in 0..12 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                text.push(letters[(state >> 33) as usize % letters.len()]);
            }
            let _ = is_json(&text);
        }
    }
}
