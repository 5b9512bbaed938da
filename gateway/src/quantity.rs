//! Amounts of memory and processor as people write them: Kubernetes' units (`5Mi`, `100m`) and Docker's (`40m`, `1.5g`). Pure.

/// What a container can be started with at all; Docker refuses to start one with less.
pub const LEAST_MEMORY: i64 = 6 << 20;
const LEAST_NANO_CPUS: i64 = 1_000_000;
const MOST_CPUS: f64 = 10_000.0;

/// Reads an amount of memory, in bytes. All units are binary, as in `docker service create --limit-memory`: `40m`, `40M`, `40Mi`
/// and `40MiB` are the same.
///
/// # Errors
/// A sentence that says what it looks like.
pub fn memory(text: &str) -> Result<i64, String> {
    let wrong = || {
        format!(
            "'{text}' is not an amount of memory: write bytes, or a number with a unit (40Mi, 512k, 1.5g)"
        )
    };
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        "t" | "tb" | "ti" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let bytes = number(digits).ok_or_else(wrong)? * 2_f64.powi(shift);
    whole(bytes).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

/// Reads an amount of processor, in billionths: `100m`, `0.5`, `2`; a whole number of a million or more is billionths already, as the
/// Swarm provider of old took it.
///
/// # Errors
/// A sentence that says what it looks like.
pub fn cpu(text: &str) -> Result<i64, String> {
    let wrong = || {
        format!(
            "'{text}' is not an amount of processor: write thousandths (100m) or processors (0.5, 2), at least 1m"
        )
    };
    let nanos = match text.strip_suffix('m') {
        Some(thousandths) => number(thousandths).map(|count| count * 1e6),
        None => number(text).map(|count| if count >= 1e6 { count } else { count * 1e9 }),
    };
    nanos
        .filter(|nanos| *nanos <= MOST_CPUS * 1e9)
        .and_then(whole)
        .filter(|nanos| *nanos >= LEAST_NANO_CPUS)
        .ok_or_else(wrong)
}

/// Digits with at most one point between them: no sign, no exponent, no infinity.
fn number(text: &str) -> Option<f64> {
    let is_plain = text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| is_plain)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "checked against the range just before"
)]
fn whole(amount: f64) -> Option<i64> {
    // 2^62: far above every machine, and exact.
    (amount <= 4.6e18).then(|| amount.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_memory_in_kubernetes_and_dockers_units() {
        for (text, bytes) in [
            ("5Mi", 5 << 20),
            ("40m", 40 << 20),
            ("40M", 40 << 20),
            ("20MB", 20 << 20),
            ("1.5g", 3 << 29),
            ("512k", 512 << 10),
            ("1Ti", 1 << 40),
            ("10485760", 10_485_760),
            ("7b", 7),
        ] {
            assert_eq!(memory(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn reads_processor_in_thousandths_and_whole_ones() {
        for (text, nanos) in [
            ("100m", 100_000_000),
            ("0.5", 500_000_000),
            ("2", 2_000_000_000),
            ("1m", 1_000_000),
            ("1500m", 1_500_000_000),
            ("500000000", 500_000_000),
        ] {
            assert_eq!(cpu(text), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_amount_in_words() {
        for text in [
            "",
            "-5Mi",
            "lots",
            "5 Mi",
            "1e3",
            "5Xi",
            ".5",
            "5.",
            "1.2.3",
            "0",
            "Mi",
            "inf",
            "99999999999999999999Ti",
        ] {
            assert!(
                memory(text)
                    .unwrap_err()
                    .contains("not an amount of memory"),
                "{text}"
            );
        }
        for text in [
            "",
            "-1",
            "many",
            "1 m",
            "1e3",
            "0",
            "0.0001",
            "0.5m",
            "NaN",
            "99999999999999999999",
            "100mi",
        ] {
            assert!(
                cpu(text)
                    .unwrap_err()
                    .contains("not an amount of processor"),
                "{text}"
            );
        }
    }
}
