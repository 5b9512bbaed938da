//! The proxies before the gateway: whose word about a caller counts, and who the caller then is. Pure.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hyper::header::HeaderValue;

/// Addresses of one list that are looked at: no call comes through so many proxies, and a longer list costs no more.
const MOST_HOPS: usize = 32;

/// The proxies that the operator trusts. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies(Arc<[Network]>);

/// All addresses that begin with the same bits. IPv4 in IPv6's clothes is IPv4 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Proxies {
    /// Reads addresses and networks (`192.0.2.7, 10.0.0.0/8, fd00::/8`), or `off`.
    ///
    /// # Errors
    /// What is wrong with each of those that are none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut networks = Vec::new();
        let mut mistakes = Vec::new();
        let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
        for part in parts.filter(|_| text != "off") {
            match Network::parse(part) {
                Ok(network) => networks.push(network),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if mistakes.is_empty() {
            Ok(Self(networks.into()))
        } else {
            Err(mistakes.join("; "))
        }
    }

    /// The networks that are written like this, as Docker writes subnets: an address inside stands for its network, and what is
    /// none is left out.
    pub fn of_subnets<'a>(subnets: impl Iterator<Item = &'a str>) -> Self {
        let read = |text: &str| {
            let (address, prefix) = text.split_once('/')?;
            let (address, prefix) = (address.parse::<IpAddr>().ok()?, prefix.parse().ok()?);
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let network = Network { address, prefix };
            (prefix <= bits).then_some(network)
        };
        Self(subnets.filter_map(read).collect())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is the address of a trusted proxy.
    #[must_use]
    pub fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }

    /// Who is behind a peer, by what `X-Forwarded-For` says: the right-most address that is not a trusted proxy's, for what
    /// is left of it may be the caller's invention. Ends early at what is no address: whoever said that is the last one known.
    #[must_use]
    pub fn caller_behind<'a>(
        &self,
        peer: IpAddr,
        lists: impl DoubleEndedIterator<Item = &'a HeaderValue>,
    ) -> IpAddr {
        let hops = lists
            .rev()
            .flat_map(|list| list.as_bytes().rsplit(|byte| *byte == b','));
        let mut caller = peer.to_canonical();
        for hop in hops.take(MOST_HOPS) {
            match address(hop) {
                Some(address) if self.trust(caller) => caller = address,
                _ => break,
            }
        }
        caller
    }
}

impl Network {
    fn parse(text: &str) -> Result<Self, String> {
        let none =
            || format!("'{text}' is no address such as 192.0.2.7 or network such as 10.0.0.0/8");
        let (address, prefix) = text
            .split_once('/')
            .map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let written: IpAddr = address.parse().map_err(|_| none())?;
        let address = written.to_canonical();
        let bits = if address.is_ipv4() { 32 } else { 128 };
        // A network of IPv4 in IPv6's clothes counts the 96 bits of the clothes.
        let clothes = if written == address { 0 } else { 96 };
        let prefix = prefix.map_or(Ok(bits + clothes), |prefix| {
            // Not what `parse` takes besides digits.
            let is_number = prefix.bytes().all(|byte| byte.is_ascii_digit());
            is_number
                .then(|| prefix.parse().ok())
                .flatten()
                .ok_or_else(none)
        })?;
        let network = match u32::checked_sub(prefix, clothes) {
            Some(prefix) if prefix <= bits => Self { address, prefix },
            _ => return Err(none()),
        };
        let first = network.first();
        if first != address {
            return Err(format!(
                "'{text}' begins in the middle of a network: write {first}/{} or {address}",
                network.prefix
            ));
        }
        Ok(network)
    }

    /// Its lowest address.
    fn first(self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - self.prefix).unwrap_or(0);
                IpAddr::V4((address.to_bits() & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - self.prefix).unwrap_or(0);
                IpAddr::V6((address.to_bits() & mask).into())
            }
        }
    }

    fn contains(self, address: IpAddr) -> bool {
        let alike = match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                (ours.to_bits() ^ theirs.to_bits()).leading_zeros()
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                (ours.to_bits() ^ theirs.to_bits()).leading_zeros()
            }
            _ => return false,
        };
        alike >= self.prefix
    }
}

/// An address as proxies write it: alone, in brackets, or with a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|inside| inside.strip_suffix(']'))
        .unwrap_or(text);
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    let address = bare.parse().or_else(|_| with_port()).ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_trusted_if_it_is_in_one_of_the_networks() {
        let proxies =
            Proxies::parse("192.0.2.7, 10.0.0.0/8 172.16.0.0/12,fd00::/8,::ffff:198.51.100.0/120,")
                .unwrap();
        for inside in [
            "192.0.2.7",
            "10.0.0.0",
            "10.255.255.255",
            "172.31.0.1",
            "fd12::1",
            "::ffff:10.1.2.3",
            "198.51.100.9",
        ] {
            assert!(proxies.trust(ip(inside)), "{inside}");
        }
        for outside in [
            "192.0.2.6",
            "192.0.2.8",
            "11.0.0.0",
            "9.255.255.255",
            "172.32.0.0",
            "fc00::1",
            "::1",
            "::10.1.2.3",
            "198.51.101.0",
        ] {
            assert!(!proxies.trust(ip(outside)), "{outside}");
        }
        for none in ["off", "", " , "] {
            let nobody = Proxies::parse(none).unwrap();
            assert!(
                nobody.is_empty() && !nobody.trust(ip("10.0.0.1")),
                "{none:?}"
            );
        }
        let all = Proxies::parse("0.0.0.0/0").unwrap();
        assert!(all.trust(ip("8.8.8.8")) && !all.trust(ip("::1")));
    }

    #[test]
    fn every_mistake_of_the_list_is_told() {
        for (text, expected) in [
            ("10.0.0.0/33", vec!["'10.0.0.0/33'"]),
            (
                "proxy.example,10.0.0.1/+8",
                vec!["'proxy.example'", "'10.0.0.1/+8'"],
            ),
            ("10.0.0.1/8", vec!["write 10.0.0.0/8 or 10.0.0.1"]),
            ("fd00::1/8, 10.0.0.1", vec!["write fd00::/8"]),
            ("::/129", vec!["'::/129'"]),
            ("::ffff:10.0.0.0/8", vec!["'::ffff:10.0.0.0/8'"]),
            ("10.0.0.0/", vec!["'10.0.0.0/'"]),
            ("1.2.3.4:80", vec!["'1.2.3.4:80'"]),
        ] {
            let mistakes = Proxies::parse(text).unwrap_err();
            let count = mistakes.split("; ").count();
            assert_eq!(count, expected.len(), "{text}: {mistakes}");
            for part in expected {
                assert!(mistakes.contains(part), "{text}: {mistakes}");
            }
        }
    }

    #[test]
    fn subnets_are_read_as_docker_writes_them() {
        let subnets = [
            "10.0.7.0/24",
            "10.1.2.3/16",
            "fd00:7::/64",
            "",
            "x/8",
            "1.2.3.4/40",
        ];
        let networks = Proxies::of_subnets(subnets.into_iter());
        for (address, is_inside) in [
            ("10.0.7.9", true),
            ("::ffff:10.0.7.9", true),
            ("10.0.8.1", false),
            ("10.1.255.1", true),
            ("fd00:7::1", true),
            ("fd00:8::1", false),
            ("1.2.3.4", false),
        ] {
            assert_eq!(networks.trust(ip(address)), is_inside, "{address}");
        }
    }

    fn behind(peer: &str, lists: &[&str]) -> String {
        let proxies = Proxies::parse("10.0.0.0/8, fd00::/8").unwrap();
        let lists: Vec<_> = lists
            .iter()
            .map(|list| HeaderValue::from_str(list).unwrap())
            .collect();
        proxies.caller_behind(ip(peer), lists.iter()).to_string()
    }

    #[test]
    fn the_caller_is_the_right_most_address_that_no_trusted_proxy_has() {
        for (peer, lists, caller) in [
            ("10.0.0.1", &["192.0.2.7"][..], "192.0.2.7"),
            ("10.0.0.1", &["1.2.3.4, 192.0.2.7"], "192.0.2.7"),
            (
                "10.0.0.1",
                &["1.2.3.4, 192.0.2.7,10.0.0.2 ,\t10.9.9.9"],
                "192.0.2.7",
            ),
            ("10.0.0.1", &["192.0.2.7", "10.0.0.2"], "192.0.2.7"),
            ("10.0.0.1", &["8.8.8.8", "192.0.2.7"], "192.0.2.7"),
            ("::ffff:10.0.0.1", &["::ffff:192.0.2.7"], "192.0.2.7"),
            ("10.0.0.1", &["192.0.2.7:4711"], "192.0.2.7"),
            ("10.0.0.1", &["2001:db8::1, [fd00::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            // Nobody else is known.
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["1.2.3.4, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4, , 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["1.2.3.4, 192.0.2.999, 10.0.0.2"], "10.0.0.2"),
            // Not a proxy of ours: its word does not count.
            ("192.0.2.1", &["1.2.3.4"], "192.0.2.1"),
        ] {
            assert_eq!(behind(peer, lists), caller, "{peer} {lists:?}");
        }
    }

    #[test]
    fn a_list_of_any_length_is_looked_at_no_further_than_proxies_go() {
        let all_ours = vec!["10.0.0.2"; 8000].join(",");
        assert_eq!(behind("10.0.0.1", &["1.2.3.4", &all_ours]), "10.0.0.2");
        let just_so = vec!["10.0.0.2"; MOST_HOPS - 1].join(",");
        assert_eq!(behind("10.0.0.1", &["1.2.3.4", &just_so]), "1.2.3.4");
    }
}
