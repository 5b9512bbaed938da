//! Any bytes at the beginning of a connection: a PROXY header is read as the specification says, and no byte more than it has.

use std::net::{IpAddr, SocketAddr};

use skep::server::proxy_protocol::header::{Header, Progress, Source, Wrong, parse};

use crate::choices::Choices;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header that is read.
const MOST: usize = 4096;

pub fn check(bytes: &[u8]) {
    if let Some((which, bytes)) = bytes.split_first() {
        if which % 4 == 0 {
            holds(bytes);
        } else {
            holds(&made(&mut Choices::new(bytes)));
            addresses_arrive(&mut Choices::new(bytes));
        }
    }
}

/// Bytes that are a header, nearly: each part is right or wrong, most of them right.
fn made(choices: &mut Choices) -> Vec<u8> {
    let version_and_command = choices.of(&[0x21, 0x20, 0x21, 0x20, 0x22, 0x11, 0x31, 0x2f]);
    let family = choices.of(&[
        0x11, 0x21, 0x00, 0x31, 0x12, 0x22, 0x32, 0x10, 0x41, 0x13, 0xff,
    ]);
    let length = choices.of(&[12_u16, 36, 216, 0, 11, 35, 215, 13, 300, 4080, 4081, 65535]);
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([version_and_command, family]);
    bytes.extend(length.to_be_bytes());
    let cut = choices.byte();
    bytes.extend(choices.some(usize::from(length).saturating_sub(usize::from(cut / 32))));
    if choices.one_in(4) {
        bytes.resize(16 + usize::from(length), choices.byte());
    }
    if choices.one_in(8) {
        let at = usize::from(choices.byte()) % bytes.len();
        bytes[at] ^= 1 << (choices.byte() % 8);
    }
    bytes.extend(choices.some(8));
    bytes
}

/// What is true of all bytes.
fn holds(bytes: &[u8]) {
    let whole = parse(bytes);
    is_what_it_says(bytes, whole);
    let mut wanted = 0;
    for end in 0..=bytes.len() {
        match parse(&bytes[..end]) {
            Ok(Progress::Wants(total)) => {
                // There is more to come, the end does not move back, and it is in sight.
                assert!(total > end && total >= wanted && total <= MOST);
                wanted = total;
            }
            decided => {
                // What is decided stays, whatever follows, and nobody was asked for more than it took.
                assert_eq!(decided, whole);
                if let Ok(Progress::Whole(header)) = decided {
                    assert_eq!((header.length, wanted), (end, end));
                }
                break;
            }
        }
    }
    // A reader that reads no more than it is asked for, in pieces of any size.
    let mut read = 0;
    while let Ok(Progress::Wants(total)) = parse(&bytes[..read]) {
        if read == bytes.len() {
            break;
        }
        read = total
            .min(bytes.len())
            .min(read + 1 + usize::from(bytes[read]) % 7);
    }
    match parse(&bytes[..read]) {
        Ok(Progress::Wants(_)) => assert_eq!((read, parse(bytes)), (bytes.len(), whole)),
        decided => assert_eq!(decided, whole),
    }
    if let Ok(Progress::Whole(header)) = whole {
        assert_eq!(read, header.length);
    }
}

/// The specification's words, read from the fields of the whole.
fn is_what_it_says(bytes: &[u8], found: Result<Progress, Wrong>) {
    let field = |at: usize| bytes.get(at).copied().unwrap_or_default();
    let announced = usize::from(field(14)) << 8 | usize::from(field(15));
    let is_signed = bytes.starts_with(&SIGNATURE);
    match found {
        Ok(Progress::Whole(Header { source, length })) => {
            assert!(is_signed && field(12) & 0xf0 == 0x20);
            assert!(length == 16 + announced && length <= bytes.len() && length <= MOST);
            let block = &bytes[16..length];
            match (field(12) & 0x0f, field(13), source) {
                (0, _, Source::Balancer) => {}
                (1, 0x11 | 0x12, Source::Caller(SocketAddr::V4(address))) => {
                    let bits = block[..4]
                        .iter()
                        .fold(0, |bits, byte| bits << 8 | u32::from(*byte));
                    assert_eq!(address.ip().to_bits(), bits);
                    assert_eq!(
                        address.port(),
                        u16::from(block[8]) << 8 | u16::from(block[9])
                    );
                }
                (1, 0x21 | 0x22, Source::Caller(address)) => {
                    let bits = block[..16]
                        .iter()
                        .fold(0, |bits, byte| bits << 8 | u128::from(*byte));
                    assert_eq!(address.ip(), IpAddr::V6(bits.into()).to_canonical());
                    assert_eq!(
                        address.port(),
                        u16::from(block[32]) << 8 | u16::from(block[33])
                    );
                }
                (1, 0x31 | 0x32, Source::Unknown) => assert!(block.len() >= 216),
                (1, 0x00, Source::Unknown) => {}
                other => panic!("{other:?}"),
            }
        }
        Ok(Progress::Wants(_)) => {
            let common = bytes
                .iter()
                .zip(SIGNATURE)
                .take_while(|(one, other)| **one == *other);
            let is_begun = common.count() == bytes.len().min(12);
            assert!(is_begun || b"PROXY ".starts_with(bytes));
        }
        Err(Wrong::Signature) => assert!(!is_signed && !bytes.starts_with(b"PROXY ")),
        Err(Wrong::Version1) => assert!(bytes.starts_with(b"PROXY ")),
        Err(Wrong::Version) => assert!(is_signed && field(12) & 0xf0 != 0x20),
        Err(Wrong::Command) => assert!(is_signed && field(12) & 0x0f > 1),
        Err(Wrong::Family) => assert!(
            is_signed
                && field(12) == 0x21
                && !matches!(field(13), 0 | 0x11 | 0x12 | 0x21 | 0x22 | 0x31 | 0x32)
        ),
        Err(Wrong::Length) => {
            let least = match field(13) >> 4 {
                1 => 12,
                2 => 36,
                3 => 216,
                _ => 0,
            };
            assert!(is_signed && (announced < least || 16 + announced > MOST));
        }
        Err(wrong @ (Wrong::Incomplete | Wrong::Untrusted)) => panic!("{wrong:?} of bytes"),
    }
}

/// Any two addresses of one family, with anything behind them, arrive.
fn addresses_arrive(choices: &mut Choices) {
    let (mut block, ip, family) = if choices.one_in(2) {
        let pair: [u8; 8] = choices.array();
        let [a, b, c, d, ..] = pair;
        (pair.to_vec(), IpAddr::from([a, b, c, d]), 0x11)
    } else {
        let pair: [u8; 32] = choices.array();
        let words: [u16; 8] =
            std::array::from_fn(|nth| u16::from_be_bytes([pair[2 * nth], pair[2 * nth + 1]]));
        (pair.to_vec(), IpAddr::from(words), 0x21)
    };
    let ports: [u8; 4] = choices.array();
    block.extend(ports);
    block.extend(choices.some(64));
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([0x21, family]);
    bytes.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
    bytes.extend(block);
    let port = u16::from_be_bytes([ports[0], ports[1]]);
    let source = Source::Caller(SocketAddr::new(ip.to_canonical(), port));
    let length = bytes.len();
    assert_eq!(
        parse(&bytes),
        Ok(Progress::Whole(Header { source, length }))
    );
}
