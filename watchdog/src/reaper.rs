//! Ends process trees and reaps: the duties of a PID 1, done on the main thread.
//!
//! A run's direct child is started, and reaped, by the worker that serves the call. Everything else arrives here: the
//! kernel gives orphans to the main thread of the nearest ancestor that is PID 1 or a subreaper, and `__WNOTHREAD`
//! makes our `wait` see the main thread's children only, so that it never takes the exit status of a direct child.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, pidfd_send_signal,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::runs::{Number, RunId, Runs};
use crate::spawn::Child;
use crate::spawn::deaths::Deaths;
use crate::start::Pipes;
use crate::tree::{self, Identity, Snapshot};

/// From TERM to KILL.
const GRACE: Duration = Duration::from_millis(200);

/// Between two looks while a tree is being ended, or while runs come and go.
const SOON: Duration = Duration::from_millis(20);

/// Between two looks while there is only left who does not die.
const SELDOM: Duration = Duration::from_secs(1);

/// After this long a process that does not die (of another user, or stuck in the kernel) is looked after seldom.
const STUBBORN: Duration = Duration::from_secs(3);

/// How long a run's end is remembered while there is something left of any run.
const MEMORY: Duration = Duration::from_secs(60);

/// How often a tree is listed and stopped again at once, because it may fork while it is being listed.
const PASSES: usize = 100;

/// Where workers leave what the reaper has to do.
#[derive(Debug)]
pub(crate) struct Orders {
    /// The runs that may have left-overs.
    pub(crate) runs: Runs,
    condemned: Mutex<Vec<Condemned>>,
    has_ended: AtomicBool,
    is_asleep: AtomicBool,
    bell: Notify,
}

/// The direct child of a run that is to be ended.
#[derive(Debug)]
struct Condemned {
    child: Child,
    /// Kept until it is gone.
    _pipes: Option<Pipes>,
}

impl Orders {
    /// No orders.
    pub(crate) fn new() -> Self {
        Self {
            runs: Runs::new(),
            condemned: Mutex::default(),
            has_ended: AtomicBool::new(false),
            is_asleep: AtomicBool::new(false),
            bell: Notify::new(),
        }
    }

    /// A run is over and its direct child reaped; whatever it left behind is to go. Cheap: rings only a sleeping reaper.
    pub(crate) fn run_ended(&self, id: RunId) {
        self.runs.end(id);
        self.has_ended.store(true, Ordering::SeqCst);
        if self.is_asleep.swap(false, Ordering::SeqCst) {
            self.bell.notify_one();
        }
    }

    /// A run is to be ended with its whole tree, at once. Pipes that are given stay open until the child is gone.
    pub(crate) fn end_tree(&self, id: RunId, child: Child, pipes: Option<Pipes>) {
        self.condemned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Condemned {
                child,
                _pipes: pipes,
            });
        self.runs.end(id);
        self.bell.notify_one();
    }

    /// Whether a run has ended since this was last asked.
    fn take_ended(&self) -> bool {
        self.has_ended.swap(false, Ordering::SeqCst)
    }

    /// Waits so long, or until a tree is to be ended: what else happens meanwhile is looked at together.
    async fn pause(&self, time: Duration) {
        let _ = tokio::time::timeout(time, self.bell.notified()).await;
    }

    /// Waits until anything happens.
    async fn sleep(&self, deaths: &Deaths) {
        self.is_asleep.store(true, Ordering::SeqCst);
        // A run that ended before the line above did not ring.
        if !self.has_ended.load(Ordering::SeqCst) {
            let mut rung = pin!(self.bell.notified());
            poll_fn(|cx| match rung.as_mut().poll(cx) {
                Poll::Pending => deaths.poll(cx),
                ready => ready,
            })
            .await;
        }
        self.is_asleep.store(false, Ordering::SeqCst);
    }
}

/// The one who ends and reaps; lives on the main thread.
#[derive(Debug)]
pub(crate) struct Reaper {
    own: Pid,
    deaths: Deaths,
    /// Children from before our time, as of a shell that started a service and then became us: never touched.
    elder: HashSet<Identity>,
    /// Direct children of runs that were ended; theirs to be reaped here.
    children: Vec<Condemned>,
    /// Orphans without a run, with the last run that had begun when they were first seen.
    seen: HashMap<Identity, Number>,
    /// Who is to die, and since when each is known to.
    victims: HashMap<Identity, Instant>,
    /// When the first left-over of a run was found: what it forks after that has no grace of its own.
    ended: HashMap<Number, Instant>,
}

impl Reaper {
    /// Takes over the duties. To be called on the main thread, in its runtime, before anything is started.
    pub(crate) fn new() -> io::Result<Self> {
        let own = getpid();
        let deaths = Deaths::watch()?;
        if !own.is_init() {
            // Without it (kernels before 3.4) orphans go to PID 1: then only groups can be ended.
            let _ = rustix::process::set_child_subreaper(Some(own));
        }
        let elder = match reap_orphans() {
            Orphans::None => HashSet::new(),
            Orphans::Living => Snapshot::read()
                .children(own.as_raw_nonzero().get())
                .collect(),
        };
        Ok(Self {
            own,
            deaths,
            elder,
            children: Vec::new(),
            seen: HashMap::new(),
            victims: HashMap::new(),
            ended: HashMap::new(),
        })
    }

    /// Does the duties until the watchdog exits. There is no timer while nothing happens: whatever comes here later
    /// (a `docker exec` may leave something, too) is reaped when it dies.
    pub(crate) async fn work(&mut self, orders: &Orders) -> Infallible {
        loop {
            // Both are asked before the look, so that what happens after it is news.
            let is_news = orders.take_ended() | self.deaths.take();
            self.sweep(orders);
            if is_news || self.is_ending() {
                orders.pause(SOON).await;
            } else if self.victims.is_empty() {
                orders.sleep(&self.deaths).await;
            } else {
                let _ = tokio::time::timeout(SELDOM, orders.sleep(&self.deaths)).await;
            }
        }
    }

    /// Kills everything that the watchdog has started, without grace, before it exits.
    pub(crate) async fn end_all(&mut self, patience: Duration) {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            let snapshot = Snapshot::read();
            let elder = self.elder.iter().copied();
            let spared = snapshot.with_descendants(elder);
            let roots: Vec<_> = snapshot
                .children(self.pid())
                .filter(|child| !spared.contains(child))
                .collect();
            let doomed = snapshot.with_descendants(roots);
            if doomed.is_empty() {
                return;
            }
            signal_all(&doomed, [Signal::STOP, Signal::KILL]);
            reap_orphans();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// One look: take orders, reap, find what is left over, end it.
    fn sweep(&mut self, orders: &Orders) {
        let fresh = std::mem::take(
            &mut *orders
                .condemned
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        self.children
            .retain(|condemned| condemned.child.try_reap().is_none());
        let orphans = reap_orphans();
        if fresh.is_empty() && self.victims.is_empty() && orphans == Orphans::None {
            self.seen.clear();
            self.ended.clear();
            return;
        }
        self.ended.retain(|_, since| since.elapsed() < MEMORY);
        let mut snapshot = Snapshot::read();
        self.condemn(&snapshot, fresh);
        let mut stopped = HashSet::new();
        for _ in 0..PASSES {
            self.condemn_left_overs(&snapshot, orders);
            self.condemn_descendants(&snapshot);
            if !self.stop_overdue(&mut stopped) {
                break;
            }
            snapshot = Snapshot::read();
        }
        // Also what is still being forked faster than it can be stopped: there is less of it each time.
        signal_all(&stopped, [Signal::KILL]);
        reap_orphans();
    }

    /// Ended runs: their tree is known while the direct child lives, so it is listed before anything is signalled.
    fn condemn(&mut self, snapshot: &Snapshot, fresh: Vec<Condemned>) {
        for condemned in fresh {
            let tree = snapshot.with_descendants(snapshot.find(condemned.child.pid()));
            self.add_victims(tree, Instant::now());
            self.children.push(condemned);
        }
    }

    fn condemn_left_overs(&mut self, snapshot: &Snapshot, orders: &Orders) {
        let last = orders.runs.last();
        let mut seen = HashMap::new();
        let ours: Vec<_> = snapshot
            .children(self.pid())
            .filter(|child| !self.elder.contains(child))
            .collect();
        for orphan in ours {
            let seen_after = self.seen.get(&orphan).copied().unwrap_or(last);
            let marks = tree::marks(orphan.pid);
            if orders.runs.is_left_over(&marks, orphan.started, seen_after) {
                let now = Instant::now();
                let run = orders.runs.number_of(&marks);
                let since = run.map_or(now, |run| *self.ended.entry(run).or_insert(now));
                self.add_victims([orphan], since);
            } else {
                seen.insert(orphan, seen_after);
            }
        }
        self.seen = seen;
    }

    /// Children of the condemned are condemned, and do not get a later end than their parents; the dead are forgotten.
    fn condemn_descendants(&mut self, snapshot: &Snapshot) {
        self.victims = snapshot.spread(&self.victims);
    }

    fn add_victims(&mut self, victims: impl IntoIterator<Item = Identity>, since: Instant) {
        let is_new = |victim: &Identity| !self.victims.contains_key(victim);
        let fresh: HashSet<_> = victims.into_iter().filter(is_new).collect();
        signal_all(&fresh, [Signal::STOP, Signal::TERM, Signal::CONT]);
        self.victims
            .extend(fresh.into_iter().map(|victim| (victim, since)));
    }

    /// Stops whoever has had his grace and is to be killed; whether there was any who may have forked since the last look.
    /// The stopped ones do not fork, and where processes are limited they keep others from it.
    fn stop_overdue(&self, stopped: &mut HashSet<Identity>) -> bool {
        let before = stopped.len();
        for (victim, since) in &self.victims {
            if since.elapsed() >= GRACE && stopped.insert(*victim) {
                signal(*victim, Signal::STOP);
            }
        }
        stopped.len() > before
    }

    fn is_ending(&self) -> bool {
        !self.children.is_empty()
            || self
                .victims
                .values()
                .any(|since| since.elapsed() < STUBBORN)
    }

    fn pid(&self) -> i32 {
        self.own.as_raw_nonzero().get()
    }
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Orphans {
    None,
    Living,
}

/// Reaps every dead child of this thread, the main one; says whether living ones remain.
fn reap_orphans() -> Orphans {
    let own_thread_only = WaitOptions::from_bits_retain(libc::__WNOTHREAD.cast_unsigned());
    loop {
        match rustix::process::wait(WaitOptions::NOHANG | own_thread_only) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Orphans::Living,
            Err(_) => return Orphans::None,
        }
    }
}

/// Each signal to all before the next one to any. Stopped first, nobody goes on because somebody else has gone: a shell
/// whose reader is ended before it would take that for the end of its input.
fn signal_all<const COUNT: usize>(processes: &HashSet<Identity>, signals: [Signal; COUNT]) {
    for next in signals {
        processes.iter().for_each(|process| signal(*process, next));
    }
}

/// Signals a process by descriptor, having made sure that its number has not been given to another one.
fn signal(process: Identity, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else {
        return;
    };
    let is_same = || tree::process(process.pid).is_some_and(|now| now.identity == process);
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) if is_same() => drop(pidfd_send_signal(descriptor, signal)),
        Err(Errno::NOSYS) if is_same() => drop(rustix::process::kill_process(pid, signal)),
        _ => {}
    }
}
