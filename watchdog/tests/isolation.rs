//! What a run cannot do to the watchdog and to other runs, and what is said of an end that is not the command's own.

mod support;

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use support::client::Request;
use support::place::in_container;
use support::{bare, eventually, function, is_alive, python, script, with_program};

#[test]
fn a_run_cannot_read_the_watchdogs_memory_or_environment() {
    let user = ["--user=65534:65534", "--cap-drop=ALL"];
    let Some(builder) = in_container(&user) else {
        return;
    };
    let watchdog = builder
        .script("id -u; for file in mem environ; do head -c 1 /proc/1/$file >/dev/null 2>&1 && echo read $file; done; echo done")
        .env("combine_output", "false")
        .start();
    assert_eq!(watchdog.get("/").text(), "65534\ndone\n");
}

#[test]
fn a_command_inherits_no_descriptor_that_was_left_open_to_the_watchdog() {
    let mut shell = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_fwatchdog");
    shell.args(["-c", "exec 7</etc/passwd; exec \"$0\"", program]);
    let watchdog = with_program(shell)
        .env("fprocess", "ls /proc/self/fd")
        .start();
    let text = watchdog.get("/").text();
    // The last one is of the folder that is listed.
    assert_eq!(text, "0\n1\n2\n3\n");
}

#[test]
fn a_lock_file_that_is_a_pipe_or_a_link_is_refused_without_waiting() {
    for kind in ["pipe", "link"] {
        let builder = function("cat");
        let (lock, aim) = (
            builder.directory().join(".lock"),
            builder.directory().join("aim"),
        );
        std::fs::write(&aim, "kept").unwrap();
        match kind {
            "pipe" => assert!(
                Command::new("mkfifo")
                    .arg(&lock)
                    .status()
                    .unwrap()
                    .success()
            ),
            _ => std::os::unix::fs::symlink(&aim, &lock).unwrap(),
        }
        let watchdog = builder.start();
        watchdog.logs("warning: no lock file");
        assert_eq!(watchdog.post("x").text(), "x", "{kind}");
        assert_eq!(std::fs::read_to_string(&aim).unwrap(), "kept");
    }
}

#[test]
fn output_without_end_is_a_500_in_a_mode_that_holds_it() {
    let watchdog = function("cat /dev/zero").env("mode", "serializing").start();
    let answer = watchdog.get("/");
    assert_eq!(answer.status, 500);
    assert!(
        answer.text().contains("16777216 bytes"),
        "{}",
        answer.text()
    );
    assert!(watchdog.peak() < 64 * 1024, "{} KiB", watchdog.peak());
    eventually("the run has ended", || watchdog.children().is_empty());
}

#[test]
fn a_run_whose_caller_leaves_has_its_closing_line() {
    for mode in ["classic", "streaming", "serializing"] {
        let watchdog = script("echo begun; sleep 100").env("mode", mode).start();
        let mut stream = watchdog.connect();
        stream.write_all(&Request::get("/").bytes()).unwrap();
        eventually("it runs", || !watchdog.children().is_empty());
        drop(stream);
        watchdog.logs("Failed: the caller has left, and the run was ended - wrote ");
    }
}

#[test]
fn a_server_that_becomes_a_daemon_gets_a_hint() {
    let watchdog = bare()
        .script("sleep 100 & exit 0")
        .env("mode", "http")
        .env("http_upstream_url", "http://127.0.0.1:1")
        .start();
    watchdog.logs("start it in the foreground");
}

#[test]
fn a_run_that_the_memory_limit_has_ended_says_so() {
    let Some(builder) = in_container(&["--memory=24m", "--memory-swap=24m"]) else {
        return;
    };
    let watchdog = builder
        .script("exec awk 'BEGIN { text = \"x\"; for (;;) text = text text }'")
        .start();
    let answer = watchdog.get("/");
    assert_eq!(answer.status, 500);
    let says = "OOM: the memory limit of 25165824 bytes ended a process of the run";
    assert!(answer.text().starts_with(says), "{}", answer.text());
    watchdog.logs(says);
}

/// The first run leaves a process behind that takes the mark of the second one, which began later.
const FORGER: &str = r"
import os, resource, sys, time
folder = os.environ['TMPDIR']
def wait(name):
    while not os.path.exists(folder + '/' + name): time.sleep(0.01)
def write(name, text):
    with open(folder + '/' + name + '.new', 'w') as file: file.write(str(text))
    os.rename(folder + '/' + name + '.new', folder + '/' + name)
role = sys.stdin.read()
if role == 'forger':
    if os.fork() == 0:
        os.setsid()
        for number in range(3): os.close(number)
        wait('mark')
        mark = int(open(folder + '/mark').read())
        try: resource.setrlimit(resource.RLIMIT_RSS, (mark, mark))
        except (OSError, ValueError): pass # The limit cannot be raised without CAP_SYS_RESOURCE.
        write('forged', os.getpid())
        time.sleep(1000)
        os._exit(0)
    wait('forged')
else:
    write('mark', resource.getrlimit(resource.RLIMIT_RSS)[0])
    wait('end')
";

#[test]
fn a_process_that_copies_the_mark_of_a_later_run_is_ended_all_the_same() {
    let watchdog = python(FORGER).start();
    let file = |name: &str| watchdog.file(name);
    std::thread::scope(|scope| {
        let forger = scope.spawn(|| watchdog.post("forger"));
        // Its process is there before the mark is made: at least a tick of the kernel's clock.
        eventually("it has forked", || watchdog.children().len() == 1);
        std::thread::sleep(Duration::from_millis(500));
        let victim = scope.spawn(|| watchdog.post("victim"));
        assert_eq!(forger.join().unwrap().status, 200);
        let pid = std::fs::read_to_string(file("forged")).unwrap();
        eventually("it is ended while the later run goes on", || {
            !is_alive(&pid)
        });
        std::fs::write(file("end"), "").unwrap();
        assert_eq!(victim.join().unwrap().status, 200);
    });
}
