//! RFC 7541: heads as HPACK writes them. Its sections have `hpack` before them.

use super::{Begin, COMPRESSION_ERROR, Must, Table};
use crate::support::frames::*;

/// `x: y`, as a literal to keep.
const KEPT: &[u8] = &[0x40, 1, b'x', 1, b'y'];

/// A whole request on a stream, with these bytes around its head.
fn around(stream: u32, first: &[u8], last: &[u8]) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &[first, &get_cat(), last].concat())
}

/// A whole request on a stream whose head ends with these bytes.
fn get(stream: u32, last: &[u8]) -> Vec<u8> {
    around(stream, &[], last)
}

pub(super) fn add(table: &mut Table) {
    rows! { table, Begin::Settings, Must::Connection(&[COMPRESSION_ERROR]);
        "hpack 2.3.3" "an index past both tables" => get(1, &[0xff, 0]);
        "hpack 2.3.3" "a name whose index is past both tables" => get(1, &[0x0f, 0x70, 1, b'v']);
        "hpack 2.3.3" "the index of what was thrown out" => get(1, KEPT), around(3, &[0x20], &[0xbe]);
        "hpack 4.2" "a new size after a field" => get(1, &[0x20]);
        "hpack 5.1" "an integer without its end" => get(1, &[0xff]);
        "hpack 5.1" "an integer of more than 32 bits" => get(1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        "hpack 5.2" "a text longer than the head" => get(1, &[0, 1, b'x', 9, b'v']);
        "hpack 5.2" "a name without a value" => get(1, &[0, 1, b'x']);
        "hpack 5.2" "a Huffman text with more than seven bits of padding" => get(1, &[0, 1, b'x', 0x82, 0x1f, 0xff]);
        "hpack 5.2" "a Huffman text padded with zeros" => get(1, &[0, 1, b'x', 0x81, 0x18]);
        "hpack 5.2" "a Huffman text with its end within" => get(1, &[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]);
        "hpack 6.1" "the index 0" => get(1, &[0x80]);
        "hpack 6.3" "a new size above what we said" => around(1, &[0x3f, 0xe2, 0x1f], &[]);
    }
    rows! { table, Begin::Settings, Must::Answer(200, "");
        "hpack 2.3.2" "a field from the table, in the next call on it" => get(1, KEPT), get(3, &[0xbf]);
        "hpack 4.2" "two new sizes before the first field" => around(1, &[0x20, 0x3f, 0xe1, 0x1f], &[]);
        "hpack 4.4" "a field larger than the table" => around(1, &[0x3f, 1], &[&[0x40, 1, b'x', 100][..], &[b'v'; 100]].concat());
        "hpack 5.2" "a Huffman text" => get(1, &[0, 1, b'x', 0x81, 0x1f]);
        "hpack 5.2" "an empty text" => get(1, &[0, 1, b'x', 0]);
        "hpack 6.2.1" "a literal to keep" => get(1, KEPT);
        "hpack 6.2.2" "a literal not to keep" => get(1, &[0, 1, b'x', 1, b'y']);
        "hpack 6.2.3" "a literal never to keep" => get(1, &[0x10, 1, b'x', 1, b'y']);
        "hpack 6.3" "a table of no size" => around(1, &[0x20], &[]);
        "hpack 6.3" "a table of the size that we said" => around(1, &[0x3f, 0xe1, 0x1f], &[]);
    }
}
