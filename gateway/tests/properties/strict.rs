//! A second reader of requests, to compare with: it has all bytes at once, leaves heads to httparse, and allows what the documents say.

use httparse::{EMPTY_HEADER, Status};
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::{HeaderMap, Method, Uri};

/// What HTTP/2 begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// So many fields are always read; the service holds to a smaller limit.
const FEWEST_FIELDS: usize = 100;
const LONGEST_TARGET: usize = 65_534;
const LONGEST_EXTENSION: usize = 4096;
const LARGEST_TRAILERS: usize = 16 * 1024;
const MOST_TRAILERS: usize = 64;

#[derive(Debug, PartialEq)]
pub struct Message {
    pub method: Method,
    pub uri: Uri,
    pub is_old: bool,
    pub headers: HeaderMap,
    pub body: Body,
}

/// As much of a body as came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Body {
    pub data: Vec<u8>,
    pub trailers: HeaderMap,
    pub is_whole: bool,
}

/// Why no request follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// There are no more bytes, perhaps in the middle of a head.
    OfBytes,
    /// The last body breaks off.
    OfBody,
    /// What follows is none.
    Refused,
    /// The last one said so, or can be read in two ways.
    Said,
    /// HTTP/2 follows.
    Http2,
}

/// What a head says of what follows it.
struct Framing {
    is_chunked: bool,
    length: usize,
    is_last: bool,
}

/// An answer, and how long it is with its head.
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    /// It says so.
    pub is_last: bool,
    pub body: Body,
    pub length: usize,
}

/// All requests, why there are no more, and where the first byte stands that is in none of them.
pub fn read(bytes: &[u8], most_bytes: usize, most_fields: usize) -> (Vec<Message>, End, usize) {
    let (mut messages, mut at) = (Vec::new(), 0);
    let end = loop {
        let left = &bytes[at..];
        if messages.is_empty() && left.starts_with(PREFACE) {
            break End::Http2;
        }
        if messages.is_empty() && PREFACE.starts_with(left) {
            break End::OfBytes;
        }
        let mut fields = vec![EMPTY_HEADER; most_fields.max(FEWEST_FIELDS)];
        let mut parsed = httparse::Request::new(&mut fields);
        let (text, target) = readable(left);
        let length = match parsed.parse(&text) {
            Ok(Status::Complete(length)) if length <= most_bytes => length,
            Ok(Status::Partial) => break End::OfBytes,
            _ => break End::Refused,
        };
        let Some((mut message, framing)) = message(&parsed, target) else {
            break End::Refused;
        };
        let rest = &left[length..];
        let took = if framing.is_chunked {
            chunks(rest, &mut message.body)
        } else {
            let here = framing.length.min(rest.len());
            message.body.data = rest[..here].to_vec();
            (here == framing.length).then_some(here)
        };
        message.body.is_whole = took.is_some();
        messages.push(message);
        match took {
            None => break End::OfBody,
            Some(took) => at += length + took,
        }
        if framing.is_last {
            break End::Said;
        }
    };
    (messages, end, at)
}

fn message(parsed: &httparse::Request<'_, '_>, target: &[u8]) -> Option<(Message, Framing)> {
    if target.len() > LONGEST_TARGET {
        return None;
    }
    let mut message = Message {
        method: parsed.method?.parse().ok()?,
        uri: uri(parsed.method?, target)?,
        is_old: parsed.version? == 0,
        headers: map(parsed.headers)?,
        body: Body::default(),
    };
    let headers = &mut message.headers;
    let all = |name| -> Vec<&[u8]> {
        headers
            .get_all(name)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect()
    };
    let says = |token: &str| {
        let joined = all("connection").join(&b","[..]);
        let mut tokens = joined.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        tokens.any(|one| one.eq_ignore_ascii_case(token.as_bytes()))
    };
    let is_kept = !says("close") && (!message.is_old || says("keep-alive"));
    let lengths: Vec<_> = all("content-length")
        .into_iter()
        .map(number)
        .collect::<Option<_>>()?;
    if lengths.iter().any(|length| *length != lengths[0]) {
        return None;
    }
    let codings = all("transfer-encoding");
    let is_plain = matches!(codings[..], [coding] if coding.eq_ignore_ascii_case(b"chunked"));
    let codings = codings.join(&b","[..]);
    let is_chunked = headers.contains_key(TRANSFER_ENCODING);
    let ends = codings.to_ascii_lowercase();
    let ends = ends.rsplit(|byte| *byte == b',').next()?.trim_ascii() == b"chunked";
    if is_chunked && (message.is_old || !ends) {
        return None;
    }
    let framing = Framing {
        is_chunked,
        length: lengths.first().copied().unwrap_or_default(),
        is_last: !is_kept || is_chunked && !(is_plain && lengths.is_empty()),
    };
    // One length is enough; beside a coding it does not count.
    let length = headers.remove(CONTENT_LENGTH).filter(|_| !is_chunked);
    headers.extend(length.map(|length| (CONTENT_LENGTH, length)));
    Some((message, framing))
}

/// The first answer, as much of it as there is; `None` if there is no whole head.
pub fn answer(bytes: &[u8], is_to_head: bool) -> Option<Answer> {
    let mut fields = [EMPTY_HEADER; FEWEST_FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let Status::Complete(length) = parsed.parse(bytes).unwrap() else {
        return None;
    };
    let (code, headers) = (parsed.code.unwrap(), map(parsed.headers).unwrap());
    let (mut body, rest) = (Body::default(), &bytes[length..]);
    let is_last = headers
        .get("connection")
        .is_some_and(|said| said == "close");
    let took = if is_to_head || code == 100 {
        Some(0)
    } else if let Some(said) = headers.get(CONTENT_LENGTH) {
        let said = number(said.as_bytes()).unwrap();
        body.data = rest[..said.min(rest.len())].to_vec();
        Some(said).filter(|said| *said <= rest.len())
    } else if headers.contains_key(TRANSFER_ENCODING) {
        chunks(rest, &mut body)
    } else {
        assert!(is_last, "an answer without an end");
        body.data = rest.to_vec();
        Some(rest.len())
    };
    body.is_whole = took.is_some();
    let length = length + took.unwrap_or(rest.len());
    Some(Answer {
        code,
        headers,
        is_last,
        body,
        length,
    })
}

fn map(fields: &[httparse::Header<'_>]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(headers)
}

/// The same with a target that the parser can read, and the target: behind the first blank of the first line that is not empty.
fn readable(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let empty = text.iter().take_while(|byte| b"\r\n".contains(byte));
    let start = empty.count();
    let is_end = |byte: &u8| b" \n".contains(byte);
    let first = text[start..].iter().position(is_end).unwrap_or_default();
    let begin = (start + first + 1).min(text.len());
    let length = text[begin..].iter().position(is_end);
    let end = length.map_or(text.len(), |length| begin + length);
    let mut readable = text.to_vec();
    if std::str::from_utf8(&text[begin..end]).is_err() {
        for byte in readable[begin..end]
            .iter_mut()
            .filter(|byte| !byte.is_ascii())
        {
            *byte = b'~';
        }
    }
    (readable, &text[begin..end])
}

/// A target: a path, or a path behind a scheme and an authority; what `Uri` cannot hold is escaped.
fn uri(method: &str, bytes: &[u8]) -> Option<Uri> {
    let target = &String::from_utf8_lossy(bytes);
    if target.contains('#') {
        return None;
    }
    if method == "CONNECT" {
        return target.parse().ok();
    }
    if target == "*" || target.starts_with('/') || target.contains("://") {
        let mut escaped = String::new();
        for &byte in bytes {
            match byte {
                b'!'..=b'~' if !b"\"<>`".contains(&byte) => escaped.push(char::from(byte)),
                _ => escaped += &format!("%{byte:02X}"),
            }
        }
        let is_text = std::str::from_utf8(bytes).is_ok();
        let plain = target.parse().ok().filter(|_| is_text);
        let uri: Uri = plain.or_else(|| escaped.parse().ok())?;
        return uri.path_and_query().is_some().then_some(uri);
    }
    None
}

fn number(digits: &[u8]) -> Option<usize> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits)
        .ok()?
        .parse()
        .ok()
        .filter(|_| is_number)
}

/// Takes a chunked body; says how long it is with its framing, if it is whole and right.
fn chunks(bytes: &[u8], body: &mut Body) -> Option<usize> {
    let mut at = 0;
    loop {
        let left = &bytes[at..];
        let line = left.windows(2).position(|two| two == b"\r\n")?;
        let digits = left
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let extension = &left[digits.min(line)..line];
        let behind_blanks = extension.iter().find(|byte| !b" \t".contains(byte));
        let begins = behind_blanks.is_none_or(|first| *first == b';');
        let is_control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
        let is_short = extension.len() <= LONGEST_EXTENSION + 1;
        if !begins || !is_short || extension.iter().any(is_control) {
            return None;
        }
        let size = std::str::from_utf8(&left[..digits]).ok()?;
        let size = u64::from_str_radix(size, 16)
            .ok()
            .filter(|_| digits <= 16)?;
        at += line + 2;
        if size == 0 {
            return Some(at + trailers(&bytes[at..], body)?);
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let left = &bytes[at..];
        body.data.extend(&left[..size.min(left.len())]);
        if !left.get(size..)?.starts_with(b"\r\n") {
            return None;
        }
        at += size + 2;
    }
}

fn trailers(bytes: &[u8], body: &mut Body) -> Option<usize> {
    let mut fields = [EMPTY_HEADER; MOST_TRAILERS];
    let Ok(Status::Complete((length, fields))) = httparse::parse_headers(bytes, &mut fields) else {
        return None;
    };
    let lines = bytes[..length].split_inclusive(|byte| *byte == b'\n');
    if length > LARGEST_TRAILERS || !lines.into_iter().all(|line| line.ends_with(b"\r\n")) {
        return None;
    }
    body.trailers = map(fields)?;
    Some(length)
}
