//! The `Range` header of a request for a file; pure.

/// What is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Range {
    /// Everything: no range was asked for, or one that may be ignored.
    All,
    /// From the first to the last byte, both included.
    Part { first: u64, last: u64 },
    /// Nothing of the file is in the range.
    Outside,
}

/// Reads `bytes=0-99`, `bytes=100-` and `bytes=-100`. Several ranges at once, and what is no range, mean everything,
/// as the standard allows.
pub(crate) fn read(header: Option<&str>, length: u64) -> Range {
    let asked = header
        .and_then(|header| header.strip_prefix("bytes="))
        .and_then(|asked| asked.trim().split_once('-'));
    let Some((first, last)) = asked else {
        return Range::All;
    };
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(first), last) if first >= length => match last {
            Some(last) if last < first => Range::All,
            _ => Range::Outside,
        },
        (Some(first), Some(last)) if last >= first => Range::Part {
            first,
            last: last.min(length - 1),
        },
        (Some(first), None) if last.is_empty() => Range::Part {
            first,
            last: length - 1,
        },
        (None, Some(count)) if first.is_empty() => {
            if count == 0 || length == 0 {
                Range::Outside
            } else {
                Range::Part {
                    first: length.saturating_sub(count),
                    last: length - 1,
                }
            }
        }
        _ => Range::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_ranges_are_cut_to_the_file() {
        let part = |first, last| Range::Part { first, last };
        for (header, range) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=2-4", part(2, 4)),
            ("bytes=2-", part(2, 9)),
            ("bytes=8-99999999999999999999999", part(8, 9)),
            ("bytes=-3", part(7, 9)),
            ("bytes=-30", part(0, 9)),
            ("bytes=10-", Range::Outside),
            ("bytes=10-12", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=4-2", Range::All),
            ("bytes=12-11", Range::All),
            ("bytes=0-1,3-4", Range::All),
            ("bytes=-", Range::All),
            ("bytes=a-b", Range::All),
            ("lines=1-2", Range::All),
        ] {
            assert_eq!(read(Some(header), 10), range, "{header}");
        }
        assert_eq!(read(None, 10), Range::All);
        assert_eq!(read(Some("bytes=0-"), 0), Range::Outside);
    }
}
