//! Output that never blocks: lines and chunks go to a bounded buffer, a thread of its own writes them.

use std::borrow::Cow;
use std::fmt::{Arguments, Write as _};
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::timestamp;

/// What waits at most for a slow reader; more is dropped and counted.
const LONGEST_BACKLOG: usize = 256 * 1024;

/// A buffer that grew beyond this is given back once written.
const KEPT_CAPACITY: usize = 64 * 1024;

/// How long lines are gathered before they are written, so that a busy watchdog needs few writes.
const GATHER: Duration = Duration::from_millis(2);

/// A line that is not longer than this is built without growing.
const USUAL_LINE: usize = 192;

/// The writer copies bytes and formats one line.
const THREAD_STACK: usize = 64 * 1024;

/// One output stream of the watchdog.
#[derive(Debug, Clone)]
pub(crate) struct Sink(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    name: &'static str,
    backlog: Mutex<Backlog>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Backlog {
    bytes: Vec<u8>,
    /// Since the last line that said so.
    dropped: usize,
    dropped_ever: u64,
    is_writer_waiting: bool,
    is_writing: bool,
}

impl Sink {
    /// The sink for stderr.
    pub(crate) fn stderr() -> io::Result<Self> {
        Self::start("stderr", io::stderr())
    }

    /// The sink for stdout.
    pub(crate) fn stdout() -> io::Result<Self> {
        Self::start("stdout", io::stdout())
    }

    /// A sink that `out` gets everything of, on a thread of its own.
    pub(crate) fn start(
        name: &'static str,
        mut out: impl Write + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name,
            backlog: Mutex::default(),
            changed: Condvar::new(),
        });
        let writer = Arc::clone(&shared);
        let body = move || loop {
            writer.write_next(&mut out);
        };
        std::thread::Builder::new()
            .name(format!("log-{name}"))
            .stack_size(THREAD_STACK)
            .spawn(body)?;
        Ok(Self(shared))
    }

    /// The stream's name.
    pub(crate) fn name(&self) -> &'static str {
        self.0.name
    }

    /// Bytes that were dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.lock().dropped_ever
    }

    /// Writes a line in the shape that readers of such logs know: `2025/01/31 23:59:59 message`. It is one line
    /// whatever the message holds, which may be a client's words.
    pub(crate) fn line(&self, message: Arguments<'_>) {
        let mut line = String::with_capacity(USUAL_LINE);
        timestamp::push_now(&mut line);
        line.push(' ');
        // Writing to a string does not fail.
        let _ = line.write_fmt(message);
        if let Cow::Owned(shown) = visible(&line) {
            line = shown;
        }
        line.push('\n');
        self.chunk(line.as_bytes());
    }

    /// Writes bytes as they are, or drops them whole if they find no room.
    pub(crate) fn chunk(&self, bytes: &[u8]) {
        let mut backlog = self.0.lock();
        if backlog.bytes.len() + bytes.len() > LONGEST_BACKLOG {
            backlog.drop_bytes(bytes.len());
            return;
        }
        backlog.bytes.extend_from_slice(bytes);
        if std::mem::take(&mut backlog.is_writer_waiting) {
            self.0.changed.notify_all();
        }
    }

    /// Waits until everything is written, but not longer than `patience`: a stalled reader must not hold up an exit.
    pub(crate) fn flush(&self, patience: Duration) {
        let backlog = self.0.lock();
        let is_busy = |backlog: &mut Backlog| {
            !backlog.bytes.is_empty() || backlog.dropped > 0 || backlog.is_writing
        };
        drop(
            self.0
                .changed
                .wait_timeout_while(backlog, patience, is_busy),
        );
    }
}

impl Backlog {
    fn drop_bytes(&mut self, count: usize) {
        self.dropped += count;
        self.dropped_ever += count as u64;
    }
}

/// The text with its control characters written out, `\n` as a backslash and an n.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    // Byte by byte, because most texts pass: the control characters beyond ASCII all begin with 0xC2.
    let may_control = |byte: u8| byte < b' ' || byte == 0x7f || byte == 0xc2;
    if !text.bytes().any(may_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to write and writes it; errors have nowhere to go.
    fn write_next(&self, out: &mut impl Write) {
        let mut backlog = self.lock();
        while backlog.bytes.is_empty() && backlog.dropped == 0 {
            backlog.is_writer_waiting = true;
            backlog = self
                .changed
                .wait(backlog)
                .unwrap_or_else(PoisonError::into_inner);
        }
        backlog.is_writer_waiting = false;
        backlog.is_writing = true;
        drop(backlog);
        std::thread::sleep(GATHER);
        let mut backlog = self.lock();
        let bytes = std::mem::take(&mut backlog.bytes);
        let dropped = std::mem::take(&mut backlog.dropped);
        drop(backlog);
        if out.write_all(&bytes).is_err() {
            // Nobody will ever read it; there may be somebody who looks at the metrics.
            self.lock().dropped_ever += bytes.len() as u64;
        }
        if dropped > 0 {
            let name = self.name;
            // What was dropped may have had the end of a line.
            let end = if bytes.ends_with(b"\n") { "" } else { "\n" };
            let _ = writeln!(
                out,
                "{end}fwatchdog: dropped {dropped} bytes of output, {name} was not read fast enough"
            );
        }
        let _ = out.flush();
        self.recycle(bytes);
    }

    fn recycle(&self, mut bytes: Vec<u8>) {
        let mut backlog = self.lock();
        bytes.clear();
        if backlog.bytes.is_empty() && bytes.capacity() <= KEPT_CAPACITY {
            backlog.bytes = bytes;
        }
        backlog.is_writing = false;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes bytes only while its gate is open.
    struct Gate {
        open: Arc<(Mutex<bool>, Condvar)>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (open, changed) = &*self.open;
            drop(
                changed
                    .wait_while(open.lock().unwrap(), |open| !*open)
                    .unwrap(),
            );
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_text_can_break_out_of_its_line() {
        assert_eq!(visible("plain: é \u{1f41d}"), "plain: é \u{1f41d}");
        let evil = visible("a\r\nb\t\u{1b}[2J\u{85}");
        assert_eq!(evil, "a\\r\\nb\\t\\u{1b}[2J\\u{85}");
    }

    #[test]
    fn a_reader_that_is_gone_is_counted() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::start("stderr", Gone).unwrap();
        sink.chunk(b"seven!\n");
        sink.flush(Duration::from_secs(10));
        assert_eq!(sink.dropped(), 7);
    }

    #[test]
    fn a_stalled_reader_costs_bounded_memory_and_one_line() {
        let open = Arc::new((Mutex::new(false), Condvar::new()));
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Sink::start(
            "stderr",
            Gate {
                open: Arc::clone(&open),
                written: Arc::clone(&written),
            },
        )
        .unwrap();
        let chunk = [b'x'; 1024];
        for _ in 0..2048 {
            sink.chunk(&chunk);
        }
        assert!(sink.0.lock().bytes.len() <= LONGEST_BACKLOG);
        *open.0.lock().unwrap() = true;
        open.1.notify_all();
        sink.flush(Duration::from_secs(10));
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let kept = written.bytes().filter(|byte| *byte == b'x').count();
        let notes: Vec<_> = written.split("dropped ").skip(1).collect();
        let dropped: usize = notes
            .iter()
            .map(|note| note.split(' ').next().unwrap().parse::<usize>().unwrap())
            .sum();
        assert_eq!(kept + dropped, 2048 * 1024);
        assert_eq!(sink.dropped(), dropped as u64);
        assert!((1..=2).contains(&notes.len()), "{} notes", notes.len());
    }
}
