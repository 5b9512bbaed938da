//! Output that never blocks: lines and chunks go to a bounded buffer, a thread of its own writes them.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What waits at most for a slow reader; more is dropped and counted.
const LONGEST_BACKLOG: usize = 256 * 1024;

/// A buffer that grew beyond this is given back once written.
const KEPT_CAPACITY: usize = 64 * 1024;

/// How long lines are gathered before they are written, so that a busy watchdog needs few writes.
const GATHER: Duration = Duration::from_millis(2);

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
    dropped: usize,
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

    fn start(name: &'static str, mut out: impl Write + Send + 'static) -> io::Result<Self> {
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

    /// Writes a line in the shape that readers of such logs know: `2025/01/31 23:59:59 message`.
    pub(crate) fn line(&self, message: Arguments<'_>) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        self.chunk(format!("{} {message}\n", timestamp(now)).as_bytes());
    }

    /// Writes bytes as they are, or drops them whole if they find no room.
    pub(crate) fn chunk(&self, bytes: &[u8]) {
        let mut backlog = self.0.lock();
        if backlog.bytes.len() + bytes.len() > LONGEST_BACKLOG {
            backlog.dropped += bytes.len();
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
        let _ = out.write_all(&bytes);
        if dropped > 0 {
            let name = self.name;
            let _ = writeln!(
                out,
                "fwatchdog: dropped {dropped} bytes of output, {name} was not read fast enough"
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

/// Joins the pieces of a command's stderr to whole lines, so that lines of parallel runs do not mix.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
    /// Put before each line, after the time.
    prefix: Option<&'static str>,
}

impl Lines {
    /// Lines of the stream of this name; without a name they are passed on as they are.
    pub(crate) fn of(prefix: Option<&'static str>) -> Self {
        Self {
            rest: Vec::new(),
            prefix,
        }
    }

    fn write(&self, sink: &Sink, text: &[u8]) {
        let Some(prefix) = self.prefix else {
            sink.chunk(text);
            return;
        };
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        for line in text.split(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(line);
            sink.line(format_args!("{prefix}: {line}"));
        }
    }

    /// A line longer than this is passed on in pieces.
    const LONGEST_LINE: usize = 16 * 1024;

    /// The buffer to append to.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.rest
    }

    /// Passes on what is complete.
    pub(crate) fn pass_on(&mut self, sink: &Sink) {
        let complete = match self.rest.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => at + 1,
            None if self.rest.len() > Self::LONGEST_LINE => self.rest.len(),
            None => return,
        };
        self.write(sink, &self.rest[..complete]);
        self.rest.drain(..complete);
    }

    /// Passes on the last line, even if it was never ended.
    pub(crate) fn finish(&mut self, sink: &Sink) {
        if !self.rest.is_empty() {
            self.rest.push(b'\n');
            self.write(sink, &self.rest);
            self.rest.clear();
        }
    }
}

/// `2025/01/31 23:59:59`, in UTC.
fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}/{month:02}/{day:02} {:02}:{:02}:{:02}",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Days since 1970-01-01 → year, month, day. Years are counted from March, so that a leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_calendar_dates() {
        assert_eq!(timestamp(0), "1970/01/01 00:00:00");
        assert_eq!(timestamp(951_782_399), "2000/02/28 23:59:59");
        assert_eq!(timestamp(951_782_400), "2000/02/29 00:00:00");
        assert_eq!(timestamp(1_735_689_599), "2024/12/31 23:59:59");
        assert_eq!(timestamp(4_107_542_400), "2100/03/01 00:00:00");
    }

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
        assert!((1..=2).contains(&notes.len()), "{} notes", notes.len());
    }

    #[test]
    fn pieces_become_lines_and_a_long_line_is_cut() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let gate = Gate {
            open: Arc::new((Mutex::new(true), Condvar::new())),
            written: Arc::clone(&written),
        };
        let sink = Sink::start("stderr", gate).unwrap();
        let mut lines = Lines::default();
        for piece in ["one\ntw", "o", "\nthree"] {
            lines.buffer().extend_from_slice(piece.as_bytes());
            lines.pass_on(&sink);
        }
        assert_eq!(lines.rest, b"three");
        lines
            .buffer()
            .extend(std::iter::repeat_n(b'y', 2 * Lines::LONGEST_LINE));
        lines.pass_on(&sink);
        assert!(lines.rest.is_empty());
        lines.buffer().push(b'z');
        lines.finish(&sink);
        sink.flush(Duration::from_secs(10));
        let written = written.lock().unwrap();
        assert!(written.starts_with(b"one\ntwo\nthreeyyy") && written.ends_with(b"yz\n"));
    }
}
