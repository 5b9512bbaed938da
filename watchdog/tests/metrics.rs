//! The metrics port: what is counted, and that it is in nobody's way.

mod support;

use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use support::client::{Request, receive};
use support::{Builder, Watchdog, bare, eventually, free_port, function, script};

fn measured(builder: Builder) -> Watchdog {
    builder.env("metrics_port", "0").start()
}

/// The count of calls with this status and verb.
fn calls(code: u16, method: &str) -> String {
    format!("http_requests_total{{code=\"{code}\",method=\"{method}\"}}")
}

#[test]
fn three_good_calls_and_a_bad_one_move_the_counts_by_three_and_one() {
    let watchdog = measured(script("read word; test \"$word\" != bad"));
    for body in ["good\n", "good\n", "bad\n", "good\n"] {
        watchdog.post(body);
    }
    watchdog.counts(&calls(200, "post"), 3.0);
    watchdog.counts(&calls(500, "post"), 1.0);
    let metrics = watchdog.metrics();
    let totals = metrics
        .keys()
        .filter(|name| name.starts_with("http_requests_total"));
    assert_eq!(totals.count(), 2, "{metrics:#?}");
    assert_eq!(metrics["fwatchdog_spawn_seconds_count"], 4.0);
    assert!(metrics["fwatchdog_spawn_seconds_sum"] > 0.0);
    assert_eq!(metrics["http_requests_in_flight"], 0.0);
    // Once more: nothing else was to come.
    assert_eq!(watchdog.metric(&calls(200, "post")), 3.0);
}

#[test]
fn refusals_are_counted_and_questions_after_the_health_are_not() {
    let watchdog =
        measured(script("until test -e $TMPDIR/go; do sleep 0.02; done").env("max_inflight", "1"));
    watchdog.call(&Request::bare("OPTIONS", "/"));
    watchdog.call(&Request::bare("BREW", "/"));
    let mut running = watchdog.connect();
    running.write_all(&Request::get("/").bytes()).unwrap();
    watchdog.counts("http_requests_in_flight", 1.0);
    assert_eq!(watchdog.post("").status, 429);
    assert_eq!(watchdog.get("/_/health").status, 200);
    assert_eq!(watchdog.get("/_/ready").status, 429);
    std::fs::write(watchdog.file("go"), "").unwrap();
    receive(&mut BufReader::new(running));
    for (code, method) in [
        (405, "options"),
        (405, "unknown"),
        (429, "post"),
        (200, "get"),
    ] {
        watchdog.counts(&calls(code, method), 1.0);
    }
    let metrics = watchdog.metrics();
    let all = metrics
        .iter()
        .filter(|(name, _)| name.starts_with("http_requests_total"));
    assert_eq!(all.map(|(_, count)| count).sum::<f64>(), 4.0);
}

#[test]
fn a_call_lasts_until_the_end_of_its_body() {
    let watchdog = measured(
        script("echo first; until test -e $TMPDIR/go; do sleep 0.02; done; echo last")
            .env("mode", "streaming"),
    );
    let began = Instant::now();
    let mut stream = watchdog.connect();
    stream.write_all(&Request::get("/").bytes()).unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(watchdog.metric("http_requests_in_flight"), 1.0);
    assert_eq!(watchdog.metric(&calls(200, "get")), 0.0);
    std::fs::write(watchdog.file("go"), "").unwrap();
    watchdog.counts(&calls(200, "get"), 1.0);
    let most = began.elapsed().as_secs_f64();
    let sample = |part: &str, rest: &str| {
        watchdog.metric(&format!(
            "http_request_duration_seconds_{part}{{code=\"200\",method=\"get\"{rest}}}"
        ))
    };
    assert_eq!(sample("count", ""), 1.0);
    let sum = sample("sum", "");
    assert!((0.3..=most).contains(&sum), "{sum} of {most}");
    assert_eq!(sample("bucket", ",le=\"0.25\""), 0.0);
    assert_eq!(sample("bucket", ",le=\"+Inf\""), 1.0);
}

#[test]
fn every_kill_is_counted_by_its_reason() {
    let kills = |reason: &str| format!("fwatchdog_kills_total{{reason=\"{reason}\"}}");
    let slow = measured(script("sleep 60").env("exec_timeout", "200ms"));
    assert_eq!(slow.get("/").status, 408);
    slow.counts(&kills("exec_timeout"), 1.0);

    let watchdog = measured(
        script("echo x >> $TMPDIR/up; cat >/dev/null; sleep 60")
            .env("read_timeout", "500ms")
            .env("write_timeout", "2s"),
    );
    let body = |text: &str| {
        let head = Request::bare("POST", "/").header("Transfer-Encoding", "chunked");
        let mut stream = watchdog.connect();
        stream.write_all(&head.raw_body(text).bytes()).unwrap();
        stream
    };
    let broken = receive(&mut BufReader::new(body("zz\r\nbad")));
    assert_eq!(broken.status, 400);
    let late = receive(&mut BufReader::new(body("1\r\nx\r\n")));
    assert_eq!(late.status, 408);
    assert_eq!(watchdog.get("/").status, 504);
    // The one with the broken body may have been ended before its first word.
    let seen = watchdog.lines("up", 2).len();
    let gone = body("0\r\n\r\n");
    watchdog.lines("up", seen + 1);
    drop(gone);
    for reason in [
        "body_broken",
        "read_timeout",
        "write_timeout",
        "client_gone",
    ] {
        watchdog.counts(&kills(reason), 1.0);
    }
    watchdog.counts(&calls(499, "post"), 1.0);
}

#[test]
fn an_answer_that_breaks_off_is_counted_beside_its_status() {
    let watchdog = measured(script("echo some; exit 3").env("mode", "streaming"));
    let answer = watchdog.get("/");
    assert_eq!((answer.status, answer.is_whole), (200, false));
    watchdog.counts("fwatchdog_broken_answers_total", 1.0);
    assert_eq!(watchdog.metric(&calls(200, "get")), 1.0);
}

#[test]
fn a_call_that_starts_an_idle_child_is_seen_to_wait_for_it() {
    let port = free_port();
    let server = format!("python3 -m http.server --bind 127.0.0.1 {port}");
    let builder = function(&server)
        .env("mode", "http")
        .env("http_upstream_url", &format!("http://127.0.0.1:{port}"))
        .env("idle_timeout", "300ms");
    let watchdog = measured(builder);
    watchdog.logs("fprocess is stopped until the next call");
    assert_eq!(watchdog.metric("fwatchdog_wait_seconds_count"), 0.0);
    let began = Instant::now();
    assert_eq!(watchdog.get("/").status, 200);
    let most = began.elapsed().as_secs_f64();
    let waited = watchdog.metric("fwatchdog_wait_seconds_sum");
    assert!(waited > 0.0 && waited <= most, "{waited} of {most}");
    assert_eq!(watchdog.metric("fwatchdog_wait_seconds_count"), 1.0);
    assert!(watchdog.metric("fwatchdog_spawn_seconds_count") >= 2.0);
    assert!(watchdog.metric("fwatchdog_kills_total{reason=\"idle_timeout\"}") >= 1.0);
}

#[test]
fn files_are_counted_and_timed_too() {
    let builder = bare().env("mode", "static");
    let path = builder.directory().to_str().unwrap().to_owned();
    std::fs::write(builder.directory().join("page.html"), "hello").unwrap();
    let watchdog = measured(builder.env("static_path", &path));
    assert_eq!(watchdog.get("/page.html").text(), "hello");
    assert_eq!(watchdog.get("/none").status, 404);
    for code in [200, 404] {
        watchdog.counts(&calls(code, "get"), 1.0);
        let durations =
            format!("http_request_duration_seconds_count{{code=\"{code}\",method=\"get\"}}");
        assert_eq!(watchdog.metric(&durations), 1.0);
    }
}

#[test]
fn the_page_is_what_prometheus_reads() {
    let watchdog = measured(function("cat"));
    watchdog.post("x");
    for path in ["/metrics", "/metrics/"] {
        let answer = watchdog.ask_metrics(&Request::get(path));
        assert_eq!(answer.status, 200);
        assert!(
            answer
                .header("content-type")
                .starts_with("text/plain; version=0.0.4")
        );
        let text = answer.text();
        for line in [
            "# TYPE http_requests_total counter",
            "# TYPE http_request_duration_seconds histogram",
            "# TYPE http_requests_in_flight gauge",
            "process_start_time_seconds 1",
            "process_resident_memory_bytes ",
        ] {
            assert!(
                text.lines().any(|have| have.starts_with(line)),
                "{line}: {text}"
            );
        }
        assert!(!text.contains("fwatchdog_pool_size"), "{text}");
        for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = name.split(' ').next().unwrap();
            assert_eq!(
                text.matches(&format!("# TYPE {name} ")).count(),
                1,
                "{name}"
            );
        }
    }
    let metrics = watchdog.metrics();
    let resident = metrics["process_resident_memory_bytes"];
    assert!((100_000.0..100_000_000.0).contains(&resident), "{resident}");
}

#[test]
fn a_metrics_port_that_is_taken_costs_one_warning() {
    let taken = TcpListener::bind("[::]:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let watchdog = function("cat").env("metrics_port", &port).start();
    assert_eq!(watchdog.post("on").text(), "on");
    let log = watchdog.log();
    let warnings: Vec<_> = log
        .lines()
        .filter(|line| line.contains("warning"))
        .collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(
        warnings[0].contains(&port) && warnings[0].contains("metrics_port"),
        "{log}"
    );
}

#[test]
fn one_port_for_both_serves_the_function() {
    // Free a moment ago; whoever takes it meanwhile makes the start fail, which is tried again.
    let watchdog = (0..10).find_map(|_| {
        let port = TcpListener::bind("[::]:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let port = port.to_string();
        let builder = function("cat")
            .env("port", &port)
            .env("metrics_port", &port);
        builder.try_start()
    });
    let watchdog = watchdog.expect("a free port");
    assert_eq!(watchdog.post("on").text(), "on");
    assert_eq!(
        watchdog.log().matches("warning: no metrics").count(),
        1,
        "{}",
        watchdog.log()
    );
}

#[test]
fn switched_off_there_is_no_port_and_no_word() {
    let watchdog = function("cat").env("metrics_port", "off").start();
    assert!(!watchdog.log().contains("metrics"), "{}", watchdog.log());
    let odd = function("cat").env("metrics_port", "many").start();
    assert!(
        odd.log().contains("warning: metrics_port=many"),
        "{}",
        odd.log()
    );
}

#[test]
fn whoever_stalls_or_talks_nonsense_on_the_metrics_port_is_in_nobodys_way() {
    let watchdog = measured(function("cat"));
    let refused = |request: Request| watchdog.ask_metrics(&request).status;
    assert_eq!(refused(Request::post("/metrics", "x")), 405);
    assert_eq!(refused(Request::get("/")), 404);
    assert_eq!(
        refused(Request::get("/metrics").header("X", &"x".repeat(20_000))),
        431
    );
    // Everything is taken by callers who say nothing, and yet the next one has his answer after their time.
    let before = watchdog.descriptors();
    let silent: Vec<_> = (0..40)
        .map(|_| TcpStream::connect(("127.0.0.1", watchdog.metrics_port())).unwrap())
        .collect();
    eventually("some are accepted", || watchdog.descriptors() > before);
    assert!(
        watchdog.descriptors() <= before + 4,
        "{} of {before}",
        watchdog.descriptors()
    );
    assert_eq!(watchdog.post("calls go on").text(), "calls go on");
    drop(silent);
    assert_eq!(watchdog.metric(&calls(200, "post")), 1.0);
}

#[test]
fn metrics_are_told_until_the_drain_is_over() {
    let mut watchdog = measured(script(
        "echo up >> $TMPDIR/up; until test -e $TMPDIR/go; do sleep 0.02; done",
    ));
    let mut running = watchdog.connect();
    running.write_all(&Request::get("/").bytes()).unwrap();
    watchdog.lines("up", 1);
    watchdog.signal("TERM");
    watchdog.logs("SIGTERM: draining");
    assert_eq!(watchdog.get("/").status, 503);
    watchdog.counts(&calls(503, "get"), 1.0);
    assert_eq!(watchdog.metric("http_requests_in_flight"), 1.0);
    std::fs::write(watchdog.file("go"), "").unwrap();
    assert_eq!(watchdog.exit().0, Some(0));
}

#[test]
fn a_pool_tells_its_size_each_wait_and_who_was_let_go() {
    let body = "read what; case $what in spin) while :; do :; done;; esac";
    let watchdog = measured(
        script(body)
            .env("prefork", "3")
            .env("prefork_idle", "2s")
            .env("max_cpu_seconds", "1"),
    );
    watchdog.counts("fwatchdog_pool_size", 3.0);
    assert_eq!(watchdog.post("quick\n").status, 200);
    assert_eq!(watchdog.post("spin\n").status, 500);
    watchdog.counts("fwatchdog_wait_seconds_count", 2.0);
    watchdog.counts("fwatchdog_kills_total{reason=\"max_cpu_seconds\"}", 1.0);
    watchdog.counts("fwatchdog_pool_size", 0.0);
    let let_go = watchdog.metric("fwatchdog_kills_total{reason=\"prefork_idle\"}");
    assert!(let_go >= 3.0, "{let_go}");
}
