//! Amounts of bytes and processor as people write them: Kubernetes' units (`5Mi`, `100m`) and Docker's (`40m`, `1.5g`). Pure.
//!
//! There is one rule for bytes, whether they limit memory or a body: every unit is binary (docs/decisions/0032).

const LEAST_NANO_CPUS: i64 = 1_000_000;
const MOST_CPUS: f64 = 10_000.0;

/// Reads an amount of bytes: `40m`, `40M`, `40MB`, `40Mi` and `40MiB` are the same.
///
/// # Errors
/// A sentence that says what it looks like.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "'{text}' is no amount of bytes: write bytes, or a number with a unit (512k, 40Mi, 1.5g; each is 1024 of the one before)"
        )
    };
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        "t" | "tb" | "ti" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let amount = number(digits).and_then(|number| whole(number * 2_f64.powi(shift)));
    amount.map(i64::unsigned_abs).ok_or_else(wrong)
}

/// Reads an amount of memory, in bytes: more than none.
///
/// # Errors
/// A sentence that says what it looks like.
pub fn memory(text: &str) -> Result<i64, String> {
    match bytes(text)?.try_into() {
        Ok(amount @ 1..) => Ok(amount),
        _ => Err(format!(
            "'{text}' is no memory at all: write more, or leave it out"
        )),
    }
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

/// An amount of bytes with the largest unit that fits it exactly.
#[must_use]
pub fn show(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let exact = |(shift, _): &(u32, &str)| bytes > 0 && bytes.trailing_zeros() >= *shift;
    match units.into_iter().find(exact) {
        Some((shift, unit)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
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
    fn every_unit_of_bytes_is_binary_whoever_invented_it() {
        for (text, amount) in [
            ("5Mi", 5 << 20),
            ("40m", 40 << 20),
            ("40M", 40 << 20),
            ("20MB", 20 << 20),
            ("10MiB", 10 << 20),
            (" 1gi ", 1 << 30),
            ("1.5g", 3 << 29),
            ("512k", 512 << 10),
            ("1Ti", 1 << 40),
            ("10485760", 10_485_760),
            ("7b", 7),
        ] {
            assert_eq!(bytes(text), Ok(amount), "{text}");
            assert_eq!(memory(text), Ok(amount.try_into().unwrap()), "{text}");
        }
        assert_eq!(bytes("0"), Ok(0));
        assert_eq!(
            (show(10 << 20), show(1000)),
            ("10 MiB".into(), "1000 bytes".into())
        );
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
            "Mi",
            "k",
            "inf",
            "18446744073709551615k",
            "99999999999999999999Ti",
        ] {
            for read in [bytes(text).map(drop), memory(text).map(drop)] {
                assert!(read.unwrap_err().contains("no amount of bytes"), "{text}");
            }
        }
        for none in ["0", "0Mi", "0.1"] {
            assert!(
                memory(none).unwrap_err().contains("no memory at all"),
                "{none}"
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
