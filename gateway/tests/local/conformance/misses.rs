//! Rows that are not answered as the documents have it: what comes instead, and why we leave it so.

use super::{Must, PROTOCOL_ERROR, Row};

/// Rows that are missed for one reason.
pub(super) struct Miss {
    /// What comes in place of what must.
    pub(super) comes: Must,
    pub(super) why: &'static str,
    /// Their sections and names.
    pub(super) rows: &'static [(&'static str, &'static str)],
}

impl Miss {
    pub(super) fn is_of(&self, row: &Row) -> bool {
        self.rows.contains(&(row.section, row.name))
    }
}

const ANSWERED: Must = Must::Answer(200, "");

pub(super) const MISSES: &[Miss] = &[
    Miss {
        comes: Must::Connection(&[PROTOCOL_ERROR]),
        why: "h2 has one code for whatever it cannot read; the connection ends all the same",
        rows: &[
            ("4.3", "a head that cannot be read"),
            ("4.3", "a head that cannot be read, in pieces"),
            ("4.3", "trailers that cannot be read"),
            ("6.4", "RST_STREAM of three bytes"),
            ("6.5", "SETTINGS of five bytes"),
            ("6.5", "an acknowledgement with something in it"),
            ("6.5.2", "a first window above the largest"),
            ("6.7", "a PING of nine bytes"),
            ("6.7", "a PING of six bytes"),
            ("6.8", "GOAWAY of seven bytes"),
            ("6.9", "WINDOW_UPDATE of five bytes on a stream"),
            ("6.9", "WINDOW_UPDATE of three bytes"),
            ("hpack 2.3.3", "a name whose index is past both tables"),
            ("hpack 2.3.3", "an index past both tables"),
            ("hpack 2.3.3", "the index of what was thrown out"),
            ("hpack 4.2", "a new size after a field"),
            ("hpack 5.1", "an integer of more than 32 bits"),
            ("hpack 5.1", "an integer without its end"),
            ("hpack 5.2", "a Huffman text padded with zeros"),
            ("hpack 5.2", "a Huffman text with its end within"),
            (
                "hpack 5.2",
                "a Huffman text with more than seven bits of padding",
            ),
            ("hpack 5.2", "a name without a value"),
            ("hpack 5.2", "a text longer than the head"),
            ("hpack 6.1", "the index 0"),
            ("hpack 6.3", "a new size above what we said"),
        ],
    },
    Miss {
        comes: Must::Connection(&[PROTOCOL_ERROR]),
        why: "h2 ends the connection with that code, not the stream with its own: only a broken client sends this",
        rows: &[
            ("5.1", "DATA behind the last"),
            ("5.1", "a head behind a reset"),
            ("5.1", "a head behind the last"),
            ("6.1", "DATA behind a request without a body"),
            ("6.3", "PRIORITY of four bytes"),
            ("8.1", "a head behind trailers"),
        ],
    },
    Miss {
        comes: Must::GoesOn,
        why: "h2 takes any frame first; a client that has no wishes loses nothing",
        rows: &[("3.4", "a head before the first SETTINGS")],
    },
    Miss {
        comes: Must::Pong([0; 8]),
        why: "the same",
        rows: &[("3.4", "a PING before the first SETTINGS")],
    },
    Miss {
        comes: Must::Answer(200, "hello"),
        why: "h2 leaves it out of the trailers; the function does not see it",
        rows: &[("8.1", "a first field among trailers")],
    },
    Miss {
        comes: ANSWERED,
        why: "h2 lets it pass; over HTTP/1.1, as to our watchdog, space around a value is none of it",
        rows: &[
            ("8.2.1", "a value that begins with a space"),
            ("8.2.1", "a value that ends with a tab"),
        ],
    },
    Miss {
        comes: ANSWERED,
        why: "h2 lets it pass; nothing is made of a client's :scheme",
        rows: &[("8.3.1", "an empty :scheme")],
    },
    Miss {
        comes: ANSWERED,
        why: "a SHOULD; :authority alone counts and is what the function sees",
        rows: &[("8.3.1", "another host than :authority")],
    },
    Miss {
        comes: Must::Answer(404, ""),
        why: "h2 lets it pass; it is nobody's path",
        rows: &[("8.3.1", "* as a POST's :path")],
    },
];
