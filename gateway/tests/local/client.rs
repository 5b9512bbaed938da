//! The client commands against a running gateway: tables for people, JSON for programs, clear words when something is wrong.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};

use crate::support::eventually;
use crate::support::gateway::{Folder, Gateway, ask, run, skep, told};

/// What a command complained of; it must have failed.
fn complaint(gateway: &Gateway, args: &[&str]) -> String {
    let output = ask(gateway.address, args, "x");
    assert_eq!(
        output.status.code(),
        Some(1),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8(output.stderr).unwrap()
}

fn two() -> Gateway {
    let gateway = Gateway::of(
        "  cat:\n    fprocess: cat\n    image: my/cat\n    environment:\n      A: b\n  say:\n    fprocess: tee /dev/stderr\n    environment:\n      combine_output: false",
    );
    eventually("both answer", || {
        ["cat", "say"].iter().all(|name| {
            ask(gateway.address, &["invoke", name], "x")
                .status
                .success()
        })
    });
    gateway
}

#[test]
fn functions_are_listed_described_called_and_scaled() {
    let gateway = two();
    let list = told(gateway.address, &["ls"], "");
    assert!(
        list.starts_with("NAME  READY  CALLS  IMAGE\ncat   1/1"),
        "{list}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&told(gateway.address, &["ls", "--json"], "")).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 2);
    let described = told(gateway.address, &["describe", "cat"], "");
    for part in [
        &format!("http://{}/function/cat", gateway.address),
        "my/cat",
        "A=b",
        "ready",
    ] {
        assert!(described.contains(part), "{part} in {described}");
    }

    assert_eq!(
        told(gateway.address, &["invoke", "cat"], "from stdin"),
        "from stdin"
    );
    assert_eq!(
        told(
            gateway.address,
            &["invoke", "cat/path?q=1", "-d", "data", "-H", "X-A: b"],
            ""
        ),
        "data"
    );
    assert_eq!(
        told(gateway.address, &["scale", "cat", "2"], ""),
        "Scaled cat to 2\n"
    );
    eventually("two take calls", || {
        told(gateway.address, &["ls"], "").contains("2/2")
    });
    let nowhere = complaint(&gateway, &["invoke", "nobody"]);
    assert!(nowhere.contains("404"), "{nowhere}");
    let many = complaint(&gateway, &["scale", "cat", "1000000"]);
    assert!(many.contains("400: replicas:"), "{many}");
}

#[test]
fn logs_are_shown_as_lines_or_as_json() {
    let gateway = two();
    told(gateway.address, &["invoke", "say", "-d", "remarkable"], "");
    eventually("they are there", || {
        told(gateway.address, &["logs", "say"], "").contains("remarkable")
    });
    let line = told(
        gateway.address,
        &["logs", "say", "--tail", "1", "--json"],
        "",
    );
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["name"], "say");
    assert!(told(gateway.address, &["logs", "say", "--since", "1h"], "").contains("remarkable"));
    assert!(complaint(&gateway, &["logs", "nobody"]).contains("404"));
    assert!(
        complaint(&gateway, &["logs", "say", "--since", "soon"])
            .contains("--since: 'soon' is not a duration")
    );
}

#[test]
fn what_local_functions_cannot_do_is_told_in_the_gateways_words() {
    let gateway = two();
    for args in [
        ["rm", "cat", "", ""].as_slice(),
        &["deploy", "cat", "--image", "x"],
        &["secret", "create", "key", ""],
    ] {
        let args: Vec<_> = args.iter().copied().filter(|arg| !arg.is_empty()).collect();
        assert!(complaint(&gateway, &args).contains("501"), "{args:?}");
    }
    assert_eq!(told(gateway.address, &["secret", "ls"], ""), "NAME\n");
}

#[test]
fn the_doctor_finds_a_local_gateway_in_order_and_a_missing_one_not() {
    let gateway = two();
    let findings = told(gateway.address, &["doctor"], "");
    assert!(
        findings.lines().count() == 4 && findings.lines().all(|line| line.starts_with("ok")),
        "{findings}"
    );
    let output = skep()
        .args([
            "doctor",
            "--gateway",
            "http://127.0.0.1:1",
            "--docker-host",
            "unix:///nosuch.sock",
        ])
        .output()
        .unwrap();
    let findings = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        findings.contains("BAD  gateway")
            && findings.contains("--gateway")
            && findings.contains("BAD  engine"),
        "{findings}"
    );
}

#[test]
fn a_login_stands_in_the_address() {
    let folder = Folder::new();
    folder.write("basic-auth-user", "admin");
    folder.write("basic-auth-password", "s3cret");
    let gateway = Gateway::with(
        "  cat:\n    fprocess: cat",
        &[
            "--basic-auth",
            "true",
            "--secret-mount-path",
            folder.0.to_str().unwrap(),
        ],
    );
    let without = complaint(&gateway, &["ls"]);
    assert!(
        without.contains("401") && without.contains("skep login"),
        "{without}"
    );
    let address = format!("http://admin:s3cret@{}", gateway.address);
    assert!(told(gateway.address, &["ls", "--gateway", &address], "").contains("cat"));
}

#[test]
fn keys_are_made_listed_and_revoked_with_skep() {
    let state = Folder::new();
    let gateway = super::keys::locked("  cat:\n    fprocess: cat", &state);
    let address = format!("http://admin:s3cret@{}", gateway.address);
    let keys = |args: &[&str]| {
        let args = [&["keys"], args, &["--gateway", &address]].concat();
        ask(gateway.address, &args, "")
    };
    let made = keys(&[
        "create",
        "shop's till",
        "--scope",
        "invoke",
        "--function",
        "cat",
        "--expires",
        "720h",
    ]);
    let (text, said) = (
        String::from_utf8(made.stdout).unwrap(),
        String::from_utf8(made.stderr).unwrap(),
    );
    assert!(text.starts_with("skep_") && text.trim().len() == 82 && text.lines().count() == 1);
    let id = &text[5..17];
    assert!(
        said.contains(id) && said.contains("cannot be shown again"),
        "{said}"
    );
    let list = String::from_utf8(keys(&["ls"]).stdout).unwrap();
    let mut lines = list.lines();
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("ID            NAME         SCOPES  FUNCTIONS  CREATED BY"),
        "{list}"
    );
    let line = lines.next().unwrap();
    assert!(
        line.starts_with(&format!(
            "{id}  shop's till  invoke  cat        admin       20"
        )),
        "{line}"
    );
    assert!(line.ends_with("never") && !list.contains(text.trim()));
    let json: serde_json::Value = serde_json::from_slice(&keys(&["ls", "--json"]).stdout).unwrap();
    assert_eq!(json[0]["functions"], serde_json::json!(["cat"]));
    let json: serde_json::Value =
        serde_json::from_slice(&keys(&["create", "--scope", "read,invoke", "--json"]).stdout)
            .unwrap();
    assert!(json["key"].as_str().unwrap().starts_with("skep_") && json["kept"] == true);
    let removed = keys(&["rm", id]);
    assert_eq!(removed.stdout, format!("Revoked key {id}\n").as_bytes());
    let again = keys(&["rm", id]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("404"));
    let wrong = keys(&["create", "--scope", "root"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("scopes[0]"));
}

/// A gateway behind the login admin:s3cret, and an environment whose home is its folder.
fn behind_a_login() -> (Gateway, [(String, String); 2]) {
    let folder = Folder::new();
    folder.write("basic-auth-user", "admin");
    folder.write("basic-auth-password", "s3cret");
    let path = folder.0.to_str().unwrap();
    let flags = ["--basic-auth", "true", "--secret-mount-path", path];
    let gateway = Gateway::with("  cat:\n    fprocess: cat", &flags);
    let home = gateway.folder.0.to_str().unwrap().to_owned();
    let url = gateway.address.to_string();
    (
        gateway,
        [("HOME".to_owned(), home), ("skep_gateway".to_owned(), url)],
    )
}

/// Runs a command in this environment, with this on stdin.
fn at_home(env: &[(String, String)], args: &[&str], stdin: &str) -> Output {
    let mut child = skep()
        .args(args)
        .envs(env.iter().cloned())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that ends before it reads stdin closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn a_login_is_checked_saved_for_this_user_alone_used_and_forgotten() {
    let (gateway, env) = behind_a_login();
    let wrong = at_home(&env, &["login", "--password-stdin"], "guess\n");
    let complaint = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    assert!(
        complaint.contains("refused") && !complaint.contains("guess"),
        "{complaint}"
    );
    assert_eq!(at_home(&env, &["ls"], "").status.code(), Some(1));

    let good = at_home(
        &env,
        &["login", "-u", "admin", "--password-stdin"],
        "s3cret\n",
    );
    let said = String::from_utf8(good.stdout).unwrap();
    assert_eq!(
        said,
        format!("Logged in to http://{} as admin\n", gateway.address)
    );
    let file = gateway.folder.0.join(".config/skep/logins.json");
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(at_home(&env, &["ls"], "").status.success());
    assert!(at_home(&env, &["logout"], "").status.success());
    assert_eq!(at_home(&env, &["ls"], "").status.code(), Some(1));
    let again = at_home(&env, &["logout"], "");
    assert!(String::from_utf8_lossy(&again.stderr).contains("no login is saved"));
}

#[test]
fn the_login_that_faas_cli_saved_is_used() {
    let (gateway, env) = behind_a_login();
    std::fs::create_dir(gateway.folder.0.join(".openfaas")).unwrap();
    let config = format!(
        "auths:\n- gateway: http://other:1\n  auth: basic\n  token: eDp5\n- gateway: http://{}\n  auth: basic\n  token: YWRtaW46czNjcmV0\n",
        gateway.address
    );
    gateway.folder.write(".openfaas/config.yml", &config);
    assert!(at_home(&env, &["ls"], "").status.success());
}

#[test]
fn a_call_carries_the_key_to_a_function_that_asks_for_one_and_to_no_other() {
    let state = Folder::new();
    let functions =
        "  shop:\n    fprocess: env\n    labels:\n      skep.auth: key\n  open:\n    fprocess: env";
    let gateway = super::keys::locked(functions, &state);
    let admin = format!("http://admin:s3cret@{}", gateway.address);
    let key = told(
        gateway.address,
        &["keys", "create", "--scope", "invoke", "--gateway", &admin],
        "",
    );
    let key = key.trim();
    assert!(complaint(&gateway, &["invoke", "shop"]).contains("401"));
    let shop = told(gateway.address, &["invoke", "shop", "--key", key], "body");
    assert!(
        shop.contains("Http_Content_Length=4") && !shop.contains(key),
        "{shop}"
    );
    let open = told(gateway.address, &["invoke", "open", "--key", key], "body");
    assert!(
        open.contains("Http_Content_Length=4") && !open.contains(key),
        "{open}"
    );
}

#[test]
fn data_comes_from_files_and_json_is_printed_where_it_is_asked_for() {
    let gateway = two();
    let file = gateway.folder.write("body.txt", "from a file");
    let data = format!("@{}", file.display());
    assert_eq!(
        told(gateway.address, &["invoke", "cat", "-d", &data], ""),
        "from a file"
    );
    assert_eq!(
        told(gateway.address, &["invoke", "cat", "-d", "@-"], "piped"),
        "piped"
    );
    let missing = complaint(&gateway, &["invoke", "cat", "-d", "@/no/such"]);
    assert!(
        missing.contains("--data @/no/such: No such file"),
        "{missing}"
    );
    let json = |args: &[&str]| -> serde_json::Value {
        serde_json::from_str(&told(gateway.address, args, "text")).unwrap()
    };
    let answer = json(&["invoke", "cat", "--json"]);
    assert_eq!(
        (answer["status"].as_u64(), answer["body"].as_str()),
        (Some(200), Some("text"))
    );
    assert_eq!(
        answer["headers"]["x-served-by"].as_array().unwrap().len(),
        1
    );
    let scaled = json(&["scale", "cat", "1", "--json"]);
    assert_eq!(
        scaled,
        serde_json::json!({ "name": "cat", "status": "scaled" })
    );
    assert!(json(&["describe", "cat", "--json"])["tasks"].is_array());
}

#[test]
fn hints_on_wrong_arguments_do_not_lead_astray() {
    for (args, not, says) in [
        (
            ["scale", "cat", "-1"].as_slice(),
            "-- -1",
            "invalid value '-1'",
        ),
        (&["ls", "-x"], "-- -x", "unexpected argument '-x'"),
        (&["deploy", "cat", "-e", "a=b"], "-- ", "--image"),
    ] {
        let output = run(args, &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{args:?}");
        assert!(
            said.contains(says) && !said.contains(not),
            "{args:?}: {said}"
        );
    }
}
