//! Forged marks, inherited descriptors and lock files of every kind, in each way to start a process.

mod support;

use std::process::Command;

use support::client::Request;
use support::{Builder, eventually, function, processes_with, script, with_program};

const FWATCHDOG: &str = env!("CARGO_BIN_EXE_fwatchdog");

/// Without the capabilities that a container does not have either, whoever runs the test.
fn as_in_a_container() -> Builder {
    let without = "-sys_ptrace,-sys_resource,-sys_admin,-perfmon";
    let mut setpriv = Command::new("setpriv");
    setpriv.arg(format!("--bounding-set={without}"));
    setpriv.arg(format!("--inh-caps={without}"));
    setpriv.arg(FWATCHDOG);
    with_program(setpriv)
}

#[test]
fn a_command_cannot_read_the_watchdog() {
    for (name, value) in [("mode", "classic"), ("mode", "streaming"), ("prefork", "1")] {
        let watchdog = as_in_a_container()
            .env(name, value)
            .script(
                "for name in mem environ maps fd/0; do (: < /proc/$PPID/$name) 2> /dev/null && echo $name; done; \
                 cat /proc/$$/environ > /dev/null && echo own",
            )
            .start();
        assert_eq!(watchdog.get("/").text(), "own\n", "{name}={value}");
    }
}

#[test]
fn descriptors_that_the_watchdog_inherited_do_not_reach_commands() {
    for (name, value) in [("mode", "classic"), ("mode", "streaming"), ("prefork", "1")] {
        let mut shell = Command::new("sh");
        shell.args([
            "-c",
            "exec 5</etc/passwd 9</etc/passwd; exec \"$0\"",
            FWATCHDOG,
        ]);
        let watchdog = with_program(shell)
            .env("fprocess", "ls -l /proc/self/fd")
            .env(name, value)
            .start();
        let listed = watchdog.get("/").text();
        assert!(
            listed.contains("pipe:") && !listed.contains("passwd"),
            "{listed}"
        );
    }
}

#[test]
fn descriptors_that_the_watchdog_inherited_do_not_reach_the_server_of_mode_http() {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "exec 5</etc/passwd 9</etc/passwd; exec \"$0\"",
        FWATCHDOG,
    ]);
    let watchdog = with_program(shell)
        .script("ls -l /proc/self/fd; echo listed; exec sleep 60")
        .env("mode", "http")
        .env("http_upstream_url", "http://127.0.0.1:1")
        .start();
    eventually("the descriptors are listed", || {
        watchdog.output().contains("listed")
    });
    assert!(
        !watchdog.output().contains("passwd"),
        "{}",
        watchdog.output()
    );
}

/// Waits for the marks of a younger run, takes them on, and stays.
const FORGER: &str = "until [ -s $TMPDIR/limit ]; do sleep 0.01; done; \
     prlimit --pid $$ --rss=$(cat $TMPDIR/limit); \
     export SKEP_RUN=$(cat $TMPDIR/mark); touch $TMPDIR/forged; exec sleep 98761$N";

/// The same by a process that is younger than that run, too.
const CHILD: &str = "until [ -s $TMPDIR/limit ]; do sleep 0.01; done; \
     (prlimit --pid $BASHPID --rss=$(cat $TMPDIR/limit); \
     export SKEP_RUN=$(cat $TMPDIR/mark); touch $TMPDIR/forged; exec sleep 98761$N) & exit";

#[test]
fn a_process_that_copies_the_marks_of_a_younger_run_ends_with_its_own() {
    forgers_end(script(""), FORGER, "1");
    forgers_end(as_in_a_container(), FORGER, "2");
    forgers_end(as_in_a_container(), CHILD, "3");
}

/// The run `first` leaves a forger behind; `second` lends its marks, goes on, and is not touched.
fn forgers_end(builder: Builder, forger: &str, number: &str) {
    std::fs::write(builder.directory().join("forger.sh"), forger).expect("a directory");
    let watchdog = builder
        .env("N", number)
        .script(
            "read -r role; case $role in \
             first) (setsid bash $TMPDIR/forger.sh < /dev/null > /dev/null 2>&1 &); touch $TMPDIR/started; \
               until [ -e $TMPDIR/forged ]; do sleep 0.01; done; echo first;; \
             second) echo $SKEP_RUN > $TMPDIR/mark; \
               awk '/Max resident set/ { print $4 }' /proc/self/limits > $TMPDIR/limit; \
               (setsid sleep 98762$N < /dev/null > /dev/null 2>&1 &); \
               until [ -e $TMPDIR/over ]; do sleep 0.01; done; echo second;; \
             esac",
        )
        .start();
    let (forged, honest) = (
        format!("sleep 98761{number}"),
        format!("sleep 98762{number}"),
    );
    std::thread::scope(|scope| {
        let first = scope.spawn(|| watchdog.call(&Request::post("/", "first\n")).text());
        eventually("the first run has started", || {
            watchdog.file("started").exists()
        });
        // The start of a process is known to a hundredth of a second.
        std::thread::sleep(std::time::Duration::from_millis(30));
        let second = scope.spawn(|| watchdog.call(&Request::post("/", "second\n")).text());
        assert_eq!(first.join().expect("an answer"), "first\n");
        eventually("the forger is ended", || processes_with(&forged).is_empty());
        assert_eq!(
            processes_with(&honest).len(),
            1,
            "the other run's own process"
        );
        std::fs::write(watchdog.file("over"), "").expect("a directory");
        assert_eq!(second.join().expect("an answer"), "second\n");
    });
    eventually("nothing is left", || processes_with(&honest).is_empty());
}

#[test]
fn a_lock_file_that_is_not_a_regular_file_is_refused_at_once() {
    for make in [
        "mkfifo .lock",
        "ln -s target .lock",
        "ln -s nowhere/target .lock",
        "mknod .lock c 1 3",
        "mkdir .lock",
        "mkfifo fifo; ln -s fifo .lock",
    ] {
        let builder = function("cat");
        let directory = builder.directory().to_owned();
        std::fs::write(directory.join("target"), "kept").expect("a directory");
        let made = Command::new("sh")
            .args(["-c", make])
            .current_dir(&directory)
            .status();
        assert!(made.expect("a shell").success(), "{make}");
        let watchdog = builder.start();
        watchdog.logs("is not a regular file; remove it, or set skep_lock_dir");
        assert_eq!(watchdog.get("/_/health").status, 200, "{make}");
        assert_eq!(watchdog.post("x").text(), "x");
        let kept = std::fs::read_to_string(directory.join("target"));
        assert_eq!(kept.expect("a file"), "kept");
        let path = directory.to_str().expect("a path");
        let (status, _, errors) = support::bare()
            .env("TMPDIR", path)
            .arg("-run-healthcheck")
            .run();
        assert_eq!(status.code(), Some(1), "{make}");
        assert!(errors.contains("is not a regular file"), "{errors}");
    }
}
