//! One direction of a tunnel: what was read is written before more is read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;

/// What a direction holds at most.
const BUFFER: usize = 8 * 1024;

/// One direction: bytes on their way, and where in the protocol they are.
pub(super) struct Flow {
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
    source_ended: bool,
    sink_ended: bool,
    /// The frames that have passed, where there are any.
    pub(super) frames: Option<Frames>,
    /// Whether anything has moved since this was last made false.
    pub(super) has_moved: bool,
}

impl Flow {
    pub(super) fn new(frames: Option<Frames>) -> Self {
        Self {
            buffer: vec![0; BUFFER].into(),
            from: 0,
            to: 0,
            source_ended: false,
            sink_ended: false,
            frames,
            has_moved: false,
        }
    }

    /// Passes on what comes; ready when the source has ended and the sink knows.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        loop {
            while self.from < self.to {
                ready!(self.write(cx, sink, self.to))?;
            }
            if self.source_ended {
                // What ends without a word is not passed on as it is: a goodbye may still go there.
                if !self.sink_ended && !self.has_no_goodbye() {
                    ready!(Pin::new(&mut *sink).poll_shutdown(cx))?;
                    self.sink_ended = true;
                }
                return Poll::Ready(Ok(()));
            }
            match self.read(cx, source) {
                Poll::Pending => {
                    // Nothing more for now: what a layer below holds back goes out.
                    ready!(Pin::new(&mut *sink).poll_flush(cx))?;
                    return Poll::Pending;
                }
                Poll::Ready(read) => read?,
            }
        }
    }

    /// Passes on the rest of the frame that has begun, and no more. Ready at once where there are no frames.
    pub(super) fn poll_to_boundary(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        loop {
            let Some(frames) = &self.frames else {
                return Poll::Ready(Ok(()));
            };
            let held = frames.rest_of_frame(&self.buffer[self.from..self.to]);
            if held > 0 {
                ready!(self.write(cx, sink, self.from + held))?;
            } else if frames.is_between_frames() || self.source_ended {
                return Poll::Ready(Ok(()));
            } else {
                ready!(self.read(cx, source))?;
            }
        }
    }

    /// Whether a frame of our own could end this direction now.
    pub(super) fn may_say_goodbye(&self) -> bool {
        !self.sink_ended
            && self.has_no_goodbye()
            && self.frames.as_ref().is_some_and(Frames::is_between_frames)
    }

    /// Whether the protocol has a goodbye that has not been said.
    pub(super) fn has_no_goodbye(&self) -> bool {
        let frames = self.frames.as_ref();
        frames.is_some_and(|frames| !frames.said_goodbye())
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<()>> {
        let mut free = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(source).poll_read(cx, &mut free))?;
        (self.from, self.to) = (0, free.filled().len());
        self.source_ended = self.to == 0;
        self.has_moved = true;
        Poll::Ready(Ok(()))
    }

    /// Writes some of what is held, up to `end`.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut (impl AsyncWrite + Unpin),
        end: usize,
    ) -> Poll<io::Result<()>> {
        let held = &self.buffer[self.from..end];
        let written = ready!(Pin::new(sink).poll_write(cx, held))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        if let Some(frames) = &mut self.frames {
            frames.passed(&held[..written]);
        }
        self.from += written;
        self.has_moved = true;
        Poll::Ready(Ok(()))
    }
}
