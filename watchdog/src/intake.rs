//! What a client sends, on its way to hyper: one request at a time, each head checked, each body followed to its end.
//!
//! hyper never sees a byte of the next request while a call goes on. So its read buffer is empty then, and it goes on
//! reading, which is how the end of a client's connection is noticed.

use std::io;

use crate::activity::Activity;
use crate::chunks::Chunks;
use crate::refusal::Refusal;
use crate::request_head::{Checked, Framing, check};

/// The most that a request's head may take, as in the original.
pub(crate) const LARGEST_HEAD: usize = 1024 * 1024;

/// Stands for a head that is refused; the handler finds the reason in the connection's `Activity`.
const REFUSED: &[u8] = b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n";

/// Where in the stream of requests the next byte stands.
#[derive(Debug)]
enum At {
    Head,
    Body(u64),
    Chunks(Chunks),
    /// Behind something that is refused: the rest is read and dropped.
    Nothing,
    /// In a body that is refused.
    Broken(&'static str),
}

/// The bytes between the socket and hyper.
#[derive(Debug)]
pub(crate) struct Intake {
    at: At,
    /// The beginning of a head, or what came behind the current request.
    held: Vec<u8>,
    /// How much of `held` has been searched for the end of the head.
    searched: usize,
    /// Heads that hyper has been given.
    heads: u64,
    /// Bytes of a head that hyper had no room for.
    checked: Vec<u8>,
}

impl Intake {
    /// Before the first request.
    pub(crate) fn new() -> Self {
        Self {
            at: At::Head,
            held: Vec::new(),
            searched: 0,
            heads: 0,
            checked: Vec::new(),
        }
    }

    /// Whether hyper must not get more before the call that goes on is over.
    pub(crate) fn withholds(&self, activity: &Activity) -> bool {
        let is_between = matches!(self.at, At::Head | At::Nothing) && self.checked.is_empty();
        is_between && (self.heads > activity.calls_over() || activity.is_tunnel())
    }

    /// How much is kept for later.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Keeps bytes that came while a call goes on.
    pub(crate) fn hold(&mut self, bytes: &[u8]) {
        if !matches!(self.at, At::Nothing) {
            self.held.extend_from_slice(bytes);
        }
    }

    /// Everything that hyper has not seen.
    pub(crate) fn into_rest(self) -> Vec<u8> {
        self.held
    }

    /// Hands over up to `room` bytes of what is there already; false if there is nothing to be handed over.
    pub(crate) fn pull(
        &mut self,
        room: usize,
        activity: &Activity,
        out: impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        if self.held.is_empty() && self.checked.is_empty() && !matches!(self.at, At::Broken(_)) {
            return Ok(false);
        }
        self.push(&[], room, activity, out)
    }

    /// Takes `bytes` (no more than `room`), and hands over what hyper may see; false if that is nothing yet.
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        room: usize,
        activity: &Activity,
        mut out: impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        if let At::Broken(mistake) = self.at {
            return Err(io::Error::new(io::ErrorKind::InvalidData, mistake));
        }
        // The usual body comes straight from the socket; anything else is taken from what is held, in order.
        let mut joined = std::mem::take(&mut self.held);
        let is_joined = !joined.is_empty();
        if is_joined {
            joined.extend_from_slice(bytes);
        }
        let mut input = if is_joined { &joined[..] } else { bytes };
        let mut left = room;
        let mut has_given = self.give(&mut left, &mut out);
        while self.checked.is_empty() && left > 0 && !input.is_empty() {
            match &mut self.at {
                At::Head => {
                    if self.withholds(activity) {
                        break;
                    }
                    match self.take_head(input, activity) {
                        Some(count) => input = &input[count..],
                        None => break,
                    }
                    has_given |= self.give(&mut left, &mut out);
                }
                At::Body(missing) => {
                    let some = (input.len() as u64).min(left as u64).min(*missing) as usize;
                    *missing -= some as u64;
                    if *missing == 0 {
                        self.at = At::Head;
                    }
                    out(&input[..some]);
                    (input, left, has_given) = (&input[some..], left - some, true);
                }
                At::Chunks(chunks) => {
                    let offered = &input[..input.len().min(left)];
                    match chunks.advance(offered) {
                        Ok((count, is_end)) => {
                            if is_end {
                                self.at = At::Head;
                            }
                            out(&input[..count]);
                            (input, left, has_given) = (&input[count..], left - count, true);
                        }
                        Err(mistake) => {
                            self.at = At::Broken(mistake);
                            if !has_given {
                                return Err(io::Error::new(io::ErrorKind::InvalidData, mistake));
                            }
                            return Ok(true);
                        }
                    }
                }
                At::Nothing | At::Broken(_) => input = &[],
            }
        }
        let missing = input.len();
        if is_joined {
            joined.drain(..joined.len() - missing);
            self.held = joined;
        } else if missing > 0 {
            self.held = input.to_vec();
        }
        Ok(has_given)
    }

    /// Hands over what is left of a checked head.
    fn give(&mut self, left: &mut usize, out: &mut impl FnMut(&[u8])) -> bool {
        let some = self.checked.len().min(*left);
        if some == 0 {
            return false;
        }
        out(&self.checked[..some]);
        if some == self.checked.len() {
            self.checked = Vec::new();
        } else {
            self.checked.drain(..some);
        }
        *left -= some;
        true
    }

    /// Checks the head at the beginning of `input`, if it is complete; how much of `input` is done with.
    fn take_head(&mut self, input: &[u8], activity: &Activity) -> Option<usize> {
        // Empty lines before a request are skipped, as RFC 9112 has it.
        let blank = input
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        if blank == input.len() || blank > 0 && self.searched == 0 {
            return Some(blank);
        }
        let Some(end) = end_of_head(input, self.searched) else {
            self.searched = input.len().saturating_sub(3);
            if input.len() <= LARGEST_HEAD {
                return None;
            }
            return Some(self.refuse(
                input,
                Refusal::LongHead {
                    limit: LARGEST_HEAD,
                },
                activity,
            ));
        };
        self.searched = 0;
        let head = &input[..end];
        match check(head) {
            _ if end > LARGEST_HEAD => Some(self.refuse(
                input,
                Refusal::LongHead {
                    limit: LARGEST_HEAD,
                },
                activity,
            )),
            Err(refusal) => Some(self.refuse(input, refusal, activity)),
            Ok(Checked {
                framing,
                line,
                raw_target,
                fields_at,
            }) => {
                self.checked = match line {
                    None => head.to_vec(),
                    Some(line) => [&line, &head[fields_at..]].concat(),
                };
                activity.set_raw_target(raw_target);
                self.heads += 1;
                self.at = match framing {
                    Framing::Length(0) => At::Head,
                    Framing::Length(length) => At::Body(length),
                    Framing::Chunked => At::Chunks(Chunks::new()),
                };
                Some(end)
            }
        }
    }

    fn refuse(&mut self, input: &[u8], refusal: Refusal, activity: &Activity) -> usize {
        activity.refuse(refusal);
        self.checked = REFUSED.to_vec();
        self.heads += 1;
        self.at = At::Nothing;
        input.len()
    }
}

/// Where a head ends, its empty line included; nothing before `from` is looked at again. A line ends with LF, as for httparse.
fn end_of_head(input: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(found) = input[at..].iter().position(|byte| *byte == b'\n') {
        at += found + 1;
        match &input[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What hyper gets of these bytes in pieces of `size`, each call being over at once.
    fn passed(bytes: &[u8], size: usize) -> Vec<u8> {
        let (mut intake, activity, mut out) = (Intake::new(), Activity::new(), Vec::new());
        for piece in bytes.chunks(size) {
            let mut piece = piece;
            while intake
                .push(piece, 7, &activity, |some| out.extend_from_slice(some))
                .unwrap()
            {
                piece = &[];
                if intake.withholds(&activity) {
                    activity.call_is_over();
                }
            }
        }
        out
    }

    #[test]
    fn requests_pass_unchanged_however_they_are_cut() {
        let requests = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /a HTTP/1.1\n\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
        for size in [1, 2, 3, 5, 1000] {
            assert_eq!(
                String::from_utf8_lossy(&passed(requests, size)),
                String::from_utf8_lossy(requests)
            );
        }
    }

    #[test]
    fn the_next_request_waits_for_the_end_of_the_call() {
        let (mut intake, activity, mut out) = (Intake::new(), Activity::new(), Vec::new());
        let two = b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
        let mut keep = |some: &[u8]| out.extend_from_slice(some);
        assert!(intake.push(two, 1000, &activity, &mut keep).unwrap());
        assert!(intake.withholds(&activity));
        assert_eq!(intake.held(), 19);
        activity.call_is_over();
        assert!(intake.pull(1000, &activity, &mut keep).unwrap());
        assert_eq!(out, two);
    }
}
