//! Both ways to start a command, and what each must do.

use super::*;
use rustix::pipe::{PipeFlags, pipe_with};

type Start = fn(&Program<'_>, &ChildEnds) -> io::Result<Child>;

const WAYS: [Start; 2] = [spawn, spawn_by_library];

/// Runs a shell script by one of the two ways; its exit and what it wrote.
fn run(start: Start, script: &str) -> io::Result<(Exit, String)> {
    run_program(start, c"/bin/sh", script, Quota::default())
}

fn run_program(
    start: Start,
    path: &CStr,
    script: &str,
    quota: Quota,
) -> io::Result<(Exit, String)> {
    let (stdin, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let (reader, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    drop(writer);
    let (note, note_writer) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::write(&note_writer, b"noted\n")?;
    drop(note_writer);
    let (mut arguments, mut environment) = (Strings::default(), Strings::default());
    for word in ["name", "-c", script] {
        arguments.push(&[word.as_bytes()]);
    }
    environment.push(&[b"GREETING=hello"]);
    let ends = ChildEnds {
        stdin,
        stdout,
        stderr: None,
        note: Some(note),
    };
    let program = Program {
        path,
        arguments: &arguments,
        environment: &environment,
        quota,
        resident_limit: 1 << 62,
    };
    let child = start(&program, &ends)?;
    drop(ends);
    let output = io::read_to_string(std::fs::File::from(reader))?;
    loop {
        if let Some(exit) = child.try_reap() {
            return Ok((exit, output));
        }
        std::thread::yield_now();
    }
}

#[test]
fn both_ways_start_a_command_with_its_arguments_environment_and_group() {
    let script = "echo $0 $GREETING; echo err >&2; read -r pid comm state ppid pgrp rest < /proc/$$/stat; \
                  test $pgrp = $$ && echo leads; kill -PIPE $$; exit 3";
    for start in WAYS {
        let (exit, output) = run(start, script).unwrap();
        assert_eq!(output, "name hello\nerr\nleads\n");
        assert_eq!(
            exit,
            Exit::Signal(libc::SIGPIPE),
            "SIGPIPE has its default action"
        );
    }
}

#[test]
fn the_exit_status_is_told() {
    for start in WAYS {
        assert_eq!(run(start, "exit 3").unwrap().0, Exit::Status(3));
    }
}

#[test]
fn a_program_that_is_not_there_is_an_error() {
    for start in WAYS {
        let missing = run_program(start, c"/none", "", Quota::default());
        assert_eq!(missing.unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }
}

#[test]
fn the_resident_limit_is_set_for_good() {
    for start in WAYS {
        assert_eq!(
            run(start, "ulimit -m; ulimit -H -m").unwrap().1,
            format!("{0}\n{0}\n", (1_u64 << 62) / 1024)
        );
    }
}

#[test]
fn a_command_blocks_no_signal_though_the_watchdog_does() {
    let _deaths = deaths::hold_back().unwrap();
    for start in WAYS {
        let (_, output) = run(start, "grep SigBlk /proc/self/status").unwrap();
        assert_eq!(output, "SigBlk:\t0000000000000000\n");
    }
}

#[test]
fn the_note_is_descriptor_3() {
    for start in WAYS {
        assert_eq!(run(start, "cat <&3").unwrap().1, "noted\n");
    }
}

#[test]
fn limits_hold_from_the_start() {
    let bounds = |soft, hard| Some(Bounds { soft, hard });
    let quota = Quota {
        cpu_seconds: bounds(1, 2),
        open_files: bounds(64, 64),
    };
    for start in WAYS {
        let limited = |script| run_program(start, c"/bin/sh", script, quota).unwrap();
        let (exit, output) = limited("ulimit -t; ulimit -n; kill -XCPU $$");
        assert_eq!(output, "1\n64\n");
        assert_eq!(exit, Exit::CpuLimit { seconds: 1 });
        let (exit, _) = limited("sh -c 'kill -XCPU $$'; exit $?");
        assert_eq!(exit, Exit::CpuLimit { seconds: 1 }, "seen by a shell above");
        let (exit, _) = limited("kill -9 $$");
        assert_eq!(exit, Exit::Signal(libc::SIGKILL), "it was not the limit");
    }
}

#[test]
fn who_does_not_heed_the_limit_of_processor_time_is_killed_a_second_later() {
    let quota = Quota {
        cpu_seconds: Some(Bounds { soft: 1, hard: 2 }),
        open_files: None,
    };
    let script = "trap '' XCPU; while :; do :; done";
    let (exit, _) = run_program(spawn, c"/bin/sh", script, quota).unwrap();
    assert_eq!(exit, Exit::CpuLimit { seconds: 1 });
}
