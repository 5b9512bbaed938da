//! Bytes → a PROXY header of version 2, or why they are none. Pure.
//!
//! Sections are those of haproxy's `doc/proxy-protocol.txt`.

use std::net::{IpAddr, SocketAddr};

/// What every header begins with (§2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What one of version 1 begins with (§2.1).
const VERSION_1: &[u8; 6] = b"PROXY ";
/// Signature, version and command, family, length.
const FIXED: usize = 16;
/// Two paths of sockets.
const UNIX: usize = 216;
/// Addresses have few; the rest is what balancers add, such as a certificate's name.
const MOST_BYTES: usize = 4096;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who is said to have connected.
    pub source: Source,
    /// How many bytes it has.
    pub length: usize,
}

/// Who is said to have connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The balancer itself, as for a check of health: what the connection shows is true.
    Balancer,
    /// A caller at this address.
    Caller(SocketAddr),
    /// A caller that has no address that we know, as behind a Unix socket.
    Unknown,
}

/// How far the bytes of a header have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is whole.
    Whole(Header),
    /// All is well so far, and it has so many bytes at least.
    Wants(usize),
}

/// Why a connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Something else than a header.
    Signature,
    /// A header of version 1.
    Version1,
    /// A version that is not there yet.
    Version,
    /// Neither LOCAL nor PROXY.
    Command,
    /// An unknown family of addresses or kind of connection.
    Family,
    /// Too short for its address, or longer than anybody needs.
    Length,
    /// It ended, or its time was over, before the header was whole.
    Incomplete,
    /// It is not from a trusted proxy.
    Untrusted,
}

impl Wrong {
    /// Each of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Signature,
        Self::Version1,
        Self::Version,
        Self::Command,
        Self::Family,
        Self::Length,
        Self::Incomplete,
        Self::Untrusted,
    ];

    /// What the metric calls it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Signature => "signature",
            Self::Version1 => "version_1",
            Self::Version => "version",
            Self::Command => "command",
            Self::Family => "family",
            Self::Length => "length",
            Self::Incomplete => "incomplete",
            Self::Untrusted => "untrusted",
        }
    }

    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Signature => {
                "it does not begin with a PROXY header; set proxy_protocol=off if nobody sends one"
            }
            Self::Version1 => {
                "its PROXY header is of version 1; only version 2 is read here: tell the balancer to send that (haproxy: send-proxy-v2)"
            }
            Self::Version => "its PROXY header is of an unknown version",
            Self::Command => "its PROXY header is neither LOCAL nor PROXY",
            Self::Family => "its PROXY header has an unknown family of addresses",
            Self::Length => {
                "its PROXY header is too short for its address, or longer than 4096 bytes"
            }
            Self::Incomplete => "its PROXY header did not come to its end within read_timeout",
            Self::Untrusted => {
                "it is not from an address of trusted_proxies, and those alone may send PROXY headers"
            }
        }
    }
}

/// Looks at the first bytes of a connection, however many there are.
///
/// # Errors
/// As soon as they can be no header's.
pub fn parse(bytes: &[u8]) -> Result<Progress, Wrong> {
    let begins_as = |known: &[u8]| bytes.iter().zip(known).all(|(one, other)| one == other);
    if !begins_as(SIGNATURE) {
        return match begins_as(VERSION_1) {
            true if bytes.len() < VERSION_1.len() => Ok(Progress::Wants(FIXED)),
            true => Err(Wrong::Version1),
            false => Err(Wrong::Signature),
        };
    }
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else {
        return Ok(Progress::Wants(FIXED));
    };
    let (version_and_command, family) = (fixed[12], fixed[13]);
    let announced = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let length = FIXED + announced;
    if version_and_command >> 4 != 2 {
        return Err(Wrong::Version);
    }
    if length > MOST_BYTES {
        return Err(Wrong::Length);
    }
    let Some(block) = rest.get(..announced) else {
        return Ok(Progress::Wants(length));
    };
    let source = match version_and_command & 0xf {
        // What comes behind it says nothing, the family included.
        0 => Source::Balancer,
        1 => source(family, block)?,
        _ => return Err(Wrong::Command),
    };
    Ok(Progress::Whole(Header { source, length }))
}

/// The first of the two addresses; what follows them in the block is skipped.
fn source(family: u8, block: &[u8]) -> Result<Source, Wrong> {
    let source = match family {
        0x00 => Some(Source::Unknown),
        0x11 | 0x12 => block.first_chunk().map(ipv4).map(Source::Caller),
        0x21 | 0x22 => block.first_chunk().map(ipv6).map(Source::Caller),
        0x31 | 0x32 => (block.len() >= UNIX).then_some(Source::Unknown),
        _ => return Err(Wrong::Family),
    };
    source.ok_or(Wrong::Length)
}

fn ipv4(block: &[u8; 12]) -> SocketAddr {
    let [a, b, c, d, _, _, _, _, high, low, ..] = *block;
    let port = u16::from_be_bytes([high, low]);
    SocketAddr::new(IpAddr::from([a, b, c, d]), port)
}

fn ipv6(block: &[u8; 36]) -> SocketAddr {
    let mut address = [0; 16];
    address.copy_from_slice(&block[..16]);
    let port = u16::from_be_bytes([block[32], block[33]]);
    SocketAddr::new(IpAddr::from(address).to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of this version and command, family and block.
    fn header(version_and_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        let fixed = [version_and_command, family, length[0], length[1]];
        [SIGNATURE.as_slice(), &fixed, block].concat()
    }

    const IPV4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0x1f, 0x90];

    /// `2001:db8::7`, port 4711, to `::1`, port 8080.
    fn block_of_ipv6() -> [u8; 36] {
        let mut block = [0; 36];
        block[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        (block[15], block[31]) = (7, 1);
        block[32..].copy_from_slice(&IPV4[8..]);
        block
    }

    fn caller(address: &str) -> Source {
        Source::Caller(address.parse().unwrap())
    }

    #[test]
    fn each_form_of_the_specification_is_read_as_it_says() {
        let ipv6 = block_of_ipv6();
        let mapped = {
            let mut block = ipv6;
            block[..12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
            block[12..16].copy_from_slice(&[192, 0, 2, 7]);
            block
        };
        // A checksum, a hint at the host, and what nobody knows yet (§2.2.1 ff).
        let fields = b"\x03\0\x04\x01\x02\x03\x04\x02\0\x01h\xef\0\0";
        let with_fields = [IPV4.as_slice(), fields].concat();
        let path = [b'/'; 216];
        for (what, bytes, source) in [
            (
                "TCP over IPv4",
                header(0x21, 0x11, &IPV4),
                caller("192.0.2.7:4711"),
            ),
            (
                "UDP over IPv4, as HTTP/3 is",
                header(0x21, 0x12, &IPV4),
                caller("192.0.2.7:4711"),
            ),
            (
                "TCP over IPv6",
                header(0x21, 0x21, &ipv6),
                caller("[2001:db8::7]:4711"),
            ),
            (
                "UDP over IPv6",
                header(0x21, 0x22, &ipv6),
                caller("[2001:db8::7]:4711"),
            ),
            (
                "IPv4 in IPv6's clothes",
                header(0x21, 0x21, &mapped),
                caller("192.0.2.7:4711"),
            ),
            (
                "more fields",
                header(0x21, 0x11, &with_fields),
                caller("192.0.2.7:4711"),
            ),
            ("Unix stream", header(0x21, 0x31, &path), Source::Unknown),
            ("Unix datagram", header(0x21, 0x32, &path), Source::Unknown),
            ("unspecified", header(0x21, 0x00, b""), Source::Unknown),
            (
                "unspecified with a block",
                header(0x21, 0x00, &IPV4),
                Source::Unknown,
            ),
            ("LOCAL", header(0x20, 0x00, b""), Source::Balancer),
            (
                "LOCAL with addresses",
                header(0x20, 0x11, &IPV4),
                Source::Balancer,
            ),
            (
                "LOCAL with any family",
                header(0x20, 0x77, b"x"),
                Source::Balancer,
            ),
            (
                "the longest",
                header(0x20, 0x00, &[0; 4080]),
                Source::Balancer,
            ),
        ] {
            let length = bytes.len();
            let whole = Ok(Progress::Whole(Header { source, length }));
            assert_eq!(parse(&bytes), whole, "{what}");
            let followed = [bytes.as_slice(), b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&followed), whole, "{what}, followed");
        }
    }

    #[test]
    fn what_is_no_header_is_told_apart() {
        let mut bad_end = header(0x21, 0x11, &IPV4);
        bad_end[11] = b'\r';
        for (what, bytes, wrong) in [
            ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), Wrong::Signature),
            (
                "a TLS greeting",
                b"\x16\x03\x01\x02\0".to_vec(),
                Wrong::Signature,
            ),
            ("another end", bad_end, Wrong::Signature),
            (
                "HTTP/2",
                b"PRI * HTTP/2.0\r\n\r\n".to_vec(),
                Wrong::Signature,
            ),
            (
                "version 1",
                b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n".to_vec(),
                Wrong::Version1,
            ),
            (
                "the shortest of version 1",
                b"PROXY UNKNOWN\r\n".to_vec(),
                Wrong::Version1,
            ),
            (
                "version 1 in binary",
                header(0x11, 0x11, &IPV4),
                Wrong::Version,
            ),
            ("version 3", header(0x31, 0x11, &IPV4), Wrong::Version),
            ("command 2", header(0x22, 0x11, &IPV4), Wrong::Command),
            ("family 4", header(0x21, 0x41, &IPV4), Wrong::Family),
            (
                "IPv4 without transport",
                header(0x21, 0x10, &IPV4),
                Wrong::Family,
            ),
            (
                "IPv4, transport 3",
                header(0x21, 0x13, &IPV4),
                Wrong::Family,
            ),
            (
                "a transport alone",
                header(0x21, 0x01, &IPV4),
                Wrong::Family,
            ),
            (
                "IPv4, a byte less",
                header(0x21, 0x11, &IPV4[..11]),
                Wrong::Length,
            ),
            (
                "IPv6 as long as IPv4",
                header(0x21, 0x21, &IPV4),
                Wrong::Length,
            ),
            (
                "Unix, a byte less",
                header(0x21, 0x31, &[0; 215]),
                Wrong::Length,
            ),
            (
                "longer than the longest",
                header(0x20, 0x00, &[0; 4081]),
                Wrong::Length,
            ),
            (
                "all that can be said",
                header(0x21, 0x11, &[0; 65535]),
                Wrong::Length,
            ),
        ] {
            assert_eq!(parse(&bytes), Err(wrong), "{what}");
        }
        for (nth, wrong) in Wrong::ALL.into_iter().enumerate() {
            assert_eq!(wrong as usize, nth);
        }
    }

    #[test]
    fn a_header_in_pieces_is_waited_for() {
        let bytes = header(0x21, 0x11, &IPV4);
        for end in 0..bytes.len() {
            let wanted = if end < FIXED { FIXED } else { bytes.len() };
            assert_eq!(parse(&bytes[..end]), Ok(Progress::Wants(wanted)), "{end}");
        }
        assert_eq!(parse(b"PROX"), Ok(Progress::Wants(FIXED)));
    }
}
