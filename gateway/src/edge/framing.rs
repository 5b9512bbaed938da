//! Whether a message can be read in one way only.

use hyper::header::{CONNECTION, HOST, HeaderValue, TE, TRAILER, TRANSFER_ENCODING};
use hyper::{Request, Version};

use crate::incoming::Incoming;
use crate::invoke::headers::{MOST_MEMBERS, is_host, members};
use crate::router::Refusal;

/// Whether the message is addressed and framed in one way only: what two readers could read differently goes no further.
pub(super) fn framing(request: &Request<Incoming>) -> Result<(), Refusal> {
    // One walk: to look a name up costs more than to pass a head's few fields.
    let (mut hosts, mut codings, mut listed) = (Only::default(), Only::default(), 0);
    for (name, value) in request.headers() {
        if name == HOST {
            hosts.see(value);
        } else if name == TRANSFER_ENCODING {
            codings.see(value);
        } else if name == CONNECTION || name == TRAILER || name == TE {
            listed += members(value);
        }
    }
    let addressed = match hosts {
        // RFC 9112 §3.2: it is empty where the target has no host.
        Only::One(host) => host.is_empty() || is_host(host.as_bytes()),
        // HTTP/2 has the authority in its place; before HTTP/1.1 there was none.
        Only::None => match request.version() {
            Version::HTTP_11 => false,
            Version::HTTP_2 => request.uri().authority().is_some(),
            _ => true,
        },
        Only::Several => false,
    };
    // No user is among the characters of a host.
    let is_misaddressed = request
        .uri()
        .authority()
        .is_some_and(|authority| !is_host(authority.as_str().as_bytes()));
    if !addressed || is_misaddressed {
        return Err(Refusal::BadHost);
    }
    if listed > MOST_MEMBERS {
        return Err(Refusal::TooManyMembers);
    }
    match codings {
        Only::None => Ok(()),
        Only::One(one) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Refusal::TransferCoding),
    }
}

/// A field that may stand in a head once.
#[derive(Default)]
enum Only<'a> {
    #[default]
    None,
    One(&'a HeaderValue),
    Several,
}

impl<'a> Only<'a> {
    fn see(&mut self, value: &'a HeaderValue) {
        *self = match self {
            Self::None => Self::One(value),
            _ => Self::Several,
        };
    }
}
