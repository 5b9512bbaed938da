//! What is the operators', kept from pages of other sites, from hosts that are not ours, and from lines that others write.

use std::time::Duration;

use serde_json::json;

use crate::support::client::{Answer, get, raw, request};
use crate::support::gateway::{Folder, Gateway, run};
use crate::support::within;

const CAT: &str = "  cat:\n    fprocess: cat";
/// `admin:s3cret`.
const LOGIN: &str = "Authorization: Basic YWRtaW46czNjcmV0\r\n";
const LOGIN_FLAGS: [&str; 3] = [
    "--basic-auth=true",
    "--basic-auth-user=admin",
    "--basic-auth-password=s3cret",
];

/// A request with this host and these further lines of a head.
fn ask(to: std::net::SocketAddr, request: &str, host: &str, lines: &str, body: &str) -> Answer {
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: {host}\r\n{lines}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    raw(to, head.as_bytes()).unwrap()
}

fn replicas(gateway: &Gateway, lines: &str) -> u64 {
    let told = ask(
        gateway.address,
        "GET /system/function/cat",
        "test",
        lines,
        "",
    );
    told.json()["replicas"].as_u64().unwrap_or(0)
}

#[test]
fn a_page_of_another_site_changes_nothing_and_reads_nothing() {
    for (flags, login) in [(&[][..], ""), (&LOGIN_FLAGS[..], LOGIN)] {
        let gateway = Gateway::with(CAT, flags);
        let to = gateway.address;
        let own = format!("127.0.0.1:{}", to.port());
        let scale = "POST /system/scale-function/cat";
        for lines in [
            "Origin: http://evil.example\r\nContent-Type: text/plain\r\n".to_owned(),
            "Origin: null\r\n".to_owned(),
            "Sec-Fetch-Site: cross-site\r\n".to_owned(),
            "Sec-Fetch-Site: same-site\r\n".to_owned(),
            "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n".to_owned(),
            format!("Origin: http://{own}\r\nOrigin: http://evil.example\r\n"),
            format!("Origin: http://{own}.evil.example\r\n"),
            "Origin: http://127.0.0.1:1\r\n".to_owned(),
            // Nobody's word about the host counts but a trusted proxy's.
            "Origin: http://evil.example\r\nX-Forwarded-Host: evil.example\r\n".to_owned(),
        ] {
            let answer = ask(to, scale, &own, &format!("{login}{lines}"), r#"{"replicas":3}"#);
            assert_eq!(answer.status, 403, "{lines}: {}", answer.text());
            assert_eq!(answer.header("x-openfaas-internal"), Some("gateway"));
            let called = ask(to, "POST /function/cat", &own, &lines, "hi");
            assert_eq!((called.status, called.text().as_str()), (200, "hi"), "{lines}");
        }
        assert_eq!(replicas(&gateway, login), 1);
        for page in ["/system/functions", "/metrics", "/"] {
            let foreign = format!("{login}Origin: http://evil.example\r\n");
            assert_eq!(
                ask(to, &format!("GET {page}"), &own, &foreign, "").status,
                403
            );
            let link = format!(
                "{login}Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n"
            );
            assert_eq!(ask(to, &format!("GET {page}"), &own, &link, "").status, 200);
        }
        for lines in [
            format!("Origin: http://{own}\r\nSec-Fetch-Site: same-origin\r\n"),
            format!("Origin: HTTP://{own}\r\n"),
            "Sec-Fetch-Site: none\r\n".to_owned(),
        ] {
            let answer = ask(
                to,
                scale,
                &own,
                &format!("{login}{lines}"),
                r#"{"replicas":1}"#,
            );
            assert_eq!(answer.status, 202, "{lines}: {}", answer.text());
        }
        assert!(gateway.metric(r#"skep_refused_total{reason="forbidden"}"#) >= 12.0);
    }
}

#[test]
fn without_a_login_only_hosts_that_are_ours_are_answered() {
    let gateway = Gateway::with(CAT, &["--hosts", "faas.example.com", "--system-port", "0"]);
    let plain = Gateway::of(CAT);
    let behind = Gateway::with(CAT, &LOGIN_FLAGS);
    let system = gateway.port_for("/system and pages");
    for host in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
    ] {
        for (to, page) in [
            (system, "GET /system/functions"),
            (system, "GET /"),
            (system, "GET /metrics"),
            (plain.address, "POST /system/scale-function/cat"),
            (plain.address, "GET /system/info"),
            (plain.address, "GET /metrics"),
            (plain.address, "GET /"),
        ] {
            let answer = ask(to, page, host, "", r#"{"replicas":3}"#);
            assert_eq!(answer.status, 403, "{host} {page}: {}", answer.text());
            assert!(
                page == "GET /" || answer.text().contains("hosts"),
                "{}",
                answer.text()
            );
        }
        for page in ["/healthz", "/readyz"] {
            assert_eq!(
                ask(plain.address, &format!("GET {page}"), host, "", "").status,
                200
            );
        }
        let called = ask(plain.address, "POST /function/cat", host, "", "hi");
        assert_eq!(called.text(), "hi");
        let managed = ask(behind.address, "GET /system/functions", host, LOGIN, "");
        assert_eq!(managed.status, 200, "a login is better than a name");
    }
    for host in [
        "localhost",
        "127.0.0.1:1",
        "[::1]:8080",
        "gateway",
        "faas.example.com:8080",
    ] {
        let answer = ask(system, "GET /system/functions", host, "", "");
        assert_eq!(answer.status, 200, "{host}: {}", answer.text());
    }
    assert_eq!(replicas(&plain, ""), 1);
}

#[test]
fn on_an_address_that_others_reach_a_password_is_made_kept_and_shown_on_request() {
    let state = Folder::new();
    let folder = state.0.to_str().unwrap();
    let flags = ["--bind", "0.0.0.0", "--data-dir", folder];
    let mut known = String::new();
    for _ in 0..2 {
        let gateway = Gateway::with(CAT, &flags);
        let to = ([127, 0, 0, 1], gateway.address.port()).into();
        assert_eq!(get(to, "/system/functions").status, 401);
        assert_eq!(get(to, "/function/cat").status, 200);
        gateway.logs("skep password");
        let shown = run(&["password", "--data-dir", folder], &[]);
        assert!(shown.status.success());
        let password = String::from_utf8(shown.stdout).unwrap().trim().to_owned();
        assert!(password.len() >= 32 && (known.is_empty() || known == password));
        assert!(!gateway.log().contains(&password) && !gateway.greeting.contains(&password));
        assert_eq!(managed(to, &password), 200);
        known = password;
    }
    let unkept = Gateway::with(CAT, &["--bind", "0.0.0.0"]);
    let to = ([127, 0, 0, 1], unkept.address.port()).into();
    let shown = unkept.greeting.split("password ").nth(1).unwrap();
    assert_eq!(managed(to, shown.split(' ').next().unwrap()), 200);
    let open = Gateway::with(CAT, &["--bind", "0.0.0.0", "--basic-auth", "false"]);
    let to = ([127, 0, 0, 1], open.address.port()).into();
    assert_eq!(get(to, "/system/functions").status, 200);
}

fn managed(to: std::net::SocketAddr, password: &str) -> u16 {
    use base64::Engine as _;
    let login = base64::engine::general_purpose::STANDARD.encode(format!("admin:{password}"));
    let login = format!("Basic {login}");
    request(
        to,
        "GET",
        "/system/functions",
        &[("Authorization", &login)],
        b"",
    )
    .status
}

#[test]
fn a_password_that_was_given_or_is_not_kept_is_not_shown() {
    let state = Folder::new();
    let folder = state.0.to_str().unwrap();
    for (args, env, says) in [
        (
            ["password", "--data-dir", folder],
            ("x", "y"),
            "there is no password",
        ),
        (
            ["password", "--data-dir", folder],
            ("basic_auth_password", "z9z9"),
            "was given",
        ),
        (
            ["password", "--data-dir", folder],
            ("basic_auth", "false"),
            "basic_auth=false",
        ),
        (
            ["password", "--data-dir", "off"],
            ("x", "y"),
            "data_dir=off",
        ),
    ] {
        let ended = run(&args, &[env]);
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(
            ended.status.code() == Some(1) && ended.stdout.is_empty(),
            "{told}"
        );
        assert!(told.contains(says) && !told.contains("z9z9"), "{told}");
    }
    let entries = std::fs::read_dir(&state.0).unwrap();
    assert_eq!(entries.count(), 0, "it looks only");
}

#[test]
fn a_login_in_a_fifo_or_a_device_is_refused_and_not_waited_for() {
    let folder = Folder::new();
    folder.write("basic-auth-user", "admin");
    let file = folder.0.join("basic-auth-password");
    let path = folder.0.to_str().unwrap();
    for make in ["mkfifo \"$0\"", "ln -sf /dev/zero \"$0\"", "mkdir \"$0\""] {
        let made = std::process::Command::new("sh")
            .args(["-c", make])
            .arg(&file)
            .status();
        assert!(made.unwrap().success());
        let ended = run(
            &[
                "--basic-auth",
                "true",
                "--secret-mount-path",
                path,
                "--data-dir",
                "off",
                "--port",
                "0",
            ],
            &[],
        );
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{told}");
        assert!(told.contains("not a regular file"), "{make}: {told}");
        let _ = std::fs::remove_file(&file).or_else(|_| std::fs::remove_dir(&file));
    }
}

#[test]
fn nothing_from_outside_begins_a_line_of_the_log_or_commands_a_terminal() {
    let noisy = "  noisy:\n    fprocess: sh -c \"printf 'a\\\\033[2Jb\\\\rc\\\\302\\\\205d\\\\342\\\\200\\\\250e\\\\n' >&2\"\n    environment:\n      combine_output: false";
    let gateway = Gateway::of(noisy);
    get(gateway.address, "/function/noisy");
    let line = gateway.line(r"\u{1b}[2Jb");
    assert!(
        line.contains("noisy | ") && line.contains(r"a\u{1b}[2Jb\rc\u{85}d\u{2028}e"),
        "{line:?}"
    );
    let forged = "x\nINFO done audit=\"remove function\" who=admin";
    let bodies = [
        json!({ "service": forged, "image": "x" }),
        json!({ "service": "noisy", "image": forged }),
        json!({ "service": "noisy", "image": "x", "constraints": [format!("node.role == {forged}")] }),
        json!({ "service": "noisy", "image": "x", "constraints": ["node.role == worker\u{1b}[2J"] }),
        json!({ "service": "noisy", "image": "x", "labels": { forged: "x" } }),
        json!({ "service": "noisy", "image": "x", "annotations": { forged: "x" } }),
        json!({ "service": "noisy", "image": "x", "envVars": { forged: "x" } }),
        json!({ "service": "noisy", "image": "x", "secrets": [forged] }),
        json!({ "service": "noisy", "image": "x", "namespace": forged }),
    ];
    for body in bodies {
        let answer = request(
            gateway.address,
            "PUT",
            "/system/functions",
            &[],
            body.to_string().as_bytes(),
        );
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        assert_eq!(
            answer.text().trim_end().lines().count(),
            1,
            "{:?}",
            answer.text()
        );
    }
    let begins_as_one = |line: &str| line.starts_with("INFO done") || line.contains('\u{1b}');
    assert!(
        !gateway.log().lines().any(begins_as_one),
        "{}",
        gateway.log()
    );
}

#[test]
fn what_is_not_there_yet_is_named_with_what_to_do_instead() {
    let gateway = Gateway::of(CAT);
    for (method, path, body, says) in [
        (
            "POST",
            "/system/namespace/",
            r#"{"name":"mine"}"#,
            "leave the namespace out",
        ),
        ("PUT", "/system/namespace/mine", "{}", "openfaas-fn"),
        (
            "DELETE",
            "/system/namespace/mine",
            "{}",
            "leave the namespace out",
        ),
        (
            "POST",
            "/async-function/cat.openfaas-fn",
            "hi",
            "/function/<name>",
        ),
        (
            "POST",
            "/async-function/cat/path?q",
            "hi",
            "asynchronous calls are not there yet",
        ),
    ] {
        let answer = request(gateway.address, method, path, &[], body.as_bytes());
        assert_eq!(answer.status, 501, "{method} {path}: {}", answer.text());
        assert!(answer.text().contains(says), "{}", answer.text());
    }
    let there = get(gateway.address, "/system/namespace/openfaas-fn");
    assert_eq!(there.status, 200);
}

#[test]
fn the_list_and_the_detail_have_the_label_that_clients_look_for() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat\n    labels:\n      team: x");
    let wanted = json!({ "faas_function": "cat", "team": "x" });
    assert_eq!(
        get(gateway.address, "/system/functions").json()[0]["labels"],
        wanted
    );
    assert_eq!(
        get(gateway.address, "/system/function/cat").json()["labels"],
        wanted
    );
}

#[test]
fn ten_wrong_logins_lock_nobody_out_and_are_said_once() {
    let gateway = Gateway::with(CAT, &LOGIN_FLAGS);
    let to = gateway.address;
    let status = |login: &str| ask(to, "GET /system/functions", "test", login, "").status;
    let wrong = "Authorization: Basic YWRtaW46Z3Vlc3M=\r\n";
    let guesses: Vec<_> = (0..15).map(|_| status(wrong)).collect();
    assert_eq!(guesses[..10], [401; 10]);
    assert_eq!(guesses[10..], [429; 5]);
    assert_eq!(status(LOGIN), 200);
    let began = std::time::Instant::now();
    for _ in 0..8 {
        assert_eq!(status(wrong), 429);
    }
    assert!(
        began.elapsed() >= Duration::from_millis(600),
        "{:?}",
        began.elapsed()
    );
    // Also while others of the address guess as fast as they can.
    let guessers: Vec<_> = (0..20)
        .map(|_| {
            std::thread::spawn(move || ask(to, "GET /system/functions", "test", wrong, "").status)
        })
        .collect();
    within(Duration::from_secs(10), "the right one passes", || {
        status(LOGIN) == 200
    });
    for guesser in guessers {
        assert_eq!(guesser.join().unwrap(), 429);
    }
    let line = gateway.line("wrong logins");
    assert!(
        line.contains("WARN") && line.contains("127.0.0.1"),
        "{line}"
    );
    assert_eq!(gateway.log().matches("wrong logins").count(), 1);
}
