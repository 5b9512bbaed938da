//! A command's output in whole lines, so that lines of parallel runs do not mix, each with its prefix.

use crate::logs::Sink;
use crate::timestamp;

/// Joins pieces to lines. A line that is too long is passed on in pieces, and so takes bounded memory.
#[derive(Debug)]
pub(crate) struct Lines {
    /// What has come and is not passed on.
    rest: Vec<u8>,
    /// How much of it is known to have no end of a line.
    searched: usize,
    /// Put before each line, after the time.
    prefix: Option<&'static str>,
    longest: usize,
}

impl Lines {
    /// Lines of the stream of this name; without a name they are passed on as they are.
    pub(crate) fn of(prefix: Option<&'static str>, longest: usize) -> Self {
        Self {
            rest: Vec::new(),
            searched: 0,
            prefix,
            longest,
        }
    }

    /// The buffer to append to.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.rest
    }

    /// Passes on what is complete, or too long to be kept.
    pub(crate) fn pass_on(&mut self, sink: &Sink) {
        let fresh = &self.rest[self.searched..];
        let complete = match fresh.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => self.searched + at + 1,
            None if self.rest.len() >= self.longest => self.rest.len(),
            None => {
                self.searched = self.rest.len();
                return;
            }
        };
        self.write(sink, &self.rest[..complete]);
        self.rest.drain(..complete);
        self.searched = self.rest.len();
    }

    /// Passes on the last line, even if it was never ended.
    pub(crate) fn finish(&mut self, sink: &Sink) {
        if !self.rest.is_empty() {
            self.rest.push(b'\n');
            self.write(sink, &self.rest);
            self.rest.clear();
            self.searched = 0;
        }
    }

    fn write(&self, sink: &Sink, text: &[u8]) {
        let Some(prefix) = self.prefix else {
            sink.chunk(text);
            return;
        };
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        // The command's own bytes, whatever they are: what it writes is its business.
        let mut head = String::new();
        timestamp::push_now(&mut head);
        head = head + " " + prefix + ": ";
        for line in text.split(|byte| *byte == b'\n') {
            sink.chunk(&[head.as_bytes(), line, b"\n"].concat());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    #[derive(Default, Clone)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of these pieces.
    fn written(lines: &mut Lines, pieces: &[&[u8]]) -> Vec<u8> {
        let written = Written::default();
        let sink = Sink::start("stderr", written.clone()).unwrap();
        for piece in pieces {
            lines.buffer().extend_from_slice(piece);
            lines.pass_on(&sink);
        }
        lines.finish(&sink);
        sink.flush(Duration::from_secs(10));
        let written = written.0.lock().unwrap();
        written.clone()
    }

    #[test]
    fn pieces_become_lines_and_the_last_one_is_ended() {
        let mut lines = Lines::of(None, 100);
        let text = written(&mut lines, &[b"one\ntw", b"o", b"\nthree"]);
        assert_eq!(text, b"one\ntwo\nthree\n");
    }

    #[test]
    fn a_long_line_is_passed_on_in_pieces_and_never_kept() {
        let mut lines = Lines::of(None, 100);
        let sink = Sink::start("stderr", io::sink()).unwrap();
        for _ in 0..1000 {
            lines.buffer().extend_from_slice(&[b'y'; 30]);
            lines.pass_on(&sink);
            assert!(lines.rest.len() < 100);
        }
        assert!(lines.rest.capacity() < 1000);
        let text = written(&mut lines, &[&[b'z'; 250], b"z\nend"]);
        assert_eq!(text.iter().filter(|byte| **byte == b'z').count(), 251);
        assert!(text.ends_with(b"z\nend\n"));
    }

    #[test]
    fn each_line_has_the_prefix_and_its_own_bytes() {
        let mut lines = Lines::of(Some("stderr"), 100);
        let text = written(&mut lines, &[b"a\xff\0\tb\n\nc"]);
        let rests: Vec<_> = text
            .split(|byte| *byte == b'\n')
            .map(|line| line.get(20..).unwrap_or_default())
            .collect();
        let expected = [&b"stderr: a\xff\0\tb"[..], b"stderr: ", b"stderr: c", b""];
        assert_eq!(rests, expected);
    }
}
