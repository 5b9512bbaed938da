//! One process per request: body in, output out, its status, its failures.

mod support;

use std::collections::HashSet;
use std::io::{BufReader, Write};
use std::time::{Duration, Instant};

use support::client::{Request, receive};
use support::{bare, eventually, function, script};

#[test]
fn the_body_goes_in_and_the_output_comes_back() {
    let watchdog = function("cat").start();
    let answer = watchdog.post("hello");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    assert_eq!(answer.header("content-length"), "5");
    let (whole, decimals) = answer.header("x-duration-seconds").split_once('.').unwrap();
    assert!(
        whole.parse::<u32>().is_ok() && decimals.len() == 6,
        "{answer:?}"
    );
}

#[test]
fn the_parts_of_a_call_are_told_in_their_order() {
    let watchdog = script("sleep 0.1; echo; sleep 0.1; exit $(cat)").start();
    for (body, status) in [("0", 200), ("3", 500)] {
        let answer = watchdog.post(body);
        assert_eq!(answer.status, status);
        let parts = answer.header("server-timing").split(", ");
        let parts: Vec<_> = parts
            .map(|part| part.split_once(";dur=").unwrap())
            .map(|(name, millis)| (name, millis.parse::<f64>().unwrap()))
            .collect();
        let [("spawn", spawn), ("first-byte", first), ("total", total)] = parts[..] else {
            panic!("{parts:?}");
        };
        assert!(
            spawn > 0.0 && first >= spawn + 100.0 && total >= first + 100.0,
            "{parts:?}"
        );
    }
    assert_eq!(
        function("true")
            .start()
            .get("/")
            .header("server-timing")
            .split(", ")
            .count(),
        2
    );
}

#[test]
fn a_command_line_is_split_at_its_spaces() {
    assert_eq!(function("base64 -d").start().post("aGk=").text(), "hi");
}

#[test]
fn a_command_line_with_quotes_is_split_like_a_shell_would() {
    let watchdog = function("sh -c 'printf \"<%s>\" \"$@\"' name 'one two' three").start();
    assert_eq!(watchdog.post("").text(), "<one two><three>");
}

#[test]
fn function_process_is_another_name() {
    assert_eq!(
        bare()
            .env("function_process", "echo yes")
            .start()
            .get("/")
            .text(),
        "yes\n"
    );
}

#[test]
fn a_request_without_a_body_closes_stdin_at_once() {
    let watchdog = function("wc -c").start();
    assert_eq!(watchdog.get("/").text().trim(), "0");
    assert_eq!(watchdog.post("").text().trim(), "0");
}

#[test]
fn a_get_with_a_body_passes_it_on() {
    let watchdog = function("cat").start();
    let request = Request::get("/")
        .header("Content-Length", "3")
        .raw_body("abc");
    assert_eq!(watchdog.call(&request).text(), "abc");
}

#[test]
fn a_chunked_body_is_passed_on_while_it_arrives() {
    let watchdog = script("read line; echo $line > $TMPDIR/seen; cat").start();
    let mut stream = watchdog.connect();
    let head = Request::bare("POST", "/")
        .header("Transfer-Encoding", "chunked")
        .bytes();
    stream.write_all(&head).unwrap();
    stream.write_all(b"6\r\nfirst\n\r\n").unwrap();
    assert_eq!(watchdog.lines("seen", 1), ["first"]);
    stream.write_all(b"4\r\nrest\r\n0\r\n\r\n").unwrap();
    assert_eq!(receive(&mut BufReader::new(stream)).text(), "rest");
}

#[test]
fn ten_parallel_calls_run_in_ten_processes_side_by_side() {
    let watchdog = script("sleep 1; echo $$").start();
    let began = Instant::now();
    let pids: HashSet<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..10)
            .map(|_| scope.spawn(|| watchdog.get("/").text()))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(pids.len(), 10, "{pids:?}");
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn two_hundred_megabytes_pass_through_unchanged_and_memory_stays_flat() {
    let watchdog = function("cat").start();
    watchdog.post("warm");
    let before = watchdog.resident();
    watchdog.pass_through(200);
    let highest = watchdog.peak();
    assert!(
        highest < before + 4096,
        "resident before {before} KiB, at most {highest} KiB"
    );
}

#[test]
fn a_command_that_reads_nothing_still_answers_a_large_body() {
    let watchdog = function("echo done").start();
    let answer = watchdog.post(vec![b'x'; 1 << 20]);
    assert_eq!((answer.status, answer.text().as_str()), (200, "done\n"));
    // The same for a client that sends everything before it looks for the answer, on a connection that is used again.
    let mut stream = watchdog.connect();
    for _ in 0..3 {
        stream
            .write_all(&Request::post("/", vec![b'x'; 8 << 20]).bytes())
            .unwrap();
        let answer = receive(&mut BufReader::new(&mut stream));
        assert_eq!((answer.status, answer.text().as_str()), (200, "done\n"));
    }
}

#[test]
fn a_command_that_closes_stdin_early_goes_on() {
    let watchdog = script("exec 0<&-; sleep 0.1; echo late").start();
    assert_eq!(watchdog.post(vec![b'x'; 1 << 20]).text(), "late\n");
}

#[test]
fn a_command_that_closes_stdout_runs_on_and_costs_nothing_meanwhile() {
    for (mode, slow) in [("classic", 408), ("streaming", 504), ("serializing", 500)] {
        let watchdog = script("read -r time; exec >&- 2>&-; sleep $time; echo ran > $TMPDIR/ran")
            .env("mode", mode)
            .env("exec_timeout", "2s")
            .start();
        watchdog.post("0\n");
        let before = watchdog.processor_time();
        let answer = watchdog.post("0.5\n");
        assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{mode}");
        assert_eq!(
            watchdog.lines("ran", 1),
            ["ran"],
            "{mode}: it was not cut short"
        );
        assert_eq!(watchdog.post("60\n").status, slow, "{mode}");
        let used = watchdog.processor_time() - before;
        assert!(used < Duration::from_millis(500), "{mode}: {used:?}");
    }
}

#[test]
fn a_failing_command_is_a_500_with_its_output() {
    let watchdog = script("echo out; echo err >&2; exit 3").start();
    let answer = watchdog.post("");
    assert_eq!(answer.status, 500);
    assert_eq!(answer.text(), "exit status 3\nout\nerr\n");
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.header("x-duration-seconds"), "");
    assert_eq!(watchdog.post("").status, 500, "the watchdog is still up");
}

#[test]
fn a_command_that_dies_of_a_signal_is_a_500_that_names_it() {
    let answer = script("echo so far; kill -SEGV $$").start().get("/");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (500, "signal: segmentation fault\nso far\n")
    );
}

#[test]
fn a_missing_command_is_a_500_that_names_it() {
    let watchdog = function("nosuchcommand -x").start();
    for _ in 0..2 {
        let answer = watchdog.post("hi");
        assert_eq!(answer.status, 500);
        assert!(answer.text().contains("nosuchcommand"), "{answer:?}");
        assert_eq!(answer.header("x-openfaas-internal"), "fwatchdog");
    }
    watchdog.logs("warning: fprocess nosuchcommand");
}

#[test]
fn a_file_that_cannot_be_executed_is_a_500_that_names_it() {
    let builder = bare();
    let path = builder.directory().join("plain");
    std::fs::write(&path, "no program").unwrap();
    let name = path.to_str().unwrap().to_owned();
    let answer = builder.env("fprocess", &name).start().get("/");
    assert_eq!(answer.status, 500);
    assert!(
        answer.text().contains(&name) && answer.text().contains("ermission denied"),
        "{answer:?}"
    );
}

#[test]
fn output_beyond_the_buffer_is_streamed_with_the_timings_as_trailers() {
    let watchdog = script("head -c 70000 /dev/zero").start();
    let answer = watchdog.call(&Request::get("/").header("TE", "trailers"));
    assert_eq!(
        (answer.status, answer.body.len(), answer.is_whole),
        (200, 70_000, true)
    );
    assert_eq!(
        answer.header("trailer"),
        "x-duration-seconds, server-timing"
    );
    assert!(
        answer.trailers["x-duration-seconds"]
            .parse::<f64>()
            .unwrap()
            > 0.0,
        "{:?}",
        answer.trailers
    );
    let timing = &answer.trailers["server-timing"];
    for part in ["spawn;dur=", "first-byte;dur=", "total;dur="] {
        assert!(timing.contains(part), "{timing}");
    }
}

#[test]
fn output_up_to_the_buffer_has_an_exact_status_and_length() {
    let watchdog = script("head -c 65536 /dev/zero; exit $(cat)").start();
    assert_eq!(watchdog.post("0").header("content-length"), "65536");
    assert_eq!(watchdog.post("4").status, 500);
    let small = script("head -c 101 /dev/zero; exit 1")
        .env("response_buffer", "100")
        .start();
    assert_eq!(
        small.get("/").status,
        200,
        "past the buffer the status is out"
    );
}

#[test]
fn a_failure_after_the_answer_has_begun_breaks_the_body() {
    let watchdog = script("head -c 200000 /dev/zero; exit 1").start();
    let answer = watchdog.get("/");
    assert_eq!((answer.status, answer.is_whole), (200, false));
    watchdog.logs("Failed: exit status 1");
}

#[test]
fn the_answer_does_not_wait_for_what_the_command_leaves_behind() {
    let watchdog = script("sleep 60 & echo $! > $TMPDIR/left; echo done").start();
    let began = Instant::now();
    assert_eq!(watchdog.get("/").text(), "done\n");
    assert!(began.elapsed() < Duration::from_secs(5));
    let left = watchdog.lines("left", 1);
    support::eventually("the left-over is ended", || !support::is_alive(&left[0]));
}

#[test]
fn a_left_over_that_writes_on_does_not_keep_the_answer_open() {
    let writer = "(echo y; echo y; : > $TMPDIR/up; exec yes) &";
    let watchdog = script(&format!(
        "{writer} while [ ! -e $TMPDIR/up ]; do sleep 0.01; done; exit 0"
    ))
    .start();
    let answer = watchdog.get("/");
    assert!(
        answer.is_whole,
        "after {} bytes: {}",
        answer.body.len(),
        watchdog.log()
    );
    assert!(answer.body.starts_with(b"y\ny\n"));
}

#[test]
fn stderr_is_part_of_the_answer_or_of_the_log() {
    let body = "echo out; echo err >&2";
    assert_eq!(script(body).start().get("/").text(), "out\nerr\n");
    let apart = script(body).env("combine_output", "false").start();
    assert_eq!(apart.get("/").text(), "out\n");
    apart.logs("\nerr\n");
}

#[test]
fn a_body_that_breaks_off_is_a_400_and_ends_the_run() {
    let watchdog = script("echo $$ > $TMPDIR/pid; cat").start();
    let mut stream = watchdog.connect();
    let request = Request::bare("POST", "/")
        .header("Transfer-Encoding", "chunked")
        .raw_body("zz\r\nbad");
    stream.write_all(&request.bytes()).unwrap();
    let answer = receive(&mut BufReader::new(stream));
    assert_eq!(answer.status, 400, "{answer:?}");
    if let Ok(pid) = std::fs::read_to_string(watchdog.file("pid")) {
        support::eventually("the run is ended", || !support::is_alive(pid.trim()));
    }
    support::eventually("no child is left", || watchdog.children().is_empty());
}

#[test]
fn a_client_that_goes_away_ends_its_run() {
    let watchdog = script("echo $$ >> $TMPDIR/pid; sleep 60").start();
    let mut stream = watchdog.connect();
    stream.write_all(&Request::get("/").bytes()).unwrap();
    let pid = watchdog.lines("pid", 1);
    drop(stream);
    support::eventually("the run is ended", || !support::is_alive(&pid[0]));
}

#[test]
fn connections_are_used_again() {
    let watchdog = function("cat").start();
    let mut stream = watchdog.connect();
    for body in ["one", "two", "three"] {
        stream.write_all(&Request::post("/", body).bytes()).unwrap();
        assert_eq!(receive(&mut BufReader::new(&mut stream)).text(), body);
    }
}

#[test]
fn orphans_of_a_run_that_goes_on_are_reaped_even_after_a_rest() {
    let watchdog = script("(sleep 0.1 &) ; read -r line").start();
    // Long enough for the first look, after which nobody is expected.
    std::thread::sleep(Duration::from_millis(200));
    let mut connection = watchdog.connect();
    let head = "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n";
    connection.write_all(head.as_bytes()).unwrap();
    eventually("the orphan is there", || watchdog.children().len() == 2);
    eventually("the orphan is reaped while its run goes on", || {
        watchdog.children().len() == 1
    });
}
