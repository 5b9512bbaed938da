//! The head of a request as it came, checked before hyper parses it; pure.
//!
//! A head that can be read in two ways is refused with a sentence. A target with characters that `http::Uri` does not take
//! (`{`, `"`, bytes that are not UTF-8) is escaped for hyper, and its own bytes are kept for the function.

use bytes::Bytes;
use hyper::http::request::Parts;

use crate::authority::is_host;
use crate::refusal::Refusal;

/// The longest request target; hyper takes one byte less than 64 KiB.
const LONGEST_TARGET: usize = 65_534;

/// The most header fields of a request, as hyper has it.
pub(crate) const MOST_FIELDS: usize = 100;

/// How the body behind a head is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes; 0 is no body.
    Length(u64),
    /// Chunked.
    Chunked,
}

/// What hyper gets instead of the head as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) framing: Framing,
    /// The request line, where it differs from the one that came.
    pub(crate) line: Option<Vec<u8>>,
    /// Path and query as they came, where hyper's are escaped.
    pub(crate) raw_target: Option<Bytes>,
    /// Where the fields begin.
    pub(crate) fields_at: usize,
}

/// Path and query as they came, kept with a request whose escaped ones hyper has read.
#[derive(Debug, Clone)]
pub(crate) struct RawTarget(pub(crate) Bytes);

/// Path and query of a request as they came, where hyper's are escaped.
pub(crate) fn raw_target(head: &Parts) -> Option<&Bytes> {
    head.extensions.get::<RawTarget>().map(|raw| &raw.0)
}

/// The query of a request as it came.
pub(crate) fn query(head: &Parts) -> Option<&[u8]> {
    match raw_target(head) {
        Some(raw) => {
            let at = raw.iter().position(|byte| *byte == b'?')?;
            Some(&raw[at + 1..])
        }
        None => head.uri.query().map(str::as_bytes),
    }
}

fn malformed(mistake: &str) -> Refusal {
    Refusal::Malformed {
        mistake: mistake.to_owned(),
    }
}

/// Checks a whole head, its closing empty line included.
pub(crate) fn check(head: &[u8]) -> Result<Checked, Refusal> {
    let line_end = head.iter().position(|byte| *byte == b'\n');
    let line_end = line_end.ok_or_else(|| malformed("it has no request line"))?;
    let line = trimmed(&head[..line_end]);
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(malformed(
            "the request line is not a method, a target without blanks, and a version",
        ));
    };
    let fields_at = line_end + 1;
    let framing = framing(&head[fields_at..], version)?;
    let own = if method == b"CONNECT" {
        target
    } else {
        path_and_query(target)?
    };
    if target.len() > LONGEST_TARGET {
        return Err(Refusal::TargetTooLong {
            limit: LONGEST_TARGET,
        });
    }
    if own.iter().copied().all(is_taken_by_hyper) {
        return Ok(Checked {
            framing,
            line: None,
            raw_target: None,
            fields_at,
        });
    }
    let mut escaped = [method, b" ", &target[..target.len() - own.len()]].concat();
    for byte in own {
        if is_taken_by_hyper(*byte) {
            escaped.push(*byte);
        } else {
            escaped.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    escaped.extend_from_slice(&[b" ", version, b"\r\n"].concat());
    Ok(Checked {
        framing,
        line: Some(escaped),
        raw_target: Some(Bytes::copy_from_slice(own)),
        fields_at,
    })
}

/// Path and query of a target, checked.
fn path_and_query(target: &[u8]) -> Result<&[u8], Refusal> {
    if target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return Err(malformed("the request target has a control character"));
    }
    if target.contains(&b'#') {
        return Err(malformed("the request target has a fragment (#)"));
    }
    if target.first() == Some(&b'/') || target == b"*" {
        return Ok(target);
    }
    let scheme_end = target.windows(3).position(|three| three == b"://");
    let scheme_end = scheme_end
        .filter(|at| {
            let scheme = &target[..*at];
            scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https")
        })
        .ok_or_else(|| malformed("the request target does not begin with a slash"))?;
    let rest = &target[scheme_end + 3..];
    let authority_end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
    let (authority, own) = rest.split_at(authority_end.unwrap_or(rest.len()));
    if authority.is_empty() || !is_host(authority) {
        return Err(malformed("the host in the request target is not one"));
    }
    Ok(own)
}

/// What `http::Uri` takes in a path as well as in a query, and means the same by.
fn is_taken_by_hyper(byte: u8) -> bool {
    byte.is_ascii_graphic()
        && !matches!(
            byte,
            b'"' | b'<' | b'>' | b'`' | b'{' | b'}' | b'|' | b'^' | b'\\'
        )
}

/// How the body is delimited; checks the fields on the way.
fn framing(fields: &[u8], version: &[u8]) -> Result<Framing, Refusal> {
    let (mut length, mut is_chunked, mut count) = (None, false, 0);
    for line in fields.split(|byte| *byte == b'\n').map(trimmed) {
        if line.is_empty() {
            continue;
        }
        count += 1;
        // hyper refuses what is no field.
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = value.iter().all(u8::is_ascii_digit) && !value.is_empty();
            let this = std::str::from_utf8(value)
                .ok()
                .filter(|_| digits)
                .and_then(|text| text.parse::<u64>().ok())
                .ok_or_else(|| malformed("Content-Length is not a number"))?;
            if length.replace(this).is_some_and(|before| before != this) {
                return Err(malformed(
                    "there are two different values of Content-Length",
                ));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if is_chunked || !value.eq_ignore_ascii_case(b"chunked") || version != b"HTTP/1.1" {
                return Err(malformed("Transfer-Encoding is not just chunked"));
            }
            is_chunked = true;
        } else if name.eq_ignore_ascii_case(b"host") && !is_host(value) {
            return Err(malformed("the value of Host is not a host"));
        }
    }
    match (is_chunked, length) {
        _ if count > MOST_FIELDS => Err(Refusal::TooManyFields { limit: MOST_FIELDS }),
        (true, Some(_)) => Err(malformed(
            "it has both Content-Length and Transfer-Encoding",
        )),
        (true, None) => Ok(Framing::Chunked),
        (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(target: &[u8]) -> Result<Checked, Refusal> {
        check(&[b"GET ", target, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat())
    }

    #[test]
    fn targets_that_can_be_read_in_one_way_are_taken() {
        assert_eq!(of(b"/a?b=%20").unwrap().line, None);
        let checked = of(b"/{\xff}?q={\"a\":1}|^`<>\\").unwrap();
        assert_eq!(
            checked.line.unwrap(),
            b"GET /%7B%FF%7D?q=%7B%22a%22:1%7D%7C%5E%60%3C%3E%5C HTTP/1.1\r\n"
        );
        assert_eq!(
            checked.raw_target.unwrap(),
            &b"/{\xff}?q={\"a\":1}|^`<>\\"[..]
        );
        let absolute = of(b"http://h:80/{").unwrap();
        assert_eq!(absolute.raw_target.unwrap(), "/{");
        assert_eq!(absolute.line.unwrap(), b"GET http://h:80/%7B HTTP/1.1\r\n");
    }

    #[test]
    fn targets_that_can_be_read_in_two_ways_are_refused() {
        for target in [
            &b"/a#b"[..],
            b"/a\x01",
            b"/a\x7f",
            b"/a\tb",
            b"/a b",
            b"",
            b"a",
            b"h:80",
            b"ftp://h/",
            b"http:///a",
            b"http://u@h/",
            b"http://a,b/",
            b"http://h:x/",
            b"http://h:99999/",
        ] {
            let refusal = of(target).unwrap_err();
            assert_eq!(refusal.status(), 400, "{}", String::from_utf8_lossy(target));
        }
        assert_eq!(of(&[b'/'; 70_000]).unwrap_err().status(), 414);
    }

    #[test]
    fn fields_say_how_long_the_body_is_in_one_way() {
        let head = |fields: &str| check(format!("POST / HTTP/1.1\r\n{fields}\r\n").as_bytes());
        let framing = |fields: &str| head(fields).unwrap().framing;
        assert_eq!(framing("Host: [::1]:80\r\n"), Framing::Length(0));
        assert_eq!(framing("content-length: 7\r\n"), Framing::Length(7));
        assert_eq!(framing("transfer-encoding: Chunked\r\n"), Framing::Chunked);
        for fields in [
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length:\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
            "Host: a,b\r\n",
            "Host: a:b\r\n",
            "Host: :80\r\n",
            "Host: u@a\r\n",
            "Host: a b\r\n",
            "Host: a/b\r\n",
            "Host: [::1\r\n",
            "Host: a:65536\r\n",
        ] {
            assert_eq!(head(fields).unwrap_err().status(), 400, "{fields}");
        }
        assert_eq!(head(&"A: b\r\n".repeat(101)).unwrap_err().status(), 431);
        assert!(head(&"A: b\r\n".repeat(100)).is_ok());
    }
}
