//! What the gateway says of a call: its id and its start to both sides, and to the function where the call comes from.
//!
//! To the function it is said beside the head and not in it: to put five fields into a map costs more than to write them.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Response};
use uuid::fmt::Hyphenated;

use crate::reply::{Body, CALL_ID, START_TIME};

/// The addresses that a call came by, the caller's first.
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The host that the caller asked for.
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// How the caller came.
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Who answered.
pub(crate) const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");
const MAX_CALL_ID: usize = 128;

/// What a call is known by, to whoever made it, to its function and in the log.
#[derive(Debug)]
pub struct Ids {
    call_id: CallId,
    /// Nanoseconds since 1970.
    start: u64,
}

#[derive(Debug)]
enum CallId {
    Given(HeaderValue),
    Made([u8; Hyphenated::LENGTH]),
}

impl Ids {
    /// The id that the caller gave it, if that is harmless, else a new one; it begins now.
    #[must_use]
    pub fn of(given: Option<&HeaderValue>) -> Self {
        let call_id = match given {
            Some(given) if is_usable(given) => CallId::Given(given.clone()),
            _ => CallId::new(),
        };
        let start = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        Self {
            call_id,
            start: u64::try_from(start).unwrap_or(u64::MAX),
        }
    }

    /// The call's id: visible ASCII, and not long.
    #[must_use]
    pub fn call_id(&self) -> &str {
        std::str::from_utf8(self.call_id.as_bytes()).unwrap_or_default()
    }

    /// Writes both behind the fields of a head, as HTTP/1.1 writes fields.
    fn write(&self, into: &mut Vec<u8>) {
        for piece in [
            b"x-call-id: ",
            self.call_id.as_bytes(),
            b"\r\nx-start-time: ",
            itoa::Buffer::new().format(self.start).as_bytes(),
            b"\r\n",
        ] {
            into.extend_from_slice(piece);
        }
    }

    /// Says both on a head, in place of all that it may say itself.
    pub fn put_on(&self, headers: &mut HeaderMap) {
        let call_id = match &self.call_id {
            CallId::Given(id) => id.clone(),
            CallId::Made(text) => HeaderValue::from_bytes(text).expect("a UUID is visible ASCII"),
        };
        headers.insert(CALL_ID, call_id);
        headers.insert(START_TIME, HeaderValue::from(self.start));
    }
}

impl CallId {
    fn new() -> Self {
        let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
        let mut text = [0; Hyphenated::LENGTH];
        id.hyphenated().encode_lower(&mut text);
        Self::Made(text)
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Given(id) => id.as_bytes(),
            Self::Made(text) => text,
        }
    }
}

/// An answer, and beside its head what is said on every one. A function may have said so itself: that does not count.
pub struct Answered {
    /// The answer.
    pub response: Response<Body>,
    /// The ids of its call.
    pub ids: Ids,
}

impl Answered {
    /// The answer with its ids in the head.
    #[must_use]
    pub fn whole(self) -> Response<Body> {
        let Self { mut response, ids } = self;
        let headers = response.headers_mut();
        ids.put_on(headers);
        headers.insert(SERVED_BY, HeaderValue::from_static(crate::SERVED_BY));
        response
    }

    /// Writes what is said beside the head behind its fields, as HTTP/1.1 writes fields.
    pub fn write_beside(ids: &Ids, into: &mut Vec<u8>) {
        ids.write(into);
        for piece in ["x-served-by: ", crate::SERVED_BY, "\r\n"] {
            into.extend_from_slice(piece.as_bytes());
        }
    }

    /// Whether a field of the head does not count.
    #[must_use]
    pub fn is_said_beside(name: &HeaderName) -> bool {
        name == CALL_ID || name == START_TIME || name == SERVED_BY
    }
}

/// What a function is told of a call, beside its head, which has nothing of it (`invoke/headers.rs`).
#[derive(Debug)]
pub struct Told<'a> {
    /// Its id and its start.
    pub ids: &'a Ids,
    /// The addresses that it came by.
    pub list: Cow<'a, HeaderValue>,
    /// How the caller came.
    pub proto: &'static str,
    /// The host that the caller asked for, if it is not the one that the head has.
    pub host: Option<HeaderValue>,
}

impl Told<'_> {
    /// Puts it on a head that has this `Host`, in place of all that it may say itself.
    pub fn put_on(&self, headers: &mut HeaderMap, host: Option<HeaderValue>) {
        self.ids.put_on(headers);
        headers.insert(FORWARDED_FOR, self.list.clone().into_owned());
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(self.proto));
        if let Some(host) = self.host.clone().or(host) {
            headers.insert(FORWARDED_HOST, host);
        }
    }

    /// Writes it behind the fields of a head that has this `Host`, as HTTP/1.1 writes fields.
    pub fn write(&self, into: &mut Vec<u8>, host: Option<&HeaderValue>) {
        self.ids.write(into);
        for piece in [
            b"x-forwarded-for: ",
            self.list.as_bytes(),
            b"\r\nx-forwarded-proto: ",
            self.proto.as_bytes(),
            b"\r\n",
        ] {
            into.extend_from_slice(piece);
        }
        if let Some(host) = self.host.as_ref().or(host) {
            for piece in [b"x-forwarded-host: ", host.as_bytes(), b"\r\n"] {
                into.extend_from_slice(piece);
            }
        }
    }
}

/// Visible ASCII and not too long: fit for a header, a log line and a path.
fn is_usable(id: &HeaderValue) -> bool {
    !id.is_empty() && id.len() <= MAX_CALL_ID && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_id_is_kept_only_if_it_is_harmless() {
        for good in ["abc-1", &"x".repeat(128)] {
            let given = HeaderValue::from_str(good).unwrap();
            assert_eq!(Ids::of(Some(&given)).call_id(), good);
        }
        let (long, bytes) = ("x".repeat(129), HeaderValue::from_bytes(b"\xe9").unwrap());
        let bad = ["", "a b", &long, "a\tb"].map(|bad| HeaderValue::from_str(bad).unwrap());
        for bad in bad.iter().chain([&bytes]) {
            assert_eq!(Ids::of(Some(bad)).call_id().len(), 36, "{bad:?}");
        }
        let made = [(); 2].map(|()| Ids::of(None).call_id().to_owned());
        let [one, two] = made.map(|id| HeaderValue::from_str(&id).unwrap());
        assert!(one != two && one.len() == 36 && is_usable(&one));
    }

    #[test]
    fn an_answer_has_the_ids_of_its_call_and_nobody_elses() {
        let mut headers = HeaderMap::new();
        for name in [CALL_ID, START_TIME, SERVED_BY] {
            headers.append(&name, HeaderValue::from_static("the function's"));
            headers.append(name, HeaderValue::from_static("twice"));
        }
        let mut response = Response::new("".into());
        *response.headers_mut() = headers;
        let ids = Ids::of(Some(&HeaderValue::from_static("a-1")));
        let whole = Answered { response, ids }.whole();
        assert_eq!(whole.headers().len(), 3);
        assert_eq!(whole.headers()[CALL_ID], "a-1");
    }

    #[test]
    fn what_is_written_is_what_is_put_on_a_head() {
        let ids = Ids::of(None);
        let (own, asked) = ("own.example", HeaderValue::from_static("shop.example"));
        for host in [None, Some(HeaderValue::from_static(own))] {
            let told = Told {
                ids: &ids,
                list: Cow::Owned(HeaderValue::from_static("1.2.3.4, 192.0.2.7")),
                proto: "https",
                host,
            };
            for host in [None, Some(&asked)] {
                let (mut written, mut headers) = (Vec::new(), HeaderMap::new());
                told.write(&mut written, host);
                let lines = String::from_utf8(written).unwrap();
                let pairs = lines.lines().map(|line| line.split_once(": ").unwrap());
                // Whatever the head has said itself.
                for (name, _) in pairs.clone() {
                    let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                    headers.append(name, HeaderValue::from_static("a lie"));
                }
                told.put_on(&mut headers, host.cloned());
                assert_eq!(headers.len(), pairs.clone().count());
                for (name, value) in pairs {
                    assert_eq!(headers[name], value);
                }
            }
        }
    }
}
