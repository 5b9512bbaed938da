//! Whether a message can be read in one way only.

use hyper::header::{HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::{Request, Version};

use crate::incoming::Incoming;
use crate::invoke::headers::is_host;
use crate::router::Refusal;

/// Whether the message is addressed and framed in one way only: what two readers could read differently goes no further.
pub(super) fn framing(request: &Request<Incoming>) -> Result<(), Refusal> {
    // One walk: to look a name up costs more than to pass a head's few fields.
    let (mut hosts, mut codings) = (Only::default(), Only::default());
    for (name, value) in request.headers() {
        if name == HOST {
            hosts.see(value);
        } else if name == TRANSFER_ENCODING {
            codings.see(value);
        }
    }
    let addressed = match hosts {
        Only::One(host) => is_host(host),
        // HTTP/2 has the authority in its place; before HTTP/1.1 there was none.
        Only::None => match request.version() {
            Version::HTTP_11 => false,
            Version::HTTP_2 => request.uri().authority().is_some(),
            _ => true,
        },
        Only::Several => false,
    };
    let has_user = request
        .uri()
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'));
    if !addressed || has_user {
        return Err(Refusal::BadHost);
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
