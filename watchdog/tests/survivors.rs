//! Whatever a run's processes do to outlive it, and wherever the watchdog runs: nothing survives, and no process of
//! another run is touched.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as its test does"
)]

mod support;

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::client::{Answer, Request, receive};
use support::place::Place;
use support::{Watchdog, eventually_or, processes_with};

/// What a run may start to be left alone, each in one line of shell; `$N` is the number of seconds that it sleeps, by
/// which it is known.
const WAYS: [(&str, &str); 13] = [
    ("a child", "sleep $N &"),
    ("a child in a session of its own", "setsid sleep $N &"),
    ("a double fork", "(sleep $N &)"),
    (
        "a double fork into a session of its own, which holds the pipes",
        "(setsid sleep $N &)",
    ),
    ("closed pipes", "(setsid sleep $N <&- >&- 2>&- &)"),
    ("a cleared environment", "env -i sleep $N &"),
    (
        "a cleared environment in a session of its own",
        "(env -i setsid sleep $N &)",
    ),
    ("TERM ignored", "trap '' TERM; sleep $N &"),
    (
        "TERM ignored in a session of its own",
        "trap '' TERM; (setsid sleep $N &)",
    ),
    (
        "all of it",
        "trap '' TERM HUP INT; (env -i setsid sleep $N <&- >&- 2>&- &)",
    ),
    (
        "a chain of forks that never stands still",
        "(setsid sh -c 'go() { sleep 0.05; go & }; go' $N &)",
    ),
    (
        "a chain of forks in a cleared environment",
        "(env -i setsid sh -c 'go() { sleep 0.05; go & }; go' $N &)",
    ),
    (
        "a chain of forks that ignores TERM, quicker than the grace",
        "(setsid sh -c 'trap \"\" TERM; go() { sleep 0.05; go & }; go' $N &)",
    ),
];

/// Reads its script from the first line of the body, so that everything it starts has the script's words in its
/// command line.
const COMMAND: &str = "read -r script; exec sh -c \"$script\"";

/// Starts two processes that look like the worst of the above, and answers `kept` if both are alive at its own end.
const NEIGHBOUR: &str = "(setsid sleep $N & echo $! >> $TMPDIR/kept); \
    (env -i setsid sleep $N & echo $! >> $TMPDIR/kept); \
    read -r end; for pid in $(cat $TMPDIR/kept); do kill -0 $pid || exit 1; done; rm $TMPDIR/kept; echo kept";

/// Long enough for a busy machine: all must have started before it, and a neighbour that begins a second earlier must have
/// seen the others' end before its own.
const DEADLINE: Duration = Duration::from_secs(5);

/// How the direct child of such a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Deadline,
    OwnExit,
    ClientGone,
}

#[test]
fn as_an_ordinary_process_it_leaves_no_survivor_and_touches_no_neighbour() {
    all_ends_in(Place::Process, 1);
}

#[test]
fn as_pid_1_of_a_namespace_it_leaves_no_survivor_and_touches_no_neighbour() {
    all_ends_in(Place::PidNamespace, 1);
}

#[test]
fn as_pid_1_of_a_container_it_leaves_no_survivor_and_touches_no_neighbour() {
    all_ends_in(Place::Container, 1);
}

#[test]
#[ignore = "a minute, on a machine that does nothing else: make soak"]
fn ten_of_each_kind_at_once_leave_no_survivor_and_touch_no_neighbour_anywhere() {
    for place in [Place::Process, Place::PidNamespace, Place::Container] {
        all_ends_in(place, 10);
    }
}

/// `copies` of every way at once, for each end that they can have.
fn all_ends_in(place: Place, copies: usize) {
    for end in [End::Deadline, End::OwnExit, End::ClientGone] {
        let Some(mut builder) = place.builder() else {
            return;
        };
        if end == End::Deadline {
            builder = builder.env("exec_timeout", &format!("{}ms", DEADLINE.as_millis()));
        }
        let watchdog = builder.script(COMMAND).start();
        nothing_survives(&watchdog, place, end, copies);
    }
}

/// All at once beside a neighbour that outlives them.
fn nothing_survives(watchdog: &Watchdog, place: Place, end: End, copies: usize) {
    let count = copies * WAYS.len();
    let tag = tag();
    let kept = format!("{tag}{:02}", WAYS.len());
    let began = Instant::now();
    // A neighbour that has to outlive a deadline which is its own too begins late.
    let elder = (end != End::Deadline).then(|| Neighbour::start(watchdog, &kept));
    let mut runs: Vec<(Instant, TcpStream)> = (0..count)
        .map(|number| {
            (
                Instant::now(),
                start(watchdog, &tag, number % WAYS.len(), end),
            )
        })
        .collect();
    watchdog.lines("up", count);
    if end != End::OwnExit {
        let missing: Vec<_> = (0..WAYS.len())
            .filter(|way| processes_with(&format!("{tag}{way:02}")).is_empty())
            .map(|way| WAYS[way].0)
            .collect();
        assert!(missing.is_empty(), "{place:?}: not there: {missing:?}");
    }
    let neighbour = elder.unwrap_or_else(|| {
        std::thread::sleep(DEADLINE.saturating_sub(began.elapsed() + Duration::from_secs(1)));
        Neighbour::start(watchdog, &kept)
    });
    match end {
        End::Deadline => deadlines(&mut runs, place),
        End::OwnExit => runs.drain(..).for_each(|(_, run)| {
            let answer = receive(&mut BufReader::new(run));
            assert_eq!(answer.status, 200, "{answer:?}");
        }),
        End::ClientGone => runs.clear(),
    }
    let survivors = || -> Vec<_> {
        let all = processes_with(&tag);
        all.into_iter()
            .filter(|line| !line.contains(&kept))
            .collect()
    };
    // One look may miss a process that has just come from a fork; ten in a row do not.
    let mut looks = 0;
    eventually_or(
        || {
            looks = if survivors().is_empty() { looks + 1 } else { 0 };
            looks == 10
        },
        || {
            format!(
                "{place:?}, {end:?}: nothing survives, but there are {:#?}",
                survivors()
            )
        },
    );
    let answer = neighbour.end();
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "kept\n"),
        "{place:?}, {end:?}"
    );
    eventually_or(
        || processes_with(&tag).is_empty() && watchdog.children().is_empty(),
        || {
            format!(
                "{place:?}, {end:?}: of the neighbour, too, nothing is left: {:?}",
                watchdog.children()
            )
        },
    );
}

/// All are answered at the deadline: not before it, and not after whatever their processes do then.
fn deadlines(runs: &mut Vec<(Instant, TcpStream)>, place: Place) {
    let mut latest = Duration::ZERO;
    let count = runs.len();
    for (began, run) in runs.drain(..) {
        let answer = receive(&mut BufReader::new(run));
        let took = began.elapsed();
        assert_eq!(answer.status, 408, "{answer:?}");
        assert!(took >= DEADLINE, "{took:?}");
        latest = latest.max(took - DEADLINE);
    }
    println!("{place:?}: the latest of {count} answers came {latest:?} after its deadline");
    // The contract says 100 ms after a run's start; a machine that runs all tests at once gets more, and some for each
    // start that came before.
    let busy = Duration::from_secs(2) + Duration::from_millis(30) * count as u32;
    assert!(latest < busy, "{place:?}: {latest:?}");
}

/// Begins of a number of seconds which no other process sleeps; two digits are to follow.
fn tag() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(10);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("1{:04}{number:02}", std::process::id() % 10_000)
}

/// Starts a run that goes one of the ways.
fn start(watchdog: &Watchdog, tag: &str, way: usize, end: End) -> TcpStream {
    let rest = if end == End::OwnExit {
        "exit 0"
    } else {
        "sleep $N; true"
    };
    let separator = if WAYS[way].1.ends_with('&') { "" } else { ";" };
    let script = format!("{}{separator} echo >> $TMPDIR/up; {rest}\n", WAYS[way].1);
    let mut stream = watchdog.connect();
    let body = script.replace("$N", &format!("{tag}{way:02}"));
    stream.write_all(&Request::post("/", body).bytes()).unwrap();
    stream
}

/// A run that does the same for a good reason, and goes on until it is told to end.
struct Neighbour(TcpStream);

impl Neighbour {
    fn start(watchdog: &Watchdog, number: &str) -> Self {
        let mut stream = watchdog.connect();
        let head = Request::bare("POST", "/").header("Transfer-Encoding", "chunked");
        let script = NEIGHBOUR.replace("$N", number) + "\n";
        stream.write_all(&head.bytes()).unwrap();
        write!(stream, "{:x}\r\n{script}\r\n", script.len()).unwrap();
        watchdog.lines("kept", 2);
        Self(stream)
    }

    fn end(mut self) -> Answer {
        self.0.write_all(b"4\r\nend\n\r\n0\r\n\r\n").unwrap();
        receive(&mut BufReader::new(self.0))
    }
}
