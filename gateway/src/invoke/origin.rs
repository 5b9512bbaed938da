//! Where a call comes from, as its function is told in `X-Forwarded-*`. Pure.
//!
//! A client's own word is replaced by what its connection shows. A trusted proxy's word is kept: then the connection shows the
//! proxy, and only the proxy knows who is behind it.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{HOST, HeaderName, HeaderValue};

use super::headers::is_host;
use crate::proxies::Proxies;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

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
}

/// What a proxy says of its caller, as far as it makes sense.
#[derive(Debug, Default)]
pub(super) struct Said {
    list: Option<HeaderValue>,
    proto: Option<HeaderValue>,
    host: Option<HeaderValue>,
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
        }
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

    /// What the other end says of its caller; nothing, if its word does not count.
    pub(super) fn hear(&self, headers: &HeaderMap) -> Said {
        if !self.is_proxy {
            return Said::default();
        }
        Said {
            list: self.appended_to(headers),
            proto: only(headers, &FORWARDED_PROTO).and_then(scheme),
            host: only(headers, &FORWARDED_HOST)
                .filter(|host| !host.is_empty() && is_host(host))
                .cloned(),
        }
    }

    /// Tells the function, in place of all that a head said before.
    pub(super) fn tell(&self, headers: &mut HeaderMap, said: Said) {
        let list = said.list.unwrap_or_else(|| self.written.clone());
        headers.insert(FORWARDED_FOR, list);
        let shown = || HeaderValue::from_static(if self.secure { "https" } else { "http" });
        headers.insert(FORWARDED_PROTO, said.proto.unwrap_or_else(shown));
        if let Some(host) = said.host.or_else(|| headers.get(HOST).cloned()) {
            headers.insert(FORWARDED_HOST, host);
        }
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

fn scheme(value: &HeaderValue) -> Option<HeaderValue> {
    let known = |scheme: &&str| value.as_bytes().eq_ignore_ascii_case(scheme.as_bytes());
    SCHEMES
        .into_iter()
        .find(known)
        .map(HeaderValue::from_static)
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
        headers.insert(HOST, HeaderValue::from_static("shop.example"));
        let origin = Origin::of(IpAddr::from([10, 0, 0, 1]), false, is_proxy);
        let said = origin.hear(&headers);
        origin.tell(&mut headers, said);
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
        let mut headers = HeaderMap::new();
        origin.tell(&mut headers, Said::default());
        assert_eq!(headers[FORWARDED_FOR], "192.0.2.7");
        assert_eq!(headers[FORWARDED_PROTO], "https");
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
