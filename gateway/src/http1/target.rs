//! The target of a request (RFC 9112 §3.2): what `Uri` can hold of it, and the bytes as they came where that is less.
//!
//! curl and scripts send characters that RFC 3986 wants escaped (`"`, `<`, `>`, a back-tick, bytes that are not UTF-8). None of them
//! can be read in two ways, so the function gets them as they came; the gateway itself sees them escaped.

use bytes::Bytes;
use hyper::{Method, Uri};

/// The bytes that a target may have, escaped: what `Uri` can hold.
pub(crate) const LONGEST: usize = u16::MAX as usize - 1;

/// The path and the query as they came, for a function. It stands among a request's extensions if `Uri` cannot hold them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTarget(Bytes);

/// Why a text is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotATarget {
    Malformed(&'static str),
    TooLong,
}

impl RawTarget {
    /// What is left of it behind so many bytes of the path; a path begins with `/`.
    #[must_use]
    pub fn behind(&self, taken: usize) -> Self {
        let rest = self.0.slice(taken.min(self.0.len())..);
        match rest.first() {
            Some(b'/') => Self(rest),
            _ => Self([b"/", &rest[..]].concat().into()),
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The beginning of a request whose target is not UTF-8, which the parser takes for an error, with other bytes in place of those. `None`
/// if there is no such target.
pub(crate) fn as_text(request: &[u8]) -> Option<Vec<u8>> {
    let line = request.split(|byte| *byte == b'\n').next()?;
    let begin = line.iter().position(|byte| *byte == b' ')? + 1;
    let length = line[begin..].iter().position(|byte| *byte == b' ');
    let end = length.map_or(line.len(), |length| begin + length);
    std::str::from_utf8(&line[begin..end]).err()?;
    let mut text = request.to_vec();
    for byte in text[begin..end].iter_mut().filter(|byte| !byte.is_ascii()) {
        *byte = b'~';
    }
    Some(text)
}

/// Whether this is all of a target of so many bytes, and not one that was cut at its fragment or has an authority.
pub(crate) fn is_whole(uri: &Uri, length: usize) -> bool {
    uri.authority().is_none()
        && uri
            .path_and_query()
            .is_some_and(|target| target.as_str().len() == length)
}

/// Reads a target that [`is_whole`] does not hold for. No control character, blank or DEL is in it: the parser refuses those.
pub(crate) fn read(text: Bytes, method: &Method) -> Result<(Uri, Option<RawTarget>), NotATarget> {
    const MALFORMED: NotATarget = NotATarget::Malformed("the request's target is none");
    if text.contains(&b'#') {
        return Err(NotATarget::Malformed(
            "the request's target has a fragment (#), which is never sent: write %23 for the character",
        ));
    }
    if *method == Method::CONNECT {
        let authority = Uri::from_maybe_shared(text).map_err(|_| MALFORMED)?;
        return Ok((authority, None));
    }
    let path = path_begins(&text).ok_or(MALFORMED)?;
    let mut whole = text[..path].to_vec();
    escape(&text[path..], &mut whole);
    let is_escaped = whole.len() != text.len();
    if whole.len() > LONGEST {
        return Err(NotATarget::TooLong);
    }
    let uri = Uri::from_maybe_shared(Bytes::from(whole)).map_err(|_| MALFORMED)?;
    let raw = is_escaped.then(|| RawTarget(text.slice(path..)).behind(0));
    Ok((uri, raw))
}

/// Where the path of a target begins: at once, or behind a scheme and an authority.
fn path_begins(text: &[u8]) -> Option<usize> {
    if text.starts_with(b"/") {
        return Some(0);
    }
    let colon = text.iter().position(|byte| *byte == b':')?;
    let is_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let authority = text[colon..].strip_prefix(b"://")?;
    if !text[..colon].iter().all(is_scheme) {
        return None;
    }
    let end = authority.iter().position(|byte| b"/?".contains(byte));
    Some(colon + 3 + end.unwrap_or(authority.len()))
}

/// Writes a path and a query as `Uri` takes them.
fn escape(target: &[u8], into: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in target {
        if byte.is_ascii_graphic() && !b"\"<>`".contains(&byte) {
            into.push(byte);
        } else {
            let digit = |at: u8| DIGITS[usize::from(at & 15)];
            into.extend([b'%', digit(byte >> 4), digit(byte)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(text: &'static [u8]) -> Result<(String, Option<Vec<u8>>), NotATarget> {
        let (uri, raw) = read(Bytes::from_static(text), &Method::GET)?;
        Ok((uri.to_string(), raw.map(|raw| raw.as_bytes().to_vec())))
    }

    #[test]
    fn raw_characters_are_escaped_for_the_gateway_alone() {
        for (text, uri, raw) in [
            (
                &b"/f?q={\"a\":1}"[..],
                "/f?q={%22a%22:1}",
                &b"/f?q={\"a\":1}"[..],
            ),
            (b"/f/<a>`|^\\", "/f/%3Ca%3E%60|^\\", b"/f/<a>`|^\\"),
            (b"/f/\xe9?\xff", "/f/%E9?%FF", b"/f/\xe9?\xff"),
            (b"http://h:1/f?<", "http://h:1/f?%3C", b"/f?<"),
            (b"http://h?<", "http://h/?%3C", b"/?<"),
        ] {
            assert_eq!(get(text), Ok((uri.to_owned(), Some(raw.to_vec()))));
        }
        let plain = get(b"http://h/f?a=b").unwrap();
        assert_eq!(plain, ("http://h/f?a=b".to_owned(), None));
    }

    #[test]
    fn what_is_left_behind_a_function_s_name_begins_with_a_slash() {
        let (_, raw) = read(Bytes::from_static(b"/function/f?\""), &Method::GET).unwrap();
        assert_eq!(raw.unwrap().behind(11).as_bytes(), b"/?\"");
        let (_, raw) = read(Bytes::from_static(b"/function/f/<?"), &Method::GET).unwrap();
        assert_eq!(raw.unwrap().behind(11).as_bytes(), b"/<?");
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in [
            &b"/f#x"[..],
            b"/f?a#",
            b"http://h/#",
            b"f",
            b"h:80",
            b"http:/f",
            b"http:///f",
            b"<://h/f",
            b"//h#",
        ] {
            let read = get(text);
            assert!(matches!(read, Err(NotATarget::Malformed(_))), "{read:?}");
        }
        let long = Bytes::from([&b"/"[..], &[b'<'; 30_000]].concat());
        assert_eq!(read(long, &Method::GET), Err(NotATarget::TooLong));
    }
}
