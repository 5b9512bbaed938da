//! HTTP/2 as its documents have it (RFC 9113, RFC 7541): a table of what a client sends and what must come, without TLS and by it.

/// Adds rows to the table: what is sent before each, what must come; then section, name and frames of each.
macro_rules! rows {
    ($table:ident, $begin:expr, $must:expr; $($section:literal $name:literal => $($frames:expr),+;)+) => {
        $($table.add($section, $name, $begin, [$($frames.to_vec()),+].concat(), $must);)+
    };
}

mod compression;
mod messages;
mod misses;
mod streams;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::tls::World;
use crate::support::authority;
use crate::support::frames::*;
use crate::support::upstream::Upstream;
use misses::MISSES;

/// How many connections are under way at once.
const SIDE_BY_SIDE: usize = 8;
/// How long what must come may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Each row's last word is an ordinary call on this stream: once it is answered, all before it has been looked at.
const LAST: u32 = 1001;

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What must come.
#[derive(Clone, Copy, Debug)]
enum Must {
    /// A connection error: GOAWAY with one of these codes, and the end (§5.4.1).
    Connection(&'static [u32]),
    /// A stream error: `RST_STREAM` with one of these codes. It may be taken for a connection error (§5.4.2).
    Stream(&'static [u32]),
    /// A malformed message: a stream error, or an answer 400 before it (§8.1.1).
    Malformed,
    /// An answer with this status on stream 1; if it is 200, with this body.
    Answer(u16, &'static str),
    /// No answer and no error; the connection goes on.
    GoesOn,
    /// This one PING comes back.
    Pong([u8; 8]),
    /// So many SETTINGS are acknowledged.
    Acks(usize),
    /// So many bytes of the body on stream 1, which has more, and the connection goes on.
    Part(usize),
    /// The end, in whatever words.
    Ends,
}
use Must::*;

/// What is sent before a row's own frames.
#[derive(Clone, Copy, Debug)]
enum Begin {
    Nothing,
    Preface,
    Settings,
    /// All that, and a call on stream 1, which is answered.
    Call,
    /// A call on stream 1 whose answer has five bytes, in a window of three, which it has filled.
    Part,
}

#[derive(Debug)]
struct Row {
    section: &'static str,
    name: &'static str,
    begin: Begin,
    sends: Vec<u8>,
    must: Must,
}

#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    fn add(
        &mut self,
        section: &'static str,
        name: &'static str,
        begin: Begin,
        sends: Vec<u8>,
        must: Must,
    ) {
        self.0.push(Row {
            section,
            name,
            begin,
            sends,
            must,
        });
    }
}

/// All that came on a connection.
#[derive(Debug, Default)]
struct Seen {
    acks: usize,
    pongs: Vec<Vec<u8>>,
    answers: BTreeMap<u32, Answered>,
    /// Streams and their codes.
    resets: Vec<(u32, u32)>,
    goaway: Option<u32>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Answered {
    status: u16,
    body: Vec<u8>,
    whole: bool,
}

impl Seen {
    fn take(&mut self, frame: Frame) {
        let word = |at: usize| u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap());
        match frame.kind {
            SETTINGS if frame.flags & ACK != 0 => self.acks += 1,
            PING if frame.flags & ACK != 0 => self.pongs.push(frame.payload),
            RST_STREAM => self.resets.push((frame.stream, word(0))),
            GOAWAY => self.goaway = Some(word(4)),
            HEADERS | DATA => {
                let answer = self.answers.entry(frame.stream).or_default();
                answer.whole |= frame.flags & END_STREAM != 0;
                if frame.kind == HEADERS {
                    answer.status = status(&frame.payload);
                } else {
                    answer.body.extend_from_slice(&frame.payload);
                }
            }
            _ => {}
        }
    }

    fn whole(&self, stream: u32) -> Option<&Answered> {
        self.answers.get(&stream).filter(|answer| answer.whole)
    }

    /// Whether nothing is to be expected but what takes its time.
    fn is_over(&self) -> bool {
        let reset = || self.resets.iter().any(|(stream, _)| *stream == LAST);
        self.closed || self.whole(LAST).is_some() || reset()
    }

    fn is_well(&self) -> bool {
        let codes = self.resets.iter().map(|(_, code)| *code);
        codes.chain(self.goaway).all(|code| code == NO_ERROR)
    }

    fn is(&self, must: Must) -> bool {
        let goaway =
            |codes: &[u32]| self.closed && self.goaway.is_some_and(|code| codes.contains(&code));
        let reset = |codes: &[u32]| self.resets.iter().any(|(_, code)| codes.contains(code));
        let first = self.whole(1);
        match must {
            Connection(codes) => goaway(codes),
            Stream(codes) => reset(codes) || goaway(codes),
            Malformed => {
                let refused = first.is_some_and(|answer| answer.status == 400);
                refused || reset(&[PROTOCOL_ERROR]) || goaway(&[PROTOCOL_ERROR])
            }
            Answer(status, body) => {
                let fits = |answer: &Answered| {
                    answer.status == status && (status != 200 || answer.body == body.as_bytes())
                };
                self.is_well() && first.is_some_and(fits)
            }
            GoesOn => self.is_well() && self.whole(LAST).is_some() && self.pongs.is_empty(),
            Pong(payload) => self.is_well() && self.pongs == [payload],
            Acks(count) => self.is_well() && self.acks == count,
            Part(size) => {
                let part = self.answers.get(&1);
                let fits = |part: &Answered| !part.whole && part.body.len() == size;
                self.is_well() && self.whole(LAST).is_some() && part.is_some_and(fits)
            }
            Ends => self.closed,
        }
    }
}

/// The status of an answer whose head begins with an entry of the static table (RFC 7541, Appendix A); 0 if it does not.
fn status(block: &[u8]) -> u16 {
    // The word for a table of no size may come before it.
    let block = block.strip_prefix(&[0x20]).unwrap_or(block);
    let known = [200, 204, 206, 304, 400, 404, 500];
    let index = usize::from(block[0]).checked_sub(0x88);
    index
        .and_then(|index| known.get(index).copied())
        .unwrap_or(0)
}

/// A connection by TLS that can be read where it cannot be written any more: what came before the end is still there.
struct Secure(authority::Stream);

impl Read for Secure {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.conn.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.0.conn.read_tls(&mut self.0.sock)?;
                    let fine = self.0.conn.process_new_packets();
                    fine.map_err(io::Error::other)?;
                }
                read => return read,
            }
        }
    }
}

impl Write for Secure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Plays a row on a connection, until what is expected has come and its last call has ended.
fn play(row: &Row, stream: &mut (impl Read + Write), expected: Must) -> Seen {
    let hello = frame(SETTINGS, 0, 0, &[]);
    let call = frame(HEADERS, WHOLE, 1, &get_cat());
    let narrow = settings(&[(4, 3)]);
    let (begin, awaited) = match row.begin {
        Begin::Nothing => (vec![], None),
        Begin::Preface => (PREFACE.to_vec(), None),
        Begin::Settings => ([PREFACE, &hello].concat(), None),
        Begin::Call => ([PREFACE, &hello, &call].concat(), Some(0)),
        Begin::Part => ([PREFACE, &narrow, &streams::hello(1)].concat(), Some(3)),
    };
    let mut seen = Seen::default();
    let listen = |stream: &mut _, seen: &mut Seen, until: &dyn Fn(&Seen) -> bool| {
        while !seen.closed && !until(seen) {
            match read(stream) {
                Ok(Some(frame)) => seen.take(frame),
                Ok(None) => seen.closed = true,
                // Silence: what came is looked at as it is.
                Err(_) => break,
            }
        }
    };
    // A write may come too late: whoever wanted no more of it has said so.
    let say = |stream: &mut (dyn Write + '_), bytes: &[u8]| {
        let _ = stream.write_all(bytes).and_then(|()| stream.flush());
    };
    let last = frame(HEADERS, WHOLE, LAST, &get_cat());
    let mut rest = [&row.sends[..], &last].concat();
    if let Some(size) = awaited {
        say(stream, &begin);
        listen(stream, &mut seen, &|seen| {
            let first = seen.answers.get(&1);
            first.is_some_and(|answer| answer.body.len() == size && (answer.whole || size > 0))
        });
    } else {
        rest = [begin, rest].concat();
    }
    say(stream, &rest);
    listen(stream, &mut seen, &|seen| {
        seen.is_over() && seen.is(expected)
    });
    seen
}

#[test]
fn each_row_of_the_table_is_answered_as_it_says() {
    let world = World::new();
    let waits = Upstream::new(|stream, _| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let functions = format!("  cat:\n    fprocess: cat\n{}", waits.entry("waits", ""));
    let gateway = world.gateway(&functions, &[]);
    let mut table = Table::default();
    streams::add(&mut table);
    messages::add(&mut table);
    compression::add(&mut table);
    let rows = table.0;
    let missed = rows
        .iter()
        .filter(|row| MISSES.iter().any(|miss| miss.is_of(row)));
    let missed = missed.count();
    let listed: usize = MISSES.iter().map(|miss| miss.rows.len()).sum();
    assert_eq!(missed, listed, "each miss is of one row");
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let miss = MISSES.iter().find(|miss| miss.is_of(row));
                    let expected = miss.map_or(row.must, |miss| miss.comes);
                    let mut plain = TcpStream::connect(gateway.address).unwrap();
                    let secure = world.authority.connect_h2(gateway.secure_address());
                    let mut secure = Secure(secure);
                    for tcp in [&plain, &secure.0.sock] {
                        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
                    }
                    for (how, seen) in [
                        ("plain", play(row, &mut plain, expected)),
                        ("by TLS", play(row, &mut secure, expected)),
                    ] {
                        let mended = miss.is_some() && seen.is(row.must);
                        if mended || !seen.is(expected) {
                            let (section, name) = (row.section, row.name);
                            let why = miss.map_or("", |miss| miss.why);
                            let told =
                                format!("{section} {name}, {how}: {expected:?} {why}, {seen:?}");
                            wrong.lock().unwrap().push(told);
                        }
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort();
    println!("{} rows, of which {missed} are missed", rows.len());
    assert!(rows.len() >= 200, "{} rows", rows.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
