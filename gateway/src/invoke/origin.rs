//! Where a call comes from, as its function is told in `X-Forwarded-*`. Pure.
//!
//! A client's own word is replaced by what its connection shows. A trusted proxy's word is kept: then the connection shows the
//! proxy, and only the proxy knows who is behind it.

use std::borrow::Cow;
use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use super::headers::is_host;
use crate::proxies::Proxies;
use crate::told::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, Ids, Told};

/// What proxies call the ways in which a caller can come to them.
const SCHEMES: [&str; 4] = ["http", "https", "ws", "wss"];

/// The other end of a connection. Made once for it, not for each of its requests.
#[derive(Clone, Debug)]
pub struct Origin {
    address: IpAddr,
    /// The same as a header's value.
    written: HeaderValue,
    /// Whether it came by TLS.
    secure: bool,
    /// Whether it is a trusted proxy, which speaks for others.
    is_proxy: bool,
    /// The other end of the connection itself.
    socket: IpAddr,
}

impl Origin {
    /// What a connection shows.
    ///
    /// # Panics
    /// Never: an address is visible ASCII.
    #[must_use]
    pub fn of(address: IpAddr, secure: bool, is_proxy: bool) -> Self {
        let address = address.to_canonical();
        let written =
            HeaderValue::try_from(address.to_string()).expect("an address is visible ASCII");
        Self {
            address,
            written,
            secure,
            is_proxy,
            socket: address,
        }
    }

    /// The same, where a PROXY header named the caller: this is the other end of the connection itself.
    #[must_use]
    pub fn through(mut self, socket: IpAddr) -> Self {
        self.socket = socket.to_canonical();
        self
    }

    /// The other end of the connection itself: not what a header says of who is behind it.
    #[must_use]
    pub fn socket(&self) -> IpAddr {
        self.socket
    }

    /// The host that a trusted proxy was asked for, if it says so.
    #[must_use]
    pub fn forwarded_host<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        only(headers, &FORWARDED_HOST).filter(|_| self.is_proxy)
    }

    /// The caller's address: the connection's, or by a trusted proxy's word that of whoever is behind it.
    #[must_use]
    pub fn caller(&self, headers: &HeaderMap, proxies: &Proxies) -> IpAddr {
        if self.is_proxy {
            proxies.caller_behind(self.address, headers.get_all(FORWARDED_FOR).iter())
        } else {
            self.address
        }
    }

    /// What the function is told: by what the connection shows, and by what a trusted proxy says of its caller, as far as that
    /// makes sense.
    pub(super) fn told<'a>(&'a self, headers: &HeaderMap, ids: &'a Ids) -> Told<'a> {
        let mut told = Told {
            ids,
            list: Cow::Borrowed(&self.written),
            proto: if self.secure { "https" } else { "http" },
            host: None,
        };
        if self.is_proxy {
            if let Some(list) = self.appended_to(headers) {
                told.list = Cow::Owned(list);
            }
            if let Some(proto) = only(headers, &FORWARDED_PROTO).and_then(scheme) {
                told.proto = proto;
            }
            told.host = only(headers, &FORWARDED_HOST)
                .filter(|host| is_host(host.as_bytes()))
                .cloned();
        }
        told
    }

    /// All addresses that proxies saw, and the last proxy's own.
    fn appended_to(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut list = String::new();
        let lines = headers.get_all(FORWARDED_FOR).iter();
        for line in lines.filter_map(|line| line.to_str().ok()) {
            list += line;
            list += ", ";
        }
        list += self.written.to_str().ok()?;
        HeaderValue::try_from(list).ok()
    }
}

/// The value of a field that stands there once: of two, nobody knows which one holds.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn scheme(value: &HeaderValue) -> Option<&'static str> {
    let known = |scheme: &&str| value.as_bytes().eq_ignore_ascii_case(scheme.as_bytes());
    SCHEMES.into_iter().find(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a function is told of a call from `10.0.0.1`.
    fn told(is_proxy: bool, fields: &[(&'static str, &str)]) -> [String; 3] {
        let pairs = fields.iter().map(|(name, value)| {
            let value = HeaderValue::from_str(value).unwrap();
            (HeaderName::from_static(name), value)
        });
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        let origin = Origin::of(IpAddr::from([10, 0, 0, 1]), false, is_proxy);
        let ids = Ids::of(None);
        let told = origin.told(&headers, &ids);
        let host = HeaderValue::from_static("shop.example");
        told.put_on(&mut headers, Some(host));
        [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST]
            .map(|name| only(&headers, &name).unwrap().to_str().unwrap().to_owned())
    }

    #[test]
    fn a_trusted_proxys_word_is_kept_and_nobody_elses() {
        let fields = [
            ("x-forwarded-for", "1.2.3.4, 192.0.2.7"),
            ("x-forwarded-proto", "HTTPS"),
            ("x-forwarded-host", "www.example:8443"),
        ];
        let kept = ["1.2.3.4, 192.0.2.7, 10.0.0.1", "https", "www.example:8443"];
        assert_eq!(told(true, &fields), kept);
        assert_eq!(told(false, &fields), ["10.0.0.1", "http", "shop.example"]);
    }

    #[test]
    fn several_lists_are_one() {
        let fields = [
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-for", "192.0.2.7"),
        ];
        assert_eq!(told(true, &fields)[0], "1.2.3.4, 192.0.2.7, 10.0.0.1");
    }

    #[test]
    fn what_makes_no_sense_is_replaced_by_what_the_connection_shows() {
        for proto in ["", "https, http", "gopher", "https "] {
            assert_eq!(
                told(true, &[("x-forwarded-proto", proto)])[1],
                "http",
                "{proto:?}"
            );
        }
        for host in ["", "a, b", "a/b", "a b", "<a>"] {
            assert_eq!(
                told(true, &[("x-forwarded-host", host)])[2],
                "shop.example",
                "{host:?}"
            );
        }
        let twice = [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(told(true, &twice)[1], "http");
        assert_eq!(told(true, &[])[0], "10.0.0.1");
    }

    #[test]
    fn an_address_is_told_in_its_own_clothes() {
        let origin = Origin::of("::ffff:192.0.2.7".parse().unwrap(), true, false);
        let ids = Ids::of(None);
        let told = origin.told(&HeaderMap::new(), &ids);
        assert_eq!(told.list.as_bytes(), b"192.0.2.7");
        assert_eq!((told.proto, told.host), ("https", None));
    }

    #[test]
    fn the_caller_is_whoever_is_behind_a_trusted_proxy() {
        let proxies = Proxies::parse("10.0.0.0/8").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(
            FORWARDED_FOR,
            HeaderValue::from_static("1.2.3.4, 192.0.2.7"),
        );
        let address = IpAddr::from([10, 0, 0, 1]);
        for (is_proxy, caller) in [(true, IpAddr::from([192, 0, 2, 7])), (false, address)] {
            let origin = Origin::of(address, false, is_proxy);
            assert_eq!(origin.caller(&headers, &proxies), caller);
        }
    }
}
