//! RFC 9113, section 8: requests as heads, bodies and trailers say them.

use super::{Begin, Must, Table};
use crate::support::frames::*;

/// The fields that a request begins with.
const METHOD: (&str, &str) = (":method", "POST");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", "t");
const PATH: (&str, &str) = (":path", "/function/cat");
const FIRST: [(&str, &str); 4] = [METHOD, SCHEME, AUTHORITY, PATH];

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(name, value)| field(name, value))
        .collect()
}

/// A request without a body, of these fields alone.
fn only(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &block(fields))
}

/// An ordinary request with this field, too.
fn with(name: &str, value: &str) -> Vec<u8> {
    only(&[&FIRST[..], &[(name, value)]].concat())
}

/// One with this among its first fields, in place of what has the same name.
fn first(name: &str, value: &str) -> Vec<u8> {
    only(&FIRST.map(|field| {
        if field.0 == name {
            (name, value)
        } else {
            field
        }
    }))
}

/// One whose body comes in these pieces.
fn body(fields: &[(&str, &str)], pieces: &[&str]) -> Vec<u8> {
    let mut all = frame(HEADERS, END_HEADERS, 1, &block(&[&FIRST, fields].concat()));
    for (nth, piece) in pieces.iter().enumerate() {
        let flags = if nth + 1 == pieces.len() {
            END_STREAM
        } else {
            0
        };
        all.extend(frame(DATA, flags, 1, piece.as_bytes()));
    }
    all
}

/// One with a body and these trailers.
fn trailers(flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut all = frame(HEADERS, END_HEADERS, 1, &block(&FIRST));
    all.extend(frame(DATA, 0, 1, b"hello"));
    all.extend(frame(HEADERS, flags, 1, &block(fields)));
    all
}

pub(super) fn add(table: &mut Table) {
    lengths(table);
    fields(table);
    first_fields(table);
    well_formed(table);
}

fn lengths(table: &mut Table) {
    let length = |value| ("content-length", value);
    rows! { table, Begin::Settings, Must::Malformed;
        "8.1" "trailers that do not end the stream" => trailers(END_HEADERS, &[("x", "y")]);
        "8.1" "a first field among trailers" => trailers(WHOLE, &[(":method", "GET")]);
        "8.1" "an unknown first field among trailers" => trailers(WHOLE, &[(":x", "y")]);
        "8.1.1" "a length above the body's" => body(&[length("6")], &["hello"]);
        "8.1.1" "a length below the body's" => body(&[length("4")], &["hello"]);
        "8.1.1" "a length above that of two pieces" => body(&[length("11")], &["hello", "world"]);
        "8.1.1" "a length below that of two pieces" => body(&[length("5")], &["hello", "world"]);
        "8.1.1" "a length without a body" => with("content-length", "5");
        "8.1.1" "a length of no number" => body(&[length("five")], &["hello"]);
        "8.1.1" "a length with a sign" => body(&[length("+5")], &["hello"]);
        "8.1.1" "two lengths" => body(&[length("5"), length("6")], &["hello"]);
    }
}

fn fields(table: &mut Table) {
    rows! { table, Begin::Settings, Must::Malformed;
        "8.2.1" "a name with a large letter" => with("X-Large", "y");
        "8.2.1" "a name with a space" => with("x y", "z");
        "8.2.1" "a name with a colon" => with("x:y", "z");
        "8.2.1" "a name with a line end" => with("x\r\ny", "z");
        "8.2.1" "a name with a NUL" => with("x\0", "z");
        "8.2.1" "a name outside of ASCII" => with("x\u{e9}", "z");
        "8.2.1" "no name" => with("", "z");
        "8.2.1" "a value with NUL" => with("x", "y\0z");
        "8.2.1" "a value with CR" => with("x", "y\rz");
        "8.2.1" "a value with LF" => with("x", "y\nz");
        "8.2.1" "a value that begins with a space" => with("x", " y");
        "8.2.1" "a value that ends with a tab" => with("x", "y\t");
        "8.2.1" "a trailer's name with a large letter" => trailers(WHOLE, &[("X", "y")]);
        "8.2.2" "connection" => with("connection", "keep-alive");
        "8.2.2" "connection: close" => with("connection", "close");
        "8.2.2" "proxy-connection" => with("proxy-connection", "keep-alive");
        "8.2.2" "keep-alive" => with("keep-alive", "timeout=5");
        "8.2.2" "transfer-encoding" => with("transfer-encoding", "chunked");
        "8.2.2" "upgrade" => with("upgrade", "websocket");
        "8.2.2" "te of more than trailers" => with("te", "trailers, deflate;q=0.5");
        "8.2.2" "te without trailers" => with("te", "gzip");
        "8.2.2" "transfer-encoding among trailers" => trailers(WHOLE, &[("transfer-encoding", "chunked")]);
    }
}

fn first_fields(table: &mut Table) {
    let late = |name| {
        let mut fields = FIRST.to_vec();
        fields.sort_by_key(|field| field.0 == name);
        fields.insert(FIRST.len() - 1, ("x", "y"));
        fields
    };
    let twice = |field| only(&[&FIRST[..], &[field]].concat());
    let connect = (":method", "CONNECT");
    rows! { table, Begin::Settings, Must::Malformed;
        "8.3" "an unknown first field" => only(&[METHOD, SCHEME, AUTHORITY, PATH, (":x", "y")]);
        "8.3" "an answer's first field" => only(&[METHOD, SCHEME, AUTHORITY, PATH, (":status", "200")]);
        "8.3" ":method behind another field" => only(&late(":method"));
        "8.3" ":scheme behind another field" => only(&late(":scheme"));
        "8.3" ":path behind another field" => only(&late(":path"));
        "8.3" ":authority behind another field" => only(&late(":authority"));
        "8.3" "a first field with a large letter" => only(&[(":Method", "GET"), SCHEME, AUTHORITY, PATH]);
        "8.3" ":protocol without being asked for" => only(&[connect, (":protocol", "websocket"), SCHEME, AUTHORITY, PATH]);
        "8.3.1" "no :method" => only(&[SCHEME, AUTHORITY, PATH]);
        "8.3.1" "no :scheme" => only(&[METHOD, AUTHORITY, PATH]);
        "8.3.1" "no :path" => only(&[METHOD, SCHEME, AUTHORITY]);
        "8.3.1" "no first field" => only(&[("x", "y")]);
        "8.3.1" "no field" => only(&[]);
        "8.3.1" "two :method" => twice(METHOD);
        "8.3.1" "two :scheme" => twice(SCHEME);
        "8.3.1" "two :path" => twice(PATH);
        "8.3.1" "two :authority" => twice(AUTHORITY);
        "8.3.1" "an empty :path" => first(":path", "");
        "8.3.1" "an empty :method" => first(":method", "");
        "8.3.1" "an empty :scheme" => first(":scheme", "");
        "8.3.1" "a :method with a space" => first(":method", "GET /x");
        "8.3.1" "a :path with a space" => first(":path", "/function/cat x");
        "8.3.1" "a :path with a line end" => first(":path", "/function/cat\r\nx: y");
        "8.3.1" "a :path that does not begin with a slash" => first(":path", "function/cat");
        "8.3.1" "* as a POST's :path" => first(":path", "*");
        "8.3.1" "a :scheme with a space" => first(":scheme", "ht tp");
        "8.3.1" "an :authority with a user" => first(":authority", "user@t");
        "8.3.1" "an :authority with a slash" => first(":authority", "t/x");
        "8.3.1" "an :authority with a line end" => first(":authority", "t\r\nx: y");
        "8.3.1" "another host than :authority" => with("host", "other");
        "8.5" "CONNECT without :authority" => only(&[connect]);
        "8.5" "CONNECT with :scheme and :path" => only(&[connect, SCHEME, AUTHORITY, PATH]);
    }
}

fn well_formed(table: &mut Table) {
    rows! { table, Begin::Settings, Must::Answer(200, "");
        "8.1" "a request" => only(&FIRST);
        "8.2.2" "te: trailers" => with("te", "trailers");
        "8.2.3" "cookies in two fields" => only(&[&FIRST[..], &[("cookie", "a=1"), ("cookie", "b=2")]].concat());
        "8.2.1" "an empty value" => with("x", "");
        "8.2.1" "a value outside of ASCII" => with("x", "\u{e9}");
        "8.3.1" "the first fields in another order" => only(&[PATH, AUTHORITY, METHOD, SCHEME]);
        "8.3.1" "host in place of :authority" => only(&[METHOD, SCHEME, PATH, ("host", "t")]);
        "8.3.1" "the same host as :authority" => with("host", "t");
        "8.3.1" "a :path with a query" => first(":path", "/function/cat?x=%20y");
    }
    let length = |value| ("content-length", value);
    rows! { table, Begin::Settings, Must::Answer(200, "hello");
        "8.1.1" "a length as the body's" => body(&[length("5")], &["hello"]);
        "8.1.1" "a length as that of two pieces" => body(&[length("5")], &["hel", "lo"]);
        "8.1.1" "a length, and an empty end" => body(&[length("5")], &["hello", ""]);
    }
    rows! { table, Begin::Settings, Must::Answer(404, "");
        "8.3.1" "* as the :path of OPTIONS" => only(&[(":method", "OPTIONS"), SCHEME, AUTHORITY, (":path", "*")]);
        "8.3.1" "a :path of nobody" => first(":path", "/function/nosuch");
    }
}
