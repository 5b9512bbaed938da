//! What `skep local` refuses before it serves, which file it takes, and the words that it has for local functions.

use std::os::unix::fs::PermissionsExt;

use crate::support::client::{get, post};
use crate::support::eventually;
use crate::support::gateway::{Folder, Gateway, children, signal, skep};

/// Runs `skep local` in a folder to its end: the exit code, and what it says.
fn refused(folder: &Folder, args: &[&str]) -> (Option<i32>, String) {
    let output = skep()
        .arg("local")
        .args(args)
        .args(["--port", "0"])
        .current_dir(&folder.0)
        .output()
        .unwrap();
    assert!(output.stdout.is_empty(), "nothing was served");
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

#[test]
fn a_watchdog_that_cannot_start_is_refused_before_anything_is_started() {
    let folder = Folder::new();
    let functions = [
        (
            "quote",
            "    fprocess: sh -c \"echo\n",
            "fprocess has a \" that is never closed",
        ),
        (
            "first",
            "    fprocess: \"'cat\"\n",
            "fprocess has a ' that is never closed",
        ),
        (
            "http",
            "    fprocess: cat\n    environment:\n      mode: http\n",
            "http_upstream_url is not set",
        ),
        (
            "scheme",
            "    fprocess: cat\n    environment: {mode: http, upstream_url: \"ftp://127.0.0.1\"}\n",
            "upstream_url=ftp://127.0.0.1 ",
        ),
        (
            "jwt",
            "    fprocess: cat\n    environment:\n      jwt_auth: \"true\"\n",
            "jwt_auth=true is not offered",
        ),
        (
            "burn",
            "    fprocess: cat\n    environment:\n      mode: afterburn\n",
            "mode=afterburn is not offered",
        ),
        ("empty", "    fprocess: \"\"\n", "fprocess is not set"),
        (
            "blank",
            "    fprocess: \" cat\"\n",
            "fprocess begins with a space",
        ),
        (
            "args",
            "    fprocess: cat\n    environment: {input_mode: args, prefork: \"2\"}\n",
            "input_mode=args cannot go with prefork",
        ),
        (
            "gone",
            "    fprocess: nosuchcommand -x\n",
            "'nosuchcommand' was not found",
        ),
        (
            "handler",
            "    fprocess: cat\n    handler: ./hello\n",
            "handler: ./hello is not there: make the folder",
        ),
        (
            "file",
            "    fprocess: cat\n    handler: stack.yml\n",
            "handler: stack.yml is not a folder",
        ),
        (
            "script",
            "    fprocess: ./run.sh\n",
            "'./run.sh' is not executable: chmod +x ",
        ),
        (
            "name",
            "    fprocess: cat\n    environment: {\"a=b\": c}\n",
            "variable 'a=b': its name",
        ),
    ];
    let text: String = functions
        .iter()
        .map(|(name, body, _)| format!("  {name}:\n{body}"))
        .collect();
    let file = folder.write("stack.yml", &format!("functions:\n{text}"));
    folder.write("run.sh", "#!/bin/sh\ncat\n");
    let file = file.display().to_string();
    let (code, said) = refused(&folder, &[&file]);
    assert_eq!(code, Some(1), "{said}");
    for (name, _, sentence) in functions {
        let line = said
            .lines()
            .find(|line| line.contains(&format!("function '{name}': ")));
        let line = line.unwrap_or_else(|| panic!("nothing of {name} in {said}"));
        assert!(line.contains(sentence) && line.contains(&file), "{line}");
    }
    assert!(said.contains(&format!("chmod +x {}/run.sh", folder.0.display())));
}

#[test]
fn an_unknown_mode_and_secrets_are_warnings_and_the_function_runs() {
    let gateway = Gateway::of(
        "  cat:\n    fprocess: cat\n    environment:\n      mode: debug\n    secrets: [key]",
    );
    assert_eq!(post(gateway.address, "/function/cat", "hi").text(), "hi");
    gateway.logs("mode=debug is not a mode of the watchdog");
    gateway.logs("local functions have no secrets: give them what they need in");
}

#[test]
fn a_command_with_quotes_is_looked_for_as_the_watchdog_reads_it() {
    let gateway = Gateway::of(
        "  cat:\n    fprocess: \"'cat' '-'\"\n  files:\n    image: x\n    environment: {mode: static, static_path: /etc}",
    );
    assert_eq!(post(gateway.address, "/function/cat", "hi").text(), "hi");
    assert_eq!(get(gateway.address, "/function/files/passwd").status, 200);
}

#[test]
fn a_change_to_a_watchdog_that_cannot_start_leaves_the_functions_as_they_were() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    gateway.change("  cat:\n    fprocess: sh -c 'cat");
    gateway.logs("function 'cat': fprocess has a ' that is never closed");
    gateway.logs("the functions stay as they were");
    assert_eq!(post(gateway.address, "/function/cat", "hi").text(), "hi");
}

#[test]
fn without_a_file_the_stack_file_of_the_folder_is_taken() {
    let folder = Folder::new();
    let (code, said) = refused(&folder, &[]);
    assert_eq!(code, Some(1));
    for part in ["stack.yml", "stack.yaml", "skep local FILE"] {
        assert!(said.contains(part), "{said}");
    }
    folder.write("stack.yaml", "functions:\n  second:\n    fprocess: cat\n");
    let gateway = Gateway::in_folder(folder);
    assert_eq!(post(gateway.address, "/function/second", "hi").text(), "hi");
    drop(gateway);
    let folder = Folder::new();
    folder.write("stack.yaml", "functions:\n  second:\n    fprocess: cat\n");
    folder.write("stack.yml", "functions:\n  first:\n    fprocess: cat\n");
    let gateway = Gateway::in_folder(folder);
    assert_eq!(post(gateway.address, "/function/first", "hi").text(), "hi");
    gateway.logs("stack.yml is read, and stack.yaml is not");
}

#[test]
fn what_cannot_be_called_is_told_in_the_words_of_local_functions() {
    let folder = Folder::new();
    let home = folder.0.join("home");
    std::fs::create_dir(&home).unwrap();
    let program = home.join("run.sh");
    std::fs::write(&program, "#!/bin/sh\ncat\n").unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let functions = format!(
        "  cat:\n    fprocess: cat\n    labels: {{com.openfaas.scale.min: \"1\"}}\n  homeless:\n    fprocess: ./run.sh\n    handler: {}\n  \
         there:\n    annotations:\n      skep.upstream: http://127.0.0.1:1",
        home.display()
    );
    let gateway = Gateway::with(&functions, &["--patience", "300ms"]);
    let says = |path: &str, part: &str| {
        let answer = get(gateway.address, path);
        let text = answer.text();
        assert!(!text.contains("docker"), "{text}");
        answer.status == 503 && text.contains(part)
    };
    assert_eq!(
        post(gateway.address, "/function/homeless", "hi").text(),
        "hi"
    );
    // Its watchdog cannot be started again.
    std::fs::rename(&home, folder.0.join("elsewhere")).unwrap();
    for pid in children(gateway.pid()) {
        signal(pid, "KILL");
    }
    gateway.logs(&format!("the folder {} is not there", home.display()));
    eventually("it is said where the reason stands", || {
        says(
            "/function/homeless",
            "has no running replica of 1: its lines in the terminal of skep local say why, and so does skep logs homeless",
        )
    });
    eventually("the server that must run is named", || {
        says("/function/there", "skep.upstream names must be running")
    });
    let scaled = post(
        gateway.address,
        "/system/scale-function/cat",
        "{\"serviceName\":\"cat\",\"replicas\":0}",
    );
    assert_eq!(scaled.status, 202, "{}", scaled.text());
    assert!(says("/function/cat", "skep scale cat 1"));
    let not_ours = post(
        gateway.address,
        "/system/scale-function/there",
        "{\"serviceName\":\"there\",\"replicas\":2}",
    );
    assert_eq!(not_ours.status, 501);
    assert!(
        not_ours.text().contains("give the function an fprocess"),
        "{}",
        not_ours.text()
    );
}
