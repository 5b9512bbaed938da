//! Thousands of calls, some too slow, some abandoned: nothing piles up. `make soak` runs the long form.

mod support;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::{Watchdog, eventually, script};

/// Callers side by side.
const CALLERS: usize = 8;

/// Answers at once, unless it is told to hang; what hangs has a child that hides in a session of its own.
const COMMAND: &str = "read -r what
if [ \"$what\" = hang ]; then setsid sleep 4720.5 & sleep 4720.5; fi
echo \"$what\"";

/// Makes so many calls: of each twenty, one runs into its deadline and one loses its caller.
fn calls(watchdog: &Watchdog, count: usize) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    match number % 20 {
                        _ if number >= count => return,
                        0 => assert_eq!(watchdog.post("hang\n").status, 408, "call {number}"),
                        1 => abandon(watchdog),
                        _ => {
                            assert_eq!(watchdog.post("quick\n").text(), "quick\n", "call {number}")
                        }
                    }
                }
            });
        }
    });
}

/// Sends a request that hangs and goes away.
fn abandon(watchdog: &Watchdog) {
    let mut connection = watchdog.connect();
    let request = "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhang\n";
    connection
        .write_all(request.as_bytes())
        .expect("the watchdog takes the request");
    std::thread::sleep(Duration::from_millis(20));
}

#[test]
fn two_thousand_calls_leave_no_process_no_descriptor_and_little_memory_behind() {
    nothing_piles_up(1_000, 25);
}

#[test]
#[ignore = "minutes: make soak"]
fn ten_thousand_calls_leave_no_process_no_descriptor_and_no_memory_behind() {
    nothing_piles_up(10_000, 5);
}

/// So many calls, and as many again: the second ones may add so many percent of memory and nothing else.
fn nothing_piles_up(count: usize, percent: usize) {
    let watchdog = script(COMMAND).env("exec_timeout", "300ms").start();
    // The heap takes some thousand calls to find its size.
    calls(&watchdog, count);
    settled(&watchdog);
    let (memory, descriptors) = (watchdog.resident(), watchdog.descriptors());
    calls(&watchdog, count);
    settled(&watchdog);
    eventually("the connections are closed", || {
        watchdog.descriptors() <= descriptors + 2
    });
    let memory_after = watchdog.resident();
    println!(
        "resident: {memory} KiB after {count} calls, {memory_after} KiB after as many again; descriptors: {descriptors}, {}",
        watchdog.descriptors()
    );
    assert!(
        memory_after * 100 <= memory * (100 + percent),
        "{memory} KiB became {memory_after} KiB"
    );
}

/// Nothing runs any more, zombies included.
fn settled(watchdog: &Watchdog) {
    eventually("no child is left", || watchdog.children().is_empty());
}
