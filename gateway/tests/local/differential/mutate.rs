//! Messages as they should be, and what is done to them.

/// Requests; `{to}` is where to, and each of them names itself.
const REQUESTS: [&str; 9] = [
    "GET {to}/0?x=1 HTTP/1.1\r\nHost: t\r\nX-Id: a\r\n\r\n",
    "POST {to}/1 HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nX-Id: b\r\n\r\nhello",
    "POST {to}/2 HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nX-Id: c\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "PUT {to}/3 HTTP/1.1\r\nHost: t\r\nX-Id: d\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n",
    "GET http://t{to}/4 HTTP/1.1\r\nHost: t\r\nAccept: a, b\r\nX-Id: e\r\n\r\n",
    "DELETE {to}/5/a%2fb HTTP/1.1\r\nHost: t:80\r\nX-Id: f\r\nConnection: x-a, keep-alive\r\nX-A: b\r\n\r\n",
    "POST {to}/6 HTTP/1.0\r\nHost: t\r\nConnection: keep-alive\r\nContent-Length: 3\r\nX-Id: g\r\n\r\nxyz",
    "HEAD {to}/7?a={b} HTTP/1.1\r\nHost: t\r\nX-Id: h\r\nTE: trailers\r\n\r\n",
    "POST {to}/8 HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\nX-Id: i\r\n\r\n",
];
const LAST: &str = "GET {to}/last HTTP/1.1\r\nHost: t\r\nX-Id: z\r\nConnection: close\r\n\r\n";

const ANSWERS: [&str; 9] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Id: a\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Id: b\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX-Id: c\r\nConnection: close\r\n\r\nto the end",
    "HTTP/1.0 200 OK\r\nX-Id: d\r\n\r\nold",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\nX-Id: e\r\n\r\nok",
    "HTTP/1.1 204 No Content\r\nX-Id: f\r\n\r\n",
    "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\nX-Id: g\r\n\r\n3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n",
    "HTTP/1.1 200\r\nContent-Length: 3\r\nX-Id: h\r\n\r\nabc",
    "HTTP/1.1 500 Oh no\r\nContent-Length: 0\r\nX-Id: i\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
];

/// What is put in at any place.
const PIECES: [&[u8]; 44] = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"\0",
    b":",
    b";",
    b",",
    b"0",
    b"5",
    b"a",
    b"F",
    b"+",
    b"-",
    b"_",
    b"#",
    b"\"",
    b"<",
    b"\\",
    b"%",
    b"\xff",
    b"\x7f",
    b"\x0b",
    b"\xc3\xa9",
    b"0x",
    b"\r\n ",
    b"\r\n\t",
    b"\r\n\r\n",
    b"chunked",
    b", chunked",
    b"gzip, ",
    b"identity",
    b"\r\nContent-Length: 5",
    b"\r\nContent-Length: 0",
    b"\r\nContent-Length: 5, 5",
    b"\r\nContent-Length : 3",
    b"\r\nTransfer-Encoding: chunked",
    b"\r\nTransfer-Encoding : chunked",
    b"\r\nTransfer-Encoding:\x0bchunked",
    b"\r\nHost: u",
    b"\r\nConnection: close",
    b"\r\nConnection: content-length",
    b"0\r\n\r\n",
];

/// One case: one or two messages, changed at up to three places, and behind a request one that ends the connection.
pub(super) fn case(random: &mut fastrand::Rng, to: &str, is_answer: bool) -> Vec<u8> {
    let seeds = if is_answer { &ANSWERS } else { &REQUESTS };
    let count = if is_answer { 1 } else { random.usize(1..=2) };
    let mut text = Vec::new();
    for _ in 0..count {
        let seed = seeds[random.usize(..seeds.len())];
        text.extend(seed.replace("{to}", to).bytes());
    }
    for _ in 0..random.usize(1..=3) {
        change(random, &mut text);
    }
    if !is_answer {
        text.extend(LAST.replace("{to}", to).bytes());
    }
    text
}

fn change(random: &mut fastrand::Rng, text: &mut Vec<u8>) {
    // Most readers differ where lines begin and end, and at what stands beside a number.
    let at = place(random, text);
    let piece = PIECES[random.usize(..PIECES.len())];
    match random.u8(..8) {
        0..3 => drop(text.splice(at..at, piece.iter().copied())),
        3 => {
            let end = (at + random.usize(1..4)).min(text.len());
            text.drain(at..end);
        }
        4 => {
            let end = (at + piece.len()).min(text.len());
            text.splice(at..end, piece.iter().copied());
        }
        5 => {
            if let Some(byte) = text.get_mut(at) {
                *byte ^= 1 << random.u8(..8);
            }
        }
        6 => {
            let end = (at + random.usize(1..40)).min(text.len());
            let twice = text[at..end].to_vec();
            text.splice(at..at, twice);
        }
        _ => {
            if let Some(byte) = text.get_mut(at) {
                *byte = if byte.is_ascii_lowercase() {
                    byte.to_ascii_uppercase()
                } else {
                    random.u8(..)
                };
            }
        }
    }
}

fn place(random: &mut fastrand::Rng, text: &[u8]) -> usize {
    let any = random.usize(..=text.len());
    if random.bool() {
        return any;
    }
    let edge = |byte: &u8| b"\r\n:; ".contains(byte) || byte.is_ascii_digit();
    let next = text[any..].iter().position(edge);
    any + next.unwrap_or_default()
}
