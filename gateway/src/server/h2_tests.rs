//! A client of frames over a pipe, on a clock that stands still.

use std::future::pending;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::drain::Drain;
use crate::incoming::Asked;
use crate::told::Answered;

impl incoming::Stream for DuplexStream {
    fn cut(&self) {}

    fn far_end(&self) -> incoming::FarEnd {
        incoming::FarEnd::Open
    }
}

const LIMIT: Duration = Duration::from_secs(10);
/// SETTINGS without a value, and `GET /` with its end, as stream 1.
const BEGIN: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01t";
const PING: u8 = 6;
const ACK: u8 = 1;

/// Answers pings until then, and reads on.
async fn answer_pings(mut stream: DuplexStream, until: time::Instant) {
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let mut payload = vec![0; usize::from(head[2])];
        stream.read_exact(&mut payload).await.unwrap();
        if head[3] == PING && head[4] != ACK && time::Instant::now() < until {
            head[4] = ACK;
            let answer = [&head[..], &payload].concat();
            stream.write_all(&answer).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_no_ping_loses_its_connection_although_a_call_runs() {
    let (mut client, ours) = duplex(1 << 16);
    let limits = ConnectionLimits {
        read_timeout: LIMIT,
        write_timeout: LIMIT,
        max_header_bytes: 1000,
        max_headers: 10,
    };
    let io = Prefixed {
        read: Bytes::from_static(PREFACE),
        io: ours,
    };
    let (drain, since) = (Drain::default(), time::Instant::now());
    let answer = |_: Asked| pending::<Answered>();
    client.write_all(BEGIN).await.unwrap();
    let answered_for = 5 * LIMIT;
    let client = answer_pings(client, since + answered_for);
    let served = serve(io, answer, limits, drain.guest());
    let (served, ()) = tokio::join!(served, client);
    served.unwrap();
    let took = since.elapsed();
    assert!(took > answered_for, "{took:?}");
    assert!(took < answered_for + 2 * LIMIT + PING_TIMEOUT, "{took:?}");
}
