//! `marshal_request`: the request as one JSON object on stdin, written while the body arrives.

use hyper::HeaderMap;

use crate::{cgi, json};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What follows the encoded body.
pub(crate) const TAIL: &[u8] = b"\"}}";

/// `{"header":{…},"body":{"raw":"`, names sorted.
pub(crate) fn opening(headers: &HeaderMap) -> String {
    let is_shown = |name: &str| name != "host" && name != "transfer-encoding";
    let mut names: Vec<_> = cgi::passed(headers)
        .filter(|name| is_shown(name.as_str()))
        .collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    let fields: Vec<String> = names
        .into_iter()
        .map(|name| {
            let values: Vec<_> = headers
                .get_all(name)
                .iter()
                .map(|value| json::quoted(&String::from_utf8_lossy(value.as_bytes())))
                .collect();
            format!(
                "{}:[{}]",
                json::quoted(&cgi::canonical(name)),
                values.join(",")
            )
        })
        .collect();
    format!(
        "{{\"header\":{{{}}},\"body\":{{\"raw\":\"",
        fields.join(",")
    )
}

/// Base64 of a body that comes in pieces: up to two bytes wait for the next piece.
#[derive(Debug, Default)]
pub(crate) struct Base64 {
    waiting: Vec<u8>,
}

impl Base64 {
    /// Encodes a piece, as far as whole groups of three bytes go.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(piece.len() / 3 * 4 + 8);
        let missing = (3 - self.waiting.len()) % 3;
        let (head, rest) = piece.split_at(if self.waiting.is_empty() {
            0
        } else {
            missing.min(piece.len())
        });
        self.waiting.extend_from_slice(head);
        if self.waiting.len() == 3 {
            encode(&self.waiting, &mut out);
            self.waiting.clear();
        }
        let groups = rest.chunks_exact(3);
        self.waiting.extend_from_slice(groups.remainder());
        groups.for_each(|group| encode(group, &mut out));
        out
    }

    /// The last, padded group.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.waiting.is_empty() {
            encode(&self.waiting, &mut out);
            self.waiting.clear();
        }
        out
    }
}

fn encode(group: &[u8], out: &mut Vec<u8>) {
    let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
    let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
    for place in 0..4 {
        let is_padding = place > group.len();
        out.push(if is_padding {
            b'='
        } else {
            ALPHABET[(bits >> (18 - 6 * place)) as usize & 63]
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn base64(pieces: &[&[u8]]) -> String {
        let mut encoder = Base64::default();
        let mut out: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| encoder.push(piece))
            .collect();
        out.extend(encoder.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn base64_is_the_same_however_the_body_is_cut() {
        assert_eq!(base64(&[b""]), "");
        assert_eq!(base64(&[b"h"]), "aA==");
        assert_eq!(base64(&[b"hi"]), "aGk=");
        assert_eq!(base64(&[b"hello world!"]), "aGVsbG8gd29ybGQh");
        assert_eq!(
            base64(&[b"h", b"el", b"", b"lo wo", b"r", b"l", b"d!"]),
            "aGVsbG8gd29ybGQh"
        );
        assert_eq!(base64(&[&[0xff, 0xfe, 0xfd, 0xfc]]), "//79/A==");
    }

    #[test]
    fn the_opening_lists_the_headers_sorted_and_escaped() {
        let mut headers = HeaderMap::new();
        headers.append("x-b", HeaderValue::from_static("1"));
        headers.append("x-b", HeaderValue::from_static("a\"<\\"));
        headers.append("content-length", HeaderValue::from_static("2"));
        headers.append("host", HeaderValue::from_static("h"));
        headers.append("proxy", HeaderValue::from_static("p"));
        let expected =
            r#"{"header":{"Content-Length":["2"],"X-B":["1","a\"\u003c\\"]},"body":{"raw":""#;
        assert_eq!(opening(&headers), expected);
    }
}
