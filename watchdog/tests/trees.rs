//! The whole process tree of a run ends with it; nothing is left, not even a zombie.

mod support;

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use support::client::Request;
use support::place::Place;
use support::{eventually, function, is_alive, script, with_program};

/// A shell, its child, and a grandchild in a session of its own that holds stdout; each writes down its number.
const FAMILY: &str = "echo $$ >> $TMPDIR/pids
sh -c 'echo $$ >> $TMPDIR/pids
setsid sh -c \"echo \\$\\$ >> $TMPDIR/pids; sleep 100; true\"
true'
true";

#[test]
fn at_the_deadline_the_client_is_answered_and_the_whole_tree_dies() {
    // A busy machine may be late once; one that is late three times in a row is not busy but wrong.
    let took: Vec<Duration> = (0..3).map(|_| deadline_of_a_family()).collect();
    assert!(
        took.iter().any(|took| *took < Duration::from_millis(600)),
        "{took:?}"
    );
}

/// Runs the family into its deadline; how long the answer took. All of it must be dead afterwards, every time.
fn deadline_of_a_family() -> Duration {
    let watchdog = script(FAMILY).env("exec_timeout", "500ms").start();
    let began = Instant::now();
    let answer = watchdog.get("/");
    let took = began.elapsed();
    assert_eq!(answer.status, 408);
    assert_eq!(answer.header("x-openfaas-internal"), "fwatchdog");
    assert!(
        answer.text().contains("exec_timeout") && answer.text().contains("500ms"),
        "{}",
        answer.text()
    );
    assert!(took >= Duration::from_millis(500), "{took:?}");
    let pids = watchdog.lines("pids", 3);
    assert_eq!(pids.len(), 3);
    eventually("none of the three is alive", || {
        !pids.iter().any(|pid| is_alive(pid))
    });
    eventually("no zombie is left", || watchdog.children().is_empty());
    took
}

#[test]
fn who_ignores_term_is_killed_after_the_grace_and_not_a_second_later() {
    let watchdog = script("trap '' TERM; sleep 100; true")
        .env("exec_timeout", "300ms")
        .start();
    let took: Vec<Duration> = (0..3)
        .map(|_| {
            assert_eq!(watchdog.get("/").status, 408);
            let began = Instant::now();
            eventually("it is gone", || watchdog.children().is_empty());
            began.elapsed()
        })
        .collect();
    // Late by a busy machine once or twice, not every time.
    assert!(
        took.iter().any(|took| *took < Duration::from_millis(800)),
        "{took:?}"
    );
}

#[test]
fn processes_that_ignore_term_and_hide_their_environment_die_too() {
    let hidden = "trap '' TERM
echo $$ >> $TMPDIR/pids
env -i setsid sh -c \"trap '' TERM; echo \\$\\$ >> $TMPDIR/pids; sleep 100; true\" &
sh -c 'sleep 100 & echo $! >> $TMPDIR/pids; sleep 100'
sleep 100";
    let watchdog = script(hidden).env("exec_timeout", "1s").start();
    assert_eq!(watchdog.get("/").status, 408);
    let pids = watchdog.lines("pids", 3);
    eventually("none is alive", || !pids.iter().any(|pid| is_alive(pid)));
    eventually("no zombie is left", || watchdog.children().is_empty());
}

#[test]
fn a_run_has_time_to_clean_up_after_term() {
    let body =
        "trap 'echo cleaned > $TMPDIR/cleaned; exit' TERM; echo $$ > $TMPDIR/up; sleep 100 & wait";
    let watchdog = script(body).env("exec_timeout", "1s").start();
    assert_eq!(watchdog.get("/").status, 408);
    assert_eq!(watchdog.lines("cleaned", 1), ["cleaned"]);
}

#[test]
fn a_call_after_a_deadline_is_served_as_ever() {
    let watchdog = script("read what; [ $what = slow ] && sleep 100; echo $what")
        .env("exec_timeout", "1s")
        .start();
    assert_eq!(watchdog.post("slow\n").status, 408);
    assert_eq!(watchdog.post("fast\n").text(), "fast\n");
}

#[test]
fn left_overs_of_one_run_go_while_another_run_goes_on() {
    let body = "read what
case $what in
long) (sleep 300 & echo $! > $TMPDIR/helper); echo up > $TMPDIR/up; sleep 2; cat $TMPDIR/helper; kill -0 $(cat $TMPDIR/helper) && echo kept;;
*) (setsid sleep 300 & echo $! > $TMPDIR/left);;
esac";
    let watchdog = script(body).start();
    std::thread::scope(|scope| {
        let long = scope.spawn(|| watchdog.post("long\n").text());
        watchdog.lines("up", 1);
        assert_eq!(watchdog.post("short\n").status, 200);
        let left = watchdog.lines("left", 1);
        eventually("the left-over of the short run is ended", || {
            !is_alive(&left[0])
        });
        assert!(!long.is_finished(), "the long run still goes on");
        let long = long.join().unwrap();
        assert!(
            long.ends_with("kept\n"),
            "the daemon of a living run is left alone: {long}"
        );
        let helper = watchdog.lines("helper", 1);
        eventually("and is ended after it", || !is_alive(&helper[0]));
    });
}

#[test]
fn two_thousand_calls_leave_no_zombie_and_no_descriptor() {
    let watchdog = function("cat").start();
    watchdog.post("warm");
    let descriptors = watchdog.descriptors();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut stream = watchdog.connect();
                for _ in 0..250 {
                    stream
                        .write_all(&Request::post("/", "hello").bytes())
                        .unwrap();
                    let answer =
                        support::client::receive(&mut std::io::BufReader::new(&mut stream));
                    assert_eq!(answer.text(), "hello");
                }
            });
        }
    });
    eventually("no child is left", || watchdog.children().is_empty());
    // Workers that were started meanwhile have a few of their own; a leak would have thousands.
    eventually("the runs' descriptors are closed", || {
        watchdog.descriptors() < descriptors + 50
    });
}

#[test]
fn the_exit_ends_every_run_at_once() {
    let mut watchdog = script(FAMILY).start();
    let mut stream = watchdog.connect();
    stream.write_all(&Request::get("/").bytes()).unwrap();
    let pids = watchdog.lines("pids", 3);
    watchdog.signal("INT");
    let (code, took) = watchdog.exit();
    assert_eq!(code, Some(130));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(
        !pids.iter().any(|pid| is_alive(pid)),
        "all were gone before the watchdog was"
    );
}

#[test]
fn a_service_that_was_there_before_is_left_alone() {
    let mut shell = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_fwatchdog");
    shell.args([
        "-c",
        &format!("sleep 300 & echo $! > $TMPDIR/elder; exec {program}"),
    ]);
    let mut watchdog = with_program(shell)
        .env("fprocess", "sh -c 'setsid sleep 300 & echo $!'")
        .start();
    let elder = watchdog.lines("elder", 1);
    let left = watchdog.get("/").text();
    eventually("the left-over is ended", || !is_alive(left.trim()));
    assert!(is_alive(&elder[0]));
    watchdog.signal("INT");
    watchdog.exit();
    let was_alive = is_alive(&elder[0]);
    Command::new("kill").arg(&elder[0]).status().unwrap();
    assert!(was_alive);
}

#[test]
fn as_pid_1_it_reaps_every_orphan() {
    let Some(builder) = Place::PidNamespace.builder() else {
        return;
    };
    let body = "for i in 1 2 3 4 5; do (setsid sh -c 'sleep 0.05' &); done; echo $PPID";
    let directory_script = "count=$(ls -d /proc/[0-9]* 2>/dev/null | wc -l); echo $count; cat /proc/[0-9]*/stat 2>/dev/null | grep -c ' Z '; true";
    let mut watchdog = builder
        .script(&format!(
            "read what; if [ \"$what\" = look ]; then {directory_script}; else {body}; fi"
        ))
        .start();
    for _ in 0..10 {
        assert_eq!(
            watchdog.post("fork\n").text(),
            "1\n",
            "the watchdog is PID 1"
        );
    }
    // The one that looks: the watchdog, the shell, and what the shell runs.
    eventually("no orphan and no zombie is left", || {
        let text = watchdog.post("look\n").text();
        let mut numbers = text.lines().map(|line| line.parse::<usize>().unwrap());
        numbers.next().unwrap() <= 5 && numbers.next().unwrap() == 0
    });
    watchdog.signal("TERM");
    assert_eq!(watchdog.exit().0, Some(0));
}
