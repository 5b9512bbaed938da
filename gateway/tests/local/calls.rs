//! Calling functions: by path, by header, in parallel; bodies of every size.

use std::time::{Duration, Instant};

use crate::support::client::{get, post, request};
use crate::support::gateway::Gateway;

const FUNCTIONS: &str = r#"
  cat:
    fprocess: cat
  env:
    fprocess: env
  my-fn_2:
    fprocess: sh -c "echo $Http_Method $Http_Path $Http_Query"
  fail:
    fprocess: sh -c "echo partial; exit 3"
  slow:
    fprocess: sh -c "sleep 1; echo $$$$"
    labels:
      com.openfaas.scale.min: 2
"#;

#[test]
fn a_call_runs_the_command_with_the_body_as_its_input() {
    let gateway = Gateway::of(FUNCTIONS);
    let answer = post(gateway.address, "/function/cat", "hello");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    let with_namespace = post(gateway.address, "/function/cat.openfaas-fn", "hello");
    assert_eq!(
        with_namespace.text(),
        "hello",
        "clients always write the namespace"
    );
    let empty = get(gateway.address, "/function/cat");
    assert_eq!((empty.status, empty.body.len()), (200, 0));
}

#[test]
fn the_header_names_the_function_in_any_case_and_the_path_wins() {
    let gateway = Gateway::of(FUNCTIONS);
    for header in ["X-Function", "x-function", "X-FUNCTION"] {
        let answer = request(gateway.address, "POST", "/", &[(header, "cat")], b"hi");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "hi"),
            "{header}"
        );
    }
    let both = request(
        gateway.address,
        "POST",
        "/function/cat",
        &[("X-Function", "fail")],
        b"path",
    );
    assert_eq!(both.text(), "path");
    let none = post(gateway.address, "/", "x");
    assert_eq!(none.status, 400);
    assert!(none.text().contains("X-Function"), "{}", none.text());
}

#[test]
fn sub_paths_and_queries_reach_the_function() {
    let gateway = Gateway::of(FUNCTIONS);
    let shown = |path: &str| get(gateway.address, path).text().trim_end().to_owned();
    assert_eq!(shown("/function/my-fn_2"), "GET /");
    assert_eq!(shown("/function/my-fn_2/"), "GET /");
    assert_eq!(
        shown("/function/my-fn_2/a/b%20c?q=1&r=%2F"),
        "GET /a/b c q=1&r=%2F"
    );
    assert_eq!(shown("/function/my-fn_2?q=1"), "GET / q=1");
}

#[test]
fn an_unknown_name_gets_a_404_that_suggests_a_near_one() {
    let gateway = Gateway::of("  catservice:\n    fprocess: cat");
    let near = get(gateway.address, "/function/catserv");
    assert_eq!(near.status, 404, "a prefix of a name is no name");
    assert!(
        near.text().contains("did you mean 'catservice'?"),
        "{}",
        near.text()
    );
    assert_eq!(near.header("x-openfaas-internal"), Some("gateway"));
    let far = get(gateway.address, "/function/nosuch");
    assert_eq!(far.status, 404);
    assert!(
        far.text().contains("'nosuch'") && !far.text().contains("did you mean"),
        "{}",
        far.text()
    );
}

#[test]
fn the_functions_status_passes_through() {
    let gateway = Gateway::of(FUNCTIONS);
    let failed = post(gateway.address, "/function/fail", "");
    assert_eq!(failed.status, 500);
    assert!(
        failed.text().contains("exit status 3") && failed.text().contains("partial"),
        "{}",
        failed.text()
    );
    assert_eq!(
        request(gateway.address, "HEAD", "/function/cat", &[], b"").status,
        405,
        "the classic watchdog's answer"
    );
}

#[test]
fn calls_run_in_parallel_each_in_its_own_process() {
    let gateway = Gateway::of(FUNCTIONS);
    let address = gateway.address;
    let began = Instant::now();
    let calls: Vec<_> = (0..10)
        .map(|_| std::thread::spawn(move || get(address, "/function/slow").text()))
        .collect();
    let mut pids: Vec<_> = calls.into_iter().map(|call| call.join().unwrap()).collect();
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    pids.sort();
    pids.dedup();
    assert_eq!(pids.len(), 10, "{pids:?}");
}

#[test]
fn large_bodies_stream_both_ways_and_come_back_whole() {
    let gateway = Gateway::of(FUNCTIONS);
    let before = resident(gateway.pid());
    let body: Vec<u8> = (0..64u32 << 20).map(|n| (n ^ (n >> 11)) as u8).collect();
    let answer = post(gateway.address, "/function/cat", &body);
    assert_eq!(answer.status, 200);
    assert!(
        answer.complete && answer.body == body,
        "64 MiB come back as they went"
    );
    let grown = resident(gateway.pid()).saturating_sub(before);
    assert!(grown < 16 << 20, "the gateway grew by {grown} bytes");
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .next()
        .unwrap()
        .parse::<u64>()
        .unwrap()
        << 10
}
