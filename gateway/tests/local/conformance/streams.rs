//! RFC 9113, sections 3 to 7: the connection, its frames, its streams.

use super::*;

/// A code that means nothing.
const OTHER: u32 = 0x7fff_ffff;
/// The largest window.
const MOST: u32 = 0x7fff_ffff;
/// A frame's type that means nothing.
const UNKNOWN: u8 = 0xfa;

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &get_cat())
}

/// A head whose body is to come.
fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &post_cat())
}

fn post_cat() -> Vec<u8> {
    let mut block = get_cat();
    block[0] = 0x83;
    block
}

/// A head of a function that does not answer.
fn waits(stream: u32) -> Vec<u8> {
    let path = b"/function/waits";
    let head = [
        &[0x83, 0x86, 0x04, path.len() as u8],
        &path[..],
        &[0x01, 1, b't'],
    ]
    .concat();
    frame(HEADERS, END_HEADERS, stream, &head)
}

/// A whole request, of which `cat` makes an answer of five bytes.
pub(super) fn hello(stream: u32) -> Vec<u8> {
    [post(stream), end(stream, b"hello")].concat()
}

fn end(stream: u32, body: &[u8]) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, body)
}

fn update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// A request in pieces: the head's first bytes, and all others.
fn halves(stream: u32) -> [Vec<u8>; 2] {
    let block = get_cat();
    let (first, rest) = block.split_at(5);
    [
        frame(HEADERS, END_STREAM, stream, first),
        frame(CONTINUATION, END_HEADERS, stream, rest),
    ]
}

/// These frames between the two.
fn between(middle: Vec<u8>) -> Vec<u8> {
    let [first, rest] = halves(1);
    [first, middle, rest].concat()
}

/// A head in a frame with more in it.
fn dressed(flags: u8, before: &[u8], after: &[u8]) -> Vec<u8> {
    frame(
        HEADERS,
        WHOLE | flags,
        1,
        &[before, &get_cat(), after].concat(),
    )
}

pub(super) fn add(table: &mut Table) {
    beginnings(table);
    connection_errors(table);
    stream_errors(table);
    calls(table);
    all_well(table);
}

fn beginnings(table: &mut Table) {
    rows! { table, Begin::Nothing, Ends;
        "3.4" "a preface with another version" => b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n";
        "3.4" "a preface that ends with other words" => b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n";
    }
    rows! { table, Begin::Preface, Connection(&[PROTOCOL_ERROR]);
        "3.4" "a head before the first SETTINGS" => get(1);
        "3.4" "a PING before the first SETTINGS" => frame(PING, 0, 0, &[0; 8]);
    }
    rows! { table, Begin::Settings, Acks(1);
        "3.4" "the first SETTINGS" => b"";
    }
}

fn connection_errors(table: &mut Table) {
    let [first, rest] = halves(1);
    rows! { table, Begin::Settings, Connection(&[FRAME_SIZE_ERROR]);
        "4.2" "a head above the largest frame" => frame(HEADERS, WHOLE, 1, &[0; 16_385]);
        "4.2" "SETTINGS above the largest frame" => frame(SETTINGS, 0, 0, &[0xff; 16_386]);
        "6.4" "RST_STREAM of three bytes" => post(1), frame(RST_STREAM, 0, 1, &[0; 3]);
        "6.5" "an acknowledgement with something in it" => frame(SETTINGS, ACK, 0, &[0; 6]);
        "6.5" "SETTINGS of five bytes" => frame(SETTINGS, 0, 0, &[0; 5]);
        "6.7" "a PING of six bytes" => frame(PING, 0, 0, &[0; 6]);
        "6.7" "a PING of nine bytes" => frame(PING, 0, 0, &[0; 9]);
        "6.8" "GOAWAY of seven bytes" => frame(GOAWAY, 0, 0, &[0; 7]);
        "6.9" "WINDOW_UPDATE of three bytes" => frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]);
        "6.9" "WINDOW_UPDATE of five bytes on a stream" => post(1), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 0, 1]);
    }
    rows! { table, Begin::Settings, Connection(&[COMPRESSION_ERROR]);
        "4.3" "a head that cannot be read" => frame(HEADERS, WHOLE, 1, &[0x82, 0xff]);
        "4.3" "a head that cannot be read, in pieces" => frame(HEADERS, END_STREAM, 1, &[0x82]), frame(CONTINUATION, END_HEADERS, 1, &[0xff]);
        "4.3" "trailers that cannot be read" => post(1), frame(HEADERS, WHOLE, 1, &[0x80]);
    }
    rows! { table, Begin::Settings, Connection(&[PROTOCOL_ERROR]);
        "4.3" "PRIORITY within a head" => between(frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 9]));
        "4.3" "another stream's head within a head" => between(get(3));
        "4.3" "a PING within a head" => between(frame(PING, 0, 0, &[0; 8]));
        "4.3" "another stream's CONTINUATION within a head" => between(frame(CONTINUATION, 0, 3, &[]));
        "5.1" "DATA on an idle stream" => end(1, b"x");
        "5.1" "RST_STREAM on an idle stream" => reset(1);
        "5.1" "WINDOW_UPDATE on an idle stream" => update(1, 100);
        "5.1" "CONTINUATION on an idle stream" => frame(CONTINUATION, END_HEADERS, 1, &get_cat());
        "5.1.1" "a head on a stream of even number" => get(2);
        "5.1.1" "a head on a stream that was passed over" => get(5), get(3);
        "5.4.1" "a PING on a stream" => frame(PING, 0, 1, &[0; 8]);
        "5.5" "an unknown frame within a head" => between(frame(UNKNOWN, 0, 1, &[0; 4]));
        "6.1" "DATA without a stream" => end(0, b"x");
        "6.1" "DATA whose padding is longer than it" => post(1), frame(DATA, PADDED | END_STREAM, 1, &[6, b'a', b'b']);
        "6.1" "DATA whose padding is as long as it" => post(1), frame(DATA, PADDED | END_STREAM, 1, &[3, b'a', b'b']);
        "6.2" "a head without a stream" => get(0);
        "6.2" "a head whose padding is longer than it" => frame(HEADERS, WHOLE | PADDED, 1, &[9, 0x82, 0x86]);
        "6.2" "DATA within a head" => between(frame(DATA, 0, 1, b"x"));
        "6.3" "PRIORITY without a stream" => frame(PRIORITY, 0, 0, &[0, 0, 0, 3, 9]);
        "6.4" "RST_STREAM without a stream" => reset(0);
        "6.5" "SETTINGS on a stream" => frame(SETTINGS, 0, 1, &[]);
        "6.5.2" "ENABLE_PUSH of 2" => settings(&[(2, 2)]);
        "6.5.2" "a largest frame below 16,384" => settings(&[(5, 16_383)]);
        "6.5.2" "a largest frame above 16,777,215" => settings(&[(5, 16_777_216)]);
        "6.6" "PUSH_PROMISE by a client" => post(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], &get_cat()[..]].concat());
        "6.7" "a PING's answer on a stream" => frame(PING, ACK, 1, &[0; 8]);
        "6.8" "GOAWAY on a stream" => frame(GOAWAY, 0, 1, &[0; 8]);
        "6.9" "a connection's WINDOW_UPDATE by 0" => update(0, 0);
        "6.10" "another stream's head before CONTINUATION" => first, get(3), rest;
        "6.10" "CONTINUATION without a stream" => between(frame(CONTINUATION, 0, 0, &[]));
        "6.10" "CONTINUATION behind a whole head" => post(1), frame(CONTINUATION, END_HEADERS, 1, &[]);
        "6.10" "CONTINUATION behind a head's last" => first, rest, frame(CONTINUATION, END_HEADERS, 1, &[]);
        "6.10" "CONTINUATION behind DATA" => post(1), frame(DATA, 0, 1, b"x"), frame(CONTINUATION, END_HEADERS, 1, &[]);
    }
    rows! { table, Begin::Settings, Connection(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]);
        "6.1" "padded DATA without a length of its padding" => post(1), frame(DATA, PADDED, 1, &[]);
        "6.2" "a padded head without a length of its padding" => frame(HEADERS, WHOLE | PADDED, 1, &[]);
        "6.2" "a head too short for its priority" => frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[0; 4]);
    }
    rows! { table, Begin::Settings, Connection(&[FLOW_CONTROL_ERROR]);
        "6.5.2" "a first window above the largest" => settings(&[(4, MOST + 1)]);
        "6.9.1" "a connection's window above the largest" => update(0, MOST), update(0, MOST);
        "6.9.2" "a first window that makes a stream's too large" => waits(1), update(1, MOST - 65_535), settings(&[(4, 65_536)]);
    }
    rows! { table, Begin::Settings, Connection(&[ENHANCE_YOUR_CALM, PROTOCOL_ERROR]);
        "6.10" "a head that has no end" => first, frame(CONTINUATION, 0, 1, &[]).repeat(2_000);
    }
    rows! { table, Begin::Call, Connection(&[STREAM_CLOSED, PROTOCOL_ERROR]);
        "5.1" "CONTINUATION on a closed stream" => frame(CONTINUATION, END_HEADERS, 1, &get_cat());
        "5.1.1" "a head on a stream that had its call" => get(1);
    }
}

fn stream_errors(table: &mut Table) {
    rows! { table, Begin::Settings, Stream(&[FRAME_SIZE_ERROR]);
        "4.2" "DATA above the largest frame" => post(1), frame(DATA, END_STREAM, 1, &[b'x'; 16_385]);
        "6.3" "PRIORITY of four bytes" => frame(PRIORITY, 0, 1, &[0; 4]);
    }
    rows! { table, Begin::Settings, Stream(&[STREAM_CLOSED]);
        "5.1" "DATA behind the last" => waits(1), end(1, b"x"), end(1, b"y");
        "5.1" "a head behind the last" => waits(1), end(1, b"x"), get(1);
        "5.1" "DATA behind a reset" => waits(1), reset(1), end(1, b"x");
        "5.1" "a head behind a reset" => waits(1), reset(1), get(1);
        "6.1" "DATA behind a request without a body" => get(1), end(1, b"x");
        "8.1" "a head behind trailers" => waits(1), frame(HEADERS, WHOLE, 1, &field("x", "y")), frame(HEADERS, WHOLE, 1, &field("x", "y"));
    }
    rows! { table, Begin::Call, Stream(&[STREAM_CLOSED]);
        "5.1" "DATA on a closed stream" => end(1, b"x");
    }
    rows! { table, Begin::Settings, Stream(&[STREAM_CLOSED, PROTOCOL_ERROR]);
        "5.1" "CONTINUATION behind the last" => waits(1), end(1, b"x"), frame(CONTINUATION, END_HEADERS, 1, &[]);
        "5.1" "CONTINUATION behind a reset" => waits(1), reset(1), frame(CONTINUATION, END_HEADERS, 1, &[]);
    }
    let many: Vec<u8> = (0..257).flat_map(|n| waits(2 * n + 1)).collect();
    rows! { table, Begin::Settings, Stream(&[REFUSED_STREAM, PROTOCOL_ERROR]);
        "5.1.2" "one stream more than may be open" => many;
    }
    rows! { table, Begin::Settings, Stream(&[PROTOCOL_ERROR]);
        "5.3.1" "a head that depends on itself (RFC 7540)" => dressed(WITH_PRIORITY, &[0, 0, 0, 1, 9], &[]);
        "5.3.1" "PRIORITY that depends on itself (RFC 7540)" => frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 9]);
        "6.9" "a stream's WINDOW_UPDATE by 0" => waits(1), update(1, 0);
    }
    rows! { table, Begin::Settings, Stream(&[FLOW_CONTROL_ERROR]);
        "6.9.1" "a stream's window above the largest" => waits(1), update(1, MOST), update(1, MOST);
    }
}

fn calls(table: &mut Table) {
    let [first, rest] = halves(1);
    let block = get_cat();
    rows! { table, Begin::Settings, Answer(200, "");
        "4.1" "a request" => get(1);
        "4.1" "an unknown frame, then a request" => frame(UNKNOWN, 0xff, 0, &[0; 64]), get(1);
        "4.1" "a stream's reserved bit" => frame(HEADERS, WHOLE, 0x8000_0001, &block);
        "4.1" "flags that mean nothing" => frame(HEADERS, WHOLE | 0x80, 1, &block);
        "4.3" "a head in two frames" => first, rest;
        "5.1" "PRIORITY on an idle stream" => frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]), get(1);
        "5.1" "WINDOW_UPDATE behind the last" => get(1), update(1, 100);
        "5.1" "PRIORITY behind the last" => get(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]);
        "5.1.1" "streams passed over" => get(1), get(301);
        "5.5" "an unknown frame on a stream" => get(1), frame(UNKNOWN, 0, 1, &[0; 4]);
        "6.2" "a padded head" => dressed(PADDED, &[3], &[0; 3]);
        "6.2" "a head with a priority" => dressed(WITH_PRIORITY, &[0, 0, 0, 0, 9], &[]);
        "6.2" "a padded head with a priority" => dressed(PADDED | WITH_PRIORITY, &[2, 0x80, 0, 0, 0, 9], &[0; 2]);
        "6.5.2" "an unknown setting" => settings(&[(0xff, 1)]), get(1);
        "6.5.2" "no table for compression" => settings(&[(1, 0)]), get(1);
        "6.5.2" "no streams for the server" => settings(&[(3, 0)]), get(1);
        "6.5.2" "the largest frame and list" => settings(&[(5, 16_777_215), (6, u32::MAX)]), get(1);
        "6.5.3" "a setting twice: the last counts" => settings(&[(4, 0), (4, 65_535)]), get(1);
        "6.10" "a head in many frames" => frame(HEADERS, END_STREAM, 1, &block[..1]), frame(CONTINUATION, 0, 1, &block[1..2]), frame(CONTINUATION, 0, 1, &[]), frame(CONTINUATION, END_HEADERS, 1, &block[2..]);
    }
    rows! { table, Begin::Settings, Answer(200, "hello");
        "6.1" "a body" => hello(1);
        "6.1" "a body in pieces, one of them empty" => post(1), frame(DATA, 0, 1, b"hel"), frame(DATA, 0, 1, b""), end(1, b"lo");
        "6.1" "padded DATA" => post(1), frame(DATA, PADDED | END_STREAM, 1, b"\x04hello\0\0\0\0");
        "6.1" "a body, then an empty end" => post(1), frame(DATA, 0, 1, b"hello"), end(1, b"");
        "6.9.2" "no window, then one by WINDOW_UPDATE" => settings(&[(4, 0)]), hello(1), update(1, 5);
        "6.9.2" "no window, then one by SETTINGS" => settings(&[(4, 0)]), hello(1), settings(&[(4, 5)]);
        "8.1" "a body and trailers" => post(1), frame(DATA, 0, 1, b"hello"), frame(HEADERS, WHOLE, 1, &field("x", "y"));
    }
    let text: &'static str = "x".repeat(16_384).leak();
    rows! { table, Begin::Settings, Answer(200, text);
        "4.2" "DATA of the largest frame" => post(1), end(1, text.as_bytes());
    }
    rows! { table, Begin::Settings, Part(1);
        "6.9.1" "a window of one byte" => settings(&[(4, 1)]), hello(1);
        "6.9.2" "a window made smaller, to one byte" => settings(&[(4, 4)]), post(1), settings(&[(4, 1)]), end(1, b"hello");
        "6.9.2" "a window made larger, then smaller" => settings(&[(4, 4)]), post(1), update(1, 1), settings(&[(4, 0)]), end(1, b"hello");
    }
    rows! { table, Begin::Part, Part(3);
        "6.9.1" "a window that is full" => b"";
        "6.9.2" "a window below nothing" => settings(&[(4, 1)]), update(1, 1);
    }
    rows! { table, Begin::Part, Part(4);
        "6.9.1" "a full window and one byte" => update(1, 1);
        "6.9.2" "a window below nothing, then one above" => settings(&[(4, 2)]), update(1, 2);
    }
    rows! { table, Begin::Part, Answer(200, "hello");
        "6.9.2" "a full window made larger by SETTINGS" => settings(&[(4, 5)]);
    }
}

fn all_well(table: &mut Table) {
    rows! { table, Begin::Settings, GoesOn;
        "4.1" "an unknown frame on an idle stream" => frame(UNKNOWN, 0, 1, &[0; 4]);
        "6.3" "PRIORITY on an idle stream" => frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 9]);
        "6.7" "a PING's answer" => frame(PING, ACK, 0, &[0; 8]);
        "6.4" "a reset" => waits(1), reset(1);
        "7" "a reset with an unknown code" => waits(1), frame(RST_STREAM, 0, 1, &OTHER.to_be_bytes());
    }
    rows! { table, Begin::Call, GoesOn;
        "5.1" "WINDOW_UPDATE on a closed stream" => update(1, 100);
        "5.1" "PRIORITY on a closed stream" => frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]);
        "5.1" "RST_STREAM on a closed stream" => reset(1);
    }
    rows! { table, Begin::Settings, Acks(2);
        "6.5" "SETTINGS without any" => settings(&[]);
        "6.5.3" "SETTINGS with many" => settings(&[(1, 100), (2, 0), (3, 9), (4, 99), (5, 16_384), (6, 9_999)]);
    }
    let word = *b"pingpong";
    rows! { table, Begin::Settings, Pong(word);
        "4.1" "a PING with flags that mean nothing" => frame(PING, 0xfe, 0, &word);
        "6.7" "a PING" => frame(PING, 0, 0, &word);
        "6.8" "a PING behind GOAWAY" => frame(GOAWAY, 0, 0, &[0; 8]), frame(PING, 0, 0, &word);
        "7" "a PING behind GOAWAY with an unknown code" => frame(GOAWAY, 0, 0, &[[0; 4], OTHER.to_be_bytes()].concat()), frame(PING, 0, 0, &word);
    }
}
