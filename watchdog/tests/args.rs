//! `input_mode=args`: the body becomes the command's arguments.

mod support;

use std::io::Write;

use support::client::{Request, receive};
use support::{Builder, eventually, function, script};

/// Says each of its arguments in a line of its own, and what came on its input.
const SHOW: &str = "for word; do printf '<%s>\\n' \"$word\"; done; printf '(%s)\\n' \"$(cat)\"";

fn show() -> Builder {
    script(SHOW).env("input_mode", "args")
}

#[test]
fn an_array_becomes_arguments_behind_those_of_the_command() {
    for mode in ["classic", "streaming", "serializing"] {
        let watchdog = show().env("mode", mode).start();
        let answer = watchdog.post(r#"["a b", "$(id)", "", "ä\n", 1.50, -3e2, true, false]"#);
        assert_eq!(answer.status, 200, "{mode}");
        assert_eq!(
            answer.text(),
            "<a b>\n<$(id)>\n<>\n<ä\n>\n<1.50>\n<-3e2>\n<true>\n<false>\n()\n",
            "{mode}"
        );
        assert_eq!(watchdog.post("[]").text(), "()\n", "{mode}");
    }
    let own = function("echo -n one").env("input_mode", "args").start();
    assert_eq!(own.post(r#"["two"]"#).text(), "one two");
}

#[test]
fn an_objects_args_become_arguments() {
    let watchdog = show().start();
    let body = r#"{"stdin": {"args": [0]}, "args": ["-x", 1], "more": null}"#;
    assert_eq!(watchdog.post(body).text(), "<-x>\n<1>\n()\n");
}

#[test]
fn anything_else_is_a_400_that_says_what_is_wrong() {
    let watchdog = script("echo ran >> $TMPDIR/ran")
        .env("input_mode", "args")
        .start();
    for (body, sentence) in [
        ("", "it is empty"),
        ("[1", "a ] is missing at byte 2"),
        ("{\"arg\": []}", "the object has no args"),
        ("\"ls\"", "neither an array nor an object"),
        ("[1, null]", "argument 2 is null"),
        ("[[]]", "argument 1 is an array or an object"),
        ("[\"a\\u0000b\"]", "argument 1 contains a NUL character"),
        ("name=value", "neither an array nor an object"),
    ] {
        let answer = watchdog.post(body);
        assert_eq!(answer.status, 400, "{body}");
        assert_eq!(answer.header("x-openfaas-internal"), "fwatchdog");
        let text = answer.text();
        assert!(
            text.contains(sentence) && text.lines().count() == 1,
            "{body}: {text}"
        );
    }
    assert_eq!(watchdog.get("/").status, 400);
    assert!(!watchdog.file("ran").exists(), "nothing was started");
    watchdog.logs("Failed: the request body is not a JSON array of arguments");
}

#[test]
fn a_body_up_to_128_kib_is_taken_and_a_larger_one_is_a_413() {
    let watchdog = show().start();
    let body = |size: usize| format!("[\"{}\"]", "x".repeat(size - 4));
    let most = 128 * 1024;
    let answer = watchdog.post(body(most));
    assert_eq!((answer.status, answer.body.len()), (200, most - 4 + 3 + 3));
    for request in [
        Request::post("/", body(most + 1)),
        Request::bare("POST", "/")
            .header("Transfer-Encoding", "chunked")
            .raw_body(format!("{:x}\r\n{}\r\n0\r\n\r\n", most + 1, body(most + 1))),
    ] {
        let answer = watchdog.call(&request);
        assert_eq!(answer.status, 413);
        assert!(
            answer.text().contains("more than 131072 bytes"),
            "{}",
            answer.text()
        );
    }
    // A connection goes on after a refusal.
    let mut stream = watchdog.connect();
    for (body, status) in [("[", 400), ("[1]", 200)] {
        stream.write_all(&Request::post("/", body).bytes()).unwrap();
        assert_eq!(
            receive(&mut std::io::BufReader::new(&mut stream)).status,
            status
        );
    }
}

#[test]
fn a_body_that_stalls_or_breaks_off_starts_nothing() {
    let watchdog = show().env("read_timeout", "300ms").start();
    let slow = Request::bare("POST", "/")
        .header("Content-Length", "10")
        .raw_body("[1,");
    let answer = watchdog.call(&slow);
    assert_eq!(answer.status, 408);
    assert!(answer.text().contains("read_timeout"), "{}", answer.text());
    let mut stream = watchdog.connect();
    stream.write_all(&slow.bytes()).unwrap();
    drop(stream);
    eventually("no run is left", || watchdog.children().is_empty());
    assert!(!watchdog.log().contains("Forking"), "{}", watchdog.log());
}

#[test]
fn arguments_that_the_kernel_does_not_take_are_a_413() {
    // The kernel gives arguments and environment a quarter of the stack's limit.
    let mut shell = std::process::Command::new("sh");
    let program = env!("CARGO_BIN_EXE_fwatchdog");
    shell.args(["-c", &format!("ulimit -s 1024; exec {program}")]);
    let watchdog = support::with_program(shell)
        .env("fprocess", "echo")
        .env("input_mode", "args")
        .start();
    let answer = watchdog.post(format!("[{}0]", "0,".repeat(60_000)));
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(
        answer.text().contains("too long for the kernel"),
        "{}",
        answer.text()
    );
    assert_eq!(watchdog.post("[1]").text(), "1\n");
}

#[test]
fn what_cannot_go_together_is_one_line_each() {
    let (status, _, errors) = function("cat")
        .env("input_mode", "args")
        .env("prefork", "2")
        .env("marshal_request", "true")
        .run();
    assert_eq!(status.code(), Some(2));
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(lines.len(), 2, "{errors}");
    assert!(lines[0].contains("input_mode=args") && lines[0].contains("prefork"));
    assert!(lines[1].contains("input_mode=args") && lines[1].contains("marshal_request"));
    let other = function("cat").env("input_mode", "json").start();
    other.logs("warning: input_mode=json is not stdin or args; using stdin");
    assert_eq!(other.post("[1]").text(), "[1]");
}
