//! Bodies over HTTP/2 that are cut off: a body is whole only after END_STREAM, in both directions.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::support::client::get;
use crate::support::eventually;
use crate::support::frames::{
    self, Client, DATA, END_HEADERS, END_STREAM, HEADERS, STATUS_200, frame, go_away, h2c_entry,
    post_to, reset,
};
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

const NO_ERROR: u32 = 0;
const CANCEL: u32 = 8;

/// How a peer may leave a stream without END_STREAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Reset(u32),
    GoAway,
    GoAwayAndClose,
    Close,
}

const CUTS: [Cut; 5] = [
    Cut::Reset(NO_ERROR),
    Cut::Reset(CANCEL),
    Cut::GoAway,
    Cut::GoAwayAndClose,
    Cut::Close,
];

impl Cut {
    fn perform(self, on: &mut TcpStream, stream: u32) {
        let last = match self {
            Self::Reset(reason) => reset(stream, reason),
            Self::GoAway | Self::GoAwayAndClose => go_away(0),
            Self::Close => Vec::new(),
        };
        on.write_all(&last).unwrap();
        if matches!(self, Self::Close | Self::GoAwayAndClose) {
            on.shutdown(Shutdown::Both).unwrap();
        }
    }
}

#[test]
fn a_request_that_its_client_cuts_off_reaches_no_function_as_whole() {
    let (tell, told) = channel();
    let upstream = Upstream::new(move |stream, _| {
        let mut body = Vec::new();
        // A reset ends it, too.
        let _ = stream.read_to_end(&mut body);
        tell.send(body).unwrap();
    });
    let gateway = Gateway::with(&upstream.entry("f", ""), &["--read-timeout", "2s"]);
    // A client's GOAWAY alone is about streams of ours, which there are not: its own go on.
    for cut in CUTS.into_iter().filter(|cut| *cut != Cut::GoAway) {
        for length in [None, Some("9")] {
            let fields: Vec<_> = length
                .map(|length| ("content-length", length))
                .into_iter()
                .collect();
            let mut client = Client::new(gateway.address, &[]);
            let begin = [
                frame(HEADERS, END_HEADERS, 1, &post_to("/function/f", &fields)),
                frame(DATA, 0, 1, b"half"),
            ];
            client.send(&begin.concat());
            let head = upstream.saw().to_lowercase();
            assert_eq!(head.contains("content-length: 9"), length.is_some());
            cut.perform(&mut client.0, 1);
            let body = told.recv_timeout(Duration::from_secs(10)).unwrap();
            assert!(
                !body.ends_with(b"0\r\n\r\n"),
                "{cut:?}, {length:?}: {body:?}"
            );
            let sent: &[u8] = if length.is_some() {
                b"half"
            } else {
                b"4\r\nhalf\r\n"
            };
            assert!(sent.starts_with(&body), "{cut:?}, {length:?}: {body:?}");
        }
    }
    eventually("none of its calls runs", || {
        gateway.metric("skep_in_flight{function_name=\"f\"}") < 0.5
    });
    assert!(gateway.metric("skep_broken_answers_total{function_name=\"f\"}") < 0.5);
    assert!(
        !gateway.log().contains("WARN"),
        "no fault of the function's"
    );
}

#[test]
fn a_request_that_its_client_cuts_off_reaches_no_function_over_http_2_as_whole() {
    let (tell, told) = channel();
    let tell = std::sync::Mutex::new(tell);
    let address = frames::server(&[], move |_, frame| {
        if frame.kind == frames::RST_STREAM || frame.kind == DATA {
            let word = (frame.kind, frame.flags & END_STREAM, frame.payload.clone());
            tell.lock().unwrap().send(word).unwrap();
        }
    });
    let gateway = Gateway::of(&h2c_entry("f", address, &[]));
    let next = || told.recv_timeout(Duration::from_secs(10)).unwrap();
    for cut in [Cut::Reset(NO_ERROR), Cut::Reset(CANCEL), Cut::Close] {
        let mut client = Client::new(gateway.address, &[]);
        let begin = [
            frame(HEADERS, END_HEADERS, 1, &post_to("/function/f", &[])),
            frame(DATA, 0, 1, b"half"),
        ];
        client.send(&begin.concat());
        assert_eq!(next(), (DATA, 0, b"half".to_vec()));
        cut.perform(&mut client.0, 1);
        let (kind, flags, reason) = next();
        assert_eq!((kind, flags), (frames::RST_STREAM, 0), "{cut:?}");
        assert_ne!(reason, [0; 4], "{cut:?}: not NO_ERROR");
    }
    // Three calls without an answer eject an endpoint; these three were not the function's fault.
    assert!(!gateway.log().contains("WARN"));
}

/// A function over HTTP/2 that answers half, and then cuts its stream off.
fn half_an_answer(cut: Cut) -> Gateway {
    let address = frames::server(&[], move |stream, asked| {
        if asked.kind == HEADERS {
            let begin = [
                frame(HEADERS, END_HEADERS, asked.stream, STATUS_200),
                frame(DATA, 0, asked.stream, b"half"),
            ];
            stream.write_all(&begin.concat()).unwrap();
            cut.perform(stream, asked.stream);
        }
    });
    Gateway::of(&h2c_entry("f", address, &[]))
}

#[test]
fn an_answer_that_a_function_cuts_off_is_broken_for_clients_of_both_protocols() {
    for cut in CUTS {
        let gateway = half_an_answer(cut);
        let answer = get(gateway.address, "/function/f");
        // The head may be taken back with the rest.
        let is_broken = answer.status == 200 && !answer.complete;
        assert!(is_broken || answer.status == 502, "{cut:?}: {answer:?}");
        let mut client = Client::new(gateway.address, &[]);
        client.send(&frame(
            HEADERS,
            frames::WHOLE,
            1,
            &post_to("/function/f", &[]),
        ));
        let (data, reason) = client.end_of(1).unwrap();
        let is_error = reason.is_some_and(|reason| reason != NO_ERROR);
        let is_502 = reason.is_none() && data.starts_with(b"function 'f' gave no proper answer");
        assert!(is_error || is_502, "{cut:?}: {reason:?} {data:?}");
    }
}

#[test]
fn an_answer_that_has_ended_is_whole_although_the_rest_of_its_request_is_refused() {
    // RFC 9113 §8.1: the function may ask its client to stop sending.
    let address = frames::server(&[], |stream, asked| {
        if asked.kind == HEADERS {
            let all = [
                frame(HEADERS, END_HEADERS, asked.stream, STATUS_200),
                frame(DATA, END_STREAM, asked.stream, b"enough"),
                reset(asked.stream, NO_ERROR),
            ];
            stream.write_all(&all.concat()).unwrap();
        }
    });
    let gateway = Gateway::of(&h2c_entry("f", address, &[]));
    for _ in 0..20 {
        let mut client = Client::new(gateway.address, &[]);
        client.send(&frame(
            HEADERS,
            END_HEADERS,
            1,
            &post_to("/function/f", &[]),
        ));
        assert_eq!(client.end_of(1).unwrap(), (b"enough".to_vec(), None));
    }
    assert!(gateway.metric("skep_broken_answers_total{function_name=\"f\"}") < 0.5);
}
