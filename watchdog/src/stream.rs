//! An answer that has begun while its run goes on.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::Frame;

use crate::exit::Exit;
use crate::fork::{Progress, Run};
use crate::report;

/// Output that is asked for before a chunk is passed on.
const CHUNK: usize = 64 * 1024;

/// The output of a run, passed on as it comes.
#[derive(Debug)]
pub(crate) struct Stream {
    /// `None` when everything has been said.
    run: Option<Run>,
    written: usize,
    /// Set when the run is over but its last output has still to be passed on.
    exit: Option<Exit>,
    /// Why the body is to be broken, as soon as what was passed on before has been written.
    failure: Option<String>,
    /// Set after a large chunk: hyper would gather a megabyte of them before it writes. One by one they stay in the
    /// processor's cache, and their memory is used again.
    is_to_be_written: bool,
}

impl Stream {
    /// The rest of a run whose output has outgrown the response buffer.
    pub(crate) fn new(run: Run) -> Self {
        Self {
            run: Some(run),
            written: 0,
            exit: None,
            failure: None,
            is_to_be_written: false,
        }
    }

    /// The output of a run that is over, when its failure came too late to be told otherwise than by breaking off.
    pub(crate) fn ended(run: Run, exit: Exit) -> Self {
        Self {
            exit: Some(exit),
            ..Self::new(run)
        }
    }

    /// The next chunk; at the end the timings as trailers, or an error that breaks the body of a failed run.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(io::Error::other(failure))));
        }
        let Some(run) = &mut self.run else {
            return Poll::Ready(None);
        };
        if std::mem::take(&mut self.is_to_be_written) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.exit.is_none() {
            match run.poll(cx, CHUNK) {
                Poll::Ready(Ok(Progress::Over(exit))) => self.exit = Some(exit),
                Poll::Ready(Err(refusal)) => return self.fail(cx, refusal.sentence()),
                Poll::Ready(Ok(Progress::Full)) | Poll::Pending => {}
            }
        }
        let output = run.take_output();
        self.written += output.len();
        self.is_to_be_written = output.len() >= CHUNK;
        match self.exit {
            _ if !output.is_empty() => Poll::Ready(Some(Ok(Frame::data(output)))),
            Some(Exit::Status(0)) => Poll::Ready(self.succeed()),
            Some(exit) => {
                let run = self.run.as_ref();
                let explained = run.and_then(|run| run.watchdog().memory.explains(exit));
                self.fail(cx, explained.unwrap_or_else(|| exit.to_string()))
            }
            None => Poll::Pending,
        }
    }

    fn succeed(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        let run = self.run.take()?;
        report::succeeded(&run, self.written);
        let trailers = HeaderMap::from_iter(run.timing().fields());
        Some(Ok(Frame::trailers(trailers)))
    }

    /// An error at once would make hyper drop what it has not written yet, even the head: it gets one turn for that.
    fn fail(&mut self, cx: &Context<'_>, reason: String) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(run) = self.run.take() {
            report::failed(&run, self.written, &reason);
        }
        self.failure = Some(reason);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
