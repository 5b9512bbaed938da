//! Children that are started ahead: still one process for each call, and nobody left behind.

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use support::client::Request;
use support::{Builder, Watchdog, eventually, function, is_alive, python, script};

/// Writes down its number, waits for its input, and answers with both.
const ECHO: &str =
    "echo $$ >> $TMPDIR/up; body=$(cat); echo $$ >> $TMPDIR/served; echo \"$$ $body\"";

const MODES: [&str; 3] = ["classic", "streaming", "serializing"];

fn pool(size: usize, body: &str) -> Builder {
    script(body).env("prefork", &size.to_string())
}

/// Those that wait at first.
fn up(watchdog: &Watchdog, count: usize) -> Vec<String> {
    watchdog.lines("up", count)[..count].to_vec()
}

/// A function in Python that answers with what it found on descriptor 3 and on its input.
fn reads_note(code: &str) -> Builder {
    python(&format!("import json, os, sys\n{code}\n")).env("prefork", "2")
}

#[test]
fn four_waiting_children_serve_four_calls_and_four_more_take_their_place() {
    for mode in MODES {
        let watchdog = pool(4, ECHO).env("mode", mode).start();
        let waiting = up(&watchdog, 4);
        let mut served = BTreeSet::new();
        for number in 0..4 {
            let request = Request::post("/", number.to_string()).header("TE", "trailers");
            let answer = watchdog.call(&request);
            assert_eq!(answer.status, 200, "{mode}");
            let text = answer.text();
            let (pid, body) = text.trim_end().split_once(' ').unwrap();
            assert_eq!(body, number.to_string(), "{mode}");
            assert!(
                waiting.iter().any(|child| child == pid),
                "{mode}: {pid} of {waiting:?}"
            );
            served.insert(pid.to_owned());
            let timing = answer.headers.get("server-timing");
            let timing = timing.or(answer.trailers.get("server-timing")).unwrap();
            assert!(timing.contains("desc=prefork"), "{mode}: {timing}");
        }
        assert_eq!(served.len(), 4, "{mode}: one process for each call");
        let all = watchdog.lines("up", 8);
        eventually("four wait again", || {
            all[4..].iter().all(|child| is_alive(child)) && watchdog.children().len() == 4
        });
    }
}

#[test]
fn more_calls_than_children_are_served_by_fresh_ones() {
    let watchdog = pool(2, ECHO).start();
    up(&watchdog, 2);
    let pids: BTreeSet<String> = std::thread::scope(|scope| {
        let call = || scope.spawn(|| watchdog.post("x"));
        let calls: Vec<_> = (0..10).map(|_| call()).collect();
        let answers = calls.into_iter().map(|call| call.join().unwrap());
        answers
            .map(|answer| {
                assert_eq!(answer.status, 200);
                answer.text()
            })
            .collect()
    });
    assert_eq!(pids.len(), 10, "{pids:?}");
}

#[test]
fn the_head_comes_as_one_line_of_json_on_descriptor_3() {
    let code = "body = sys.stdin.read()\nnote = json.loads(os.fdopen(3).readline())\n\
                json.dump([body, note['Http_Method'], note['Http_Path'], note['Http_Query'], note['Http_X_One'], \
                'Http_X_One' in os.environ], sys.stdout)";
    for mode in MODES {
        let watchdog = reads_note(code).env("mode", mode).start();
        let ahead = || watchdog.children().len() == 2;
        eventually("two wait", ahead);
        let answer = watchdog.call(&Request::post("/a%20b?q=1", "hi").header("X-One", "\"1\""));
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, r#"["hi", "POST", "/a b", "q=1", "\"1\"", false]"#),
            "{mode}"
        );
    }
    // One that has to be started for its call has both.
    let watchdog = reads_note(&format!(
        "open(os.environ['TMPDIR'] + '/up', 'a').write('x\\n')\n{code}"
    ))
    .env("prefork_idle", "100ms")
    .start();
    eventually("nobody waits", || watchdog.children().is_empty());
    let answer = watchdog.call(&Request::post("/a%20b?q=1", "hi").header("X-One", "\"1\""));
    assert!(answer.text().ends_with(", true]"), "{}", answer.text());
    assert!(!answer.header("server-timing").contains("prefork"));
}

#[test]
fn without_cgi_headers_the_line_is_empty_and_without_prefork_there_is_none() {
    let watchdog = pool(1, "cat <&3").env("cgi_headers", "false").start();
    assert_eq!(watchdog.get("/").text(), "{}\n");
    let plain = script("readlink /proc/$$/fd/3 || echo none").start();
    let found = plain.get("/").text();
    // Whoever started this test may have left a descriptor 3 to everything below it.
    let left = std::fs::read_link("/proc/self/fd/3").unwrap_or_default();
    let is_left = found.trim_end() == left.to_string_lossy();
    assert!(is_left || found == "none\n", "{found}, and not {left:?}");
}

#[test]
fn a_command_that_does_not_read_a_long_head_is_served_as_ever() {
    let heavy = |body: &str| {
        let mut request = Request::post("/", body);
        for number in 0..9 {
            request = request.header(&format!("X-Long-{number}"), &"x".repeat(100_000));
        }
        request
    };
    for mode in MODES {
        let watchdog = pool(1, ECHO).env("mode", mode).start();
        up(&watchdog, 1);
        let answer = watchdog.call(&heavy("hi"));
        assert_eq!(
            (answer.status, answer.text().ends_with(" hi\n")),
            (200, true),
            "{mode}"
        );
    }
    let late = "body = sys.stdin.read()\nnote = json.loads(os.fdopen(3).readline())\n\
                print(body, sum(len(value) for name, value in note.items() if 'Long' in name))";
    let watchdog = reads_note(late).start();
    eventually("two wait", || watchdog.children().len() == 2);
    assert_eq!(watchdog.call(&heavy("hi")).text(), "hi 900000\n");
}

#[test]
fn one_that_dies_unused_is_replaced() {
    let watchdog = pool(3, ECHO).start();
    let waiting = up(&watchdog, 3);
    support::kill(&waiting[1]);
    watchdog.logs("a waiting child has ended unused (signal: killed); it is replaced in");
    watchdog.lines("up", 4);
    eventually("three wait", || watchdog.children().len() == 3);
    for number in 0..3 {
        assert_eq!(watchdog.post(number.to_string()).status, 200);
    }
}

#[test]
fn a_command_that_cannot_wait_is_tried_ever_more_rarely() {
    let watchdog = pool(2, "echo x >> $TMPDIR/up; echo why >&2; exit 3").start();
    watchdog.logs("a waiting child has ended unused (exit status 3); it is replaced in");
    watchdog.logs("fprocess: why");
    std::thread::sleep(Duration::from_secs(1));
    // Two at once, after 100 ms, 200 ms, 400 ms, and so on.
    let count = watchdog.lines("up", 2).len();
    assert!(count <= 10, "{count} starts in a second");
    let answer = watchdog.get("/");
    assert_eq!(
        (answer.status, answer.text().starts_with("exit status 3")),
        (500, true)
    );
    let missing = function("/no/such/program").env("prefork", "2").start();
    missing.logs("cannot start /no/such/program ahead of a call");
    assert_eq!(missing.get("/").status, 500);
}

#[test]
fn the_deadline_counts_from_the_call_and_the_pool_outlives_it() {
    let body = "echo $$ >> $TMPDIR/up; read what; [ $what = slow ] && sleep 100; echo $what";
    let watchdog = pool(2, body).env("exec_timeout", "1s").start();
    up(&watchdog, 2);
    // Waiting is not running: those that wait are older than the deadline by then.
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(watchdog.post("fast\n").text(), "fast\n");
    assert_eq!(watchdog.post("slow\n").status, 408);
    for _ in 0..4 {
        assert_eq!(watchdog.post("fast\n").text(), "fast\n");
    }
    eventually("two wait, and the slow one is gone", || {
        watchdog.children().len() == 2
    });
}

#[test]
fn nobody_waits_on_after_the_watchdog() {
    // Its reader is a process of its own: if that went first, the shell would take it for the end of its input.
    let body = format!("trap '' TERM INT; {ECHO}");
    for signal in ["TERM", "INT", "KILL"] {
        let mut watchdog = pool(4, &body).start();
        let waiting = up(&watchdog, 4);
        watchdog.signal(signal);
        let (_, took) = watchdog.exit();
        assert!(took < Duration::from_secs(5), "{signal}: {took:?}");
        eventually("all are gone", || {
            !waiting.iter().any(|child| is_alive(child))
        });
        if signal != "KILL" {
            assert!(!watchdog.file("served").exists(), "{signal} was no call");
        }
    }
}

#[test]
fn a_drain_ends_those_that_wait_and_lets_a_call_finish() {
    let body = "echo $$ >> $TMPDIR/up; read what; echo $$ > $TMPDIR/serving
until test -e $TMPDIR/go; do sleep 0.02; done; echo $what";
    let mut watchdog = pool(3, body).start();
    up(&watchdog, 3);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| watchdog.post("last\n").text());
        let serving = watchdog.lines("serving", 1);
        let mut waiting = watchdog.lines("up", 4);
        waiting.retain(|child| *child != serving[0]);
        watchdog.signal("TERM");
        eventually("those that wait are gone", || {
            !waiting.iter().any(|child| is_alive(child))
        });
        std::fs::write(watchdog.file("go"), "").unwrap();
        assert_eq!(call.join().unwrap(), "last\n");
    });
    assert_eq!(watchdog.exit().0, Some(0));
}

#[test]
fn an_idle_pool_shrinks_to_nobody_and_a_call_brings_it_back() {
    let watchdog = pool(2, ECHO).env("prefork_idle", "700ms").start();
    up(&watchdog, 2);
    eventually("nobody waits", || watchdog.children().is_empty());
    assert!(!watchdog.file("served").exists(), "going was no call");
    let began = Instant::now();
    assert!(watchdog.post("hi").text().ends_with(" hi\n"));
    watchdog.lines("up", 5);
    eventually("two wait", || watchdog.children().len() == 2);
    eventually("nobody waits again", || watchdog.children().is_empty());
    assert!(began.elapsed() >= Duration::from_millis(700));
    assert!(
        !watchdog.log().contains("ended unused"),
        "{}",
        watchdog.log()
    );
}

#[test]
fn those_that_wait_hold_up_no_end_of_left_overs_and_keep_their_own() {
    let body = "(sleep 300 & echo $! >> $TMPDIR/helpers); read what
env -i setsid sleep 300 & echo $! > $TMPDIR/left";
    let watchdog = pool(2, body).start();
    let helpers = watchdog.lines("helpers", 2);
    assert_eq!(watchdog.post("go\n").status, 200);
    let left = watchdog.lines("left", 1);
    eventually("a left-over without a marker is ended", || {
        !is_alive(&left[0])
    });
    eventually("the helper of the run is ended", || {
        helpers.iter().filter(|helper| is_alive(helper)).count() == 1
    });
    // Some looks of the reaper later.
    std::thread::sleep(Duration::from_millis(300));
    let alive = helpers.iter().filter(|helper| is_alive(helper));
    assert_eq!(alive.count(), 1, "the helper of the one that waits stays");
}

#[test]
fn what_waits_costs_no_descriptors_with_time() {
    let watchdog = pool(3, "cat").start();
    eventually("three wait", || watchdog.children().len() == 3);
    watchdog.post("warm");
    let before = watchdog.descriptors();
    for _ in 0..200 {
        assert_eq!(watchdog.post("hello").text(), "hello");
    }
    eventually("three wait", || watchdog.children().len() == 3);
    eventually("descriptors are closed", || {
        watchdog.descriptors() < before + 20
    });
}

#[test]
fn a_large_body_and_stderr_go_through_a_waiting_child() {
    let watchdog = pool(2, "echo $$ >> $TMPDIR/up; cat; echo aside >&2")
        .env("mode", "streaming")
        .start();
    up(&watchdog, 2);
    let body = vec![b'x'; 3_000_000];
    let answer = watchdog.post(&body);
    assert!(
        answer.is_whole && answer.body == body,
        "{} bytes",
        answer.body.len()
    );
    watchdog.logs(" stderr: aside\n");
}
