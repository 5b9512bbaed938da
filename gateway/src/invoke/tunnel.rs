//! An upgraded call: bytes both ways between client and function until one of them, or time, ends it.
//!
//! At its end a WebSocket that still goes on gets a close frame, 1001 "going away", between two frames; of any other
//! protocol nothing is known, and its connections are closed.

mod flow;
mod frames;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, Cursor};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use hyper::Response;
use hyper::header::UPGRADE;
use hyper::http::response::Parts;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use self::flow::Flow;
use self::frames::{Frames, going_away};
use super::headers;
use crate::alarm::Alarm;
use crate::drain::{Guest, Phase};
use crate::endpoint::Lease;
use crate::http1::Http1;
use crate::incoming::Upgrade;
use crate::metrics::Call;
use crate::reply::Body;

/// How long each step of a goodbye may take: to the end of the frame that has begun, and until the other side has read it.
const GOODBYE: Duration = Duration::from_millis(500);

/// A call that has become a tunnel; its place on the endpoint and its metrics are held until the tunnel ends.
pub(super) struct Tunnel {
    pub(super) lease: Lease,
    pub(super) call: Call,
    /// How long both sides may be silent.
    pub(super) idle: Duration,
    pub(super) guest: Guest,
}

/// Why a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Both sides have ended, or the client has gone.
    Orderly,
    /// A connection broke, or the function's ended without a word: a client that is still there is told.
    FunctionGone,
    /// No byte either way for as long as the function allows.
    Idle,
    /// The gateway ends, and has waited as long as it may.
    TimeOver,
}

impl End {
    /// Both sides are still there, and have to be told.
    fn is_ours(self) -> bool {
        matches!(self, Self::Idle | Self::TimeOver)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Orderly => "it is done",
            Self::FunctionGone => "the function's replica has gone",
            Self::Idle => "nothing was sent for too long",
            Self::TimeOver => "the gateway ends",
        })
    }
}

impl Tunnel {
    /// Begins beside the answer that tells the client of it.
    pub(super) fn begin(self, client: Upgrade, function: Http1, mut head: Parts) -> Response<Body> {
        let protocol = head.headers.get(UPGRADE).cloned();
        headers::inbound(&mut head.headers);
        let has_frames = protocol
            .as_ref()
            .is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(b"websocket"));
        if let Some(protocol) = protocol {
            headers::switch(&mut head.headers, protocol);
        }
        tokio::spawn(self.run(client, function, has_frames));
        Response::from_parts(head, Body::from(""))
    }

    /// Carries bytes until the end.
    async fn run(mut self, client: Upgrade, function: Http1, has_frames: bool) {
        // The client went away before there was a tunnel.
        let Some(client) = client.upgraded().await else {
            return;
        };
        let (function, come) = function.into_parts();
        // A function that does not read for a while is not gone; if that fails the connection is.
        let _ = SockRef::from(&function).set_tcp_user_timeout(Some(self.idle));
        let (read, write) = function.into_split();
        let frames = || has_frames.then(Frames::default);
        let mut ends = Ends {
            client,
            function: tokio::io::join(Cursor::new(come).chain(read), write),
            up: Flow::new(frames()),
            down: Flow::new(frames()),
        };
        let end = ends.pass(self.idle, &mut self.guest).await;
        if end.is_ours() {
            // Whoever does not get to the end of a frame in time is cut in the middle.
            let _ = timeout(GOODBYE, ends.reach_boundaries()).await;
        }
        let function = self.call.function().label();
        tracing::debug!(function, endpoint = %self.lease.endpoint().address().socket, %end, "tunnel ended");
        ends.say_goodbye(end).await;
    }
}

/// The two connections, and what is on its way between them.
struct Ends<C, F> {
    client: C,
    function: F,
    up: Flow,
    down: Flow,
}

impl<C, F> Ends<C, F>
where
    C: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + AsyncWrite + Unpin,
{
    async fn pass(&mut self, idle: Duration, guest: &mut Guest) -> End {
        let mut over = pin!(guest.reached(Phase::Over));
        let mut alarm = Alarm::default();
        let mut due = Instant::now() + idle;
        poll_fn(|cx| {
            if over.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::TimeOver);
            }
            let up = self.up.poll(cx, &mut self.client, &mut self.function);
            let down = self.down.poll(cx, &mut self.function, &mut self.client);
            if let Some(end) = self.end(&up, &down) {
                return Poll::Ready(end);
            }
            if self.up.has_moved || self.down.has_moved {
                (self.up.has_moved, self.down.has_moved) = (false, false);
                due = Instant::now() + idle;
            }
            alarm.poll(cx, due).map(|()| End::Idle)
        })
        .await
    }

    fn end(&self, up: &Poll<io::Result<()>>, down: &Poll<io::Result<()>>) -> Option<End> {
        match (up, down) {
            (_, Poll::Ready(Err(_))) | (Poll::Ready(Err(_)), _) => Some(End::FunctionGone),
            // A WebSocket ends with a frame that says so; what just ends is gone.
            (_, Poll::Ready(Ok(()))) if self.down.has_no_goodbye() => Some(End::FunctionGone),
            (Poll::Ready(Ok(())), _) if self.up.has_no_goodbye() => Some(End::Orderly),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Some(End::Orderly),
            _ => None,
        }
    }

    async fn reach_boundaries(&mut self) {
        let mut done = [false; 2];
        poll_fn(|cx| {
            let (client, function) = (&mut self.client, &mut self.function);
            done[0] = done[0] || self.up.poll_to_boundary(cx, client, function).is_ready();
            done[1] = done[1] || self.down.poll_to_boundary(cx, function, client).is_ready();
            if done == [true; 2] {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    async fn say_goodbye(mut self, end: End) {
        let reason = end.to_string();
        let to_client =
            (end != End::Orderly && self.down.may_say_goodbye()).then(|| going_away(&reason, None));
        let to_function = (end.is_ours() && self.up.may_say_goodbye())
            .then(|| going_away(&reason, Some(fastrand::u32(..).to_ne_bytes())));
        tokio::join!(
            close(&mut self.client, to_client),
            close(&mut self.function, to_function)
        );
    }
}

/// Sends the last bytes and closes; what the other side still sends is read, because unread bytes would turn the close
/// into a reset, which takes the last bytes along.
async fn close(connection: &mut (impl AsyncRead + AsyncWrite + Unpin), last: Option<Vec<u8>>) {
    let goodbye = async {
        connection.write_all(&last.unwrap_or_default()).await?;
        connection.shutdown().await?;
        let mut unread = [0; 512];
        while connection.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // Errors and time-outs are the other side's: it is closed either way.
    let _ = timeout(GOODBYE, goodbye).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;
    use crate::drain::Drain;

    /// A tunnel in the middle, and the client's and the function's side of it.
    fn tunnel(frames: bool) -> (Ends<DuplexStream, DuplexStream>, DuplexStream, DuplexStream) {
        let (client, ours) = duplex(64);
        let (function, theirs) = duplex(64);
        let frames = || frames.then(Frames::default);
        let ends = Ends {
            client: ours,
            function: theirs,
            up: Flow::new(frames()),
            down: Flow::new(frames()),
        };
        (ends, client, function)
    }

    async fn end(mut ends: Ends<DuplexStream, DuplexStream>, drain: &Drain) -> End {
        let idle = Duration::from_secs(60);
        let end = ends.pass(idle, &mut drain.guest()).await;
        if end.is_ours() {
            let _ = timeout(GOODBYE, ends.reach_boundaries()).await;
        }
        ends.say_goodbye(end).await;
        end
    }

    async fn rest(mut stream: DuplexStream) -> Vec<u8> {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all
    }

    #[tokio::test(start_paused = true)]
    async fn the_goodbye_stands_between_two_frames() {
        let (ends, client, mut function) = tunnel(true);
        let drain = Drain::default();
        let told = drain.clone();
        let running = tokio::spawn(async move { end(ends, &told).await });
        function.write_all(&[0x82, 5, 1, 2]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        drain.enter(Phase::Over);
        tokio::time::sleep(Duration::from_millis(10)).await;
        function.write_all(&[3, 4, 5, 0x81, 1, b'x']).await.unwrap();
        let seen = tokio::spawn(rest(client));
        let (told, seen) = (rest(function).await, seen.await.unwrap());
        assert_eq!(seen[..7], [0x82, 5, 1, 2, 3, 4, 5], "the frame is whole");
        assert_eq!(seen[7..], going_away("the gateway ends", None));
        assert!(told[0] == 0x88 && told[1] & 0x80 != 0, "masked: {told:?}");
        assert_eq!(running.await.unwrap(), End::TimeOver);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_does_not_end_in_time_is_cut_without_a_goodbye() {
        let (ends, client, mut function) = tunnel(true);
        let drain = Drain::default();
        drain.enter(Phase::Finishing);
        let told = drain.clone();
        let running = tokio::spawn(async move { end(ends, &told).await });
        function.write_all(&[0x82, 5, 1, 2]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        drain.enter(Phase::Over);
        assert_eq!(rest(client).await, [0x82, 5, 1, 2]);
        assert_eq!(running.await.unwrap(), End::TimeOver);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_said_goodbye_is_not_spoken_for() {
        let (ends, mut client, mut function) = tunnel(true);
        let drain = Drain::default();
        let told = drain.clone();
        let running = tokio::spawn(async move { end(ends, &told).await });
        let theirs = going_away("bye", None);
        function.write_all(&theirs).await.unwrap();
        drop(function);
        let mut seen = vec![0; theirs.len()];
        client.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen, theirs);
        assert!(rest(client).await.is_empty(), "and then the end");
        assert_eq!(running.await.unwrap(), End::Orderly);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_a_function_that_is_gone_are_told() {
        let drain = Drain::default();
        let (ends, client, _function) = tunnel(true);
        let told = drain.clone();
        let running = tokio::spawn(async move { end(ends, &told).await });
        let said = rest(client).await;
        assert_eq!(said, going_away("nothing was sent for too long", None));
        assert_eq!(running.await.unwrap(), End::Idle);

        let (ends, client, function) = tunnel(true);
        drop(function);
        assert_eq!(end(ends, &drain).await, End::FunctionGone);
        let said = rest(client).await;
        assert_eq!(said, going_away("the function's replica has gone", None));
    }

    #[tokio::test(start_paused = true)]
    async fn other_protocols_may_end_one_way_first_and_hear_no_frames() {
        let drain = Drain::default();
        let (ends, mut client, mut function) = tunnel(false);
        let told = drain.clone();
        let running = tokio::spawn(async move { end(ends, &told).await });
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = Vec::new();
        function.read_to_end(&mut asked).await.unwrap();
        function.write_all(b"answer").await.unwrap();
        drop(function);
        assert_eq!(
            (asked, rest(client).await),
            (b"question".into(), b"answer".into())
        );
        assert_eq!(running.await.unwrap(), End::Orderly);
    }
}
