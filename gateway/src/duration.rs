//! Durations as the contract writes them: whole seconds, or Go's notation (`500ms`, `1m30s`). Pure.

use std::time::Duration;

/// Reads a duration: a bare whole number is seconds (wire contract, "go-dur"), else numbers with units `h m s ms us µs ns`.
///
/// # Errors
/// A sentence that says what a duration looks like.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "'{text}' is not a duration: write seconds (30) or numbers with units (500ms, 1m30s)"
        )
    };
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    // humantime reads every positive duration that Go prints; it also takes words and blanks, which Go does not.
    if text.is_empty()
        || !text
            .chars()
            .all(|c| c.is_ascii_digit() || ".hmsunµ".contains(c))
    {
        return Err(wrong());
    }
    humantime::parse_duration(text).map_err(|_| wrong())
}

/// Writes a duration the way [`parse`] reads it.
#[must_use]
pub fn show(duration: Duration) -> String {
    humantime::format_duration(duration)
        .to_string()
        .replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_seconds_and_go_notation() {
        for (text, millis) in [
            ("0", 0),
            ("30", 30_000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1.5s", 1500),
            ("2h", 7_200_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else_with_a_hint() {
        for text in [
            "",
            "-5s",
            "soon",
            "5 minutes",
            "1d",
            "s",
            "5x",
            "1e3",
            "99999999999999999999h",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("not a duration"), "{text}: {error}");
        }
    }

    #[test]
    fn shows_what_it_reads() {
        for text in ["500ms", "1m30s", "1h", "250ms"] {
            assert_eq!(show(parse(text).unwrap()), text);
        }
    }
}
