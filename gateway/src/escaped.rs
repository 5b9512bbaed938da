//! Text from outside for logs and terminals: whatever could end a line, command a terminal or change the order of what is read is
//! written as an escape.

use std::fmt;

/// Writes to something else, with escapes for what is not to be seen as it is.
pub struct Escaped<W>(pub W);

impl<W: fmt::Write> fmt::Write for Escaped<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        // A tab does no harm in a line; in a name it has no place.
        while let Some(at) = rest.find(|one| one != '\t' && is_harmful(one)) {
            let (before, after) = rest.split_at(at);
            self.0.write_str(before)?;
            let mut characters = after.chars();
            if let Some(harmful) = characters.next() {
                write!(self.0, "{}", harmful.escape_default())?;
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

/// Whether a character is a control, ends a line (U+2028, U+2029), or turns the direction of what follows.
#[must_use]
pub fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text with these escapes.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    // A String takes everything.
    let _ = fmt::Write::write_str(&mut Escaped(&mut escaped), text);
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_end_a_line_or_command_a_terminal_is_escaped() {
        for (text, expected) in [
            (
                "plain größe 你好 'x' \"y\" \\",
                "plain größe 你好 'x' \"y\" \\",
            ),
            ("a\nb\r\u{1b}[2Jc\0", "a\\nb\\r\\u{1b}[2Jc\\u{0}"),
            (
                "\u{85}\u{9b}\u{2028}\u{2029}",
                "\\u{85}\\u{9b}\\u{2028}\\u{2029}",
            ),
            ("\u{202e}x\u{2066}\t", "\\u{202e}x\\u{2066}\t"),
            ("", ""),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }
}
