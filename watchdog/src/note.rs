//! The note on a request for a child that was started before it: the head as one line of JSON on descriptor 3.

use std::task::{Context, Poll};

use crate::json;
use crate::pipes::Writer;
use crate::strings::Strings;

/// A line on its way. Nobody waits for it: a command that does not read it runs on, and what it has not read by its end
/// is dropped.
#[derive(Debug)]
pub(crate) struct Note {
    pipe: Writer,
    line: Vec<u8>,
    sent: usize,
}

impl Note {
    /// The entries that a new process would have in its environment.
    pub(crate) fn new(entries: &Strings, pipe: Writer) -> Self {
        Self {
            pipe,
            line: line(entries).into_bytes(),
            sent: 0,
        }
    }

    /// Writes what the pipe takes; ready when it is to be closed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.sent < self.line.len() {
            match self.pipe.poll_write(cx, &self.line[self.sent..]) {
                Poll::Ready(Ok(count)) => self.sent += count,
                // The command has closed it.
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}

/// `{"Http_Path":"/","Http_Method":"GET"}` and a line feed. What is not UTF-8 cannot be JSON and is replaced.
fn line(entries: &Strings) -> String {
    let members: Vec<String> = entries
        .iter()
        .filter_map(|entry| {
            let at = entry.iter().position(|byte| *byte == b'=')?;
            let text = |bytes| json::quoted(&String::from_utf8_lossy(bytes));
            Some(format!("{}:{}", text(&entry[..at]), text(&entry[at + 1..])))
        })
        .collect();
    format!("{{{}}}\n", members.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_one_line_whatever_the_values_are() {
        let mut entries = Strings::default();
        assert_eq!(line(&entries), "{}\n");
        entries.push(&[b"Http_Path=/a=b\n\"c\""]);
        entries.push(&[b"Http_X=\xff\xc3\xa4"]);
        assert_eq!(
            line(&entries),
            "{\"Http_Path\":\"/a=b\\u000a\\\"c\\\"\",\"Http_X\":\"\u{fffd}\u{e4}\"}\n"
        );
    }
}
