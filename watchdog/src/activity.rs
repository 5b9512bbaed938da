//! What a client's connection is doing: waiting for a call, receiving its head, or in it; and until when it may.

use std::cell::{Cell, RefCell};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use tokio::time::Instant;

use crate::record::Record;
use crate::refusal::Refusal;
use crate::tunnel::Tunnel;

/// How long a connection may wait for its next call. The gateway keeps connections and closes them sooner than this.
const IDLE_LIMIT: Duration = Duration::from_secs(120);

/// What a connection is doing, and since when.
#[derive(Debug)]
pub(crate) struct Activity {
    phase: Cell<Phase>,
    since: Cell<Instant>,
    call_limit: Cell<Option<Instant>>,
    /// Whether it has carried an answer.
    has_answered: Cell<bool>,
    /// Of the call that goes on; it ends with the answer's body, or with the connection.
    record: RefCell<Option<Record>>,
    /// Set when the call has ended in an upgrade.
    tunnel: RefCell<Option<Tunnel>>,
    /// Calls whose answers have ended.
    calls_over: Cell<u64>,
    /// Woken at the end of a call: bytes of the next one are held back.
    next: RefCell<Option<Waker>>,
    /// Path and query of the call that begins, where they differ from those that hyper has read.
    raw_target: RefCell<Option<Bytes>>,
    /// Why the head that stands in for another one is refused.
    refusal: RefCell<Option<Refusal>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// ## Idle => Head
    Idle,
    /// ## Head => Call
    Head,
    /// ## Call => Idle
    Call,
}

impl Activity {
    /// Nothing has come yet.
    pub(crate) fn new() -> Self {
        Self {
            phase: Cell::new(Phase::Idle),
            since: Cell::new(Instant::now()),
            call_limit: Cell::new(None),
            has_answered: Cell::new(false),
            record: RefCell::new(None),
            tunnel: RefCell::new(None),
            calls_over: Cell::new(0),
            next: RefCell::new(None),
            raw_target: RefCell::new(None),
            refusal: RefCell::new(None),
        }
    }

    /// A request's head is complete: from here on the limits of the call count.
    pub(crate) fn call_has_begun(&self) {
        self.phase.set(Phase::Call);
        self.call_limit.set(None);
    }

    /// Whether the answer that is about to be given is the first one.
    pub(crate) fn answers_first(&self) -> bool {
        !self.has_answered.replace(true)
    }

    /// When the call that goes on is to be looked after.
    pub(crate) fn set_call_limit(&self, at: Option<Instant>) {
        self.call_limit.set(at);
    }

    /// The call is one that counts.
    pub(crate) fn record(&self, record: Record) {
        *self.record.borrow_mut() = Some(record);
    }

    /// The head of the call's answer is known.
    pub(crate) fn has_answer(&self, status: StatusCode) {
        self.with_record(|record| record.answered(status));
    }

    /// So much more of the answer's body is on its way.
    pub(crate) fn passes_on(&self, bytes: usize) {
        self.with_record(|record| record.written(bytes));
    }

    /// The answer's body breaks off.
    pub(crate) fn breaks_off(&self) {
        self.with_record(|record| record.broke());
    }

    fn with_record(&self, event: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut *self.record.borrow_mut() {
            event(record);
        }
    }

    /// The answer is written.
    pub(crate) fn call_is_over(&self) {
        self.record.take();
        self.calls_over.set(self.calls_over.get() + 1);
        self.enter(Phase::Idle);
        if let Some(waker) = self.next.take() {
            waker.wake();
        }
    }

    /// How many calls have been answered.
    pub(crate) fn calls_over(&self) -> u64 {
        self.calls_over.get()
    }

    /// Wakes the connection at the end of the call, for the bytes that are held back.
    pub(crate) fn wake_for_next(&self, waker: &Waker) {
        self.next.replace(Some(waker.clone()));
    }

    /// Keeps path and query as they came.
    pub(crate) fn set_raw_target(&self, target: Option<Bytes>) {
        self.raw_target.replace(target);
    }

    /// Path and query as they came, if hyper's are escaped.
    pub(crate) fn take_raw_target(&self) -> Option<Bytes> {
        self.raw_target.take()
    }

    /// The request that comes next stands for one that is refused.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        self.refusal.replace(Some(refusal));
    }

    /// Why the request is refused, if it is.
    pub(crate) fn take_refusal(&self) -> Option<Refusal> {
        self.refusal.take()
    }

    /// What the connection becomes once the answer is written.
    pub(crate) fn set_tunnel(&self, tunnel: Tunnel) {
        self.tunnel.replace(Some(tunnel));
    }

    /// The client has sent something.
    pub(crate) fn bytes_have_come(&self) {
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Head);
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(Instant::now());
    }

    /// Whether the connection is to become a tunnel.
    pub(crate) fn is_tunnel(&self) -> bool {
        self.tunnel.borrow().is_some()
    }

    /// What the connection is to become, if it is to become a tunnel.
    pub(crate) fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.take()
    }

    /// When the connection is to be closed if nothing changes.
    pub(crate) fn limit(&self, read_limit: Option<Duration>) -> Option<Instant> {
        let patience = match self.phase.get() {
            Phase::Idle => IDLE_LIMIT,
            Phase::Head => read_limit?,
            Phase::Call => return self.call_limit.get(),
        };
        self.since.get().checked_add(patience)
    }
}
