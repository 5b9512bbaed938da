//! `skep_inherit=stdin`: the listener comes as file descriptor 0, and stdout is the lifeline.

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::client::{Request, exchange};
use support::{abandon, handed_over};

#[test]
fn it_serves_on_the_socket_that_it_was_given() {
    let (process, address) = handed_over("cat", &[]);
    for body in ["one", "two"] {
        let answer = exchange(
            TcpStream::connect(address).unwrap(),
            &Request::post("/", body),
        );
        assert_eq!((answer.status, answer.text().as_str()), (200, body));
    }
    assert!(abandon(process).contains(&format!("listening on {address}")));
}

#[test]
fn no_command_inherits_the_socket_or_the_settings() {
    let (process, address) = handed_over("sh -c 'ls -l /proc/self/fd; env'", &[]);
    let text = exchange(TcpStream::connect(address).unwrap(), &Request::get("/")).text();
    assert!(
        !text.contains("socket:") && !text.contains("skep_"),
        "{text}"
    );
    abandon(process);
}

#[test]
fn when_the_reader_of_stdout_is_gone_every_run_ends_and_it_exits() {
    let (process, address) = handed_over("sh -c 'setsid sleep 300; true'", &[]);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&Request::get("/").bytes()).unwrap();
    let pid = process.id().cast_signed();
    let mut runs = Vec::new();
    support::eventually("the run and its child are there", || {
        runs = support::children(pid);
        let below = runs.first().map(|(shell, _)| support::children(*shell));
        runs.extend(below.unwrap_or_default());
        runs.len() == 2
    });
    let began = Instant::now();
    abandon(process);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert!(
        !runs
            .iter()
            .any(|(pid, _)| support::is_alive(&pid.to_string()))
    );
}

#[test]
fn something_else_than_a_listener_is_refused_in_one_line() {
    let (status, _, errors) = support::function("cat").env("skep_inherit", "stdin").run();
    assert_eq!(status.code(), Some(1));
    assert!(
        errors.lines().count() == 1 && errors.contains("skep_inherit"),
        "{errors}"
    );
}
