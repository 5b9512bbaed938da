//! Durations as the configuration writes them: whole seconds, or Go's grammar (`500ms`, `1m30s`).

use std::time::Duration;

/// The longest duration that is accepted: what a signed 64-bit count of nanoseconds holds, about 292 years.
const LONGEST_NANOS: u128 = i64::MAX as u128;

/// Reads `30`, `500ms`, `1.5s`, `1h15m30.9s`; anything else, and anything negative, is `None`.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let nanos = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse::<u128>().ok()?.checked_mul(1_000_000_000)?
    } else {
        parse_units(text)?
    };
    let nanos = u64::try_from(nanos)
        .ok()
        .filter(|nanos| u128::from(*nanos) <= LONGEST_NANOS)?;
    Some(Duration::from_nanos(nanos))
}

/// Writes a duration the way a person would set it: `30s`, `500ms`, `1500ms`.
pub(crate) fn show(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        _ if nanos.is_multiple_of(1_000_000_000) => format!("{}s", nanos / 1_000_000_000),
        _ if nanos.is_multiple_of(1_000_000) => format!("{}ms", nanos / 1_000_000),
        _ => format!("{nanos}ns"),
    }
}

/// Seconds with six decimals, as headers and log lines have them.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{}.{:06}", duration.as_secs(), duration.subsec_micros())
}

/// Milliseconds with three decimals, as `Server-Timing` has them.
pub(crate) fn millis(duration: Duration) -> String {
    let micros = duration.as_micros();
    format!("{}.{:03}", micros / 1000, micros % 1000)
}

fn parse_units(mut rest: &str) -> Option<u128> {
    let mut total: u128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let unit = unit_nanos(&after[..end])?;
        let whole = if whole.is_empty() {
            0
        } else {
            whole.parse::<u128>().ok()?
        };
        total = total
            .checked_add(whole.checked_mul(unit)?)?
            .checked_add(part_of(fraction, unit))?;
        rest = &after[end..];
    }
    Some(total)
}

fn digits(text: &str) -> (&str, &str) {
    let end = text
        .bytes()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// The nanoseconds in `0.<fraction>` of a unit; digits below a nanosecond are cut off, as Go does.
fn part_of(fraction: &str, unit: u128) -> u128 {
    // Go reads no more digits, either; and 10¹⁸ hours of nanoseconds have room here.
    let digits = &fraction[..fraction.len().min(18)];
    let value = digits
        .bytes()
        .fold(0, |sum, digit| sum * 10 + u128::from(digit - b'0'));
    value * unit / 10u128.pow(digits.len() as u32)
}

fn unit_nanos(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(text: &str) -> Option<u128> {
        parse(text).map(|duration| duration.as_millis())
    }

    #[test]
    fn a_bare_number_means_seconds() {
        assert_eq!(millis("0"), Some(0));
        assert_eq!(millis("30"), Some(30_000));
        assert_eq!(millis("+30"), Some(30_000));
    }

    #[test]
    fn the_go_grammar_is_understood() {
        assert_eq!(millis("500ms"), Some(500));
        assert_eq!(millis("1m30s"), Some(90_000));
        assert_eq!(millis("1.5s"), Some(1_500));
        assert_eq!(millis(".5s"), Some(500));
        assert_eq!(millis("1.s"), Some(1_000));
        assert_eq!(millis("1h15m30.918s"), Some(4_530_918));
        assert_eq!(millis("+2s"), Some(2_000));
        assert_eq!(parse("3us"), Some(Duration::from_micros(3)));
        assert_eq!(parse("3µs"), Some(Duration::from_micros(3)));
        assert_eq!(
            parse("1.000000001s"),
            Some(Duration::from_nanos(1_000_000_001))
        );
    }

    #[test]
    fn the_last_digits_of_a_fraction_count() {
        assert_eq!(
            parse("0.000000000000277778h"),
            Some(Duration::from_nanos(1))
        );
        assert_eq!(parse("0.000000000000277777h"), Some(Duration::ZERO));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "abc",
            "-5s",
            "5x",
            "1 s",
            "s",
            ".s",
            "1s2",
            "--1s",
            "99999999999999h",
            "1.2.3s",
            "9".repeat(60).as_str(),
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn seconds_have_six_decimals() {
        assert_eq!(seconds(Duration::from_micros(1_000_042)), "1.000042");
        assert_eq!(seconds(Duration::from_nanos(999)), "0.000000");
    }

    #[test]
    fn shown_durations_can_be_read_again() {
        for text in ["500ms", "30s", "90s", "1.5s", "7ns", "0s"] {
            let duration = parse(text).unwrap();
            assert_eq!(parse(&show(duration)), Some(duration), "{text}");
        }
    }
}
