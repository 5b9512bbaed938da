//! What a client may send: requests one after the other, as they should be and nearly so.

use crate::choices::Choices;
use crate::strict::PREFACE;

const METHODS: [&str; 7] = ["GET", "POST", "HEAD", "PUT", "OPTIONS", "BREW", "PRI"];
const TARGETS: [&str; 8] = [
    "/",
    "/a?b=c",
    "*",
    "http://h/a",
    "h:1",
    "/%00#f",
    "/\u{e9}",
    "",
];
const VERSIONS: [&str; 6] = [
    "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1.2",
];
/// Fields that say something of the connection or of the body, and some that are malformed.
const FIELDS: [&str; 30] = [
    "Host: h",
    "a: b",
    "a:",
    "a:\tb \t",
    "a: \u{e9}",
    "Connection: close",
    "connection: keep-alive",
    "Connection: a, close ,b",
    "Connection: a,Keep-Alive",
    "Content-Length: 0",
    "Content-Length: 5",
    "content-length: 05",
    "Content-Length: 5, 5",
    "Content-Length: +5",
    "Content-Length: 99999999999999999999",
    "Content-Length:",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: Chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding:",
    "Expect: 100-continue",
    "Upgrade: websocket",
    "TE: trailers",
    "a : b",
    " a: b",
    "a b: c",
    "a: \0",
    ": b",
];
/// What chunked bodies are made of, and what is nearly that.
const CHUNKS: [&str; 16] = [
    "5\r\nhello\r\n",
    "0A;a=b\r\n0123456789\r\n",
    "1 ;\"\"\r\nx\r\n",
    "5\r\nhel",
    "lo\r\n",
    "5\nhello\n",
    "x\r\n",
    "\r\n",
    "3\r\n\r\n0\r\n",
    "ffffffffffffffff\r\n",
    "10000000000000000\r\n",
    "00000000000000005\r\nhello\r\n",
    "5;\r\r\nhello\r\n",
    "0\r\n\n",
    "0\r\na: b\r\n",
    "-1\r\n",
];
/// How a chunked body ends, well or not.
const LAST_CHUNKS: [&str; 8] = [
    "0\r\n\r\n",
    "0\r\n\r\n",
    "0;a\r\na: b\r\nc: d\r\n\r\n",
    "000\r\n\r\n",
    "0\r\na: b\n\r\n",
    "0\r\na: b\r\n\n",
    "0\r\na b: c\r\n\r\n",
    "",
];

/// Requests one after the other, most of them right.
pub fn made(choices: &mut Choices) -> Vec<u8> {
    let mut sent = Vec::new();
    for _ in 0..=choices.byte() % 5 {
        if choices.are_over() {
            break;
        }
        if choices.one_in(8) {
            sent.extend(choices.of(&["\r\n", "\n", "\r", " "]).bytes());
        }
        if choices.one_in(16) {
            sent.extend(PREFACE);
        }
        let kind = choices.of(&[0, 1, 2, 3]);
        let line_end = if choices.one_in(8) { "\n" } else { "\r\n" };
        let (method, target, version) = (
            choices.of(&METHODS),
            choices.of(&TARGETS),
            choices.of(&VERSIONS),
        );
        sent.extend(format!("{method} {target} {version}{line_end}").bytes());
        match kind {
            0 => sent.extend(b"Content-Length: 5\r\n"),
            1 => sent.extend(b"Transfer-Encoding: chunked\r\n"),
            _ => {}
        }
        for _ in 0..choices.byte() % 4 {
            // Those at the end are malformed.
            let few = if choices.one_in(8) { FIELDS.len() } else { 11 };
            sent.extend(choices.of(&FIELDS[..few]).bytes());
            sent.extend(line_end.bytes());
        }
        if choices.one_in(16) {
            sent.extend("a: b\r\n".repeat(choices.byte().into()).bytes());
        }
        if choices.one_in(64) {
            let long = usize::from(choices.byte()) * 80;
            sent.extend(format!("a: {}\r\n", "b".repeat(long)).bytes());
        }
        sent.extend(line_end.bytes());
        match kind {
            0 => sent.extend(b"hello"),
            1 => chunked(choices, &mut sent),
            2 => {}
            _ => sent.extend(choices.some(5)),
        }
    }
    if choices.one_in(4) {
        let at = usize::from(choices.byte()) * sent.len() / 256;
        match choices.byte() % 3 {
            0 => sent[at] ^= 1 << (choices.byte() % 8),
            1 => sent.insert(at, choices.of(b"\r\n \t\0:,x")),
            _ => drop(sent.remove(at)),
        }
    }
    if choices.one_in(4) {
        let left = sent.len() * usize::from(choices.byte()) / 256;
        sent.truncate(left);
    }
    sent
}

fn chunked(choices: &mut Choices, sent: &mut Vec<u8>) {
    for _ in 0..choices.byte() % 4 {
        let few = if choices.one_in(8) { CHUNKS.len() } else { 3 };
        sent.extend(choices.of(&CHUNKS[..few]).bytes());
    }
    if choices.one_in(32) {
        let long = usize::from(choices.byte()) * 80;
        let long = "b".repeat(long);
        let text = choices.of(&["0;{}\r\n\r\n", "0\r\na: {}\r\n\r\n", "1;{}\r\nx\r\n"]);
        sent.extend(text.replace("{}", &long).bytes());
    }
    let few = if choices.one_in(8) {
        LAST_CHUNKS.len()
    } else {
        4
    };
    sent.extend(choices.of(&LAST_CHUNKS[..few]).bytes());
}
