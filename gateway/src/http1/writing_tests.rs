//! What goes out at once, and that all of it does.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use super::*;
use crate::upload::MOST_PIECES;

const HEAD: &str = "HEAD\r\n\r\n";

/// What a body has when it is asked.
enum Step {
    Piece(Bytes),
    Nothing,
    Broken,
}

fn piece(text: &str) -> Step {
    Step::Piece(Bytes::copy_from_slice(text.as_bytes()))
}

struct Steps {
    left: VecDeque<Step>,
    asked: Rc<Cell<usize>>,
}

impl Body for Steps {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        self.asked.set(self.asked.get() + 1);
        match self.left.pop_front() {
            Some(Step::Piece(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Step::Nothing) => Poll::Pending,
            Some(Step::Broken) => Poll::Ready(Some(Err("broken"))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }
}

/// Somebody who notes each write, and where its pieces were.
#[derive(Default)]
struct Line {
    wrote: Vec<Vec<u8>>,
    places: Vec<*const u8>,
    /// So many writes have been flushed.
    flushed: usize,
    /// So much is taken at once, and nothing the next time.
    takes: Option<usize>,
    is_full: bool,
}

impl Line {
    fn take(&mut self, pieces: &[&[u8]]) -> Poll<io::Result<usize>> {
        self.is_full = self.takes.is_some() && !self.is_full;
        if self.is_full {
            return Poll::Pending;
        }
        self.places
            .extend(pieces.iter().map(|piece| piece.as_ptr()));
        let mut all = pieces.concat();
        all.truncate(self.takes.unwrap_or(usize::MAX));
        let length = all.len();
        self.wrote.push(all);
        Poll::Ready(Ok(length))
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.take(&[bytes])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.take(&pieces.iter().map(|piece| &**piece).collect::<Vec<_>>())
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushed = self.wrote.len();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A message on its way.
struct Sent {
    writing: Writing<Steps>,
    line: Line,
    asked: Rc<Cell<usize>>,
}

impl Sent {
    fn begin(length: Length, steps: impl IntoIterator<Item = Step>) -> Self {
        let asked = Rc::default();
        let body = Steps {
            left: steps.into_iter().collect(),
            asked: Rc::clone(&asked),
        };
        let mut writing = Writing::default();
        writing.begin().extend_from_slice(b"HEAD\r\n");
        writing.follow(length, Some(body));
        Self {
            writing,
            line: Line::default(),
            asked,
        }
    }

    fn poll(&mut self) -> Poll<Result<(), Halt<&'static str>>> {
        let mut cx = Context::from_waker(Waker::noop());
        self.writing.poll(&mut cx, &mut self.line)
    }

    /// What has gone out with each write since it was last asked.
    fn wrote(&mut self) -> Vec<String> {
        let text = |write| String::from_utf8(write).unwrap();
        std::mem::take(&mut self.line.wrote)
            .into_iter()
            .map(text)
            .collect()
    }
}

#[test]
fn small_pieces_that_are_there_go_out_with_one_write() {
    let three = || ["a", "bc", "def"].map(piece);
    let mut sent = Sent::begin(Length::Exact(6), three());
    assert!(matches!(sent.poll(), Poll::Ready(Ok(()))));
    assert_eq!(sent.wrote(), [format!("{HEAD}abcdef")]);
    let mut sent = Sent::begin(Length::Chunked, three());
    assert!(matches!(sent.poll(), Poll::Ready(Ok(()))));
    let chunks = "1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\n";
    assert_eq!(sent.wrote(), [format!("{HEAD}{chunks}")]);
}

#[test]
fn one_small_body_is_asked_and_written_once() {
    for length in [Length::Exact(2), Length::Chunked] {
        let mut sent = Sent::begin(length, [piece("ok")]);
        assert!(matches!(sent.poll(), Poll::Ready(Ok(()))));
        assert_eq!((sent.wrote().len(), sent.asked.get()), (1, 1), "{length:?}");
    }
}

#[test]
fn nothing_is_held_back_while_the_body_has_no_more() {
    let steps = || {
        let after = ["c", "d"].map(piece);
        [piece("a"), piece("b"), Step::Nothing]
            .into_iter()
            .chain(after)
    };
    for (length, first, second) in [
        (Length::Exact(4), "ab", "cd"),
        (
            Length::Chunked,
            "1\r\na\r\n1\r\nb",
            "\r\n1\r\nc\r\n1\r\nd\r\n0\r\n\r\n",
        ),
        (Length::ToClose, "ab", "cd"),
    ] {
        let mut sent = Sent::begin(length, steps());
        assert!(sent.poll().is_pending());
        assert_eq!(sent.line.flushed, 1);
        assert_eq!(sent.wrote(), [format!("{HEAD}{first}")]);
        assert!(matches!(sent.poll(), Poll::Ready(Ok(()))));
        assert_eq!(sent.line.flushed, 1);
        assert_eq!(sent.wrote(), [second], "{length:?}");
        assert_eq!(sent.asked.get(), 5, "{length:?}");
    }
}

#[test]
fn what_is_too_large_to_be_gathered_goes_out_from_where_it_is() {
    let large = Bytes::from(vec![b'x'; COPIED]);
    let at = large.as_ptr();
    let mut sent = Sent::begin(Length::Chunked, [piece("a"), Step::Piece(large)]);
    assert!(matches!(sent.poll(), Poll::Ready(Ok(()))));
    assert_eq!(sent.line.places[1], at);
    let body = format!("1\r\na\r\n1000\r\n{}", "x".repeat(COPIED));
    assert_eq!(
        sent.wrote(),
        [format!("{HEAD}{body}"), "\r\n0\r\n\r\n".into()]
    );
}

#[test]
fn however_many_pieces_there_are_few_of_them_are_held_at_once() {
    let pieces = || (0..1000).map(|nth| piece(&format!("{nth:0>100}")));
    let all = pieces().map(|step| match step {
        Step::Piece(data) => format!("64\r\n{}\r\n", String::from_utf8_lossy(&data)),
        _ => String::new(),
    });
    let all = format!("{HEAD}{}0\r\n\r\n", all.collect::<String>());
    for takes in [None, Some(1000), Some(4000), Some(7)] {
        let mut sent = Sent::begin(Length::Chunked, pieces());
        sent.line.takes = takes;
        while sent.poll().is_pending() {
            assert!(sent.writing.framing.capacity() <= 4 * COPIED, "{takes:?}");
        }
        let wrote = sent.wrote();
        assert_eq!(wrote.concat(), all, "{takes:?}");
        assert!(wrote.iter().all(|write| write.len() <= COPIED + 110));
        assert!(takes.is_some() || wrote.len() <= all.len() / COPIED + 1);
    }
}

#[test]
fn a_body_of_tiny_pieces_can_begin_anew_if_the_first_write_fails() {
    let pieces = || (0..MOST_PIECES).map(|_| piece("x"));
    let mut sent = Sent::begin(Length::Chunked, pieces());
    sent.line.takes = Some(0);
    assert!(sent.poll().is_pending());
    assert!(matches!(sent.poll(), Poll::Ready(Err(Halt::Closed(_)))));
    assert!(sent.writing.sent() == 0 && sent.asked.get() < MOST_PIECES);
    // Pieces in which there is nothing are nothing.
    let empty = (0..MOST_PIECES).map(|_| piece("")).chain([piece("x")]);
    let mut sent = Sent::begin(Length::Exact(MOST_PIECES as u64 + 1), pieces().chain(empty));
    assert!(matches!(sent.poll(), Poll::Ready(Ok(()))));
    assert!(sent.wrote().concat().ends_with("xx"));
}

#[test]
fn what_came_before_a_body_broke_off_goes_out() {
    let mut sent = Sent::begin(Length::Chunked, [piece("a"), piece("b"), Step::Broken]);
    assert!(matches!(
        sent.poll(),
        Poll::Ready(Err(Halt::Body("broken")))
    ));
    assert_eq!(sent.wrote(), [format!("{HEAD}1\r\na\r\n1\r\nb")]);
    assert!(sent.writing.has_failed() && !sent.writing.is_done());
    let mut sent = Sent::begin(Length::Exact(1), [piece("a"), piece("b")]);
    assert!(matches!(sent.poll(), Poll::Ready(Err(Halt::Body(_)))));
    assert_eq!(sent.wrote(), [format!("{HEAD}a")]);
    let mut sent = Sent::begin(Length::Chunked, [Step::Broken]);
    assert!(matches!(sent.poll(), Poll::Ready(Err(Halt::Body(_)))));
    assert!(sent.wrote().is_empty());
}
