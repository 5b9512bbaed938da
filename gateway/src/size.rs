//! Sizes as people write them: bytes, or a number with a unit. Pure.

/// Reads `1024`, `64k`, `10Mi`, `2GB`: decimal units, or binary ones with an `i`; a final `B` may stand or not.
///
/// # Errors
/// A sentence that says what is accepted.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_end_matches(['b', 'B']);
    let factor: Option<u64> = match unit.to_ascii_lowercase().as_str() {
        "" => Some(1),
        "k" => Some(1_000),
        "m" => Some(1_000_000),
        "g" => Some(1_000_000_000),
        "ki" => Some(1 << 10),
        "mi" => Some(1 << 20),
        "gi" => Some(1 << 30),
        _ => None,
    };
    let number = number.parse::<u64>().ok();
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| {
            format!("'{text}' is no size: write bytes, or a number with k, M, G, Ki, Mi or Gi")
        })
}

/// A size with the largest binary unit that fits it exactly.
#[must_use]
pub fn show(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let exact = |(shift, _): &(u32, &str)| bytes > 0 && bytes.trailing_zeros() >= *shift;
    match units.into_iter().find(exact) {
        Some((shift, unit)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("64k", 64_000),
            ("64Ki", 65_536),
            ("10MiB", 10 << 20),
            ("2GB", 2_000_000_000),
            (" 1gi ", 1 << 30),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "k",
            "-1",
            "1.5M",
            "1T",
            "99999999999999999999",
            "18446744073709551615k",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(
            (show(10 << 20), show(1000)),
            ("10 MiB".into(), "1000 bytes".into())
        );
    }
}
