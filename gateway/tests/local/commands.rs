//! The command line: help, settings, and one clear line for everything that is wrong.

use crate::support::gateway::{Folder, Gateway, run};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_and_version_are_enough_to_begin() {
    let help = run(&["--help"], &[]);
    assert!(help.status.success());
    for word in [
        "local",
        "config",
        "--port",
        "--network",
        "DOCKER_HOST",
        "upstream_timeout",
    ] {
        assert!(text(&help.stdout).contains(word), "{word}");
    }
    assert!(text(&run(&["--version"], &[]).stdout).starts_with("skep 0."));
}

#[test]
fn config_shows_every_setting_its_value_and_source() {
    let shown = run(
        &["config", "--port", "9000"],
        &[
            ("upstream_timeout", "5m"),
            ("DOCKER_HOST", "unix:///x.sock"),
        ],
    );
    assert!(shown.status.success());
    let shown = text(&shown.stdout);
    for setting in skep::config::SETTINGS {
        assert!(
            shown.lines().any(|line| line.starts_with(setting.env)),
            "{} in {shown}",
            setting.env
        );
    }
    for part in ["9000  (flag)", "5m  (environment)", "functions  (default)"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

#[test]
fn every_mistake_is_told_at_once_and_the_exit_code_is_64() {
    let wrong = run(
        &["--port", "x", "--idle-timeout", "never"],
        &[("log_format", "xml")],
    );
    assert_eq!(wrong.status.code(), Some(64));
    let told = text(&wrong.stderr);
    for name in ["--port=x", "--idle-timeout=never", "log_format=xml"] {
        assert!(told.contains(name), "{name} in {told}");
    }
    assert_eq!(run(&["--nosuch"], &[]).status.code(), Some(64));
    assert_eq!(run(&["nosuch"], &[]).status.code(), Some(64));
}

#[test]
fn a_port_in_use_is_one_clear_line() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let folder = Folder::new();
    let stack = folder.write("stack.yml", "functions:\n  cat:\n    fprocess: cat\n");
    let port = gateway.address.port().to_string();
    let second = run(&["local", stack.to_str().unwrap(), "--port", &port], &[]);
    assert_eq!(second.status.code(), Some(1));
    let told = text(&second.stderr);
    assert!(
        told.contains(&format!("cannot listen on 127.0.0.1:{port}")) && told.contains("--port"),
        "{told}"
    );
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[test]
fn a_missing_command_and_a_broken_stack_file_are_clear_lines() {
    let folder = Folder::new();
    let missing = folder.write(
        "missing.yml",
        "functions:\n  x:\n    fprocess: nosuchcommand\n",
    );
    let broken = folder.write("broken.yml", "functions: [\n");
    let empty = folder.write("empty.yml", "");
    for (file, says) in [
        (
            &missing,
            "function 'x': the command 'nosuchcommand' was not found",
        ),
        (&broken, "not a stack file"),
        (&empty, "not a stack file"),
    ] {
        let output = run(&["local", file.to_str().unwrap(), "--port", "0"], &[]);
        assert_eq!(output.status.code(), Some(1));
        let told = text(&output.stderr);
        assert!(
            told.contains(says) && told.contains(file.to_str().unwrap()),
            "{told}"
        );
    }
}
